"""Whole treatments: the demo in its parts, against grid spacing, and from the command to the first step."""

from __future__ import annotations

import gc
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from launches import LaunchProfile
from measure import Quantity, Report, Setting, wall_seconds
from problems import BOX_MM, demo_at, demo_problem, shortened

from thermosim.outcome.assess import assess
from thermosim.outcome.results import Outcome
from thermosim.simulation import Simulation, SimulationResult, peak_memory
from thermosim.treatment import Problem

FIXED_MEMORY = 400e6
"""Python and its libraries [bytes], which do not grow with the grid."""

SPACINGS = (3.0, 2.0, 1.5, 1.0, 0.5)
"""Of the demo at full size [mm]; the last one only if fine grids are wanted."""


COARSEST_MM = 20.0
"""What a grid may have at most."""


def demo(setting: Setting) -> Report:
    """The demo: 12 min and 1 min of cooling, then zones and margins."""
    problem, backend = demo_problem(setting.size), setting.backend
    for _ in range(setting.warm_up):
        Simulation(shortened(problem, 0.1), backend).run()
    whole = Quantity("solver and outcome", "s", target=setting.target("<= 5"))
    seconds, hosts = Quantity("  solver", "s"), Quantity("    host", "s")
    outcomes = Quantity("  zones and margins", "s")
    parts: dict[str, Quantity] = {}
    busy = Quantity("  processors in use", "")  # well below the number of threads: the machine was shared
    profiles, details = [], {}
    for _ in range(setting.repeats):
        simulation = Simulation(problem, backend)
        wall, processor = time.perf_counter(), time.process_time()
        with LaunchProfile(backend) as profile:
            result = simulation.run()
        busy.samples.append((time.process_time() - processor) / (time.perf_counter() - wall))
        taken, outcome = timed_outcome(result, problem, setting)
        outcomes.samples.append(taken)
        profiles.append(profile)
        seconds.samples.append(result.run.solver_seconds)
        whole.samples.append(seconds.samples[-1] + outcomes.samples[-1])
        hosts.samples.append(result.run.solver_seconds - profile.seconds)
        for phase, value in profile.phases().items():
            parts.setdefault(phase, Quantity(f"    {phase} kernels", "s")).samples.append(value)
        details = what_was_computed(problem, result, outcome)
        del simulation, result, outcome
        gc.collect()
    middle = int(np.argsort(seconds.samples)[len(seconds.samples) // 2])
    details["kernels"] = profiles[middle].table()
    return Report([whole, seconds, *parts.values(), hosts, outcomes, busy], details)


def what_was_computed(problem: Problem, result: SimulationResult, outcome: Outcome) -> dict[str, Any]:
    """Counts, and the checks without which a time means nothing."""
    cells = problem.anatomy.labels.size
    return {
        "cells": cells,
        "time_steps": result.run.time_steps,
        "heat_evaluations": result.run.heat_evaluations,
        "potential_solves": result.run.potential_solves,
        "potential_iterations": result.run.potential_iterations,
        "potential_tolerance": problem.solver.potential_tolerance,
        "resolve_tolerance": problem.solver.resolve_tolerance,
        "ablated_volume_ml": 1e6 * float(result.traces.ablated_volume[-1]),
        "zone_volume_ml": 1e6 * outcome.zones[outcome.criterion].volume,
        "minimal_margin_mm": 1e3 * outcome.tumors[0].all_around.minimum,
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
    with tempfile.TemporaryDirectory() as folder:
        whole = command_memory(setting, Path(folder) / "run")
    peak = result.run.peak_memory_bytes
    return Report(
        [
            Quantity("peak", "MB", [1e-6 * peak]),
            Quantity(
                "beyond 400 MB, per cell", "B/cell", [(peak - FIXED_MEMORY) / cells], setting.target("< 100")
            ),
            Quantity("beyond the anatomy, per cell", "B/cell", [(peak - built) / cells]),
            Quantity("whole command, report included", "MB", [1e-6 * whole], setting.target("<= 610")),
            Quantity("peak before the anatomy", "MB", [1e-6 * before]),
            Quantity("peak before the first field", "MB", [1e-6 * built]),
        ],
        {"cells": cells},
    )


WHOLE = """
import sys
from thermosim import cli
from thermosim.simulation import peak_memory
code = cli.main(sys.argv[1:])
print(peak_memory())
sys.exit(code)
"""


def command_memory(setting: Setting, directory: Path) -> int:
    """Most bytes that `thermosim simulate` holds in a minute of the demo and its report.

    Without the process that draws the scene, which does not depend on the grid.
    """
    words = [
        f"grid.spacing_mm={BOX_MM / setting.size}",
        f"backend={setting.backend.name}",
        f"backend.threads={setting.threads}",
        "protocol=one_minute",
        f"output.directory={directory}",
    ]
    command = [sys.executable, "-c", WHOLE, "simulate", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the command failed: {done.stderr[-500:]}")
    return int(done.stdout.split()[-1])


# ---------------------------------------------------------------------------- spacing


def spacing(setting: Setting) -> Report:
    """The demo at one spacing after another: time, and error against the finest."""
    import pyvista  # other cases measure memory without it

    backend, scale = setting.backend, (BOX_MM / setting.size)
    wanted = [scale * mm for mm in SPACINGS if scale * mm <= COARSEST_MM and (mm >= 1.0 or setting.fine)]
    rows: list[dict[str, Any]] = []
    zones = []
    Simulation(shortened(demo_at(wanted[0]), 0.1), backend).run()  # warm
    for mm in wanted:
        problem = demo_at(mm)
        times = []
        for _ in range(setting.repeats if mm >= 2.0 * scale else 1):
            solver, outcome_seconds, outcome, result = timed_run(problem, setting)
            times.append((solver, outcome_seconds))
        solver, outcome_seconds = (float(v) for v in np.median(np.array(times), axis=0))
        zone = outcome.zones[outcome.criterion]
        zones.append(zone)
        rows.append(
            {
                "spacing_mm": mm,
                "cells": problem.anatomy.labels.size,
                "solver_seconds": solver,
                "outcome_seconds": outcome_seconds,
                **what_was_computed(problem, result, outcome),
            }
        )
        del problem, result, outcome
        gc.collect()
    fine = rows[-1]
    reference = pyvista.PolyData.from_regular_faces(zones[-1].surface.points, zones[-1].surface.triangles)
    for row, zone in zip(rows, zones, strict=True):
        row["radius_error_mm"] = radius_mm(row["zone_volume_ml"]) - radius_mm(fine["zone_volume_ml"])
        row["volume_error"] = row["zone_volume_ml"] / fine["zone_volume_ml"] - 1.0
        row["margin_error_mm"] = row["minimal_margin_mm"] - fine["minimal_margin_mm"]
        row["surface_error_mm"] = 1e3 * _mean_distance(zone.surface.points, reference)
    quantities = []
    for row in rows:
        name = f"{row['spacing_mm']:g} mm"
        quantities.append(Quantity(f"{name}: solver", "s", [row["solver_seconds"]]))
        quantities.append(Quantity("  zones and margins", "s", [row["outcome_seconds"]]))
        quantities.append(Quantity("  zone against the finest", "%", [100.0 * row["volume_error"]]))
    return Report(quantities, {"rows": rows})


def timed_outcome(result: SimulationResult, problem: Problem, setting: Setting) -> tuple[float, Outcome]:
    """Zones and margins of a run, and the seconds they take where no run before had this anatomy."""
    alone = replace(result, anatomy=replace(result.anatomy))
    begun = time.perf_counter()
    outcome = assess(alone, problem.damage, threads=setting.threads)
    return time.perf_counter() - begun, outcome


def timed_run(problem: Problem, setting: Setting) -> tuple[float, float, Outcome, SimulationResult]:
    """Seconds of solver and of outcome, and what they found."""
    result = Simulation(problem, setting.backend).run()
    return result.run.solver_seconds, *timed_outcome(result, problem, setting), result


def radius_mm(volume_ml: float) -> float:
    """Radius of the ball of this volume."""
    return float((0.75e3 * volume_ml / np.pi) ** (1.0 / 3.0))


def _mean_distance(points: Any, surface: Any) -> float:
    """Mean distance of the points from a surface [m]."""
    import pyvista

    if not len(points) or not surface.n_cells:
        return float("nan")
    with_distance = pyvista.PolyData(np.asarray(points)).compute_implicit_distance(surface)
    return float(np.mean(np.abs(with_distance["implicit_distance"])))


# ---------------------------------------------------------------------------- the command

FIRST_STEP = """
import os, sys
from thermosim import cli, simulation
step = simulation.Simulation._step
def once(self):
    step(self)
    os._exit(7)
simulation.Simulation._step = once
sys.exit(cli.main(sys.argv[1:]))
"""


def start(setting: Setting) -> Report:
    """From the start of `thermosim simulate` to the end of its first step, kernels compiled before."""
    samples: list[float] = []
    for number in range(1 + setting.repeats):
        with tempfile.TemporaryDirectory() as folder:
            words = [
                "simulate",
                f"grid.spacing_mm={BOX_MM / setting.size}",
                f"backend={setting.backend.name}",
                f"backend.threads={setting.threads}",
                f"output.directory={folder}/run",
            ]
            command = [sys.executable, "-c", FIRST_STEP, *words]
            done: list[subprocess.CompletedProcess[str]] = []

            def work(command: list[str] = command, done: list[Any] = done) -> None:
                done.append(subprocess.run(command, capture_output=True, text=True, check=False))

            taken = wall_seconds(work)
            if done[0].returncode != 7:
                raise RuntimeError(f"the command did not reach its first step: {done[0].stderr[-500:]}")
        if number:
            samples.append(taken)
    return Report([Quantity("command to first step", "s", samples, setting.target("<= 3"))])
