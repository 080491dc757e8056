"""The problems that cases share: the demo at any spacing, whole or cut short, and a block of liver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from thermosim.applicators.layout import in_patient_frame
from thermosim.build import Anatomies, Case, build_problem, lay_out, load_case
from thermosim.config_perturb import SpreadConfig
from thermosim.study.perturbation import draw, perturbed
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


def perturbed_cases(plan: Case, n: int, anatomies: Anatomies) -> Iterator[Case]:
    """Cases 1 to n of a study of the plan, on one grid: other needles, perfusion, conductivities."""
    laid = lay_out(plan, anatomies)
    layout = in_patient_frame(plan.config.layout, plan.config.applicators, laid.source.tumor_centers())
    middle = laid.grid.lower_corner + 0.5 * laid.grid.spacing[0] * laid.grid.shape[0]
    plan.config.grid.center_mm = [1e3 * float(m) for m in middle]
    for number in range(1, n + 1):
        one = draw(number, 1, len(layout.needles), SpreadConfig())
        yield Case(perturbed(plan.config, layout, one), plan.settings)
