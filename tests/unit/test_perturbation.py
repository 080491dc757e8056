"""Draws around a plan, and the study that runs them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from thermosim import cli
from thermosim.applicators.layout import in_patient_frame
from thermosim.build import lay_out, load_case
from thermosim.config_perturb import SpreadConfig
from thermosim.report.study_samples import Samples
from thermosim.study.perturbation import draw, percentiles, perturbed, probability

SPREAD = SpreadConfig(targeting_error_mm=3.7, perfusion_cv=0.3, output_cv=0.1)


def test_draws_depend_on_their_number_and_seed_alone() -> None:
    one, same, other = draw(5, 1, 3, SPREAD), draw(5, 1, 3, SPREAD), draw(5, 2, 3, SPREAD)
    assert np.array_equal(one.shifts, same.shifts)
    assert one.perfusion == same.perfusion
    assert not np.array_equal(one.shifts, other.shifts)
    plan = draw(0, 1, 3, SPREAD)
    assert not plan.shifts.any()
    assert {plan.perfusion, plan.output, *plan.electrical.values(), *plan.thermal.values()} == {1.0}


def test_draws_have_the_spread_that_was_asked_for() -> None:
    draws = [draw(number, 3, 2, SPREAD) for number in range(1, 2001)]
    lengths = np.array([np.linalg.norm(one.shifts, axis=1) for one in draws]).ravel()
    # 4000 lengths of standard deviation 0.42 of the mean: their mean is known to 0.7 %, here four of these
    assert lengths.mean() == pytest.approx(3.7, rel=0.03)
    for values, variation in (
        ([one.perfusion for one in draws], 0.3),
        ([one.electrical["liver"] for one in draws], SPREAD.electrical_conductivity_cv),
        ([one.output for one in draws], 0.1),
    ):
        assert np.mean(values) == pytest.approx(1.0, abs=4.0 * variation / np.sqrt(2000))
        assert np.std(values) / np.mean(values) == pytest.approx(variation, rel=0.15)
    assert abs(np.corrcoef([one.perfusion for one in draws], [one.output for one in draws])[0, 1]) < 0.1


def test_a_draw_changes_what_it_says_and_nothing_else() -> None:
    case = load_case("demo", ["grid.spacing_mm=4", "protocol=constant_voltage"])
    source = lay_out(case).source
    layout = in_patient_frame(case.config.layout, case.config.applicators, source.tumor_centers())
    assert len(layout.needles) == 3
    one = draw(7, 1, 3, SPREAD)
    found = perturbed(case.config, layout, one)
    for needle, planned, shift in zip(found.layout.needles, layout.needles, one.shifts, strict=True):
        for moved, point in ((needle.target_mm, planned.target_mm), (needle.entry_mm, planned.entry_mm)):
            assert np.subtract(moved, point) == pytest.approx(shift)
    before, after = case.config.tissue.tissues, found.tissue.tissues
    assert after["liver"].perfusion_rate == before["liver"].perfusion_rate * one.perfusion
    assert after["tumor"].electrical_conductivity == pytest.approx(
        before["tumor"].electrical_conductivity * one.electrical["tumor"]
    )
    assert after["blood"] == before["blood"]
    assert after["liver"].density == before["liver"].density
    assert found.protocol.generator.voltage == case.config.protocol.generator.voltage * one.output
    assert found.protocol.generator.maximum_voltage == case.config.protocol.generator.maximum_voltage


def test_needles_in_the_patients_frame_are_those_of_the_ring() -> None:
    case = load_case("demo", ["grid.spacing_mm=4"])
    laid = lay_out(case)
    layout = in_patient_frame(case.config.layout, case.config.applicators, laid.source.tumor_centers())
    case.config.layout = layout
    for one, other in zip(laid.electrodes, lay_out(case).electrodes, strict=True):
        assert one.target_point == pytest.approx(other.target_point, abs=1e-12)


def test_statistics_of_few_cases() -> None:
    assert probability(0, 0).share != probability(0, 0).share  # not a number
    sure = probability(50, 50)
    assert (sure.share, sure.high) == pytest.approx((1.0, 1.0))
    assert 0.92 < sure.low < 0.94  # n / (n + z²)
    assert percentiles([]) == {}
    assert percentiles([1.0, 2.0, 3.0])["50"] == 2.0


def test_a_row_cut_short_is_computed_again(tmp_path: Path) -> None:
    path = tmp_path / "samples.csv"
    path.write_text("sample,status\n1,done\n0,done\n2,do")
    with Samples(path, ["sample", "status"]) as samples:
        assert sorted(samples.rows) == [0, 1]
        samples.add({"sample": "2", "status": "done"})
    assert path.read_text() == "sample,status\n0,done\n1,done\n2,done\n"


WORDS = [
    "experiment=quick",
    "grid.spacing_mm=4",
    "protocol.cooling_after_min=0",
    "workers=1",
    "backend=cpu",
    "backend.threads=1",
]


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "one"
    assert cli.main(["study", "perturb", "n=1", *WORDS, f"output.directory={folder}"]) == 0
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "samples.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_study_goes_on_and_keeps_what_it_had(studied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = rows(studied)
    assert [row["sample"] for row in first] == ["0", "1"]
    assert cli.main(["study", "perturb", "n=2", *WORDS, f"output.directory={studied}"]) == 0
    more = rows(studied)
    assert more[:2] == first
    assert [row["status"] for row in more] == ["done"] * 3
    margins = [float(row["tumor_minimal_margin_mm"]) for row in more]
    assert len(set(margins)) == 3
    summary = json.loads((studied / "summary.json").read_text())
    assert summary["cases"] == {"drawn": 2, "done": 2, "refused": 0, "failed": 0}
    tumor = summary["tumors"]["tumor"]
    assert tumor["planned_minimal_margin_mm"] == margins[0]
    assert tumor["minimal_margin_mm"]["50"] == pytest.approx(np.mean(margins[1:]))
    assert tumor["probability_of_margin"]["0 mm"]["share"] == np.mean(np.array(margins[1:]) >= 0.0)
    assert (studied / "margins.png").stat().st_size > 1000
    assert str(studied) not in (studied / "config.yaml").read_text()
    assert "margin of at least 0 mm" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed=2"], "another study"),
        (["spread.perfusion_cv=-1"], "spread.perfusion_cv=-1"),
        (["n=0"], "n=0"),
        (["spread.tissues=[lever]"], "no tissue 'lever'"),
        (["spread.nothing=1"], "nothing"),
        (["margins_mm=[]"], "margins_mm"),
    ],
)
def test_mistakes_are_refused(
    words: list[str], message: str, studied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["study", "perturb", "n=2", *WORDS, f"output.directory={studied}", *words]
    with pytest.raises(SystemExit) as refused:
        raise SystemExit(cli.main(given))  # Hydra leaves from within a job
    assert refused.value.code == 2
    assert message in capsys.readouterr().err


def test_what_does_not_work_here_leaves_no_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["study", "perturb", *WORDS, "solver.memory_limit_gb=0.1", f"output.directory={tmp_path}/none"]
    with pytest.raises(SystemExit):
        cli.main(given)
    assert "memory_limit_gb" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_there_are_no_other_studies(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["study", "nothing"]) == 2
    assert "use perturb" in capsys.readouterr().err
    assert cli.main(["study", "--help"]) == 0
