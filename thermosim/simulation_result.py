"""What a run returns, as plain values in host memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import Anatomy
from thermosim.applicators.electrode import Electrode
from thermosim.physics.blood_stream import BloodStream
from thermosim.physics.vessel_walls import OpenVessels

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
    displaced: float = 0.0  # heat of cells that metal entered or left; not in `stored`


@dataclass(frozen=True)
class Traces:
    """Readings over time. Arrays of shape (n_times,) or (n_times, n_electrodes), (n_times, n_units).

    `time` [s], `voltage` [V RMS], `current` [A RMS], `power` [W] per electrode; `impedance` [Ω] of
    what the generator drives (NaN while off), `total_power` [W], `hottest_temperature` [°C],
    `ablated_volume` [m³] by the chosen criterion, `electrical_energy` [J] delivered so far;
    `unit_voltage`, `unit_current`, `unit_power` and `unit_impedance` (V/I, NaN while it is not driven)
    of each unit: a device, or one pole of it; `sensor_temperature` [°C], (n_times, n_sensors). Values
    in counter-phase (a pole that takes the current back) are negative. `impedance` and `generator_power`
    [W] are at the generator's clamps, all else is at the electrodes, behind the cables.
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
    unit_voltage: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    unit_current: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    unit_power: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    unit_impedance: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    sensor_temperature: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    generator_power: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True)
class Sensor:
    """A place where a device measures temperature; `unit` is what it belongs to."""

    name: str
    unit: str


@dataclass(frozen=True)
class TreatmentEvent:
    """Something the generator did at `time` [s] with a unit, with bonded ones, or with a pair.

    `kind` and `value` as in `applicators.drive.Event`.
    """

    time: float
    kind: str
    unit: str
    value: float


@dataclass(frozen=True)
class UnitImpedance:
    """First and last impedance [Ω] of one unit in one segment."""

    unit: str
    segment: int
    initial: float
    final: float


@dataclass(frozen=True)
class RunInfo:
    """How the run was computed."""

    backend: str  # cpu | cuda
    device: str  # processor or GPU and compiler, in words
    kernel_digest: str
    solver_seconds: float
    cell_updates: int  # Σ cells of each evaluation of the heat equation
    time_steps: int
    potential_solves: int
    potential_iterations: int
    peak_memory_bytes: int
    potential_residual: float = math.nan  # ‖b − A φ‖/‖b‖ of the last solve, computed afresh
    potential_error: float = 0.0  # worst relative error of a repeated solve in energy norm, as estimated
    floating_current: float = 0.0  # worst net current of what should float, over the driven current
    heat_evaluations: int = 0  # of the heat equation, on the whole grid or in a window

    @property
    def cell_updates_per_second(self) -> float:
        return self.cell_updates / self.solver_seconds if self.solver_seconds > 0 else 0.0


@dataclass(frozen=True)
class VesselResult:
    """What one group of open vessels took away.

    `model`; `flow` [m³/s] through all its roots, None where it plays no part; `film_coefficient`
    (least, mean, largest) [W/(m² K)], None for a wall at blood temperature; `inlet_temperature` [°C];
    `wall_heat` [J] from tissue. `stream`: more, where blood warms along its way.
    """

    group: str
    model: str
    flow: float | None
    film_coefficient: tuple[float, float, float] | None
    inlet_temperature: float
    wall_heat: float
    stream: StreamResult | None = None


@dataclass(frozen=True)
class StreamResult:
    """Blood of one group that warmed along its way.

    `joule_heat` [J] produced in it; `enthalpy_gain` [J]: outlet minus inlet enthalpy over the run;
    `relative_error` of the balance |gain − wall heat − Joule heat| / the largest of them;
    `outlet_temperature` [°C] over `time` [s]. Per segment (m,): ends `start`, `end` (m, 3) [m, LPS], towards
    the root first, `radius` [m], `flow` [m³/s], blood's `temperature` at the end and the `highest` one [°C].
    """

    joule_heat: float
    enthalpy_gain: float
    relative_error: float
    time: NDArray[np.float64]
    outlet_temperature: NDArray[np.float64]
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    radius: NDArray[np.float64]
    flow: NDArray[np.float64]
    temperature: NDArray[np.float64]
    highest_temperature: NDArray[np.float64]


def vessel_results(vessels: OpenVessels, heat: dict[str, float]) -> tuple[VesselResult, ...]:
    """What each group of open vessels took away; `heat` [J] into each kind of wall by its name."""
    streams = {stream.name: stream for stream in vessels.streams}
    return tuple(
        VesselResult(
            one.group,
            one.model,
            one.flow,
            one.film,
            one.blood_temperature,
            heat.get(f"vessel:{one.group}", 0.0),
            _stream_result(streams[f"vessel:{one.group}"]) if f"vessel:{one.group}" in streams else None,
        )
        for one in vessels.groups
    )


def _stream_result(stream: BloodStream) -> StreamResult:
    tree = stream.network.tree
    received = stream.wall_heat + stream.joule_heat
    scale = max(abs(stream.wall_heat), abs(stream.joule_heat), abs(stream.carried), 1e-9)
    return StreamResult(
        stream.joule_heat,
        stream.carried,
        abs(stream.carried - received) / scale,
        np.asarray(stream.times),
        np.asarray(stream.outlet_temperatures),
        tree.starts,
        tree.ends,
        tree.radii,
        stream.network.flow,
        stream.mean,
        stream.highest,
    )


@dataclass(frozen=True)
class SimulationResult:
    """Fields on the grid (float32, host memory), traces, audit and provenance of one run.

    `temperature`, `highest_temperature` [°C]; `damage_integral` Ω [-]; `thermal_dose` CEM43 [min];
    `dead_fraction` of the three-state model [-]; `volumetric_heat_source` at the last moment of
    power [W/m³]; `electric_potential` at that moment [V]. `solid_mask`: metal and shafts.
    `initial_impedance`, `final_impedance` [Ω]: first and last reading of whatever was driven;
    `unit_impedances` keeps units and segments apart. `units`: columns of the traces per unit, `sensors`
    those per sensor. `segment_times`: start and end of each segment that began [s], `places`: the electrodes
    that stood in the tissue in it, where they stood; `electrodes`: each at the last place it had.
    `admittance_matrix` (n, n) [S] of the terminals of the first segment (groups of electrodes driven
    together) against the ground at the start (the initial temperature everywhere).
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
    vessels: tuple[VesselResult, ...] = ()
    units: tuple[str, ...] = ()
    sensors: tuple[Sensor, ...] = ()
    events: tuple[TreatmentEvent, ...] = ()
    unit_impedances: tuple[UnitImpedance, ...] = ()
    segment_times: tuple[tuple[float, float], ...] = ()
    places: tuple[tuple[Electrode, ...], ...] = ()
