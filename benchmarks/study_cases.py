"""What each algorithm is worth: the demo with one thing changed at a time, its time and its error."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from measure import Quantity, Report, Setting
from problems import demo_problem, shortened
from treatment_cases import radius_mm

import thermosim.physics.bioheat as bioheat
from thermosim.backends.base import Backend
from thermosim.config import SolverConfig
from thermosim.numerics.super_time_stepping import SAFETY, Stage
from thermosim.outcome.assess import assess
from thermosim.simulation import Simulation
from thermosim.treatment import Problem

Change = Callable[[Simulation], Callable[[], None]]
"""Changes a simulation that is about to run; what it returns undoes the change."""


@dataclass(frozen=True)
class Variant:
    """One line of the study: settings that differ from the default, or a change that has no setting."""

    name: str
    overrides: tuple[str, ...] = ()
    change: Change | None = None


def _nothing() -> None:
    return None


def _explicit(simulation: Simulation) -> Callable[[], None]:
    """Forward Euler at its own limit in place of super-time-stepping."""
    treatment = simulation.treatment
    treatment.place(simulation.problem.electrodes)
    simulation.clock.maximum_step = min(simulation.clock.maximum_step, SAFETY * treatment.explicit_limit)
    kept = bioheat.n_stages, bioheat.stages
    bioheat.n_stages = lambda step, limit: 1  # type: ignore[assignment]
    bioheat.stages = lambda s: (Stage(1.0, 0.0, 1.0, 0.0),)  # type: ignore[assignment]

    def undo() -> None:
        bioheat.n_stages, bioheat.stages = kept

    return undo


def _cold(simulation: Simulation) -> Callable[[], None]:
    """Every solve of the potential begins at zero."""
    treatment = simulation.treatment
    treatment.place(simulation.problem.electrodes)
    potential = treatment.potential
    assert potential is not None
    solve = potential.solve_drive

    def from_zero(*arguments: Any, **named: Any) -> Any:
        for field_ in potential.fields:
            field_[:] = 0.0
        return solve(*arguments, **named)

    potential.solve_drive = from_zero  # type: ignore[method-assign]
    return _nothing


def _not_ahead(simulation: Simulation) -> Callable[[], None]:
    """σ of the moment in place of that of the middle of the coming step."""

    def of_now() -> float:
        treatment = simulation.treatment
        assert treatment.potential is not None
        simulation.step_before = None
        treatment.potential.update_conductances(
            treatment.temperature, treatment.heat, simulation._heating_time
        )
        simulation.solved_for = simulation.clock.time
        return 1.0

    simulation._update_conductances = of_now  # type: ignore[method-assign]
    return _nothing


def _one_by_one(simulation: Simulation) -> Callable[[], None]:
    """Each kernel passes over the whole grid before the next begins, in place of tile by tile."""
    backend = simulation.backend
    backend.program = partial(Backend.program, backend)  # type: ignore[method-assign]

    def undo() -> None:
        del backend.program

    return undo


VARIANTS = (
    Variant("as it is"),
    Variant("potential at every step", ("solver.resolve_tolerance=0",)),
    Variant("potential at an error of 0.5 %", ("solver.resolve_tolerance=0.005",)),
    Variant("potential at an error of 5 %", ("solver.resolve_tolerance=0.05",)),
    Variant("every solve from zero", change=_cold),
    Variant("σ of now, not of mid-step", change=_not_ahead),
    Variant("forward Euler, no super-time-stepping", change=_explicit),
    Variant("steps of at most 1 K", ("solver.maximum_temperature_rise=1",)),
    Variant("steps of at most 10 K", ("solver.maximum_temperature_rise=10",)),
    Variant("kernels one by one, not tile by tile", change=_one_by_one),
    Variant("active box off", ("solver.active_box=false",)),
)


def _known(variant: Variant) -> bool:
    """Whether all keys of the variant exist in this version."""
    keys = {entry.name for entry in dataclasses.fields(SolverConfig)}
    return all(word.removeprefix("solver.").partition("=")[0] in keys for word in variant.overrides)


def studies(setting: Setting) -> Report:
    """The demo on 3/4 of its edge's cells, one algorithm changed at a time; errors against solver=strict."""
    size, backend = 2 * round(0.375 * setting.size), setting.backend
    Simulation(shortened(demo_problem(size), 0.1), backend).run()  # warm
    reference = row_of(demo_problem(size, ["solver=strict"]), backend, Variant("solver=strict"))
    rows = [row_of(demo_problem(size, one.overrides), backend, one) for one in VARIANTS if _known(one)]
    for row in (reference, *rows):
        row["radius_error_mm"] = radius_mm(row["zone_volume_ml"]) - radius_mm(reference["zone_volume_ml"])
        row["time_ratio"] = row["solver_seconds"] / rows[0]["solver_seconds"]
    quantities = [Quantity(row["name"], "s", [row["solver_seconds"]]) for row in (reference, *rows)]
    return Report(quantities, {"size": size, "rows": [*rows, reference]})


def row_of(problem: Problem, backend: Backend, variant: Variant) -> dict[str, Any]:
    """Run one variant; its time, counts and zone."""
    simulation = Simulation(problem, backend)
    undo = _nothing if variant.change is None else variant.change(simulation)
    try:
        result = simulation.run()
    finally:
        undo()
    outcome = assess(result, problem.damage)
    found = {
        "name": variant.name,
        "overrides": list(variant.overrides),
        "solver_seconds": result.run.solver_seconds,
        "time_steps": result.run.time_steps,
        "heat_evaluations": result.run.heat_evaluations,
        "potential_solves": result.run.potential_solves,
        "potential_iterations": result.run.potential_iterations,
        "zone_volume_ml": 1e6 * outcome.zones[outcome.criterion].volume,
        "highest_temperature": float(np.max(result.highest_temperature)),
    }
    del simulation, result, outcome
    gc.collect()
    return found
