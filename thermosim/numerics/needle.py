"""A straight electrode as plain geometry: what the numerics need to know of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from thermosim.anatomy.grid import Grid, Vector
from thermosim.errors import InputError
from thermosim.numerics.electrode_shape import Array, Index, Mask, inside_grid
from thermosim.numerics.fit_limits import QUADRATURE, SOLID_SKIN
from thermosim.numerics.near_field import NearField, SphereField, needle_field

FITTED_SHAFT = 8.0
"""Radii of insulated shaft beyond the metal that are fitted."""

SMOOTH_DISTANCE = 1.0
"""Cells from the wall from which on few Gauss points see the flux through a face."""

SMOOTH_QUADRATURE = 3
"""So many along its edge: they err by 1e-4 (root mean square over the faces of a needle at 0.5, 1 and 2 mm),
not more than twice what the interpolated field leaves to twelve."""


@dataclass(frozen=True)
class Needle:
    """Plain geometry of a rod with a round tip, or of a sphere; an `ElectrodeShape`.

    Parameters
    ----------
    tip : end of the rod [m]; the centre of a ``sphere``.
    direction : from the tip towards the handle; need not be of unit length.
    radius, active_length : [m]; length of the bare metal, cap included.
    kind : ``needle`` or ``sphere`` (which has no shaft and ignores lengths and direction).
    active_start : where the bare metal begins, from the tip's end [m]; 0: the tip is bare.
    other_pole : start and end of another band of bare metal on the shaft [m], the other pole of a
        bipolar needle. The near field does not know of it, but current along the gap is not lost.
    """

    tip: Vector
    direction: Vector
    radius: float
    active_length: float = 0.0
    kind: Literal["needle", "sphere"] = "needle"
    active_start: float = 0.0
    other_pole: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        numbers = np.array([*self.tip, *self.direction, self.radius, self.active_length], dtype=np.float64)
        if not np.all(np.isfinite(numbers)) or self.radius <= 0:
            raise InputError(f"an electrode of radius {self.radius} m needs finite points, radius above 0")
        if self.kind == "needle" and not self.active_length > 2 * self.radius:
            raise InputError(
                f"active length {1e3 * self.active_length:g} mm must exceed the diameter "
                f"{2e3 * self.radius:g} mm"
            )
        if self.kind == "needle" and not np.linalg.norm(self.direction) > 0:
            raise InputError("a needle's direction has length 0; give a vector from tip to handle")

    @cached_property
    def axis(self) -> Array:
        """Unit vector from tip to handle."""
        if self.kind == "sphere":
            return np.array([0.0, 0.0, 1.0])
        vector = np.asarray(self.direction, dtype=np.float64)
        return np.asarray(vector / np.linalg.norm(vector))

    @cached_property
    def center(self) -> Array:
        """Centre of the hemisphere or sphere [m]."""
        return np.asarray(self.tip) + (0.0 if self.kind == "sphere" else self.radius) * self.axis

    @property
    def active_end(self) -> float:
        """Where the bare metal ends, from `center` along the axis [radii]; 0 for a sphere."""
        return 0.0 if self.kind == "sphere" else (self.active_start + self.active_length) / self.radius - 1.0

    @property
    def band_start(self) -> float:
        """Where the bare metal begins, from `center` along the axis [radii]; -1 with a bare tip."""
        return self.active_start / self.radius - 1.0

    @property
    def metal_area(self) -> float:
        """Area of bare metal [m²]."""
        length = 2.0 * self.radius if self.kind == "sphere" else self.active_length
        return float(2 * np.pi * self.radius * length)

    def coordinates(self, points: Array) -> tuple[Array, Array]:
        """Axial and radial coordinate [radii] of points [m] of shape (..., 3)."""
        offset = (points - self.center) / self.radius
        axial = offset @ self.axis
        square = np.einsum("...i,...i->...", offset, offset) - axial**2
        return axial, np.sqrt(np.maximum(square, 0.0))

    def wall_distance(self, axial: Array, radial: Array) -> Array:
        """Distance from the wall of metal and shaft [radii], negative inside."""
        below = axial if self.kind == "sphere" else np.minimum(axial, 0.0)
        return np.asarray(np.hypot(radial, below) - 1.0)

    def wall_flux(self, axial: Array, radial: Array, width: float) -> Array:
        """Near field's flux [1/m] through the metal nearest to the points, a mean over `width` [m]."""
        arc = np.where(axial < 0, np.arctan2(np.minimum(axial, 0.0), radial), axial)
        return self.near_field().wall_flux(arc, width / self.radius) / self.radius

    def near_field(self) -> NearField:
        """Its field alone in a large body."""
        if self.kind == "sphere":
            return SphereField()
        return needle_field(self.active_end + 1.0, self.active_start / self.radius)

    # ------------------------------------------------------------------ as an ElectrodeShape

    def window(self, grid: Grid, reach: float) -> Index:
        """Walks the layers across the needle's steepest axis, so only cells near the needle are visited."""
        h, shape = grid.spacing[0], np.array(grid.shape)
        axis, start = self.axis, grid.indices(self.center)
        main = int(np.argmax(np.abs(axis)))
        others = [a for a in range(3) if a != main]
        radius = (reach + self.radius) / h
        half = int(np.ceil(radius / abs(axis[main]))) + 1
        layers = np.arange(shape[main])
        along = (layers - start[main]) / axis[main]
        last = radius if self.kind == "sphere" else np.inf
        layers = layers[(along >= -radius / abs(axis[main]) - 1) & (along <= last / abs(axis[main]) + 1)]
        along = (layers - start[main]) / axis[main]
        foot = np.rint(start + along[:, None] * axis).astype(np.int64)
        window = np.arange(-half, half + 1)
        block = np.empty((len(layers), len(window), len(window), 3), dtype=np.int64)
        block[..., main] = layers[:, None, None]
        block[..., others[0]] = foot[:, others[0]][:, None, None] + window[:, None]
        block[..., others[1]] = foot[:, others[1]][:, None, None] + window
        index = block.reshape(-1, 3)
        return np.asarray(index[inside_grid(grid, index)])

    def distance(self, points: Array) -> Array:
        return np.asarray(self.radius * self.wall_distance(*self.coordinates(points)))

    def metal_distance(self, points: Array) -> Array:
        if self.kind == "sphere":
            return self.distance(points)
        axial, radial = self.coordinates(points)
        off = axial - np.clip(axial, max(self.band_start, 0.0), self.active_end)
        return np.asarray(self.radius * (np.hypot(radial, off) - 1.0))

    def solid(self, points: Array, distance: Array, spacing: float) -> Mask:
        return np.asarray(distance < SOLID_SKIN * spacing)

    def potential(self, points: Array) -> Array:
        return self.near_field().potential(*self.coordinates(points))

    def flux(self, points: Array, axes: Index) -> Array:
        rows = np.arange(len(axes))
        axial, radial = self.coordinates(points)
        along, outward = self.near_field().flux(axial, radial)
        offset = (points - self.center) / self.radius
        n_axis = self.axis[axes]
        n_radial = (offset[rows, axes] - axial * n_axis) / np.maximum(radial, 1e-9)
        return np.asarray((along * n_axis + outward * n_radial) / self.radius)

    def metal_flux(self, points: Array, width: float) -> Array:
        return self.wall_flux(*self.coordinates(points), width)

    def fitted(self, points: Array, spacing: float) -> Mask:
        axial, _ = self.coordinates(points)
        reach = max(FITTED_SHAFT, 4 * spacing / self.radius)
        return np.asarray((axial < self.active_end + reach) & (axial > self.band_start - 1.0 - reach))

    def quadrature(self, points: Array, spacing: float) -> Index:
        smooth = self.distance(points) >= SMOOTH_DISTANCE * spacing
        return np.where(smooth, SMOOTH_QUADRATURE, QUADRATURE)

    def gap(self, points: Array) -> Mask:
        if self.other_pole is None:
            return np.zeros(len(points), dtype=bool)
        axial, _ = self.coordinates(points)
        start, end = (length / self.radius - 1.0 for length in self.other_pole)
        between = (self.active_end, start) if start > self.active_end else (end, self.band_start)
        return np.asarray((axial > between[0]) & (axial < between[1]))

    def surface(self, step: float) -> tuple[Array, Array]:
        size = step / self.radius
        bare_tip = self.kind == "sphere" or self.active_start == 0.0
        lowest = -np.pi / 2 if bare_tip else self.band_start + 1e-9
        highest = np.pi / 2 if self.kind == "sphere" else self.active_end
        arc = np.linspace(lowest, highest, max(int(np.ceil((highest - lowest) / size)), 4) + 1)
        arc[-1] -= 1e-9
        turn = np.linspace(0, 2 * np.pi, max(int(np.ceil(2 * np.pi / size)), 12), endpoint=False)
        on_cap = np.full(len(arc), True) if self.kind == "sphere" else arc < 0
        axial = np.where(on_cap, np.sin(np.where(on_cap, arc, 0.0)), arc)
        radial = np.where(on_cap, np.cos(np.where(on_cap, arc, 0.0)), 1.0)
        first = np.cross(self.axis, np.eye(3)[np.argmin(np.abs(self.axis))])
        first /= np.linalg.norm(first)
        second = np.cross(self.axis, first)
        ring = np.cos(turn)[:, None] * first + np.sin(turn)[:, None] * second
        points = axial[:, None, None] * self.axis + radial[:, None, None] * ring
        weight = np.repeat(radial, len(turn))
        return self.center + self.radius * points.reshape(-1, 3), self.metal_area * weight / weight.sum()
