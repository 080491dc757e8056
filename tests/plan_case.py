"""A body of boxes, balls and tubes whose every distance is known, and plans in it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import Structure
from thermosim.anatomy.bodies import Body, ShapeBody, TreeBody
from thermosim.anatomy.vessel_tree import VesselTree
from thermosim.applicators.layout import electrodes_from
from thermosim.applicators.protocol import Protocol
from thermosim.config import ApplicatorConfig, LayoutConfig, NeedleConfig, ProtocolConfig, SegmentConfig
from thermosim.config_check import LimitConfig, OrganConfig, RulesConfig
from thermosim.plan.findings import RuleResult
from thermosim.plan.paths import Plan

DEVICE = ApplicatorConfig(name="needle", radius_mm=0.75, active_length_mm=30.0)
"""A plain needle of 1.5 mm with 30 mm of bare metal."""

ORGANS = {
    "ribs": OrganConfig(names=["*rib*"], warn_mm=2.0, fail_mm=0.0),
    "others": OrganConfig(names=["*"], warn_mm=2.0, fail_mm=0.0),
}


def box(name: str, low: list[float], high: list[float], role: str = "background") -> Body:
    """An axis-aligned box between two corners [mm]."""
    lower, upper = 1e-3 * np.array(low, float), 1e-3 * np.array(high, float)

    def level(points: NDArray[np.float64]) -> NDArray[np.float64]:
        beyond = np.abs(points - 0.5 * (lower + upper)) - 0.5 * (upper - lower)
        return np.asarray(
            np.linalg.norm(np.maximum(beyond, 0.0), axis=-1) + np.minimum(beyond.max(axis=-1), 0.0)
        )

    return ShapeBody(Structure(1, name, "liver", role), level)  # type: ignore[arg-type]


def ball(name: str, center: list[float], radius: float, role: str = "tumor") -> Body:
    """A ball [mm]."""
    middle = 1e-3 * np.array(center, float)
    return ShapeBody(
        Structure(1, name, "tumor", role),  # type: ignore[arg-type]
        lambda points: np.asarray(np.linalg.norm(points - middle, axis=-1) - 1e-3 * radius),
    )


def tube(name: str, start: list[float], end: list[float], diameter: float) -> Body:
    """One straight vessel [mm]."""
    nodes = 1e-3 * np.array([start, end], float)
    tree = VesselTree(name, nodes, np.array([[0, 1]]), np.array([-1]), np.array([0.5e-3 * diameter]))
    return TreeBody(Structure(1, name, "blood", "vessel", name), tree)


LIVER = box("liver", [-60, -60, -60], [60, 60, 60], "organ")
TUMOR = ball("tumor", [0, 0, 0], 15)


@dataclass
class Source:
    """The part of an anatomy that geometric rules look at."""

    centers: dict[str, NDArray[np.float64]] = field(default_factory=lambda: {"tumor": np.zeros(3)})
    view: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    notes: tuple[str, ...] = ()

    def tumor_centers(self) -> dict[str, NDArray[np.float64]]:
        return self.centers

    def field_of_view(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        return self.view


def needle(name: str, target: list[float], entry: list[float]) -> NeedleConfig:
    return NeedleConfig(name, target, entry)


def plan(
    *needles: NeedleConfig,
    bodies: tuple[Body, ...] = (LIVER, TUMOR),
    protocol: ProtocolConfig | None = None,
    device: ApplicatorConfig = DEVICE,
    source: Any = None,
    given: bool = True,
    **limits: object,
) -> Plan:
    """A plan in the frame of the patient; `limits` replace keys of the rules."""
    where = source or Source()
    layout = LayoutConfig(needles=list(needles))
    electrodes = electrodes_from(layout, device, where.tumor_centers(), together=False)
    protocol = protocol or ProtocolConfig(segments=[SegmentConfig(12.0)])
    rules = replace(RulesConfig(organs=ORGANS, skin=["skin"]), **limits)  # type: ignore[arg-type]
    return Plan(where, bodies, electrodes, Protocol.of(protocol, electrodes), given, rules)  # type: ignore[arg-type]


def limit(warn: float | None, fail: float | None) -> LimitConfig:
    return LimitConfig(warn, fail)


def of(results: list[RuleResult], key: str) -> RuleResult:
    """The result of one rule."""
    return next(result for result in results if result.key == key)
