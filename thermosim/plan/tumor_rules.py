"""Rules about the tumours: within reach, covered by the fast estimate, covered by a simulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.anatomy.vessel_tree import point_segment_distances
from thermosim.outcome.results import TumorMargin
from thermosim.plan.findings import Rule, RuleResult
from thermosim.plan.paths import Plan

NO_TUMOR = "the anatomy has no tumour"


def reach_rule(plan: Plan, surfaces: Mapping[str, TriangleSurface]) -> RuleResult:
    """Whether every place of each tumour's surface lies near some bare metal that is driven."""
    title = "Farthest place of the tumour from bare metal"
    rule = Rule("tumor_reach_mm", title, "mm", "at most", plan.rules.tumor_reach_mm)
    lines = [line for place in plan.places for line in place.lines]
    starts = np.vstack([line[:-1] for line in lines])
    ends = np.vstack([line[1:] for line in lines])
    for body in plan.with_role("tumor"):
        name = body.structure.name
        points = surfaces[name].points
        distance = np.full(len(points), np.inf)
        for first in range(0, len(starts), 50):
            part = slice(first, first + 50)
            near = point_segment_distances(points, starts[part], ends[part]).min(axis=1)
            distance = np.minimum(distance, near)
        farthest = int(np.argmax(distance))
        value = 1e3 * float(distance[farthest])
        called = name.replace("_", " ")
        rule.judge(
            name,
            value,
            f"{called}: its farthest place is {value:.1f} mm from any bare metal",
            [points[farthest]],
        )
    if not rule.findings:
        rule.leave("plan", NO_TUMOR, True)
    return rule.result()


def coverage_rules(plan: Plan, how: str, tumors: Sequence[TumorMargin], reason: str = "") -> list[RuleResult]:
    """Share of each tumour that dies, and its thinnest margin; `how`: estimated or simulated.

    `reason`: why there are none.
    """
    rules = plan.rules
    title = f"Share of the tumour that dies, {how}"
    share = Rule(f"{how}_coverage", title, "", "at least", getattr(rules, f"{how}_coverage"))
    title = f"Thinnest margin, {how}"
    margin = Rule(f"{how}_margin_mm", title, "mm", "at least", getattr(rules, f"{how}_margin_mm"))
    for tumor in tumors:
        called = tumor.name.replace("_", " ")
        thinnest = 1e3 * tumor.all_around.minimum
        share.judge(
            tumor.name,
            tumor.coverage,
            f"{called}: {100 * tumor.coverage:.1f} % of it dies",
            [tumor.thinnest_point],
        )
        margin.judge(
            tumor.name,
            thinnest,
            f"{called}: thinnest margin {thinnest + 0.0:.1f} mm",
            [tumor.thinnest_point],
        )
    if not tumors:
        for rule in (share, margin):
            rule.leave("plan", reason or NO_TUMOR, not reason)
    return [share.result(), margin.result()]
