"""A manufactured solution of the whole coupled problem, solved by the real Simulation and its kernels.

A cube of tissue between two plate electrodes, grounded at x = 0 and driven at x = L at constant power. Chosen
(Roache 2002, J Fluids Eng 124:4, doi:10.1115/1.1436090) are, with s = Π sin(π x_i/L),

    T(x, t) = T_b + a(t) s,                                 φ(x) = x/L + ε sin(π x/L) cos(π y/L) cos(π z/L),

with φ for unit voltage; all sources that make them a solution follow from the equations:

    current  −∇·(σ(T) ∇φ),
    heat     ρc ∂u(T)/∂t − ∇·(k(T) ∇T) − W e^(−(Ω − Ω₀)) (T_a − T) − P σ|∇φ|² / ∫σ|∇φ|²,
    ∂Ω/∂t = A e^(−E/RT).

They enter by two hooks, as a source of the potential's equation and as one more heat source; everything else
is the program itself: σ(T), k(T), latent heat over 10 K, perfusion that stops as tissue dies, the solver of
the potential at every step, its heat on the links scaled to the generator's power, RKL2, and damage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from solver_cases import LIVER, needle, plain_anatomy, small_problem

from thermosim.anatomy.grid import Grid
from thermosim.backends.base import Array, Backend
from thermosim.config import DamageConfig, GeneratorConfig, SegmentConfig, SolverConfig
from thermosim.numerics.link_factors import LinkFactors
from thermosim.simulation import Problem, Simulation
from thermosim.tissue import laws

Field = NDArray[np.float64]

LENGTH = 24e-3  # [m]
SECONDS = 48.0
POWER = 30.0  # [W]
BORDER = 42.0  # T_b [°C]
BENT = 0.15  # ε
BOILING, WIDTH, LATENT = 82.0, 10.0, 40.0  # latent heat over 82 to 92 °C, wide enough to be resolved in time
TISSUE = replace(
    LIVER, thermal_conductivity_slope=0.003, electrical_conductivity_slope=0.02, metabolic_heat=0.0
)
TIGHT = 5e-7
"""Residual of the potential; float32 holds no less."""


def amplitude(time: float | Field) -> Any:
    """a(t) [K]: from 15 to 48 K, through the boiling range in the middle of the box."""
    return 15.0 + 38.0 * np.sin(0.5 * np.pi * np.asarray(time) / 60.0)


def amplitude_rate(time: float) -> float:
    """da/dt [K/s]."""
    return float(38.0 * 0.5 * np.pi / 60.0 * np.cos(0.5 * np.pi * time / 60.0))


@dataclass(frozen=True)
class Waves:
    """The shapes in space at given points: s, |∇s|², φ, ∇φ, ∇s·∇φ and ∇²φ."""

    s: Field
    slope_squared: Field
    phi: Field
    phi_slope_squared: Field
    slopes: Field
    phi_laplacian: Field

    @classmethod
    def at(cls, x: Field, y: Field, z: Field) -> Waves:
        wave = np.pi / LENGTH
        (sx, sy, sz), (cx, cy, cz) = (tuple(f(wave * v) for v in (x, y, z)) for f in (np.sin, np.cos))
        grad_s = [wave * g for g in (cx * sy * sz, sx * cy * sz, sx * sy * cz)]
        grad_phi = [
            1.0 / LENGTH + BENT * wave * cx * cy * cz,
            -BENT * wave * sx * sy * cz,
            -BENT * wave * sx * cy * sz,
        ]
        return cls(
            sx * sy * sz,
            np.asarray(sum(g**2 for g in grad_s)),
            x / LENGTH + BENT * sx * cy * cz,
            np.asarray(sum(g**2 for g in grad_phi)),
            np.asarray(sum(a * b for a, b in zip(grad_s, grad_phi, strict=True))),
            -3.0 * wave**2 * BENT * sx * cy * cz,
        )


class Solution:
    """The exact solution and its sources in the cells of a grid of n³; time goes forward only."""

    def __init__(self, n: int) -> None:
        centers = (np.arange(n) + 0.5) * LENGTH / n
        self.waves = Waves.at(*np.meshgrid(centers, centers, centers, indexing="ij"))
        # ∫σ|∇φ|² by Gauss's rule: exact to round-off for these waves
        points, weights = np.polynomial.legendre.leggauss(16)
        nodes = 0.5 * LENGTH * (points + 1.0)
        self._nodes = Waves.at(*np.meshgrid(nodes, nodes, nodes, indexing="ij"))
        wx, wy, wz = np.meshgrid(weights, weights, weights, indexing="ij")
        self._weights = (0.5 * LENGTH) ** 3 * wx * wy * wz
        self._omega = np.zeros_like(self.waves.s)
        self._time = 0.0

    def temperature(self, time: float) -> Field:
        """T [°C]."""
        return np.asarray(BORDER + amplitude(time) * self.waves.s)

    def enthalpy(self, time: float) -> Field:
        """u [°C]."""
        return laws.enthalpy_from_temperature(self.temperature(time), BOILING, WIDTH, LATENT)

    def sigma(self, time: float, waves: Waves) -> Field:
        temperature = BORDER + amplitude(time) * waves.s
        ratio = 1.0 + TISSUE.electrical_conductivity_slope * (temperature - 37.0)
        return np.asarray(TISSUE.electrical_conductivity * ratio)

    def current_source(self, time: float) -> Field:
        """−∇·(σ∇φ) [A/m³ per V]."""
        growth = TISSUE.electrical_conductivity * TISSUE.electrical_conductivity_slope * amplitude(time)
        waves = self.waves
        return -(self.sigma(time, waves) * waves.phi_laplacian + growth * waves.slopes)

    def joule_heat(self, time: float) -> Field:
        """q [W/m³], scaled to the generator's power."""
        inside = self.sigma(time, self._nodes) * self._nodes.phi_slope_squared
        whole = float(np.sum(self._weights * inside))
        return np.asarray(POWER / whole * self.sigma(time, self.waves) * self.waves.phi_slope_squared)

    def omega(self, time: float) -> Field:
        """Ω, by Gauss's rule between the moments it is asked for."""
        config = DamageConfig()
        n_pieces = max(1, int(np.ceil((time - self._time) / 0.5)))  # the rate grows e-fold in 4 s or more
        edges = np.linspace(self._time, time, n_pieces + 1)
        points, weights = np.polynomial.legendre.leggauss(5)
        for start, end in pairwise(edges):
            for point, weight in zip(points, weights, strict=True):
                moment = start + 0.5 * (end - start) * (1.0 + point)
                rate = laws.arrhenius_rate(
                    self.temperature(moment), config.frequency_factor, config.activation_energy
                )
                self._omega += 0.5 * (end - start) * weight * rate
        self._time = time
        return self._omega

    def perfused(self, time: float) -> Field:
        """Share of the perfusion that is left, e^(−(Ω − Ω₀)), Ω₀ at the initial temperature."""
        config = DamageConfig()
        baseline = time * laws.arrhenius_rate(BORDER, config.frequency_factor, config.activation_energy)
        return np.asarray(np.exp(-np.maximum(self.omega(time) - baseline, 0.0)))

    def heat_source(self, start: float, step: float, conductance: float, capacity: float) -> Field:
        """What must be added over one step [W/m³]: ρc Δu/Δt exactly, all else at the middle of the step."""
        middle, waves = start + 0.5 * step, self.waves
        stored = capacity * (self.enthalpy(start + step) - self.enthalpy(start)) / step
        temperature, a = self.temperature(middle), amplitude(middle)
        k, slope = TISSUE.thermal_conductivity, TISSUE.thermal_conductivity_slope
        laplacian = -3.0 * (np.pi / LENGTH) ** 2 * a * waves.s
        ratio = 1.0 + slope * (temperature - 37.0)
        conducted = k * (ratio * laplacian + slope * a**2 * waves.slope_squared)
        blood = conductance * self.perfused(middle) * (37.0 - temperature)
        return np.asarray(stored - conducted - blood - self.joule_heat(middle))


class _WithSource:
    """A backend that adds a field to the heat source of each step."""

    def __init__(self, backend: Backend, extra: Array) -> None:
        self._backend, self.extra = backend, extra

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def on_cells(self, name: str, layout: Any, *arguments: Any) -> None:
        self._backend.on_cells(name, layout, *arguments)
        if name == "heat_source":
            arguments[-1][:] += self.extra


def problem(n: int, time_step: float, seconds: float = SECONDS) -> Problem:
    """The cube with steps of one length and a potential that is solved at each."""
    case = small_problem(
        anatomy=plain_anatomy((n, n, n), LENGTH / n),
        electrodes=(needle(),),  # a name and a place only: its links are those of a plate
        generator=GeneratorConfig(mode="constant_power", power=POWER),
        segments=[SegmentConfig(duration_min=seconds / 60.0)],
        ground="-x",
        liver=TISSUE,
        solver=SolverConfig(
            active_box=False,  # the order is that of the equations
            maximum_time_step=time_step,
            maximum_temperature_rise=1e6,
            resolve_tolerance=0.0,
            potential_tolerance=TIGHT,
            maximum_iterations=100,
            report_interval=seconds,
        ),
    )
    liver = case.tissue.tissues["liver"]
    tissue = replace(
        case.tissue,
        initial_temperature=BORDER,
        vaporization_temperature=BOILING,
        vaporization_width=WIDTH,
        latent_heat_of_water=LATENT * liver.specific_heat_capacity / liver.water_fraction,
        conductivity_collapse_temperature=200.0,  # never reached
    )
    return replace(case, tissue=tissue)


@contextmanager
def plates() -> Iterator[None]:
    """Electrodes are plates: the whole face x = L, half a cell from the centres beside it."""

    def links(grid: Grid, _needles: Sequence[Any]) -> LinkFactors:
        cells = np.arange(grid.n_cells).reshape(grid.shape)[-1].ravel()
        n, none = len(cells), np.empty(0, np.int64)
        h = float(grid.spacing[0])
        return LinkFactors(
            none,
            none,
            np.empty(0, np.int8),
            np.empty(0),
            cells,
            np.zeros(n, np.int32),
            np.full(n, 2.0),
            np.full(n, h**2),
        )

    with mock.patch("thermosim.treatment.fit_electrode_links", links):
        yield


def prepared(n: int, time_step: float, backend: Backend, seconds: float = SECONDS) -> Simulation:
    """The simulation with both hooks in place, at the exact state of t = 0."""
    simulation = Simulation(problem(n, time_step, seconds), backend)
    treatment, solution = simulation.treatment, Solution(n)
    layout, bioheat = treatment.layout, treatment.bioheat
    law = treatment.thermal_law
    inside = layout.interior
    inside(treatment.enthalpy)[:] = backend.asarray(solution.enthalpy(0.0) - treatment.reference, "float32")

    hook = _WithSource(backend, backend.field(layout))
    bioheat.backend = hook  # type: ignore[assignment]
    advance = bioheat.advance

    def advance_with_source(*arguments: Any, **options: Any) -> Any:
        source = solution.heat_source(
            simulation.clock.time, arguments[4], float(law.perfusion[0]), float(law.capacity[0])
        )
        inside(hook.extra)[:] = backend.asarray(source, "float32")
        return advance(*arguments, **options)

    bioheat.advance = advance_with_source  # type: ignore[method-assign]
    place = treatment.place

    def place_with_source(electrodes: Any) -> None:
        place(electrodes)
        assert treatment.potential is not None
        solver = treatment.potential.solver
        solve, added = solver.solve, backend.field(layout)

        def solve_with_source(field: Array, add_inflow: Any, *arguments: Any, **options: Any) -> Any:
            source = (LENGTH / n) ** 2 * solution.current_source(simulation.solved_for)
            inside(added)[:] = backend.asarray(source, "float32")

            def add_both(residual: Array) -> None:
                add_inflow(residual)
                residual[:] += added

            return solve(field, add_both, *arguments, **options)

        solver.solve = solve_with_source  # type: ignore[method-assign]

    treatment.place = place_with_source  # type: ignore[method-assign]
    return simulation


@dataclass(frozen=True)
class Found:
    """One run's end: fields and their errors against the exact solution (root mean squares)."""

    n: int
    time_step: float
    temperature: Field
    perfused: Field
    potential: Field
    temperature_error: float  # [K]
    perfused_error: float  # of the share of perfusion
    potential_error: float  # of the drive's voltage


def run(n: int, time_step: float, backend: Backend, seconds: float = SECONDS) -> Found:
    """Solve to the end and compare."""
    with plates():
        simulation = prepared(n, time_step, backend, seconds)
        result = simulation.run()
    exact = Solution(n)
    config = DamageConfig()
    baseline = seconds * laws.arrhenius_rate(BORDER, config.frequency_factor, config.activation_energy)
    temperature = result.temperature.astype(float)
    perfused = np.exp(-np.maximum(result.damage_integral.astype(float) - baseline, 0.0))
    potential = result.electric_potential.astype(float) / float(simulation.last_voltages[0])

    def rms(values: Field) -> float:
        return float(np.sqrt(np.mean(values**2)))

    return Found(
        n,
        time_step,
        temperature,
        perfused,
        potential,
        rms(temperature - exact.temperature(seconds)),
        rms(perfused - exact.perfused(seconds)),
        rms(potential - exact.waves.phi),
    )
