"""One point lies at one place whatever the file, its frame, spacing and orientation; mix-ups are named."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import highdicom
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_cases import write_series
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.anatomy.clinical_files import CtImage, read_ct, read_mask
from thermosim.anatomy.dicom_series import series_geometry
from thermosim.anatomy.frames import check_overlap, check_same_frame
from thermosim.anatomy.grid import Grid
from thermosim.anatomy.mesh import from_polydata
from thermosim.errors import InputError
from thermosim.report.dicom_seg import MASS, SegmentSource, write_segmentation
from thermosim.report.nifti import write_zone

EXACT = 0.01
"""mm within which a point must be found again."""

QUICK = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    database=None,
)
KINDS = st.sampled_from(["nii.gz", "nrrd"])
ANGLES = st.tuples(*[st.floats(-180, 180, allow_subnormal=False)] * 3)
SPACINGS = st.tuples(*[st.floats(0.3, 6.0)] * 3)
ORIGINS = st.tuples(*[st.floats(-900, 900)] * 3)
SHAPE = (9, 8, 6)


def axes_of(angles: tuple[float, ...]) -> NDArray[np.float64]:
    """A right-handed frame: columns are the image's axes in LPS."""
    return np.asarray(Rotation.from_euler("xyz", angles, degrees=True).as_matrix())


@QUICK
@given(angles=ANGLES, spacing=SPACINGS, origin=ORIGINS, mirrored=st.booleans(), kind=KINDS)
def test_label_maps_by_simpleitk(
    angles: tuple[float, ...],
    spacing: tuple[float, ...],
    origin: tuple[float, ...],
    mirrored: bool,
    kind: str,
) -> None:
    """Written by SimpleITK, read by us: every voxel at its place."""
    axes = axes_of(angles)
    if mirrored and kind == "nrrd":
        axes[:, 0] *= -1.0
    mask = np.zeros(SHAPE[::-1], np.uint8)
    mask[4, 6, 2] = mask[1, 0, 8] = 1
    image = sitk.GetImageFromArray(mask)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(axes.ravel())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"mask.{kind}"
        sitk.WriteImage(image, path)
        own = read_mask(path)
    places = 1e3 * own.grid.points(np.argwhere(own.mask))
    for index in ((2, 6, 4), (8, 0, 1)):
        there = np.array(image.TransformIndexToPhysicalPoint(index))
        assert np.linalg.norm(places - there, axis=1).min() < EXACT


@QUICK
@given(angles=ANGLES, spacing=SPACINGS, origin=ORIGINS)
def test_our_masks_by_simpleitk(
    angles: tuple[float, ...], spacing: tuple[float, ...], origin: tuple[float, ...]
) -> None:
    """Written by us, read by SimpleITK."""
    direction = tuple(tuple(float(x) for x in row) for row in axes_of(angles))
    grid = Grid(SHAPE, tuple(1e-3 * s for s in spacing), tuple(1e-3 * x for x in origin), direction)
    mask = np.zeros(SHAPE, bool)
    mask[3, 5, 1] = True
    with tempfile.TemporaryDirectory() as folder:
        write_zone(Path(folder) / "zone.nii.gz", mask, grid)
        image = sitk.ReadImage(Path(folder) / "zone.nii.gz")
    (found,) = np.argwhere(sitk.GetArrayFromImage(image))
    place = np.array(image.TransformIndexToPhysicalPoint([int(i) for i in found[::-1]]))
    assert np.linalg.norm(place - 1e3 * grid.points(np.array([3, 5, 1]))) < EXACT


@settings(QUICK, max_examples=6)
@given(angles=ANGLES, spacing=SPACINGS, origin=ORIGINS)
def test_series_and_segmentations(
    angles: tuple[float, ...], spacing: tuple[float, ...], origin: tuple[float, ...]
) -> None:
    """A series by SimpleITK and by us; a segmentation over it by us, read by highdicom and by us."""
    axes = axes_of(angles)
    values = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(name) / "ct"
        write_series(folder, values, spacing=spacing, origin=origin, orientation=(*axes[:, 0], *axes[:, 1]))
        ct = read_ct(folder)
        other = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
        geometry = series_geometry(folder)
        path = Path(name) / "seg.dcm"
        write_segmentation(path, [SegmentSource("box", MASS, box_over(geometry.grid))], geometry)
        seg = read_mask(path)
        volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    for index in ((0, 0, 0), (8, 7, 5), (4, 1, 2)):
        place = np.array(other.TransformIndexToPhysicalPoint(index))
        found = np.rint(ct.grid.indices(1e-3 * place)).astype(int)
        assert np.linalg.norm(1e3 * ct.grid.points(found) - place) < EXACT
        assert ct.values[tuple(found)] == other[index]
    ours = np.sort(1e3 * seg.grid.points(np.argwhere(seg.mask)), axis=0)
    theirs = np.sort(volume.map_indices_to_reference(np.argwhere(volume.array)), axis=0)
    expected = np.array(np.meshgrid([2, 3, 4], [1, 2, 3, 4, 5], [1, 2, 3], indexing="ij")).reshape(3, -1).T
    wanted = np.sort(1e3 * geometry.grid.points(expected), axis=0)
    assert ours.shape == theirs.shape == wanted.shape
    assert max(np.abs(ours - wanted).max(), np.abs(theirs - wanted).max()) < EXACT


def box_over(grid: Grid) -> TriangleSurface:
    """A closed box around the voxels [2..4, 1..5, 1..3] of a grid."""
    import pyvista as pv

    box = from_polydata(pv.Box((1.6, 4.4, 0.6, 5.4, 0.6, 3.4)).triangulate())
    return TriangleSurface(grid.points(box.points), box.triangles)


def image_at(x: float, y: float) -> tuple[Grid, NDArray[np.uint8]]:
    """A label map of 60 mm around (x, y, 100) mm with a block in its middle."""
    labels = np.zeros((30, 30, 30), np.uint8)
    labels[10:20, 10:20, 10:20] = 1
    return Grid.box((1e-3 * x, 1e-3 * y, 0.1), (30, 30, 30), 0.002), labels


def test_a_map_that_was_turned_round_is_named() -> None:
    ct = Grid.box((-0.08, -0.06, 0.1), (60, 60, 40), 0.003)
    check_overlap("the map", *image_at(-80, -60), "the CT", ct)
    with pytest.raises(
        InputError, match=r"only 0 % does .*left and right, front and back exchanged it would"
    ):
        check_overlap(
            "the map", *image_at(80, 60), "the CT", Grid.box((-0.08, -0.06, 0.1), (40, 40, 40), 0.003)
        )
    with pytest.raises(InputError, match=r"different patients or frames"):
        check_overlap("the map", *image_at(800, 900), "the CT", ct)
    grid, labels = image_at(0, 0)
    with pytest.raises(InputError, match="all its voxels are background"):
        check_overlap("the map", grid, 0 * labels, "the CT", ct)


def test_a_mask_beside_its_ct_is_refused(tmp_path: Path) -> None:
    grid, labels = image_at(-80, -60)
    write_zone(tmp_path / "mask.nii.gz", labels > 0, grid)
    here = CtImage(
        Grid.box((-0.08, -0.06, 0.1), (60, 60, 40), 0.003), np.zeros((60, 60, 40), np.int16), "1.2"
    )
    assert read_mask(tmp_path / "mask.nii.gz", ct=here).mask.sum() == 1000
    there = CtImage(Grid.box((0.5, -0.06, 0.1), (60, 60, 40), 0.003), here.values)
    with pytest.raises(InputError, match=r"'mask.nii.gz' does not lie on its CT"):
        read_mask(tmp_path / "mask.nii.gz", ct=there)
    check_same_frame("a", None, "b", "1.2")
    with pytest.raises(InputError, match="a and b have different frames of reference"):
        check_same_frame("a", "1.3", "b", "1.2")
