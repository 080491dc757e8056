"""What a run returns, as plain values in host memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import Anatomy
from thermosim.applicators.electrode import Electrode

Field = NDArray[np.float32]


@dataclass(frozen=True)
class EnergyAudit:
    """Where the energy went [J]; `relative_error` = |in − sum of the rest| / in."""

    electrical: float
    stored: float
    perfusion: float
    vessels: float
    cooled_needles: float
    faces: float
    metabolic: float
    relative_error: float


@dataclass(frozen=True)
class Traces:
    """Readings over time. Arrays of shape (n_times,) or (n_times, n_electrodes).

    `time` [s], `voltage` [V RMS], `current` [A RMS], `power` [W] per electrode; `impedance` [Ω] of
    what the generator drives (NaN while off), `total_power` [W], `hottest_temperature` [°C],
    `ablated_volume` [m³] by the chosen criterion, `electrical_energy` [J] delivered so far.
    """

    time: NDArray[np.float64]
    voltage: NDArray[np.float64]
    current: NDArray[np.float64]
    power: NDArray[np.float64]
    impedance: NDArray[np.float64]
    total_power: NDArray[np.float64]
    hottest_temperature: NDArray[np.float64]
    ablated_volume: NDArray[np.float64]
    electrical_energy: NDArray[np.float64]


@dataclass(frozen=True)
class RunInfo:
    """How the run was computed."""

    backend: str  # cpu | cuda
    device: str  # processor or GPU and compiler, in words
    kernel_digest: str
    solver_seconds: float
    cell_updates: int  # cells × heat-step evaluations
    time_steps: int
    potential_solves: int
    potential_iterations: int
    peak_memory_bytes: int

    @property
    def cell_updates_per_second(self) -> float:
        return self.cell_updates / self.solver_seconds if self.solver_seconds > 0 else 0.0


@dataclass(frozen=True)
class SimulationResult:
    """Fields on the grid (float32, host memory), traces, audit and provenance of one run.

    `temperature`, `highest_temperature` [°C]; `damage_integral` Ω [-]; `thermal_dose` CEM43 [min];
    `dead_fraction` of the three-state model [-]; `volumetric_heat_source` at the last moment of
    power [W/m³]; `electric_potential` at that moment [V]. `solid_mask`: metal and shafts.
    `initial_impedance`, `final_impedance` [Ω]; `admittance_matrix` (n, n) [S] of the
    terminals of the first segment (groups of electrodes driven together) against the ground at the
    start (the initial temperature everywhere).
    `power_relative_error`: worst |Σ q h³ − Σ V I| / Σ V I over all solves.
    """

    anatomy: Anatomy
    electrodes: tuple[Electrode, ...]
    temperature: Field
    highest_temperature: Field
    damage_integral: Field
    thermal_dose: Field
    dead_fraction: Field
    volumetric_heat_source: Field
    electric_potential: Field
    solid_mask: NDArray[np.bool_]
    traces: Traces
    audit: EnergyAudit
    run: RunInfo
    initial_impedance: float
    final_impedance: float
    admittance_matrix: NDArray[np.float64]
    power_relative_error: float
    treatment_time: float
    completed: bool = True
    notes: tuple[str, ...] = field(default=())
