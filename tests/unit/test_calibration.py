"""Calibration by least squares: closed forms, what the data tell, and data as residuals."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest

from thermosim.anatomy.grid import Grid
from thermosim.errors import InputError
from thermosim.outcome.level_set import LevelSet
from thermosim.study.calibration import Unknown, calibrate
from thermosim.study.calibration_data import (
    ObservedTreatment,
    Prediction,
    Weights,
    check_start,
    misfits,
    n_independent,
    observed_log,
    observed_zone,
    octants,
    residuals,
)

_spec = importlib.util.spec_from_file_location(
    "synthetic_result", Path(__file__).with_name("synthetic_result.py")
)
assert _spec is not None
assert _spec.loader is not None
synthetic = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(synthetic)

WEIGHTS = Weights(zone_sd=1e-3, zone_correlation=10e-3, log_sd=0.05, log_correlation=60.0)


def unknown(name="a", start=1.0, lower=0.01, upper=100.0, prior_sd=1.0):
    return Unknown(name, start, lower, upper, prior_sd)


def test_a_linear_problem_has_the_posterior_of_the_textbook():
    """r = (ln v − d)/σ with a normal prior: both middle and sd are known."""
    data, sd = np.array([0.4, 0.6]), 0.1

    def misfit(values):
        return (np.log(values[0]) - data) / sd

    found = calibrate([unknown(prior_sd=0.5)], misfit, 2.0, tolerance=1e-8)
    precision = 2 / sd**2 + 1 / 0.5**2
    (estimate,) = found.estimates
    assert estimate.status == "fitted"
    assert math.log(estimate.value) == pytest.approx(data.sum() / sd**2 / precision, abs=1e-6)
    # two readings that are 2 σ apart, one unknown: s² = Σ r² / (2 − 1)
    squares = ((math.log(estimate.value) - data) ** 2).sum() / sd**2
    assert found.residual_variance == pytest.approx(squares)
    assert estimate.log_sd == pytest.approx((2 / sd**2 / max(squares, 1.0) + 4.0) ** -0.5, rel=1e-3)
    low, high = estimate.interval
    assert low < estimate.value < high
    assert found.condition_number == pytest.approx(1.0)


def product(exponents, sd=0.02):
    """Data that know only products of the unknowns: rows of exponents."""
    rows = np.asarray(exponents, dtype=float)

    def misfit(values):
        return rows @ np.log(values / TRUTH) / sd

    return misfit


TRUTH = np.array([2.0, 0.5])


def test_two_unknowns_that_data_tell_apart():
    found = calibrate([unknown("a"), unknown("b")], product([[1, 1], [1, -1], [2, 1]]), 20.0, tolerance=1e-8)
    assert [one.status for one in found.estimates] == ["fitted", "fitted"]
    # the prior, 50 times as wide as the data, pulls by a 2500th of the way
    assert found.values == pytest.approx(TRUTH, rel=2e-3)
    assert found.confounded == ()
    assert found.combinations[0].share_of_prior < found.combinations[1].share_of_prior


def test_a_product_alone_is_reported_as_such_and_not_as_two_values():
    found = calibrate([unknown("a"), unknown("b")], product([[1, 1], [1, 1]]), 20.0, tolerance=1e-8)
    assert [one.status for one in found.estimates] == ["not_told", "not_told"]
    assert found.values.tolist() == [1.0, 1.0]
    assert math.isinf(found.condition_number)
    (pair,) = found.confounded
    assert pair[2] == pytest.approx(-1.0, abs=1e-3)
    best, worst = found.combinations
    assert np.abs(best.weights) == pytest.approx([math.sqrt(0.5)] * 2, rel=1e-6)
    assert math.isinf(worst.share_of_prior)


def test_what_is_not_told_stays_in_the_uncertainty_of_the_others():
    """b is hardly felt: it goes back to its start, and a is told up to what b may be."""
    misfit = product([[1.0, 0.02], [1.0, 0.02]], sd=0.02)
    unknowns = [unknown("a", start=1.0), unknown("b", start=0.5)]
    found = calibrate(unknowns, misfit, 20.0, tolerance=1e-8)
    assert [one.status for one in found.estimates] == ["fitted", "not_told"]
    assert found.estimates[1].value == 0.5
    assert found.estimates[0].value == pytest.approx(2.0, rel=1e-3)
    # two readings of sd 0.02, and 0.02 times a prior of sd 1 for b
    assert found.estimates[0].log_sd == pytest.approx(math.hypot(0.02 / math.sqrt(2), 0.02), rel=0.02)


def test_a_fit_that_runs_into_its_bound_says_so():
    found = calibrate(
        [unknown("a", upper=1.5), unknown("b")], product([[1, 0], [0, 1]]), 20.0, tolerance=1e-8
    )
    assert [one.status for one in found.estimates] == ["at_bound", "fitted"]
    assert found.values == pytest.approx([1.5, 0.5], rel=2e-3)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"start": 0.001}, "must lie between its bounds"),
        ({"lower": 2.0, "upper": 1.0}, "lower below upper"),
        ({"lower": -1.0}, "must be positive"),
        ({"prior_sd": 0.0}, "prior_sd"),
    ],
)
def test_unknowns_that_make_no_sense_are_refused(change, expected):
    with pytest.raises(InputError, match=expected):
        unknown(**change)


# ------------------------------------------------------------------ data


def ball(radius, center=(0.0, 0.0, 0.0)):
    grid = Grid.box((2e-4, -1e-4, 3e-4), (40, 40, 40), 1.2e-3)
    return LevelSet(grid, synthetic.sphere_level(grid, radius, center))


NONE = np.zeros((0, 3), dtype=np.int64)
TIME = np.arange(0.0, 301.0, 5.0)


def prediction(radius, impedance=100.0):
    return Prediction(ball(radius), TIME, {"impedance_ohm": np.full(len(TIME), impedance)})


def treatment(held=NONE, share=0.25, whole=False, interval=10.0):
    zone = observed_zone(ball(0.015), held, whole)
    log = observed_log("impedance_ohm", TIME[:-1] + 1.0, np.full(60, 80.0), interval, share, whole, 300.0)
    return ObservedTreatment("one", zone, (log,))


@pytest.mark.parametrize("interval", [10.0, 30.0])
def test_residuals_count_independent_readings(interval):
    """However finely sampled: area / ℓ² of the surface at (ΔR/σ)², time / τ of the log."""
    seen = treatment(interval=interval)
    found = residuals([seen], [prediction(0.017)], WEIGHTS)
    area = 4 * math.pi * 0.015**2
    logged = 225.0 / 60.0 * (math.log(100 / 80) / 0.05) ** 2
    assert np.sum(found**2) == pytest.approx(area / 1e-4 * 2.0**2 + logged, rel=0.05)
    # the held-out end begins with a whole interval
    assert n_independent([seen], WEIGHTS) == pytest.approx(area / 1e-4 + 225.0 / 60.0, rel=0.05)


def test_octants_and_the_end_of_the_log_are_held_out():
    held = octants(["right-anterior-superior", "left-posterior-inferior"])
    seen = treatment(held)
    assert seen.zone is not None
    share = seen.zone.areas[seen.zone.held_out].sum() / seen.zone.areas.sum()
    assert share == pytest.approx(0.25, abs=0.02)
    arms = seen.zone.points[seen.zone.held_out]
    assert np.all(np.sign(arms[:, 0]) == np.sign(arms[:, 1]))
    for part in (False, True):
        found = misfits(seen, prediction(0.017), WEIGHTS, part)
        assert found["zone"].rms == pytest.approx(2e-3, rel=0.02)
        assert found["zone"].mean == pytest.approx(2e-3, rel=0.02)
        assert math.exp(found["impedance_ohm"].mean) == pytest.approx(100 / 80)
    assert misfits(treatment(whole=True), prediction(0.017), WEIGHTS, False) == {}
    with pytest.raises(InputError, match="no octant"):
        octants(["right-left-superior"])


def test_data_of_another_treatment_are_refused():
    seen = treatment()
    with pytest.raises(InputError, match="no tissue dies"):
        check_start(seen, Prediction(None, TIME, {"impedance_ohm": np.full(len(TIME), 100.0)}))
    far = ObservedTreatment("far", observed_zone(ball(0.008, (0.015, 0.0, 0.0)), NONE, False), ())
    with pytest.raises(InputError, match="do not overlap"):
        check_start(far, prediction(0.004))
    with pytest.raises(InputError, match="no time in common"):
        observed_log("impedance_ohm", TIME + 1000.0, np.full(len(TIME), 80.0), 10.0, 0.25, False, 300.0)
    with pytest.raises(InputError, match="no reading"):
        observed_log("impedance_ohm", TIME, np.zeros(len(TIME)), 10.0, 0.25, False, 300.0)


def test_a_zone_and_a_log_are_fitted_together():
    """Radius ∝ a^⅓, impedance ∝ b / a: both come back from noisy data within their uncertainty."""
    truth = np.array([1.3, 0.9])
    random = np.random.default_rng(5)

    def predict(values):
        return prediction(0.014 * values[0] ** (1 / 3), 100.0 * values[1] / values[0])

    true = predict(truth)
    assert true.zone is not None
    noise = np.exp(0.05 * random.normal(size=60))
    log = observed_log("impedance_ohm", TIME[1:], 100.0 * 0.9 / 1.3 * noise, 10.0, 0.25, False, 300.0)
    held = octants(["right-anterior-superior"])
    seen = [ObservedTreatment("one", observed_zone(true.zone, held, False), (log,))]
    unknowns = [unknown("a", prior_sd=0.5), unknown("b", prior_sd=0.5)]

    def misfit(values):
        return residuals(seen, [predict(values)], WEIGHTS)

    found = calibrate(unknowns, misfit, n_independent(seen, WEIGHTS))
    for estimate, value in zip(found.estimates, truth, strict=True):
        assert estimate.status == "fitted"
        assert abs(math.log(estimate.value / value)) < 2.0 * estimate.log_sd
        assert estimate.log_sd < 0.2
    after = misfits(seen[0], predict(found.values), WEIGHTS, True)
    before = misfits(seen[0], predict(np.ones(2)), WEIGHTS, True)
    assert after["zone"].rms < 0.2 * before["zone"].rms
    assert after["impedance_ohm"].rms < 0.2 * before["impedance_ohm"].rms
