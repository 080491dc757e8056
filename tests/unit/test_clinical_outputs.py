"""Zone, margin and layout for other programs: written, read back by another library, same geometry."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import highdicom
import jsonschema
import numpy as np
import pydicom
import pytest
import pyvista as pv
import SimpleITK as sitk
from dicom_cases import FRAME, STUDY, write_series
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.anatomy.clinical_files import read_mask
from thermosim.anatomy.dicom_series import SeriesGeometry, series_geometry
from thermosim.anatomy.grid import Grid
from thermosim.anatomy.label_map import LabelMapSource
from thermosim.anatomy.mesh import from_polydata
from thermosim.applicators.electrode import Electrode
from thermosim.applicators.pose_files import read_poses
from thermosim.build import load_case, simulate
from thermosim.commands.margin import check_margin, measure_margin
from thermosim.config import LabelMapAnatomyConfig, StructureConfig
from thermosim.config_margin import FusionConfig, MarginConfig, MarginOutputConfig
from thermosim.errors import InputError
from thermosim.outcome.level_set import LevelSet
from thermosim.outcome.results import MarginStatistics, TumorMargin
from thermosim.report.dicom_seg import MASS, NECROSIS, SegmentSource, check_source, write_segmentation
from thermosim.report.margin_mesh import write_margin_mesh
from thermosim.report.markups import write_layout
from thermosim.report.nifti import write_margin

TURN = np.deg2rad(12.0)
OBLIQUE = (np.cos(TURN), np.sin(TURN), 0.0, -np.sin(TURN), np.cos(TURN), 0.0)
CENTER = np.array([0.004, -0.130, 0.4137])
RADIUS = 0.0123


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("series")
    write_series(folder, np.zeros((60, 56, 12), np.int16), orientation=OBLIQUE)
    return folder


@pytest.fixture(scope="module")
def geometry(source: Path) -> SeriesGeometry:
    return series_geometry(source)


def ball() -> LevelSet:
    """A ball on a fine grid of its own."""
    grid = Grid.box(tuple(CENTER), (34, 34, 34), 0.001)
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    distance = np.linalg.norm(grid.points(index) - CENTER, axis=-1)
    return LevelSet(grid, (RADIUS - distance).astype(np.float32))


def tumor_surface(fineness: int = 3) -> TriangleSurface:
    return from_polydata(pv.Icosphere(radius=0.006, center=CENTER, nsub=fineness))


def distances(grid: Grid) -> NDArray[np.float64]:
    """Of every voxel's centre to the ball's."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    return np.linalg.norm(grid.points(index) - CENTER, axis=-1)


def segments() -> list[SegmentSource]:
    return [SegmentSource("Ablation zone", NECROSIS, ball()), SegmentSource("tumor", MASS, tumor_surface())]


@pytest.fixture(scope="module")
def written(geometry: SeriesGeometry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("out") / "zone.dcm"
    assert write_segmentation(path, segments(), geometry)
    return path


def test_highdicom_finds_the_zone_where_it_is(written: Path, geometry: SeriesGeometry) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seg = highdicom.seg.segread(written)
        volume = seg.get_volume(segment_numbers=[1], combine_segments=True)
    assert seg.FrameOfReferenceUID == FRAME
    assert seg.StudyInstanceUID == STUDY
    references = {
        item.ReferencedSOPInstanceUID for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    own = {str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in geometry.files}
    assert references <= own
    points = volume.map_indices_to_reference(np.argwhere(np.ones(volume.shape, bool)))
    index = np.rint(geometry.grid.indices(1e-3 * points)).astype(int)
    assert np.abs(1e3 * geometry.grid.points(index) - points).max() < 0.01  # mm
    expected = distances(geometry.grid)
    inside = volume.array.reshape(-1) > 0
    away = np.abs(expected[tuple(index.T)] - RADIUS) > 1e-4  # linear interpolation of the ball's level
    assert (inside == (expected[tuple(index.T)] < RADIUS))[away].all()
    assert inside.sum() > 1000


def test_our_reader_finds_the_same(written: Path, geometry: SeriesGeometry) -> None:
    zone, tumor = read_mask(written, "Ablation zone"), read_mask(written, "tumor")
    assert zone.frame_of_reference == FRAME
    assert tumor.mask.sum() * tumor.grid.cell_volume == pytest.approx(4 / 3 * np.pi * 0.006**3, rel=0.05)
    distance = distances(zone.grid)
    away = np.abs(distance - RADIUS) > 1e-4
    assert (zone.mask == (distance < RADIUS))[away].all()


def test_the_patient_is_named_only_when_asked(
    written: Path, geometry: SeriesGeometry, tmp_path: Path
) -> None:
    words = (b"Doe", b"4711", b"19520229", b"acc-99", b"House")
    content = written.read_bytes()
    assert [word for word in words if word in content] == []
    anonymous = pydicom.dcmread(written)
    assert anonymous.PatientIdentityRemoved == "YES"
    assert anonymous.PatientName == "" == anonymous.StudyDate
    assert write_segmentation(tmp_path / "zone.dcm", segments(), geometry, keep_identity=True)
    named = pydicom.dcmread(tmp_path / "zone.dcm")
    assert (named.PatientName, named.PatientID, named.AccessionNumber) == ("Doe^Jane", "id-4711", "acc-99")
    assert "PatientIdentityRemoved" not in named


def test_libraries_log_nothing_of_the_patient(
    geometry: SeriesGeometry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        write_segmentation(tmp_path / "zone.dcm", segments(), geometry)
    assert caplog.text == ""


def test_nothing_to_write_leaves_no_file(geometry: SeriesGeometry, tmp_path: Path) -> None:
    far = LevelSet(Grid.box((1.0, 1.0, 1.0), (8, 8, 8), 0.001), np.ones((8, 8, 8), np.float32))
    assert not write_segmentation(tmp_path / "zone.dcm", [SegmentSource("zone", NECROSIS, far)], geometry)
    assert not list(tmp_path.iterdir())


def test_a_box_beside_the_series_is_refused(geometry: SeriesGeometry) -> None:
    check_source(geometry, ball().grid)
    with pytest.raises(InputError, match=r"computing box does not lie on the series .* left and right"):
        check_source(geometry, Grid.box((-CENTER[0], -CENTER[1], CENTER[2]), (34, 34, 34), 0.001))


def test_a_run_refuses_a_wrong_series_before_it_starts(source: Path) -> None:
    case = load_case("quick", ["grid.spacing_mm=4", f"output.dicom_source_directory={source}", "backend=cpu"])
    with pytest.raises(InputError, match="computing box does not lie on the series"):
        simulate(case)
    with pytest.raises(InputError, match=r"keep_patient_identity=true needs"):
        load_case("quick", ["output.keep_patient_identity=true"])


def test_the_layout_comes_back(tmp_path: Path, data_dir: Path) -> None:
    electrodes = (
        Electrode("a", (0.0101234, -0.02, 0.03), (0.05, -0.02, 0.1), 7e-4, 0.03),
        Electrode("b.1", (0.0, 0.0, 0.0), (0.0, 0.0, 0.1), 7e-4, 0.03, applicator="b"),
        Electrode("b.2", (0.005, 0.0, 0.0), (0.005, 0.0, 0.1), 7e-4, 0.03, applicator="b"),
    )
    path = tmp_path / "layout.mrk.json"
    write_layout(path, electrodes)
    first, second = read_poses(path)
    assert (first.name, second.name) == ("a", "b")
    assert first.target_mm == [10.1234, -20.0, 30.0]
    assert first.entry_mm == [50.0, -20.0, 100.0]
    schema = json.loads((data_dir / "importers" / "markups" / "markups-schema-v1.0.3.json").read_text())
    jsonschema.validate(json.loads(path.read_text()), schema)


def test_the_margin_lies_on_the_mesh(tmp_path: Path) -> None:
    surface = tumor_surface()
    margin = 1e-3 * np.arange(len(surface.points), dtype=float)
    statistics = MarginStatistics(0.0, {}, {}, 1.0)
    none = np.zeros(len(surface.points), bool)
    tumors = [
        TumorMargin(n, 1.0, surface, margin, none, statistics, None, surface.points[0], {}, 0.0, 1.0)
        for n in ("first", "second")
    ]
    write_margin_mesh(tmp_path / "margin.vtp", *tumors)
    mesh = pv.read(tmp_path / "margin.vtp")
    n = len(margin)
    assert np.abs(mesh.points[n:] - 1e3 * surface.points).max() < 0.01  # mm
    assert np.allclose(mesh.point_data["margin_mm"], np.tile(1e3 * margin, 2))
    assert mesh.point_data["tumor"].tolist() == [0] * n + [1] * n
    assert list(mesh.field_data["tumor_names"]) == ["first", "second"]
    assert list(mesh.field_data["SPACE"]) == ["LPS"]
    assert read_mask(tmp_path / "margin.vtp", grid=ball().grid).mask.sum() > 800


def test_the_margin_as_an_image(tmp_path: Path) -> None:
    """A margin that grows along x is found again by SimpleITK, on the surface and nowhere else."""
    surface = tumor_surface(5)
    margin = surface.points[:, 0] - CENTER[0]
    none = np.zeros(len(margin), bool)
    statistics = MarginStatistics(0.0, {}, {}, 1.0)
    tumor = TumorMargin("t", 1.0, surface, margin, none, statistics, None, surface.points[0], {}, 0.0, 1.0)
    grid = Grid.box(tuple(CENTER), (40, 36, 30), 0.0008)
    write_margin(tmp_path / "margin.nii.gz", [tumor], grid)
    image = sitk.ReadImage(tmp_path / "margin.nii.gz")
    values = sitk.GetArrayFromImage(image)
    near = values < 1000.0
    found = np.argwhere(near)
    places = np.array([image.TransformIndexToPhysicalPoint([int(i) for i in index[::-1]]) for index in found])
    radius = np.linalg.norm(places - 1e3 * CENTER, axis=1)
    assert np.abs(radius - 6.0).max() < 0.85
    assert len(found) * 0.8**3 == pytest.approx(4 * np.pi * 6.0**2 * 1.6, rel=0.1)
    on_surface = 6.0 * (places - 1e3 * CENTER)[:, 0] / radius
    assert np.abs(values[near] - on_surface).max() < 0.2  # corners are 0.2 mm apart


def test_an_anatomy_from_a_segmentation(written: Path, source: Path) -> None:
    segments = {
        "tumor": StructureConfig("tumor", "tumor"),
        "Ablation zone": StructureConfig("liver", "organ"),
    }
    config = LabelMapAnatomyConfig(path=str(written), ct_path=str(source), segments=segments)
    center = LabelMapSource(config).tumor_centers()["tumor"]
    assert 1e3 * center == pytest.approx(1e3 * CENTER, abs=0.3)  # mm, slices of 2.5 mm


def test_margin_from_segmentations_to_a_segmentation(written: Path, source: Path, tmp_path: Path) -> None:
    """`thermosim margin` on DICOM files alone: two balls around one centre, 12.3 and 6 mm."""
    output = MarginOutputConfig(str(tmp_path), report=False, scene=False, dicom=True)
    files = {"tumor": str(written), "ablation": str(written), "ct_before": str(source)}
    config = MarginConfig(
        **files,
        tumor_segment="tumor",
        ablation_segment="Ablation zone",
        fusion=FusionConfig("none"),
        output=output,
    )
    result = measure_margin(config)
    assert result.summary["tumors"][0]["minimal_ablative_margin_mm"] == pytest.approx(6.3, abs=0.7)
    paths = result.save(tmp_path)
    zone, before = read_mask(paths["dicom"], "Ablation zone", ct=source), read_mask(written, "Ablation zone")
    assert zone.frame_of_reference == FRAME
    assert zone.mask.sum() * zone.grid.cell_volume == pytest.approx(
        before.mask.sum() * before.grid.cell_volume, rel=0.03
    )
    assert [word for word in (b"Doe", b"4711", b"acc-99") if word in paths["dicom"].read_bytes()] == []


def test_margin_refuses_a_segmentation_without_its_series() -> None:
    files = {"tumor": "a.nii.gz", "ablation": "b.nii.gz"}
    with pytest.raises(InputError, match=r"output\.dicom=true needs ct_before=FOLDER"):
        check_margin(MarginConfig(**files, output=MarginOutputConfig("x", dicom=True)))
    with pytest.raises(InputError, match=r"keep_patient_identity=true needs output.dicom=true"):
        check_margin(MarginConfig(**files, output=MarginOutputConfig("x", keep_patient_identity=True)))
