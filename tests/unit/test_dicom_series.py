"""CT series: read where another library reads them, refused by name where they are no stack."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_cases import FRAME, write_series
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import generate_uid

from thermosim.anatomy.clinical_files import read_ct
from thermosim.errors import InputError

VALUES = np.random.default_rng(3).integers(-1000, 1500, (9, 7, 5)).astype(np.int16)
TURN = np.deg2rad(-17.0)
OBLIQUE = (np.cos(TURN), np.sin(TURN), 0.0, 0.0, 0.0, -1.0)  # coronal, turned


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), OBLIQUE])
def test_a_series_lies_where_simpleitk_reads_it(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    write_series(tmp_path, VALUES, orientation=orientation)
    ct = read_ct(tmp_path)
    assert ct.values.dtype == np.int16
    assert np.array_equal(ct.values, VALUES)
    assert ct.frame_of_reference == FRAME
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
    other = sitk.ReadImage(names)
    for index in ((0, 0, 0), (8, 6, 4), (3, 1, 2)):
        place = np.array(other.TransformIndexToPhysicalPoint(index))
        own = ct.grid.indices(1e-3 * place)
        assert np.abs(1e3 * ct.grid.points(np.rint(own)) - place).max() < 0.01  # mm
        assert ct.values[tuple(np.rint(own).astype(int))] == other[index]


def edited(folder: Path, edit: Callable[[int, Any], None]) -> None:
    """Change each slice of a series, counted along the stack."""
    paths = sorted(folder.iterdir(), key=lambda path: int(path.stem.split("_")[-1]))
    for number, path in enumerate(paths):
        dataset = pydicom.dcmread(path)
        edit(number, dataset)
        dataset.save_as(path)


def tilt(number: int, dataset: Any) -> None:
    x, y, z = map(float, dataset.ImagePositionPatient)
    dataset.ImagePositionPatient = [x, y + 0.4 * number, z]


def uneven(number: int, dataset: Any) -> None:
    x, y, z = map(float, dataset.ImagePositionPatient)
    dataset.ImagePositionPatient = [x, y, z + (0.9 if number == 3 else 0.0)]


def mixed(number: int, dataset: Any) -> None:
    if number == 2:
        dataset.SeriesInstanceUID, dataset.SeriesNumber = generate_uid(), 8


def doubled(number: int, dataset: Any) -> None:
    if number == 2:
        x, y, z = map(float, dataset.ImagePositionPatient)
        dataset.ImagePositionPatient = [x, y, z - 2.5]


def frames(number: int, dataset: Any) -> None:
    if number == 2:
        dataset.FrameOfReferenceUID = generate_uid()


def sizes(number: int, dataset: Any) -> None:
    if number == 2:
        dataset.Rows, dataset.Columns = 9, 7


def short(number: int, dataset: Any) -> None:
    if number == 2:
        dataset.PixelData = dataset.PixelData[:100]


def huge(number: int, dataset: Any) -> None:
    dataset.Rows, dataset.Columns = 20_000, 20_000


def without_place(number: int, dataset: Any) -> None:
    if number == 2:
        dataset.ImagePositionPatient = [1, 2]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (tilt, r"gantry tilt of 9\.\d°"),
        (uneven, r"not evenly spaced: the one at \(-20.0, -150.0, 408.4\) mm lies 0.90 mm"),
        (mixed, r"2 series are mixed: number .*CT, 4 images\), number 8 \(CT, 1 images\)|number 8"),
        (doubled, r"two planes lie in one place"),
        (frames, r"2 frames of reference"),
        (sizes, r"different size: 7 x 9, 9 x 7 pixels"),
        (short, r"truncated: 100 of the declared 126 bytes"),
        (huge, r"truncated: 126 of the declared 800000000 bytes"),
        (without_place, r"ImagePositionPatient is missing or has not 3 numbers"),
    ],
)
def test_what_is_no_stack_is_refused(tmp_path: Path, edit: Callable[[int, Any], None], message: str) -> None:
    write_series(tmp_path, VALUES)
    edited(tmp_path, edit)
    with pytest.raises(InputError, match=message):
        read_ct(tmp_path)


def test_a_missing_slice_is_named(tmp_path: Path) -> None:
    write_series(tmp_path, VALUES)
    next(tmp_path.glob("*_2.dcm")).unlink()
    with pytest.raises(InputError, match=r"1 slice\(s\) are missing .* after the plane at .* 402.5\) mm"):
        read_ct(tmp_path)


def test_other_things_than_series(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="was not found"):
        read_ct(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no DICOM slices"):
        read_ct(tmp_path)
    with pytest.raises(InputError, match="one DICOM file; name the folder"):
        read_ct(get_testdata_file("CT_small.dcm"))
    shutil.copy(get_testdata_file("rtstruct.dcm"), tmp_path / "structures.dcm")
    write_series(tmp_path, VALUES)  # files that are no slices do no harm
    assert read_ct(tmp_path).values.shape == VALUES.shape


def test_a_multi_frame_image_is_named(data_dir: Path, tmp_path: Path) -> None:
    shutil.copy(data_dir / "importers" / "dicom_seg" / "liver.dcm", tmp_path)
    with pytest.raises(InputError, match=r"multi-frame \(enhanced\) image, .* convert it to NIfTI"):
        read_ct(tmp_path)


def test_a_real_slice_has_its_hounsfield_units(tmp_path: Path) -> None:
    path = Path(get_testdata_file("CT_small.dcm"))
    shutil.copy(path, tmp_path / "a.dcm")
    ct = read_ct(tmp_path)
    (other,) = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    assert np.array_equal(ct.values[:, :, 0].T, other)
    assert ct.grid.spacing == pytest.approx((0.661468e-3, 0.661468e-3, 5e-3))


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE",
        "MR_small_jp2klossless",
        "MR_small_jpeg_ls_lossless",
        "MR_small_implicit",
        "MR_small_bigendian",
    ],
)
def test_real_encodings_give_the_same_values(tmp_path: Path, name: str) -> None:
    for folder, file in (("plain", "MR_small"), ("packed", name)):
        (tmp_path / folder).mkdir()
        shutil.copy(get_testdata_file(f"{file}.dcm"), tmp_path / folder)
    plain, packed = read_ct(tmp_path / "plain"), read_ct(tmp_path / "packed")
    assert np.array_equal(plain.values, packed.values)
    assert plain.grid == packed.grid


def test_a_deflated_slice_is_read(tmp_path: Path) -> None:
    write_series(tmp_path, VALUES[:, :, :1])
    edited(
        tmp_path, lambda _, dataset: setattr(dataset.file_meta, "TransferSyntaxUID", "1.2.840.10008.1.2.1.99")
    )
    assert np.array_equal(read_ct(tmp_path).values, VALUES[:, :, :1])


def test_jpeg_lossless_as_scanners_write_it(tmp_path: Path) -> None:
    slices = write_series(tmp_path / "ct", VALUES)
    packer = sitk.ImageFileWriter()
    packer.SetImageIO("GDCMImageIO")
    packer.UseCompressionOn()
    packer.SetCompressor("JPEG")

    def pack(number: int, dataset: Any) -> None:
        stored = np.frombuffer(slices[number].PixelData, "<u2").reshape(1, 7, 9)
        packer.SetFileName(str(tmp_path / "packed.dcm"))
        packer.Execute(sitk.GetImageFromArray(stored))
        packed = pydicom.dcmread(tmp_path / "packed.dcm")
        dataset.file_meta.TransferSyntaxUID = packed.file_meta.TransferSyntaxUID
        dataset.PixelData = encapsulate(list(generate_frames(packed.PixelData, number_of_frames=1)))

    edited(tmp_path / "ct", pack)
    first = pydicom.dcmread(next((tmp_path / "ct").iterdir()))
    assert "JPEG Lossless" in first.file_meta.TransferSyntaxUID.name
    assert np.array_equal(read_ct(tmp_path / "ct").values, VALUES)
