"""The named cases. Each returns quantities and details; the caller gives each a process of its own."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from bandwidth import Bandwidth
from launches import LaunchProfile
from measure import Quantity, seconds_of

from thermosim.anatomy.anatomy import Structure
from thermosim.applicators.circuit import terminals_for
from thermosim.backends.base import Array, Backend, Layout
from thermosim.build import build_problem, load_case
from thermosim.numerics.super_time_stepping import n_stages
from thermosim.numerics.workspace import Workspace
from thermosim.physics.bioheat import Bioheat, ThermalLaw
from thermosim.simulation import Simulation, peak_memory
from thermosim.tissue.properties import TissueTable
from thermosim.treatment import Problem, Treatment

FULL_SIZE = 128
"""Cells along an edge of the demo; targets hold for this size only."""

BOX_MM = 128.0

FIXED_MEMORY = 400e6
"""Python and its libraries [bytes], which do not grow with the grid."""


@dataclass(frozen=True)
class Setting:
    """How a case is run. `size`: cells along an edge of the demo's box of 128 mm."""

    backend: Backend
    size: int
    repeats: int
    warm_up: int

    def target(self, bound: str) -> str | None:
        return bound if self.size == FULL_SIZE else None


@dataclass
class Report:
    """Quantities of a case, and details that are no samples."""

    quantities: list[Quantity]
    details: dict[str, Any] = field(default_factory=dict)


def demo_problem(size: int) -> Problem:
    """Three cooled needles, 12 min, σ(T), all models of death, isothermal vessels: the demo."""
    return build_problem(load_case("demo", [f"grid.spacing_mm={BOX_MM / size}"]))[0]


def shortened(problem: Problem, minutes: float) -> Problem:
    """The same treatment, broken off after `minutes`."""
    first = replace(problem.protocol.segments[0], duration_min=minutes)
    return replace(problem, protocol=replace(problem.protocol, segments=[first], cooling_after_min=0.0))


# ---------------------------------------------------------------------------- bandwidth


def triad(setting: Setting) -> Report:
    """Memory bandwidth: STREAM triad, and an in-place kernel of thermosim."""
    meter = Bandwidth(setting.backend)
    samples = [(meter.triad(), meter.in_place()) for _ in range(4 * setting.repeats)]
    return Report(
        [
            Quantity("triad", "GB/s", [1e-9 * t for t, _ in samples]),
            Quantity("out = a x + b out", "GB/s", [1e-9 * s for _, s in samples]),
        ]
    )


# ---------------------------------------------------------------------------- whole treatment


def demo(setting: Setting) -> Report:
    """The demo's solver part: 12 min and 1 min of cooling."""
    problem, backend = demo_problem(setting.size), setting.backend
    for _ in range(setting.warm_up):
        Simulation(shortened(problem, 0.1), backend).run()
    seconds, hosts = Quantity("solver", "s", target=setting.target("<= 12")), Quantity("  host", "s")
    parts: dict[str, Quantity] = {}
    busy = Quantity("  processors in use", "")  # well below the number of threads: the machine was shared
    profiles, details = [], {}
    for _ in range(setting.repeats):
        simulation = Simulation(problem, backend)
        wall, processor = time.perf_counter(), time.process_time()
        with LaunchProfile(backend) as profile:
            result = simulation.run()
        busy.samples.append((time.process_time() - processor) / (time.perf_counter() - wall))
        profiles.append(profile)
        seconds.samples.append(result.run.solver_seconds)
        hosts.samples.append(result.run.solver_seconds - profile.seconds)
        for phase, value in profile.phases().items():
            parts.setdefault(phase, Quantity(f"  {phase} kernels", "s")).samples.append(value)
        details = _what_was_computed(simulation, result)
        del simulation, result
        gc.collect()
    middle = int(np.argsort(seconds.samples)[len(seconds.samples) // 2])
    details["kernels"] = profiles[middle].table()
    return Report([seconds, *parts.values(), hosts, busy], details)


def _what_was_computed(simulation: Simulation, result: Any) -> dict[str, Any]:
    """Counts, and the checks without which a time means nothing."""
    cells = simulation.treatment.layout.n_cells
    return {
        "cells": cells,
        "time_steps": result.run.time_steps,
        "heat_evaluations": result.run.cell_updates // cells,
        "potential_solves": result.run.potential_solves,
        "potential_iterations": result.run.potential_iterations,
        "ablated_volume_ml": 1e6 * float(result.traces.ablated_volume[-1]),
        "initial_impedance_ohm": result.initial_impedance,
        "energy_audit_relative_error": result.audit.relative_error,
        "power_relative_error": result.power_relative_error,
    }


def memory(setting: Setting) -> Report:
    """Peak memory of a run of the demo; its length does not matter, so 12 s of treatment serve."""
    before = peak_memory()
    problem = demo_problem(setting.size)
    built = peak_memory()
    simulation = Simulation(shortened(problem, 0.2), setting.backend)
    result = simulation.run()
    cells = simulation.treatment.layout.n_cells
    peak = result.run.peak_memory_bytes
    return Report(
        [
            Quantity("peak", "MB", [1e-6 * peak]),
            Quantity(
                "beyond 400 MB, per cell", "B/cell", [(peak - FIXED_MEMORY) / cells], setting.target("< 100")
            ),
            Quantity("beyond the anatomy, per cell", "B/cell", [(peak - built) / cells]),
            Quantity("peak before the anatomy", "MB", [1e-6 * before]),
            Quantity("peak before the first field", "MB", [1e-6 * built]),
        ],
        {"cells": cells},
    )


# ---------------------------------------------------------------------------- heat


def heat_step(setting: Setting) -> Report:
    """RKL2 steps of three stages on twice the demo's edge, properties by label, nothing boils."""
    return _heat_step(setting, peak_rise=50.0)


def heat_step_boiling(setting: Setting) -> Report:
    """The same with a ball of boiling tissue in the middle, half as wide as the box."""
    return _heat_step(setting, peak_rise=400.0)


def _heat_step(setting: Setting, peak_rise: float) -> Report:
    backend, n = setting.backend, 2 * setting.size
    layout = Layout((n, n, n))
    spacing = 1e-3
    law = _three_tissues()
    labels, bump = _ball_and_slab(n)
    enthalpy, heat = backend.field(layout), backend.field(layout)
    rise = 2.0 + peak_rise * bump
    boiling = law.boiling - law.reference
    share = float(np.mean(rise > boiling))
    layout.interior(enthalpy)[:] = backend.asarray(rise, "float32")
    layout.interior(heat)[:] = backend.asarray(1e5 * bump, "float32")
    temperature = enthalpy  # one field serves as both until something boils
    if share > 0.0:
        temperature = backend.field(layout)
        mushy = boiling + (rise - boiling) * law.boiling_width / (law.boiling_width + float(law.latent[1]))
        layout.interior(temperature)[:] = backend.asarray(np.where(rise > boiling, mushy, rise), "float32")
        del mushy
    label_field = backend.field(layout, 0, "uint8")
    layout.interior(label_field)[:] = backend.asarray(labels, "uint8")
    del rise, labels, bump

    equation = Bioheat(
        backend, layout, spacing, label_field, law, [], Workspace.allocate(backend, layout, 0.0)
    )
    equation.prepare(enthalpy, temperature, backend.field(layout), 0.0)
    warm = 1.08 * law.conductivity  # k at 100 °C
    rates = (12.0 * warm / spacing**2 + law.perfusion) * law.inverse_capacity
    limit = 2.0 / float(rates.max())
    step = 2.3 * limit
    stages = n_stages(step, limit)
    state = [enthalpy, temperature]

    def advance() -> None:
        state[:] = equation.advance(state[0], state[1], heat, 1.0, step, limit, share > 0.0)[:2]

    with LaunchProfile(backend) as profile:
        for _ in range(max(1, setting.warm_up)):
            advance()
    moved = sum(k.bytes for k in profile.kernels.values())
    updates = layout.n_cells * stages
    needed = moved / (updates * max(1, setting.warm_up))
    meter = Bandwidth(backend)
    speeds, shares, triads = [], [], []
    for _ in range(4 * setting.repeats):
        around = [meter.triad()]
        rate = updates / seconds_of(backend, state[0], advance)
        around.append(meter.triad())
        speeds.append(rate)
        triads.append(float(np.mean(around)))
        shares.append(rate * needed / triads[-1])
    if not np.isfinite(backend.to_host(layout.interior(state[1]))).all():
        raise ArithmeticError("the heat step left a temperature that is not finite")
    return Report(
        [
            Quantity("cell-updates", "M/s", [1e-6 * r for r in speeds]),
            Quantity("needs", "B/update", [needed]),
            Quantity("moves", "GB/s", [1e-9 * needed * r for r in speeds]),
            Quantity("triad meanwhile", "GB/s", [1e-9 * t for t in triads]),
            Quantity("share of the triad", "%", [100 * s for s in shares], setting.target(">= 50")),
        ],
        {"cells": layout.n_cells, "stages": stages, "boiling_share": share, "kernels": profile.table()},
    )


def _three_tissues() -> ThermalLaw:
    """Background, liver and tumour of the demo, no walls."""
    tissue = load_case("demo").config.tissue
    names = ("background", "liver", "tumor")
    table = TissueTable.build(tissue, [Structure(i, n, n, "background") for i, n in enumerate(names)])
    columns = {
        "capacity": table.heat_capacity,
        "conductivity": table.thermal_conductivity,
        "slope": table.thermal_conductivity_slope,
        "perfusion": table.perfusion_conductance,
        "latent": table.latent_temperature,
        "metabolic": table.metabolic_heat,
    }
    return ThermalLaw(
        **{name: values.astype(np.float32) for name, values in columns.items()},
        arterial=tissue.arterial_temperature,
        boundary=tissue.initial_temperature,
        boiling=tissue.vaporization_temperature,
        boiling_width=tissue.vaporization_width,
        reference=tissue.initial_temperature,
        shutdown="arrhenius",
        shutdown_threshold=0.8,
    )


def _ball_and_slab(n: int) -> tuple[Array, Array]:
    """Labels: liver with a tumour of half the box's width and a slab of background; a bump of height 1."""
    axis = (np.arange(n, dtype=np.float32) + 0.5) / n - 0.5
    square = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2
    labels = np.ones((n, n, n), dtype=np.uint8)
    labels[square < 0.25**2] = 2
    labels[: n // 8] = 0
    return labels, np.exp(-32.0 * square)  # 400 K · bump reaches the boiling range at a quarter of n


# ---------------------------------------------------------------------------- potential


def potential(setting: Setting) -> Report:
    """One solve of the demo's potential, all three needles together: cold, and warm as in a run.

    Warm is the state in which a run solves again: tissue heated where the current is, until the
    estimated error of the old field is `solver.resolve_tolerance`.
    """
    problem, backend = demo_problem(setting.size), setting.backend
    solver = problem.solver
    treatment = Treatment(problem, backend)
    treatment.place(problem.electrodes)
    equation = treatment.potential
    assert equation is not None
    n = len(problem.electrodes)
    equation.set_terminals(terminals_for("together", [e.unit for e in problem.electrodes], range(n)))
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


CASES: dict[str, Callable[[Setting], Report]] = {
    "triad": triad,
    "demo": demo,
    "memory": memory,
    "heat_step": heat_step,
    "heat_step_boiling": heat_step_boiling,
    "potential": potential,
}
