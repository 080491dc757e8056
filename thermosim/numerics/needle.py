"""An electrode as plain geometry: what the numerics need to know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from thermosim.anatomy.grid import Vector
from thermosim.errors import InputError
from thermosim.numerics.near_field import Array, NearField, SphereField, needle_field


@dataclass(frozen=True)
class Needle:
    """Plain geometry of an electrode.

    Parameters
    ----------
    tip : end of the metal [m]; the centre of a ``sphere``.
    direction : from the tip towards the handle; need not be of unit length.
    radius, active_length : [m]; the active length counts from the tip's end, cap included.
    kind : ``needle`` or ``sphere`` (which has no shaft and ignores active length and direction).
    """

    tip: Vector
    direction: Vector
    radius: float
    active_length: float = 0.0
    kind: Literal["needle", "sphere"] = "needle"

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

    @property
    def axis(self) -> Array:
        """Unit vector from tip to handle."""
        if self.kind == "sphere":
            return np.array([0.0, 0.0, 1.0])
        vector = np.asarray(self.direction, dtype=np.float64)
        return np.asarray(vector / np.linalg.norm(vector))

    @property
    def center(self) -> Array:
        """Centre of the hemisphere or sphere [m]."""
        return np.asarray(self.tip) + (0.0 if self.kind == "sphere" else self.radius) * self.axis

    @property
    def active_end(self) -> float:
        """Where the bare metal ends, from `center` along the axis [radii]; 0 for a sphere."""
        return 0.0 if self.kind == "sphere" else self.active_length / self.radius - 1.0

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
        return needle_field(self.active_length / self.radius)
