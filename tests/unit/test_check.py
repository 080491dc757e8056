"""`thermosim check` from the command line to its files: verdicts, exit codes, estimate, simulation."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from thermosim.cli import main
from thermosim.commands import check
from thermosim.config import ApplicatorConfig, ProtocolConfig, SegmentConfig, TissueConfig, TissueProperties
from thermosim.config_check import CheckCaseConfig, RulesConfig, ZoneConfig
from thermosim.errors import InputError
from thermosim.plan.zone_estimate import ellipsoid, estimate, exponent
from thermosim.resources import config_directory

BLOCK = [
    "experiment=null",
    "anatomy=block",
    "anatomy.size_mm=[120,120,120]",
    "anatomy.tumors=[{diameter_mm: 14}]",
    "layout.pattern=null",
    "layout.frame=patient",
    "tissue=in_vivo_human",
]
VEIN = "anatomy.tubes=[{diameter_mm:8,start_mm:[-70,0,40],end_mm:[70,0,40]}]"
NEEDLE = "layout.needles=[{name:a,target_mm:[0,0,-15],entry_mm:[0,0,100]}]"
QUIET = [
    "output.scene=false",
    "output.report=false",
    "output.progress=false",
    "check.estimate_spacing_mm=4",
    "layout.minimum_gap_mm=0.5",
]


def run(tmp_path: Path, *words: str) -> tuple[int, dict]:
    code = command(*BLOCK, *QUIET, f"output.directory={tmp_path}", *words)
    return code, json.loads((tmp_path / "check.json").read_text())


def command(*words: str) -> int:
    """The exit code of `thermosim check`, however it comes."""
    try:
        return main(["check", *words])
    except SystemExit as error:
        return int(error.code)  # type: ignore[arg-type]


def of(summary: dict, key: str) -> dict:
    return next(rule for rule in summary["rules"] if rule["key"] == key)


def key_paths(value, path=""):
    if isinstance(value, dict) and path not in ("counts", "versions"):
        for key, item in value.items():
            yield from key_paths(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and not path.endswith(("_mm", "segments")):
        for item in value:
            yield from key_paths(item, f"{path}[]")
    else:
        yield path


def test_a_plan_that_keeps_all_limits_passes(tmp_path, capsys):
    code, summary = run(tmp_path, NEEDLE, "rules.estimated_margin_mm.warn=-1")
    assert (code, summary["verdict"], summary["exit_code"]) == (0, "pass", 0)
    assert of(summary, "organs.lung")["verdict"] == "not judged"
    assert of(summary, "simulated_margin_mm")["findings"][0]["lacks_anatomy"] is False
    said = capsys.readouterr().out
    assert "NOT JUDGED Clear of lung: the anatomy has none" in said
    assert "verdict: pass" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["check.json", "config.yaml"]


def test_warnings_have_an_exit_code_of_their_own(tmp_path):
    code, summary = run(tmp_path, NEEDLE, "rules.depth_mm.warn=100")
    assert (code, summary["verdict"]) == (4, "warn")
    assert of(summary, "depth_mm")["findings"][0]["value"] == pytest.approx(115.0)


def test_a_vessel_in_the_way_fails_in_table_file_and_page(tmp_path, capsys):
    code, summary = run(tmp_path, NEEDLE, VEIN, "output.report=true", "title='A <plan>'")
    assert (code, summary["verdict"]) == (5, "fail")
    finding = of(summary, "vessel_diameter_mm")["findings"][0]
    assert finding["value"] == pytest.approx(8.0)
    assert finding["places_lps_mm"][0] == pytest.approx(
        [0, 0, 40], abs=5.0
    )  # half its width, and the needle's
    assert "FAIL       Widest vessel that a needle passes: 8.0 mm" in capsys.readouterr().out
    page = (tmp_path / "report.html").read_text()
    assert "The plan breaks at least one rule" in page
    assert "A &lt;plan&gt;" in page
    assert "Places that fail" in page
    assert "portal vein where it is 8.0 mm wide" in page
    assert "http" not in page.split('<script type="application/json"')[0].replace("http-equiv", "")
    text = (Path(__file__).resolve().parents[2] / "docs" / "outputs.md").read_text()
    documented = set(re.findall(r"^\| `check\.json/([^`]+)` \|", text, re.MULTILINE))
    assert {*key_paths(summary), "notes[]"} == documented


def test_what_nobody_could_judge_warns_if_wanted():
    overrides = [*BLOCK[1:], *QUIET, NEEDLE, "rules.not_judged=warn", "rules.estimated_margin_mm.warn=-1"]
    checked = check.check(check.load(None, overrides))
    assert (checked.exit_code, checked.outcome.verdict, checked.outcome.counts["warn"]) == (4, "warn", 0)


def test_touching_needles_fail_by_a_rule_and_are_no_bad_input():
    both = NEEDLE[:-1] + ",{name:b,target_mm:[1,0,-15],entry_mm:[1,0,100]}]"
    checked = check.check(check.load(None, [*BLOCK[1:], *QUIET, both, "check.simulate=quick"]))
    assert checked.exit_code == 5
    results = {result.key: result for result in checked.outcome.results}
    assert results["needle_gap_mm"].findings[0].value == pytest.approx(1.0 - 1.47, abs=1e-9)
    assert results["simulated_coverage"].verdict == "not judged"
    assert "touch" in results["simulated_coverage"].findings[0].sentence


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check.simulate=true"], "check.simulate='True' is not known; use none, quick or full"),
        (["rules.depth_mm.warm=300"], "warm"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys, words, said):
    code = command(*BLOCK, *QUIET, f"output.directory={tmp_path / 'x'}", NEEDLE, *words)
    err = capsys.readouterr().err
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "x" / "check.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rules.depth_mm.warn=300"], r"rules\.depth_mm: fail=250 is stricter than warn=300"),
        (["rules.organs.lung.fail_mm=9"], r"rules\.organs\.lung: fail=9 is stricter than warn=2"),
        (["rules=mild"], "mild"),
        (["rules.not_judged=fail"], "rules.not_judged='fail'"),
        (["rules.zone.beside_mm=0"], r"rules\.zone\.beside_mm=0 is refused"),
        (["check.estimate_spacing_mm=0.01"], r"check\.estimate_spacing_mm=0\.01 is refused"),
        (["protocol.serial=groups", "protocol.groups=[[z]]"], "'z' is not in the layout"),
        (["layout.needles=[]"], r"layout\.needles is empty"),
    ],
)
def test_plans_and_limits_that_cannot_be_are_refused(words, said):
    with pytest.raises(InputError, match=said):
        check.check(check.load(None, [*BLOCK[1:], *QUIET, NEEDLE, *words]))


def test_a_quick_simulation_is_judged_and_kept(tmp_path):
    short = [
        "check.simulate=quick",
        "check.quick_spacing_mm=5",
        "grid.size_mm=[60,60,80]",
        "protocol.segments=[{duration_min:0.05}]",
        "protocol.cooling_after_min=0",
        "backend.name=cpu",
        "backend.threads=1",
        "output.nifti=false",
    ]
    code, summary = run(tmp_path, NEEDLE, *short)
    assert code == 5
    share = of(summary, "simulated_coverage")
    assert share["verdict"] == "fail"  # three seconds kill nothing
    assert share["findings"][0]["value"] == 0.0
    assert summary["simulation"] == "simulation"
    assert (tmp_path / "simulation" / "summary.json").is_file()
    assert any("grid of 5 mm" in note for note in summary["notes"])
    assert any("shorter than 12 min" in note for note in summary["notes"])


def test_twenty_positions_are_checked(tmp_path):
    needles = ",".join(
        f"{{name:p{k},target_mm:[{6 * (k % 5) - 12},{6 * (k // 5) - 9},-15],"
        f"entry_mm:[{6 * (k % 5) - 12},{6 * (k // 5) - 9},85]}}"
        for k in range(20)
    )
    segments = "protocol.segments=[{duration_min:6},{duration_min:6,pull_back_mm:15}]"
    code, summary = run(tmp_path, f"layout.needles=[{needles}]", segments, "protocol.serial=needles")
    assert code == 4
    assert of(summary, "positions")["findings"][0]["value"] == 20
    assert len(summary["burns"]) == 40
    assert of(summary, "capsule_punctures")["findings"][0]["value"] == 20
    assert of(summary, "pull_back_overlap_mm")["findings"][0]["value"] == pytest.approx(15.0)
    assert of(summary, "estimated_coverage")["findings"][0]["value"] == pytest.approx(1.0)


# ---------------------------------------------------------------------------- configs


def commands_of_the_readme() -> list[list[str]]:
    """Words of each `thermosim check` that the README shows, without its remark."""
    text = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    found = re.findall(r"^thermosim check (.*)$", text, re.MULTILINE)
    return [line.partition("#")[0].split() for line in found]


@pytest.mark.parametrize("words", commands_of_the_readme(), ids=" ".join)
def test_commands_of_the_readme_compose(words):
    single = [re.sub(r"=([^,]+),.*", r"=\1", word) for word in words if not word.startswith("--")]
    experiments = [word.partition("=")[2] for word in single if word.startswith("experiment=")]
    others = [word for word in single if not word.startswith("experiment=")]
    settings = check.load(experiments[0] if experiments else "demo", others)
    assert check.typed(settings, CheckCaseConfig)[0].rules.organs


def test_the_root_of_the_check_is_that_of_simulate_with_rules():
    roots = {
        name: yaml.safe_load((config_directory() / f"{name}.yaml").read_text())
        for name in ("config", "check")
    }

    def groups(name: str) -> list:
        skipped = ({"rules": "default"}, "simulation_schema", "check_schema")
        return [
            entry
            for entry in roots[name]["defaults"]
            if entry not in skipped and "hydra/help" not in str(entry)
        ]

    assert groups("check") == groups("config")
    assert {k: v for k, v in roots["check"].items() if k != "defaults"} == {
        k: v for k, v in roots["config"].items() if k != "defaults"
    }


@pytest.mark.parametrize("option", ["default", "strict"])
def test_every_limit_has_a_source_and_both_sides_agree(option):
    rules = check.typed(check.load("quick", [f"rules={option}"]), CheckCaseConfig)[0].rules
    assert isinstance(rules, RulesConfig)
    for name, limit in vars(rules).items():
        if hasattr(limit, "warn"):
            assert limit.source, name
            assert limit.warn is not None, name
            assert limit.fail is not None, name
    assert all(organ.names and organ.source for organ in rules.organs.values())
    assert list(rules.organs)[-1] == "others_at_risk"  # it takes what no other names


def test_strict_limits_are_no_milder():
    limits = {
        option: check.typed(check.load("quick", [f"rules={option}"]), CheckCaseConfig)[1]["rules"]
        for option in ("default", "strict")
    }
    at_least = ("gap", "overlap", "before", "coverage", "margin")
    for name, limit in limits["default"].items():
        if not isinstance(limit, dict) or "warn" not in limit:
            continue
        sign = 1 if any(word in name for word in at_least) else -1
        for side in ("warn", "fail"):
            assert sign * limits["strict"][name][side] >= sign * limit[side], (name, side)


# ---------------------------------------------------------------------------- the fast estimate

TISSUE = TissueConfig(
    state="test",
    tissues={
        "liver": TissueProperties(
            density=1000.0,
            specific_heat_capacity=4000.0,
            thermal_conductivity=0.5,
            electrical_conductivity=0.2,
            perfusion_rate=0.005,
        )
    },
)


def test_an_ellipsoid_reaches_beside_and_beyond_the_metal():
    from plan_case import needle, plan

    place = plan(needle("a", [0, 0, -15], [0, 0, 100])).places[0]
    zone = ellipsoid(place, ZoneConfig(10.0, 3.0, 12.0), 12.0)
    assert zone.center == pytest.approx([0, 0, 0], abs=1e-12)
    assert (zone.along, zone.across) == pytest.approx((0.018, 0.01075))
    half = ellipsoid(place, ZoneConfig(10.0, 3.0, 12.0), 3.0)
    assert (half.along, half.across) == pytest.approx((0.0165, 0.00575))
    assert zone.kappa(np.array([[0, 0, 0.018], [0.01075, 0, 0]])) == pytest.approx([1.0, 1.0])


def test_the_exponent_is_that_of_a_point_source():
    perfused = 0.005 * 1050.0 * 3617.0 / 0.5  # 1/m²
    n = exponent(TISSUE, 0.01, 720.0)
    assert n == pytest.approx(1 + 0.01 * np.sqrt(perfused + 1 / (0.5 / 4e6 * 720.0)))
    assert exponent(TISSUE, 0.01, 1e9) == pytest.approx(1 + 0.01 * np.sqrt(perfused), rel=1e-4)


@pytest.mark.parametrize(("drive", "adds"), [("together", True), ("switching", True), ("sequence", False)])
def test_heat_adds_up_only_of_needles_that_burn_together(drive, adds):
    from plan_case import needle, plan

    needles = [needle("a", [-12, 0, -15], [-12, 0, 90]), needle("b", [12, 0, -15], [12, 0, 90])]
    protocol = ProtocolConfig(segments=[SegmentConfig(24.0 if drive == "sequence" else 12.0, drive)])
    checked = plan(*needles, protocol=protocol)
    zone = estimate(checked, TISSUE)
    middle = np.zeros((1, 3))  # 12 mm from both axes, beyond the 10.75 mm of each
    assert bool(zone.level(middle)[0] > 0) is adds
    (one, _), *_ = zone.burns
    n = exponent(TISSUE, 0.01, 720.0)
    kappa = 12.0 / 10.75
    wanted = 0.01075 * (1 - kappa * (2 ** (-1 / n) if adds else 1.0))
    assert zone.level(middle)[0] == pytest.approx(wanted, rel=1e-9)
    assert len(one) == (2 if adds else 1)


def test_tines_make_a_zone_around_their_span():
    from plan_case import needle, plan

    tines = ApplicatorConfig(
        name="starburst", kind="tines", radius_mm=1.1, active_length_mm=5.0, n_tines=9, deployment_mm=30.0
    )
    place = plan(needle("a", [0, 0, 15], [0, 0, 100]), device=tines).places[0]
    zone = ellipsoid(place, ZoneConfig(10.0, 3.0, 12.0), 12.0)
    assert zone.across == pytest.approx(0.018, abs=1e-3)  # half of 30 mm, and 3 mm


def test_a_ball_in_its_own_zone_has_the_margin_between_two_ellipsoids():
    """Estimate, level set and margin engine together against a closed form along the short axis."""
    settings = check.load(
        None,
        [
            *BLOCK[1:],
            NEEDLE,
            "protocol.segments=[{duration_min:12}]",
            "anatomy.tumors=[{diameter_mm: 10}]",
            "check.estimate_spacing_mm=1",
        ],
    )
    outcome = check.check(settings).outcome
    (tumor,) = outcome.tumors
    # nearest surface of the zone to a ball around its centre: across, 10 mm + 0.735 mm − 5 mm
    assert 1e3 * tumor.all_around.minimum == pytest.approx(10.735 - 5.0, abs=0.1)  # a tenth of a cell
    assert tumor.coverage == pytest.approx(1.0)


# ---------------------------------------------------------------------------- a real patient


def test_the_plan_of_a_real_patient(data_dir, tmp_path, monkeypatch):
    if not (data_dir / "geometry" / "scikit_liver").is_dir():
        pytest.skip("the public liver is not among the real data")
    monkeypatch.setenv("THERMOSIM_DATA", str(data_dir / "geometry"))
    words = ["experiment=scikit_liver_tumor", *QUIET]
    code = command(*words, f"output.directory={tmp_path}")
    summary = json.loads((tmp_path / "check.json").read_text())
    assert code == summary["exit_code"]
    # the layout says: "they cross no vessel, cyst or gallbladder, and 64 to 80 mm of each lie in the liver"
    assert of(summary, "vessel_diameter_mm")["findings"][0]["value"] == 0.0
    assert of(summary, "organs.gallbladder")["verdict"] == "pass"
    for needle in summary["needles"]:
        inside = [part for part in needle["passes"] if part["structure"] == "liver"]
        assert 60.0 < sum(part["to_mm"] - part["from_mm"] for part in inside) < 85.0
        assert not [part for part in needle["passes"] if part["structure"] == "cysts"]
    assert of(summary, "metal_outside_liver_mm")["verdict"] == "pass"


def test_unknown_options_of_the_python_interface_are_refused():
    with pytest.raises(InputError, match="nowhere"):
        check.load("nowhere")
