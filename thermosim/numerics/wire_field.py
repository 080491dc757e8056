"""The electric near field of thin wires: line charges on their centre lines.

A wire much thinner than it is long has, outside its metal, the field of a line charge on its
centre line (slender-body theory). The centre line is cut into straight pieces of uniform charge;
a piece of length L and density λ, whose ends are R₁ and R₂ away, adds with S = R₁ + R₂

    φ = λ/(4π) ln((S + L)/(S - L)),    -∇φ = λ/(4π) 2L/(S² - L²) (r₁/R₁ + r₂/R₂).

The densities follow from φ = 1 on the metal's surface, a mean around it, at the middle of each piece.
Reference: Harrington, Field Computation by Moment Methods (1968), section 2.3 (thin wires); the
potential of a charged segment: Durand, Électrostatique I (1964).
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from thermosim.anatomy.grid import Vector
from thermosim.errors import InputError
from thermosim.numerics.electrode_shape import Array, Index

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

AROUND = 6
"""Collocation points around a wire."""

SHORTEST_PIECE, LONGEST_PIECE = 2.0, 5.0
"""Lengths of pieces [wire radii]. With shorter ones the charge on the axis begins to oscillate."""

MOST_PIECES = 1500
CHUNK = 400_000
"""Pairs of point and piece worked on at a time: what fits in the cache."""


class WireField:
    """Line charges on chains of straight pieces, potential 1 on their metal.

    Parameters
    ----------
    nodes : (n + 1, 3) ends of the pieces [m], chain after chain.
    radius : (n,) of the metal around the piece from node k to k + 1 [m]; 0 where one chain ends and
        the next begins, which is no piece.
    """

    def __init__(self, nodes: Array, radius: Array) -> None:
        self.center = nodes.mean(axis=0)
        self._nodes = nodes - self.center
        self.radius = radius
        self.real = radius > 0
        n_pieces = int(self.real.sum())
        if n_pieces > MOST_PIECES:
            raise InputError(
                f"the wires of one device are cut into {n_pieces} pieces, at most {MOST_PIECES} are "
                "possible; shorten them, use fewer, or raise tine_radius_mm"
            )
        step = np.diff(self._nodes, axis=0)
        self.length = np.linalg.norm(step, axis=1)
        self._density = np.where(self.real, 1.0, 0.0)
        self._density[self.real] = self._solve(step)

    @property
    def current(self) -> float:
        """Current over conductivity [m]: the resistance in a large body is 1 / (σ · current)."""
        return float(self._density @ self.length)

    @property
    def density(self) -> Array:
        """Current over conductivity and length of each piece, (n,)."""
        return self._density

    @cached_property
    def middles(self) -> cKDTree:
        """Middles of the pieces [m], for looking up the nearest."""
        from scipy.spatial import cKDTree

        return cKDTree((self.center + 0.5 * (self._nodes[:-1] + self._nodes[1:]))[self.real])

    def _solve(self, step: Array) -> Array:
        """Densities that give φ = 1 on average around the middle of each piece."""
        k = np.flatnonzero(self.real)
        along = step[k] / self.length[k, None]
        helper = np.eye(3)[np.argmin(np.abs(along), axis=1)]
        first = np.cross(along, helper)
        first /= np.linalg.norm(first, axis=1)[:, None]
        second = np.cross(along, first)
        middle = 0.5 * (self._nodes[k] + self._nodes[k + 1])
        matrix = np.zeros((len(k), len(k)))
        for turn in 2 * np.pi * np.arange(AROUND) / AROUND:
            outward = np.cos(turn) * first + np.sin(turn) * second
            points = middle + self.radius[k, None] * outward
            matrix += self._logarithm(points)[:, k] / AROUND
        return np.asarray(np.linalg.solve(matrix, np.ones(len(k))))

    def _distances(self, points: Array) -> Array:
        """Distance of each point from each node, (m, n + 1); points are counted from the centre."""
        square = np.einsum("ij,ij->i", points, points)[:, None] - 2.0 * points @ self._nodes.T
        square += np.einsum("ij,ij->i", self._nodes, self._nodes)
        return np.asarray(np.sqrt(np.maximum(square, 1e-16)), dtype=np.float64)

    def _logarithm(self, points: Array) -> Array:
        distance = self._distances(points)
        total = distance[:, :-1] + distance[:, 1:]
        gap = np.maximum(total - self.length, 1e-9 * self.length + 1e-15)
        return np.asarray(np.log((total + self.length) / gap) / (4 * np.pi))

    def potential(self, points: Array) -> Array:
        """φ at points [m] of shape (m, 3); above 1 inside the metal."""
        result = np.empty(len(points))
        for rows in self._chunks(len(points)):
            result[rows] = self._logarithm(points[rows] - self.center) @ self._density
        return result

    def flux(self, points: Array, axes: Index) -> Array:
        """-∂φ/∂x along axis 0, 1 or 2, for each point its own [1/m]."""
        result = np.empty(len(points))
        for axis in range(3):
            of_axis = np.flatnonzero(axes == axis)
            for part in self._chunks(len(of_axis)):
                rows = of_axis[part]
                result[rows] = self._flux(points[rows] - self.center, axis)
        return result

    def _flux(self, points: Array, axis: int) -> Array:
        distance = self._distances(points)
        near, far = distance[:, :-1], distance[:, 1:]
        total = near + far
        square = np.maximum(total * total - self.length**2, 1e-16)
        weight = (self._density * self.length / (2 * np.pi)) / square
        from_near, from_far = weight / near, weight / far
        place = self._nodes[:, axis]
        own = points[:, axis] * (from_near.sum(axis=1) + from_far.sum(axis=1))
        return np.asarray(own - from_near @ place[:-1] - from_far @ place[1:])

    def _chunks(self, count: int) -> list[slice]:
        size = max(CHUNK // len(self.length), 1)
        return [slice(start, start + size) for start in range(0, count, size)]


def pieces(lines: tuple[tuple[Vector, ...], ...], radii: tuple[float, ...]) -> tuple[Array, Array]:
    """Nodes and radii of the pieces of several polylines, as `WireField` takes them.

    Corners of the polylines are kept; edges are cut to at most ``LONGEST_PIECE`` radii, those within
    that of a free end to about ``SHORTEST_PIECE``, where the charge gathers.
    """
    nodes, radius = [], []
    for line, own in zip(lines, radii, strict=True):
        points = np.asarray(line, dtype=np.float64)
        length = np.linalg.norm(np.diff(points, axis=0), axis=1)
        ends = np.concatenate([[0.0], np.cumsum(length)])
        for k, edge in enumerate(length):
            from_end = min(ends[k], ends[-1] - ends[k + 1]) / own
            wanted = own * min(SHORTEST_PIECE + 0.5 * from_end, LONGEST_PIECE)
            count = max(int(edge / wanted + 0.5), 1)
            share = np.arange(count)[:, None] / count
            nodes.append(points[k] + share * (points[k + 1] - points[k]))
            radius.append(np.full(count, own))
        nodes.append(points[-1:])
        radius.append(np.zeros(1))
    return np.concatenate(nodes), np.concatenate(radius)[:-1]


@lru_cache(maxsize=16)
def wire_field(lines: tuple[tuple[Vector, ...], ...], radii: tuple[float, ...]) -> WireField:
    """The field of wires along polylines [m], solved or remembered.

    Examples
    --------
    A straight wire 40 mm long, 0.3 mm in radius, against a prolate spheroid of that length (half the
    length l, focal half-length c): R = ln((l + c)/(l - c)) / (8 π σ c).

    >>> line = tuple((0.0, 0.0, 1e-3 * z) for z in range(-20, 21))
    >>> resistance = 1.0 / (0.2 * wire_field((line,), (0.3e-3,)).current)
    >>> half, focal = 20e-3, (20e-3**2 - 0.3e-3**2) ** 0.5
    >>> spheroid = np.log((half + focal) / (half - focal)) / (8 * np.pi * 0.2 * focal)
    >>> bool(0.9 < resistance / spheroid < 1.0)  # the wire is thicker towards its ends
    True
    """
    return WireField(*pieces(lines, radii))
