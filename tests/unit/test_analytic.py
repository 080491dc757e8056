"""Closed forms of the verification against other ways to the same answer."""

from __future__ import annotations

import numpy as np
import pytest
from reference import analytic
from scipy.integrate import solve_bvp

K, W = 0.52, 24306.0


@pytest.mark.parametrize(("film", "coolant"), [(2000.0, -22.0), (1e5, -32.0), (0.0, 0.0)])
def test_cooled_needle_solves_its_equation(film: float, coolant: float) -> None:
    a, b, heating = 0.75e-3, 24e-3, 27.0

    def derivative(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        # in x = ln r: θ'' = m² r² θ − A/k
        return np.array([y[1], W / K * np.exp(2.0 * x) * y[0] - heating / K])

    def walls(inner: np.ndarray, outer: np.ndarray) -> np.ndarray:
        return np.array([K * inner[1] - film * a * (inner[0] - coolant), outer[0]])

    start = np.linspace(np.log(a), np.log(b), 200)
    solution = solve_bvp(derivative, walls, start, np.zeros((2, 200)), tol=1e-8, max_nodes=100_000)
    assert solution.success
    r = np.geomspace(a, b, 25)
    found = analytic.cooled_needle_rise(r, a, b, heating, K, W, film, coolant)
    # the collocation's own tolerance on rises of 30 to 60 K
    assert found == pytest.approx(solution.sol(np.log(r))[0], abs=1e-5)


@pytest.mark.parametrize("time", [5.0, 100.0, 2000.0])
def test_heat_kernel_by_images_is_the_one_by_sines(time: float) -> None:
    length, source, alpha = 0.05, 0.011, 1.4e-7
    x = np.linspace(0.0, length, 41)
    n = np.arange(1, 600)[:, None]
    waves = np.sin(n * np.pi * x / length) * np.sin(n * np.pi * source / length)
    sines = (2.0 / length * waves * np.exp(-alpha * (n * np.pi / length) ** 2 * time)).sum(axis=0)
    found = analytic.heat_kernel(x, source, time, length, alpha)
    # sums of some hundred terms in double precision
    assert found == pytest.approx(sines, abs=1e-10 * sines.max())


def test_coaxial_cylinders() -> None:
    # between radii that double, Δφ falls by the same step: resistances add
    parts = [analytic.coaxial_resistance(a, 2.0 * a, 0.04, 0.2) for a in (1e-3, 2e-3, 4e-3)]
    assert sum(parts) == pytest.approx(analytic.coaxial_resistance(1e-3, 8e-3, 0.04, 0.2), rel=1e-12)
