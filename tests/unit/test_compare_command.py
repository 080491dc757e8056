"""`thermosim compare` from its files to its outputs, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import pyvista as pv
from dicom_cases import write_rtstruct, write_series

from thermosim import cli
from thermosim.anatomy.grid import Grid
from thermosim.config import DamageConfig
from thermosim.outcome.assess import assess
from thermosim.outcome.surface import extract_surface, moments
from thermosim.report.hdf5 import write_result
from thermosim.report.nifti import write_zone
from thermosim.report.result_file import read_run

_spec = importlib.util.spec_from_file_location(
    "synthetic_result", Path(__file__).with_name("synthetic_result.py")
)
assert _spec is not None
assert _spec.loader is not None
synthetic = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(synthetic)

RADIUS = 0.014


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A directory with the result of a ball-shaped zone around a tumour of 8 mm radius."""
    directory = tmp_path_factory.mktemp("run")
    grid = Grid.box((0.04, -0.03, 0.1), (44, 44, 44), 1e-3)
    tumors = {"tumor": synthetic.sphere_surface(0.008, (0.04, -0.03, 0.1), n=30)}
    result = synthetic.synthetic_result(
        grid, synthetic.sphere_level(grid, RADIUS, (0.04, -0.03, 0.1)), tumors=tumors
    )
    outcome = assess(result, DamageConfig())
    write_result(directory / "result.h5", result, outcome, {"damage": {"criterion": "arrhenius"}}, "ball")
    return directory


def observed(path: Path, center=(0.043, -0.03, 0.1), spacing=(0.8e-3, 0.8e-3, 1.6e-3), radius=RADIUS):
    shape = tuple(int(0.05 / h) for h in spacing)
    origin = tuple(c - 0.025 for c in center)
    grid = Grid(shape, spacing, origin)
    write_zone(path, synthetic.sphere_level(grid, radius, center) > 0, grid)
    return path


def compare(*words: object) -> int:
    try:
        return cli.main(["compare", *(str(word) for word in words)])
    except SystemExit as stop:
        return int(stop.code)


def test_a_run_against_a_mask(run, tmp_path, capfd):
    """Balls 3 mm apart: all criteria see the same ball, the page shows no path."""
    seen = observed(tmp_path / "john doe.nii.gz")
    out = tmp_path / "out"
    assert compare(f"prediction={run}", f"observation={seen}", f"output.directory={out}") == 0
    summary = json.loads((out / "summary.json").read_text())
    zone = summary["zones"]["arrhenius"]
    shared = np.pi * (2 * RADIUS - 3e-3) ** 2 * (9e-6 + 12e-3 * RADIUS) / (12 * 3e-3)
    ball = 4 / 3 * np.pi * RADIUS**3
    assert zone["dice"] == pytest.approx(shared / ball, abs=5e-3)
    assert zone["center_shift_lps_mm"] == pytest.approx([-3.0, 0.0, 0.0], abs=0.05)
    # the staircase of a mask leaves up to half a voxel at its poles
    assert zone["maximal_distance_mm"] == pytest.approx(3.0, abs=0.6)
    assert zone["falls_shortest"]["side"] == "left"
    assert zone["reaches_farthest"]["side"] == "right"
    assert summary["zones"]["cem43"]["dice"] == pytest.approx(zone["dice"], abs=5e-3)
    (tumor,) = summary["tumors"]
    assert tumor["minimal_ablative_margin_predicted_mm"] == pytest.approx(6.0, abs=0.05)
    assert tumor["minimal_ablative_margin_observed_mm"] == pytest.approx(3.0, abs=0.3)
    page = (out / "report.html").read_text()
    assert "falls shortest on the left side" in page
    for text in (page, json.dumps(summary)):
        assert "john" not in text
        assert str(tmp_path) not in text
    assert "Dice 0.8" in capfd.readouterr().out


def test_masks_alone_and_a_tumor_of_its_own(tmp_path):
    first = observed(tmp_path / "plan.nii.gz", center=(0.04, -0.03, 0.1))
    seen = observed(tmp_path / "seen.nii.gz", radius=0.012)
    tumor = observed(tmp_path / "tumor.nii.gz", center=(0.04, -0.03, 0.1), radius=0.007)
    out = tmp_path / "out"
    words = [f"prediction={first}", f"observation={seen}", f"tumor={tumor}", f"output.directory={out}"]
    assert compare(*words, "output.report=false") == 0
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary["zones"]) == ["mask"]
    assert summary["zones"]["mask"]["relative_volume_error"] == pytest.approx((14 / 12) ** 3 - 1, abs=0.03)
    assert summary["tumors"][0]["minimal_ablative_margin_error_mm"] == pytest.approx(5.0, abs=0.5)
    assert not (out / "report.html").exists()


def test_a_mesh_against_contours_on_a_ct(tmp_path):
    """STL planned, RTSTRUCT drawn on the control CT: balls of 14 and 13 mm, 2 mm apart."""
    center = np.array([0.0, -120.0, 430.0])
    planned = pv.Sphere(radius=14.0, center=(2.0, -120.0, 430.0), theta_resolution=60, phi_resolution=60)
    planned.save(tmp_path / "plan.stl")
    write_series(tmp_path / "ct", np.zeros((60, 70, 24), np.int16))
    contours = []
    for z in 400.0 + 2.5 * np.arange(24):
        ring = 13.0**2 - (z - center[2]) ** 2
        if ring > 1.0:
            turn = np.linspace(0, 2 * np.pi, 80, endpoint=False)
            round_ = np.sqrt(ring) * np.column_stack([np.cos(turn), np.sin(turn), 0 * turn])
            contours.append(np.array([center[0], center[1], z]) + round_)
    write_rtstruct(tmp_path / "zone.dcm", {"ablation": contours})
    words = [f"prediction={tmp_path / 'plan.stl'}", f"observation={tmp_path / 'zone.dcm'}"]
    out = tmp_path / "out"
    assert compare(*words, f"observation_ct={tmp_path / 'ct'}", f"output.directory={out}") == 0
    summary = json.loads((out / "summary.json").read_text())
    zone = summary["zones"]["mask"]
    assert zone["center_shift_lps_mm"] == pytest.approx([2.0, 0.0, 0.0], abs=0.15)
    assert zone["volume_error_ml"] == pytest.approx(4 / 3 * np.pi * (1.4**3 - 1.3**3), abs=0.4)
    # planes 2.5 mm apart: the contours end up to half of that below the poles
    assert zone["maximal_distance_mm"] == pytest.approx(3.0, abs=0.8)
    text = (out / "report.html").read_text() + json.dumps(summary)
    assert "Doe^" not in text
    assert "1.2.826" not in text


def test_what_is_refused(run, tmp_path, capfd):
    seen = observed(tmp_path / "seen.nii.gz")
    flipped = observed(tmp_path / "flipped.nii.gz", center=(-0.04, 0.03, 0.1))
    damaged = tmp_path / "result.h5"
    damaged.write_bytes((run / "result.h5").read_bytes()[:5000])
    empty = tmp_path / "nothing"
    empty.mkdir()
    for words, expected in (
        ([f"prediction={run}"], "observation"),
        ([f"prediction={run}", f"observation={flipped}"], "RAS taken for LPS"),
        ([f"prediction={run}", f"observation={seen}", "criterion=cem44"], "cem44"),
        ([f"prediction={seen}", f"observation={seen}", "criterion=cem43"], "leave criterion out"),
        ([f"prediction={damaged}", f"observation={seen}"], "damaged"),
        ([f"prediction={empty}", f"observation={seen}"], "no result.h5"),
        ([f"prediction={run}", f"observation={tmp_path / 'missing.nii.gz'}"], "missing.nii.gz"),
        ([f"prediction={run}", f"observation={seen}", "mesh_unit=inch"], "mesh_unit"),
        ([f"prediction={run}", f"observation={seen}", "observaton_ct=x"], "observaton_ct"),
    ):
        assert compare(*words, f"output.directory={tmp_path / 'out'}") == 2
        lines = capfd.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        assert expected in lines[0]
        assert not (tmp_path / "out").exists()


def test_zones_of_a_file_are_those_of_the_run(tmp_path):
    """Level sets read back: the same volumes; blood of an open vessel is left out of them."""
    grid = Grid.box((0.0, 0.0, 0.0), (40, 40, 40), 1e-3)
    points = synthetic.cell_points(grid)
    vessel = np.hypot(points[..., 0] - 4e-3, points[..., 1]) - 3e-3
    labels = np.where(vessel < 0, 3, 1).astype(np.uint8)
    level = synthetic.sphere_level(grid, RADIUS)
    result = synthetic.synthetic_result(grid, level, labels=labels, lumens=[("portal_vein", vessel)])
    outcome = assess(result, DamageConfig())
    write_result(tmp_path / "result.h5", result, outcome, {}, "case")
    kept = read_run(tmp_path / "result.h5")
    assert kept.criterion == outcome.criterion
    assert set(kept.tumors) == {tumor.name for tumor in outcome.tumors}
    for name, zone in outcome.zones.items():
        level_set = kept.zones[name]
        assert level_set is not None
        # the vessel of 6 mm is 0.7 ml of the ball's 11.5 ml; its wall is known from whole cells of 1 mm
        assert moments(extract_surface(level_set))[0] == pytest.approx(zone.volume, rel=0.02)
    assert outcome.zones["arrhenius"].volume < 0.95 * 4 / 3 * np.pi * RADIUS**3


def test_a_file_is_read_as_data(run, tmp_path):
    """A link out of the file is not followed."""
    copy = tmp_path / "result.h5"
    copy.write_bytes((run / "result.h5").read_bytes())
    with h5py.File(copy, "r+") as file:
        del file["fields/damage_integral"]
        file["fields/damage_integral"] = h5py.ExternalLink(str(run / "result.h5"), "fields/damage_integral")
    with pytest.raises(Exception, match="damaged or no result"):
        read_run(copy)
