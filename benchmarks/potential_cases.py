"""Solves of the potential: cold, warm, and what they hold in memory."""

from __future__ import annotations

import gc
from functools import partial
from typing import Any

import numpy as np
from measure import PeakGrowth, Quantity, Report, Setting, held_bytes, seconds_of
from problems import demo_problem, shortened

from thermosim.applicators.circuit import terminals_for
from thermosim.backends.base import Array, Backend
from thermosim.physics.electric_potential import ElectricPotential
from thermosim.simulation import Simulation
from thermosim.treatment import Problem, Treatment


def prepared(problem: Problem, backend: Backend) -> tuple[Treatment, ElectricPotential]:
    """Needles put in place and bonded together; the field starts from zero."""
    treatment = Treatment(problem, backend)
    treatment.place(problem.electrodes)
    equation = treatment.potential
    assert equation is not None
    n = len(problem.electrodes)
    equation.set_terminals(terminals_for("together", [e.unit for e in problem.electrodes], range(n)))
    return treatment, equation


def cold_solve(treatment: Treatment, equation: ElectricPotential, tolerance: float) -> None:
    """Links, coarse levels and the field from zero."""
    equation.set_terminals(equation.terminals)  # fields start from zero
    equation.update_conductances(treatment.temperature)
    equation.solve(tolerance, treatment.problem.solver.maximum_iterations)


def potential(setting: Setting) -> Report:
    """One solve of the demo's potential, all three needles together: cold, and warm as in a run.

    Warm is the state in which a run solves again: tissue heated where the current is, until the
    estimated error of the old field is `solver.resolve_tolerance`.
    """
    problem, backend = demo_problem(setting.size), setting.backend
    solver = problem.solver
    treatment, equation = prepared(problem, backend)
    cold_temperature = treatment.temperature
    update = Quantity("σ(T), links, coarse levels", "s")
    cold, warm = Quantity("cold", "s"), Quantity("warm", "s")

    def solve() -> None:
        equation.solve(solver.potential_tolerance, solver.maximum_iterations)

    counts = {}
    for number in range(setting.warm_up + setting.repeats):
        equation.set_terminals(equation.terminals)  # fields start from zero
        set_up = seconds_of(backend, equation.sigma, lambda: equation.update_conductances(cold_temperature))
        before = equation.iterations
        taken = seconds_of(backend, equation.fields[0], solve)
        counts["iterations_cold"] = equation.iterations - before
        if number >= setting.warm_up:
            update.samples.append(set_up)
            cold.samples.append(taken)
    residuals = {"true_residual_cold": equation.true_relative_residuals()[0]}
    solved = equation.fields[0].copy()
    warm_temperature, drift = _drifted(setting, treatment, solver.resolve_tolerance)
    equation.update_conductances(warm_temperature)
    for number in range(setting.warm_up + setting.repeats):
        equation.fields[0][:] = solved
        equation.solved.last_place = None  # nothing is known of before
        before = equation.iterations
        taken = seconds_of(backend, equation.fields[0], solve)
        counts["iterations_warm"] = equation.iterations - before
        if number >= setting.warm_up:
            warm.samples.append(taken)
    residuals["true_residual_warm"] = equation.true_relative_residuals()[0]
    details = {"cells": treatment.layout.n_cells, "drift_estimate": drift, **counts, **residuals}
    return Report([update, cold, warm], details)


def _drifted(setting: Setting, treatment: Treatment, wanted: float) -> tuple[Array, float]:
    """Temperatures that follow the heat source, as high as makes the drift estimate `wanted`."""
    backend, layout, equation = setting.backend, treatment.layout, treatment.potential
    assert equation is not None
    equation.joule_heating(np.ones(len(equation.terminals)), treatment.workspace.first, treatment.heat)
    source = treatment.host(treatment.heat)
    shape = np.minimum(source / np.percentile(source, 99.5), 1.0)
    field_ = backend.field(layout)
    low, high, drift = 0.0, 60.0, 0.0
    for _ in range(16):
        middle = 0.5 * (low + high)
        layout.interior(field_)[:] = backend.asarray(middle * shape, "float32")
        drift = equation.drift(field_, treatment.heat)[1]
        low, high = (middle, high) if drift < wanted else (low, middle)
    return field_, drift


def potential_large(setting: Setting) -> Report:
    """A cold solve on 5/4 of the demo's edge, links and coarse levels included, to a residual of 1e-6."""
    size = 2 * round(0.625 * setting.size)
    problem, backend = demo_problem(size), setting.backend
    treatment, equation = prepared(problem, backend)
    work = partial(cold_solve, treatment, equation, problem.solver.potential_tolerance)
    samples: list[float] = []
    with PeakGrowth() as growth:
        for number in range(setting.warm_up + setting.repeats):
            before = equation.iterations
            taken = seconds_of(backend, equation.sigma, work)
            if number >= setting.warm_up:
                samples.append(taken)
    cells = treatment.layout.n_cells
    quantities = [Quantity("cold, set-up included", "s", samples)]
    held = held_bytes(equation, treatment.workspace)
    if held:
        quantities.append(Quantity("held, per cell", "B/cell", [held / cells], setting.target("< 45")))
    details: dict[str, Any] = {
        "cells": cells,
        "iterations": equation.iterations - before,
        "true_residual": equation.true_relative_residuals()[0],
        "peak_growth_bytes_per_cell": None if growth.bytes is None else growth.bytes / cells,
    }
    return Report(quantities, details)


def warm_resolve(setting: Setting) -> Report:
    """The demo's first half minute, solved again to 1e-6 after every second of heating."""
    overrides = ["solver.resolve_tolerance=0", "solver.maximum_time_step=1", "solver.report_interval=60"]
    problem = shortened(demo_problem(setting.size, overrides), 0.5)
    simulation = Simulation(problem, setting.backend)
    result = simulation.run()
    counts = result.run.potential_solves, result.run.potential_iterations
    del simulation, result
    gc.collect()
    # the first solve is cold; it alone, at the same state
    treatment, equation = prepared(problem, setting.backend)
    cold_solve(treatment, equation, problem.solver.potential_tolerance)
    mean = (counts[1] - equation.iterations) / max(1, counts[0] - 1)
    quantity = Quantity("iterations of a warm solve", "", [mean], setting.target("<= 2"))
    return Report([quantity], {"solves": counts[0], "iterations_cold": equation.iterations})


def as_arrays(equation: ElectricPotential) -> dict[str, Array]:
    """The linear system of the present conductances, as other solvers take it.

    `gx`, `gy`, `gz` link each cell to the next along its axis, `leak` to walls and ground, `b` is the
    right-hand side: (A φ)_p = Σ g (φ_p − φ_q) + leak_p φ_p. Float32 of the grid's shape.
    """
    backend, layout = equation.backend, equation.layout
    inflow = backend.field(layout)
    equation._add_inflow(np.ones(len(equation.terminals)), inflow)
    links = equation.links
    fields = {"gx": links.gx, "gy": links.gy, "gz": links.gz, "b": inflow}
    arrays = {
        name: np.ascontiguousarray(backend.to_host(layout.interior(field_)))
        for name, field_ in fields.items()
    }
    return {**arrays, "leak": links.leaks.on_host()}
