"""`thermosim calibrate`: twin experiments through the simulator, and what is refused."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path

import numpy as np
import pytest

from thermosim import build, cli, simulation
from thermosim.anatomy.grid import Grid
from thermosim.backends import select
from thermosim.commands.calibrate import check_calibration
from thermosim.composition import compose, register, typed
from thermosim.config_calibrate import CalibrateConfig
from thermosim.config_compare import CompareConfig
from thermosim.errors import InputError
from thermosim.outcome.criteria import zone_level_set
from thermosim.report.generator_log import at_the_clamps
from thermosim.report.nifti import write_zone

BENCH = [
    "anatomy=block",
    "anatomy.size_mm=[200,200,200]",
    "layout=explicit",
    "layout.frame=patient",
    "layout.needles=[{name: a, target_mm: [0,0,-15], entry_mm: [0,0,100]}]",
    "protocol=constant_voltage",
    "protocol.generator.mode=constant_power",
    "protocol.generator.power=28",
    "protocol.segments=[{duration_min: 3}]",
    "protocol.cooling_after_min=0",
    "vessels=ignored",
    "grid.size_mm=[64,64,64]",
    "grid.spacing_mm=4",
    "backend=cpu",
    "backend.threads=1",
]
"""One needle for 3 min in a small block: a fraction of a second."""

TRUTH = {"perfusion": 0.010, "conductivity": 0.26, "coupling": 0.95}
LIVER = "tissue.tissues.liver"


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Zones at 28 and 24 W, and a log, of a perfusion and σ that the case does not have, with 2 % noise."""
    folder = tmp_path_factory.mktemp("seen")
    truth = [
        f"{LIVER}.perfusion_rate={TRUTH['perfusion']}",
        f"{LIVER}.electrical_conductivity={TRUTH['conductivity']}",
        f"protocol.generator.coupling_efficiency={TRUTH['coupling']}",
    ]
    grid = Grid.box((0.0, 0.0, 0.0), (48, 48, 48), 1.2e-3)
    for power in (24, 28):
        case = build.load_case(None, [*BENCH, *truth, f"protocol.generator.power={power}"])
        problem, _ = build.build_problem(case)
        result = simulation.run(problem, select("cpu", 1))
        level = zone_level_set(result, "arrhenius", case.config.damage)
        assert level is not None
        write_zone(folder / f"zone_{power}.nii.gz", level.on(grid) > 0, grid)
    noise = np.random.default_rng(1).normal(size=len(result.traces.time))
    impedance = at_the_clamps(result.traces)["impedance_ohm"] * np.exp(0.02 * noise)
    rows = [f"{t:.1f},{z:.3f}" for t, z in zip(result.traces.time, impedance, strict=True) if np.isfinite(z)]
    (folder / "log.csv").write_text("\n".join(["time_s,impedance_Ohm", *rows]))
    return folder


def run(*words: object) -> int:
    try:
        return cli.main(["calibrate", *(str(word) for word in words)])
    except SystemExit as stop:
        return int(stop.code)


def bench(seen: Path, out: Path) -> list[str]:
    quoted = ",".join("'" + word.replace("'", "") + "'" for word in BENCH)
    return [
        "case=null",
        f"overrides=[{quoted}]",
        "spacing_mm=null",
        f"observation={seen / 'zone_28.nii.gz'}",
        f"output.directory={out}",
        f"parameters.perfusion.keys=[{LIVER}.perfusion_rate]",
        f"parameters.conductivity.keys=[{LIVER}.electrical_conductivity]",
        "residuals.zone_sd_mm=0.5",
        "residuals.log_sd=0.02",
        "residuals.log_correlation=10",
    ]


def test_a_twin_experiment_gives_its_values_back(seen, tmp_path):
    """From the literature's values to those the data were made with, within the stated uncertainty."""
    words = [*bench(seen, tmp_path / "out"), f"generator_log_file={seen / 'log.csv'}"]
    assert run(*words) == 0
    found = json.loads((tmp_path / "out" / "calibration.json").read_text())
    for name in ("perfusion", "conductivity"):
        one = found["parameters"][name]
        assert one["status"] == "fitted", name
        assert abs(math.log(one["value"] / TRUTH[name])) < 2.0 * one["log_sd"]
        assert one["log_sd"] < 0.35
        assert abs(math.log(one["value"] / one["start"])) > 2.0 * one["log_sd"]  # it has moved for a reason
    assert found["fit"]["converged"]
    (treatment,) = found["treatments"]
    before, after = treatment["before"]["held_out"], treatment["after"]["held_out"]
    assert after["zone"]["rms_mm"] < 0.5 * before["zone"]["rms_mm"]
    assert after["impedance_ohm"]["rms_log_ratio"] < 0.5 * before["impedance_ohm"]["rms_log_ratio"]
    # the case that is pasted is the one that was fitted
    case = build.load_case(None, [*BENCH, *found["overrides"], *found["kept"]])
    assert case.config.tissue.tissues["liver"].perfusion_rate == pytest.approx(
        found["parameters"]["perfusion"]["value"], rel=1e-5
    )
    page = (tmp_path / "out" / "report.html").read_text()
    assert str(seen) not in page + json.dumps(found)
    assert found["command"].startswith("thermosim simulate '~experiment'")


def test_the_zone_alone_does_not_tell_conductivity(seen, tmp_path, capfd):
    """At constant power σ hardly moves the zone: it is reported as not told, and kept where it was.

    Perfusion is told, and a whole treatment that was held out is met better than before.
    """
    zones = [seen / f"zone_{power}.nii.gz" for power in (28, 24)]
    treatments = (
        f"[{{name: first, observation: {zones[0]}}},{{name: second, observation: {zones[1]}, held_out: true, "
        "overrides: ['protocol.generator.power=24']}]"
    )
    words = [word for word in bench(seen, tmp_path / "out") if not word.startswith("observation=")]
    assert run(*words, f"treatments={treatments}", "~parameters.coupling", "output.report=false") == 0
    found = json.loads((tmp_path / "out" / "calibration.json").read_text())
    one = found["parameters"]["conductivity"]
    assert (one["status"], one["value"], one["ended_at"]) == ("not_told", None, 0.2)
    assert found["kept"] == [f"{LIVER}.electrical_conductivity=0.2"]
    assert found["parameters"]["perfusion"]["status"] == "fitted"
    before, after = (found["treatments"][1][when]["held_out"]["zone"] for when in ("before", "after"))
    assert found["treatments"][1]["before"]["fitted"] == {}
    assert after["rms_mm"] < 0.7 * before["rms_mm"]  # σ, 30 % off, is left there
    assert "conductivity: not told by the data" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("parameters.perfusion.keys=[grid.spacing_mm]", "cannot be fitted"),
        ("parameters.perfusion.keys=[]", "keys is empty"),
        (f"parameters.coupling.keys=[{LIVER}.perfusion_rate]", "belongs to two unknowns"),
        ("held_out.octants=[up]", "no octant"),
        ("held_out.log_share=1", "held_out.log_share"),
        ("fit.step=2", "fit.step"),
        ("residuals.zone_sd_mm=0", "zone_sd_mm"),
        ("residuals.log_quantities=[temperature_c]", "temperature_c"),
        ("parameter.perfusion.lower=1", "parameter"),
        ("fit.step=wide", "fit.step"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(change, expected):
    register({"calibrate_schema": CalibrateConfig})
    with pytest.raises(InputError, match=expected):
        check_calibration(typed(compose("calibrate", [change]), CalibrateConfig)[0])


def test_the_commands_of_the_readme_compose():
    register({"calibrate_schema": CalibrateConfig, "compare_schema": CompareConfig})
    text = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    found = [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("thermosim c")]
    seen = []
    for name, *words in found:
        if name == "compare":
            seen.append(typed(compose("compare", words), CompareConfig)[0].observation)
        if name == "calibrate":
            config = typed(compose("calibrate", words), CalibrateConfig)[0]
            check_calibration(config)
            seen.append(config.observation)
    assert seen == ["zone_on_ct.nii.gz"] * 4


def test_what_is_refused(seen, tmp_path, capfd):
    out = tmp_path / "out"
    words = bench(seen, out)
    (tmp_path / "late.csv").write_text("time_s,impedance_Ohm\n5000,80\n5010,81\n")
    far = Grid.box((0.3, 0.0, 0.0), (20, 20, 20), 1e-3)
    write_zone(tmp_path / "far.nii.gz", np.pad(np.ones((10, 10, 10), bool), 5), far)
    for more, expected in (
        ([f"observation={tmp_path / 'far.nii.gz'}"], "outside the computed box"),
        ([f"generator_log_file={tmp_path / 'late.csv'}"], "no time in common"),
        (["parameters.coupling.upper=1.2"], "bound 1.2 is no case"),
        (["parameters.perfusion.lower=0.02"], "must lie between its bounds"),
        (["parameters.perfusion.keys=[tissue.tissues.blood.perfusion_rate]"], "only what is positive"),
        (["parameters.perfusion.keys=[tissue.state]"], "only numbers"),
        (["treatments=[{name: b, observation: x.nii}]"], "beside treatments"),
        (["residuals.zone_correlation_mm=100"], "independent readings"),
    ):
        code = run(*(w for w in words if not any(w.startswith(m.split("=")[0] + "=") for m in more)), *more)
        lines = capfd.readouterr().err.strip().splitlines()
        assert code == 2, (more, lines)
        assert len(lines) == 1, lines
        assert expected in lines[0], lines
        assert not out.exists()
