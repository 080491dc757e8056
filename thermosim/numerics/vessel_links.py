"""Links of the heat problem fitted to the field beside the walls of vessels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.grid import Grid
from thermosim.errors import InputError
from thermosim.numerics.fit_limits import (
    FITTED_DISTANCE,
    LARGEST_FACTOR,
    SMALLEST_FACTOR,
    require_cubic_cells,
)
from thermosim.numerics.link_factors import LinkFactors

CHUNK = 8_000
"""Faces worked on at a time: what fits in the cache."""

Array = NDArray[np.float64]
Index = NDArray[np.int64]

THINNEST_TISSUE = 0.05
"""Cells of tissue between a cell's centre and the wall, at least: bounds the stiffness of wall links
by 35 and costs 0.2 % of the flow to a wall at blood temperature, nothing behind a film."""


def fit_vessel_links(
    grid: Grid,
    signed_distance: NDArray[np.floating],
    radius: NDArray[np.floating],
    wall_length: float,
    owner: int = 0,
) -> LinkFactors:
    """Links of the heat problem beside the walls of open vessels.

    The same construction with the reference field of a straight vessel, scaled to unit flux at the
    wall: φ = r_v ln(r / r_v), r = r_v + signed distance. A film shifts the blood's value to
    φ_b = -k / h_c. Since r² is quadratic beside a straight vessel of any direction, its finite
    differences are exact there.

    Parameters
    ----------
    signed_distance : (nx, ny, nz) distance of the cell centres to the wall [m], negative in blood;
        used within four cells of the wall. Blood is solid here, and so is a cell that only blood
        surrounds.
    radius : (nx, ny, nz) radius r_v of the vessel nearest to each cell [m].
    wall_length : k / h_c [m]; 0 for a wall at blood temperature.
    owner : index of this group of vessels.

    Raises
    ------
    InputError : wrong shapes, a radius that is not positive near the wall, a negative wall length.
    """
    h = require_cubic_cells(grid)
    if signed_distance.shape != grid.shape or radius.shape != grid.shape:
        raise InputError(
            f"vessel arrays have shapes {signed_distance.shape} and {radius.shape}, the grid {grid.shape}"
        )
    if not (np.isfinite(wall_length) and wall_length >= 0):
        raise InputError(f"wall length k / h_c is {wall_length} m; must be 0 (blood temperature) or positive")
    if np.isnan(signed_distance).any():
        raise InputError(
            "the signed distance to the vessels has cells that are not a number; fill them first"
        )
    distance = np.ascontiguousarray(signed_distance).ravel()
    local_radius = np.ascontiguousarray(radius).ravel()
    stride = (grid.shape[1] * grid.shape[2], grid.shape[2], 1)
    band = np.flatnonzero((distance >= 0) & (distance < (FITTED_DISTANCE + 1.0) * h))
    if not np.all(local_radius[band] > 0) or not np.all(np.isfinite(local_radius[band])):
        raise InputError("a vessel's radius beside its wall is not a positive number; give it in metres")
    index = np.stack(np.unravel_index(band, grid.shape), axis=1)
    contact = np.zeros(len(band), dtype=bool)
    for axis in range(3):
        for step in (-1, 1):
            other = index[:, axis] + step
            inside = (other >= 0) & (other < grid.shape[axis])
            contact |= inside & (distance[np.where(inside, band + step * stride[axis], band)] < 0)

    area = np.zeros(len(band))
    neighbours = np.zeros(len(band), dtype=np.int64)
    cells, axes, factors = [], [], []
    for axis in range(3):
        low = np.flatnonzero(index[:, axis] < grid.shape[axis] - 1)
        beyond = band[low] + stride[axis]
        high = np.minimum(np.searchsorted(band, beyond), len(band) - 1)
        tissue = band[high] == beyond if len(band) else np.zeros(0, dtype=bool)
        low, high = low[tissue], high[tissue]
        neighbours += np.bincount(low, minlength=len(band)) + np.bincount(high, minlength=len(band))
        pair = distance[np.stack([band[low], band[high]])].astype(np.float64)
        face_radius = local_radius[np.stack([band[low], band[high]])].astype(np.float64).mean(axis=0)
        potential = face_radius * np.log1p(pair / face_radius)
        difference = potential[1] - potential[0]
        factor = np.ones(len(low))
        chosen = np.flatnonzero((pair.min(axis=0) < FITTED_DISTANCE * h) & ~(contact[low] & contact[high]))
        for part in np.array_split(chosen, len(chosen) // CHUNK + 1):
            flux = _vessel_flux(grid, distance, face_radius[part], index[low[part]], axis)
            slope = difference[part]
            usable = (flux * slope > 0) & (np.abs(slope) > 0.03 * h)
            ratio = flux[usable] / slope[usable]
            factor[part[usable]] = np.clip(ratio, SMALLEST_FACTOR, LARGEST_FACTOR)
        flow = factor * difference
        area += np.bincount(low, flow, len(band)) - np.bincount(high, flow, len(band))
        changed = factor != 1.0
        cells.append(band[low[changed]])
        axes.append(np.full(int(changed.sum()), axis, dtype=np.int8))
        factors.append(factor[changed])

    wall = np.flatnonzero(contact & (area > 0))
    wall_radius = local_radius[band[wall]].astype(np.float64)
    drop = wall_radius * np.log1p(distance[band[wall]] / wall_radius) + wall_length
    return LinkFactors(
        solid_cells=np.union1d(np.flatnonzero(distance < 0), band[contact & (neighbours == 0)]),
        face_cells=np.concatenate(cells),
        face_axes=np.concatenate(axes),
        face_factors=np.concatenate(factors),
        wall_cells=band[wall],
        wall_owners=np.full(len(wall), owner, dtype=np.int32),
        wall_factors=area[wall] / np.maximum(drop, THINNEST_TISSUE * h),
        wall_areas=area[wall] * h,
    )


def behind_film(links: LinkFactors, spacing: float, wall_length: NDArray[np.float64]) -> LinkFactors:
    """Links to a wall at blood temperature as links behind a film that may differ from place to place.

    The film's resistance is in series: 1/g = 1/g₀ + L/A, with A the area of wall per cell's edge.

    Parameters
    ----------
    links : from `fit_vessel_links` with wall_length 0. spacing : [m].
    wall_length : k / h_c [m] of each wall link, (w,); k that of the cell.

    Raises
    ------
    InputError : a wall length that is negative or not finite.
    """
    length = np.asarray(wall_length, dtype=np.float64)
    if not (np.isfinite(length).all() and (length >= 0).all()):
        raise InputError("a wall length k / h_c is negative or not finite; give positive film coefficients")
    area = links.wall_areas / spacing
    return replace(links, wall_factors=1.0 / (1.0 / links.wall_factors + length / area))


def _vessel_flux(grid: Grid, distance: NDArray[np.floating], radius: Array, index: Index, axis: int) -> Array:
    """∫ ∂φ/∂n dA / h with φ = r_v ln r through the faces beyond `index` along `axis`.

    ∇φ = r_v ∇q / (2 q) with q = r², interpolated quadratically from the cells around the face.
    """
    h = grid.spacing[0]
    stride = (grid.shape[1] * grid.shape[2], grid.shape[2], 1)

    def places(a: int, steps: tuple[int, ...]) -> dict[int, Index]:
        """Part of a cell's number along axis `a`, so many steps away or at the box's face."""
        return {step: np.clip(index[:, a] + step, 0, grid.shape[a] - 1) * stride[a] for step in steps}

    first, second = (places(a, (-1, 0, 1)) for a in range(3) if a != axis)
    ahead = places(axis, (-1, 0, 1, 2))
    beside = {(m, n): first[m] + second[n] for m in first for n in second}

    def squared(step: int, m: int, n: int) -> Array:
        return np.asarray(np.maximum(radius + distance.take(ahead[step] + beside[m, n]), 0.0) ** 2)

    low = {(m, n): squared(0, m, n) for m in (-1, 0, 1) for n in (-1, 0, 1)}
    high = {(m, n): squared(1, m, n) for m in (-1, 0, 1) for n in (-1, 0, 1)}
    jump = {key: high[key] - low[key] for key in low}
    mean = {key: 0.5 * (high[key] + low[key]) for key in low}
    bend = 0.5 * (squared(-1, 0, 0) - low[0, 0] - high[0, 0] + squared(2, 0, 0))
    middle = mean[0, 0] - bend / 8
    slope_y, slope_z = 0.5 * (jump[1, 0] - jump[-1, 0]), 0.5 * (jump[0, 1] - jump[0, -1])
    q_y, q_z = 0.5 * (mean[1, 0] - mean[-1, 0]), 0.5 * (mean[0, 1] - mean[0, -1])
    q_yy, q_zz = (mean[1, 0] - 2 * mean[0, 0] + mean[-1, 0], mean[0, 1] - 2 * mean[0, 0] + mean[0, -1])
    q_yz = 0.25 * (mean[1, 1] - mean[1, -1] - mean[-1, 1] + mean[-1, -1])
    nodes, weights = np.polynomial.legendre.leggauss(3)
    nodes, weights = 0.5 * nodes, 0.5 * weights
    along_z = [(q_z * z, q_zz * z * z, slope_z * z) for z in nodes]
    total = np.zeros(len(index))
    for y, weight_y in zip(nodes, weights, strict=True):
        linear, square, twist, slope = middle + q_y * y, q_yy * y * y, q_yz * y, jump[0, 0] + slope_y * y
        for (linear_z, square_z, rise), z, weight_z in zip(along_z, nodes, weights, strict=True):
            q = linear + linear_z + 0.5 * (square + square_z) + twist * z
            gradient = (slope + rise) / h
            total += weight_y * weight_z * gradient / np.maximum(q, (0.1 * h) ** 2)
    return np.asarray(0.5 * radius * total * h)
