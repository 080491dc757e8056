"""The ablative margin: how far the ablation zone reaches beyond a tumour, all around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from thermosim.anatomy.anatomy import Anatomy, TriangleSurface
from thermosim.anatomy.grid import Grid
from thermosim.errors import InputError
from thermosim.outcome.coverage import Surroundings
from thermosim.outcome.level_set import (
    LevelSet,
    Region,
    crop_grid,
    region_of_points,
    smooth_level_set,
)
from thermosim.outcome.results import MarginStatistics, TumorMargin
from thermosim.outcome.surface import (
    extract_surface,
    moments,
    triangle_areas,
    vertex_areas,
    with_edge_length,
)
from thermosim.outcome.surface_distance import distance_to_surface

PERCENTILES = (1, 5, 25, 50, 75, 95)
LIMITS_MM = (0, 5, 10)
CAPSULE_DISTANCE = 5e-3
LIVER_REACH = 12e-3
"""How far around a tumour the liver is looked at [m]: beyond the thickest shell."""
LIVER_CELLS = 300_000
"""More cells than this around a tumour and the capsule is sought on every second one."""
MAXIMUM_VERTICES = 4000
"""Vertices of a tumour at which the margin is taken; a 30 mm sphere then has edges of 0.9 mm."""


def margin_between(
    points: NDArray[np.floating], zone: LevelSet | None, zone_surface: TriangleSurface | None = None
) -> NDArray[np.float64]:
    """Signed distance [m] from points of a tumour's surface to the surface of an ablation zone.

    margin(p) = ± min over the zone's surface of |p − x|, positive where p lies inside the zone. The
    distance is exact to the triangles of the zone; the sign is that of the level set.

    Parameters
    ----------
    points : (n, 3) LPS [m].
    zone : level set of the zone on any grid, anisotropic or oblique; None for no dead tissue.
    zone_surface : its surface if the caller has it already.

    Returns
    -------
    (n,) float64. Without any dead tissue every margin is minus the longest distance across the
    points: as if one dead spot were left at the far side of the tumour. The value is finite, so that
    it can be stored and ranked, and negative everywhere, so that it never passes for success.

    References
    ----------
    The minimal ablative margin: Laimer et al., European Radiology 30 (2020), issue 5.
    """
    positions = np.asarray(points, dtype=np.float64)
    if positions.ndim != 2 or positions.shape[1] != 3 or not np.isfinite(positions).all():
        raise InputError(f"margin points must be finite and of shape (n, 3), got {positions.shape}")
    surface = zone_surface if zone_surface is not None or zone is None else extract_surface(zone)
    if zone is None or surface is None or len(surface.triangles) == 0:
        return np.full(len(positions), -_longest_distance(positions))
    distance = distance_to_surface(positions, surface)
    return np.where(zone.sample(positions) > 0, distance, -distance)


def tumor_margin(
    anatomy: Anatomy, name: str, zone: LevelSet | None, zone_surface: TriangleSurface | None = None
) -> TumorMargin:
    """The ablative margin of one tumour of `anatomy`.

    Statistics are weighted by area. Places within 5 mm of the liver's capsule are marked, for a
    margin cannot exist outside the liver (subcapsular rule); faces of the box that cut the liver are
    no capsule. Places of the tumour's surface that lie in the blood of an open vessel have a margin
    but no weight.

    Parameters
    ----------
    anatomy : structures on the grid. name : a key of `anatomy.tumor_surfaces`.
    zone : dead tissue, from `thermosim.outcome.criteria.zone_level_set` or an observed mask.
    zone_surface : its surface if the caller has it already.

    Raises
    ------
    InputError : no such tumour, or its surface encloses nothing.
    """
    return margin_at(_site_in(anatomy, name), zone, zone_surface)


@dataclass(frozen=True)
class TumorSite:
    """A tumour and its surroundings: all that the margin needs to know before there is a zone.

    `surface`: closed, of triangles as small as the margin wants to be known; `volume` inside it [m³];
    `near_capsule`, `counted` (n_vertices,): within 5 mm of the liver's capsule, and with weight.
    """

    name: str
    surface: TriangleSurface
    volume: float
    near_capsule: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    surroundings: Surroundings


def tumor_site(
    name: str,
    surface: TriangleSurface,
    volume: float,
    liver: LevelSet | None,
    spacing: float,
    in_blood: NDArray[np.bool_] | None = None,
    blood: Sequence[LevelSet] = (),
) -> TumorSite:
    """A tumour's surface and what lies around it.

    Parameters
    ----------
    surface, volume : see `TumorSite`. liver : near the tumour, None for no capsule there.
    spacing : of the cells for volumes, at least [m].
    in_blood : (n_vertices,) vertices that do not count. blood : open vessels.
    """
    return TumorSite(
        name,
        surface,
        volume,
        _near_capsule(surface.points, liver),
        np.ones(len(surface.points), dtype=bool) if in_blood is None or in_blood.all() else ~in_blood,
        Surroundings(surface, liver, blood, spacing),
    )


_sites: WeakKeyDictionary[Anatomy, dict[str, TumorSite]] = WeakKeyDictionary()
"""Sites of the tumours of anatomies that are still in use: cases of a sweep share them."""


def _site_in(anatomy: Anatomy, name: str) -> TumorSite:
    """The site of a tumour of `anatomy`, made once."""
    known = _sites.setdefault(anatomy, {})
    if name not in known:
        known[name] = _made_site(anatomy, name)
    return known[name]


def _made_site(anatomy: Anatomy, name: str) -> TumorSite:
    if name not in anatomy.tumor_surfaces:
        raise InputError(f"no tumour {name!r}; there are {', '.join(anatomy.tumor_surfaces) or 'none'}")
    original = anatomy.tumor_surfaces[name]
    volume, _, _ = moments(original)
    if not volume > 0.0:
        raise InputError(
            f"the surface of tumour {name!r} encloses {1e6 * volume:g} ml; "
            "it must be closed with outward normals"
        )
    spacing = min(anatomy.grid.spacing)
    surface = with_edge_length(original, spacing, MAXIMUM_VERTICES)
    region = region_of_points(anatomy.grid, surface.points, LIVER_REACH)
    liver = None if region is None else liver_level_set(anatomy.liver_mask, anatomy.grid, region)
    return tumor_site(
        name,
        surface,
        volume,
        liver,
        spacing,
        in_blood=in_open_vessel(anatomy, surface.points),
        blood=[] if region is None else _blood(anatomy, region),
    )


def margin_at(
    site: TumorSite, zone: LevelSet | None, zone_surface: TriangleSurface | None = None
) -> TumorMargin:
    """The ablative margin at the vertices of a tumour's surface, and what follows from it.

    `zone` : dead tissue, None for none. `zone_surface` : its surface if the caller has it already.
    """
    surface, counted = site.surface, site.counted
    margin = margin_between(surface.points, zone, zone_surface)
    thinnest = int(np.argmin(np.where(counted, margin, np.inf)))
    covered = site.surroundings.coverage(zone)
    return TumorMargin(
        name=site.name,
        volume=site.volume,
        surface=surface,
        margin=margin,
        near_capsule=site.near_capsule.copy(),
        all_around=_required(margin_statistics(surface, margin, counted)),
        without_capsule=margin_statistics(surface, margin, counted & ~site.near_capsule),
        thinnest_point=surface.points[thinnest].copy(),
        shell_coverage=covered.shells,
        residual_volume=covered.residual * site.volume,
        coverage=1.0 - covered.residual,
    )


def margin_statistics(
    surface: TriangleSurface, margin: NDArray[np.float64], counted: NDArray[np.bool_]
) -> MarginStatistics | None:
    """Area-weighted statistics over the counted vertices; None if they stand for no area.

    Percentiles come from the cumulative area of the vertices; the shares below a limit from the
    exact area of each triangle on which the linear margin is below it.
    """
    weights = np.where(counted, vertex_areas(surface), 0.0)
    area = float(weights.sum())
    if area <= 0.0:
        return None
    order = np.argsort(margin[counted])
    values = margin[counted][order]
    sizes = weights[counted][order]
    middle = (np.cumsum(sizes) - 0.5 * sizes) / area
    percentiles = {p: float(np.interp(p / 100.0, middle, values)) for p in PERCENTILES}
    triangle_weights = triangle_areas(surface) * counted[surface.triangles].mean(axis=1)
    corners = np.sort(margin[surface.triangles], axis=1)
    below = {
        limit: float(min((_share_below(corners, 1e-3 * limit) * triangle_weights).sum() / area, 1.0))
        for limit in LIMITS_MM
    }
    return MarginStatistics(float(values[0]), percentiles, below, area)


def _share_below(corners: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    """Share of each triangle where the linear function of its sorted corner values is below `limit`."""
    low, middle, high = corners.T
    with np.errstate(divide="ignore", invalid="ignore"):
        rising = (limit - low) ** 2 / ((middle - low) * (high - low))
        falling = 1.0 - (high - limit) ** 2 / ((high - low) * (high - middle))
    share = np.where(limit <= middle, rising, falling)
    return np.where(limit <= low, 0.0, np.where(limit > high, 1.0, share))


def in_open_vessel(anatomy: Anatomy, points: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Whether LPS points [m] lie in the blood of an open vessel of the box."""
    inside = np.zeros(len(points), dtype=bool)
    coordinates = anatomy.grid.indices(points).T
    for lumen in anatomy.lumens:
        distance = ndimage.map_coordinates(lumen.signed_distance, coordinates, order=1, mode="nearest")
        inside |= distance < 0
    return inside & anatomy.grid.contains(points)


def liver_level_set(mask: NDArray[np.bool_], whole: Grid, region: Region) -> LevelSet | None:
    """The liver near a tumour, None where it has no capsule there (all liver or none at all)."""
    mask = mask[region]
    if mask.all() or not mask.any():
        return None
    grid = crop_grid(whole, region)
    # A capsule is known to a millimetre at best: every so many cells of a finer or a large grid will do.
    longest = 1.001e-3 if mask.size < LIVER_CELLS else 2.001e-3
    strides = [max(1, int(longest / h)) for h in grid.spacing]
    if max(strides) > 1:
        mask = mask[tuple(slice(None, None, stride) for stride in strides)]
        spacing = tuple(stride * h for stride, h in zip(strides, grid.spacing, strict=True))
        grid = Grid(mask.shape, spacing, grid.origin, grid.direction)  # type: ignore[arg-type]
    return smooth_level_set(mask, grid, closed=False)


def _near_capsule(points: NDArray[np.float64], liver: LevelSet | None) -> NDArray[np.bool_]:
    """Points within 5 mm of the liver's capsule or outside the liver."""
    if liver is None:
        return np.zeros(len(points), dtype=bool)
    # The level set of a mask is nearly a distance: only where that is not clear, measure.
    depth = liver.sample(points)
    doubt = np.abs(depth - CAPSULE_DISTANCE) < 3.0 * max(liver.grid.spacing)
    near = np.asarray(depth < CAPSULE_DISTANCE)
    capsule = extract_surface(liver)
    if doubt.any() and len(capsule.triangles):
        near[doubt] = (distance_to_surface(points[doubt], capsule) <= CAPSULE_DISTANCE) | (depth[doubt] < 0)
    return near


def _blood(anatomy: Anatomy, region: Region) -> list[LevelSet]:
    """Open vessels near a tumour, positive in the blood."""
    grid = crop_grid(anatomy.grid, region)
    found = []
    for lumen in anatomy.lumens:
        # Far from the wall a lumen's distance need not mean anything, not even be finite.
        reach = np.float32(10.0 * max(grid.spacing))
        level = np.clip(-lumen.signed_distance[region], -reach, reach)
        if (level > 0).any():
            found.append(LevelSet(grid, np.asarray(level, dtype=np.float32), closed=False))
    return found


def _longest_distance(points: NDArray[np.float64]) -> float:
    """Largest extent [m] of points over 61 directions: within 3 % of the longest distance across them."""
    if len(points) == 0:
        return 0.0
    steps = np.arange(61) + 0.5
    height = 1.0 - steps / 61.0
    turn = np.pi * (1.0 + 5.0**0.5) * steps
    ring = np.sqrt(1.0 - height**2)
    directions = np.column_stack([ring * np.cos(turn), ring * np.sin(turn), height])
    along = points @ directions.T
    return float((along.max(axis=0) - along.min(axis=0)).max())


def _required(statistics: MarginStatistics | None) -> MarginStatistics:
    if statistics is None:
        raise InputError("the tumour's surface has no area; check the mesh")
    return statistics
