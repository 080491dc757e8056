"""The solvers against exact solutions: sphere electrodes, Pennes' equation, dose, latent heat."""

from __future__ import annotations

import math

import numpy as np
import pytest
from heat_box import HeatBox
from numpy.typing import NDArray
from reference import analytic
from reference.damage import integrate
from solver_cases import needle, reference_problem, small_problem
from verification.closed_forms import (
    CAPACITY,
    SIGMA,
    CooledNeedle,
    K,
    at_one_volt,
    distance_from,
    exposed,
    heat_of,
    point_source,
    shells,
    sphere_in_a_large_body,
    spot_in_a_box,
    two_slabs,
)

from thermosim.backends import select
from thermosim.config import DamageConfig, GeneratorConfig, SegmentConfig
from thermosim.simulation import Simulation
from thermosim.tissue import laws

Field = NDArray[np.float64]
BACKEND = select("cpu", 1)

# ---------------------------------------------------------------------------- sphere electrode


@pytest.mark.parametrize("spacing", [1e-3, 2e-3])
@pytest.mark.parametrize("center", [(0.0, 0.0, 0.0), (0.3e-3, -0.4e-3, 0.17e-3)])
@pytest.mark.parametrize("radius", [1.5e-3, 4e-3])
def test_sphere_in_infinite_tissue(radius: float, center: tuple[float, float, float], spacing: float) -> None:
    treatment, phi, resistance = at_one_volt(sphere_in_a_large_body(center, radius, spacing), BACKEND)
    # links and the far-field ground are fitted to this very field. Seen: 0.02 %
    assert resistance == pytest.approx(analytic.sphere_resistance(radius, SIGMA), rel=5e-4)
    r = distance_from(treatment, center)
    tissue = ~treatment.solid_mask
    exact = analytic.sphere_potential(r, radius, 1.0)
    # of the electrode's 1 V. Seen: 0.0009, right up to the metal
    assert np.abs(phi - exact)[tissue].max() < 2e-3


@pytest.mark.parametrize("spacing", [1e-3, 2e-3])
def test_sphere_in_a_sphere(spacing: float) -> None:
    treatment, phi, resistance = at_one_volt(reference_problem("S1", spacing), BACKEND)
    # the outer surface is known to half a cell only: 1 mm of 60 are 0.06 % of R. Seen: 0.006 %
    assert resistance == pytest.approx(analytic.sphere_resistance(2e-3, SIGMA, 60e-3), rel=5e-4)
    r = distance_from(treatment, (0.0, 0.0, 0.0))
    inside = ~treatment.solid_mask & (r < 50e-3)
    exact = analytic.sphere_potential(r, 2e-3, 1.0, 60e-3)
    assert np.abs(phi - exact)[inside].max() < 2e-3


def test_heat_around_a_sphere() -> None:
    radius, volts = 3e-3, 20.0
    problem = sphere_in_a_large_body((0.0, 0.0, 0.0), radius, 1e-3)
    treatment, _, resistance = at_one_volt(problem, BACKEND)
    total, q = heat_of(treatment, volts)
    assert total == pytest.approx(volts**2 / resistance, rel=1e-5)  # Σ q h³ = V²/R, in float32
    r = distance_from(treatment, (0.0, 0.0, 0.0))
    exact = analytic.sphere_heating(r, radius, volts, SIGMA)
    for inner in (5e-3, 7e-3, 10e-3):
        shell = (r > inner) & (r < inner + 2e-3)
        # the links' heat is a mean over a cell of 1/r⁴: 1 + 10/6 (h/r)² at most, 6 % at 5 mm
        assert q[shell].sum() == pytest.approx(exact[shell].sum(), rel=1.7 * (1e-3 / inner) ** 2 + 5e-3)


# ---------------------------------------------------------------------------- circuits


def test_admittance_is_symmetric_and_floating_needles_carry_no_net_current() -> None:
    needles = tuple(
        needle(name, place, active_length=length)
        for name, place, length in (
            ("a", (-0.009, 0.001, -0.010), 0.020),
            ("b", (0.008, -0.003, -0.012), 0.015),
            ("c", (0.001, 0.010, -0.004), 0.018),
        )
    )
    problem = small_problem(
        electrodes=needles,
        segments=[SegmentConfig(duration_min=0.3, drive="sequence")],
        generator=GeneratorConfig(voltage=20.0),
    )
    simulation = Simulation(problem, BACKEND)
    seen: list[tuple[Field, Field]] = []
    warm: list[Field] = []

    def look(_progress: object) -> None:
        assert simulation.drive is not None
        warm.append(np.array(simulation.treatment.temperature))
        seen.append((simulation.drive.electrode_currents, simulation.drive.electrode_voltages))

    result = simulation.run([look])
    matrix = result.admittance_matrix
    assert matrix.shape == (3, 3)
    # reciprocity holds without being put in: the raw currents, a residual of 1e-6 each
    treatment = Simulation(problem, BACKEND).treatment
    treatment.place(problem.electrodes)
    potential = treatment.potential
    assert potential is not None
    potential.set_terminals(((0,), (1,), (2,)))
    for temperature in (treatment.temperature, warm[-1]):
        potential.update_conductances(temperature)
        potential.solve(1e-6, 30)
        single = potential.admittances()[1]
        assert np.abs(single - single.T).max() < 1e-5 * np.abs(single).max()
    assert np.all(np.diag(matrix) > 0.0)
    assert np.all(matrix[~np.eye(3, dtype=bool)] < 0.0)
    assert np.all(np.linalg.eigvalsh(matrix) > 0.0)
    assert np.all(matrix.sum(axis=1) > 0.0)  # the ground takes what is left
    drivers = set()
    for currents, voltages in seen:
        active = int(np.argmax(currents))
        drivers.add(active)
        others = np.delete(np.arange(3), active)
        assert np.abs(currents[others]).max() < 1e-4 * currents[active]
        # a floating needle takes a potential between the driven one and the ground
        assert np.all((voltages[others] > 0.0) & (voltages[others] < voltages[active]))
    assert drivers == {0, 1, 2}


# ---------------------------------------------------------------------------- Pennes' equation


def test_steady_point_source_with_perfusion() -> None:
    # screening length L = 3.6 mm: the faces, 25.5 mm away, see e⁻⁷
    h, power, W = 1e-3, 0.1, 40e3
    box, r = point_source(BACKEND, 51, h, power, W)
    box.advance(10.0, 115)  # 12 time constants ρc/W of 95 s
    exact = analytic.point_source_rise(np.maximum(r, h), power, K, W)
    near = (r > 4.5 * h) & (r < 8 * h)
    # along the axes the discrete 1/r is off by (h/r)²/4, and more where the field is screened: 3.4 %
    # at 5 cells, 0.8 % with cells of half the size
    assert np.abs(box.rise[near] / exact[near] - 1.0).max() < 0.04
    # averaged over all directions only 1/L is off, by (h/L)²/24 in r/L: 0.6 % at most
    for shell in shells(r, h):
        assert box.rise[shell].sum() == pytest.approx(exact[shell].sum(), rel=7e-3)
    # the blood carries it away but for what reaches the faces, (1 + 7) e⁻⁷ = 0.7 % at most
    assert power * 0.993 < W * box.rise.sum() * h**3 < power


def test_point_source_switched_on() -> None:
    h, power, W = 1e-3, 0.1, 20e3
    box, r = point_source(BACKEND, 51, h, power, W)
    for time in (60.0, 120.0):
        box.advance(2.0, 30)
        exact = analytic.continuous_point_source_rise(np.maximum(r, h), time, power, K, CAPACITY, W)
        near = (r > 4.5 * h) & (r < 8 * h)
        # as in the steady case, with a front that is sharper than the steady profile
        assert np.abs(box.rise - exact)[near].max() < 0.045 * exact[near].max()
        for shell in shells(r, h):
            assert box.rise[shell].sum() == pytest.approx(exact[shell].sum(), rel=0.014)


@pytest.mark.parametrize("modes", [(1, 1, 1), (2, 1, 3)])
@pytest.mark.parametrize("perfusion", [0.0, 3e4])
def test_a_sine_decays_between_cold_faces(modes: tuple[int, int, int], perfusion: float) -> None:
    shape, h = (24, 20, 32), 1.5e-3
    lengths = tuple(n * h for n in shape)
    box = HeatBox(BACKEND, shape, h, perfusion=perfusion)
    points = box.points()
    box.set_rise(40.0 * analytic.sine_decay(tuple(points), 0.0, modes, lengths, K, CAPACITY, perfusion))
    rate = analytic.decay_rate(modes, lengths, K, CAPACITY, perfusion)
    time = 0.7 / rate
    box.advance(time / 40, 40)
    exact = 40.0 * analytic.sine_decay(tuple(points), time, modes, lengths, K, CAPACITY, perfusion)
    # a discrete sine is an exact mode whose rate is low by (n π h/L)²/12 along each axis: at most 1.1 %
    # of λ t = 0.7 along z (n = 3), and mostly less
    assert np.abs(box.rise - exact).max() < 0.006 * exact.max()


@pytest.mark.parametrize("perfusion", [0.0, 3e4])
def test_a_gaussian_blob_spreads(perfusion: float) -> None:
    n, h, width = 50, 2e-3, 8e-3
    box = HeatBox(BACKEND, (n, n, n), h, perfusion=perfusion)
    x, y, z = box.points((0.5 * n * h,) * 3)
    r = np.sqrt(x**2 + y**2 + z**2)
    box.set_rise(analytic.gaussian_blob_rise(r, 0.0, 50.0, width, K, CAPACITY))
    box.advance(5.0, 40)
    exact = analytic.gaussian_blob_rise(r, 200.0, 50.0, width, K, CAPACITY, perfusion)
    # h²/12 ∇⁴ over the time: (α t/s²)(h/s)² of the peak, 2.7 % · a quarter
    assert np.abs(box.rise - exact).max() < 0.005 * 50.0
    # heat only leaves with the blood, and a little through the faces, 5 widths away
    spread = math.exp(-perfusion / CAPACITY * 200.0)
    whole = 50.0 * (2.0 * math.pi) ** 1.5 * width**3
    assert box.rise.sum() * h**3 == pytest.approx(whole * spread, rel=5e-4)


def test_two_materials_in_series_reach_the_exact_slab() -> None:
    middle, exact = two_slabs(BACKEND)
    # the faces across, 32 mm away, take e^(−π·32/8) = 4e-6 of it; float32 does the rest
    assert middle == pytest.approx(exact, rel=1e-4)


def test_heat_left_in_one_cell() -> None:
    spot = spot_in_a_box(BACKEND)
    # of the peak h²/(4 α t): 3/4 by the stencil's h²/12 ∂⁴, 1/4 because the program's source is a point in
    # the middle of its cell; next orders and the faces do the rest. Seen: 1.2, 1.05 and 1.3 of it
    for time, found, exact in zip(spot.times, spot.found, spot.exact, strict=True):
        limit = 1.4 * spot.spacing**2 / (4.0 * K / CAPACITY * time)
        assert np.abs(found - exact).max() < limit * exact.max()
        # what is left between the cold faces: the kernels' sums are those of the sines, almost exact
        assert found.sum() == pytest.approx(exact.sum(), rel=0.008)


@pytest.mark.parametrize("spacing", [2e-3, 1e-3])
def test_cooled_needle_with_perfusion(spacing: float) -> None:
    case = CooledNeedle()
    result = case.run(15.0, spacing, BACKEND)
    length = result.temperature.shape[2] * spacing
    # the earthed cylinder is a staircase: a part of a cell at 24 mm. Seen: 0.2 % and 0.07 %
    exact_resistance = analytic.coaxial_resistance(case.radius, case.outer, length, SIGMA)
    assert result.initial_impedance == pytest.approx(exact_resistance, rel=4e-3)
    distance, temperature = case.profile(result)
    # a rise of 28 K, right up to the metal. Seen: 0.39 and 0.18 K; 14 and 7 K were the heat that arises at
    # the wall left in the tissue
    error = np.abs(temperature - case.exact(distance, 15.0))
    assert error.max() < 0.3 * (spacing / 1e-3) ** 1.5
    # hottest some 3 mm from the metal, as published; the profile is flat there and cells are coarse
    hottest = distance[np.argmax(temperature)] - case.radius
    assert 2e-3 < hottest < 3.5e-3


def test_the_coolants_temperature_matters_little() -> None:
    case, spacing = CooledNeedle(), 2e-3
    profiles = {coolant: case.profile(case.run(coolant, spacing, BACKEND)) for coolant in (5.0, 25.0)}
    distance, cold = profiles[5.0]
    _, warm = profiles[25.0]
    away = distance > 8e-3
    difference = (warm - cold)[away]
    exact = (case.exact(distance, 25.0) - case.exact(distance, 5.0))[away]
    # 20 K in the coolant are 1.6 K at 8 mm; linear in the coolant, so only links err. Seen: 0.036
    assert difference == pytest.approx(exact, abs=0.06)
    assert difference.max() < 2.0


# ---------------------------------------------------------------------------- latent heat


def test_the_energy_to_boil_a_closed_cell() -> None:
    # cells that exchange nothing: u grows linearly, T waits at the boiling range
    latent, boiling, width = 445.0, 99.0, 1.0
    shape = (3, 4, 5)
    box = HeatBox(BACKEND, shape, 1e-3, conductivity=0.0, latent=latent)
    heat = np.linspace(5e6, 4e7, 60).reshape(shape)
    box.set_heat(heat)
    speed = heat / CAPACITY  # [K/s]
    for time in np.arange(1, 81) * 1.0:
        box.advance(1.0, explicit_limit=2.0, boils=True)
        exact = laws.temperature_from_enthalpy(37.0 + speed * time, boiling, width, latent)
        # u reaches 880 K, where float32 resolves 6e-5 K: half of it is lost in each of 80 steps at worst
        assert np.abs(37.0 + box.rise - exact).max() < 2.5e-3
    assert box.rise.max() > boiling + width - 37.0  # vapour in some cells,
    assert (np.abs(37.0 + box.rise - boiling - 0.5 * width) < 0.5 * width).sum() > 5  # boiling in others
    # heat from 37 °C to dry vapour at 100 °C: ρc (63 K + ℓ), to the last joule
    dry = float(np.interp(boiling + width, [boiling, boiling + width], [boiling, boiling + width + latent]))
    assert laws.enthalpy_from_temperature(100.0, boiling, width, latent) == dry
    stored = box.bioheat.stored_heat(box.enthalpy)
    assert stored == pytest.approx(heat.sum() * 80.0 * 1e-9, rel=1e-5)


# ---------------------------------------------------------------------------- dose


@pytest.mark.parametrize("temperature", [37.0, 41.0, 43.0, 45.5, 50.0, 60.0, 75.0, 95.0])
def test_constant_temperature(temperature: float) -> None:
    config, step, n_steps = DamageConfig(), 0.5, 240
    seen = exposed(BACKEND, np.full(n_steps + 1, temperature), step, config)
    seconds = step * n_steps
    # a constant rate is integrated exactly; float32 leaves exponents of up to 92 (Arrhenius) and 36
    # (dose) rounded to 1e-7, and 240 additions
    arrhenius = float(laws.arrhenius_rate(temperature, config.frequency_factor, config.activation_energy))
    assert seen["integral"] == pytest.approx(arrhenius * seconds, rel=5e-5)
    assert seen["dose"] == pytest.approx(analytic.cem43_constant(temperature, seconds), rel=3e-5)
    wanted = integrate(lambda _t: temperature, seconds, config)
    # three states by Heun's method in steps of 0.5 s: second order, 2e-4 at the fastest
    assert seen["alive"] == pytest.approx(wanted["alive"], abs=2e-4)
    assert seen["dead"] == pytest.approx(wanted["dead_fraction"], abs=2e-4)
    assert seen["highest_temperature"] == pytest.approx(temperature, abs=1e-5)


def test_heat_on_top_of_metabolism_reaches_balance() -> None:
    # uniform tissue far from its faces: W (T − T_a) = q_m
    box = HeatBox(BACKEND, (44, 44, 44), 2e-3, perfusion=5e4, metabolic=1e5)
    box.advance(5.0, 200)
    assert box.rise[22, 22, 22] == pytest.approx(2.0, rel=1e-4)  # the faces are 13 screening lengths away
