"""The coupled nonlinear problem is of second order; boiling and dose follow closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from verification import dose_history
from verification.coupled_orders import in_space, in_time, treatment_in_time
from verification.stefan import HalfSpace, without_slope

from thermosim.backends import select

# ---------------------------------------------------------------------------- orders


def test_the_coupled_problem_is_of_second_order_in_space() -> None:
    study = in_space(select("cpu", 1), (12, 16, 24))
    # next powers of h still show on grids so coarse: 1.98 to 2.29 is seen, 1.99 to 2.05 from 24³ to 48³
    for name in study.errors:
        assert 1.9 < study.fitted(name) < 2.4, name
    assert study.errors["T, K"][-1] < 0.0125  # [K] of 40; seen 0.0114


def test_the_coupled_problem_is_of_second_order_in_time() -> None:
    study = in_time(select("cpu", 1), (3.0, 1.5, 0.75), 0.1875, n=12)
    # kinks (boiling begins, perfusion stops) scatter single halvings by some tenths; the finest run's own
    # error is 1/16 of the last one's, which adds 0.05
    for name in study.errors:
        assert study.fitted(name) > 1.9, name
    # coefficients of the step's start, first order, would leave 0.25 K at 3 s
    assert study.errors["T, K"][0] < 0.03


def test_a_treatment_at_constant_voltage_is_of_second_order_in_time() -> None:
    study = treatment_in_time(select("cpu", 1), (3.0, 1.5, 0.75), 0.1875)
    for name in study.errors:
        # energy and impedance: conductance at the step's start is of first order in Δt, times h² (3 mm here);
        # seen 1.95, 1.91, 1.81 and 1.77
        assert study.fitted(name) > (1.7 if name.startswith(("energy", "impedance")) else 1.85), name


# ---------------------------------------------------------------------------- boiling


@pytest.fixture(scope="module")
def liver() -> HalfSpace:
    return HalfSpace.shipped("ex_vivo_bovine")


def test_the_shipped_latent_heat_is_that_of_the_water(liver: HalfSpace) -> None:
    # 2.26 MJ/kg of 71 % of 1079 kg/m³: 1.73 GJ/m³; with a wrong density it would be short by a factor of 1000
    assert liver.latent_heat == pytest.approx(2.26e6 * 0.71 * 1079.0, rel=1e-6)


def test_the_similarity_solution_ends_in_neumanns(liver: HalfSpace) -> None:
    case = replace(without_slope(liver), width=0.05)
    x = (np.arange(20000) + 0.5) * 1e-6
    # the sensible heat within the width is 1e-4 of the latent one, and so is the change of the front
    assert case.dry_length(case.similar(x, 600.0), 1e-6) == pytest.approx(case.neumann_front(600.0), rel=2e-4)
    # T itself but for the cells of the front, over which it falls by the width
    far = np.abs(x - case.neumann_front(600.0)) > 2e-5
    exact = case.neumann_temperature(x, 600.0)
    assert np.abs(case.similar(x, 600.0) - exact)[far].max() < 0.05


def test_boiling_walks_as_neumann_says(liver: HalfSpace) -> None:
    case, h = without_slope(liver), 1e-3
    u = case.solve(select("cpu", 1), h, 60, 600.0, 1.0)
    temperature = case.temperature(u)
    # 0.3 % from the width of 1 K, the rest from cells of a fifth of the distance; seen 0.5 %
    assert case.dry_length(temperature, h) == pytest.approx(case.neumann_front(600.0), rel=0.01)
    x = (np.arange(60) + 0.5) * h
    wet = x > case.neumann_front(600.0) + 2 * h
    # the front goes from cell to cell in jerks, felt ahead of it; seen 0.9 K of 77 K
    assert np.abs(temperature - case.neumann_temperature(x, 600.0))[wet].max() < 1.5


# ---------------------------------------------------------------------------- dose


@pytest.mark.parametrize(("start", "rate"), [(37.0, 0.2), (60.0, -0.15), (41.0, 0.05)])
def test_closed_forms_of_a_ramp(start: float, rate: float) -> None:
    config, seconds = dose_history.shipped(), 200.0
    wanted = dose_history.exact(start, rate, seconds, config)
    seen = dose_history.integrate(lambda t: start + rate * t, seconds, 800, select("cpu", 1), config)
    # steps of 0.05 K: (0.69 · 0.05)²/24 = 5e-5; float32 sums of 800 terms add 3e-5
    assert seen == pytest.approx(wanted, rel=1.2e-4)


@pytest.mark.parametrize("temperature", [40.0, 55.0])
def test_closed_forms_of_a_constant_temperature(temperature: float) -> None:
    config = dose_history.shipped()
    wanted = dose_history.exact(temperature, 0.0, 100.0, config)
    seen = dose_history.integrate(lambda _t: temperature, 100.0, 50, select("cpu", 1), config)
    assert seen == pytest.approx(wanted, rel=5e-5)  # exponents of up to 92 rounded to float32
