"""Nusselt correlations against textbook values, and the laminar entrance against the Graetz problem."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.linalg import eigh

from thermosim.errors import InputError
from thermosim.physics import vessel_flow as flow
from thermosim.physics.vessel_flow import Blood


@pytest.fixture(scope="module")
def graetz():
    """Eigenvalues and weights of d/dr(r dθ/dr) = −λ² r (1 − r²) θ, θ(1) = 0, by finite volumes."""
    n = 1500
    edges = np.linspace(0.0, 1.0, n + 1)
    middle = 0.5 * (edges[1:] + edges[:-1])
    link = edges[1:-1] * n
    diagonal = np.zeros(n)
    diagonal[:-1] += link
    diagonal[1:] += link
    diagonal[-1] += 2.0 * n
    matrix = np.diag(diagonal) - np.diag(link, 1) - np.diag(link, -1)
    weight = middle * (1.0 - middle**2) / n
    scale = 1.0 / np.sqrt(weight)
    values, vectors = eigh(matrix * scale[:, None] * scale[None, :], subset_by_index=[0, 250])
    return values, (weight[:, None] * vectors * scale[:, None]).sum(axis=0) ** 2


def series(graetz, x_star):
    """Local and mean Nu of the Graetz series at x* = x / (d Re Pr)."""
    values, weights = graetz
    decay = weights * np.exp(-2.0 * values * x_star)
    bulk = 4.0 * decay.sum()
    return float(2.0 * (values * decay).sum() / bulk), float(-math.log(bulk) / (4.0 * x_star))


def test_the_graetz_problem_has_its_known_eigenvalue(graetz):
    # λ₁² = 7.3136 (Brown 1960); 1500 volumes give five digits
    assert graetz[0][0] == pytest.approx(7.3136, rel=1e-5)


@pytest.mark.parametrize("x_star", [2e-4, 5e-4, 9e-4, 2e-3, 5e-3, 1e-2, 3e-2, 0.1, 1.0])
def test_developing_laminar_flow_follows_the_series(graetz, x_star):
    local, mean = series(graetz, x_star)
    # 1 %: what the closed form of the local value promises, and so of its mean
    assert flow.nusselt_developing(x_star) == pytest.approx(local, rel=0.01)
    assert flow.nusselt_developing_mean(x_star) == pytest.approx(mean, rel=0.01)


@pytest.mark.parametrize(
    ("first", "last"), [(0.0, 1e-3), (1e-3, 3e-3), (4e-3, 8e-3), (0.02, 0.05), (1.0, 2.0)]
)
def test_the_mean_over_a_piece_lies_near_that_of_the_series(graetz, first, last):
    begin = first * series(graetz, first)[1] if first else 0.0
    wanted = (last * series(graetz, last)[1] - begin) / (last - first)
    # 1 %: a mean of values each within 1 %
    assert flow.nusselt_developing_between(first, last) == pytest.approx(wanted, rel=0.01)


def test_hausen_is_close_to_the_mean_of_the_series(graetz):
    for x_star in (1e-3, 5e-3, 0.02, 0.1):
        re, pr = 500.0, 24.0
        nu = flow.nusselt_hausen(re, pr, x_star * re * pr)
        # 12 %: Hausen's fit lies 11 % above the exact mean where the entrance is shortest, 1 % where longest
        assert nu == pytest.approx(series(graetz, x_star)[1], rel=0.12)


def test_textbook_values():
    # by hand from the equations, five digits: Hausen with Gz = 100 is 3.66 + 6.68/(1 + 0.04·21.544)
    assert flow.nusselt_hausen(1000.0, 5.0, 50.0) == pytest.approx(7.2479, rel=1e-4)
    # Sieder–Tate with Gz = 100: 1.86 · 4.6416
    assert flow.nusselt_sieder_tate(1000.0, 5.0, 50.0) == pytest.approx(8.6333, rel=1e-4)
    # Re 10⁴: f = (0.79·9.2103 − 1.64)⁻² = 0.03148
    assert flow.friction_factor(1e4) == pytest.approx(0.031480, rel=1e-3)
    # Dittus–Boelter Re 10⁴, Pr 0.7: 0.023 · 1584.9 · 0.8670
    assert flow.nusselt_dittus_boelter(1e4, 0.7) == pytest.approx(31.605, rel=1e-3)
    assert flow.nusselt_dittus_boelter(1e4, 0.7, blood_is_heated=False) > 31.7
    # Gnielinski Re 10⁴, Pr 5: 0.003935·9000·5/(1 + 12.7·0.06273·(2.9240 − 1)); with Dittus–Boelter 69.4
    assert flow.nusselt_gnielinski(1e4, 5.0) == pytest.approx(69.90, rel=2e-3)
    assert pytest.approx(48.0 / 11.0, rel=1e-3) == flow.LAMINAR_WALL_FLUX


def test_entrance_lengths_of_blood():
    assert flow.hydrodynamic_entrance_length(200.0, 4e-3) == pytest.approx(0.04)
    assert flow.thermal_entrance_length(200.0, 24.0, 4e-3) == pytest.approx(0.96)
    assert flow.thermal_entrance_length(1e4, 24.0, 4e-3) == pytest.approx(0.04)


def test_blood():
    blood = Blood()
    assert blood.prandtl == pytest.approx(24.35, rel=1e-3)
    # portal vein of 13 mm with 864 mL/min (Brown 1989): 10.8 cm/s, Re about 420, laminar
    speed = flow.mean_velocity(864e-6 / 60, 13e-3)
    assert speed == pytest.approx(0.1085, rel=1e-3)
    assert flow.volume_flow(speed, 13e-3) == pytest.approx(864e-6 / 60)
    assert flow.reynolds(speed, 13e-3, blood) == pytest.approx(423.0, rel=1e-2)
    assert flow.film_coefficient(3.66, 4e-3, blood) == pytest.approx(475.8, rel=1e-3)


def test_auto_joins_the_ranges_without_jumps():
    for border in (flow.LAMINAR_LIMIT, flow.TURBULENT_LIMIT):
        below, above = (flow.nusselt_auto(border * (1 + s), 24.0, 5.0, 6.0) for s in (-1e-6, 1e-6))
        assert above == pytest.approx(below, rel=1e-4)
    middle = flow.nusselt_auto(3150.0, 24.0, 5.0, 6.0)
    ends = [flow.nusselt_auto(re, 24.0, 5.0, 6.0) for re in (2300.0, 4000.0)]
    assert middle == pytest.approx(0.5 * sum(ends), rel=1e-3)  # γ = 1/2
    assert flow.nusselt_auto(0.0, 24.0, 0.0, 1.0) == flow.LAMINAR_WALL_TEMPERATURE
    assert flow.nusselt_auto(1e-3, 24.0, 0.0, 100.0) == pytest.approx(3.66, rel=0.01)


@pytest.mark.parametrize("name", flow.CORRELATIONS[:-1])
def test_every_name_gives_a_number_in_its_range(name):
    re = 2e4 if name in ("gnielinski", "dittus_boelter") else 500.0
    assert 3.0 < flow.nusselt(name, re, 24.0, 2.0, 4.0) < 400.0


@pytest.mark.parametrize(
    ("name", "re", "words"),
    [
        ("laminar", 5000.0, ["Re is 5000", "laminar", "0 to 2300"]),
        ("hausen", 5000.0, ["Re is 5000", "hausen"]),
        ("sieder_tate", 5000.0, ["sieder_tate"]),
        ("gnielinski", 500.0, ["Re is 500", "3000 to"]),
        ("dittus_boelter", 5000.0, ["at least 10000"]),
        ("magic", 500.0, ["'magic'", "gnielinski"]),
    ],
)
def test_outside_its_range_a_correlation_is_refused(name, re, words):
    with pytest.raises(InputError) as caught:
        flow.nusselt(name, re, 24.0, 1.0, 2.0)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_places_that_are_none():
    with pytest.raises(InputError, match="x\\*"):
        flow.nusselt_developing(0.0)
    with pytest.raises(InputError, match="empty"):
        flow.nusselt_developing_between(2.0, 1.0)
    with pytest.raises(InputError, match="diameter"):
        flow.film_coefficient(4.0, 0.0, Blood())
