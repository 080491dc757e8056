"""Needles in the wrong frame or order are refused, with the reading that would fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from thermosim.anatomy.clinical_files import MaskImage, read_mask
from thermosim.anatomy.frames import box_of
from thermosim.anatomy.grid import Grid
from thermosim.applicators.pose_files import read_poses
from thermosim.build import lay_out, load_case
from thermosim.config import NeedleConfig
from thermosim.errors import InputError
from thermosim.report.nifti import write_zone

LINE = ["grid.spacing_mm=4", "layout=from_file", "anatomy=block"]
LINE += ["+anatomy.tumors=[{name: tumor, diameter_mm: 20, center_mm: [60, 30, 10]}]"]
LINE += ["anatomy.size_mm=[80,80,80]", "anatomy.center_mm=[60,30,10]"]


def plan(path: Path, tip: list[float], entry: list[float], frame: str = "LPS") -> str:
    """A markup file with one line, and the setting that names it."""
    points = [{"label": "a", "position": tip}, {"label": "b", "position": entry}]
    line = {"type": "Line", "name": "one", "coordinateSystem": frame, "controlPoints": points}
    path.write_text(json.dumps({"markups": [line]}))
    return f"layout.path={path}"


def test_a_plan_is_taken_over_with_its_points(tmp_path: Path) -> None:
    words = [*LINE, plan(tmp_path / "plan.mrk.json", [-62, -31, 8], [-62, -31, 98], "RAS")]
    (electrode,) = lay_out(load_case("quick", words)).electrodes
    assert electrode.name == "one"
    assert electrode.target_point == pytest.approx((0.062, 0.031, 0.008))
    assert electrode.entry_point == pytest.approx((0.062, 0.031, 0.098))


def test_a_flip_is_named(tmp_path: Path) -> None:
    words = [*LINE, plan(tmp_path / "plan.mrk.json", [-62, -31, 8], [-62, -31, 98])]
    with pytest.raises(
        InputError, match=r"85 mm outside the block; read as RAS .* set layout.coordinates=RAS"
    ):
        lay_out(load_case("quick", words))
    assert lay_out(load_case("quick", [*words, "layout.coordinates=RAS"])).electrodes


def test_needles_outside_everything(tmp_path: Path) -> None:
    words = [*LINE, plan(tmp_path / "plan.mrk.json", [60, 300, 0], [60, 300, 100])]
    with pytest.raises(InputError, match=r"230 mm outside the block; .* would not fit either"):
        lay_out(load_case("quick", words))


def test_a_swapped_order_is_named(tmp_path: Path) -> None:
    words = [*LINE, plan(tmp_path / "plan.mrk.json", [62, 31, 98], [62, 31, 8])]
    with pytest.raises(InputError, match=r"they seem exchanged: set layout.order=entry_first"):
        lay_out(load_case("quick", words))
    (electrode,) = lay_out(load_case("quick", [*words, "layout.order=entry_first"])).electrodes
    assert electrode.target_point == pytest.approx((0.062, 0.031, 0.008))


def test_needles_typed_in_are_checked_as_well() -> None:
    words = [*LINE, "layout=explicit", "layout.frame=patient"]
    words += ["layout.needles=[{name: a, target_mm: [-60, -30, 0], entry_mm: [-60, -30, 90]}]"]
    with pytest.raises(InputError, match=r"given in RAS they would cross it: points are LPS"):
        lay_out(load_case("quick", words))


@pytest.fixture(scope="module")
def tumor(data_dir: Path) -> MaskImage:
    """The tumour of a real plan, cut out of its large image."""
    mask = read_mask(data_dir / "importers" / "markups" / "tumor.seg.nrrd")
    box = box_of(mask.mask)
    assert box is not None
    start, end = box[0] - 2, box[1] + 3
    grid = Grid(tuple(end - start), mask.grid.spacing, tuple(mask.grid.points(start)), mask.grid.direction)
    return MaskImage(grid, mask.mask[tuple(slice(a, b) for a, b in zip(start, end, strict=True))], "tumor")


def distance(needle: NeedleConfig, places: cKDTree) -> float:
    """Smallest distance [mm] between a needle and some places."""
    steps = np.linspace(0.0, 1.0, 400)[:, None]
    line = np.asarray(needle.target_mm) * (1 - steps) + np.asarray(needle.entry_mm) * steps
    return float(places.query(line)[0].min())


def test_the_needles_of_a_real_plan_cross_its_tumor(data_dir: Path, tumor: MaskImage) -> None:
    path = data_dir / "importers" / "markups" / "Endpoints.mrk.json"
    places = cKDTree(1e3 * tumor.grid.points(np.argwhere(tumor.mask)))
    needles = read_poses(path)
    assert len(needles) == 3
    assert max(distance(needle, places) for needle in needles) < 1.0
    for needle, wrong in zip(needles, read_poses(path, coordinates="RAS"), strict=True):
        assert wrong.target_mm == [-needle.target_mm[0], -needle.target_mm[1], needle.target_mm[2]]
        assert distance(wrong, places) > 30.0


def test_a_real_plan_in_the_wrong_frame_is_refused(data_dir: Path, tumor: MaskImage, tmp_path: Path) -> None:
    document = json.loads((data_dir / "importers" / "markups" / "Endpoints.mrk.json").read_text())
    points = document["markups"][0]["controlPoints"]
    document["markups"][0]["controlPoints"] = points[:2]  # its needles cross: they were placed one by one
    path = tmp_path / "plan.mrk.json"
    path.write_text(json.dumps(document))
    write_zone(tmp_path / "tumor.nii.gz", tumor.mask, tumor.grid)
    words = ["grid.spacing_mm=4", "layout=from_file", f"layout.path={path}", "anatomy=label_map"]
    words += ["+anatomy.segments={1: {name: tumor, tissue: tumor, role: tumor}}"]
    words += [f"anatomy.path={tmp_path / 'tumor.nii.gz'}"]
    (electrode,) = lay_out(load_case("quick", words)).electrodes
    assert np.allclose(electrode.target_point, 1e-3 * np.array(points[0]["position"]), atol=1e-8)
    with pytest.raises(InputError, match=r"32 mm away from the tumor; read as LPS instead of"):
        lay_out(load_case("quick", [*words, "layout.coordinates=RAS"]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["layout=from_file"], r"no value is given for layout.path"),
        (["layout.path=a.csv"], r"choose layout=from_file"),
        (["layout=from_file", "layout.path=a.csv", "layout.frame=tumor"], r"points are of the images"),
        (["layout=from_file", "layout.path=a.csv", "layout.order=any"], r"layout.order='any'"),
        (["layout=from_file", "layout.path=a.csv", "layout.coordinates=XYZ"], r"layout.coordinates='XYZ'"),
    ],
)
def test_contradictions_in_the_layout(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_case("quick", words)
