"""Masks and CTs from the files of a clinic, against truths that other libraries wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from thermosim.anatomy.clinical_files import MaskImage, mask_of_surface, read_ct, read_mask, read_segments
from thermosim.anatomy.grid import Grid
from thermosim.anatomy.label_image import LabelImage
from thermosim.anatomy.surface_files import read_surface
from thermosim.errors import InputError


def points_inside(image: MaskImage) -> NDArray[np.float64]:
    """Centres of the voxels inside [m, LPS], sorted."""
    points = np.round(image.grid.points(np.argwhere(image.mask)), 6)
    return np.asarray(points[np.lexsort(points.T)])


def same_places(one: MaskImage, other: MaskImage) -> bool:
    """Whether two masks cover the same places, whatever the order of their axes."""
    a, b = points_inside(one), points_inside(other)
    return a.shape == b.shape and float(np.abs(a - b).max()) < 1e-5


@pytest.mark.parametrize("file", ["liver", "pydicom_liver_expb", "pydicom_liver_deflate"])
def test_a_dicom_seg_lies_where_its_nrrd_twin_lies(data_dir: Path, file: str) -> None:
    folder = data_dir / "importers"
    seg = read_mask(folder / "dicom_seg" / f"{file}.dcm")
    truth = read_mask(folder / "nrrd" / "liver_seg.nrrd")
    assert seg.name == "Liver"
    assert seg.frame_of_reference
    assert same_places(seg, truth)


def test_overlapping_segments_are_kept_apart(data_dir: Path) -> None:
    folder = data_dir / "importers"
    image = read_segments(folder / "dicom_seg" / "partial_overlaps.dcm")
    names = {"GREEN": (1, 1), "ORANGE": (2, 2), "PURPLE": (3, 3), "LIGHT_BLUE": (1, 4), "DARK_BLUE": (1, 5)}
    assert {s.name for s in image.segments} == set(names)
    for name, (file, value) in names.items():
        seg = read_mask(folder / "dicom_seg" / "partial_overlaps.dcm", name)
        truth = read_mask(folder / "nrrd" / f"partial_overlaps-{file}.nrrd", value)
        assert same_places(seg, truth), name


def test_fractional_segmentation_is_cut_at_one_half(data_dir: Path) -> None:
    folder = data_dir / "importers" / "dicom_seg"
    fractional = read_mask(folder / "highdicom_seg_image_ct_true_fractional.dcm")
    binary = read_mask(folder / "highdicom_seg_image_ct_binary.dcm")
    assert same_places(fractional, binary)


def test_an_encoding_that_cannot_be_read_is_refused(data_dir: Path) -> None:
    with pytest.raises(InputError, match=r"RLE Lossless.*save it uncompressed"):
        read_mask(data_dir / "importers" / "dicom_seg" / "pydicom_liver_rle.dcm")


def test_several_structures_and_none_named(data_dir: Path) -> None:
    path = data_dir / "importers" / "dicom_seg" / "partial_overlaps.dcm"
    with pytest.raises(InputError, match="several structures; name one of 'GREEN', 'ORANGE'"):
        read_mask(path)
    with pytest.raises(InputError, match="no structure 'tumor'; it has 'GREEN'"):
        read_mask(path, "tumor")
    assert read_mask(path, "green").name == "GREEN"
    assert read_mask(path, 2).name == "ORANGE"


def test_label_map_by_value(data_dir: Path) -> None:
    path = data_dir / "importers" / "nifti_multilabel" / "totalseg_example_seg.nii.gz"
    with pytest.raises(InputError, match=r"several structures; name one of '1', '2'.* and 21 more"):
        read_mask(path)
    image: LabelImage = read_segments(path)
    mask = read_mask(path, 5)
    assert np.array_equal(mask.mask, image.layers[0] == 5)


def test_a_mesh_takes_the_voxels_of_any_grid(data_dir: Path) -> None:
    path = next((data_dir / "geometry" / "scikit_other").glob("*.stl"))
    surface = read_surface(path)
    lower, upper = 1e-3 * surface.points.min(axis=0), 1e-3 * surface.points.max(axis=0)
    turn = np.deg2rad(20.0)
    axes = ((np.cos(turn), -np.sin(turn), 0.0), (np.sin(turn), np.cos(turn), 0.0), (0.0, 0.0, 1.0))
    straight = Grid((60, 60, 60), (0.006, 0.005, 0.007), tuple(lower - 0.01))
    oblique = Grid((90, 90, 60), (0.006, 0.005, 0.007), tuple(lower - np.array([0.05, 0.2, 0.01])), axes)
    assert straight.contains(upper + 0.01)
    volumes = [float(read_mask(path, grid=g).mask.sum()) * g.cell_volume for g in (straight, oblique)]
    assert volumes[0] == pytest.approx(volumes[1], rel=5e-3)
    with pytest.raises(InputError, match="a mesh has no voxels"):
        read_mask(path)


def test_mask_of_surface_is_exact_for_a_box() -> None:
    import pyvista as pv

    from thermosim.anatomy.mesh import from_polydata

    box = from_polydata(pv.Box((-0.0105, 0.0105, -0.0049, 0.0049, 0.0, 0.02)).triangulate())
    grid = Grid((41, 41, 9), (0.001, 0.001, 0.005), (-0.02, -0.02, -0.0075))
    mask = mask_of_surface(box, grid)
    assert mask.sum() == 21 * 9 * 4


def test_ct_from_nrrd_keeps_its_numbers(tmp_path: Path) -> None:
    import SimpleITK as sitk

    values = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6) - 60
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.7, 0.8, 5.0))
    image.SetOrigin((-10.0, 20.0, -300.0))
    for name in ("ct.nrrd", "ct.nii.gz"):
        sitk.WriteImage(image, tmp_path / name)
        ct = read_ct(tmp_path / name)
        assert ct.values.dtype == np.int16
        index = np.array([5, 4, 3])
        place = ct.grid.indices(1e-3 * np.array(image.TransformIndexToPhysicalPoint((5, 4, 3))))
        assert ct.values[tuple(np.rint(place).astype(int))] == values[tuple(index[::-1])]
        assert np.abs(place - np.rint(place)).max() < 1e-3
