"""A multitined electrode as plain geometry: thin wires that leave a straight trunk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from thermosim.anatomy.grid import Grid, Vector
from thermosim.errors import InputError
from thermosim.numerics.electrode_shape import Array, Index, Mask, inside_grid
from thermosim.numerics.fit_limits import FITTED_DISTANCE, QUADRATURE, SOLID_SKIN
from thermosim.numerics.needle import Needle
from thermosim.numerics.wire_field import WireField, wire_field

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

THICK_WIRE = 0.5
"""Radius of a wire in cells from which on cells with their centre in it are solid."""

SMOOTH_DISTANCE = 0.75
"""Cells from the wall beyond which the field hardly bends over a face."""

SMOOTH_QUADRATURE = 2
"""Gauss points along the edge of such a face."""

LEAST_DENSITY = 0.05
"""Of the mean charge density: wires in each other's shadow may have none."""


@dataclass(frozen=True)
class Tines:
    """Wires of bare metal and the trunk they leave; an `ElectrodeShape`.

    Parameters
    ----------
    tip : end of the trunk's round tip [m]. direction : from there towards the handle.
    radius : of the trunk [m].
    bare_length : of the trunk, from its end [m]; the rest is insulated. 0: all of it is.
    wires : polylines [m], each from the trunk to its tip.
    wire_radius : [m].

    The trunk is solid. A wire thinner than ``THICK_WIRE`` cells has no solid cells: those it passes
    through are tissue with a link to metal.
    """

    tip: Vector
    direction: Vector
    radius: float
    bare_length: float
    wires: tuple[tuple[Vector, ...], ...]
    wire_radius: float

    def __post_init__(self) -> None:
        if not self.wires or min(len(wire) for wire in self.wires) < 2:
            raise InputError("a multitined electrode needs at least one wire of two points")
        numbers = np.array([self.radius, self.bare_length, self.wire_radius])
        if (
            not np.all(np.isfinite(numbers))
            or not 0 < self.wire_radius <= self.radius
            or self.bare_length < 0
        ):
            raise InputError(
                f"trunk of radius {self.radius} m, {self.bare_length} m bare, wires of radius "
                f"{self.wire_radius} m: all must be finite, wires positive and no thicker than the trunk"
            )
        if not all(np.all(np.isfinite(wire)) for wire in self.wires):
            raise InputError("a wire has a point that is no finite number")
        if self._edges[2].min() <= 1e-9:
            raise InputError("a wire has the same point twice in a row; leave one out")

    # ------------------------------------------------------------------ geometry

    @cached_property
    def _edges(self) -> tuple[Array, Array, Array]:
        """First points, last points and lengths of all edges of the polylines."""
        first = np.concatenate([np.asarray(wire[:-1], dtype=np.float64) for wire in self.wires])
        last = np.concatenate([np.asarray(wire[1:], dtype=np.float64) for wire in self.wires])
        return first, last, np.linalg.norm(last - first, axis=1)

    @cached_property
    def _tree(self) -> tuple[cKDTree, Index]:
        """Points along the wires half a radius apart, and the edge each lies on."""
        from scipy.spatial import cKDTree  # slow to import, and most electrodes are straight

        first, last, length = self._edges
        count = np.ceil(length / (0.5 * self.wire_radius)).astype(np.int64)
        edge = np.repeat(np.arange(len(count)), count)
        place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        share = ((place + 0.5) / count[edge])[:, None]
        return cKDTree(first[edge] + share * (last[edge] - first[edge])), edge

    @cached_property
    def trunk(self) -> Needle:
        """The trunk as a rod; its walls only, not its field."""
        return Needle(self.tip, self.direction, self.radius, max(self.bare_length, 3.0 * self.radius))

    def nearest(self, points: Array) -> tuple[Index, Array]:
        """Which edge of the polylines is nearest to each point, and the nearest point of it [m]."""
        tree, edges = self._tree
        _, nearest = tree.query(points)
        edge = edges[nearest]
        first, last, length = self._edges
        along = np.einsum("ij,ij->i", points - first[edge], last[edge] - first[edge]) / length[edge] ** 2
        return edge, first[edge] + np.clip(along, 0.0, 1.0)[:, None] * (last[edge] - first[edge])

    def _wire_distance(self, points: Array) -> Array:
        return np.asarray(np.linalg.norm(points - self.nearest(points)[1], axis=1) - self.wire_radius)

    def wire_of(self, points: Array) -> Index:
        """Number of the wire nearest to each point."""
        starts = np.cumsum([0, *(len(wire) - 1 for wire in self.wires)])
        return np.asarray(np.searchsorted(starts, self.nearest(points)[0], side="right") - 1)

    # ------------------------------------------------------------------ as an ElectrodeShape

    @property
    def metal_area(self) -> float:
        wires = 2 * np.pi * self.wire_radius * self._edges[2].sum()
        return float(wires + 2 * np.pi * self.radius * self.bare_length)

    def window(self, grid: Grid, reach: float) -> Index:
        h = grid.spacing[0]
        first, last, _ = self._edges
        around = (reach + self.wire_radius) / h
        blocks = [self.trunk.window(grid, reach)]
        for a, b in zip(grid.indices(first), grid.indices(last), strict=True):
            low = np.maximum(np.ceil(np.minimum(a, b) - around), 0).astype(np.int64)
            high = np.minimum(np.floor(np.maximum(a, b) + around), np.array(grid.shape) - 1).astype(np.int64)
            if np.all(low <= high):
                axes = [np.arange(low[k], high[k] + 1) for k in range(3)]
                block = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
                step = (b - a) / max(float(np.linalg.norm(b - a)), 1e-9)
                along = np.clip((block - a) @ step, 0.0, np.linalg.norm(b - a))
                off = np.linalg.norm(block - a - along[:, None] * step, axis=1)
                blocks.append(block[off <= around])
        index = np.unique(np.concatenate(blocks), axis=0)
        return np.asarray(index[inside_grid(grid, index)])

    def distance(self, points: Array) -> Array:
        return np.minimum(self._wire_distance(points), self.trunk.distance(points))

    def metal_distance(self, points: Array) -> Array:
        wires = self._wire_distance(points)
        return np.minimum(wires, self.trunk.metal_distance(points)) if self.bare_length > 0 else wires

    def solid(self, points: Array, distance: Array, spacing: float) -> Mask:
        if self.wire_radius >= THICK_WIRE * spacing:
            return np.asarray(distance < SOLID_SKIN * spacing)
        return np.asarray(self.trunk.distance(points) < SOLID_SKIN * spacing)

    def near_field(self) -> WireField:
        """Field of wires and bare trunk alone in a large body; the insulated trunk is left out."""
        lines, radii = list(self.wires), [self.wire_radius] * len(self.wires)
        if self.bare_length > 0:
            axis = self.trunk.axis
            ends = np.asarray(self.tip)[None] + np.outer([0.5 * self.radius, self.bare_length], axis)
            lines.append(tuple((float(p[0]), float(p[1]), float(p[2])) for p in ends))
            radii.append(self.radius)
        return wire_field(tuple(lines), tuple(radii))

    def potential(self, points: Array) -> Array:
        value = np.minimum(self.near_field().potential(points), 1.0)
        return np.where(self.metal_distance(points) <= 0, 1.0, value)

    def flux(self, points: Array, axes: Index) -> Array:
        return np.where(self.distance(points) < 0, 0.0, self.near_field().flux(points, axes))

    def metal_flux(self, points: Array, width: float) -> Array:
        field = self.near_field()
        mean = field.current / field.length[field.real].sum()
        _, piece = field.middles.query(points)
        density = np.maximum(field.density[field.real], LEAST_DENSITY * mean)
        return np.asarray((density / (2 * np.pi * field.radius[field.real]))[piece])

    def fitted(self, points: Array, spacing: float) -> Mask:
        return np.asarray(self.metal_distance(points) < (FITTED_DISTANCE + 1.5) * spacing)

    def quadrature(self, points: Array, spacing: float) -> Index:
        smooth = self.distance(points) > SMOOTH_DISTANCE * spacing
        return np.where(smooth, SMOOTH_QUADRATURE, QUADRATURE)

    def gap(self, points: Array) -> Mask:
        return np.zeros(len(points), dtype=bool)

    def surface(self, step: float) -> tuple[Array, Array]:
        first, last, length = self._edges
        n_turns = max(int(np.ceil(2 * np.pi * self.wire_radius / step)), 12)
        count = np.ceil(length / step).astype(np.int64)
        edge = np.repeat(np.arange(len(count)), count)
        place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        along = (last - first) / length[:, None]
        points = first[edge] + ((place + 0.5) / count[edge])[:, None] * (last - first)[edge]
        side = np.cross(along, np.eye(3)[np.argmin(np.abs(along), axis=1)])
        side /= np.linalg.norm(side, axis=1)[:, None]
        other = np.cross(along, side)
        turn = 2 * np.pi * np.arange(n_turns) / n_turns
        ring = np.cos(turn)[:, None, None] * side[edge] + np.sin(turn)[:, None, None] * other[edge]
        area = np.tile(2 * np.pi * self.wire_radius * (length / count)[edge] / n_turns, n_turns)
        found = [((points + self.wire_radius * ring).reshape(-1, 3), area)]
        if self.bare_length > 0:
            ends, share = Needle(
                self.tip, self.direction, self.radius, max(self.bare_length, 2.001 * self.radius)
            ).surface(step)
            found.append((ends, share))
        return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])
