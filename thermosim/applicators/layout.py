"""Needle poses from the configuration: point by point or as a regular pattern around a tumour."""

from __future__ import annotations

from itertools import combinations
from typing import cast

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.grid import Grid, Vector
from thermosim.applicators.electrode import Electrode
from thermosim.config import ApplicatorConfig, LayoutConfig, NeedleConfig
from thermosim.errors import InputError
from thermosim.units import MILLIMETRE

SHAFT_LENGTH = 0.15
"""Length of metal and shaft checked for collisions [m]; cooled needles come 10 to 25 cm long."""

Point = NDArray[np.float64]


def electrodes_from(
    layout: LayoutConfig, device: ApplicatorConfig, tumor_centers: dict[str, Point]
) -> tuple[Electrode, ...]:
    """The electrodes of a layout in the patient's frame.

    Parameters
    ----------
    layout : poses in mm, by points or as a pattern.
    device : geometry of each needle.
    tumor_centers : centre of each tumour [m, LPS], by name.

    Raises
    ------
    InputError
        For a tumour or pattern that does not exist, a point that is not three numbers, a needle of
        no length, a name used twice, or two needles closer than `minimum_gap_mm`.
    """
    center = _reference_point(layout, tumor_centers)
    needles = _ring(layout, device) if layout.pattern is not None else list(layout.needles)
    if not needles:
        raise InputError("layout.needles is empty and no layout.pattern is given; name at least one needle")
    offset = center if layout.frame == "tumor" or layout.pattern is not None else np.zeros(3)
    electrodes = tuple(_electrode(needle, device, offset) for needle in needles)
    _check_names(electrodes)
    _check_gaps(electrodes, layout.minimum_gap_mm * MILLIMETRE)
    return electrodes


def _reference_point(layout: LayoutConfig, tumor_centers: dict[str, Point]) -> Point:
    """Centre of the tumour the layout is about [m, LPS]."""
    if not tumor_centers:
        raise InputError("the anatomy has no tumour; give one structure the role 'tumor'")
    if layout.tumor is None:
        return np.asarray(next(iter(tumor_centers.values())), dtype=np.float64)
    if layout.tumor not in tumor_centers:
        raise InputError(f"layout.tumor={layout.tumor!r} is none of the tumours: {', '.join(tumor_centers)}")
    return np.asarray(tumor_centers[layout.tumor], dtype=np.float64)


def _vector(values: list[float], key: str) -> Point:
    if len(values) != 3 or not np.all(np.isfinite(values)):
        raise InputError(f"{key}={list(values)} must be three finite numbers, such as [-60.0, -180.0, 30.0]")
    return np.asarray(values, dtype=np.float64)


def _ring(layout: LayoutConfig, device: ApplicatorConfig) -> list[NeedleConfig]:
    """Parallel needles on a circle, neighbours `pattern_spacing_mm` apart, relative to the centre [mm].

    The circle's radius is s / (2 sin(π / n)); a single needle stands on the axis itself.
    """
    if layout.pattern != "ring":
        raise InputError(
            f"layout.pattern={layout.pattern!r} is not known; use 'ring', or null with layout.needles"
        )
    if not 1 <= layout.n_needles <= 24:
        raise InputError(f"layout.n_needles={layout.n_needles} must lie between 1 and 24")
    axis = _vector(layout.pattern_direction, "layout.pattern_direction")
    length = float(np.linalg.norm(axis))
    if length == 0.0:
        raise InputError("layout.pattern_direction=[0, 0, 0] has no direction; point it from tip to handle")
    axis = axis / length
    if layout.n_needles > 1 and not layout.pattern_spacing_mm > 0:
        raise InputError(f"layout.pattern_spacing_mm={layout.pattern_spacing_mm:g} must be positive")
    helper = np.zeros(3)
    helper[int(np.argmin(np.abs(axis)))] = 1.0
    first = np.cross(axis, helper)
    first /= np.linalg.norm(first)
    second = np.cross(axis, first)
    count = layout.n_needles
    radius = layout.pattern_spacing_mm / (2.0 * np.sin(np.pi / count)) if count > 1 else 0.0
    angles = np.deg2rad(layout.pattern_rotation_deg) + 2.0 * np.pi * np.arange(count) / count
    reach = max(SHAFT_LENGTH / MILLIMETRE, 2.0 * device.active_length_mm)
    needles = []
    for number, angle in enumerate(angles, start=1):
        tip = radius * (np.cos(angle) * first + np.sin(angle) * second) - layout.pattern_depth_mm * axis
        needles.append(NeedleConfig(f"needle_{number}", tip.tolist(), (tip + reach * axis).tolist()))
    return needles


def _electrode(needle: NeedleConfig, device: ApplicatorConfig, offset: Point) -> Electrode:
    key = f"layout.needles[{needle.name}]"
    target = offset + MILLIMETRE * _vector(needle.target_mm, f"{key}.target_mm")
    entry = offset + MILLIMETRE * _vector(needle.entry_mm, f"{key}.entry_mm")
    if np.allclose(target, entry, rtol=0.0, atol=1e-9):
        raise InputError(
            f"needle {needle.name!r} has no length: target and entry are the same point; move entry_mm"
        )
    active = device.active_length_mm if needle.active_length_mm is None else needle.active_length_mm
    if not (np.isfinite(active) and active > 0):
        raise InputError(f"needle {needle.name!r}: exposed length {active:g} mm must be positive and finite")
    if device.kind not in ("needle", "sphere"):
        raise InputError(f"applicators.kind={device.kind!r} is not known; use needle or sphere")
    return Electrode(
        needle.name,
        _as_vector(target),
        _as_vector(entry),
        device.radius_mm * MILLIMETRE,
        active * MILLIMETRE,
        device.kind,  # type: ignore[arg-type]
        device.coolant_temperature,
        device.coolant_heat_transfer if device.coolant_temperature is not None else 0.0,
    )


def _as_vector(point: Point) -> Vector:
    return cast(Vector, tuple(float(value) for value in point))


def _check_names(electrodes: tuple[Electrode, ...]) -> None:
    names = [electrode.name for electrode in electrodes]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two needles are called {name!r}; give each its own name")


def _check_gaps(electrodes: tuple[Electrode, ...], minimum_gap: float) -> None:
    for one, other in combinations(electrodes, 2):
        gap = segment_distance(*_axis(one), *_axis(other)) - one.radius - other.radius
        if gap < minimum_gap:
            state = "touch" if gap <= 0 else f"have a gap of only {gap / MILLIMETRE:.2f} mm"
            raise InputError(
                f"needles {one.name!r} and {other.name!r} {state} (metal and shafts), at least "
                f"{minimum_gap / MILLIMETRE:g} mm are needed; move one of them or lower layout.minimum_gap_mm"
            )


def _axis(electrode: Electrode) -> tuple[Point, Point]:
    """Ends of the line whose points within `radius` are metal or shaft [m]."""
    tip = np.asarray(electrode.target_point, dtype=np.float64)
    if electrode.kind == "sphere":
        return tip, tip
    reach = max(SHAFT_LENGTH, float(np.linalg.norm(np.subtract(electrode.entry_point, tip))))
    return electrode.axis_start, tip + reach * electrode.direction


def segment_distance(start: Point, end: Point, other_start: Point, other_end: Point) -> float:
    """Smallest distance between two segments in space [same unit as the points].

    Minimises |(p + s u) - (q + t v)| over 0 <= s, t <= 1; a segment may be a single point.
    Reference: Ericson, Real-Time Collision Detection (2005), section 5.1.9.

    Examples
    --------
    >>> crossing = [np.array(p, dtype=float) for p in ([-1, 0, 0], [1, 0, 0], [0, -1, 3], [0, 1, 3])]
    >>> segment_distance(*crossing)
    3.0
    """
    u, v, w = end - start, other_end - other_start, start - other_start
    a, b, e = float(u @ u), float(u @ v), float(v @ v)
    c, f = float(u @ w), float(v @ w)
    tiny = 1e-24
    if a <= tiny and e <= tiny:
        s = t = 0.0
    elif a <= tiny:
        s, t = 0.0, min(max(f / e, 0.0), 1.0)
    elif e <= tiny:
        s, t = min(max(-c / a, 0.0), 1.0), 0.0
    else:
        denominator = a * e - b * b
        s = min(max((b * f - c * e) / denominator, 0.0), 1.0) if denominator > 1e-12 * a * e else 0.0
        t = (b * s + f) / e
        if t < 0.0:
            s, t = min(max(-c / a, 0.0), 1.0), 0.0
        elif t > 1.0:
            s, t = min(max((b - c) / a, 0.0), 1.0), 1.0
    return float(np.linalg.norm(w + s * u - t * v))


def exposed_bounds(electrodes: tuple[Electrode, ...]) -> tuple[Point, Point]:
    """Lower and upper corner of all exposed metal [m, LPS]."""
    corners = [np.asarray(electrode.target_point) for electrode in electrodes]
    corners += [e.axis_end for e in electrodes if e.kind == "needle"]
    radius = max(electrode.radius for electrode in electrodes)
    return np.min(corners, axis=0) - radius, np.max(corners, axis=0) + radius


def check_inside(electrodes: tuple[Electrode, ...], grid: Grid, when: str = "") -> None:
    """Refuse exposed metal nearer than two cells to the faces of the box.

    Raises
    ------
    InputError
        With the needle, how far it stands out and what to change.
    """
    border = 2.0 * grid.spacing[0]
    lower, upper = grid.lower_corner + border, grid.upper_corner - border
    for electrode in electrodes:
        low, high = exposed_bounds((electrode,))
        outside = float(max((lower - low).max(), (high - upper).max()))
        if outside > 0:
            raise InputError(
                f"needle {electrode.name!r}{when} reaches {outside / MILLIMETRE:.1f} mm beyond the computing "
                f"box less two cells; enlarge grid.size_mm or grid.margin_mm, or move the needle"
            )
