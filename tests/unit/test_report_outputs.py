"""All outputs of a run: complete, documented, anonymous, whole or not at all."""

from __future__ import annotations

import dataclasses
import getpass
import json
import re
import runpy
import socket
import sys
import time
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import SimpleITK
from dicom_cases import write_series

from thermosim.anatomy.grid import Grid
from thermosim.config import OutputConfig
from thermosim.errors import InputError
from thermosim.report import scene, writer
from thermosim.report.atomic import replacing
from thermosim.report.hdf5 import write_result
from thermosim.report.meshes import scene_meshes
from thermosim.report.nifti import write_zone
from thermosim.report.poses import first_places, poses
from thermosim.report.summary import plain, summarize
from thermosim.report.zones import zone_mask

CASE = runpy.run_path(str(Path(__file__).with_name("report_case.py")))
make_case, make_log = CASE["make_case"], CASE["make_log"]
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "outputs.md"
NASTY = "A <script>alert(1)</script> & \"quoted\" 'case'"
BROKEN_OPENGL = [sys.executable, "-c", "import os; os.abort()"]


@pytest.fixture(scope="module")
def case():
    return make_case()


@pytest.fixture(scope="module")
def written(case, tmp_path_factory):
    """All files of a run, once for the whole module."""
    folder = tmp_path_factory.mktemp("outputs") / "new"
    source = tmp_path_factory.mktemp("patients") / "doe"
    grid = case[0].anatomy.grid
    corner = 1e3 * (grid.lower_corner - 0.01)
    size = np.ceil((1e3 * (grid.upper_corner + 0.01) - corner) / [2, 2, 4]).astype(int)
    write_series(
        source, np.zeros(size, np.int16), spacing=(2, 2, 4), origin=tuple(corner), patient="doe^jane"
    )
    options = OutputConfig(str(folder), dicom_source_directory=str(source))
    return writer.write_outputs(folder, *case, NASTY, options, make_log())


def test_every_file_is_there_and_nothing_else(written):
    folder = written["result"].parent
    assert {p.name for p in folder.iterdir()} == set(writer.FILES.values())
    assert {key: path.name for key, path in written.items()} == writer.FILES


def test_names_that_scripts_rely_on(written, case):
    result, outcome, _, _ = case

    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is not strict JSON")

    summary = json.loads(written["summary"].read_text(), parse_constant=refuse)
    assert summary["energy_audit"]["relative_error"] == result.audit.relative_error
    assert summary["electrical_power"]["relative_error"] == result.power_relative_error
    for name, zone in outcome.zones.items():
        # 1e-12: the factor 1e6 from m³ to mL rounds once.
        assert summary["ablation_zone"][name]["volume_ml"] == pytest.approx(1e6 * zone.volume, rel=1e-12)
    tumor, measured = summary["tumors"][0], outcome.tumors[0]
    assert tumor["name"] == "tumor"
    assert tumor["minimal_ablative_margin_mm"] == pytest.approx(1e3 * measured.margin.min(), rel=1e-12)
    share = measured.all_around.fraction_below[5]
    assert tumor["surface_fraction_margin_at_least_5mm"] == pytest.approx(1 - share, rel=1e-12)
    assert tumor["residual_volume_ml"] == pytest.approx(1e6 * measured.residual_volume, rel=1e-12)
    assert summary["impedance_ohm"] == {"initial": 62.0, "final": 91.0}
    assert summary["run"]["backend"] == "cpu"
    assert summary["run"]["solver_seconds"] == 12.5
    assert summary["run"]["cell_updates_per_second"] == pytest.approx(512 * 64**3 / 12.5)
    assert summary["settings"]["ground"] == "faces"


def test_a_missing_number_is_null(case):
    result, outcome, _, config = case
    result = dataclasses.replace(result, final_impedance=float("nan"))
    text = json.dumps(summarize(result, outcome, config, "t"), allow_nan=False)
    assert json.loads(text)["impedance_ohm"]["final"] is None
    assert plain({"a": np.array([np.inf, 1.0])}) == {"a": [None, 1.0]}


def key_paths(value, path=""):
    """Dotted keys of a summary, with [] for lists and placeholders for names."""
    free = {
        "ablation_zone": "<criterion>",
        "ablation_zone.<criterion>.distance_beyond_tips_mm": "<electrode>",
        "tumors[].margin_percentiles_mm": "<percent>",
        "tumors[].shell_coverage": "<distance>",
        "run.versions": "<package>",
        "generator.event_counts": "<kind>",
        "generator_log.deviation": "<quantity>",
    }
    whole = path.startswith(("settings.", "tumors[].without_capsule")) or (
        isinstance(value, list) and path.endswith(("_mm", "_s", "shape"))
    )
    if isinstance(value, dict) and not whole:
        for key, item in value.items():
            name = free.get(path, key)
            yield from key_paths(item, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and not whole:
        for item in value:
            yield from key_paths(item, f"{path}[]")
    else:
        yield path


def test_every_key_of_the_summary_is_documented(written):
    section = DOCUMENT.read_text().split("\n## summary.json\n")[1].split("\n## ")[0]
    documented = set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE))
    found = set(key_paths(json.loads(written["summary"].read_text())))
    assert found - documented == set()
    assert documented - found == set(), "documented but not written"


def test_every_dataset_is_documented_with_its_units(written):
    rows = dict(re.findall(r"^\| `([\w<>]+/[^`]+)` \| ([^|]+?) \|", DOCUMENT.read_text(), re.MULTILINE))
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            name = re.sub(r"^zones/.*", "zones/<criterion>", re.sub(r"tumor_\d+", "tumor_<n>", name))
            name = re.sub(r"^vessels/[^/]+", "vessels/<group>", name)
            assert item.attrs["long_name"]
            found[name] = item.attrs["units"]

    with h5py.File(written["result"]) as file:
        file.visititems(visit)
    assert found == rows


def test_fields_come_back_as_they_were(written, case):
    result, outcome, _, _ = case
    with h5py.File(written["result"]) as file:
        for name in (
            "temperature",
            "highest_temperature",
            "damage_integral",
            "thermal_dose",
            "dead_fraction",
        ):
            field = file["fields"][name]
            assert field.dtype == np.float32
            assert field.compression == "gzip"
            assert field.shuffle
            np.testing.assert_array_equal(field[:], getattr(result, name))
        np.testing.assert_array_equal(file["anatomy/labels"][:], result.anatomy.labels)
        np.testing.assert_array_equal(file["tumors/tumor_0/margin"][:], outcome.tumors[0].margin)
        cells = file["zones/arrhenius"][:].sum() * result.anatomy.grid.cell_volume
        # 3 %: the mask counts whole cells, the volume is sub-voxel and counts blood out differently.
        assert cells == pytest.approx(outcome.zones["arrhenius"].volume, rel=0.03)
        assert file["provenance/config"][()].decode().count("liver.nii.gz") == 1


def test_nothing_personal_in_any_file(written):
    words = [
        "jane",
        "doe^",
        "4711",
        "19520229",
        "acc-99",
        "House",
        "patients/doe",
        "/home",
        str(written["result"].parent),
    ]
    # A short name such as "root" also occurs by chance in a text.
    words += [name for name in (socket.gethostname(), getpass.getuser()) if len(name) > 4]
    contents = {key: path.read_bytes() for key, path in written.items() if key not in ("result", "scene")}
    with h5py.File(written["result"]) as file:
        texts = [str(v) for v in file.attrs.values()]
        file.visititems(lambda _, item: texts.extend(str(v) for v in item.attrs.values()))
        texts.append(file["provenance/config"][()].decode())
        contents["result"] = "\n".join(texts).encode()
    for key, content in contents.items():
        for word in words:
            assert word.encode() not in content, f"{word!r} in {key}"


def test_zone_mask_lies_right_for_both_readers(tmp_path):
    """A known LPS point is inside the mask when found through the affine of two independent readers."""
    direction = ((0.8, -0.6, 0.0), (0.6, 0.8, 0.0), (0.0, 0.0, 1.0))
    grid = Grid((12, 10, 8), (1e-3, 2e-3, 3e-3), (-0.07, 0.02, 0.11), direction)
    mask = np.zeros(grid.shape, bool)
    mask[7, 3, 5] = True
    point = 1e3 * grid.points(np.array([7, 3, 5]))
    path = tmp_path / "zone.nii.gz"
    write_zone(path, mask, grid)

    image = nibabel.load(path)
    assert image.get_data_dtype() == np.uint8
    ras = np.append(point * [-1, -1, 1], 1.0)
    for affine in (image.affine, image.get_qform(), image.get_sform()):
        # 1e-4 of a cell: NIfTI stores its affine in float32.
        np.testing.assert_allclose((np.linalg.inv(affine) @ ras)[:3], [7, 3, 5], atol=1e-4)
    other = SimpleITK.ReadImage(str(path))
    assert other[other.TransformPhysicalPointToIndex([float(c) for c in point])] == 1
    assert SimpleITK.GetArrayFromImage(other).sum() == 1


def test_zone_file_is_the_chosen_criterion(written, case):
    result, outcome, _, config = case
    stored = np.asarray(nibabel.load(written["zone"]).dataobj)
    np.testing.assert_array_equal(stored, zone_mask(result, outcome.criterion, config))
    assert 0 < stored.sum() < stored.size


def test_scene_shows_something(written):
    from matplotlib.image import imread

    picture = imread(written["scene"])
    assert picture.shape[0] >= 600
    # A blank picture has no spread; liver, zone and needles cover a good part of this one.
    assert np.mean(picture[..., :3].min(axis=-1) < 0.95) > 0.15


def test_a_crash_of_opengl_does_not_end_the_run(case, tmp_path, monkeypatch):
    (tmp_path / "scene.png").write_bytes(b"picture of an earlier run")
    real = scene.drawing
    monkeypatch.setattr(writer, "drawing", lambda path, meshes: real(path, meshes, BROKEN_OPENGL))
    files = writer.write_outputs(tmp_path, *case, "t", OutputConfig(str(tmp_path)))
    assert "scene" not in files
    assert not (tmp_path / "scene.png").exists()
    notes = json.loads(files["summary"].read_text())["notes"]
    assert any("no scene.png" in note and "OpenGL" in note for note in notes)
    assert "no scene.png" in files["report"].read_text()


def test_an_error_beside_the_drawing_stops_it(tmp_path):
    mesh = scene.SceneMesh("a", "A", "liver", "#888888", 1.0, np.eye(3), np.array([[0, 1, 2]]))
    slow = [sys.executable, "-c", "import time; time.sleep(30)"]
    start = time.perf_counter()
    with pytest.raises(InputError), scene.drawing(tmp_path / "s.png", [mesh], slow):
        raise InputError("the disk is full")
    assert time.perf_counter() - start < 10  # far below the 30 s that the program would take
    assert list(tmp_path.iterdir()) == []


def test_needles_that_are_pulled_back_are_shown_at_each_place(case):
    result, outcome, surfaces, config = case
    segments = [
        {"duration_min": 6.0, "pull_back_mm": 0.0},
        {"duration_min": 6.0, "pull_back_mm": 15.0},
    ]
    moving = {**config, "protocol": {**config["protocol"], "segments": segments}}
    first = tuple(electrode.moved(-0.015) for electrode in result.electrodes)
    result = dataclasses.replace(
        result,
        segment_times=((0.0, 360.0), (360.0, 720.0)),
        places=(first, result.electrodes),
    )
    assert poses(result) == [first, result.electrodes]
    assert first_places(result) == first
    assert summarize(result, outcome, moving, "t")["impedance_ohm"] == {"initial": None, "final": None}
    target = summarize(result, outcome, moving, "t")["electrodes"][0]["target_lps_mm"]
    np.testing.assert_allclose(target, 1e3 * np.asarray(first[0].target_point), atol=1e-9)  # the same
    still = len(scene_meshes(result, outcome, surfaces))
    assert len(scene_meshes(result, outcome, surfaces, [first])) == still + len(first)


def test_of_needles_in_turn_only_places_that_were_left_are_earlier_ones(case):
    result = case[0]
    one, *others = result.electrodes
    deep = one.moved(-0.01)
    serial = dataclasses.replace(result, places=((deep,), (one,), *((e,) for e in others)))
    assert poses(serial) == [(deep,), result.electrodes]
    assert first_places(serial) == (deep, *others)
    assert poses(dataclasses.replace(result, places=(result.electrodes,))) == [result.electrodes]


def test_a_hanging_or_missing_drawing_program_is_left_behind(case, tmp_path):
    mesh = scene.SceneMesh("a", "A", "liver", "#888888", 1.0, np.eye(3), np.array([[0, 1, 2]]))
    slow = [sys.executable, "-c", "import time; time.sleep(30)"]
    start = time.perf_counter()
    assert "longer than 1 s" in str(scene.draw_scene(tmp_path / "s.png", [mesh], slow, time_limit=1.0))
    assert time.perf_counter() - start < 10  # far below the 30 s that the program would take
    assert "did not start" in str(scene.draw_scene(tmp_path / "s.png", [mesh], ["no-such-program-here"]))
    assert list(tmp_path.iterdir()) == []


def test_switched_off_files_of_an_earlier_run_go(case, tmp_path):
    for name in (*writer.FILES.values(), "mine.txt"):
        (tmp_path / name).write_text("old")
    options = OutputConfig(str(tmp_path), False, False, False, mesh=False, markups=False)
    files = writer.write_outputs(tmp_path, *case, "t", options)
    assert set(files) == {"result", "summary"}
    assert {p.name for p in tmp_path.iterdir()} == {"result.h5", "summary.json", "mine.txt"}


def test_a_failure_leaves_the_old_file_and_no_part(case, tmp_path, monkeypatch):
    target = tmp_path / "result.h5"
    target.write_text("the old one")
    result, outcome, _, config = case
    broken = dataclasses.replace(
        outcome, criterion="arrhenius", zones={"no_such": outcome.zones["arrhenius"]}
    )
    with pytest.raises(InputError, match="no_such"):
        write_result(target, result, broken, config, "t")
    assert target.read_text() == "the old one"
    assert [p.name for p in tmp_path.iterdir()] == ["result.h5"]


def test_a_block_that_fails_leaves_nothing(tmp_path):
    def write_half():
        with replacing(tmp_path / "x.txt") as part:
            part.write_text("half")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_refused(case, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"output\.directory"):
        writer.write_outputs(tmp_path / "file" / "below", *case, "t", OutputConfig("x"))


def test_a_run_in_which_nothing_died(tmp_path):
    result, outcome, surfaces, config = make_case(heat=0.02, n_cells=32)
    files = writer.write_outputs(
        tmp_path, result, outcome, surfaces, config, "t", OutputConfig("x", scene=False)
    )
    summary = json.loads(files["summary"].read_text())
    assert summary["tumors"][0]["verdict"]["level"] == "residual"
    assert "Tumour not covered" in files["report"].read_text()
    assert np.asarray(nibabel.load(files["zone"]).dataobj).sum() == 0


def test_fields_of_two_million_cells_are_written_fast(case, tmp_path):
    result, outcome, _, config = case
    grid = Grid.box((0.0, 0.0, 0.1), (128, 128, 128), 1e-3)

    def doubled(array):
        return np.tile(array, (2, 2, 2))

    names = [f.name for f in dataclasses.fields(result) if getattr(getattr(result, f.name), "ndim", 0) == 3]
    anatomy = dataclasses.replace(
        result.anatomy,
        grid=grid,
        labels=doubled(result.anatomy.labels),
        liver_mask=doubled(result.anatomy.liver_mask),
    )
    large = dataclasses.replace(result, anatomy=anatomy, **{n: doubled(getattr(result, n)) for n in names})
    start = time.process_time()
    write_result(tmp_path / "result.h5", large, outcome, config, "t")
    spent = time.process_time() - start
    assert (tmp_path / "result.h5").stat().st_size > 1e7
    # Measured 1.6 to 2.4 s of processor time; shared cores differ by a factor of two.
    assert spent < 5.0
