"""From one device of the catalogue in one pose to its electrodes."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.grid import Vector
from thermosim.applicators.electrode import Electrode
from thermosim.applicators.tines import side_vectors, tine_curves
from thermosim.checks import DEVICE_KINDS, TINE_TURNS
from thermosim.config import ApplicatorConfig
from thermosim.errors import InputError
from thermosim.units import MILLIMETRE

Point = NDArray[np.float64]


def electrodes_of(
    device: ApplicatorConfig,
    name: str,
    target: Point,
    entry: Point,
    active_length: float,
    rotation: float = 0.0,
) -> tuple[Electrode, ...]:
    """The electrodes of one device: one, but n of a cluster and two of a bipolar needle.

    Parameters
    ----------
    name : of the device in the layout; ``name_1`` … of the needles of a cluster, ``name.distal`` and
        ``name.proximal`` of the poles of a bipolar needle.
    target, entry : end of the tip (a cluster's is in its middle) and a point towards the handle [m].
    active_length : instead of the device's [m]. rotation : about the axis [rad].

    Raises
    ------
    InputError : a kind that does not exist, or a geometry that cannot be.
    """
    if device.kind not in DEVICE_KINDS:
        raise InputError(
            f"applicators.kind={device.kind!r} is not known; use one of {', '.join(DEVICE_KINDS)}"
        )
    if device.kind == "tines":
        return (_tines(device, name, target, entry, active_length, rotation),)
    one = Electrode(
        name,
        _vector(target),
        _vector(entry),
        device.radius_mm * MILLIMETRE,
        active_length,
        "sphere" if device.kind == "sphere" else "needle",
        device.coolant_temperature,
        device.coolant_heat_transfer if device.coolant_temperature is not None else 0.0,
    )
    if device.kind == "cluster":
        return _cluster(one, device, rotation)
    if device.kind == "bipolar":
        return _poles(one, device)
    return (one,)


def tip_beyond_middle(device: ApplicatorConfig) -> float:
    """How far the tip's end lies beyond the middle of the bare metal, along the axis [m].

    Negative for tines that spread ahead of the trunk.
    """
    length = device.active_length_mm * MILLIMETRE
    if device.kind == "sphere":
        return 0.0
    if device.kind != "tines":
        return 0.5 * length
    (electrode,) = electrodes_of(device, "device", np.zeros(3), np.array([0.0, 0.0, 1.0]), length)
    height = np.vstack(electrode.metal_lines)[:, 2]
    return float(0.5 * (height.min() + height.max()))


def _cluster(middle: Electrode, device: ApplicatorConfig, rotation: float) -> tuple[Electrode, ...]:
    """Parallel needles on a ring, neighbours `spacing_mm` apart."""
    count = device.n_needles
    radius = device.spacing_mm * MILLIMETRE / (2.0 * np.sin(np.pi / count))
    electrodes = []
    for number in range(count):
        side, _ = side_vectors(middle.direction, rotation + 2.0 * np.pi * number / count)
        electrodes.append(
            replace(
                middle,
                name=f"{middle.name}_{number + 1}",
                target_point=_vector(np.asarray(middle.target_point) + radius * side),
                entry_point=_vector(np.asarray(middle.entry_point) + radius * side),
                applicator=middle.name,
            )
        )
    return tuple(electrodes)


def _poles(whole: Electrode, device: ApplicatorConfig) -> tuple[Electrode, ...]:
    """Two poles of equal length with the gap between them."""
    gap = device.gap_mm * MILLIMETRE
    length = 0.5 * (whole.active_length - gap)
    if length <= 2.0 * whole.radius:
        raise InputError(
            f"bipolar needle {whole.name!r}: {1e3 * whole.active_length:g} mm with a gap of "
            f"{1e3 * gap:g} mm leave poles of {1e3 * length:g} mm, no longer than the diameter "
            f"{2e3 * whole.radius:g} mm; raise active_length_mm or lower gap_mm"
        )
    starts = {"distal": 0.0, "proximal": length + gap}
    return tuple(
        replace(
            whole,
            name=f"{whole.name}.{pole}",
            active_start=starts[pole],
            active_length=length,
            applicator=whole.name,
            pole=pole,
            other_pole=(starts[other], starts[other] + length),
        )
        for pole, other in (("distal", "proximal"), ("proximal", "distal"))
    )


def _tines(
    device: ApplicatorConfig, name: str, target: Point, entry: Point, bare_length: float, rotation: float
) -> Electrode:
    turn = TINE_TURNS[device.tine_shape][1] if device.tine_turn_deg is None else device.tine_turn_deg
    axis = (entry - target) / np.linalg.norm(entry - target)
    radius, wire_radius = device.radius_mm * MILLIMETRE, device.tine_radius_mm * MILLIMETRE
    wires = tine_curves(
        target,
        axis,
        radius,
        wire_radius,
        device.n_tines,
        device.deployment_mm * MILLIMETRE,
        np.deg2rad(turn),
        rotation,
    )
    return Electrode(
        name,
        _vector(target),
        _vector(entry),
        radius,
        bare_length,
        "tines",
        wires=wires,
        wire_radius=wire_radius,
    )


def _vector(point: Point) -> Vector:
    return cast(Vector, tuple(float(value) for value in point))
