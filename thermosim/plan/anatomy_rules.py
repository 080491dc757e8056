"""Rules about what needles pass on their way: skin, vessels, organs, the liver's capsule."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from thermosim.anatomy.bodies import Body
from thermosim.config_check import LimitConfig, OrganConfig
from thermosim.plan.findings import Rule, RuleResult
from thermosim.plan.paths import NeedlePath, Plan, Point, named

SAMPLES = 5e-4
"""Where a needle runs in a vessel its width is looked at so often [m]."""

NO_LIVER = "the anatomy has no liver (a structure of the role organ)"
NO_IMAGE = "the anatomy is no image whose ends are known"


def anatomy_rules(plan: Plan) -> list[RuleResult]:
    """All rules that ask what lies where."""
    return [
        _skin(plan),
        _unknown(plan),
        _vessels(plan),
        *(_organ(plan, name, organ) for name, organ in plan.rules.organs.items()),
        _capsule(plan),
        _punctures(plan),
        _liver_before_tumor(plan),
        _metal_outside(plan),
    ]


def _skin(plan: Plan) -> RuleResult:
    rule = Rule("skin_distance_mm", "Entry point on the skin", "mm", "at most", plan.rules.skin_distance_mm)
    if plan.skin is None:
        rule.leave("plan", "the anatomy has no skin (a structure whose name is in rules.skin)", True)
        return rule.result()
    if not plan.entries_are_given:
        rule.leave("plan", "a pattern of needles has no entry points")
        return rule.result()
    for path in plan.paths:
        if path.skin is None:
            inside = bool(plan.skin.stretches(path.tip, path.entry))
            why = "its way out ends inside the body" if inside else "its tip lies outside the body"
            rule.judge(
                path.name, 1e3 * path.length, f"{path.name} passes the skin nowhere: {why}", [path.tip]
            )
            continue
        gap = float(np.linalg.norm(path.entry - path.skin))
        side = "outside" if np.linalg.norm(path.entry - path.tip) > path.length else "below"
        sentence = f"{path.name}: entry point {1e3 * gap:.1f} mm {side} the skin"
        rule.judge(path.name, 1e3 * gap, sentence, [path.entry])
    return rule.result()


def _unknown(plan: Plan) -> RuleResult:
    title = "Way outside the image"
    rule = Rule("unknown_path_mm", title, "mm", "at most", plan.rules.unknown_path_mm)
    view = plan.source.field_of_view()
    if view is None:
        rule.leave("plan", NO_IMAGE)
        return rule.result()
    for path in plan.paths:
        inside = length_in_box(path.start, path.tip, *view)
        outside = max(1e3 * (path.length - inside), 0.0)
        rule.judge(
            path.name,
            outside if outside > 1e-6 else 0.0,
            f"{path.name}: {outside:.1f} mm of its way lie outside the image",
            [path.start],
        )
    return rule.result()


def length_in_box(start: Point, end: Point, lower: Point, upper: Point) -> float:
    """Length of a line inside an axis-aligned box [m] (slabs)."""
    way = end - start
    first, last = 0.0, 1.0
    for axis in range(3):
        if abs(way[axis]) < 1e-15:
            if not lower[axis] <= start[axis] <= upper[axis]:
                return 0.0
            continue
        near, far = sorted(((lower[axis] - start[axis]) / way[axis], (upper[axis] - start[axis]) / way[axis]))
        first, last = max(first, near), min(last, far)
    return max(last - first, 0.0) * float(np.linalg.norm(way))


def _vessels(plan: Plan) -> RuleResult:
    title = "Widest vessel that a needle passes"
    rule = Rule("vessel_diameter_mm", title, "mm", "at most", plan.rules.vessel_diameter_mm)
    vessels = plan.with_role("vessel")
    if not vessels:
        rule.leave("plan", "the anatomy has no vessels", True)
        return rule.result()
    for path in plan.paths:
        met = [hit for body in vessels for hit in vessel_contacts(path, body)]
        if not met:
            rule.judge(path.name, 0.0, f"{path.name} touches no vessel")
            continue
        width, length, point, name = max(met, key=lambda hit: hit[0])
        way = f"passes through {1e3 * length:.1f} mm of" if length > 0 else "grazes"
        more = f" ({len(met)} contacts in all)" if len(met) > 1 else ""
        wide = _limit(plan.rules.vessel_diameter_mm)
        places = [hit[2] for hit in met if hit[0] > wide]
        rule.judge(
            path.name,
            1e3 * width,
            f"{path.name} {way} {name.replace('_', ' ')} where it is {1e3 * width:.1f} mm wide{more}",
            places or [point],
        )
    return rule.result()


def _limit(limit: LimitConfig) -> float:
    values = [value for value in (limit.warn, limit.fail) if value is not None]
    return 1e-3 * min(values, default=np.inf)


def vessel_contacts(path: NeedlePath, body: Body) -> list[tuple[float, float, Point, str]]:
    """Where metal, shaft or tines touch a vessel: its widest diameter there, length of the axis in it [m],
    the place, and the vessel."""
    contacts = []
    for start, end, radius in path.pieces:
        length = float(np.linalg.norm(end - start))
        axis = (end - start) / max(length, 1e-12)
        for stretch in body.stretches(start, end, within=radius):
            places = np.linspace(stretch.start, stretch.end, max(int(stretch.length / SAMPLES), 2) + 1)
            points = start + places[:, None] * axis
            widths = body.diameter(points, radius)
            best = int(np.nanargmax(widths)) if np.isfinite(widths).any() else len(places) // 2
            inside = sum(s.length for s in body.stretches(points[0], points[-1]))
            contacts.append((float(widths[best]), inside, points[best], body.structure.name))
    return contacts


def _organ(plan: Plan, name: str, organ: OrganConfig) -> RuleResult:
    title = f"Clear of {name.replace('_', ' ')}"
    limit = LimitConfig(organ.warn_mm, organ.fail_mm, organ.source)
    rule = Rule(f"organs.{name}", title, "mm", "at least", limit)
    bodies = organ_bodies(plan, name)
    if not bodies:
        if organ.names == ["*"]:
            rule.leave("plan", "no other structure has the role risk")
        else:
            rule.leave("plan", f"the anatomy has none (no name like those in rules.organs.{name})", True)
        return rule.result()
    for path in plan.paths:
        clearance, point, thing = min((_clearance(path, body) for body in bodies), key=lambda hit: hit[0])
        called = thing.replace("_", " ")
        if clearance < 0:
            sentence = f"{path.name} passes through {-1e3 * clearance:.1f} mm of {called}"
        else:
            sentence = f"{path.name} keeps {1e3 * clearance:.1f} mm from {called}"
        rule.judge(path.name, 1e3 * clearance, sentence, [point])
    return rule.result()


def organ_bodies(plan: Plan, name: str) -> list[Body]:
    """The structures of one entry of `rules.organs`: each belongs to the first entry that names it; the bare
    pattern * means those of the role risk."""
    found = []
    for body in plan.bodies:
        structure = body.structure
        if structure.role not in ("background", "risk") or body is plan.skin:
            continue
        for key, organ in plan.rules.organs.items():
            patterns = [p for p in organ.names if p != "*" or structure.role == "risk"]
            if named(structure.name, patterns):
                if key == name:
                    found.append(body)
                break
    return found


def _clearance(path: NeedlePath, body: Body) -> tuple[float, Point, str]:
    """Free space between a needle and a body [m], or minus the length that its axis has in it."""
    inside, least, where = 0.0, np.inf, path.tip
    for start, end, radius in path.pieces:
        for stretch in body.stretches(start, end):
            inside += stretch.length
            middle = 0.5 * (stretch.start + stretch.end)
            where = np.asarray(start + middle * (end - start) / np.linalg.norm(end - start))
        if inside == 0.0:
            gap, point = body.distance(start, end)
            if gap - radius < least:
                least, where = gap - radius, point
    return (-inside if inside > 0 else least), where, body.structure.name


def _capsule(plan: Plan) -> RuleResult:
    title = "Entries of one needle into the liver"
    rule = Rule("capsule_entries", title, "", "at most", plan.rules.capsule_entries)
    if not plan.with_role("organ"):
        rule.leave("plan", NO_LIVER, True)
        return rule.result()
    for path in plan.paths:
        stretches = plan.liver(path.start, path.tip)
        count = len(stretches)
        if count == 0:
            rule.leave(path.name, f"{path.name} never enters the liver; see the bare metal outside it")
            continue
        times = "once" if count == 1 else f"{count} times"
        rule.judge(
            path.name,
            count,
            f"{path.name} enters the liver {times}",
            [path.at(stretch.start) for stretch in stretches],
        )
    return rule.result()


def _punctures(plan: Plan) -> RuleResult:
    title = "Entries of all needles into the liver"
    rule = Rule("capsule_punctures", title, "", "at most", plan.rules.capsule_punctures)
    if not plan.with_role("organ"):
        rule.leave("plan", NO_LIVER, True)
        return rule.result()
    count = sum(len(plan.liver(path.start, path.tip)) for path in plan.paths)
    rule.judge("plan", count, f"{count} entries through the liver's capsule in the whole plan")
    return rule.result()


def _liver_before_tumor(plan: Plan) -> RuleResult:
    title = "Liver passed before the tumour"
    rule = Rule("liver_before_tumor_mm", title, "mm", "at least", plan.rules.liver_before_tumor_mm)
    tumors = plan.with_role("tumor")
    if not tumors or not plan.with_role("organ"):
        rule.leave("plan", NO_LIVER if tumors else "the anatomy has no tumour", True)
        return rule.result()
    for path in plan.paths:
        hits = [s.start for body in tumors for s in body.stretches(path.start, path.tip)]
        if not hits:
            rule.leave(path.name, f"{path.name} passes beside the tumour")
            continue
        first = min(hits)
        entry = max(
            (s.start for s in plan.liver(path.start, path.tip) if s.start <= first + 1e-9), default=first
        )
        before = 1e3 * (first - entry)
        rule.judge(
            path.name,
            before,
            f"{path.name} passes {before:.1f} mm of liver before the tumour",
            [path.at(first)],
        )
    return rule.result()


def _metal_outside(plan: Plan) -> RuleResult:
    title = "Bare metal outside the liver"
    rule = Rule("metal_outside_liver_mm", title, "mm", "at most", plan.rules.metal_outside_liver_mm)
    if not plan.with_role("organ"):
        rule.leave("plan", NO_LIVER, True)
        return rule.result()
    for place in plan.places:
        outside, marks = 0.0, []
        for line in place.lines:
            for start, end in pairwise(line):
                length = float(np.linalg.norm(end - start))
                free = length - sum(s.length for s in plan.liver(start, end))
                if free > 1e-7:
                    outside += free
                    marks.append(_outside_point(plan, start, end, length))
        state = f"{1e3 * outside:.1f} mm of bare metal outside the liver"
        rule.judge(place.name, 1e3 * outside, f"{place.name}: {state}", marks[:1])
    return rule.result()


def _outside_point(plan: Plan, start: Point, end: Point, length: float) -> Point:
    """The middle of the first stretch that is not in the liver."""
    place = 0.0
    for stretch in plan.liver(start, end):
        if stretch.start > place + 1e-9:
            return np.asarray(start + 0.5 * (place + stretch.start) * (end - start) / length)
        place = stretch.end
    return np.asarray(start + 0.5 * (place + length) * (end - start) / length)
