"""Margins of observed masks: a tumour before, an ablation zone after, each on the grid of its own image."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.anatomy.grid import Grid
from thermosim.errors import InputError
from thermosim.outcome.level_set import (
    LevelSet,
    bounding_region,
    even_level_set,
    region_of_points,
    smooth_level_set,
)
from thermosim.outcome.margin import LIVER_REACH, MAXIMUM_VERTICES, liver_level_set, margin_of_surface
from thermosim.outcome.results import TumorMargin
from thermosim.outcome.surface import extract_surface, moments

FINEST_EDGE = 0.5e-3
"""Triangles of observed surfaces need not be smaller [m]."""

THICKEST_FACET = 1.5e-3
"""Slices thicker than this [m] are interpolated between."""


@dataclass(frozen=True)
class ObservedShape:
    """A mask seen in an image, as a surface finer than its voxels.

    `level` positive inside; `surface` where it is zero; `volume` [m³] inside that surface.
    """

    level: LevelSet
    surface: TriangleSurface
    volume: float


def observed_shape(mask: NDArray[np.bool_], grid: Grid, what: str, most: int | None = None) -> ObservedShape:
    """The smooth shape of a binary mask; `most`: about so many vertices at most.

    Raises
    ------
    InputError : an empty mask, or parts so thin that the smooth surface encloses nothing.
    """
    region = bounding_region(mask, 6)
    if region is None:
        raise InputError(f"the mask of the {what} is empty; choose another file or segment")
    level = smooth_level_set(mask, grid)
    edge = max(FINEST_EDGE, min(THICKEST_FACET, max(grid.spacing)))
    if most is not None:
        # A sphere of that volume, 15 % more area for bumps; marching cubes sets 1.5 vertices per h².
        volume = float(np.count_nonzero(mask[region])) * grid.cell_volume
        area = 1.15 * np.pi ** (1 / 3) * (6.0 * volume) ** (2 / 3)
        edge = max(edge, float(np.sqrt(1.5 * area / (1.4 * most))))
    fine = even_level_set(level, min(THICKEST_FACET, edge))
    surface = extract_surface(fine)
    volume, _, _ = moments(surface)
    if not volume > 0.0:
        raise InputError(
            f"the mask of the {what} has no part two voxels thick; segment it on thinner slices or smooth it"
        )
    if edge > 2 * min(fine.grid.spacing):
        surface = extract_surface(even_level_set(fine, edge))
    return ObservedShape(fine, surface, volume)


def observed_margin(
    name: str,
    tumor: ObservedShape,
    zone: ObservedShape | None,
    liver: tuple[NDArray[np.bool_], Grid] | None = None,
) -> TumorMargin:
    """The ablative margin of an observed tumour in an observed zone, both in one frame.

    Parameters
    ----------
    tumor : from `observed_shape`. zone : None for no ablation at all.
    liver : its mask on any grid, for the subcapsular rule and the shells; None where it is not known.
    """
    near: LevelSet | None = None
    if liver is not None:
        mask, grid = liver
        region = region_of_points(grid, tumor.surface.points, LIVER_REACH + max(grid.spacing))
        near = None if region is None else liver_level_set(mask, grid, region)
    return margin_of_surface(
        name,
        tumor.surface,
        tumor.volume,
        None if zone is None else zone.level,
        None if zone is None else zone.surface,
        near,
        min(tumor.level.grid.spacing),
    )


def observed_shapes(
    tumor: tuple[NDArray[np.bool_], Grid], zone: tuple[NDArray[np.bool_], Grid]
) -> tuple[ObservedShape, ObservedShape]:
    """Shapes of tumour and zone, side by side on two cores."""
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(observed_shape, *tumor, "tumour", MAXIMUM_VERTICES)
        second = pool.submit(observed_shape, *zone, "ablation zone")
        return first.result(), second.result()
