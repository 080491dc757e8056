"""Grows the portal and hepatic venous trees of the phantom together, without letting them touch.

Main branches follow hand-drawn anatomy with a seeded wobble; tumours push them aside. Terminals
then join one by one where the tree reaches least, each by a curved twig from the best place of the
nearest branches (as in constrained constructive optimisation: W. Schreiner and P. F. Buxbaum, IEEE
Trans. Biomed. Eng. 40 (1993) 482). Every terminal has a fixed share of the root's flow, so
r = R (share downstream)^(1/γ) obeys Murray's law exactly, and thickening upstream is checked too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.vessel_tree import (
    Points,
    VesselTree,
    point_segment_distances,
    segment_segment_distances,
)

GAP = 1.25e-3
"""Least free space between the walls of the two trees [m], a little over the promised 1 mm."""
TWIG_PIECES = 4


@dataclass(frozen=True)
class Branch:
    """A main branch: its name, the branch it leaves (at its end), control points [m], root number."""

    name: str
    origin: str | None
    points: Points
    root: int = 0


class GrowingTree:
    """One group of vessels while it grows.

    Parameters
    ----------
    branches : main branches, parents first.
    root_radii : radius of each root [m], `quotas` : number of terminals of each root.
    weights : flow of each terminal, consumed in order.
    room : function of points and whether they belong to a main branch, giving the largest radius
        that obstacles (capsule, tumours, gallbladder) allow there [m].
    """

    def __init__(
        self,
        group: str,
        branches: Sequence[Branch],
        root_radii: Sequence[float],
        weights: Sequence[NDArray[np.float64]],
        exponent: float,
        room: Callable[[Points, bool], Points],
    ) -> None:
        self.group, self.exponent, self.room_at = group, exponent, room
        self.weights = [list(w[::-1]) for w in weights]
        self.root_radii = np.asarray(root_radii)
        self.total = np.array([w.sum() for w in weights])
        capacity = sum(len(b.points) for b in branches) + (TWIG_PIECES + 1) * sum(map(len, weights)) + 8
        self.start, self.end = np.zeros((capacity, 3)), np.zeros((capacity, 3))
        self.parent = np.full(capacity, -1)
        self.flow, self.room = np.zeros(capacity), np.full(capacity, np.inf)
        self.reserve = np.zeros(capacity)  # flow that main branches are kept room for
        self.root = np.zeros(capacity, int)
        self.count = 0
        self.axis_gap = np.zeros((capacity, 0))  # to the other tree's segments, set by `meet`
        last: dict[str, int] = {}
        for branch in branches:
            parent = -1 if branch.origin is None else last[branch.origin]
            line = branch.points
            for a, b in pairwise(line):
                parent = self._append(a, b, parent, branch.root)
            last[branch.name] = parent
        inner = self.parent[: self.count]
        self.tips = np.setdiff1d(np.arange(self.count), inner)
        self.room[: self.count] = self._segment_room(self.start[: self.count], self.end[: self.count], True)

    def _append(self, start: Points, end: Points, parent: int, root: int) -> int:
        i = self.count
        self.start[i], self.end[i], self.parent[i], self.root[i] = start, end, parent, root
        self.count += 1
        return i

    def _segment_room(self, start: Points, end: Points, main: bool) -> Points:
        along = np.array([0.0, 1 / 3, 2 / 3, 1.0])[None, :, None]
        samples = start[:, None] + along * (end - start)[:, None]
        return np.asarray(self.room_at(samples, main).min(axis=1))

    def radii(self, flow: Points, root: NDArray[np.int64]) -> Points:
        return np.asarray(self.root_radii[root] * (flow / self.total[root]) ** (1 / self.exponent))

    def path(self, segment: int) -> NDArray[np.int64]:
        """The segment and all its ancestors."""
        found = []
        while segment >= 0:
            found.append(segment)
            segment = int(self.parent[segment])
        return np.asarray(found)

    def meet(self, other: GrowingTree) -> None:
        """Start to keep the distances to the other tree."""
        self.other = other
        self.reserve_room()
        self.axis_gap = np.full((len(self.parent), len(other.parent)), np.inf)
        self.axis_gap[: self.count, : other.count] = segment_segment_distances(
            self.start[: self.count],
            self.end[: self.count],
            other.start[: other.count],
            other.end[: other.count],
        )

    def _record_gaps(self, rows: NDArray[np.int64]) -> None:
        other = self.other
        gaps = segment_segment_distances(
            self.start[rows], self.end[rows], other.start[: other.count], other.end[: other.count]
        )
        self.axis_gap[rows, : other.count] = gaps
        other.axis_gap[: other.count, rows] = gaps.T

    def fits(self, rows: NDArray[np.int64], flow: Points) -> bool:
        """Whether segments may carry `flow`: room by obstacles and free space to the other tree."""
        radii = self.radii(np.maximum(flow, self.reserve[rows]), self.root[rows])
        if np.any(radii > self.room[rows]):
            return False
        others = self.other.spacious_radii()
        return bool(np.all(self.axis_gap[rows, : len(others)] - radii[:, None] - others >= GAP))

    def spacious_radii(self) -> Points:
        """Radius of each segment, of main branches the one they are kept room for [m]."""
        n = self.count
        return self.radii(np.maximum(self.flow[:n], self.reserve[:n]), self.root[:n])

    def beside(self, line: Points, radius: float) -> tuple[NDArray[np.int64], Points]:
        """Segments whose wall may come near a twig, and their radii [m]."""
        n = self.count
        widths = self.spacious_radii()
        reach = (widths + radius + GAP)[:, None]
        start, end = self.start[:n], self.end[:n]
        near = np.all(np.minimum(start, end) - reach <= line.max(axis=0), axis=1)
        near &= np.all(np.maximum(start, end) + reach >= line.min(axis=0), axis=1)
        found = np.flatnonzero(near)
        return found, widths[found]

    def reserve_room(self) -> None:
        """Keep room for the flow that the main branches will likely get, and a fifth more."""
        for root, total in enumerate(self.total):
            tips = self.tips[self.root[self.tips] == root]
            for tip in tips:
                self.reserve[self.path(tip)] += 1.2 * total / len(tips)
        self.reserve = np.minimum(self.reserve, self.total[self.root])

    def open_tips(self) -> bool:
        """Give the end of each main branch its terminal; False where main branches lack room."""
        if not self.fits(np.arange(self.count), self.flow[: self.count]):
            return False
        for tip in self.tips:
            rows = self.path(int(tip))
            weight = self.weights[self.root[tip]].pop()
            self.flow[rows] += weight
        return True

    @property
    def missing(self) -> int:
        """Terminals still to be placed."""
        return sum(map(len, self.weights))

    def distance_to(self, points: Points) -> Points:
        """Distance of points (n, 3) to the nearest axis [m]."""
        n = self.count
        return np.asarray(point_segment_distances(points, self.start[:n], self.end[:n]).min(axis=1))

    def attach(self, terminal: Points, tries: int) -> bool:
        """Join a terminal to the tree; False where no twig finds its way."""
        n = self.count
        axis = self.end[:n] - self.start[:n]
        length = np.linalg.norm(axis, axis=1)
        open_roots = np.array([len(w) > 0 for w in self.weights])
        share = np.array([0.3, 0.5, 0.7])
        where = self.start[:n, None] + share[None, :, None] * axis[:, None]
        way = terminal - where
        distance = np.linalg.norm(way, axis=2)
        forward = np.einsum("nki,ni->nk", way, axis) / np.maximum(distance * length[:, None], 1e-12)
        cost = (
            distance * (1 + 0.9 * (1 - forward))
            + 1e3 * (~open_roots[self.root[:n]] | (length < 2.5e-3)).astype(float)[:, None]
        )
        for choice in np.argsort(cost, axis=None, kind="stable")[: 3 * tries : 3]:
            segment, place = divmod(int(choice), len(share))
            if cost[segment, place] > 0.12:
                return False
            for bend in (0.4, 0.0):
                if self._try_twig(segment, where[segment, place], terminal, bend):
                    return True
        return False

    def _try_twig(self, segment: int, foot: Points, terminal: Points, bend: float) -> bool:
        weight = self.weights[self.root[segment]][-1]
        ancestors = self.path(segment)
        if not self.fits(ancestors, self.flow[ancestors] + weight):
            return False
        way = terminal - foot
        length = float(np.linalg.norm(way))
        axis = self.end[segment] - self.start[segment]
        lead = axis / np.linalg.norm(axis) + way / length
        lead /= max(float(np.linalg.norm(lead)), 1e-9)
        t = np.linspace(0, 1, TWIG_PIECES + 1)[:, None]
        control = foot + bend * length * lead if bend else foot + 0.5 * way
        line = (1 - t) ** 2 * foot + 2 * t * (1 - t) * control + t**2 * terminal
        start, end = line[:-1], line[1:]
        root = self.root[segment]
        radius = float(self.radii(np.array([weight]), np.array([root]))[0])
        room = self._segment_room(start, end, False)
        if np.any(room < radius):
            return False
        near, widths = self.beside(line, radius)
        own = segment_segment_distances(start[1:], end[1:], self.start[near], self.end[near])
        about_foot = point_segment_distances(foot[None], self.start[near], self.end[near])[0]
        own[:, about_foot < 1.5 * (widths + radius)] = np.inf
        if np.any(own - widths < radius + 0.5e-3):
            return False
        near, widths = self.other.beside(line, radius)
        gaps = segment_segment_distances(start, end, self.other.start[near], self.other.end[near])
        if np.any(gaps - radius - widths < GAP):
            return False
        self._graft(segment, foot, line, weight, room)
        return True

    def _graft(self, segment: int, foot: Points, line: Points, weight: float, room: Points) -> None:
        lower = self._append(foot, self.end[segment], segment, self.root[segment])
        children = np.flatnonzero(self.parent[:lower] == segment)
        self.parent[children] = lower
        self.end[segment] = foot
        self.flow[lower], self.room[lower] = self.flow[segment], self.room[segment]
        self.reserve[lower] = self.reserve[segment]
        parent, twig = segment, []
        for a, b in pairwise(line):
            parent = self._append(a, b, parent, self.root[segment])
            twig.append(parent)
        self.room[twig] = room
        self.flow[twig] = weight
        self.flow[self.path(segment)] += weight
        self.weights[self.root[segment]].pop()
        self._record_gaps(np.array([segment, lower, *twig]))

    def finished(self) -> VesselTree:
        """The tree with parents before children."""
        n = self.count
        depth = np.array([len(self.path(i)) for i in range(n)])
        order = np.argsort(depth, kind="stable")
        rank = np.empty(n, np.int64)
        rank[order] = np.arange(n)
        parents = np.where(self.parent[order] >= 0, rank[self.parent[order]], -1)
        nodes, segments = [], np.empty((n, 2), np.int64)
        for i, segment in enumerate(order):
            if parents[i] < 0:
                nodes.append(self.start[segment])
                segments[i, 0] = len(nodes) - 1
            else:
                segments[i, 0] = segments[parents[i], 1]
            nodes.append(self.end[segment])
            segments[i, 1] = len(nodes) - 1
        radii = self.radii(self.flow[order], self.root[order])
        return VesselTree(self.group, np.asarray(nodes), segments, parents, radii)


def smooth_line(control: Points, step: float) -> Points:
    """Points about `step` apart on a spline through control points (n, 3), both ends kept."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(control, axis=0), axis=1))])
    count = max(2, round(along[-1] / step) + 1)
    if len(control) == 2:
        return np.linspace(control[0], control[1], count)
    from scipy.interpolate import CubicSpline  # slow to import, and trees are mostly remembered

    return np.asarray(CubicSpline(along, control)(np.linspace(0, along[-1], count)))


def resampled(line: Points, step: float) -> Points:
    """The same polyline with points about `step` [m] apart, both ends kept."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    at = np.linspace(0, along[-1], max(2, round(along[-1] / step) + 1))
    return np.stack([np.interp(at, along, line[:, a]) for a in range(3)], axis=1)


def bend_around(lines: dict[str, Points], radii: dict[str, float], center: Points, clearance: float) -> None:
    """Push polylines off a ball, smoothly and all alike, as a growing mass pushes vessels aside.

    Points at distance ρ from `center` move out to (ρ⁶ + H⁶)^(1/6), H = `clearance` + radius [m]; before
    that everything near the centre yields sideways, so that no line is split by the ball. The
    lines are changed in place; lines that met at an end still meet.
    """
    nearest = min(lines, key=lambda name: float(np.linalg.norm(lines[name] - center, axis=1).min()))
    line = lines[nearest]
    i = int(np.argmin(np.linalg.norm(line - center, axis=1)))
    side = line[i] - center
    tangent = line[min(i + 1, len(line) - 1)] - line[max(i - 1, 0)]
    tangent /= np.linalg.norm(tangent)
    if np.linalg.norm(side) < 1e-4:
        side = np.cross(tangent, np.eye(3)[np.argmin(np.abs(tangent))])
    side = side / np.linalg.norm(side)
    for power in (6, 24, 24):
        ends: dict[bytes, Points] = {}
        for name, line in lines.items():
            hindrance = clearance + radii[name]
            offset = line - center
            squared = np.sum(offset**2, axis=1, keepdims=True)
            offset = offset + 0.35 * hindrance * side * np.exp(-squared / (0.5 * hindrance) ** 2)
            distance = np.linalg.norm(offset, axis=1, keepdims=True)
            relative = np.maximum(distance / hindrance, 1e-6)
            moved = center + offset * (1 + relative**-power) ** (1 / power)
            moved = np.where(distance < 2 * hindrance, moved, line)
            # the first of the lines to reach a shared end decides where it goes
            for end in (0, -1):
                moved[end] = ends.setdefault(line[end].tobytes(), moved[end])
            lines[name] = _relaxed(resampled(moved, 0.5e-3))
        side = 0 * side  # yield once, then only keep off while the lines are smoothed


def _relaxed(line: Points) -> Points:
    """The polyline smoothed over some millimetres, both ends kept."""
    for _ in range(12):
        line = line.copy()
        line[1:-1] = 0.25 * line[:-2] + 0.5 * line[1:-1] + 0.25 * line[2:]
    return line


def grow(
    first: GrowingTree, second: GrowingTree, places: Points, random: np.random.Generator, candidates: int = 14
) -> bool:
    """Grow both trees in turn until each has all its terminals.

    Of a few random `places` (n, 3) the one farthest from the tree is tried first, so that the
    terminals spread evenly. False where one of the trees finds no way for its terminals.
    """
    first.meet(second)
    second.meet(first)
    if not (first.open_tips() and second.open_tips()):
        return False
    planned = {id(t): max(1, t.missing) for t in (first, second)}
    failures, in_a_row, limit = 0, 0, 30 + first.missing + second.missing
    while first.missing + second.missing:
        tree = max((first, second), key=lambda t: t.missing / planned[id(t)])
        pool = places[random.integers(len(places), size=candidates)]
        terminal = pool[np.argmax(tree.distance_to(pool))]
        if not tree.attach(terminal, tries=4):
            failures += 1
            in_a_row += 1
            if failures > limit or in_a_row > 40:
                return False
        else:
            in_a_row = 0
    return True
