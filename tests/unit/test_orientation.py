"""The same patient written in many orientations must land at the same place."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest

from thermosim.anatomy.grid import Grid
from thermosim.anatomy.label_map import LabelMapSource
from thermosim.anatomy.surfaces import SurfacesSource
from thermosim.config import (
    LabelMapAnatomyConfig,
    StructureConfig,
    SurfaceConfig,
    SurfacesAnatomyConfig,
)


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "anatomy_files", Path(__file__).with_name("anatomy_files.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


files = _load()

SEGMENTS = {
    "1": StructureConfig(name="liver", tissue="liver", role="organ"),
    "2": StructureConfig(name="tumor", tissue="tumor", role="tumor"),
    "3": StructureConfig(name="vein", tissue="blood", role="vessel"),
}

FRAMES = {"LPS": np.eye(3), "RAS": np.diag([-1.0, -1.0, 1.0]), "LAI": np.diag([1.0, -1.0, -1.0])}


def _directions():
    angle = np.radians(20.0)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), np.sin(angle)], [0, -np.sin(angle), np.cos(angle)]])
    found = dict(FRAMES)
    for order in itertools.permutations(range(3)):
        found[f"RAS axes {order}"] = FRAMES["RAS"][:, order]
    found["oblique"] = turn @ tilt
    found["oblique RAS"] = turn @ tilt @ FRAMES["RAS"][:, [2, 0, 1]]
    return found


@pytest.mark.parametrize("name", _directions())
@pytest.mark.parametrize(("library", "ending"), [("nibabel", "nii.gz"), ("sitk", "nii.gz"), ("sitk", "nrrd")])
def test_orientation_of_the_file_does_not_move_the_tumour(
    tmp_path: Path, name: str, library: str, ending: str
) -> None:
    path = files.write_liver(tmp_path / f"liver.{ending}", _directions()[name], library=library)
    source = LabelMapSource(LabelMapAnatomyConfig(path=str(path), segments=SEGMENTS))
    center = 1e3 * source.tumor_centers()["tumor"]
    # A wrong sign or axis moves it by tens of millimetres; the voxels' own centre of mass is off by
    # at most a tenth of a voxel of 2 mm, for 9 mm radius.
    assert center == pytest.approx(files.TUMOR_CENTER_MM, abs=0.3)
    lower, upper = source.extent()
    assert (1e3 * lower < -np.array([60, 50, 40])).all()
    assert (1e3 * upper > np.array([60, 50, 40])).all()


def test_labels_lie_where_the_formula_says(tmp_path: Path) -> None:
    grid = Grid.box((0.005, -0.005, 0.0), (44, 36, 32), 0.003)
    expected = files.liver_labels(1e3 * grid.points(np.argwhere(np.ones(grid.shape)))).reshape(grid.shape)
    for name in ("LPS", "RAS axes (2, 0, 1)", "oblique RAS"):
        path = files.write_liver(tmp_path / "liver.nii", _directions()[name])
        anatomy = LabelMapSource(LabelMapAnatomyConfig(path=str(path), segments=SEGMENTS)).rasterize(
            grid, 0.002
        )
        differs = anatomy.labels != expected
        # Cells may differ only where the surface passes: about the share of cells it passes through,
        # (voxels of 2 mm place a surface to a fraction of a millimetre, cells are 3 mm).
        assert differs.mean() < 0.03
        tumor = anatomy.labels == anatomy.structure("tumor").label
        assert grid.points(np.argwhere(tumor)).mean(axis=0) * 1e3 == pytest.approx(
            files.TUMOR_CENTER_MM, abs=0.5
        )
        vein, wanted = (grid.points(np.argwhere(x == 3)).mean(axis=0) for x in (anatomy.labels, expected))
        # Against the formula's own cells: half a voxel of the image.
        assert vein == pytest.approx(wanted, abs=1e-3)


def test_nifti_in_metres(tmp_path: Path) -> None:
    path = files.write_liver(tmp_path / "liver.nii", np.eye(3))
    image = nib.load(path)
    affine = image.affine.copy()
    affine[:3] *= 1e-3
    converted = nib.Nifti1Image(np.asarray(image.dataobj), affine)
    converted.header.set_xyzt_units("meter")
    nib.save(converted, tmp_path / "metres.nii")
    source = LabelMapSource(LabelMapAnatomyConfig(path=str(tmp_path / "metres.nii"), segments=SEGMENTS))
    assert 1e3 * source.tumor_centers()["tumor"] == pytest.approx(files.TUMOR_CENTER_MM, abs=0.3)


@pytest.mark.parametrize(("frame", "unit"), [("LPS", "mm"), ("RAS", "mm"), ("RAS", "m")])
def test_surfaces_in_either_frame_and_unit(tmp_path: Path, frame: str, unit: str) -> None:
    import pyvista as pv

    folder = files.write_surfaces(tmp_path)
    for path in folder.iterdir():
        mesh = pv.read(path)
        mesh.points = mesh.points @ FRAMES[frame] * (1.0 if unit == "mm" else 1e-3)
        mesh.save(path)
    source = SurfacesSource(
        SurfacesAnatomyConfig(
            directory=str(folder),
            frame=frame,
            unit=unit,
            surfaces={
                "tumor": SurfaceConfig(file="tumor.vtk", tissue="tumor", role="tumor"),
                "liver": SurfaceConfig(file="liver.vtk", tissue="liver", role="organ"),
            },
        )
    )
    # An icosphere's centre of volume is its centre, to float32 of the file.
    assert 1e3 * source.tumor_centers()["tumor"] == pytest.approx(files.TUMOR_CENTER_MM, abs=1e-3)


def test_slicer_segmentation_lies_where_the_needles_go(data_dir: Path) -> None:
    """Published planning: three needles (odd points are tips) cross the tumour when frames are right."""
    import json

    folder = data_dir / "importers" / "markups"
    source = LabelMapSource(
        LabelMapAnatomyConfig(
            path=str(folder / "tumor.seg.nrrd"),
            segments={"Segment_1": StructureConfig(tissue="tumor", role="tumor")},
        )
    )
    surface = source.display_surfaces()["Segment_1"]
    markup = json.loads((folder / "Endpoints.mrk.json").read_text())["markups"][0]
    assert markup["coordinateSystem"] == "LPS"
    points = 1e-3 * np.array([p["position"] for p in markup["controlPoints"]])
    distances = []
    for tip, entry in zip(points[0::2], points[1::2], strict=True):
        line = tip + np.linspace(0, 1, 400)[:, None] * (entry - tip)
        distances.append(np.linalg.norm(line[:, None] - surface.points[::10], axis=2).min())
    # A crossing needle comes within a triangle's size of the surface; mixed frames miss by 32 mm.
    assert max(distances) < 0.003
