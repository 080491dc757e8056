"""Rules between needles: gaps, distances, angles, depth, number, pull-back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thermosim.applicators.electrode import Electrode
from thermosim.applicators.layout import metal_gap, segment_distance
from thermosim.plan.findings import Rule, RuleResult
from thermosim.plan.paths import Place, Plan, Point


def needle_rules(plan: Plan) -> list[RuleResult]:
    """All rules that need no anatomy but the tumours' centres."""
    return [
        _gaps(plan),
        _neighbours(plan),
        _angles(plan),
        _pull_back(plan),
        _positions(plan),
        _depth(plan),
    ]


def _gaps(plan: Plan) -> RuleResult:
    title = "Free space between needles in place together"
    rule = Rule("needle_gap_mm", title, "mm", "at least", plan.rules.needle_gap_mm)
    worst: dict[tuple[str, str], tuple[float, Point]] = {}
    for one, other, ends, other_ends in plan.neighbours:
        gap, nearest = min(
            ((metal_gap(a, b), (a, b)) for a in ends for b in other_ends), key=lambda pair: pair[0]
        )
        if gap < worst.get((one, other), (np.inf, None))[0]:
            worst[one, other] = (gap, _nearest_point(*nearest))
    for (one, other), (gap, point) in worst.items():
        state = f"{1e3 * gap:.1f} mm apart" if gap > 0 else f"cut each other by {-1e3 * gap:.1f} mm"
        rule.judge(f"{one} and {other}", 1e3 * gap, f"{one} and {other} {state} at their nearest", [point])
    if not worst:
        rule.leave("plan", "never two needles in place together")
    return rule.result()


def _nearest_point(one: Electrode, other: Electrode) -> Point:
    """About where on `one` the shafts come nearest."""
    reach = max(0.15, float(np.linalg.norm(np.subtract(one.entry_point, one.target_point))))
    steps = np.linspace(0.0, reach, 400)
    points = np.asarray(one.target_point) + steps[:, None] * one.direction
    start, end = np.asarray(other.target_point), np.asarray(other.target_point) + reach * other.direction
    gaps = segment_distance(points, points, start[None], end[None])
    return np.asarray(points[int(np.argmin(gaps))])


def metal_distance(lines: Sequence[Point], others: Sequence[Point]) -> float:
    """Least distance between the centre lines of two sets of bare metal [m]."""
    return min(
        float(segment_distance(one[:-1][:, None], one[1:][:, None], other[:-1][None], other[1:][None]).min())
        for one in lines
        for other in others
    )


def _neighbours(plan: Plan) -> RuleResult:
    title = "Distance of each place to its nearest neighbour"
    rule = Rule("neighbour_distance_mm", title, "mm", "at most", plan.rules.neighbour_distance_mm)
    for name, group in by_tumor(plan).items():
        if len({place.device for place in group}) < 2:
            rule.leave(group[0].device, f"{group[0].device} is the only needle at {name.replace('_', ' ')}")
            continue
        for place in group:
            others = [other for other in group if other.device != place.device]
            gaps = [metal_distance(place.lines, other.lines) for other in others]
            gap, nearest = min(zip(gaps, others, strict=True), key=lambda pair: pair[0])
            sentence = f"{place.name}: nearest bare metal, of {nearest.name}, is {1e3 * gap:.1f} mm away"
            rule.judge(place.name, 1e3 * gap, sentence, [_middle(place)])
    return rule.result()


def by_tumor(plan: Plan) -> dict[str, list[Place]]:
    """The places of the plan by the tumour whose centre is nearest."""
    centers = plan.source.tumor_centers()
    groups: dict[str, list[Place]] = {}
    for place in plan.places:
        name = min(centers, key=lambda key: float(np.linalg.norm(centers[key] - _middle(place))))
        groups.setdefault(name, []).append(place)
    return groups


def _middle(place: Place) -> Point:
    return np.asarray(np.mean([electrode.center for electrode in place.electrodes], axis=0))


def _angles(plan: Plan) -> RuleResult:
    title = "Angle between neighbours in place together"
    rule = Rule("neighbour_angle_deg", title, "°", "at most", plan.rules.neighbour_angle_deg)
    nearest: dict[str, tuple[float, str, float, Point]] = {}
    for one, other, ends, other_ends in plan.neighbours:
        gap = metal_distance(
            [line for e in ends for line in e.metal_lines],
            [line for e in other_ends for line in e.metal_lines],
        )
        angle = angle_between(ends[0].direction, other_ends[0].direction)
        for name, partner, first in ((one, other, ends[0]), (other, one, other_ends[0])):
            if gap < nearest.get(name, (np.inf,))[0]:
                nearest[name] = (gap, partner, angle, np.asarray(first.target_point))
    seen = set()
    for name, (_, partner, angle, tip) in nearest.items():
        if frozenset((name, partner)) in seen:
            continue
        seen.add(frozenset((name, partner)))
        sentence = f"{name} and {partner} are {angle:.1f}° from parallel"
        rule.judge(f"{name} and {partner}", angle, sentence, [tip])
    if not nearest:
        rule.leave("plan", "never two needles in place together")
    return rule.result()


def angle_between(one: Point, other: Point) -> float:
    """Angle between two unit vectors from tip to handle [°], 0 to 180."""
    return float(np.rad2deg(np.arctan2(np.linalg.norm(np.cross(one, other)), float(one @ other))))


def _pull_back(plan: Plan) -> RuleResult:
    title = "Overlap of bare metal before and after a pull-back"
    rule = Rule("pull_back_overlap_mm", title, "mm", "at least", plan.rules.pull_back_overlap_mm)
    last: dict[str, Place] = {}
    for place in plan.places:
        before = last.get(place.device)
        if before is not None and place.pulled_back > before.pulled_back:
            electrode = place.electrodes[0]
            axis = electrode.direction
            heights = [np.vstack(part.lines) @ axis for part in (before, place)]
            overlap = float(heights[0].max() - heights[1].min())
            step = 1e3 * (place.pulled_back - before.pulled_back)
            state = (
                f"overlap by {1e3 * overlap:.1f} mm"
                if overlap >= 0
                else f"leave {-1e3 * overlap:.1f} mm free"
            )
            sentence = f"{place.device}: burns before and after a pull-back of {step:g} mm {state}"
            rule.judge(place.device, 1e3 * overlap, sentence, [electrode.target_point])
        last[place.device] = place
    if not rule.findings:
        rule.leave("plan", "no needle is pulled back between two burns")
    return rule.result()


def _positions(plan: Plan) -> RuleResult:
    rule = Rule("positions", "Positions in the plan", "", "at most", plan.rules.positions)
    count = len(dict.fromkeys(place.device for place in plan.places))
    burns = len(plan.places)
    at = f"at {burns} places" if burns != count else "one place each"
    rule.judge("plan", count, f"{count} position{'s' if count > 1 else ''}, driven {at}")
    return rule.result()


def _depth(plan: Plan) -> RuleResult:
    rule = Rule("depth_mm", "Depth of the tip", "mm", "at most", plan.rules.depth_mm)
    if plan.skin is None and not plan.entries_are_given:
        rule.leave("plan", "the anatomy has no skin, and a pattern of needles has no entry points", True)
        return rule.result()
    for path in plan.paths:
        if plan.skin is not None and path.skin is None:
            rule.leave(path.name, f"{path.name} passes the skin nowhere", True)
            continue
        origin = "the skin" if path.skin is not None else "its entry point"
        sentence = f"{path.name}: tip {1e3 * path.length:.1f} mm from {origin}"
        rule.judge(path.name, 1e3 * path.length, sentence, [path.tip])
    return rule.result()
