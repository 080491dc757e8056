"""Margins of observed masks: a tumour before, an ablation zone after, each on the grid of its own image."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.anatomy.grid import Grid
from thermosim.errors import InputError
from thermosim.outcome.level_set import (
    LevelSet,
    bounding_region,
    crop_grid,
    even_level_set,
    region_of_points,
)
from thermosim.outcome.margin import LIVER_REACH, MAXIMUM_VERTICES, liver_level_set, margin_at, tumor_site
from thermosim.outcome.results import TumorMargin
from thermosim.outcome.surface import extract_surface, moments, triangle_areas

FINEST_EDGE = 0.5e-3
"""Triangles of observed surfaces need not be smaller [m]."""

THICKEST_FACET = 1.5e-3
"""Slices thicker than this [m] are interpolated between."""

SIDE = 0.05
"""Least level of a voxel's centre on its own side, as a share of the shortest edge."""


@dataclass(frozen=True)
class ObservedShape:
    """A mask seen in an image, as a surface finer than its voxels.

    `level` positive inside; `surface` where it is zero; `volume` [m³] inside that surface.
    """

    level: LevelSet
    surface: TriangleSurface
    volume: float


def mask_level_set(mask: NDArray[np.bool_], grid: Grid) -> LevelSet:
    """A smooth level set of one observed object, true to its voxels and to its volume.

    As `smooth_level_set`, d = 2 G∗s − G∗G∗s, but the Gaussian is as wide as the terraces that voxels leave
    on a ball of the object's volume, σ = ½ √(R h), along every axis. Then each voxel's centre gets back
    its side, so that no thin part fades, and the surface is moved until it encloses the voxels' volume.

    Notes
    -----
    What binary masks leave open is in docs/numerics.md: on average second order in the voxel, at the
    worst place, a flat pole, a third of one.
    """
    region = bounding_region(mask, 0)
    assert region is not None
    spacing = np.asarray(grid.spacing)
    volume = float(np.count_nonzero(mask[region])) * grid.cell_volume
    radius = (3.0 * volume / (4.0 * np.pi)) ** (1 / 3)
    sigma = min(0.5 * float(np.sqrt(radius * spacing.max())), 0.25 * radius) / spacing
    width = [int(np.ceil(4 + 2 * s)) for s in sigma]
    inside = np.pad(mask[region], [(w, w) for w in width])
    whole = crop_grid(grid, tuple(slice(s.start - w, s.stop + w) for s, w in zip(region, width, strict=True)))  # type: ignore[arg-type]
    level = ndimage.distance_transform_edt(inside, sampling=grid.spacing).astype(np.float32)
    level -= ndimage.distance_transform_edt(~inside, sampling=grid.spacing).astype(np.float32)
    once = ndimage.gaussian_filter(level, sigma, mode="nearest", truncate=3.0)
    level = 2.0 * once - ndimage.gaussian_filter(once, sigma, mode="nearest", truncate=3.0)
    least = np.float32(SIDE * spacing.min())
    surface = extract_surface(_even(LevelSet(whole, _kept(level, inside, least))))
    enclosed, _, _ = moments(surface)
    area = float(triangle_areas(surface).sum())
    shift = 0.0 if area <= 0 else (volume - enclosed) / area
    level += np.float32(np.clip(shift, -0.5 * spacing.min(), 0.5 * spacing.min()))
    return LevelSet(whole, _kept(level, inside, least))


def _kept(level: NDArray[np.float32], inside: NDArray[np.bool_], least: np.float32) -> NDArray[np.float32]:
    """The level with every voxel's centre on its own side."""
    kept = np.where(inside, np.maximum(level, least), np.minimum(level, -least))
    return np.asarray(kept, dtype=np.float32)


def _even(level: LevelSet) -> LevelSet:
    """Without facets between thick slices."""
    return even_level_set(level, max(min(THICKEST_FACET, max(level.grid.spacing)), FINEST_EDGE))


def observed_shape(mask: NDArray[np.bool_], grid: Grid, what: str, most: int | None = None) -> ObservedShape:
    """The smooth shape of a binary mask; `most`: about so many vertices at most.

    Raises
    ------
    InputError : an empty mask.
    """
    if not mask.any():
        raise InputError(f"the mask of the {what} is empty; choose another file or segment")
    fine = _even(mask_level_set(mask, grid))
    surface = extract_surface(fine)
    volume, _, _ = moments(surface)
    if most is not None and len(surface.points) > 1.25 * most:
        edge = min(fine.grid.spacing) * float(np.sqrt(len(surface.points) / most))
        surface = extract_surface(even_level_set(fine, 1.15 * edge))
    if not volume > 0.0 or len(surface.triangles) == 0:
        raise InputError(f"the mask of the {what} encloses no volume; segment it on thinner slices")
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
    site = tumor_site(name, tumor.surface, tumor.volume, near, min(tumor.level.grid.spacing))
    return margin_at(site, None if zone is None else zone.level, None if zone is None else zone.surface)


def observed_shapes(
    tumor: tuple[NDArray[np.bool_], Grid], zone: tuple[NDArray[np.bool_], Grid]
) -> tuple[ObservedShape, ObservedShape]:
    """Shapes of tumour and zone, side by side on two cores."""
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(observed_shape, *tumor, "tumour", MAXIMUM_VERTICES)
        second = pool.submit(observed_shape, *zone, "ablation zone")
        return first.result(), second.result()
