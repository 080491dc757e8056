"""Centre-line trees of segmented vessels: skeletonised on a fine grid, thinned to segments, oriented.

Skeleton: Lee, Kashyap & Chu 1994 (CVGIP 56:462, doi:10.1006/cgip.1994.1042) as in scikit-image; radius:
Euclidean distance transform on the same grid.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components, dijkstra, minimum_spanning_tree
from scipy.spatial import cKDTree

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.anatomy.grid import Grid
from thermosim.anatomy.mesh import merge
from thermosim.anatomy.rasterize import inside
from thermosim.anatomy.vessel_tree import VesselTree
from thermosim.errors import InputError

FINEST = 0.5e-3
"""Spacing of the grid on which vessels are skeletonised [m], coarser only for want of memory."""

MOST_CELLS = 40_000_000

SPUR = 1.5
"""A side branch that does not reach so many radii beyond the wall it leaves is a bump of the surface."""

LONGEST_KISS = 0.025
"""Loops shorter than this around [m] are vessels that touch, or blots at junctions: they are opened at their
thinnest place. Longer ones are refused."""

MOUTH = 0.6
"""Ends thinner than this share of the thickest place are no trunk that was cut off."""

SEGMENT = 4.0e-3
"""Length of the segments that a branch is cut into [m]."""

TIP = 0.8
"""A way added to the skeleton begins where the lumen is so deep, relative to the deepest place on it."""

SMALLEST_PART = 0.02
"""Parts whose lumen is below this share of the largest one's are left out."""


def centre_lines(surfaces: list[TriangleSurface], group: str) -> VesselTree:
    """The tree (or forest, one root for each connected part) of one group of vessels.

    The root of each part is the end of its thickest branch that is nearest the border of the part's box,
    where a segmentation cuts a trunk off; where no end is thick, the thickest place (the mouth of hepatic
    veins that meet there). Parents come before children.

    Parameters
    ----------
    surfaces : closed, outward [m, LPS]. group : for names and messages.

    Raises
    ------
    InputError
        When the skeleton has loops, or there is no surface.
    """
    if not surfaces:
        raise InputError(f"vessels.groups.{group}: the anatomy has no such vessels")
    surface = merge(surfaces)
    return skeleton_tree(*_filled(surface), group)


def _filled(surface: TriangleSurface) -> tuple[NDArray[np.bool_], Grid]:
    low, high = surface.points.min(axis=0), surface.points.max(axis=0)
    size = high - low
    spacing = max(FINEST, float((np.prod(size) / MOST_CELLS) ** (1 / 3)))
    shape = tuple(int(n) for n in np.ceil(size / spacing).astype(int) + 4)
    center = tuple(float(c) for c in 0.5 * (low + high))
    grid = Grid.box(center, shape, spacing)  # type: ignore[arg-type]
    return inside(surface, grid), grid


def skeleton_tree(mask: NDArray[np.bool_], grid: Grid, group: str) -> VesselTree:
    """The tree of a lumen given as cells of an isotropic grid.

    Raises
    ------
    InputError
        When it is empty or has loops.
    """
    from skimage.morphology import skeletonize  # heavy; only followed blood needs it

    parts, count = ndimage.label(mask, np.ones((3, 3, 3)))
    if count == 0:
        raise InputError(f"vessels.groups.{group}: no lumen is left to follow; refine the segmentation")
    sizes = np.bincount(parts.ravel())[1:]
    keep = np.flatnonzero(sizes >= SMALLEST_PART * sizes.max()) + 1
    mask = np.isin(parts, keep)
    depth = ndimage.distance_transform_edt(mask) * grid.spacing[0]
    skeleton = _completed(np.asarray(skeletonize(mask), dtype=bool), mask, depth, grid.spacing[0])
    voxels = np.argwhere(skeleton)
    points = grid.points(voxels)
    # a skeleton voxel lies up to a cell off the axis: the deepest of its neighbours is nearer to it
    radius = ndimage.maximum_filter(depth, size=3)[skeleton]
    graph = _spanning_forest(points, radius, grid, voxels, group)
    chains = [
        c for component in _components(graph) for c in _branches(graph, component, points, radius, group)
    ]
    if not chains:
        raise InputError(
            f"vessels.groups.{group}: the vessels are too short for a centre line; use convective with "
            "heat_transfer_coefficient"
        )
    return _tree(group, chains, points, radius)


def _completed(
    skeleton: NDArray[np.bool_], mask: NDArray[np.bool_], depth: NDArray[np.float64], spacing: float
) -> NDArray[np.bool_]:
    """The skeleton with a way to every place of the lumen that it misses.

    Parallel thinning eats vessels that run along the grid with an even number of cells across: nothing
    tells their ends. From the place furthest from the skeleton the deepest way back to it is added, until
    no place lies further than the vessel is wide.
    """
    cells = np.argwhere(mask)
    inner, on = depth[mask], skeleton[mask]
    if not on.any():
        on[int(np.argmax(inner))] = True
    away, nearest = cKDTree(cells[on]).query(cells)
    # the lumen is as deep as here or there: a place within it lies closer than this
    reach = 2.0 * np.maximum(inner[on][nearest], inner) / spacing + 3.0
    if (away <= reach).all():
        return skeleton
    first, second = _touching(cells, mask.shape)
    length = np.linalg.norm(cells[first] - cells[second], axis=1)
    cost = length * spacing**2 * 0.5 * (inner[first] ** -2 + inner[second] ** -2)
    graph = coo_matrix((cost, (first, second)), shape=(len(cells), len(cells))).tocsr()
    label = connected_components(graph, directed=False)[1]
    for part in np.setdiff1d(label, label[on]):
        on[int(np.argmax(np.where(label == part, inner, -1.0)))] = True
    back = dijkstra(
        graph, directed=False, indices=np.flatnonzero(on), min_only=True, return_predecessors=True
    )[1]
    away, nearest = cKDTree(cells[on]).query(cells)
    reach = 2.0 * np.maximum(inner[on][nearest], inner) / spacing + 3.0
    while (away > reach).any():
        voxel = int(np.argmax(away - reach))
        reach[voxel] = np.inf  # never again
        whole = [voxel]
        while not on[whole[-1]]:
            whole.append(int(back[whole[-1]]))
        deep = inner[whole] >= TIP * inner[whole].max()
        way = whole[int(np.argmax(deep)) :]  # without the climb from the wall to the axis
        on[way] = True
        np.minimum(away, cKDTree(cells[way]).query(cells)[0], out=away)
    completed = np.zeros_like(skeleton)
    completed[tuple(cells[on].T)] = True
    return completed


def _touching(
    voxels: NDArray[np.int64], shape: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of voxels that share a face, an edge or a corner, each once."""
    padded = np.full(tuple(n + 2 for n in shape), -1, np.int64)
    padded[tuple((voxels + 1).T)] = np.arange(len(voxels))
    first, second = [], []
    offsets = [(a, b, c) for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1) if (a, b, c) > (0, 0, 0)]
    for offset in offsets:
        other = padded[tuple((voxels + 1 + np.array(offset)).T)]
        found = other >= 0
        first.append(np.flatnonzero(found))
        second.append(other[found])
    return np.concatenate(first), np.concatenate(second)


def _spanning_forest(
    points: NDArray[np.float64],
    radius: NDArray[np.float64],
    grid: Grid,
    voxels: NDArray[np.int64],
    group: str,
) -> coo_matrix:
    """Skeleton voxels joined to touching ones without cycles; long loops are refused."""
    a, b = _touching(voxels, grid.shape)
    length = np.linalg.norm(points[a] - points[b], axis=1)
    width = np.minimum(radius[a], radius[b])
    size = (len(points), len(points))
    # the tree that keeps the thickest way: every loop is opened where it is thinnest
    kept = minimum_spanning_tree(coo_matrix((length / width**2, (a, b)), shape=size).tocsr()).tocoo()
    along = np.linalg.norm(points[kept.row] - points[kept.col], axis=1)
    forest = coo_matrix((along, (kept.row, kept.col)), shape=size).tocsr()
    forest = (forest + forest.T).tocsr()

    def key(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.minimum(first, second) * len(points) + np.maximum(first, second)

    open_ = ~np.isin(key(a, b), key(kept.row.astype(np.int64), kept.col.astype(np.int64)))
    for one, other in zip(a[open_], b[open_], strict=True):
        around = dijkstra(forest, indices=one, limit=LONGEST_KISS)[other]
        if not np.isfinite(around):
            around = float(dijkstra(forest, indices=one)[other])
            where = ", ".join(f"{1e3 * x:.0f}" for x in points[one])
            raise InputError(
                f"vessels.groups.{group}: the vessels form a loop of {1e3 * around:.0f} mm near ({where}) mm "
                f"LPS, at most {1e3 * LONGEST_KISS:.0f} mm are opened, so the way of the blood is not known; "
                "mend the segmentation, or use convective with heat_transfer_coefficient"
            )
    return forest


def _components(graph: coo_matrix) -> list[NDArray[np.int64]]:
    count, label = connected_components(graph, directed=False)
    return [np.flatnonzero(label == k) for k in range(count)]


def _branches(
    graph: coo_matrix,
    component: NDArray[np.int64],
    points: NDArray[np.float64],
    radius: NDArray[np.float64],
    group: str,
) -> list[NDArray[np.int64]]:
    """Chains of voxels from the root outwards, each from a junction (or the root) to the next; no spurs."""
    neighbours = {
        int(v): set(graph.indices[graph.indptr[v] : graph.indptr[v + 1]].tolist()) for v in component
    }
    _cut_spurs(neighbours, points, radius)
    ends = [v for v, near in neighbours.items() if len(near) == 1]
    if len(ends) < 2:
        return []
    root = _root(ends, neighbours, points, radius, group)
    chains: list[NDArray[np.int64]] = []
    waiting = [(root, other) for other in neighbours[root]]
    while waiting:
        begin, current = waiting.pop()
        chain = [begin, current]
        while len(neighbours[current]) == 2:
            current = next(v for v in neighbours[current] if v != chain[-2])
            chain.append(current)
        chains.append(np.asarray(chain))
        waiting += [(current, v) for v in neighbours[current] if v != chain[-2]]
    return chains


def _cut_spurs(
    neighbours: dict[int, set[int]], points: NDArray[np.float64], radius: NDArray[np.float64]
) -> None:
    """Take off side branches that end within ``SPUR`` radii of the junction they leave, shortest first."""
    while True:
        spurs = []
        for end in [v for v, near in neighbours.items() if len(near) == 1]:
            chain = [end, next(iter(neighbours[end]))]
            while len(neighbours[chain[-1]]) == 2:
                chain.append(next(v for v in neighbours[chain[-1]] if v != chain[-2]))
            junction = chain[-1]
            reach = float(np.linalg.norm(points[end] - points[junction]))
            if len(neighbours[junction]) > 2 and reach < SPUR * radius[junction]:
                spurs.append((reach, chain))
        if not spurs:
            return
        chain = min(spurs, key=lambda spur: spur[0])[1]
        for voxel in chain[:-1]:
            for other in neighbours.pop(voxel):
                neighbours[other].discard(voxel) if other in neighbours else None


def _root(
    ends: list[int],
    neighbours: dict[int, set[int]],
    points: NDArray[np.float64],
    radius: NDArray[np.float64],
    group: str,
) -> int:
    """The end of the thickest vessel; of ends about as thick (within a tenth) the one nearest the box.

    Where all ends are thin against the thickest place, that place: veins that meet at their mouth. Of the
    vena cava the lower end.
    """
    everywhere = points[list(neighbours)]
    low, high = everywhere.min(axis=0), everywhere.max(axis=0)
    thick = {}
    for end in ends:
        chain = [end, next(iter(neighbours[end]))]
        while len(neighbours[chain[-1]]) == 2 and len(chain) < 40:
            chain.append(next(v for v in neighbours[chain[-1]] if v != chain[-2]))
        thick[end] = float(np.median(radius[chain]))
    most = max(thick.values())
    widest = max(neighbours, key=lambda v: float(radius[v]))
    if most < MOUTH * radius[widest]:
        return widest
    best = [end for end in ends if thick[end] >= 0.9 * most]
    if group == "vena_cava":
        return min(best, key=lambda v: float(points[v][2]))
    return min(best, key=lambda v: float(np.minimum(points[v] - low, high - points[v]).min()))


def _tree(
    group: str,
    chains: list[NDArray[np.int64]],
    points: NDArray[np.float64],
    radius: NDArray[np.float64],
) -> VesselTree:
    """Straight segments of about ``SEGMENT`` along each chain, smoothed between its ends."""
    nodes: list[NDArray[np.float64]] = []
    node_at: dict[int, int] = {}
    last_at: dict[int, int] = {}  # last segment that ends at a junction's voxel
    segments, parents, radii = [], [], []
    for chain in chains:
        line, wide = _smoothed(points[chain]), radius[chain]
        along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
        count = max(1, round(along[-1] / SEGMENT))
        cuts = np.linspace(0.0, along[-1], count + 1)
        places = np.stack([np.interp(cuts, along, line[:, a]) for a in range(3)], axis=1)
        begin, end = int(chain[0]), int(chain[-1])
        if begin not in node_at:
            node_at[begin] = len(nodes)
            nodes.append(places[0])
        before, parent = node_at[begin], last_at.get(begin, -1)
        # beside a junction the ball fills the wider vessel: leave a radius of it out where there is more
        body = (along >= min(wide[0], 0.4 * along[-1])) & (
            along <= along[-1] - min(wide[-1], 0.4 * along[-1])
        )
        for k in range(count):
            part = (along >= cuts[k]) & (along <= cuts[k + 1])
            own = part & body if (part & body).any() else (body if body.any() else part)
            nodes.append(places[k + 1])
            segments.append((before, len(nodes) - 1))
            parents.append(parent)
            radii.append(float(np.median(wide[own if own.any() else slice(None)])))
            before, parent = len(nodes) - 1, len(segments) - 1
        node_at[end], last_at[end] = before, parent
    return VesselTree(
        group,
        np.asarray(nodes),
        np.asarray(segments, np.int64),
        np.asarray(parents, np.int64),
        np.asarray(radii),
    )


def _smoothed(line: NDArray[np.float64], rounds: int = 6) -> NDArray[np.float64]:
    """A line of voxels without its stairs; the ends stay."""
    line = line.copy()
    for _ in range(rounds):
        line[1:-1] = 0.25 * line[:-2] + 0.5 * line[1:-1] + 0.25 * line[2:]
    return line
