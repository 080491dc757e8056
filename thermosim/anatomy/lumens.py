"""The open vessels on a grid: distance to the wall and local radius, finer than a cell.

The local radius is the local thickness of Hildebrand & Rüegsegger (J. Microsc. 185:67, 1997,
doi:10.1046/j.1365-2818.1997.1340694.x): the radius of the largest ball that fits into the lumen
and reaches the place. Balls are found on the surface itself by shrinking balls tangent to the wall
(Ma, Bae & Choi, Vis. Comput. 28:7, 2012, doi:10.1007/s00371-011-0594-7), so that the result does
not depend on the grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.anatomy.grid import Grid
from thermosim.anatomy.mesh import select
from thermosim.anatomy.rasterize import inside

BAND = 4.5
"""The distance is computed within so many cells of the wall and clamped beyond."""

SURROUNDINGS = 0.02
"""The wall is looked at so far beyond the box [m]: more than the widest vessel is deep."""

TOLERANCE = 0.25
"""While shrinking, a ball may cut into the wall beside its foot by this share of its radius, so that
facets and noise do not stop it; it is centred and measured exactly afterwards."""

RADIUS_SAMPLING = 3e-4
"""Distance of the wall's samples where the local radius is asked for at single points [m]."""

HYSTERESIS = 0.9
"""Parts thinner than the threshold by less than this factor stay if thicker ones hold them."""

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Wall:
    """Samples of a vessel's wall: `points` (n, 3) [m], inward `normals`, the `triangle` each
    lies on and its `clearance` from that triangle's edges [m]."""

    surface: TriangleSurface
    points: Points
    normals: Points
    triangle: NDArray[np.int64]
    clearance: NDArray[np.float64]


@dataclass(frozen=True)
class Balls:
    """Balls that fit the lumen: `centers` (n, 3) [m] and `radii` (n,) [m]."""

    centers: Points
    radii: NDArray[np.float64]


def vessel_distance(
    surface: TriangleSurface, grid: Grid, minimum_diameter: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], int] | None:
    """Signed distance to the wall and local radius of one closed vessel surface.

    Parameters
    ----------
    surface : closed, outward [m, LPS]. grid : isotropic and axis-aligned.
    minimum_diameter : parts of the lumen thinner than this are left out [m].

    Returns
    -------
    (signed distance [m], negative in the blood and clamped beyond ``BAND`` cells outside; radius
    [m]; number of cells that were added to keep vessels thinner than a cell connected), or None if
    nothing thick enough lies in the box.
    """
    spacing = grid.spacing[0]
    fine = min(0.5 * spacing, 0.15 * max(minimum_diameter, 0.001))
    wall = _sample_wall(surface, grid.lower_corner, grid.upper_corner, fine)
    if wall is None:
        return None
    balls = _thick_enough(*_cover(wall, minimum_diameter), minimum_diameter)
    kept_balls, ball_of_sample, kept_sample = balls
    if not kept_sample.any():
        return None
    mask = inside(surface, grid)
    near = _near_wall(wall.points, grid)
    cells = np.argwhere(near)
    if not len(cells):
        return None
    centers = grid.points(cells)
    candidates = cKDTree(wall.points).query(centers, k=3)[1]  # beside an edge the second may be nearer
    to_candidates = [point_triangle_distance(centers, wall.surface, wall.triangle[c]) for c in candidates.T]
    distance, nearest = np.min(to_candidates, axis=0), candidates[:, 0]
    distance = np.where(mask[tuple(cells.T)], -distance, distance)
    radius = kept_balls.radii[ball_of_sample[nearest]]
    thin = ~kept_sample[nearest]
    if thin.any():
        to_ball, which = _union_distance(centers[thin], kept_balls)
        distance[thin] = np.maximum(distance[thin], to_ball)
        radius[thin] = kept_balls.radii[which]
    limit = BAND * spacing
    field = np.full(grid.shape, limit, np.float32)
    field[tuple(cells.T)] = np.minimum(distance, limit)
    radii = np.full(grid.shape, np.median(radius), np.float32)
    radii[tuple(cells.T)] = radius
    _fill_deep(field, radii, near, mask)
    n_added = _keep_connected(field, radii, kept_balls, grid)
    if not (field < 0).any():
        return None
    return field, radii, n_added


def local_radius(surface: TriangleSurface, points: Points, within: float = 0.0) -> NDArray[np.float64]:
    """Radius [m] of the widest inscribed ball that comes as near as `within` [m] to each point (n, 3).

    That is the local thickness there; where no ball comes so near, the radius of the nearest one.
    """
    wall = _sample_wall(surface, points.min(axis=0), points.max(axis=0), RADIUS_SAMPLING)
    if wall is None:
        return np.full(len(points), np.nan)
    balls, _ = _cover(wall, 2.0 * RADIUS_SAMPLING / 0.3)
    if not len(balls.radii):
        return np.full(len(points), np.nan)
    radius = np.empty(len(points))
    rows = max(1, 2_000_000 // len(balls.radii))
    for first in range(0, len(points), rows):
        some = points[first : first + rows]
        gap = np.linalg.norm(some[:, None] - balls.centers, axis=2) - balls.radii
        reached = np.where(gap <= within + RADIUS_SAMPLING, balls.radii, 0.0).max(axis=1)
        nearest = balls.radii[np.argmin(gap, axis=1)]
        radius[first : first + rows] = np.where(reached > 0, reached, nearest)
    return radius


def _sample_wall(surface: TriangleSurface, lower: Points, upper: Points, spacing: float) -> Wall | None:
    """Samples about `spacing` apart on the triangles in and around a box."""
    corners = surface.points[surface.triangles]
    low, high = lower - SURROUNDINGS, upper + SURROUNDINGS
    near = np.all((corners.max(axis=1) >= low) & (corners.min(axis=1) <= high), axis=1)
    if not near.any():
        return None
    surface = select(surface, near)
    corners = surface.points[surface.triangles]
    points, weights, owner = _even_samples(corners, spacing)
    inward = np.cross(corners[:, 2] - corners[:, 0], corners[:, 1] - corners[:, 0])
    length = np.linalg.norm(inward, axis=1, keepdims=True)
    edges = np.linalg.norm(np.roll(corners, -2, axis=1) - np.roll(corners, -1, axis=1), axis=2)
    heights = length / np.where(edges > 0, edges, 1.0)
    clearance = (weights * heights[owner]).min(axis=1)
    return Wall(surface, points, (inward / np.where(length > 0, length, 1.0))[owner], owner, clearance)


def _even_samples(corners: Points, spacing: float) -> tuple[Points, Points, NDArray[np.int64]]:
    """Points in rows parallel to each triangle's longest edge, their weights of its three corners,
    and the triangle each lies on."""
    lengths = np.linalg.norm(np.roll(corners, -1, axis=1) - corners, axis=2)
    turn = (np.argmax(lengths, axis=1)[:, None] + np.arange(3)) % 3
    a, b, c = np.moveaxis(np.take_along_axis(corners, turn[..., None], axis=1), 1, 0)
    base = lengths.max(axis=1)
    height = np.linalg.norm(np.cross(b - a, c - a), axis=1) / np.where(base > 0, base, 1.0)
    n_rows = np.maximum(np.ceil(height / spacing), 1).astype(np.int64)
    of_row = np.repeat(np.arange(len(corners)), n_rows)
    up = (_count_within(n_rows) + 0.5) / n_rows[of_row]
    n_columns = np.maximum(np.ceil(base[of_row] * (1 - up) / spacing), 1).astype(np.int64)
    row = np.repeat(np.arange(len(of_row)), n_columns)
    owner, v = of_row[row], up[row]
    u = (_count_within(n_columns) + 0.5) / n_columns[row] * (1 - v)
    weights = np.empty((len(owner), 3))
    np.put_along_axis(weights, turn[owner], np.stack([1 - u - v, u, v], axis=1), axis=1)
    return (weights[..., None] * corners[owner]).sum(axis=1), weights, owner


def _count_within(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, … within each group: [2, 3] gives [0, 1, 0, 1, 2]."""
    return np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _cover(wall: Wall, minimum_diameter: float) -> tuple[Balls, NDArray[np.int64]]:
    """The largest inscribed balls, and for each wall sample the largest that reaches it."""
    balls = _inscribed_balls(wall, max(0.3 * minimum_diameter, 0.0005))
    owner = np.full(len(wall.points), -1, np.int64)
    if not len(balls.radii):
        return balls, owner
    order = np.argsort(-balls.radii, kind="stable")
    centers, radii = balls.centers[order], balls.radii[order]
    center_tree, wall_tree = cKDTree(centers), cKDTree(wall.points)
    open_ = np.ones(len(radii), bool)
    accepted: list[int] = []
    for k in range(len(radii)):
        if not open_[k]:
            continue
        open_[center_tree.query_ball_point(centers[k], 0.3 * radii[k])] = False
        reach = np.asarray(wall_tree.query_ball_point(centers[k], 1.2 * radii[k]), np.int64)
        reach = reach[owner[reach] < 0]
        towards = centers[k] - wall.points[reach]
        facing = (towards * wall.normals[reach]).sum(axis=1) > 0.5 * np.linalg.norm(towards, axis=1)
        owner[reach[facing]] = len(accepted)
        accepted.append(k)
    balls = _recentered(centers[accepted], wall, wall_tree)
    left = owner < 0
    if left.any():
        owner[left] = _union_distance(wall.points[left], balls)[1]
    return balls, owner


def _recentered(centers: Points, wall: Wall, tree: cKDTree) -> Balls:
    """Balls pushed away from the nearest wall for as long as they grow, at most half a radius."""

    def depth(places: Points) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        hit = tree.query(places)[1]
        return point_triangle_distance(places, wall.surface, wall.triangle[hit]), hit

    radii, hit = depth(centers)
    step = 0.2 * radii
    for _ in range(6):
        away = centers - wall.points[hit]
        away /= np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-15)
        moved = centers + step[:, None] * away
        new_radii, new_hit = depth(moved)
        better = new_radii > radii
        centers = np.where(better[:, None], moved, centers)
        radii, hit = np.where(better, new_radii, radii), np.where(better, new_hit, hit)
        step *= 0.5
    return Balls(centers, radii)


def _inscribed_balls(wall: Wall, spacing: float) -> Balls:
    """Balls tangent to the wall that touch it again on the other side."""
    inmost = np.argsort(-wall.clearance, kind="stable")  # a ball tangent near a crease stays small
    sources = inmost[_thinned(wall.points[inmost], spacing)]
    start, normal = wall.points[sources], wall.normals[sources]
    radius = np.full(len(start), 0.75 * SURROUNDINGS)
    opposite = np.full(len(start), -1, np.int64)
    depth = radius
    for subset in (_thinned(wall.points, 2 * spacing), np.arange(len(wall.points))):
        # Few samples first: they shrink the balls most of the way at a fraction of the price.
        depth = _shrink(start, normal, radius, opposite, wall, subset)
    fits = np.isfinite(depth) & (opposite >= 0)
    start, normal, opposite = start[fits], normal[fits], opposite[fits]
    radius = 0.5 * (radius[fits] + np.minimum(depth[fits], radius[fits]))
    center = start + radius[:, None] * normal
    to_start, to_hit = start - center, wall.points[opposite] - center
    cosine = (to_start * to_hit).sum(axis=1)
    cosine /= np.maximum(np.linalg.norm(to_start, axis=1) * np.linalg.norm(to_hit, axis=1), 1e-15)
    across = cosine < np.cos(np.radians(100.0))
    return Balls(center[across], radius[across])


def _thinned(points: Points, spacing: float) -> NDArray[np.int64]:
    """Indices of one point per cube of edge `spacing`."""
    cubes = np.floor((points - points.min(axis=0)) / spacing).astype(np.int64)
    size = cubes.max(axis=0) + 1
    return np.asarray(np.unique(np.ravel_multi_index(tuple(cubes.T), tuple(size)), return_index=True)[1])


def _shrink(
    start: Points,
    normal: Points,
    radius: NDArray[np.float64],
    opposite: NDArray[np.int64],
    wall: Wall,
    subset: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Shrink balls tangent at `start` until none of the wall's `subset` is inside; changes `radius`
    and `opposite` (the sample that set it). Returns how far the wall is from each centre; NaN if
    a ball did not settle."""
    tree = cKDTree(wall.points[subset])
    depth = np.full(len(start), np.nan)
    active = np.arange(len(start))
    for _ in range(40):
        distance, found = tree.query(start[active] + radius[active, None] * normal[active])
        beside = (wall.normals[subset[found]] * normal[active]).sum(axis=1) > 0
        done = distance >= (1 - np.where(beside, TOLERANCE, 0.02)) * radius[active]
        depth[active[done]] = distance[done]
        active, hit = active[~done], subset[found[~done]]
        if not len(active):
            break
        chord = wall.points[hit] - start[active]
        height = (chord * normal[active]).sum(axis=1)
        smaller = (chord**2).sum(axis=1) / (2 * np.maximum(height, 1e-12))
        radius[active] = np.minimum(smaller, 0.999 * radius[active])
        opposite[active] = hit
    return depth


def _thick_enough(
    balls: Balls, owner: NDArray[np.int64], minimum_diameter: float
) -> tuple[Balls, NDArray[np.int64], NDArray[np.bool_]]:
    """The balls of vessels thicker than the threshold; samples renumbered, and which belong to them."""
    n = len(balls.radii)
    loose = balls.radii >= HYSTERESIS * 0.5 * minimum_diameter
    if not loose.any():
        return balls, owner, np.zeros(len(owner), bool)
    pairs = _overlapping(balls)
    pairs = pairs[loose[pairs].all(axis=1)]
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    part = connected_components(graph, directed=False)[1]
    keep = np.zeros(n, bool)
    for k in np.unique(part[loose & (balls.radii >= 0.5 * minimum_diameter)]):
        members = loose & (part == k)
        long_enough = np.linalg.norm(np.ptp(balls.centers[members], axis=0)) >= minimum_diameter
        keep |= members & bool(long_enough)
    number = np.where(keep, np.cumsum(keep) - 1, 0)
    return Balls(balls.centers[keep], balls.radii[keep]), number[owner], keep[owner]


def _overlapping(balls: Balls) -> NDArray[np.int64]:
    """Pairs of balls of which one holds the other's centre, shape (m, 2)."""
    tree = cKDTree(balls.centers)
    found = tree.query_ball_point(balls.centers, balls.radii)
    first = np.repeat(np.arange(len(found)), [len(f) for f in found])
    second = np.concatenate([np.asarray(f, np.int64) for f in found])
    return np.stack([first, second], axis=1)


def _union_distance(points: Points, balls: Balls) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distance to the union of balls [m], negative inside, and the ball it belongs to."""
    k = min(16, len(balls.radii))
    distance, which = cKDTree(balls.centers).query(points, k=k)
    distance, which = distance.reshape(len(points), k), which.reshape(len(points), k)
    to_ball = distance - balls.radii[which]
    best = np.argmin(to_ball, axis=1)
    rows = np.arange(len(points))
    return to_ball[rows, best], which[rows, best]


def _near_wall(points: Points, grid: Grid) -> NDArray[np.bool_]:
    """Cells within ``BAND`` cells of a wall sample."""
    reach = int(np.ceil(BAND)) + 1
    index = np.rint(grid.indices(points)).astype(np.int64) + reach
    padded = np.asarray(grid.shape) + 2 * reach
    index = index[np.all((index >= 0) & (index < padded), axis=1)]
    if not len(index):
        return np.zeros(grid.shape, bool)
    low, high = np.maximum(index.min(axis=0) - reach, 0), np.minimum(index.max(axis=0) + reach + 1, padded)
    free = np.ones(tuple(high - low), bool)
    free[tuple((index - low).T)] = False
    whole = np.zeros(tuple(padded), bool)
    crop = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    whole[crop] = ndimage.distance_transform_edt(free) <= BAND + 0.5
    return whole[reach:-reach, reach:-reach, reach:-reach]


def _fill_deep(
    field: NDArray[np.float32],
    radii: NDArray[np.float32],
    near: NDArray[np.bool_],
    mask: NDArray[np.bool_],
) -> None:
    """Blood far from any wall: clamped distance, and the radius of the nearest cell that has one."""
    deep = mask & ~near
    if not deep.any():
        return
    cells = np.argwhere(deep)
    low, high = np.maximum(cells.min(axis=0) - 2, 0), cells.max(axis=0) + 3
    crop = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    source = ndimage.distance_transform_edt(~near[crop], return_distances=False, return_indices=True)
    known = tuple(axis[deep[crop]] for axis in source)
    field[deep] = np.where(field[crop][known] < 0, -field.max(), field.max())
    radii[deep] = radii[crop][known]


def _keep_connected(field: NDArray[np.float32], radii: NDArray[np.float32], balls: Balls, grid: Grid) -> int:
    """Cells that the centre line of a vessel thinner than a cell passes are made blood."""
    spacing = grid.spacing[0]
    thin = balls.radii < 0.9 * spacing
    if not thin.any():
        return 0
    pairs = _overlapping(balls)
    pairs = pairs[thin[pairs].any(axis=1)]
    steps = np.linspace(0.0, 1.0, 9)
    line = (
        balls.centers[pairs[:, 0], None] * (1 - steps[:, None])
        + balls.centers[pairs[:, 1], None] * steps[:, None]
    )
    width = np.repeat(balls.radii[pairs].mean(axis=1), len(steps))
    index = np.rint(grid.indices(line.reshape(-1, 3))).astype(np.int64)
    in_box = np.all((index >= 0) & (index < grid.shape), axis=1)
    place = tuple(index[in_box].T)
    before = int((field < 0).sum())
    radii[place] = np.where(field[place] < 0, radii[place], width[in_box])
    field[place] = np.minimum(field[place], -0.1 * spacing)
    return int((field < 0).sum()) - before


def point_triangle_distance(
    points: Points, surface: TriangleSurface, triangle: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Distance of each point to its triangle [m] (Ericson, Real-Time Collision Detection, 5.1.5)."""
    a, b, c = (surface.points[surface.triangles[triangle, k]] for k in range(3))
    nearest = np.full(len(points), np.inf)
    for p, q in ((a, b), (b, c), (c, a)):
        edge = q - p
        along = ((points - p) * edge).sum(axis=1) / np.maximum((edge**2).sum(axis=1), 1e-30)
        gap = points - p - np.clip(along, 0, 1)[:, None] * edge
        nearest = np.minimum(nearest, np.linalg.norm(gap, axis=1))
    normal = np.cross(b - a, c - a)
    area = (normal**2).sum(axis=1)
    over = area > 0
    for p, q in ((a, b), (b, c), (c, a)):
        over &= (np.cross(q - p, points - p) * normal).sum(axis=1) >= 0
    height = np.abs(((points - a) * normal).sum(axis=1)) / np.sqrt(np.where(over, area, 1.0))
    return np.asarray(np.where(over, height, nearest))
