"""Problems with a closed form, solved by the program: used by the fast tests and by the document.

Each function returns what the program finds, or the program's and the exact values side by side; how close
they must be is said where they are compared.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from heat_box import HeatBox
from numpy.typing import NDArray
from reference import analytic
from solver_cases import BLOOD, REFERENCE_TISSUE, plain_anatomy, small_problem

from thermosim.applicators.electrode import Electrode
from thermosim.backends.base import Backend, Layout
from thermosim.config import (
    DamageConfig,
    GeneratorConfig,
    ProtocolConfig,
    SegmentConfig,
    SolverConfig,
    TissueConfig,
    VesselsConfig,
)
from thermosim.physics.bioheat import ThermalLaw
from thermosim.physics.damage import DamageModels, DamageState
from thermosim.simulation import Problem, Simulation, SimulationResult, run
from thermosim.treatment import Treatment

Field = NDArray[np.float64]

K, CAPACITY = 0.52, 3.8e6
"""Thermal conductivity [W/(m K)] and heat capacity [J/(m³ K)] of the boxes of tissue."""

SIGMA = 0.2
"""Electrical conductivity at 37 °C of the electrodes' surroundings [S/m]."""

# ---------------------------------------------------------------------------- sphere electrode


def at_one_volt(problem: Problem, backend: Backend) -> tuple[Treatment, Field, float]:
    """The cold treatment, φ [V] with all electrodes at 1 V, and the resistance [Ω]."""
    treatment = Simulation(problem, backend).treatment
    treatment.place(problem.electrodes)
    potential = treatment.potential
    assert potential is not None
    potential.set_terminals((tuple(range(len(problem.electrodes))),))
    potential.update_conductances(treatment.temperature)
    potential.solve(1e-6, 30)
    matrix, _ = potential.admittances()
    return treatment, treatment.host(potential.fields[0]).astype(float), 1.0 / matrix[0, 0]


def distance_from(treatment: Treatment, center: tuple[float, float, float]) -> Field:
    """Distance of each cell's centre from a point [m]."""
    grid = treatment.grid
    x, y, z = np.meshgrid(*(grid.axis(a) - c for a, c in enumerate(center)), indexing="ij", sparse=True)
    return np.asarray(np.sqrt(x**2 + y**2 + z**2))


def sphere_in_a_large_body(center: tuple[float, float, float], radius: float, spacing: float) -> Problem:
    """A sphere electrode in a box of 40 mm whose faces mimic a large body."""
    n = round(40e-3 / spacing)
    above = (center[0], center[1], center[2] + 0.1)
    return small_problem(
        anatomy=plain_anatomy((n, n, n), spacing),
        electrodes=(Electrode("sphere", center, above, radius, radius, kind="sphere"),),
        ground="far_field",
    )


def heat_of(treatment: Treatment, volts: float) -> tuple[float, Field]:
    """Electrical power [W] at `volts` and the heat q [W/m³] it leaves in the cells."""
    potential, backend, layout = treatment.potential, treatment.backend, treatment.layout
    assert potential is not None
    scratch, heat = backend.field(layout), backend.field(layout)
    total, _ = potential.joule_heating(np.array([volts]), scratch, heat)
    return total, treatment.host(heat).astype(float)


# ---------------------------------------------------------------------------- Pennes' equation


def point_source(backend: Backend, n: int, h: float, power: float, perfusion: float) -> tuple[HeatBox, Field]:
    """A box with a source in its middle cell, and the distance from there."""
    box = HeatBox(backend, (n, n, n), h, perfusion=perfusion)
    heat = np.zeros((n, n, n))
    heat[n // 2, n // 2, n // 2] = power / h**3
    box.set_heat(heat)
    x, y, z = box.points((0.5 * n * h,) * 3)
    return box, np.sqrt(x**2 + y**2 + z**2)


def shells(r: Field, h: float) -> list[NDArray[np.bool_]]:
    """Shells one cell thick, 4.5 to 7.5 cells from the source."""
    return [(r > n * h) & (r < (n + 1) * h) for n in (4.5, 5.5, 6.5)]


def two_slabs(backend: Backend) -> tuple[Field, Field]:
    """Rise [K] of eight layers of 1 mm, heated in the first, k falling by 4 in the middle: found and exact.

    A straight line on each side is exact for the harmonic mean of k. The faces across the slab are cold,
    so the box is wide and its middle is looked at.
    """
    shape, h = (8, 64, 64), 1e-3
    labels = np.zeros(shape, np.uint8)
    labels[4:] = 1
    box = HeatBox(backend, shape, h, conductivity=0.8, second_conductivity=0.2, labels=labels, capacity=1e5)
    heat = np.zeros(shape)
    heat[0] = 2e5  # a heated layer at the lower face
    box.set_heat(heat)
    box.advance(2.0, 150)
    middle = box.rise[:, 31:33, 31:33].mean(axis=(1, 2))
    # from the heated layer's centre (power q h per area, through half a cell to each side) in closed form
    up = 3.5 * h / 0.8 + 4 * h / 0.2  # from the centre of layer 0 to the upper face [m² K/W]
    down = 0.5 * h / 0.8
    first = 2e5 * h / (1.0 / up + 1.0 / down)
    steps = [0, *[h / 0.8] * 3, 0.5 * h / 0.8 + 0.5 * h / 0.2, *[h / 0.2] * 3]
    return middle, first * (1.0 - np.cumsum(steps) / up)


@dataclass(frozen=True)
class Spot:
    """Heat left in one cell of a box with cold faces: found and exact rise of all cells at some times."""

    times: tuple[float, ...]
    found: tuple[Field, ...]
    exact: tuple[Field, ...]
    source: tuple[int, int, int]
    spacing: float


def spot_in_a_box(backend: Backend, perfusion: float = 2e4) -> Spot:
    """Green's function of a box of 24 × 20 × 28 cells of 1.5 mm, source near an edge.

    The exact rise is the mean over the source's cell of the product of three heat kernels: one
    dimension's mean from the values at 4 Gauss points.
    """
    shape, h, source, energy = (24, 20, 28), 1.5e-3, (5, 12, 8), 30.0
    times = (40.0, 120.0, 360.0)
    box = HeatBox(backend, shape, h, perfusion=perfusion)
    start = np.zeros(shape)
    start[source] = energy / (CAPACITY * h**3)
    box.set_rise(start)
    found, exact, now = [], [], 0.0
    nodes, weights = np.polynomial.legendre.leggauss(4)
    for time in times:
        n_steps = round((time - now) / 2.0)
        box.advance(2.0, n_steps)
        now = time
        lines = []
        for n, place in zip(shape, source, strict=True):
            x = (np.arange(n) + 0.5) * h
            at = [(place + 0.5 + 0.5 * node) * h for node in nodes]
            kernels = [analytic.heat_kernel(x, s, time, n * h, K / CAPACITY) for s in at]
            lines.append(0.5 * np.tensordot(weights, kernels, axes=1))
        product = lines[0][:, None, None] * lines[1][None, :, None] * lines[2]
        exact.append(energy / CAPACITY * product * np.exp(-perfusion * time / CAPACITY))
        found.append(box.rise)
    return Spot(times, tuple(found), tuple(exact), source, h)


# ---------------------------------------------------------------------------- cooled needle


@dataclass(frozen=True)
class CooledNeedle:
    """A long cooled needle on the axis of an earthed cylinder: lengths [m], film [W/(m² K)], V, σ const."""

    radius: float = 0.75e-3
    outer: float = 24e-3
    length: float = 60e-3
    voltage: float = 40.0
    film: float = 1e5  # all but isothermal, as in the published solution
    axis: tuple[float, float] = (0.23e-3, -0.31e-3)

    @property
    def perfusion(self) -> float:
        """W [W/(m³ K)] of the reference tissue."""
        blood = BLOOD.density * BLOOD.specific_heat_capacity
        return REFERENCE_TISSUE.perfusion_rate * blood

    def exact(self, distance: Field, coolant: float) -> Field:
        """Steady temperature [°C] at `distance` from the axis."""
        heating = SIGMA * (self.voltage / np.log(self.outer / self.radius)) ** 2
        rise = analytic.cooled_needle_rise(
            distance, self.radius, self.outer, heating, 0.52, self.perfusion, self.film, coolant - 37.0
        )
        return np.asarray(37.0 + rise)

    def problem(self, coolant: float, spacing: float) -> Problem:
        """Current flows straight outwards: only the cylinder is earthed, metal crosses the whole box."""
        n, m = round(2.1 * self.outer / spacing), round(self.length / spacing)
        anatomy = plain_anatomy((n, n, m), spacing)
        x, y, _ = np.meshgrid(*(anatomy.grid.axis(a) for a in range(3)), indexing="ij", sparse=True)
        px, py = self.axis
        exterior = np.broadcast_to(np.hypot(x - px, y - py) > self.outer, (n, n, m))
        needle = Electrode(
            "needle",
            (px, py, -self.length),
            (px, py, 1.5 * self.length),
            self.radius,
            2.0 * self.length,
            coolant_temperature=coolant,
            coolant_heat_transfer=self.film,
        )
        liver = replace(REFERENCE_TISSUE, electrical_conductivity_slope=0.0)
        return Problem(
            anatomy,
            (needle,),
            TissueConfig(state="reference", tissues={"liver": liver, "blood": BLOOD}),
            VesselsConfig(),
            ProtocolConfig(
                generator=GeneratorConfig(voltage=self.voltage),
                # 1200 s are 7 times ρc/W: what is left of the start is 1e-3 K
                segments=[SegmentConfig(duration_min=20.0)],
                cooling_after_min=0.0,
                ground="-x,+x",
            ),
            DamageConfig(perfusion_shutdown="none"),
            SolverConfig(maximum_temperature_rise=20.0, maximum_time_step=15.0),
            exterior,
        )

    def run(self, coolant: float, spacing: float, backend: Backend) -> SimulationResult:
        """The steady state, to which any step leads."""
        return run(self.problem(coolant, spacing), backend)

    def profile(self, result: SimulationResult) -> tuple[Field, Field]:
        """Distance from the axis [m] and temperature [°C] of the tissue cells in the two middle layers."""
        grid = result.anatomy.grid
        x, y = np.meshgrid(grid.axis(0) - self.axis[0], grid.axis(1) - self.axis[1], indexing="ij")
        middle = result.temperature.shape[2] // 2
        temperature = result.temperature[:, :, middle - 1 : middle + 1].astype(float).mean(axis=2)
        tissue = ~result.solid_mask[:, :, middle]
        distance = np.hypot(x, y)[tissue]
        order = np.argsort(distance)
        return distance[order], temperature[tissue][order]


# ---------------------------------------------------------------------------- dose


def exposed(
    backend: Backend, temperatures: NDArray[np.float64], step: float, config: DamageConfig
) -> dict[str, float]:
    """What the models of death make of temperatures [°C] a step [s] apart, straight lines between them."""
    layout = Layout((2, 3, 4))
    one, none = np.ones(1, np.float32), np.zeros(1, np.float32)
    law = ThermalLaw(
        one, one, none, none, none, none, 37.0, 37.0, 99.0, 1.0, 37.0, "none", config.three_state_threshold
    )
    models = DamageModels(backend, layout, backend.field(layout, 0, "uint8"), config, law)
    state = DamageState.start(backend, layout, config, 37.0)
    rises = [backend.field(layout, float(t) - 37.0) for t in temperatures]
    for before, after in pairwise(rises):
        models.advance(state, before, after, step)
    names = ("integral", "dose", "alive", "dead", "highest_temperature")
    values = {name: np.unique(layout.interior(getattr(state, name))) for name in names}
    assert all(v.size == 1 for v in values.values())
    return {name: float(v[0]) for name, v in values.items()}
