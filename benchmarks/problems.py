"""The problems that cases share: the demo at any spacing, whole or cut short, and a block of liver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from thermosim.build import build_problem, load_case
from thermosim.treatment import Problem

BOX_MM = 128.0
"""Edge of the demo's box."""


def demo_problem(size: int, overrides: Sequence[str] = ()) -> Problem:
    """Three cooled needles, 12 min, σ(T), all models of death, isothermal vessels: the demo."""
    return demo_at(BOX_MM / size, overrides)


def demo_at(spacing_mm: float, overrides: Sequence[str] = ()) -> Problem:
    """The demo at a spacing in mm."""
    return build_problem(load_case("demo", [f"grid.spacing_mm={spacing_mm}", *overrides]))[0]


def block_problem(size: int) -> Problem:
    """The demo's needles and box with `size` cells an edge, in a block of liver without vessels."""
    settings = [
        "anatomy=block",
        "anatomy.size_mm=[200,200,200]",
        "anatomy.tumors=[{diameter_mm:30}]",
        f"grid.spacing_mm={BOX_MM / size}",
    ]
    return build_problem(load_case("demo", settings))[0]


def shortened(problem: Problem, minutes: float) -> Problem:
    """The same treatment, broken off after `minutes`."""
    first = replace(problem.protocol.segments[0], duration_min=minutes)
    return replace(problem, protocol=replace(problem.protocol, segments=[first], cooling_after_min=0.0))
