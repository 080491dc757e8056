"""Figures that sum up a run, smooth enough to compare: no count of whole cells among them.

`PYTHONPATH=.:tests python tests/regression/figures.py` rewrites figures.json; say in the commit why the
figures moved.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from solver_cases import SCENARIOS

from thermosim.backends import select
from thermosim.simulation import SimulationResult, run

FILE = Path(__file__).with_name("figures.json")


def soft_volume(values: np.ndarray, threshold: float, tissue: np.ndarray, cell: float) -> float:
    """Volume [ml] above a threshold on a logarithmic scale, cells at the edge in part."""
    share = np.clip(0.5 + 0.5 * np.log(np.maximum(values, 1e-12) / threshold), 0.0, 1.0)
    return float(share[tissue].sum()) * cell * 1e6


def figures(result: SimulationResult) -> dict[str, float]:
    """What a user would notice if it moved."""
    tissue, cell = ~result.solid_mask, result.anatomy.grid.cell_volume
    return {
        "initial_impedance_ohm": result.initial_impedance,
        "final_impedance_ohm": result.final_impedance,
        "electrical_j": result.audit.electrical,
        "perfusion_j": result.audit.perfusion,
        "walls_j": result.audit.vessels + result.audit.cooled_needles,
        "arrhenius_ml": soft_volume(result.damage_integral, 1.0, tissue, cell),
        "cem43_ml": soft_volume(result.thermal_dose, 240.0, tissue, cell),
        "dead_fraction_ml": float(result.dead_fraction[tissue].sum(dtype=float)) * cell * 1e6,
        "warm_ml_k": float((result.temperature[tissue] - 37.0).sum(dtype=float)) * cell * 1e6,
        "hottest_c": float(result.highest_temperature[tissue].max()),
    }


def figures_of(scenario: str) -> dict[str, float]:
    """Those of a treatment, followed on its whole grid: tests/unit/test_far_field.py has windows."""
    problem = SCENARIOS[scenario]()
    whole = replace(problem, solver=replace(problem.solver, active_box=False))
    return figures(run(whole, select("cpu")))


def main() -> None:
    found = {name: figures_of(name) for name in SCENARIOS}
    rounded = {
        name: {key: float(f"{value:.6g}") for key, value in row.items()} for name, row in found.items()
    }
    FILE.write_text(json.dumps(rounded, indent=1) + "\n")


if __name__ == "__main__":
    main()
