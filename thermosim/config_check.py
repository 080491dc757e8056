"""Dataclasses of `thermosim check`: limits of every rule, and how coverage is estimated."""

from __future__ import annotations

from dataclasses import dataclass, field

from thermosim.config import SimulationConfig


@dataclass
class LimitConfig:
    """Limits of one rule in the unit of its key; which side is wanted belongs to the rule."""

    warn: float | None = None  # beyond it the rule warns; null: never
    fail: float | None = None  # beyond it the rule fails; null: never
    source: str = "assumed"


@dataclass
class OrganConfig:
    """Structures that needles must keep clear of, found by their names."""

    names: list[str] = field(default_factory=list)  # patterns such as rib*, upper and lower case alike
    warn_mm: float | None = None  # least distance of needles; below it the rule warns
    fail_mm: float | None = None  # and fails; 0: only what passes through fails
    source: str = "assumed"


@dataclass
class ZoneConfig:
    """The zone that one needle makes, for the fast estimate."""

    beside_mm: float = 10.0  # how far it reaches beside the bare metal, from its surface
    beyond_mm: float = 3.0  # and beyond its ends, or beyond tines on all sides
    time_min: float = 12.0  # of the burn that makes it; a shorter one makes a smaller zone
    source: str = "assumed"


@dataclass
class RulesConfig:
    """Limits of every rule. `at most` or `at least` is said beside each."""

    needle_gap_mm: LimitConfig = field(default_factory=LimitConfig)  # at least, of needles there together
    neighbour_distance_mm: LimitConfig = field(default_factory=LimitConfig)  # at most, bare metal
    neighbour_angle_deg: LimitConfig = field(default_factory=LimitConfig)  # at most, of those together
    pull_back_overlap_mm: LimitConfig = field(default_factory=LimitConfig)  # at least, of bare metal
    positions: LimitConfig = field(default_factory=LimitConfig)  # at most, in the whole plan
    depth_mm: LimitConfig = field(default_factory=LimitConfig)  # at most, from entry to tip
    skin_distance_mm: LimitConfig = field(default_factory=LimitConfig)  # at most, entry point to skin
    unknown_path_mm: LimitConfig = field(default_factory=LimitConfig)  # at most, outside the image
    vessel_diameter_mm: LimitConfig = field(default_factory=LimitConfig)  # at most, that a needle passes
    capsule_entries: LimitConfig = field(default_factory=LimitConfig)  # at most, of one needle
    capsule_punctures: LimitConfig = field(default_factory=LimitConfig)  # at most, of the whole plan
    liver_before_tumor_mm: LimitConfig = field(default_factory=LimitConfig)  # at least
    metal_outside_liver_mm: LimitConfig = field(default_factory=LimitConfig)  # at most, bare metal
    tumor_reach_mm: LimitConfig = field(default_factory=LimitConfig)  # at most, tumour to bare metal
    estimated_coverage: LimitConfig = field(default_factory=LimitConfig)  # at least, share of the tumour
    estimated_margin_mm: LimitConfig = field(default_factory=LimitConfig)  # at least
    simulated_coverage: LimitConfig = field(default_factory=LimitConfig)  # at least
    simulated_margin_mm: LimitConfig = field(default_factory=LimitConfig)  # at least
    organs: dict[str, OrganConfig] = field(default_factory=dict)
    skin: list[str] = field(default_factory=list)  # names of the structure that is the whole body
    zone: ZoneConfig = field(default_factory=ZoneConfig)
    not_judged: str = "ignore"  # ignore | warn: what a rule that cannot be judged does to the verdict


@dataclass
class CheckConfig:
    """What is done beside geometry."""

    # none | quick: at quick_spacing_mm | full: as `thermosim simulate` would
    simulate: str = "none"
    quick_spacing_mm: float = 3.0  # a grid that is coarser already stays
    estimate_spacing_mm: float = 2.0  # of the grid of the fast estimate


@dataclass
class CheckCaseConfig(SimulationConfig):
    """A case of `simulate`, and what its check needs."""

    rules: RulesConfig = field(default_factory=RulesConfig)
    check: CheckConfig = field(default_factory=CheckConfig)
