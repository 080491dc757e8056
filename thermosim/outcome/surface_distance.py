"""Exact distances from points to a triangulated surface."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.errors import InputError

Points = NDArray[np.float64]

BLOCK = 4096
"""Points that are looked after together: their tables stay in the cache."""
NEIGHBOURS = 8
"""Vertices that are looked up for each point at first; more only where these may not be all."""
SIZE_STEP = 4.0
"""Vertices whose triangles are larger by this factor are sought apart from the others."""


def distance_to_surface(points: NDArray[np.floating], surface: TriangleSurface) -> NDArray[np.float64]:
    """Euclidean distance [m] from points (n, 3) to the nearest triangle of a surface, exact.

    Let x be the surface's point nearest to p, d = |p − x|, and v the corner nearest to x of the triangle
    that x lies on, no edge of which is longer than e. As p − x is normal to the triangle, or to the edge
    that x lies on, |p − v|² = d² + |x − v|² ≤ d² + e²/3. With any upper bound of d that leaves a few
    vertices of the surface, and the triangles around them are tried.

    Raises
    ------
    InputError : the surface has no triangles.
    """
    if len(surface.triangles) == 0:
        raise InputError("there is no distance to an empty surface; check that it has triangles first")
    # Around their middle coordinates are small, and so is their rounding.
    middle = surface.points.mean(axis=0)
    queries = np.asarray(points, dtype=np.float64) - middle
    search = _Search(surface.points - middle, surface.triangles)
    distance = np.empty(len(queries))
    for start in range(0, len(queries), BLOCK):
        distance[start : start + BLOCK] = search.distance(queries[start : start + BLOCK])
    return distance


class _Search:
    """A surface made ready for questions; changes nothing in itself when asked."""

    def __init__(self, points: Points, triangles: NDArray[np.int64]) -> None:
        a, b, c = (points[triangles[:, corner]] for corner in range(3))
        reach = np.maximum(np.maximum(_square(b - a), _square(c - b)), _square(a - c)) / 3.0
        self.parts = []
        usual = float(np.median(reach))
        while len(reach):
            usual = max(usual, float(reach.min())) * SIZE_STEP**2
            small = reach <= usual
            if small.all():
                self.parts.append(_Part(points, triangles, reach))
                break
            if small.any():
                self.parts.append(_Part(points, triangles[small], reach[small]))
            triangles, reach = triangles[~small], reach[~small]

    def distance(self, queries: Points) -> NDArray[np.float64]:
        """Distance of points (n, 3) from the surface."""
        square = np.full(len(queries), np.inf)
        for part in self.parts:
            part.lower(square, queries)
        return np.asarray(np.sqrt(square))


class _Part:
    """Triangles of about one size. `reach` (n_triangles,): e²/3 of each."""

    def __init__(self, points: Points, triangles: NDArray[np.int64], reach: NDArray[np.float64]) -> None:
        self.points, self.triangles, self.reach = points, triangles, reach
        self.farthest = float(reach.max())
        used = np.zeros(len(points), dtype=bool)
        used[triangles.ravel()] = True
        self.vertices = np.flatnonzero(used)
        # For points on a surface a plain tree is built and searched several times faster.
        self.tree = cKDTree(points[used], leafsize=64, balanced_tree=False, compact_nodes=False)

    def lower(self, square: NDArray[np.float64], queries: Points) -> None:
        """Lower `square`, distances² of all queries, to those of these triangles, in place."""
        rows = np.arange(len(queries))
        first, last = 1, min(NEIGHBOURS, self.tree.n)
        while len(rows):
            away, near = self.tree.query(queries[rows], k=np.arange(first, last + 1))
            away **= 2
            vertices = self.vertices[near]
            square[rows] = np.minimum(square[rows], away[:, 0])
            possible = away <= square[rows, None] + self.farthest
            fans = _Fans(self, vertices[possible])
            # The nearest vertex lowers the bound, which leaves few of the others.
            one = possible[:, 0]
            fans.lower(square, queries, rows[one], vertices[one, 0], away[one, 0])
            row, column = np.nonzero(away[:, 1:] <= square[rows, None] + self.farthest)
            fans.lower(square, queries, rows[row], vertices[row, column + 1], away[row, column + 1])
            rows = rows[away[:, -1] <= square[rows] + self.farthest] if last < self.tree.n else rows[:0]
            first, last = last + 1, min(4 * last, self.tree.n)


class _Fans:
    """The triangles around some vertices, each as four planes.

    Of a point p the first three planes tell how far inside each edge's line its foot lies, the fourth
    how far p lies beside the triangle's plane: rows of `planes`, (16, n_triangles), as n · p + offset.
    """

    def __init__(self, part: _Part, vertices: NDArray[np.int64]) -> None:
        used = np.zeros(len(part.points), dtype=bool)
        used[vertices] = True
        touched = used[part.triangles].any(axis=1)
        triangles = part.triangles[touched]
        self.reach = part.reach[touched]
        self.corners = part.points[triangles.T]
        self.planes = _planes(*self.corners)
        # A sparse matrix sorts by counting: row by row the triangles of each vertex.
        corner = triangles.ravel()
        belongs = np.arange(len(corner)) // 3
        entries = np.ones(len(corner), dtype=np.int8)
        fans = csr_array((entries, (corner, belongs)), shape=(len(part.points), len(triangles)))
        self.starts, self.members = fans.indptr, fans.indices

    def lower(
        self,
        square: NDArray[np.float64],
        queries: Points,
        rows: NDArray[np.int64],
        vertices: NDArray[np.int64],
        away: NDArray[np.float64],
    ) -> None:
        """Lower distances² of rows of queries to those around one vertex each, which is `away` [m²]."""
        for start in range(0, len(rows), 2 * BLOCK):
            some = slice(start, start + 2 * BLOCK)
            begin = self.starts[vertices[some]]
            count = self.starts[vertices[some] + 1] - begin
            ends = np.cumsum(count)
            triangle = self.members[np.arange(ends[-1]) + np.repeat(begin - ends + count, count)]
            row = np.repeat(rows[some], count)
            possible = np.repeat(away[some], count) <= square[row] + self.reach[triangle]
            triangle, row = triangle[possible], row[possible]
            x, y, z = queries[row].T
            a, b, c, height = (
                n[0] * x + n[1] * y + n[2] * z + n[3]
                for n in self.planes.take(triangle, axis=1).reshape(4, 4, -1)
            )
            outside = np.minimum(np.minimum(np.minimum(a, b), c), 0.0)
            least = height**2 + outside**2
            # Where the foot lies inside this is the distance², elsewhere it is less than that of an edge.
            inside = outside == 0.0
            np.minimum.at(square, row[inside], least[inside])
            edge = np.flatnonzero(~inside & (least < square[row]))
            row = row[edge]
            np.minimum.at(square, row, _square_to_edges(queries[row], self.corners[:, triangle[edge]]))


def _planes(a: Points, b: Points, c: Points) -> NDArray[np.float64]:
    """The four planes of each triangle abc, (16, n): those of its edges ab, bc, ca, and its own.

    A triangle without a plane, thinner than 1e-6 of its length, gets one that leaves all to its edges.
    """
    normal = np.cross(b - a, c - a)
    double = np.sqrt(_square(normal))
    longest = np.maximum(np.maximum(_square(b - a), _square(c - b)), _square(a - c))
    flat = double <= 1e-6 * longest
    normal /= np.where(flat, 1.0, double)[:, None]
    planes = np.empty((4, 4, len(a)))
    for plane, (start, end) in zip(planes, ((a, b), (b, c), (c, a)), strict=False):
        inward = np.cross(normal, end - start)
        inward /= np.sqrt(np.where(flat, 1.0, _square(end - start)))[:, None]
        plane[:3] = inward.T
        plane[3] = -_dot(inward, start)
    planes[3, :3] = normal.T
    planes[3, 3] = -_dot(normal, a)
    planes[:, :, flat] = 0.0
    planes[0, 3, flat] = -np.finfo(np.float64).tiny
    return planes.reshape(16, -1)


def _square_to_edges(p: Points, corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance² from points to the nearest edge of one triangle each; corners (3, n, 3)."""
    nearest = np.full(len(p), np.inf)
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        along = end - start
        length = np.maximum(_square(along), np.finfo(np.float64).tiny)
        share = np.clip(_dot(p - start, along) / length, 0.0, 1.0)
        nearest = np.minimum(nearest, _square(p - start - share[:, None] * along))
    return nearest


def _dot(a: Points, b: Points) -> NDArray[np.float64]:
    return np.asarray(np.einsum("ij,ij->i", a, b))


def _square(a: Points) -> NDArray[np.float64]:
    return _dot(a, a)
