"""More threads, and larger grids."""

from __future__ import annotations

import gc
from functools import partial
from typing import Any

from heat_cases import heat_rate
from measure import PeakGrowth, Quantity, Report, Setting, seconds_of
from potential_cases import cold_solve, prepared
from problems import block_problem, demo_problem, shortened

from thermosim.backends import select
from thermosim.simulation import Simulation

GROWTH = (0.5, 1.0, 1.5, 2.0, 2.5)
"""Cells along an edge over those of the demo: 64 to 320 at full size."""


def threads(setting: Setting) -> Report:
    """Strong scaling: heat step at twice the demo's edge, cold potential and a minute of the demo."""
    if setting.backend.name != "cpu":
        return Report([], {"skipped": "a GPU has no number of threads to choose"})
    counts = sorted({1, *(2**i for i in range(1, 8) if 2**i < setting.threads), setting.threads})
    problem = shortened(demo_problem(setting.size), 1.0)
    rows: list[dict[str, Any]] = []
    for count in counts:
        backend = select("cpu", count)
        rate = heat_rate(backend, 2 * setting.size, setting.repeats)
        treatment, equation = prepared(problem, backend)
        work = partial(cold_solve, treatment, equation, problem.solver.potential_tolerance)
        cold = min(seconds_of(backend, equation.sigma, work) for _ in range(1 + setting.repeats))
        del treatment, equation, work
        minute = min(Simulation(problem, backend).run().run.solver_seconds for _ in range(setting.repeats))
        rows.append({"threads": count, "heat_rate": rate, "cold_seconds": cold, "minute_seconds": minute})
        gc.collect()
    quantities = []
    for row in rows:
        quantities.append(Quantity(f"{row['threads']} threads: heat", "M/s", [1e-6 * row["heat_rate"]]))
        quantities.append(Quantity("  cold potential", "s", [row["cold_seconds"]]))
        quantities.append(Quantity("  a minute of the demo", "s", [row["minute_seconds"]]))
    return Report(quantities, {"rows": rows})


def growth(setting: Setting) -> Report:
    """From half to five halves of the demo's cells along an edge: heat step, cold potential and memory."""
    rows: list[dict[str, Any]] = []
    for factor in GROWTH:
        n = 2 * round(0.5 * factor * setting.size)
        if factor > 2.0 and not setting.fine:
            continue
        rate = heat_rate(setting.backend, n, setting.repeats)
        gc.collect()
        problem = block_problem(n)
        with PeakGrowth() as grown:
            treatment, equation = prepared(problem, setting.backend)
            work = partial(cold_solve, treatment, equation, problem.solver.potential_tolerance)
            cold = min(seconds_of(setting.backend, equation.sigma, work) for _ in range(setting.repeats))
        rows.append(
            {
                "edge": n,
                "cells": n**3,
                "heat_rate": rate,
                "cold_seconds": cold,
                "iterations": equation.iterations // setting.repeats,
                "bytes_per_cell": None if grown.bytes is None else grown.bytes / n**3,
            }
        )
        del treatment, equation, problem, work
        gc.collect()
    quantities = []
    for row in rows:
        quantities.append(Quantity(f"{row['edge']}³: heat", "M/s", [1e-6 * row["heat_rate"]]))
        quantities.append(Quantity("  cold potential", "s", [row["cold_seconds"]]))
    return Report(quantities, {"rows": rows})
