"""Electrodes as exact geometry: an axis, a radius, an exposed part and an insulated shaft."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.grid import Vector
from thermosim.errors import InputError
from thermosim.numerics.needle import Needle


@dataclass(frozen=True)
class Electrode:
    """One electrode in the patient's frame.

    A ``needle`` is a straight metal rod of `radius` with a hemispherical tip: the metal ends
    exactly at `target_point`, `active_length` of it (measured from that end) is bare metal, and
    the insulated shaft continues towards `entry_point` and beyond. A ``sphere`` of `radius`
    around `target_point` is the electrode of closed forms.

    Parameters
    ----------
    target_point, entry_point : LPS [m]. radius, active_length : [m].
    coolant_temperature : temperature of the inner coolant [°C]; None for an uncooled needle,
        whose surface lets no heat through.
    coolant_heat_transfer : from coolant through the metal wall [W/(m² K)].
    applicator : the device it is part of, by the layout's name for it; empty: a device of its own.
    pole : which pole of a bipolar device, ``distal`` or ``proximal``; empty: the device has one.
    """

    name: str
    target_point: Vector
    entry_point: Vector
    radius: float
    active_length: float
    kind: Literal["needle", "sphere"] = "needle"
    coolant_temperature: float | None = None
    coolant_heat_transfer: float = 0.0
    applicator: str = ""
    pole: str = ""

    def __post_init__(self) -> None:
        if not (np.all(np.isfinite(self.target_point)) and np.all(np.isfinite(self.entry_point))):
            raise InputError(f"needle {self.name!r}: its points are not finite numbers")
        if self.radius <= 0:
            raise InputError(f"needle {self.name!r}: radius {1e3 * self.radius:g} mm, must be positive")
        if self.kind == "needle":
            length = float(np.linalg.norm(np.subtract(self.entry_point, self.target_point)))
            if self.active_length <= 2 * self.radius:
                raise InputError(
                    f"needle {self.name!r}: exposed length {1e3 * self.active_length:g} mm must exceed "
                    f"its diameter {2e3 * self.radius:g} mm"
                )
            if length < self.active_length:
                raise InputError(
                    f"needle {self.name!r}: entry and target are {1e3 * length:g} mm apart, less than the "
                    f"exposed length {1e3 * self.active_length:g} mm; move the entry point outwards"
                )

    @property
    def unit(self) -> str:
        """What a generator drives as one: the device, or one pole of it. Its electrodes are bonded."""
        device = self.applicator or self.name
        return f"{device}.{self.pole}" if self.pole else device

    @property
    def sensors(self) -> tuple[Vector, ...]:
        """Where the device measures temperature [m, LPS]."""
        return (self.target_point,)

    @property
    def geometry(self) -> Needle:
        """The electrode as the plain geometry that links are fitted to."""
        direction = (0.0, 0.0, 1.0) if self.kind == "sphere" else tuple(self.direction)
        return Needle(self.target_point, direction, self.radius, self.active_length, self.kind)

    @property
    def direction(self) -> NDArray[np.float64]:
        """Unit vector from the tip towards the handle."""
        shaft = np.subtract(self.entry_point, self.target_point)
        return np.asarray(shaft / np.linalg.norm(shaft))

    @property
    def axis_start(self) -> NDArray[np.float64]:
        """Centre of the tip's hemisphere, or of the sphere [m, LPS]."""
        return np.asarray(self.target_point) + (self.kind == "needle") * self.radius * self.direction

    @property
    def axis_end(self) -> NDArray[np.float64]:
        """Where the bare metal ends and the insulated shaft begins; a sphere's centre [m, LPS]."""
        return np.asarray(self.target_point) + (self.kind == "needle") * self.active_length * self.direction

    def moved(self, distance: float) -> Electrode:
        """The same electrode pulled back by `distance` [m] along its axis."""
        shift = distance * self.direction
        return replace(
            self,
            target_point=tuple(np.asarray(self.target_point) + shift),
            entry_point=tuple(np.asarray(self.entry_point) + shift),
        )
