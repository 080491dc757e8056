"""Structures as bodies that a straight line passes, exactly and wherever it goes: no grid, no box.

A needle's way from the skin to its tip leaves the computing box, so it is followed through the source of
the anatomy itself: surfaces triangle by triangle, vessel trees segment by segment, shapes by their function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import Structure, TriangleSurface
from thermosim.anatomy.lumens import local_radius, point_triangle_distance
from thermosim.anatomy.mesh import select
from thermosim.anatomy.rasterize import Solid
from thermosim.anatomy.vessel_tree import Points, VesselTree, point_segment_distances

STEP = 1e-4
"""Shapes that are only known as functions, and closeness to surfaces, are looked at so often [m]."""

BISECTIONS = 30


@dataclass(frozen=True)
class Stretch:
    """A part of a line, from `start` to `end` along it [m]."""

    start: float
    end: float

    @property
    def length(self) -> float:
        return self.end - self.start


class Body(Protocol):
    """One structure in space."""

    @property
    def structure(self) -> Structure:
        """What it is."""
        ...

    def stretches(self, start: Points, end: Points, within: float = 0.0) -> list[Stretch]:
        """Parts of the line between two points [m, LPS] inside the body or nearer to it than `within` [m]."""
        ...

    def distance(self, start: Points, end: Points) -> tuple[float, Points]:
        """Least distance of that line to the body [m], 0 inside, and the place on the line [m, LPS]."""
        ...

    def diameter(self, points: Points, within: float = 0.0) -> NDArray[np.float64]:
        """Local diameter [m] of a vessel at points (n, 3) in it, or nearer to it than `within`."""
        ...


@dataclass(frozen=True)
class ShapeBody:
    """A body given by a function that is negative inside and (nearly) the distance [m] outside."""

    structure: Structure
    level: Callable[[Points], NDArray[np.float64]]

    def stretches(self, start: Points, end: Points, within: float = 0.0) -> list[Stretch]:
        return _of_level(lambda points: self.level(points) - within, start, end, _places(start, end))

    def distance(self, start: Points, end: Points) -> tuple[float, Points]:
        places = _places(start, end)
        values = self.level(_along(start, end, places))
        best = int(np.argmin(values))
        low, high = places[max(best - 1, 0)], places[min(best + 1, len(places) - 1)]
        for _ in range(40):  # golden section within the two neighbours
            a, b = high - 0.618034 * (high - low), low + 0.618034 * (high - low)
            at_a, at_b = self.level(_along(start, end, np.array([a, b])))
            low, high = (low, b) if at_a < at_b else (a, high)
        point = _along(start, end, np.array([0.5 * (low + high)]))
        return max(float(min(self.level(point)[0], values[best])), 0.0), point[0]

    def diameter(self, points: Points, within: float = 0.0) -> NDArray[np.float64]:
        return np.full(len(points), np.nan)


@dataclass(frozen=True)
class TreeBody:
    """The lumen of a tree of round segments."""

    structure: Structure
    tree: VesselTree

    def stretches(self, start: Points, end: Points, within: float = 0.0) -> list[Stretch]:
        gaps, nearest = closest_on_segment(start, end, self.tree.starts, self.tree.ends)
        near = gaps - self.tree.radii < within
        if not near.any():
            return []
        starts, ends, radii = self.tree.starts[near], self.tree.ends[near], self.tree.radii[near]

        def level(points: Points) -> NDArray[np.float64]:
            return np.asarray((point_segment_distances(points, starts, ends) - radii).min(axis=1) - within)

        # with the nearest place of each vessel the thinnest graze is seen
        return _of_level(level, start, end, np.union1d(_places(start, end), nearest[near]))

    def distance(self, start: Points, end: Points) -> tuple[float, Points]:
        gaps, nearest = closest_on_segment(start, end, self.tree.starts, self.tree.ends)
        best = int(np.argmin(gaps - self.tree.radii))
        point = _along(start, end, nearest[best : best + 1])[0]
        return max(float(gaps[best] - self.tree.radii[best]), 0.0), point

    def diameter(self, points: Points, within: float = 0.0) -> NDArray[np.float64]:
        gaps = point_segment_distances(points, self.tree.starts, self.tree.ends) - self.tree.radii
        touched = np.where(gaps <= within + 1e-6, self.tree.radii, 0.0).max(axis=1)
        nearest = self.tree.radii[np.argmin(gaps, axis=1)]
        return np.asarray(2.0 * np.where(touched > 0, touched, nearest))


@dataclass(frozen=True)
class SurfaceBody:
    """What closed surfaces enclose."""

    structure: Structure
    surface: TriangleSurface

    def stretches(self, start: Points, end: Points, within: float = 0.0) -> list[Stretch]:
        length = float(np.linalg.norm(end - start))
        if length == 0.0 or self._is_far(start, end, max(within, 0.0)):
            return []
        inside = _inside(crossings(self.surface, start, end), length)
        if within <= 0.0:
            return inside
        gaps, nearest = self._gaps(start, end, within)
        near = np.flatnonzero(gaps < within)
        if not len(near):
            return inside
        part = select(self.surface, np.isin(np.arange(len(self.surface.triangles)), near))
        each = np.arange(len(part.triangles))

        def level(points: Points) -> NDArray[np.float64]:
            values = np.full(len(points), np.inf)
            rows = max(1, 400_000 // len(each))
            for first in range(0, len(points), rows):
                some = points[first : first + rows]
                pairs = point_triangle_distance(
                    np.repeat(some, len(each), axis=0), part, np.tile(each, len(some))
                )
                values[first : first + rows] = pairs.reshape(len(some), -1).min(axis=1)
            return values - within

        close = _of_level(level, start, end, np.union1d(_places(start, end), nearest[near]))
        return merged([*inside, *close])

    def distance(self, start: Points, end: Points) -> tuple[float, Points]:
        length = float(np.linalg.norm(end - start))
        is_far = length == 0.0 or self._is_far(start, end, 0.0)
        passed = [] if is_far else _inside(crossings(self.surface, start, end), length)
        if passed:
            middle = 0.5 * (passed[0].start + passed[0].end)
            return 0.0, _along(start, end, np.array([middle]))[0]
        gaps, nearest = self._gaps(start, end)
        best = int(np.argmin(gaps))
        return float(gaps[best]), _along(start, end, nearest[best : best + 1])[0]

    def diameter(self, points: Points, within: float = 0.0) -> NDArray[np.float64]:
        return 2.0 * local_radius(self.surface, points, within)

    @cached_property
    def _box(self) -> tuple[Points, Points]:
        return self.surface.points.min(axis=0), self.surface.points.max(axis=0)

    @cached_property
    def _spheres(self) -> tuple[Points, NDArray[np.float64]]:
        """Centre and radius of a ball around each triangle."""
        corners = self.surface.points[self.surface.triangles]
        middle = corners.mean(axis=1)
        return middle, np.linalg.norm(corners - middle[:, None], axis=2).max(axis=1)

    def _is_far(self, start: Points, end: Points, within: float) -> bool:
        """Whether a line surely stays farther than `within` from the body: their boxes do."""
        low, high = np.minimum(start, end) - within, np.maximum(start, end) + within
        return bool((low > self._box[1]).any() or (high < self._box[0]).any())

    def _gaps(
        self, start: Points, end: Points, within: float | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Distance of the line to each triangle [m], and where along it [m]; inf for those surely farther
        than the nearest one, or than `within`."""
        middle, reach = self._spheres
        to_middle = point_segment_distances(middle, start[None], end[None])[:, 0]
        limit = float(to_middle.min()) if within is None else within
        chosen = np.flatnonzero(to_middle - reach <= limit)
        gaps = np.full(len(middle), np.inf)
        places = np.zeros(len(middle))
        if len(chosen):
            gaps[chosen], places[chosen] = _segment_triangle(start, end, self.surface, chosen)
        return gaps, places


def bodies_of(solids: Sequence[Solid]) -> tuple[Body, ...]:
    """Closed solids as bodies, in their order."""
    return tuple(SurfaceBody(solid.structure, solid.surface) for solid in solids)


def merged(stretches: Sequence[Stretch], gap: float = 0.0) -> list[Stretch]:
    """Stretches in order, those that touch or lie at most `gap` [m] apart made one."""
    joined: list[Stretch] = []
    for one in sorted(stretches, key=lambda s: s.start):
        if joined and one.start <= joined[-1].end + gap:
            joined[-1] = Stretch(joined[-1].start, max(joined[-1].end, one.end))
        else:
            joined.append(one)
    return joined


def crossings(surface: TriangleSurface, start: Points, end: Points) -> NDArray[np.float64]:
    """Where the whole straight line through two points crosses a closed surface [m from `start`], in order.

    Each edge lies strictly on one side of the line, by a rule that its two triangles share, so that a line
    through an edge or a corner crosses once (after Woop, Benthin & Wald, JCGT 2:1, 2013).
    """
    axis = (end - start) / np.linalg.norm(end - start)
    first = np.cross(axis, np.eye(3)[int(np.argmin(np.abs(axis)))])
    first /= np.linalg.norm(first)
    second = np.cross(axis, first)
    offset = surface.points - start
    u, v, depth = offset @ first, offset @ second, offset @ axis
    a, b, c = (surface.triangles[:, k] for k in range(3))
    ab, bc, ca = _side(u, v, a, b), _side(u, v, b, c), _side(u, v, c, a)
    hit = np.flatnonzero((ab[1] == bc[1]) & (bc[1] == ca[1]))
    weights = np.stack([bc[0][hit], ca[0][hit], ab[0][hit]])  # opposite to a, b, c
    total = weights.sum(axis=0)
    flat = np.abs(total) <= 0.0
    weights = np.where(flat, 1.0 / 3.0, weights / np.where(flat, 1.0, total))
    return np.sort(weights[0] * depth[a[hit]] + weights[1] * depth[b[hit]] + weights[2] * depth[c[hit]])


def _side(
    u: NDArray[np.float64], v: NDArray[np.float64], one: NDArray[np.int64], other: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Twice the area between the origin and each edge, and on which side of it the origin lies."""
    area = u[one] * v[other] - v[one] * u[other]
    rising = (u[other] > u[one]) | ((u[other] == u[one]) & (v[other] > v[one]))
    return area, (area > 0) | ((area == 0) & rising)


def _inside(places: NDArray[np.float64], length: float) -> list[Stretch]:
    """Stretches between odd and even crossings, cut to the line from 0 to `length`."""
    pairs = zip(places[0::2], places[1::2], strict=False)
    return [
        Stretch(max(float(low), 0.0), min(float(high), length))
        for low, high in pairs
        if high > 0 and low < length
    ]


def closest_on_segment(
    start: Points, end: Points, starts: Points, ends: Points
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance of one segment to each of many (m, 3), and where along the one [m] it is taken.

    Source: C. Ericson, Real-Time Collision Detection, 2005, section 5.1.9.
    """
    axis, others, between = end - start, ends - starts, start - starts
    a = max(float(axis @ axis), 1e-30)
    e = np.maximum(np.einsum("mi,mi->m", others, others), 1e-30)
    b, c = others @ axis, between @ axis
    f = np.einsum("mi,mi->m", between, others)
    determinant = a * e - b * b
    parallel = determinant <= 1e-12 * a * e
    s = np.clip(np.where(parallel, 0.0, (b * f - c * e) / np.where(parallel, 1.0, determinant)), 0.0, 1.0)
    t = (b * s + f) / e
    s = np.where(t < 0.0, np.clip(-c / a, 0.0, 1.0), np.where(t > 1.0, np.clip((b - c) / a, 0.0, 1.0), s))
    t = np.clip(t, 0.0, 1.0)
    gap = between + s[:, None] * axis - t[:, None] * others
    return np.asarray(np.linalg.norm(gap, axis=1)), np.asarray(s * np.sqrt(a))


def _segment_triangle(
    start: Points, end: Points, surface: TriangleSurface, chosen: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance of a segment to each chosen triangle that it does not cross, and where along it [m]."""
    corners = surface.points[surface.triangles[chosen]]
    length = float(np.linalg.norm(end - start))
    best, where = np.full(len(chosen), np.inf), np.zeros(len(chosen))
    candidates = [closest_on_segment(start, end, corners[:, k], corners[:, (k + 1) % 3]) for k in range(3)]
    for point, place in ((start, 0.0), (end, length)):
        gaps = point_triangle_distance(np.tile(point, (len(chosen), 1)), surface, chosen)
        candidates.append((gaps, np.full(len(chosen), place)))
    for gaps, places in candidates:
        nearer = gaps < best
        best, where = np.where(nearer, gaps, best), np.where(nearer, places, where)
    return best, where


def _places(start: Points, end: Points) -> NDArray[np.float64]:
    """Evenly spread places along a line [m], `STEP` apart or nearer."""
    length = float(np.linalg.norm(end - start))
    return np.linspace(0.0, length, max(int(np.ceil(length / STEP)), 1) + 1)


def _along(start: Points, end: Points, places: NDArray[np.float64]) -> Points:
    length = float(np.linalg.norm(end - start))
    axis = (end - start) / length if length > 0 else np.zeros(3)
    return np.asarray(start + places[:, None] * axis)


def _of_level(
    level: Callable[[Points], NDArray[np.float64]], start: Points, end: Points, places: NDArray[np.float64]
) -> list[Stretch]:
    """Stretches of a line where `level` is negative; ends found by bisection between `places`."""
    inside = level(_along(start, end, places)) < 0
    change = np.flatnonzero(inside[1:] != inside[:-1])
    low, high = places[change], places[change + 1]
    enters = inside[change + 1]
    for _ in range(BISECTIONS if len(change) else 0):
        middle = 0.5 * (low + high)
        is_in = level(_along(start, end, middle)) < 0
        upper = is_in == enters  # the change lies before the middle
        low, high = np.where(upper, low, middle), np.where(upper, middle, high)
    edges = list(0.5 * (low + high))
    if inside[0]:
        edges.insert(0, float(places[0]))
    if inside[-1]:
        edges.append(float(places[-1]))
    return [Stretch(float(a), float(b)) for a, b in zip(edges[0::2], edges[1::2], strict=True)]
