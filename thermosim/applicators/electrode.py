"""Electrodes as exact geometry: an axis, a radius, an exposed part, an insulated shaft, tines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.grid import Vector
from thermosim.errors import InputError
from thermosim.numerics.needle import Needle
from thermosim.numerics.tines import Tines

Kind = Literal["needle", "sphere", "tines"]

SHORTEST_BAND = 1.0
"""Radii of bare metal that a pole on the shaft must have at least."""


@dataclass(frozen=True)
class Electrode:
    """One electrode in the patient's frame.

    A ``needle`` is a straight metal rod of `radius` with a hemispherical tip: the metal ends
    exactly at `target_point`, `active_length` of it (measured from that end) is bare metal, and
    the insulated shaft continues towards `entry_point` and beyond. With `active_start` the tip is
    insulated and the bare metal is a band that begins there: a pole of a bipolar needle. A
    ``sphere`` of `radius` around `target_point` is the electrode of closed forms.

    ``tines`` are wires of bare metal that leave the tip of a trunk of `radius`: one electrode, since
    they are bonded. The trunk ends at `target_point`, `active_length` of it is bare (0: none), the
    rest insulated. No heat passes into the wires, and on grids coarser than their diameter they take
    no room from the tissue.

    Parameters
    ----------
    target_point, entry_point : LPS [m]. radius, active_length : [m].
    coolant_temperature : temperature of the inner coolant [°C]; None for an uncooled needle,
        whose surface lets no heat through.
    coolant_heat_transfer : from coolant through the metal wall [W/(m² K)].
    applicator : the device it is part of, by the layout's name for it; empty: a device of its own.
    pole : which pole of a bipolar device, ``distal`` or ``proximal``; empty: the device has one.
    active_start : where a needle's bare metal begins, from the tip's end [m].
    other_pole : start and end of the other pole of a bipolar needle, from the tip's end [m].
    wires : tines as polylines from the trunk to their tips, LPS [m]. wire_radius : [m].
    """

    name: str
    target_point: Vector
    entry_point: Vector
    radius: float
    active_length: float
    kind: Kind = "needle"
    coolant_temperature: float | None = None
    coolant_heat_transfer: float = 0.0
    applicator: str = ""
    pole: str = ""
    active_start: float = 0.0
    other_pole: tuple[float, float] | None = None
    wires: tuple[tuple[Vector, ...], ...] = ()
    wire_radius: float = 0.0

    def __post_init__(self) -> None:
        if not (np.all(np.isfinite(self.target_point)) and np.all(np.isfinite(self.entry_point))):
            raise InputError(f"needle {self.name!r}: its points are not finite numbers")
        if self.radius <= 0:
            raise InputError(f"needle {self.name!r}: radius {1e3 * self.radius:g} mm, must be positive")
        if self.kind == "needle":
            self._check_needle()
        if self.kind == "tines":
            self._check_tines()

    def _check_needle(self) -> None:
        if self.active_start > 0:
            least = SHORTEST_BAND * self.radius
            if self.active_start <= self.radius or self.active_length < least:
                raise InputError(
                    f"needle {self.name!r}: a band of {1e3 * self.active_length:g} mm that begins "
                    f"{1e3 * self.active_start:g} mm behind the tip; it must begin beyond the round tip of "
                    f"{1e3 * self.radius:g} mm and be at least {1e3 * least:g} mm long"
                )
        elif self.active_length <= 2 * self.radius:
            raise InputError(
                f"needle {self.name!r}: exposed length {1e3 * self.active_length:g} mm must exceed "
                f"its diameter {2e3 * self.radius:g} mm"
            )
        length = float(np.linalg.norm(np.subtract(self.entry_point, self.target_point)))
        end = self.active_start + self.active_length
        if length < end - 1e-9:
            raise InputError(
                f"needle {self.name!r}: entry and target are {1e3 * length:g} mm apart, less than the "
                f"exposed length {1e3 * end:g} mm; move the entry point outwards"
            )

    def _check_tines(self) -> None:
        if self.coolant_temperature is not None:
            raise InputError(
                f"device {self.name!r}: tines carry no coolant; set applicators.coolant_temperature to null"
            )
        if not 0 < self.wire_radius <= self.radius:
            raise InputError(
                f"device {self.name!r}: radius of the tines {1e3 * self.wire_radius:g} mm, must be positive "
                f"and at most that of the trunk, {1e3 * self.radius:g} mm"
            )
        if not self.wires or min(len(wire) for wire in self.wires) < 2:
            raise InputError(f"device {self.name!r} has no tines; give each at least two points")

    @property
    def unit(self) -> str:
        """What a generator drives as one: the device, or one pole of it. Its electrodes are bonded."""
        device = self.applicator or self.name
        return f"{device}.{self.pole}" if self.pole else device

    @property
    def sensors(self) -> tuple[Vector, ...]:
        """Where the device measures temperature [m, LPS]: at the tips of its tines, else at its tip."""
        if self.kind == "tines":
            return tuple(wire[-1] for wire in self.wires)
        return (self.target_point,)

    @property
    def geometry(self) -> Needle | Tines:
        """The electrode as the plain geometry that links are fitted to."""
        if self.kind == "sphere":
            return Needle(self.target_point, (0.0, 0.0, 1.0), self.radius, self.active_length, "sphere")
        direction = tuple(self.direction)
        if self.kind == "tines":
            return Tines(
                self.target_point, direction, self.radius, self.active_length, self.wires, self.wire_radius
            )
        return Needle(
            self.target_point,
            direction,
            self.radius,
            self.active_length,
            active_start=self.active_start,
            other_pole=self.other_pole,
        )

    @property
    def direction(self) -> NDArray[np.float64]:
        """Unit vector from the tip towards the handle."""
        shaft = np.subtract(self.entry_point, self.target_point)
        length = float(np.linalg.norm(shaft))
        if self.kind == "sphere" and length == 0.0:
            return np.array([0.0, 0.0, 1.0])
        return np.asarray(shaft / length)

    @property
    def axis_start(self) -> NDArray[np.float64]:
        """Centre of the tip's hemisphere, or of the sphere [m, LPS]."""
        return np.asarray(self.target_point) + (self.kind != "sphere") * self.radius * self.direction

    @property
    def metal_start(self) -> NDArray[np.float64]:
        """Where on the axis the bare metal begins: the tip's end, or that of a band [m, LPS]."""
        return np.asarray(self.target_point) + self.active_start * self.direction

    @property
    def axis_end(self) -> NDArray[np.float64]:
        """Where the bare metal ends and the insulated shaft begins; a sphere's centre [m, LPS]."""
        end = (self.kind != "sphere") * (self.active_start + self.active_length)
        return np.asarray(self.target_point) + end * self.direction

    @property
    def metal_lines(self) -> tuple[NDArray[np.float64], ...]:
        """Centre lines of the bare metal, each (n, 3) [m, LPS]; a sphere's is its centre twice."""
        wires = tuple(np.asarray(wire, dtype=np.float64) for wire in self.wires)
        if self.kind == "tines" and self.active_length == 0:
            return wires
        return (np.vstack([self.metal_start, self.axis_end]), *wires)

    @property
    def center(self) -> NDArray[np.float64]:
        """Middle of the bare metal [m, LPS]."""
        if self.kind == "tines":
            points = np.vstack(self.metal_lines)
            return np.asarray(0.5 * (points.min(axis=0) + points.max(axis=0)))
        start = self.metal_start if self.active_start > 0 else self.axis_start
        return np.asarray(0.5 * (start + self.axis_end))

    def moved(self, distance: float) -> Electrode:
        """The same electrode pulled back by `distance` [m] along its axis."""
        shift = distance * self.direction

        def shifted(point: Vector) -> Vector:
            x, y, z = np.asarray(point) + shift
            return float(x), float(y), float(z)

        return replace(
            self,
            target_point=shifted(self.target_point),
            entry_point=shifted(self.entry_point),
            wires=tuple(tuple(shifted(point) for point in wire) for wire in self.wires),
        )
