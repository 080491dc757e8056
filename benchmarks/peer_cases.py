"""The alternatives, measured in the same run: heat step, potential, whole ablation."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from typing import Any

import numpy as np
from heat_cases import heat_rate
from measure import Quantity, Report, Setting, held_bytes, seconds_of
from peers import ablation, heat_step, in_own_process, potential
from potential_cases import as_arrays, cold_solve, prepared
from problems import demo_problem
from treatment_cases import timed_run

TOLERANCE = 1e-6
"""Relative residual of the potential."""

PART_OF_ABLATION = 60.0
"""Seconds of treatment measured of the ablation with PyAMG, unless whole ones are wanted."""


def heat_peers(setting: Setting) -> Report:
    """One plain heterogeneous heat step at twice the demo's edge, by thermosim and by its peers."""
    n = 2 * setting.size
    ours = heat_rate(setting.backend, n, setting.repeats)
    rows: list[dict[str, Any]] = [{"peer": "thermosim, plain RKL2 stage", "rates": [ours]}]
    for name in heat_step.PEERS:
        rows.append(
            {
                "peer": name,
                **in_own_process(heat_step.measure, setting.threads, name, n, max(2, setting.repeats)),
            }
        )
    return _report(rows, "rates", "M/s", 1e-6, {"edge": n})


def potential_peers(setting: Setting) -> Report:
    """The potential of three needles at 5/4 of the demo's edge to 1e-6, by thermosim and by its peers."""
    size = 2 * round(0.625 * setting.size)
    backend = setting.backend
    treatment, equation = prepared(demo_problem(size), backend)
    work = partial(cold_solve, treatment, equation, TOLERANCE)
    work()
    seconds = [seconds_of(backend, equation.sigma, work) for _ in range(setting.repeats)]
    arrays = as_arrays(equation)
    found = np.asarray(backend.to_host(treatment.layout.interior(equation.fields[0])), dtype=float)
    matrix, b, active = potential.assemble(arrays)
    residual = potential.true_residual(matrix, b, found.ravel()[active])
    ours = {
        "peer": "thermosim",
        "seconds": float(np.median(seconds)),
        "iterations": equation.iterations // (1 + setting.repeats),
        "true_residual": residual,
        "bytes_per_cell": held_bytes(equation, treatment.workspace) / treatment.layout.n_cells,
    }
    rows: list[dict[str, Any]] = [ours]
    del matrix, b, active, found, equation, treatment, work
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "system.npz")
        np.savez(path, **arrays)
        del arrays
        for name in potential.PEERS:
            if name == "PyAMG, classical" and setting.peers != "full":
                rows.append({"peer": name, "missing": "only with --peers full"})
                continue
            arguments = (name, path, TOLERANCE)
            rows.append({"peer": name, **in_own_process(potential.measure, setting.threads, *arguments)})
    return _report(rows, "seconds", "s", 1.0, {"edge": size, "tolerance": TOLERANCE})


def ablation_peers(setting: Setting) -> Report:
    """The whole demo with zones and margins, by thermosim and as others would assemble it."""
    size = setting.size
    problem = demo_problem(size)
    timed_run(problem, setting)
    solver, outcome_seconds, outcome, _ = timed_run(problem, setting)
    ours = {
        "peer": "thermosim",
        "seconds": solver + outcome_seconds,
        "tolerance": problem.solver.potential_tolerance,
        "zone_volume_ml": 1e6 * outcome.zones["arrhenius"].volume,
    }
    rows: list[dict[str, Any]] = [ours]
    whole = setting.peers == "full"
    stacks = [
        ablation.Stack("Numba + Jacobi-PCG", "pcg", 1e-4, 5.0),
        ablation.Stack("Numba + PyAMG", "pyamg", 1e-6, 5.0, None if whole else PART_OF_ABLATION),
    ]
    if whole:
        stacks.append(ablation.Stack("Numba + Jacobi-PCG at every step", "pcg", 1e-4, 0.0))
    found = in_own_process(ablation.measure, setting.threads, size, stacks)
    rows += [{"peer": stack.name, **found.get(stack.name, found)} for stack in stacks]
    return _report(rows, "seconds", "s", 1.0, {"edge": size})


def _report(rows: list[dict[str, Any]], key: str, unit: str, scale: float, details: dict[str, Any]) -> Report:
    """A quantity for each row that has a figure; what is missing stays in the rows and says why."""
    quantities = []
    for row in rows:
        if key in row:
            values = row[key] if isinstance(row[key], list) else [row[key]]
            quantities.append(Quantity(row["peer"], unit, [scale * v for v in values]))
    return Report(quantities, {**details, "rows": rows})
