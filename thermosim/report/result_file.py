"""Zones of a finished run, read back from its result.h5 as finely as they were assessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
import yaml
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import Anatomy, Lumen, Role, Structure, TriangleSurface
from thermosim.anatomy.grid import Grid
from thermosim.config import DamageConfig
from thermosim.errors import InputError
from thermosim.outcome.criteria import CRITERIA, describe, zone_level_set
from thermosim.outcome.level_set import LevelSet, Region, bounding_region, crop_grid, smooth_level_set
from thermosim.report.hdf5 import FORMAT

MOST_CELLS = 2**29
LONGEST_CONFIG = 10_000_000
"""Bytes of the configuration kept in a file."""

FIELDS = ("highest_temperature", "damage_integral", "thermal_dose", "dead_fraction")
PADDING = 6
"""Cells read around everything that is dead."""


@dataclass(frozen=True)
class StoredFields:
    """What the criteria of death look at, from a file."""

    anatomy: Anatomy
    solid_mask: NDArray[np.bool_]
    highest_temperature: NDArray[np.float32]
    damage_integral: NDArray[np.float32]
    thermal_dose: NDArray[np.float32]
    dead_fraction: NDArray[np.float32]


@dataclass(frozen=True)
class StoredRun:
    """A run as its file tells it.

    `zones` by criterion, None where nothing died; `descriptions` of them in words; `criterion` of the
    run's own verdict; `tumors` by name; `spacing` of the grid [m]; `completed`: the protocol ended.
    `touches_box`: criteria whose zone reaches the faces of the computed box.
    """

    criterion: str
    zones: dict[str, LevelSet | None]
    descriptions: dict[str, str]
    tumors: dict[str, TriangleSurface]
    spacing: float
    completed: bool
    touches_box: tuple[str, ...]


def read_run(path: Path) -> StoredRun:
    """Zones by every criterion, and tumours, of a result.h5.

    The zones are the level sets of the stored fields, cut at the walls of the vessels that the stored
    masks leave out; a wall is known there as finely as a smoothed mask of the vessel's cells.

    Raises
    ------
    InputError : no such file, not a result of thermosim, damaged.
    """
    if not path.is_file():
        raise InputError(f"{path.name!r} was not found; name the directory of a run or its result.h5")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise InputError(f"{path.name!r} is no {FORMAT} file; name the result.h5 of a run")
            return _read(file)
    except (OSError, KeyError, ValueError, TypeError, IndexError, yaml.YAMLError, RuntimeError) as error:
        raise InputError(
            f"{path.name!r} is damaged or no result of thermosim ({type(error).__name__})"
        ) from error


def _read(file: Any) -> StoredRun:
    shape = tuple(int(n) for n in _dataset(file, "grid/shape", (3,))[:])
    if min(shape) < 1 or int(np.prod(shape, dtype=np.int64)) > MOST_CELLS:
        raise ValueError("size of the grid")
    spacing, origin = (_dataset(file, f"grid/{name}", (3,))[:].tolist() for name in ("spacing", "origin"))
    direction = tuple(tuple(row) for row in _dataset(file, "grid/direction", (3, 3))[:].tolist())
    grid = Grid(shape, tuple(spacing), tuple(origin), direction)  # type: ignore[arg-type]
    stored = sorted(set(file["zones"]) & set(CRITERIA), key=CRITERIA.index)
    damage, criterion = _damage(file), str(file["zones"].attrs["criterion"])
    if criterion not in stored:
        raise ValueError("criterion")
    masks = {name: np.asarray(_dataset(file, f"zones/{name}", shape)[:] > 0) for name in stored}
    region = bounding_region(np.logical_or.reduce(list(masks.values())), PADDING)
    zones: dict[str, LevelSet | None] = dict.fromkeys(stored)
    if region is not None:
        kept = _fields(file, grid, region)
        for name in stored:
            zones[name] = _zone(kept, name, damage, masks[name][region])
    return StoredRun(
        criterion=criterion,
        zones=zones,
        descriptions={name: describe(name, damage) for name in stored},
        tumors=_tumors(file),
        spacing=min(grid.spacing),
        completed=bool(file.attrs["completed"]),
        touches_box=tuple(name for name, mask in masks.items() if _touches(mask)),
    )


def _dataset(file: Any, name: str, shape: tuple[int, ...] | None = None) -> Any:
    """A plain dataset of the file itself: links to other files are not followed."""
    for depth in range(1, name.count("/") + 2):
        link = file.get("/".join(name.split("/")[:depth]), getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise KeyError(name)
    found = file[name]
    if not isinstance(found, h5py.Dataset) or found.external or found.is_virtual:
        raise KeyError(name)
    if shape is not None and found.shape != shape:
        raise ValueError(name)
    return found


def _damage(file: Any) -> DamageConfig:
    """The thresholds the run was judged with."""
    text = _dataset(file, "provenance/config", ())
    raw = text[()]
    if len(raw) > LONGEST_CONFIG:
        raise ValueError("config")
    found = yaml.safe_load(raw)
    given = found.get("damage", {}) if isinstance(found, Mapping) else {}
    known = {entry.name for entry in fields(DamageConfig)}
    return DamageConfig(**{str(key): value for key, value in given.items() if key in known})


def _fields(file: Any, grid: Grid, region: Region) -> StoredFields:
    labels = np.asarray(_dataset(file, "anatomy/labels", grid.shape)[region], np.uint8)
    columns = {
        name: [
            v.decode() if isinstance(v, bytes) else v for v in _dataset(file, f"anatomy/structures/{name}")[:]
        ]
        for name in ("label", "name", "tissue", "role", "vessel_group")
    }
    structures = tuple(
        Structure(int(label), name, tissue, cast(Role, role), group or None)
        for label, name, tissue, role, group in zip(*columns.values(), strict=True)
    )
    solid = np.asarray(_dataset(file, "anatomy/solid_mask", grid.shape)[region] > 0)
    anatomy = Anatomy(crop_grid(grid, region), labels, structures, np.ones(labels.shape, bool), {})
    values = {
        name: np.asarray(_dataset(file, f"fields/{name}", grid.shape)[region], np.float32) for name in FIELDS
    }
    return StoredFields(anatomy, solid, **values)


def _zone(
    kept: StoredFields, criterion: str, damage: DamageConfig, mask: NDArray[np.bool_]
) -> LevelSet | None:
    """The level set of one criterion, less the blood of open vessels, which its stored mask leaves out."""
    level = zone_level_set(kept, criterion, damage)
    if level is None:
        return None
    dead = level.on(kept.anatomy.grid) > 0
    lumens = []
    for structure in kept.anatomy.with_role("vessel"):
        blood = kept.anatomy.labels == structure.label
        if (blood & dead & ~mask & ~kept.solid_mask).any():
            wall = smooth_level_set(blood, kept.anatomy.grid, closed=False)
            lumens.append(Lumen(structure.name, -wall.values, np.zeros((1, 1, 1), np.float32)))
    if lumens:
        opened = replace(kept, anatomy=replace(kept.anatomy, lumens=tuple(lumens)))
        level = zone_level_set(opened, criterion, damage)
    return level


def _tumors(file: Any) -> dict[str, TriangleSurface]:
    found = {}
    for key in file["tumors"]:
        points = np.asarray(_dataset(file, f"tumors/{key}/points")[:], np.float64)
        triangles = np.asarray(_dataset(file, f"tumors/{key}/triangles")[:], np.int64)
        if points.ndim != 2 or points.shape[1] != 3 or triangles.ndim != 2 or triangles.shape[1] != 3:
            raise ValueError(key)
        if len(triangles) and not (triangles.min() >= 0 and triangles.max() < len(points)):
            raise ValueError(key)
        found[str(file[f"tumors/{key}"].attrs["name"])] = TriangleSurface(points, triangles)
    return found


def _touches(mask: NDArray[np.bool_]) -> bool:
    return any(np.moveaxis(mask, axis, 0)[end].any() for axis in range(3) for end in (0, -1))
