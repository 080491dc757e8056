"""Needle poses from the configuration: point by point, as a pattern around a tumour, or from a file."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.grid import Grid
from thermosim.applicators.devices import electrodes_of, tip_beyond_middle
from thermosim.applicators.electrode import Electrode
from thermosim.applicators.tines import side_vectors
from thermosim.config import ApplicatorConfig, LayoutConfig, NeedleConfig
from thermosim.errors import InputError
from thermosim.units import MILLIMETRE

SHAFT_LENGTH = 0.15
"""Length of metal and shaft checked for collisions [m]; cooled needles come 10 to 25 cm long."""

Point = NDArray[np.float64]


def electrodes_from(
    layout: LayoutConfig,
    device: ApplicatorConfig,
    tumor_centers: dict[str, Point],
    together: bool = True,
) -> tuple[Electrode, ...]:
    """The electrodes of a layout in the patient's frame: of each device one or more.

    Parameters
    ----------
    layout : poses in mm, by points, as a pattern or from a file.
    device : geometry of each needle.
    tumor_centers : centre of each tumour [m, LPS], by name.
    together : whether all stand in the tissue at once; otherwise their gaps are the caller's (`check_gaps`).

    Raises
    ------
    InputError
        For a tumour, pattern or file that does not exist, a point that is not three numbers, a needle of
        no length, a name used twice, or two needles closer than `minimum_gap_mm`.
    """
    needles, offset = _needles(layout, device, tumor_centers)
    electrodes = tuple(part for needle in needles for part in _electrodes(needle, device, offset))
    _check_names(electrodes)
    if together:
        check_gaps(electrodes, layout.minimum_gap_mm * MILLIMETRE)
    return electrodes


def _needles(
    layout: LayoutConfig, device: ApplicatorConfig, tumor_centers: dict[str, Point]
) -> tuple[list[NeedleConfig], Point]:
    """Every needle in mm, and what its points are counted from [m, LPS]."""
    center = _reference_point(layout, tumor_centers)
    if layout.path is not None:
        from thermosim.applicators.pose_files import read_poses  # image libraries take long to import

        needles = list(read_poses(layout.path, order=layout.order, coordinates=layout.coordinates))
    else:
        needles = _ring(layout, device) if layout.pattern is not None else list(layout.needles)
    if not needles:
        raise InputError("layout.needles is empty and no layout.pattern is given; name at least one needle")
    return needles, center if layout.frame == "tumor" or layout.pattern is not None else np.zeros(3)


def in_patient_frame(
    layout: LayoutConfig, device: ApplicatorConfig, tumor_centers: dict[str, Point]
) -> LayoutConfig:
    """The same layout needle by needle, whatever pattern or file it came from; points in LPS mm."""
    needles, offset = _needles(layout, device, tumor_centers)
    moved = []
    for needle in needles:
        key = f"layout.needles[{needle.name}]"
        target = _vector(needle.target_mm, f"{key}.target_mm") + offset / MILLIMETRE
        entry = _vector(needle.entry_mm, f"{key}.entry_mm") + offset / MILLIMETRE
        moved.append(replace(needle, target_mm=target.tolist(), entry_mm=entry.tolist()))
    return replace(layout, frame="patient", pattern=None, path=None, needles=moved)


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
    first, second = side_vectors(axis)
    count = layout.n_needles
    radius = layout.pattern_spacing_mm / (2.0 * np.sin(np.pi / count)) if count > 1 else 0.0
    angles = np.deg2rad(layout.pattern_rotation_deg) + 2.0 * np.pi * np.arange(count) / count
    reach = max(SHAFT_LENGTH / MILLIMETRE, 2.0 * device.active_length_mm)
    depth = layout.pattern_depth_mm
    if depth is None:
        depth = tip_beyond_middle(device) / MILLIMETRE
    needles = []
    for number, angle in enumerate(angles, start=1):
        tip = radius * (np.cos(angle) * first + np.sin(angle) * second) - depth * axis
        needles.append(
            NeedleConfig(
                f"needle_{number}",
                tip.tolist(),
                (tip + reach * axis).tolist(),
                rotation_deg=float(np.rad2deg(angle)),
            )
        )
    return needles


def _electrodes(needle: NeedleConfig, device: ApplicatorConfig, offset: Point) -> tuple[Electrode, ...]:
    key = f"layout.needles[{needle.name}]"
    target = offset + MILLIMETRE * _vector(needle.target_mm, f"{key}.target_mm")
    entry = offset + MILLIMETRE * _vector(needle.entry_mm, f"{key}.entry_mm")
    if np.allclose(target, entry, rtol=0.0, atol=1e-9):
        raise InputError(
            f"needle {needle.name!r} has no length: target and entry are the same point; move entry_mm"
        )
    active = device.active_length_mm if needle.active_length_mm is None else needle.active_length_mm
    if not (np.isfinite(active) and active >= 0) or (active == 0 and device.kind != "tines"):
        raise InputError(f"needle {needle.name!r}: exposed length {active:g} mm must be positive and finite")
    rotation = float(np.deg2rad(needle.rotation_deg))
    return electrodes_of(device, needle.name, target, entry, active * MILLIMETRE, rotation)


def _check_names(electrodes: tuple[Electrode, ...]) -> None:
    names = [electrode.name for electrode in electrodes]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two needles are called {name!r}; give each its own name")


def check_gaps(electrodes: tuple[Electrode, ...], minimum_gap: float) -> None:
    """Refuse devices that come too near to each other; the parts of one device belong together."""
    for one, other in combinations(electrodes, 2):
        if one.applicator and one.applicator == other.applicator:
            continue
        gap = metal_gap(one, other)
        if gap < minimum_gap:
            state = "touch" if gap <= 0 else f"have a gap of only {gap / MILLIMETRE:.2f} mm"
            raise InputError(
                f"needles {one.name!r} and {other.name!r} {state} (metal and shafts), at least "
                f"{minimum_gap / MILLIMETRE:g} mm are needed; move one of them or lower layout.minimum_gap_mm"
            )


def metal_gap(one: Electrode, other: Electrode) -> float:
    """Free space between metal and shafts of two electrodes [m]; negative where they cut each other."""
    return min(
        float(segment_distance(starts[:, None], ends[:, None], others[None], other_ends[None]).min())
        - radius
        - other_radius
        for starts, ends, radius in _solids(one)
        for others, other_ends, other_radius in _solids(other)
    )


def _solids(electrode: Electrode) -> list[tuple[Point, Point, float]]:
    """First and last points (n, 3) of segments, and the radius within which all is metal or shaft [m]."""
    tip = np.asarray(electrode.target_point, dtype=np.float64)
    if electrode.kind == "sphere":
        return [(tip[None], tip[None], electrode.radius)]
    reach = max(SHAFT_LENGTH, float(np.linalg.norm(np.subtract(electrode.entry_point, tip))))
    solids = [(electrode.axis_start[None], (tip + reach * electrode.direction)[None], electrode.radius)]
    for wire in electrode.wires:
        points = np.asarray(wire, dtype=np.float64)
        solids.append((points[:-1], points[1:], electrode.wire_radius))
    return solids


def segment_distance(start: Point, end: Point, other_start: Point, other_end: Point) -> Point:
    """Smallest distance between two segments in space [same unit as the points].

    Minimises |(p + s u) - (q + t v)| over 0 <= s, t <= 1; a segment may be a single point. Points
    have shape (..., 3), the result the shape they broadcast to.
    Reference: Ericson, Real-Time Collision Detection (2005), section 5.1.9.

    Examples
    --------
    >>> crossing = [np.array(p, dtype=float) for p in ([-1, 0, 0], [1, 0, 0], [0, -1, 3], [0, 1, 3])]
    >>> float(segment_distance(*crossing))
    3.0
    """
    u, v, w = end - start, other_end - other_start, start - other_start
    w = w + 0.0 * (u + v)
    a, b, e = (u * u).sum(-1), (u * v).sum(-1), (v * v).sum(-1)
    c, f = (u * w).sum(-1), (v * w).sum(-1)
    tiny = 1e-24
    safe_a, safe_e = np.maximum(a, tiny), np.maximum(e, tiny)
    denominator = a * e - b * b
    parallel = denominator <= 1e-12 * a * e
    s = np.clip((b * f - c * e) / np.where(parallel, 1.0, denominator), 0.0, 1.0)
    s = np.where(parallel, 0.0, s)
    t = (b * s + f) / safe_e
    s = np.where(t < 0.0, np.clip(-c / safe_a, 0.0, 1.0), s)
    s = np.where(t > 1.0, np.clip((b - c) / safe_a, 0.0, 1.0), s)
    s = np.where(e <= tiny, np.clip(-c / safe_a, 0.0, 1.0), s)
    s = np.where(a <= tiny, 0.0, s)
    t = np.where(e <= tiny, 0.0, np.clip((b * s + f) / safe_e, 0.0, 1.0))
    return np.asarray(np.linalg.norm(w + s[..., None] * u - t[..., None] * v, axis=-1))


def exposed_bounds(electrodes: tuple[Electrode, ...]) -> tuple[Point, Point]:
    """Lower and upper corner of all exposed metal [m, LPS]."""
    corners = [line for electrode in electrodes for line in electrode.metal_lines]
    corners += [np.asarray(electrode.target_point)[None] for electrode in electrodes]
    radius = max(electrode.radius for electrode in electrodes)
    points = np.vstack(corners)
    return points.min(axis=0) - radius, points.max(axis=0) + radius


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
