"""The oracles against closed forms and each other, so that what tests lean on is itself tested."""

from __future__ import annotations

import math

import numpy as np
import pytest
from reference import analytic, damage, pennes, potential
from scipy.integrate import quad

from thermosim.config import DamageConfig
from thermosim.numerics.link_factors import LinkFactors
from thermosim.tissue import laws

LIVER_K, LIVER_C = 0.52, 1079.0 * 3540.0
ROUND_OFF = 1e-12


def one_wall(cells: list[int], factors: list[float], owners: list[int], solid: list[int]) -> LinkFactors:
    """Wall links by hand, no changed faces."""
    index = np.empty(0, np.int64)
    return LinkFactors(
        np.array(solid, np.int64),
        index,
        np.empty(0, np.int8),
        np.empty(0),
        np.array(cells, np.int64),
        np.array(owners, np.int32),
        np.array(factors),
        np.ones(len(cells)),
    )


def centers(n: int, length: float) -> np.ndarray:
    return (np.arange(n) + 0.5) * length / n


# ---------------------------------------------------------------------------- potential


def test_a_bar_between_electrodes_has_the_resistance_of_its_length() -> None:
    # 10 mm × 2 mm × 1 mm of 0.5 S/m: R = L/(σ A) = 10 kΩ, exact on any grid because φ is linear
    shape, h = (10, 2, 1), 1e-3
    cells = np.arange(20).reshape(shape)
    left, right = cells[0].ravel().tolist(), cells[-1].ravel()
    net = potential.network(
        np.full(shape, 0.5), h, one_wall(left, [2.0] * 2, [0] * 2, []), 1, (right, np.full(2, 2.0))
    )
    phi = potential.solve(net, np.array([8.0]))
    assert phi[:, 0, 0] == pytest.approx(8.0 * (1.0 - centers(10, 1.0)), rel=ROUND_OFF)
    assert 1.0 / potential.admittance_matrix(net)[0, 0] == pytest.approx(10e3, rel=ROUND_OFF)


def test_two_materials_in_series() -> None:
    shape, h = (4, 1, 1), 1e-3
    sigma = np.array([0.2, 0.2, 1.0, 1.0]).reshape(shape)
    net = potential.network(sigma, h, one_wall([0], [2.0], [0], []), 1, (np.array([3]), np.array([2.0])))
    # 2 mm/0.2 + 2 mm/1 over 1 mm²: 12 kΩ; the harmonic mean keeps the flux
    assert 1.0 / potential.admittance_matrix(net)[0, 0] == pytest.approx(12e3, rel=ROUND_OFF)


def test_power_balances_reciprocity_holds_and_cut_faces_carry_nothing() -> None:
    random = np.random.default_rng(1)
    shape, h = (7, 6, 5), 2e-3
    sigma = random.uniform(0.05, 0.8, shape)
    cells = np.arange(210).reshape(shape)
    links = LinkFactors(
        np.array([cells[3, 3, 2]]),
        np.array([cells[1, 1, 1], cells[4, 2, 3]]),
        np.array([0, 2], np.int8),
        np.array([0.0, 0.4]),
        np.array([cells[2, 3, 2], cells[4, 3, 2], cells[5, 4, 3]]),
        np.array([0, 0, 1], np.int32),
        np.array([1.7, 2.2, 0.9]),
        np.ones(3),
    )
    net = potential.network(sigma, h, links, 2, potential.face_ground(shape, ("-x", "+z")))
    volts = np.array([13.0, -4.0])
    phi = potential.solve(net, volts)
    amperes = potential.currents(net, phi, volts)
    q = potential.joule_heating(net, phi, volts)
    # direct solution of 210 unknowns: round-off of the factorisation
    assert q.sum() * h**3 == pytest.approx(float(volts @ amperes), rel=1e-11)
    admittance = potential.admittance_matrix(net)
    assert admittance == pytest.approx(admittance.T, rel=1e-11)
    assert amperes == pytest.approx(admittance @ volts, rel=1e-11)
    assert q[3, 3, 2] == 0.0
    assert phi[3, 3, 2] == 0.0
    pairs = {tuple(p): g for p, g in zip(net.pairs.tolist(), net.pair_conductances, strict=True)}
    assert pairs[(int(cells[1, 1, 1]), int(cells[2, 1, 1]))] == 0.0


def test_the_potential_converges_to_a_sine_in_second_order() -> None:
    # φ = sin(πx) sin(πy) sinh(√2 π z)/… needs a driven face; a wall link per top cell is one
    errors = []
    for n in (8, 16):
        x = centers(n, 1.0)
        top = np.sin(math.pi * x)[:, None] * np.sin(math.pi * x)[None, :]
        cells = np.arange(n**3).reshape(n, n, n)[:, :, -1].ravel()
        links = one_wall(cells.tolist(), [2.0] * n * n, list(range(n * n)), [])
        ground = potential.face_ground((n, n, n), ("-x", "+x", "-y", "+y", "-z"))
        net = potential.network(np.ones((n, n, n)), 1.0 / n, links, n * n, ground)
        phi = potential.solve(net, top.ravel())
        rate = math.sqrt(2.0) * math.pi
        exact = top[:, :, None] * np.sinh(rate * x) / math.sinh(rate)
        errors.append(float(np.sqrt(np.mean((phi - exact) ** 2))))
    # halving h quarters the error; 1.8 leaves room for the half-cell links at the faces
    assert math.log2(errors[0] / errors[1]) > 1.8


# ---------------------------------------------------------------------------- heat


def test_explicit_pennes_follows_the_sine_decay_in_second_order() -> None:
    length, perfusion, time = 0.02, 4e4, 20.0
    errors = []
    for n, steps in ((6, 8), (12, 32)):
        h, dt = length / n, time / steps
        assert dt < pennes.stable_time_step(h, LIVER_K, LIVER_C, perfusion)
        x = centers(n, length)
        points = (x[:, None, None], x[None, :, None], x[None, None, :])
        case = ((1, 1, 1), (length,) * 3, LIVER_K, LIVER_C, perfusion)
        start = 10.0 * analytic.sine_decay(points, 0.0, *case)
        T = 37.0 + start
        for _ in range(steps):
            rate = pennes.net_heating(T, h, np.full(T.shape, LIVER_K), perfusion=perfusion, boundary=37.0)
            T = pennes.step(T, dt, LIVER_C, rate)
        # the sine is an eigenvector of the stencil with faces half a cell away: round-off only
        wave = 12.0 * LIVER_K / h**2 * math.sin(0.5 * math.pi * h / length) ** 2
        kept = (1.0 - dt * (wave + perfusion) / LIVER_C) ** steps
        np.testing.assert_allclose(T - 37.0, kept * start, rtol=1e-10)
        exact = analytic.decay_rate(*case)
        errors.append(abs(kept - math.exp(-exact * time)))
    # Δt ~ h², so Euler's first order counts as second order in h; 0.1 below for higher orders
    assert math.log2(errors[0] / errors[1]) > 1.9


def test_heat_flows_into_a_slab_of_two_materials_without_loss() -> None:
    k = np.array([0.2, 0.2, 0.2, 0.6, 0.6, 0.6]).reshape(6, 1, 1)
    x = centers(6, 6e-3)
    exact = analytic.slab_temperature(x, 6e-3, 60.0, 30.0, 0.2, 0.6, 3e-3).reshape(6, 1, 1)
    walls = one_wall([0, 5], [2.0, 2.0], [0, 1], [])
    rate = pennes.net_heating(exact, 1e-3, k, walls=((walls, (60.0, 30.0)),))
    # the closed form is also the exact solution of the discrete system; W/m³ against 2 k ΔT/h² = 6e6
    assert np.abs(rate).max() < 1e-6


def test_heat_is_conserved_and_solid_cells_stay_out() -> None:
    random = np.random.default_rng(2)
    shape, h = (5, 4, 6), 1e-3
    T, k = random.uniform(20.0, 90.0, shape), random.uniform(0.2, 0.6, shape)
    wall = one_wall([0, 7], [1.5, 0.5], [0, 0], [64])
    rate = pennes.net_heating(T, h, k, walls=((wall, (10.0,)),))
    into = sum(h * f * k.ravel()[c] * (10.0 - T.ravel()[c]) for c, f in ((0, 1.5), (7, 0.5)))
    assert rate.sum() * h**3 == pytest.approx(into, rel=1e-9)  # sums of 120 terms 1e3 times as large
    assert rate.ravel()[64] == 0.0


def test_boiling_takes_the_latent_heat() -> None:
    latent, q = 450.0, 1e7
    u, T = np.array([[[95.0]]]), np.array([[[95.0]]])
    seconds = (4.0 + 0.5 * (latent + 1.0)) * LIVER_C / q  # to the middle of the boiling range
    for _ in range(100):
        heating = pennes.net_heating(T, 1e-3, np.full(T.shape, LIVER_K), source=q)
        u, T = pennes.enthalpy_step(u, seconds / 100, LIVER_C, heating, 99.0, 1.0, latent)
    assert T[0, 0, 0] == pytest.approx(99.5, abs=1e-9)


@pytest.mark.parametrize("perfusion", [0.0, 4e4])
def test_slab_with_a_source_solves_its_equation(perfusion: float) -> None:
    x, d = np.linspace(0.001, 0.019, 7), 1e-5
    theta = [analytic.slab_source_rise(x + s, 0.02, 1e5, LIVER_K, perfusion) for s in (-d, 0.0, d)]
    curvature = (theta[0] - 2.0 * theta[1] + theta[2]) / d**2
    # differences of 1e-10 m² lose six digits of the 1e5 W/m³
    assert LIVER_K * curvature - perfusion * theta[1] == pytest.approx(np.full(7, -1e5), rel=1e-3)
    assert analytic.slab_source_rise([0.0, 0.02], 0.02, 1e5, LIVER_K, perfusion) == pytest.approx([0.0, 0.0])


def test_gaussian_blob_keeps_its_heat_but_for_perfusion() -> None:
    def heat(time: float, perfusion: float) -> float:
        def shell(r: float) -> float:
            rise = analytic.gaussian_blob_rise(r, time, 30.0, 4e-3, LIVER_K, LIVER_C, perfusion)
            return 4.0 * math.pi * r**2 * float(rise)

        return quad(shell, 0.0, 0.2, points=[0.01, 0.03], epsrel=1e-10)[0]

    assert heat(100.0, 0.0) == pytest.approx(heat(0.0, 0.0), rel=1e-8)  # quadrature
    assert heat(100.0, 4e4) == pytest.approx(heat(0.0, 0.0) * math.exp(-4e4 * 100.0 / LIVER_C), rel=1e-8)


def test_point_source_settles_to_its_steady_state_and_is_the_integral_of_blobs() -> None:
    r, perfusion = np.array([2e-3, 5e-3, 1e-2]), 4e4
    late = analytic.continuous_point_source_rise(r, 1e5, 2.0, LIVER_K, LIVER_C, perfusion)
    steady = analytic.point_source_rise(r, 2.0, LIVER_K, perfusion)
    assert late == pytest.approx(steady, rel=1e-9)
    # a blob of width s → 0 with peak E/(ρc (2π)^(3/2) s³) is a point of energy E: integrate it over time
    s = 1e-5
    peak = 2.0 / (LIVER_C * (2.0 * math.pi) ** 1.5 * s**3)

    def blob(age: float) -> float:
        return float(analytic.gaussian_blob_rise(5e-3, age, peak, s, LIVER_K, LIVER_C, perfusion))

    summed = quad(blob, 0.0, 60.0, points=[5.0, 20.0, 40.0], limit=200, epsrel=1e-9)[0]
    direct = float(analytic.continuous_point_source_rise(5e-3, 60.0, 2.0, LIVER_K, LIVER_C, perfusion))
    assert summed == pytest.approx(direct, rel=1e-4)  # s/r = 2e-3, its square is what the blob blurs


def test_sphere_electrode_heats_as_much_as_it_is_fed() -> None:
    a, b, sigma, volts = 2e-3, 0.06, 0.2, 21.0
    assert analytic.sphere_potential([a, b], a, volts, b) == pytest.approx([volts, 0.0])
    # 1/(4π σ a) = 198.94 Ω in infinite tissue; 192.31 Ω in a ball of 60 mm
    assert analytic.sphere_resistance(a, sigma) == pytest.approx(198.94, abs=5e-3)
    resistance = analytic.sphere_resistance(a, sigma, b)
    assert resistance == pytest.approx(192.31, abs=5e-3)

    def shell(r: float) -> float:
        return 4.0 * math.pi * r**2 * float(analytic.sphere_heating(r, a, volts, sigma, b))

    assert quad(shell, a, b, epsrel=1e-11)[0] == pytest.approx(volts**2 / resistance, rel=1e-9)


# ---------------------------------------------------------------------------- damage


def test_damage_at_constant_temperature_is_rate_times_time() -> None:
    outcome = damage.integrate(lambda t: 55.0, 120.0)
    given = DamageConfig()
    rate = laws.arrhenius_rate(55.0, given.frequency_factor, given.activation_energy)
    assert outcome["damage_integral"] == pytest.approx(120.0 * float(rate), rel=1e-9)
    assert outcome["thermal_dose"] == pytest.approx(analytic.cem43_constant(55.0, 120.0), rel=1e-9)
    assert 0.0 < outcome["dead_fraction"] <= 1.0 - outcome["alive"] + ROUND_OFF


def test_dose_of_a_ramp_through_43_degrees() -> None:
    outcome = damage.integrate(lambda t: 37.0 + 0.1 * t, 120.0, breaks=[60.0])
    exact = analytic.cem43_ramp(37.0, 43.0, 60.0) + analytic.cem43_ramp(43.0, 49.0, 60.0)
    assert outcome["thermal_dose"] == pytest.approx(exact, rel=1e-8)
    with pytest.raises(ValueError, match="crosses 43"):
        analytic.cem43_ramp(37.0, 49.0, 120.0)


def test_three_states_against_small_explicit_steps() -> None:
    given = DamageConfig()
    constants = (given.three_state_forward, given.three_state_scale, given.three_state_backward)
    steps = 20_000
    alive, dead, dt = 0.99, 0.0, 400.0 / steps
    for number in range(steps):
        temperature = 37.0 + 0.15 * number * dt
        d_alive, d_dead = laws.three_state_rates(temperature, alive, dead, *constants)
        alive, dead = alive + dt * float(d_alive), dead + dt * float(d_dead)
    outcome = damage.integrate(lambda t: 37.0 + 0.15 * t, 400.0)
    # Euler's error is about dt times the fastest rate, 0.02 s · 0.04 1/s, of a change of order one
    assert outcome["alive"] == pytest.approx(alive, abs=8e-4)
    assert outcome["dead_fraction"] == pytest.approx(dead, abs=8e-4)
    assert outcome["dead_fraction"] > 0.05
