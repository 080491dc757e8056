"""Observed orders of the whole coupled problem: manufactured solution, and a treatment of fine steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from solver_cases import LIVER, plain_anatomy, small_problem
from verification import manufactured

from thermosim.backends.base import Backend
from thermosim.config import DamageConfig, GeneratorConfig, SegmentConfig, SolverConfig
from thermosim.simulation import Problem, SimulationResult
from thermosim.simulation import run as simulate


@dataclass(frozen=True)
class Study:
    """Errors by resolution (cells per edge, or seconds per step), several quantities side by side."""

    resolution: tuple[float, ...]
    errors: dict[str, list[float]]
    finer_is_larger: bool

    def orders(self, name: str) -> list[float]:
        """Observed order between each resolution and the next."""
        return [float(v) for v in np.diff(np.log(self.errors[name])) / np.diff(self._logarithms)]

    def fitted(self, name: str) -> float:
        """Order by a straight line through all logarithms."""
        return float(np.polyfit(self._logarithms, np.log(self.errors[name]), 1)[0])

    @property
    def _logarithms(self) -> NDArray[np.float64]:
        """ln of the step, which falls from one resolution to the next."""
        return (-1.0 if self.finer_is_larger else 1.0) * np.log(self.resolution)


def rms(values: NDArray[np.floating]) -> float:
    return float(np.sqrt(np.mean(np.square(values.astype(float)))))


# ---------------------------------------------------------------------------- manufactured solution

SPACE_STEP = 0.375
"""Step [s] of the study in space: its error, 2·10⁻⁴ K, is a tenth of the least in space."""


def in_space(backend: Backend, grids: Sequence[int] = (16, 24, 32, 48)) -> Study:
    """Errors against the exact solution on finer and finer grids."""
    found = [manufactured.run(n, SPACE_STEP, backend) for n in grids]
    return Study(
        tuple(float(n) for n in grids),
        {
            "T, K": [f.temperature_error for f in found],
            "living share": [f.perfused_error for f in found],
            "φ/V": [f.potential_error for f in found],
        },
        finer_is_larger=True,
    )


def in_time(
    backend: Backend,
    steps: Sequence[float] = (6.0, 3.0, 1.5, 0.75, 0.375),
    finest: float = 0.09375,
    n: int = 16,
) -> Study:
    """Differences from the finest step on one grid, whose error in space all runs share."""
    best = manufactured.run(n, finest, backend)
    found = [manufactured.run(n, step, backend) for step in steps]
    return Study(
        tuple(steps),
        {
            "T, K": [rms(f.temperature - best.temperature) for f in found],
            "living share": [rms(f.perfused - best.perfused) for f in found],
        },
        finer_is_larger=False,
    )


# ---------------------------------------------------------------------------- a treatment

SECONDS = 60.0
READ_AT = 48.0
"""A moment [s] at which every step size reads the impedance."""


def treatment(step: float, resolve_tolerance: float = 0.0) -> Problem:
    """A needle at constant voltage in perfused liver, boiling at last; steps of one length."""
    case = small_problem(
        anatomy=plain_anatomy((16, 16, 16), 3e-3),
        generator=GeneratorConfig(voltage=30.0),
        segments=[SegmentConfig(duration_min=SECONDS / 60.0)],
        liver=replace(LIVER, thermal_conductivity_slope=0.0015),
        damage=DamageConfig(perfusion_shutdown="arrhenius"),
        solver=SolverConfig(
            active_box=False,  # the order is that of the equations
            maximum_time_step=step,
            maximum_temperature_rise=1e6,
            resolve_tolerance=resolve_tolerance,
            potential_tolerance=manufactured.TIGHT,
            maximum_iterations=200,
            report_interval=12.0,
        ),
    )
    tissue = replace(
        case.tissue,
        vaporization_temperature=80.0,
        vaporization_width=10.0,  # wide enough to be resolved by the steps
        conductivity_collapse_temperature=200.0,
    )
    return replace(case, tissue=tissue)


def treatment_in_time(
    backend: Backend, steps: Sequence[float] = (3.0, 1.5, 0.75, 0.375), finest: float = 0.09375
) -> Study:
    """Differences from the finest step of what a treatment leaves."""
    best = simulate(treatment(finest), backend)
    found = [simulate(treatment(step), backend) for step in steps]

    def impedance(result: SimulationResult) -> float:
        return float(result.traces.impedance[np.flatnonzero(np.isclose(result.traces.time, READ_AT))[0]])

    tissue = ~best.solid_mask
    return Study(
        tuple(steps),
        {
            "T, K": [rms((f.temperature - best.temperature)[tissue]) for f in found],
            "ln Ω": [rms(np.log(f.damage_integral[tissue] / best.damage_integral[tissue])) for f in found],
            "energy, J": [abs(f.audit.electrical - best.audit.electrical) for f in found],
            "impedance, Ω": [abs(impedance(f) - impedance(best)) for f in found],
        },
        finer_is_larger=False,
    )
