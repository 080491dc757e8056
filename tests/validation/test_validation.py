"""The catalogue of experiments is complete and composes, the scoring is right, and small cases run."""

from __future__ import annotations

import math

import numpy as np
import pytest
from omegaconf import OmegaConf
from validation import pages
from validation.catalogue import DEFAULT_RELATIVE_SD, load_calibration, load_experiments
from validation.document import predicted, rows_of
from validation.observe import observe, value
from validation.runs import jobs_of, requests_of
from validation.score import Score, summarize

from thermosim.build import load_case, simulate
from thermosim.resources import config_directory

EXPERIMENTS = load_experiments()
WANTED = {f"E{number}" for number in range(1, 18)}


def shipped_option(group: str, option: str) -> dict:
    """An option as it stands in its file."""
    plain = OmegaConf.to_container(OmegaConf.load(config_directory() / group / f"{option}.yaml"))
    assert isinstance(plain, dict)
    return plain


def test_the_catalogue_holds_every_experiment_with_its_source():
    assert {experiment.id for experiment in EXPERIMENTS} == WANTED
    for experiment in EXPERIMENTS:
        assert experiment.measurements, experiment.id
        assert experiment.assumptions, experiment.id
        assert any(mark in experiment.source for mark in ("PMC", "doi", "Radiol", "PubMed")), experiment.id
        for one in experiment.measurements:
            assert one.scale > 0, (experiment.id, one)


def test_every_config_of_the_folder_is_used():
    written = {
        f"validation/{path.stem}" for path in (config_directory() / "experiment/validation").glob("*.yaml")
    }
    used = {run.experiment for experiment in EXPERIMENTS for run in experiment.runs}
    assert written <= used


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.id)
def test_every_run_and_every_variant_composes(experiment):
    jobs = jobs_of(experiment)
    assert len({job.name for job in jobs}) == len(jobs)
    for job in jobs:
        settings = job.settings()
        assert settings["tissue"]["state"] == experiment.tissue
        assert settings["protocol"]["cooling_after_min"] == 0.0


def test_tissue_is_one_set_for_each_state():
    """No experiment changes a property of tissue: variants may, that is what they are for."""
    for experiment in EXPERIMENTS:
        for job in jobs_of(experiment, variants=False):
            shipped = shipped_option("tissue", experiment.tissue)
            used = job.settings()["tissue"]
            for name, properties in shipped["tissues"].items():
                assert {k: used["tissues"][name][k] for k in properties} == properties, (job.name, name)
            for key in set(shipped) - {"tissues"}:
                assert used[key] == shipped[key], (job.name, key)


def test_criterion_is_one_for_all():
    shipped = shipped_option("damage", "coagulation")
    for experiment in EXPERIMENTS:
        for job in jobs_of(experiment, variants=False):
            assert job.settings()["damage"] == shipped, job.name


def test_calibration_is_declared_with_what_stands_in_the_files():
    declared = {one["parameter"]: one for one in load_calibration()}
    assert len(declared) <= 3  # a small subset: two parameters of a state and the criterion at most
    damage = load_case(None, ["damage=coagulation"]).config.damage
    assert float(declared["damage.frequency_factor"]["after"].split()[0]) == damage.frequency_factor
    bovine = load_case(None, ["tissue=ex_vivo_bovine"]).config.tissue.tissues["liver"]
    sigma = declared["tissue.tissues.liver.electrical_conductivity"]
    assert float(sigma["after"].split()[0]) == bovine.electrical_conductivity
    calibrated = [experiment.id for experiment in EXPERIMENTS if experiment.role == "calibration"]
    assert calibrated == ["E1"]
    assert len(calibrated) <= 3


def test_a_score_counts_in_standard_deviations():
    low, high = Score(10.0, 2.0, 7.0), Score(10.0, 2.0, 13.1)
    assert low.deviation == -1.5
    assert low.passes
    assert not high.passes
    assert high.relative_error == pytest.approx(0.31)
    assert not Score(10.0, 2.0, math.nan).passes
    with pytest.raises(ValueError, match="no scale"):
        Score(10.0, 0.0, 9.0)


def test_a_bound_is_met_below_and_missed_above():
    assert Score(1.0, 0.05, 0.5, at_most=True).deviation == 0.0
    assert Score(1.0, 0.05, 0.5, at_most=True).passes
    assert not Score(1.0, 0.05, 1.2, at_most=True).passes


def test_the_summary_of_known_scores():
    scores = [
        Score(10.0, 1.0, 11.0),
        Score(10.0, 1.0, 8.0),
        Score(20.0, 2.0, 20.0),
        Score(5.0, 1.0, math.nan),
    ]
    total = summarize(scores)
    assert (total.n, total.n_passed, total.share) == (4, 2, 0.5)
    assert total.mean_absolute_relative_error == pytest.approx((0.1 + 0.2 + 0.0) / 3)
    assert total.mean_deviation == pytest.approx((1.0 - 2.0) / 3)
    assert total.rms_deviation == pytest.approx(math.sqrt(5.0 / 3))
    assert math.isnan(summarize([]).share)


def made_up(volume: float, answer: float = 50.0) -> dict:
    zone = {"volume_ml": volume, "axes_mm": [40.0, 30.0, 28.0], "touches_box": False}
    return {
        "code": "abc",
        "observed": {
            "criterion": "arrhenius",
            "zones": dict.fromkeys(("arrhenius", "isotherm_60", "isotherm_54", "isotherm_50", "cem43"), zone),
            "energy_kj": 30.0,
            "answers": [answer, answer],
            "seconds": 60.0,
            "spacing_mm": 2.0,
            "audit_error": 1e-6,
            "device": "test",
            "kernel_digest": "0123456789abcdef",
        },
    }


def test_the_document_says_what_the_results_are():
    """All pages from made-up results: the measured volume itself, and one that misses by 3 SD."""
    results = {}
    for experiment in EXPERIMENTS:
        volumes = {m.run: m.mean for m in experiment.measurements if m.quantity == "zone_volume_ml"}
        for job in jobs_of(experiment):
            base = job.run.name.partition(",")[0]
            results[job.name] = made_up(volumes.get(base, 10.0))
    e3 = next(experiment for experiment in EXPERIMENTS if experiment.id == "E3")
    volume = e3.measurements[0]
    results["E3 main"] = made_up(volume.mean + 3.0 * volume.scale)
    rows = rows_of(EXPERIMENTS, results)
    by_id = {(row.experiment.id, row.measurement.quantity): row for row in rows}
    assert by_id["E3", "zone_volume_ml"].score.deviation == pytest.approx(3.0)
    assert by_id["E4", "zone_volume_ml"].score.deviation == pytest.approx(0.0)
    text = pages.document(rows, EXPERIMENTS, load_calibration(), results, "abc")
    cases = [row for row in rows if row.is_case]
    met = sum(row.score.passes for row in cases)
    assert f"**{met} of {len(cases)} predictions" in text
    assert "**E3, " in text.split("## Misses")[1]
    assert "other code" not in text
    assert "other code" in pages.document(rows, EXPERIMENTS, load_calibration(), results, "new")
    assert "calibrated" in text


def test_an_assumed_sd_is_marked():
    e1 = next(experiment for experiment in EXPERIMENTS if experiment.id == "E1")
    volume = e1.measurements[0]
    assert not volume.has_published_sd
    assert volume.scale == pytest.approx(DEFAULT_RELATIVE_SD * volume.mean)


def test_a_small_case_really_runs():
    """E13 for 20 s in 4 mm cells, too coarse and short to compare, but all that is read must be there."""
    case = load_case(
        "validation/e13_fixed_1cm_ex_vivo_bovine",
        ["grid.spacing_mm=4", "protocol.segments=[{duration_min:0.3333,drive:together}]", "backend.name=cpu"],
    )
    requests = [
        {"quantity": "temperature_c", "point_mm": [8.0, 0.0, 0.0]},
        {"quantity": "zone_reach_mm", "point_mm": [0.0, 0.0, 0.0], "direction": [2.0, 0.0, 0.0]},
    ]
    result = simulate(case)
    observed = observe(result, requests)
    # 50 W for 20 s at the most; the generator may pause
    assert 0.1 < observed["energy_kj"] <= 1.0 + 1e-6
    warm, reach = observed["answers"]
    assert 22.0 <= warm < 100.0
    coldest, hottest = result.simulation.temperature.min(), result.simulation.temperature.max()
    assert coldest <= warm <= hottest
    axes = observed["zones"]["arrhenius"]["axes_mm"]
    assert 0.0 <= reach <= max(axes[0], 1e-9)
    assert value(observed, "temperature_c", 0) == warm
    assert value(observed, "zone_transverse_mm") == pytest.approx(np.mean(axes[1:]))


def test_a_ratio_of_two_runs():
    e16 = next(experiment for experiment in EXPERIMENTS if experiment.id == "E16")
    far = next(one for one in e16.measurements if one.relative_to)
    assert requests_of(e16, far.run) == requests_of(e16, far.run)
    results = {"E16 with vessel": made_up(1.0, 9.0), "E16 without": made_up(1.0, 10.0)}
    assert predicted(e16, far, results) == pytest.approx(0.9)
