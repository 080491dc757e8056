"""Label maps: what they become on a grid, and what is refused."""

from __future__ import annotations

import gzip
import importlib.util
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from thermosim.anatomy.grid import Grid
from thermosim.anatomy.label_image import read_label_image
from thermosim.anatomy.label_map import LabelMapSource
from thermosim.anatomy.mesh import volume
from thermosim.config import LabelMapAnatomyConfig, StructureConfig
from thermosim.errors import InputError

_spec = importlib.util.spec_from_file_location("anatomy_files", Path(__file__).with_name("anatomy_files.py"))
assert _spec is not None
assert _spec.loader is not None
files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(files)

TUMOR = StructureConfig(name="tumor", tissue="tumor", role="tumor")
LIVER = StructureConfig(name="liver", tissue="liver", role="organ")
VEIN = StructureConfig(name="vein", tissue="blood", role="vessel", vessel_group="hepatic_vein")
SEGMENTS = {"1": LIVER, "2": TUMOR, "3": VEIN}
RAS_MM = np.diag([-1.0, -1.0, 1.0, 1.0])


def source(path, segments=None, **options):
    return LabelMapSource(LabelMapAnatomyConfig(path=str(path), segments=segments or SEGMENTS, **options))


def save(path, values, affine=RAS_MM):
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def sphere_image(path, radius, spacing):
    """A sphere around (0.3, −0.4, 0.7) mm as label 2 in label 1, on anisotropic voxels."""
    shape = np.ceil((2 * radius + 8) / np.asarray(spacing)).astype(int)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    origin = -0.5 * (shape - 1) * spacing
    points = origin + index * spacing
    inside = np.linalg.norm(points - [0.3, -0.4, 0.7], axis=-1) < radius
    affine = RAS_MM @ np.diag([*spacing, 1.0])
    affine[:3, 3] = RAS_MM[:3, :3] @ origin
    return save(path, np.where(inside, 2, 1).astype(np.uint8), affine)


def test_surface_of_a_sphere_on_thick_slices_has_no_stairs(tmp_path: Path) -> None:
    path = sphere_image(tmp_path / "s.nii.gz", 15.0, np.array([0.95, 0.95, 3.75]))
    anatomy = source(path, {"1": LIVER, "2": TUMOR}).rasterize(Grid.box((0, 0, 0), (44, 44, 44), 1e-3), 0.003)
    surface = anatomy.tumor_surfaces["tumor"]
    error = 1e3 * np.linalg.norm(surface.points - np.array([0.3, -0.4, 0.7]) * 1e-3, axis=1) - 15.0
    # Where a cap ends between two slices is unknown to half a slice, 1.9 mm; stairs would be off by
    # 3.75/√12 = 1.1 mm RMS wherever the surface is not upright.
    assert np.sqrt((error**2).mean()) < 0.5
    assert np.abs(error).max() < 1.9
    voxels = (np.asarray(nib.load(path).dataobj) == 2).sum() * 0.95 * 0.95 * 3.75
    # The surface keeps the voxels' volume; 1 % is left to splitting and thinning triangles.
    assert volume(surface) * 1e9 == pytest.approx(voxels, rel=0.01)
    # On 1 mm cells the count follows the surface's volume within the cells' own discretisation.
    assert (anatomy.labels == 2).sum() == pytest.approx(voxels, rel=0.01)


def test_liver_mask_holds_tumour_and_vessels_within(tmp_path: Path) -> None:
    path = files.write_liver(tmp_path / "liver.nrrd", np.eye(3), library="sitk")
    grid = Grid.box((0, 0, 0), (70, 60, 50), 2e-3)
    anatomy = source(path).rasterize(grid, 0.003)
    points = 1e3 * grid.points(np.argwhere(np.ones(grid.shape, bool)))
    whole = (((points / files.LIVER_RADII_MM) ** 2).sum(axis=1) < 1).reshape(grid.shape)
    # 2 mm voxels against the exact ellipsoid: the vessel's hole alone would be 0.8 %, without tumour 0.7 %.
    assert (anatomy.liver_mask != whole).mean() < 0.004
    lumen = anatomy.lumens[0]
    assert lumen.group == "hepatic_vein"
    axis = np.hypot(points[:, 0] + 20, points[:, 1]).reshape(grid.shape)
    along = (np.abs(points[:, 2]) < 30).reshape(grid.shape) & (np.abs(axis - 4) < 4)
    # Of the 4 mm circle 3 × 3 voxels of 2 mm remain per slice: an equivalent radius of √(36/π) mm.
    assert np.abs(1e3 * lumen.signed_distance - (axis - 4))[along].max() < 1.0
    assert 1e3 * lumen.radius[along] == pytest.approx(np.sqrt(36 / np.pi), rel=0.05)
    thin = source(path).rasterize(grid, 0.010)
    assert not thin.lumens
    inside_axis = (axis < 3) & (np.abs(points[:, 2]) < 30).reshape(grid.shape)
    assert (thin.labels[inside_axis] == 1).all()


def test_display_surfaces_and_structures(tmp_path: Path) -> None:
    patient = source(files.write_liver(tmp_path / "liver.nii.gz", np.eye(3)))
    assert [(s.label, s.name, s.role) for s in patient.structures] == [
        (0, "background", "background"),
        (1, "liver", "organ"),
        (2, "tumor", "tumor"),
        (3, "vein", "vessel"),
    ]
    shown = patient.display_surfaces()
    assert set(shown) == {"liver", "tumor", "vein"}
    assert max(len(s.triangles) for s in shown.values()) <= 20_500


def test_grid_beyond_the_image_is_noted_and_a_grid_without_tumour_refused(tmp_path: Path) -> None:
    patient = source(files.write_liver(tmp_path / "liver.nii.gz", np.eye(3)))
    center = tuple(patient.tumor_centers()["tumor"])
    wide = patient.rasterize(Grid.box(center, (40, 40, 40), 4e-3), 0.003)
    assert any("beyond the image" in note for note in wide.notes)
    assert (wide.labels[-1] == 0).all()
    with pytest.raises(InputError, match="no tumour lies in the computing box"):
        patient.rasterize(Grid.box((-0.05, 0.03, 0), (10, 10, 10), 1e-3), 0.003)


def test_background_may_have_a_tissue(tmp_path: Path) -> None:
    path = files.write_liver(tmp_path / "liver.nii.gz", np.eye(3))
    patient = source(path, {**SEGMENTS, "0": StructureConfig(tissue="fat")})
    assert patient.structures[0].tissue == "fat"
    with pytest.raises(InputError, match="label 0 is the background"):
        source(path, {**SEGMENTS, "0": StructureConfig(tissue="fat", role="risk", name="x")})


def test_unlisted_and_absent_labels(tmp_path: Path) -> None:
    path = files.write_liver(tmp_path / "liver.nii.gz", np.eye(3))
    with pytest.raises(InputError, match=r"label 3, which `segments` does not list"):
        source(path, {"1": LIVER, "2": TUMOR})
    assert source(path, {"1": LIVER, "2": TUMOR}, unlisted="background").notes
    with pytest.raises(InputError, match="tumour '9' is not in the label map"):
        source(path, {"1": LIVER, "3": VEIN, "9": TUMOR}, unlisted="background")
    absent = StructureConfig(name="gallbladder", tissue="gallbladder", role="risk")
    with pytest.raises(InputError, match=r"segments\.9 is not in the label map; it holds .*1.*2.*3"):
        source(path, {**SEGMENTS, "9": absent})
    lenient = source(path, {**SEGMENTS, "9": absent}, unlisted="background")
    assert any("9" in note for note in lenient.notes)
    with pytest.raises(InputError, match="no structure has the role tumor"):
        source(path, {"1": LIVER}, unlisted="background")
    with pytest.raises(InputError, match="role 'organs'"):
        source(path, {"2": TUMOR, "1": StructureConfig(tissue="liver", role="organs")})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v * np.where(v == 2, np.nan, 1.0), "NaN"),
        (lambda v: v * 1.25, "whole numbers"),
        (lambda v: v.astype(np.int16) - 1, "label values -1"),
        (lambda v: v.astype(np.int32) + 70000, "between 0 and 65535"),
        (lambda v: v[:, :, 0], "two|2 dimensions|dimensions"),
        (lambda v: np.stack([v, v], axis=-1), "4 dimensions"),
        (lambda v: v.astype(np.complex64), "voxels of type complex64"),
    ],
)
def test_values_that_are_no_labels_are_refused(tmp_path: Path, change, message: str) -> None:
    values = np.zeros((12, 12, 12), np.float32)
    values[3:9, 3:9, 3:9] = 2
    with pytest.raises(InputError, match=message):
        source(save(tmp_path / "v.nii.gz", change(values)), {"2": TUMOR})


def test_one_trailing_volume_and_whole_floats_are_tolerated(tmp_path: Path) -> None:
    values = np.zeros((12, 12, 12, 1), np.float32)
    values[3:9, 3:9, 3:9] = 2
    patient = source(save(tmp_path / "v.nii.gz", values), {"2": TUMOR})
    assert 1e3 * patient.tumor_centers()["tumor"] == pytest.approx([5.5, 5.5, 5.5], abs=1e-3)


def patched(path: Path, offset: int, fmt: str, *numbers: float) -> Path:
    data = bytearray(path.read_bytes())
    struct.pack_into(fmt, data, offset, *numbers)
    path.write_bytes(data)
    return path


def test_damaged_nifti_headers_are_refused(tmp_path: Path) -> None:
    values = np.zeros((12, 12, 12), np.uint8)
    values[3:9, 3:9, 3:9] = 2

    for message, offset, fmt, *numbers in [
        ("exceeds", 42, "<3h", 30000, 30000, 30000),  # dim
        ("truncated", 42, "<3h", 1000, 1000, 1000),
        ("positive|corrupt", 42, "<3h", -5, 12, 12),
        ("spacing", 280, "<4f", 0, 0, 0, 0),  # srow_x
        ("NaN", 280, "<4f", np.nan, 0, 0, 0),
        ("right angles|spacing", 280, "<8f", 1, 0, 0, 0, 1, 0, 0, 0),
        ("how it lies", 252, "<2h", 0, 0),  # qform_code, sform_code
    ]:
        path = patched(save(tmp_path / "v.nii", values), offset, fmt, *numbers)
        with pytest.raises(InputError, match=message):
            source(path, {"2": TUMOR})


def test_files_that_are_no_images_are_refused(tmp_path: Path) -> None:
    for name, content in {"a.nii": b"", "b.nii.gz": b"\x1f\x8b" + bytes(40), "c.nrrd": b"NRRD0004\n"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            source(tmp_path / name, {"2": TUMOR})
    with pytest.raises(InputError, match="was not found"):
        source(tmp_path / "none.nii", {"2": TUMOR})


def test_a_small_file_cannot_declare_a_huge_image(tmp_path: Path) -> None:
    header = (
        "NRRD0004\ntype: double\ndimension: 3\nspace: left-posterior-superior\nsizes: 1200 1200 1200\n"
        "space directions: (1,0,0) (0,1,0) (0,0,1)\nendian: little\nencoding: gzip\nspace origin: (0,0,0)\n\n"
    )
    path = tmp_path / "bomb.nrrd"
    path.write_bytes(header.encode() + gzip.compress(bytes(1_000_000)))
    with pytest.raises(InputError, match="truncated"):
        source(path, {"2": TUMOR})
    path.write_bytes(header.replace("1200 1200 1200", "12000 12000 12000").encode())
    with pytest.raises(InputError, match="exceeds 2147483648 voxels"):
        source(path, {"2": TUMOR})


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "nrrd"])
def test_mutated_files_never_crash(tmp_path: Path, ending: str) -> None:
    """Truncations and flipped bits give labels or one InputError, nothing else."""
    good = files.write_liver(
        tmp_path / f"good.{ending}",
        np.eye(3),
        (8.0, 8.0, 8.0),
        library="sitk" if ending == "nrrd" else "nibabel",
    ).read_bytes()
    random = np.random.default_rng(5)
    refused = 0
    for k in range(60):
        data = bytearray(good)
        if k % 3 == 0:
            data = data[: int(random.integers(0, len(data)))]
        else:
            span = min(len(data), 400) if k % 3 == 1 else len(data)
            for _ in range(4):
                data[int(random.integers(0, span))] ^= 1 << int(random.integers(0, 8))
        path = tmp_path / f"bad.{ending}"
        path.write_bytes(bytes(data))
        try:
            read_label_image(path)
        except InputError:
            refused += 1
    assert refused >= 20  # at least every truncation


def test_slicer_segments_by_name_and_in_layers(data_dir: Path) -> None:
    folder = data_dir / "importers" / "nrrd"
    names = {s.name for s in read_label_image(folder / "SegmentationOverlapping.seg.nrrd").segments}
    assert {"ribs", "right lung"} <= names
    centers = []
    for file in ("Segmentation.seg.nrrd", "SegmentationOverlapping.seg.nrrd"):
        patient = source(
            folder / file,
            {"right lung": TUMOR, "ribs": StructureConfig(tissue="bone", role="risk")},
            unlisted="background",
        )
        center = 1e3 * patient.tumor_centers()["tumor"]
        assert center[0] < -20  # the right lung lies to the right: negative in LPS
        centers.append(center)
    # The layered file holds the same segments and one that overlaps them: the very same surface.
    assert centers[0] == pytest.approx(centers[1], abs=1e-6)


def test_real_label_maps_keep_their_volume(data_dir: Path) -> None:
    path = data_dir / "geometry" / "msd08_002" / "hepaticvessel_002_task008.nii.gz"
    patient = source(path, {"1": VEIN, "2": TUMOR})
    center = patient.tumor_centers()["tumor"]
    anatomy = patient.rasterize(Grid.box(tuple(center), (50, 50, 50), 2e-3), 0.003)
    image = nib.load(path)
    values = np.asarray(image.dataobj)
    millilitres = (values == 2).sum() * np.prod(image.header.get_zooms()) * 1e-3
    assert millilitres == pytest.approx(29.8, abs=0.05)  # as the data's description says
    # The brief for surfaces: the voxels' volume within 1 %.
    assert volume(anatomy.tumor_surfaces["tumor"]) * 1e6 == pytest.approx(millilitres, rel=0.01)
    voxel_center = nib.affines.apply_affine(image.affine, np.argwhere(values == 2)).mean(axis=0)
    # RAS to LPS turns x and y; smoothing moves the centre by less than a tenth of a slice.
    assert 1e3 * center == pytest.approx(voxel_center * [-1, -1, 1], abs=0.3)


def test_every_label_of_a_torso_map_is_named(data_dir: Path) -> None:
    path = data_dir / "importers" / "nifti_multilabel" / "totalseg_example_seg.nii.gz"
    with pytest.raises(InputError, match=r"and 3[0-9] more"):
        source(path, {"5": TUMOR})
    patient = source(path, {"5": TUMOR}, unlisted="background")
    assert any("41 label" in note or "40 label" in note for note in patient.notes)
