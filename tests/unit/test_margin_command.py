"""`thermosim margin` from files to files: fusion, margin, page, and what is refused."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import pyvista as pv
import yaml

import thermosim
from thermosim import cli
from thermosim.config_margin import MarginConfig
from thermosim.errors import InputError

CASE = runpy.run_path(str(Path(__file__).with_name("fusion_case.py")))
ROOT = Path(__file__).resolve().parents[2]


def command(capfd, *words):
    try:
        code = cli.main(["margin", *words])
    except SystemExit as stop:
        code = stop.code
    out, err = capfd.readouterr()
    return code, out, err


def refused(capfd, *words):
    code, _, err = command(capfd, *words)
    assert code == 2
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    return lines[0]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("Doe_Jane (1970)")
    return CASE["write_case"](folder)


@pytest.fixture(scope="module")
def fused(files, tmp_path_factory):
    """One run with everything given."""
    names = ("tumor", "ablation", "liver", "liver_after", "ct_before", "ct_after")
    config = MarginConfig(title="Segment VI", **{name: str(files[name]) for name in names})
    config.fusion.landmarks = str(files["landmarks"])
    config.output.scene = False
    result = thermosim.measure_margin(config)
    directory = tmp_path_factory.mktemp("out")
    return result, result.save(directory), directory


def keys_of(value, path=""):
    """Keys of a summary as the documents write them."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from keys_of(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        yield from keys_of(value[0], f"{path}[]")
    else:
        yield path


def test_the_margin_after_a_fusion(fused):
    result, _, _ = fused
    tumor = result.summary["tumors"][0]
    # fusion 0.6 mm on CTs of 4 mm voxels, masks 0.2 mm
    assert tumor["minimal_ablative_margin_mm"] == pytest.approx(1e3 * CASE["exact_margin"](), abs=0.8)
    assert result.summary["fusion"]["landmark_error_after"]["mean_mm"] < 1.2
    assert result.summary["fusion"]["liver_overlap_after"] > 0.97
    before, after = (np.array(tumor[f"thinnest_point_{what}lps_mm"]) for what in ("", "after_"))
    assert np.linalg.norm(1e3 * CASE["to_after"](1e-3 * before) - after) < 1.5


def test_every_file_is_there_and_opens_elsewhere(fused):
    result, written, directory = fused
    names = {path.name for path in directory.iterdir()}
    assert names == {path.name for path in written.values()}
    assert names == {
        "summary.json",
        "config.yaml",
        "zone.nii.gz",
        "margin.nii.gz",
        "margin.vtp",
        "transform.tfm",
        "report.html",
    }
    mesh = pv.read(written["mesh"])
    margin = mesh.point_data["margin_mm"]
    assert margin.min() == pytest.approx(result.summary["tumors"][0]["minimal_ablative_margin_mm"])
    np.testing.assert_allclose(mesh.points * 1e-3, result.observation.tumor.surface.points, atol=1e-6)
    zone, tumor = (nib.load(path) for path in (written["zone"], result.config.tumor))
    np.testing.assert_allclose(zone.affine, tumor.affine, atol=1e-5)
    volume = np.count_nonzero(zone.get_fdata()) * abs(np.linalg.det(zone.affine[:3, :3])) / 1000
    # the tumour's image does not hold all of the zone of 36 mm: it is 40 mm wide
    assert volume == pytest.approx(result.summary["ablation_zone"]["observed"]["volume_ml"], rel=0.03)
    json.loads(written["summary"].read_text())
    assert yaml.safe_load(written["config"].read_text())["tumor"] == "given"


def test_nothing_personal_in_any_file(fused):
    _, written, _ = fused
    for path in written.values():
        data = path.read_bytes()
        for word in (b"Doe_Jane", b"(1970)", b"pytest-", b"before.nii", b"tumor.nii"):
            assert word not in data, f"{word!r} in {path.name}"


def test_every_key_of_the_summary_is_documented(fused):
    text = (ROOT / "docs" / "outputs.md").read_text()
    section = text.split("## thermosim margin")[1]
    shared = text.split("## summary.json")[1].split("\n## ")[0]
    documented = set(re.findall(r"^\| `([^`]+)`", section, re.MULTILINE))
    documented |= set(re.findall(r"^\| `((?:tumors|ablation_zone)[^`]+)`", shared, re.MULTILINE))
    for key in keys_of(fused[0].summary):
        plain = re.sub(r"^ablation_zone\.observed", "ablation_zone.<criterion>", key)
        plain = re.sub(r"margin_percentiles_mm\.\d+", "margin_percentiles_mm.<percent>", plain)
        plain = re.sub(r"shell_coverage\.\w+", "shell_coverage.<distance>", plain)
        plain = re.sub(r"\.versions\..*", ".versions.<package>", plain)
        plain = re.sub(r"^images\.\w+", "images.<what>", plain)
        plain = re.sub(r"without_capsule\..*", "without_capsule", plain)
        known = {plain, f"{plain}[]", plain.removesuffix(".distance_beyond_tips_mm") + ".description"}
        assert documented & known, key


def test_the_page_says_what_the_number_does_not_know(fused):
    page = fused[1]["report"].read_text()
    assert len(page.encode()) < 8e6
    for words in (
        "not a medical device",
        "What the number does not know",
        "The surface unfolded",
        "Chequerboard",
        "Overlap of the livers",
        "at 8 landmarks",
        "shrinks",
        "default-src 'none'",
    ):
        assert words in page, words
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", page)
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))
    assert [image["name"] for image in data["volume"]["images"]] == ["CT before", "CT after"]
    assert data["volume"]["board"] == [0, 1]
    assert {mesh["kind"] for mesh in data["meshes"]} == {"liver", "tumor", "mark", "zone"}


def test_without_cts_the_frames_are_taken_as_they_are(files, capfd, tmp_path):
    directory = tmp_path / "out"
    code, out, err = command(
        capfd,
        f"tumor={files['tumor']}",
        f"ablation={files['ablation_in_place']}",
        "output.scene=false",
        "shrinkage.linear_fraction=0.1",
        f"output.directory={directory}",
    )
    assert (code, err) == (0, "")
    assert f"report: {directory / 'report.html'}" in out
    summary = json.loads((directory / "summary.json").read_text())
    plain = summary["shrinkage"]["minimal_ablative_margin_without_correction_mm"]
    assert plain == pytest.approx(1e3 * CASE["exact_margin"](), abs=0.25)  # masks of 1 and 1.5 mm
    # the zone's ball grows from 18 to 20 mm
    assert summary["tumors"][0]["minimal_ablative_margin_mm"] == pytest.approx(plain + 2.0, abs=0.1)
    assert summary["fusion"]["method"] == "none"
    assert not (directory / "transform.tfm").exists()


def test_landmarks_alone_fuse(files):
    config = MarginConfig(tumor=str(files["tumor"]), ablation=str(files["ablation"]))
    config.fusion.method, config.fusion.landmarks = "landmarks", str(files["landmarks"])
    tumor = thermosim.measure_margin(config).summary["tumors"][0]
    assert tumor["minimal_ablative_margin_mm"] == pytest.approx(1e3 * CASE["exact_margin"](), abs=0.5)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "no value is given for ablation, tumor"),
        (["tumor={tumor}", "ablation=nowhere.nii.gz"], "nowhere.nii.gz"),
        (["tumr=1"], "tumr"),
        (["tumor={tumor}", "ablation={ablation}", "fusion.method=magic"], "'magic'"),
        (["tumor={tumor}", "ablation={ablation}", "fusion.method=rigid"], "needs ct_before and ct_after"),
        (["tumor={tumor}", "ablation={ablation}", "fusion.method=landmarks"], "fusion.landmarks"),
        (["tumor={tumor}", "ablation={ablation}", "ct_after={ct_after}"], "without ct_before"),
        (["tumor={tumor}", "ablation={ablation}", "shrinkage.linear_fraction=0.9"], "between 0 and 0.4"),
        (["tumor={tumor}", "ablation={ablation}", "mesh_frame=table"], "LPS or RAS"),
        (["tumor={tumor}", "tumor_segment=7", "ablation={ablation}"], "'7'"),
        (["tumor={ct_before}", "ablation={ablation}"], "label"),
    ],
)
def test_bad_inputs_are_one_line_and_leave_nothing(words, expected, files, capfd, tmp_path):
    directory = tmp_path / "out"
    given = [word.format(**files) for word in words]
    assert expected in refused(capfd, *given, f"output.directory={directory}")
    assert not directory.exists()


def write(path, mask, origin):
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[:3, 3] = np.asarray(origin) * [-1, -1, 1]
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), affine), path)
    return str(path)


def ball(center, radius=10, n=80):
    axes = np.stack(np.meshgrid(*(np.arange(n),) * 3, indexing="ij"), axis=-1)
    return np.linalg.norm(axes - center, axis=-1) < radius


@pytest.mark.parametrize(
    ("zone_center", "zone_origin", "words"),
    [
        ((40, 40, 40), (300, 0, 0), "do not overlap: 200 mm"),
        ((40, 40, 40), (-100, 20, -20), "over it with left and right exchanged"),
        ((40, 40, 40), (-100, -100, -20), "LPS against RAS"),
        ((40, 40, 40), (60, 60, 60), "lie between tumour and ablation zone"),
    ],
)
def test_frames_that_cannot_be_meant_are_refused(zone_center, zone_origin, words, tmp_path):
    """The tumour lies at (60, 60, 20) mm in a box from (20, 20, −20) on."""
    tumor = write(tmp_path / "t.nii.gz", ball((40, 40, 40)), (20, 20, -20))
    wide = np.pad(ball(zone_center, 14), 30) if "overlap" not in words else ball(zone_center, 14)
    origin = np.asarray(zone_origin) - (30 if "overlap" not in words else 0)
    zone = write(tmp_path / "z.nii.gz", wide, origin)
    with pytest.raises(InputError, match=words):
        thermosim.measure_margin(MarginConfig(tumor=tumor, ablation=zone))


def test_meshes_need_no_ct(tmp_path):
    """Two balls as STL, 4 mm apart all around less 1 mm aside."""
    files = {}
    for name, center, radius in (
        ("tumor", (10.0, -20.0, 30.0), 8.0),
        ("ablation", (11.0, -20.0, 30.0), 12.0),
    ):
        files[name] = str(tmp_path / f"{name}.stl")
        pv.Sphere(radius=radius, center=center, theta_resolution=90, phi_resolution=90).save(files[name])
    tumor = thermosim.measure_margin(MarginConfig(**files)).summary["tumors"][0]
    # voxels of 0.5 mm
    assert tumor["minimal_ablative_margin_mm"] == pytest.approx(3.0, abs=0.12)
    assert tumor["volume_ml"] == pytest.approx(4 / 3 * np.pi * 0.8**3, rel=0.01)


def test_help_has_keys_and_an_example(capfd):
    code, out, _ = command(capfd, "--help")
    assert code == 0
    assert "thermosim margin tumor=tumor.nii.gz ablation=zone.nii.gz" in out
    for key in ("tumor_segment", "ct_before", "maximum_rotation_deg", "linear_fraction"):
        assert key in out
