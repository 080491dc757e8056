"""Masks of zones and tumours from files, as subcommands take them: sub-voxel level sets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.anatomy.clinical_files import SURFACE_KINDS, read_mask
from thermosim.anatomy.grid import LPS_TO_RAS, Grid
from thermosim.anatomy.surface_files import read_surface
from thermosim.errors import InputError
from thermosim.outcome.level_set import LevelSet, smooth_level_set
from thermosim.outcome.surface import extract_surface, moments
from thermosim.units import MILLIMETRE

MOST_VOXELS = 2**28


@dataclass(frozen=True)
class MaskOptions:
    """How meshes are read: `frame` LPS or RAS, `unit` mm or m, `spacing_mm` of the voxels that fill them.

    Raises
    ------
    InputError : values that are none of these.
    """

    frame: str
    unit: str
    spacing_mm: float

    def __post_init__(self) -> None:
        if self.frame not in ("LPS", "RAS"):
            raise InputError(f"mesh_frame={self.frame!r} is not known; use LPS or RAS")
        if self.unit not in ("mm", "m"):
            raise InputError(f"mesh_unit={self.unit!r} is not known; use mm or m")
        if not (math.isfinite(self.spacing_mm) and 0.05 <= self.spacing_mm <= 10.0):
            raise InputError(
                f"mesh_spacing_mm={self.spacing_mm:g} mm is refused; it must be at least 0.05 and at "
                "most 10 mm"
            )


@dataclass(frozen=True)
class Mask:
    """A zone or tumour from a file: its level set, spacing of its voxels [m], DICOM's frame if it has one."""

    level: LevelSet
    spacing: tuple[float, ...]
    frame: str | None

    @property
    def surface(self) -> TriangleSurface:
        return extract_surface(self.level)


def read_zone(which: str, path: Path, segment: str | None, ct: str | None, options: MaskOptions) -> Mask:
    """The mask in a file; `which` key names it in errors, `ct` is the image it belongs to.

    Raises
    ------
    InputError : a file that cannot be used, or a mask too thin to be measured.
    """
    path = path.expanduser()
    grid = None
    try:
        if path.suffix.lower() in SURFACE_KINDS and ct is None:
            grid = voxels_of_mesh(path, options)
        image = read_mask(path, segment, grid=grid, ct=ct, frame=options.frame, unit=options.unit)
    except InputError as error:
        raise InputError(f"{which}: {error}") from None
    level = smooth_level_set(image.mask, image.grid)
    if not moments(extract_surface(level))[0] > 0.0:
        raise InputError(f"{which}: the mask is thinner than two voxels everywhere; nothing can be measured")
    return Mask(level, image.grid.spacing, image.frame_of_reference)


def voxels_of_mesh(path: Path, options: MaskOptions) -> Grid:
    """Voxels around a mesh, as fine as asked for."""
    to_lps = (MILLIMETRE if options.unit == "mm" else 1.0) * (
        LPS_TO_RAS if options.frame == "RAS" else np.eye(3)
    )
    points = read_surface(path).points @ to_lps.T
    spacing = options.spacing_mm * MILLIMETRE
    lower, upper = points.min(axis=0), points.max(axis=0)
    counts = np.ceil((upper - lower) / spacing) + 4
    if not np.all(np.isfinite(counts)) or np.prod(counts) > MOST_VOXELS:
        raise InputError(
            f"{path.name!r} would need {np.prod(counts):.2g} voxels of {options.spacing_mm:g} mm, more "
            f"than {MOST_VOXELS}; is mesh_unit={options.unit} right? Else raise mesh_spacing_mm"
        )
    shape = tuple(int(n) for n in counts)
    return Grid.box(tuple(0.5 * (lower + upper)), shape, spacing)  # type: ignore[arg-type]
