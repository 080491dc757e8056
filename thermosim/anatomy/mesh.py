"""Triangle meshes: welded, closed, outward, of even triangles, and asked for volume and centre."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyvista as pv
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.errors import InputError

SPECK_FRACTION = 1e-3
"""Closed parts smaller than this share of the largest part's volume are specks of segmentation."""

MAXIMUM_HOLE_FRACTION = 0.1
"""A surface whose holes exceed this share of its own area is open, not damaged."""


def volume(surface: TriangleSurface) -> float:
    """Enclosed volume [m³], positive for outward normals: V = Σ a·(b × c) / 6 (divergence theorem)."""
    return float(_tetrahedra(surface).sum())


def centroid(surface: TriangleSurface) -> NDArray[np.float64]:
    """Centre of the enclosed volume [m, LPS], shape (3,)."""
    anchor = surface.points[surface.triangles[0, 0]]
    shifted = TriangleSurface(surface.points - anchor, surface.triangles)
    parts = _tetrahedra(shifted)
    corners = shifted.points[shifted.triangles].sum(axis=1) / 4.0
    total = parts.sum()
    if abs(total) <= 0.0:
        return np.asarray(surface.points[surface.triangles].mean(axis=(0, 1)))
    return np.asarray(anchor + (parts[:, None] * corners).sum(axis=0) / total)


def triangle_areas(surface: TriangleSurface) -> NDArray[np.float64]:
    """Area of each triangle [m²], shape (m,)."""
    a, b, c = _corners(surface)
    return np.asarray(0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1))


def merge(surfaces: list[TriangleSurface]) -> TriangleSurface:
    """Several surfaces as one, without welding them."""
    offsets = np.cumsum([0, *(len(s.points) for s in surfaces[:-1])])
    return TriangleSurface(
        np.concatenate([s.points for s in surfaces]),
        np.concatenate([s.triangles + o for s, o in zip(surfaces, offsets, strict=True)]),
    )


def part_labels(surface: TriangleSurface) -> NDArray[np.int64]:
    """Which connected part each triangle belongs to, shape (m,), counted from 0."""
    t = surface.triangles
    n = len(surface.points)
    rows, columns = np.concatenate([t[:, 0], t[:, 1]]), np.concatenate([t[:, 1], t[:, 2]])
    graph = coo_matrix((np.ones(rows.size, np.int8), (rows, columns)), shape=(n, n))
    of_point = connected_components(graph, directed=False)[1]
    return np.asarray(np.unique(of_point[t[:, 0]], return_inverse=True)[1], np.int64)


def select(surface: TriangleSurface, keep: NDArray[np.bool_]) -> TriangleSurface:
    """The triangles chosen by `keep`, with only the points they use."""
    used, inverse = np.unique(surface.triangles[keep], return_inverse=True)
    return TriangleSurface(surface.points[used], inverse.reshape(-1, 3).astype(np.int64))


def clean(surface: TriangleSurface, name: str) -> tuple[TriangleSurface, list[str]]:
    """A closed surface with outward normals from what a file holds, and what was mended.

    Equal points are welded, small holes are closed by a fan around their centre, specks
    (parts below ``SPECK_FRACTION`` of the largest one) are dropped, parts turned outwards.

    Raises
    ------
    InputError : no triangles, no enclosed volume, or clearly open.
    """
    notes: list[str] = []
    surface = _weld(surface)
    if len(surface.triangles) < 4:
        raise InputError(
            f"surface {name!r} has {len(surface.triangles)} triangles; a closed surface needs at least 4"
        )
    surface, n_holes = _close(surface, name)
    if n_holes:
        notes.append(f"{name}: {n_holes} hole(s) in the surface were closed")
    surface = _consistent(surface)
    parts = part_labels(surface)
    volumes = np.bincount(parts, weights=_tetrahedra(surface))
    keep = np.abs(volumes) >= SPECK_FRACTION * np.abs(volumes).max()
    if not keep.all():
        notes.append(f"{name}: {int((~keep).sum())} tiny disconnected part(s) were left out")
    flipped = (volumes < 0)[parts]
    triangles = np.where(flipped[:, None], surface.triangles[:, ::-1], surface.triangles)
    surface = select(TriangleSurface(surface.points, triangles), keep[parts])
    extent = np.ptp(surface.points, axis=0)
    if np.abs(volumes).max() <= 1e-9 * float(extent.max()) ** 3:
        raise InputError(f"surface {name!r} encloses no volume; export it as a closed surface")
    return surface, notes


def nearest_part(surface: TriangleSurface, point: NDArray[np.float64], name: str) -> TriangleSurface:
    """The closed part whose centre lies nearest `point` [m, LPS].

    Raises
    ------
    InputError : that part is further from the point than its own size, so another was meant.
    """
    parts = part_labels(surface)
    candidates = [select(surface, parts == k) for k in range(int(parts.max()) + 1)]
    centers = np.array([centroid(c) for c in candidates])
    distances = np.linalg.norm(centers - point, axis=1)
    best = int(np.argmin(distances))
    size = float(np.linalg.norm(np.ptp(candidates[best].points, axis=0)))
    if distances[best] > max(size, 0.01):
        where = ", ".join(f"{1e3 * x:.1f}" for x in centers[best])
        raise InputError(
            f"{name}: no closed part near near_mm; the nearest is centred at ({where}) mm, "
            f"{1e3 * distances[best]:.1f} mm away; correct near_mm"
        )
    return candidates[best]


def smooth(surface: TriangleSurface, pass_band: float, iterations: int = 20) -> TriangleSurface:
    """Stairs taken off by a windowed sinc filter, which keeps volume (Taubin, Zhang & Golub, ECCV 1996)."""
    result = to_polydata(surface).smooth_taubin(
        n_iter=iterations, pass_band=pass_band, non_manifold_smoothing=True, normalize_coordinates=True
    )
    return TriangleSurface(np.asarray(result.points, np.float64), surface.triangles)


def with_volume(surface: TriangleSurface, target: float) -> TriangleSurface:
    """The surface moved along its normals until it encloses `target` [m³]: shift = (V_target − V) / A."""
    for _ in range(4):
        shift = (target - volume(surface)) / triangle_areas(surface).sum()
        surface = TriangleSurface(surface.points + shift * point_normals(surface), surface.triangles)
    return surface


def point_normals(surface: TriangleSurface) -> NDArray[np.float64]:
    """Unit normals of the points, weighted by triangle area, shape (n, 3)."""
    a, b, c = _corners(surface)
    weighted = np.repeat(np.cross(b - a, c - a), 3, axis=0)
    normals = np.zeros_like(surface.points)
    for axis in range(3):
        normals[:, axis] = np.bincount(
            surface.triangles.ravel(), weights=weighted[:, axis], minlength=len(normals)
        )
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.asarray(normals / np.where(length > 0, length, 1.0))


def even_triangles(surface: TriangleSurface, edge: float) -> TriangleSurface:
    """The same surface with triangle edges of about `edge` [m].

    Long edges are split on the surface itself; a surface much finer than wanted is thinned by
    quadric decimation, then moved along its normals to keep its volume exactly.
    """
    wanted = np.sqrt(3.0) / 4.0 * edge**2
    areas = triangle_areas(surface)
    if areas.mean() < 0.6 * wanted:
        surface = thinned(surface, int(areas.sum() / wanted))
    mesh = to_polydata(surface)
    if max(float(np.linalg.norm(e, axis=1).max()) for e in _edges(surface)) > 1.5 * edge:
        mesh = mesh.subdivide_adaptive(max_edge_len=1.5 * edge, max_n_passes=6)
        surface = _weld(from_polydata(mesh))
    return surface


def thinned(surface: TriangleSurface, n_triangles: int) -> TriangleSurface:
    """At most about `n_triangles` triangles, same volume."""
    if len(surface.triangles) <= n_triangles:
        return surface
    reduction = 1.0 - max(n_triangles, 50) / len(surface.triangles)
    target = volume(surface)
    mesh = to_polydata(surface).decimate(min(max(reduction, 0.0), 0.98), volume_preservation=True)
    result = _weld(from_polydata(mesh))
    return with_volume(result, target)


def to_polydata(surface: TriangleSurface) -> Any:
    """As a VTK surface in metres."""
    return pv.PolyData.from_regular_faces(surface.points, surface.triangles)


def from_polydata(mesh: Any) -> TriangleSurface:
    """From a VTK surface of triangles in metres."""
    return TriangleSurface(
        np.asarray(mesh.points, np.float64), np.asarray(mesh.regular_faces, np.int64).reshape(-1, 3)
    )


def _corners(surface: TriangleSurface) -> tuple[NDArray[np.float64], ...]:
    p = surface.points[surface.triangles]
    return p[:, 0], p[:, 1], p[:, 2]


def _edges(surface: TriangleSurface) -> tuple[NDArray[np.float64], ...]:
    a, b, c = _corners(surface)
    return b - a, c - b, a - c


def _tetrahedra(surface: TriangleSurface) -> NDArray[np.float64]:
    """Signed volume between each triangle and a point near it [m³]."""
    anchor = surface.points[surface.triangles[0, 0]]
    a, b, c = (x - anchor for x in _corners(surface))
    return np.asarray(np.einsum("ij,ij->i", a, np.cross(b, c)) / 6.0)


def _weld(surface: TriangleSurface) -> TriangleSurface:
    """Equal points made one, degenerate and repeated triangles dropped."""
    points, inverse = np.unique(surface.points, axis=0, return_inverse=True)
    triangles = inverse.reshape(-1)[surface.triangles]
    ordered = np.sort(triangles, axis=1)
    proper = (ordered[:, 0] != ordered[:, 1]) & (ordered[:, 1] != ordered[:, 2])
    triangles, ordered = triangles[proper], ordered[proper]
    first = np.unique(ordered, axis=0, return_index=True)[1]
    return TriangleSurface(points, triangles[np.sort(first)].astype(np.int64))


def _close(surface: TriangleSurface, name: str) -> tuple[TriangleSurface, int]:
    """Holes closed by a fan around their centre; refuses a surface that is open by design."""
    loops = _boundary_loops(surface, name)
    if not loops:
        return surface, 0
    points, triangles = [surface.points], [surface.triangles]
    hole_area, n_points = 0.0, len(surface.points)
    for loop in loops:
        rim = surface.points[loop]
        center = rim.mean(axis=0)
        following = np.roll(loop, -1)
        fan = np.stack([following, loop, np.full(len(loop), n_points)], axis=1)
        hole_area += (
            0.5 * np.linalg.norm(np.cross(rim - center, surface.points[following] - center), axis=1).sum()
        )
        points.append(center[None])
        triangles.append(fan)
        n_points += 1
    fraction = hole_area / triangle_areas(surface).sum()
    if fraction > MAXIMUM_HOLE_FRACTION:
        raise InputError(
            f"surface {name!r} is open: its {len(loops)} hole(s) make {100 * fraction:.0f} % of its area, "
            f"at most {100 * MAXIMUM_HOLE_FRACTION:.0f} % are closed; export a closed surface"
        )
    return TriangleSurface(np.concatenate(points), np.concatenate(triangles)), len(loops)


def _boundary_loops(surface: TriangleSurface, name: str) -> list[NDArray[np.int64]]:
    """Closed chains of edges that only one triangle uses, each as point indices in order."""
    t = surface.triangles
    edges = np.concatenate([t[:, [0, 1]], t[:, [1, 2]], t[:, [2, 0]]])
    _, inverse, counts = np.unique(np.sort(edges, axis=1), axis=0, return_inverse=True, return_counts=True)
    border = edges[(counts == 1)[inverse.reshape(-1)]]
    following: dict[int, list[int]] = {}
    for start, end in border.tolist():
        following.setdefault(start, []).append(end)
    loops = []
    while following:
        start = next(iter(following))
        chain, here = [], start
        while True:
            ends = following.get(here)
            if not ends:
                raise InputError(f"surface {name!r} has edges that cannot be closed; repair it and try again")
            chain.append(here)
            nxt = ends.pop()
            if not ends:
                del following[here]
            here = nxt
            if here == start:
                break
        loops.append(np.array(chain, np.int64))
    return loops


def _consistent(surface: TriangleSurface) -> TriangleSurface:
    """Neighbouring triangles turned the same way round."""
    mesh = to_polydata(surface).compute_normals(
        cell_normals=False, consistent_normals=True, split_vertices=False, auto_orient_normals=False
    )
    return from_polydata(mesh)
