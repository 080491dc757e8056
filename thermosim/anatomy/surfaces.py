"""A patient given as closed surfaces, one file per structure."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import Anatomy, Role, Structure, TriangleSurface
from thermosim.anatomy.bodies import Body, bodies_of
from thermosim.anatomy.centre_lines import centre_lines
from thermosim.anatomy.datasets import locate
from thermosim.anatomy.grid import LPS_TO_RAS, Grid
from thermosim.anatomy.layout_on_grid import display_surfaces, lay_on_grid
from thermosim.anatomy.mesh import centroid, clean, nearest_part
from thermosim.anatomy.rasterize import Solid
from thermosim.anatomy.surface_files import check_frame, read_surface
from thermosim.anatomy.vessel_tree import VesselTree
from thermosim.config import StructureConfig, SurfaceConfig, SurfacesAnatomyConfig
from thermosim.errors import InputError
from thermosim.units import MILLIMETRE

BACKGROUND = Structure(0, "background", "background", "background")
MAXIMUM_STRUCTURES = 255


class SurfacesSource:
    """Closed surfaces (STL, OBJ, PLY, VTK, VTP) as an `AnatomySource`.

    Parameters
    ----------
    config : where the files lie, their frame and unit, and what each stands for.

    Raises
    ------
    InputError : a file is missing, damaged or clearly open; no tumour; an unknown role, frame or
        unit; an anatomy of a size no patient has.
    """

    def __init__(self, config: SurfacesAnatomyConfig) -> None:
        if config.frame not in ("LPS", "RAS"):
            raise InputError(f"frame {config.frame!r}, must be LPS or RAS")
        if config.unit not in ("mm", "m"):
            raise InputError(f"unit {config.unit!r}, must be mm or m")
        directory = locate(config.dataset) if config.dataset else _directory(config.directory)
        scale = MILLIMETRE if config.unit == "mm" else 1.0
        to_lps = np.diag([scale] * 3) @ (LPS_TO_RAS if config.frame == "RAS" else np.eye(3))
        notes: list[str] = []
        self._solids: list[Solid] = []
        check_structures(dict(config.surfaces))
        for key, surface in config.surfaces.items():
            solid, mended = _read(directory, key, surface, len(self._solids) + 1, to_lps)
            check_frame(directory / surface.file, config.frame, "anatomy.frame")
            self._solids.append(solid)
            notes += mended
        self._notes = tuple(notes)
        lower, upper = self.extent()
        size = float(np.linalg.norm(upper - lower))
        if not 0.005 < size < 3.0:
            raise InputError(
                f"the surfaces span {1e3 * size:g} mm, must be 5 mm to 3 m; is unit={config.unit} right?"
            )

    @property
    def structures(self) -> tuple[Structure, ...]:
        """All structures, the background (label 0) first."""
        return (BACKGROUND, *(solid.structure for solid in self._solids))

    @property
    def notes(self) -> tuple[str, ...]:
        """What was mended while reading."""
        return self._notes

    def extent(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Corners of the box around all surfaces [m, LPS]."""
        points = [solid.surface.points for solid in self._solids]
        return np.min([p.min(axis=0) for p in points], axis=0), np.max(
            [p.max(axis=0) for p in points], axis=0
        )

    def tumor_centers(self) -> dict[str, NDArray[np.float64]]:
        """Centre of each tumour's volume [m, LPS], by name."""
        return tumor_centers(self._solids)

    def rasterize(self, grid: Grid, minimum_vessel_diameter: float) -> Anatomy:
        """Lay the surfaces on an isotropic, axis-aligned grid; overlaps by priority, then role."""
        return lay_on_grid(BACKGROUND, self._solids, grid, minimum_vessel_diameter, None, self._notes)

    def vessel_tree(self, group: str) -> VesselTree:
        """Centre lines of one group of vessels, skeletonised."""
        return centre_lines([s.surface for s in self._solids if s.structure.vessel_group == group], group)

    def bodies(self) -> tuple[Body, ...]:
        """Each structure's surface as a body."""
        return bodies_of(self._solids)

    def field_of_view(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Not known: surfaces do not say what lies around them."""
        return None

    def display_surfaces(self) -> dict[str, TriangleSurface]:
        """All structures as light surfaces, by name."""
        return display_surfaces(self._solids)


def check_structures(configs: dict[str, StructureConfig] | dict[str, SurfaceConfig]) -> None:
    """Refuse unknown roles, repeated names, too many structures, or none with the role tumor."""
    roles, names = get_args(Role), set()
    for key, config in configs.items():
        if config.role not in roles:
            raise InputError(f"{key}: role {config.role!r}, must be one of {', '.join(roles)}")
        name = config.name or key
        if name in names or (name == BACKGROUND.name and key != "0"):
            raise InputError(f"two structures are called {name!r}; give each its own name")
        names.add(name)
    if not any(config.role == "tumor" for config in configs.values()):
        raise InputError("no structure has the role tumor; nothing to treat: set role: tumor on one of them")
    if len(configs) > MAXIMUM_STRUCTURES:
        raise InputError(f"{len(configs)} structures, at most {MAXIMUM_STRUCTURES}; leave some out")


def structure_from(config: StructureConfig, key: str, label: int) -> Structure:
    """A structure from its config; a vessel without a group is a group of its own."""
    name = config.name or key
    role: Role = config.role  # type: ignore[assignment]
    group = (config.vessel_group or name) if role == "vessel" else None
    return Structure(label, name, config.tissue, role, group)


def tumor_centers(solids: list[Solid]) -> dict[str, NDArray[np.float64]]:
    """Centre of each tumour's volume [m, LPS], by name."""
    return {s.structure.name: centroid(s.surface) for s in solids if s.structure.role == "tumor"}


def _directory(text: str) -> Path:
    directory = Path(text).expanduser()
    if text in ("", "???") or not directory.is_dir():
        raise InputError("the directory of the surfaces was not found; set anatomy.directory to a folder")
    return directory


def _read(
    directory: Path, key: str, config: SurfaceConfig, label: int, to_lps: NDArray[np.float64]
) -> tuple[Solid, list[str]]:
    structure = structure_from(config, key, label)
    raw = read_surface(directory / config.file)
    in_lps = TriangleSurface(raw.points @ to_lps.T, raw.triangles)
    surface, notes = clean(in_lps, structure.name)
    if config.near_mm is not None:
        point = np.asarray(config.near_mm, np.float64) * MILLIMETRE
        if point.shape != (3,) or not np.isfinite(point).all():
            raise InputError(f"{key}: near_mm must be three numbers, got {list(config.near_mm)}")
        surface = nearest_part(surface, point, structure.name)
    return Solid(structure, surface, config.priority), notes
