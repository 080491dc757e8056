"""Truncated, bit-flipped and oversized files of a clinic never hang, crash or eat memory."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_cases import write_rtstruct, write_series
from pydicom.data import get_testdata_file

from thermosim.anatomy import dicom_files
from thermosim.anatomy.clinical_files import read_ct, read_mask, read_segments
from thermosim.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
MEMORY = 3 * 2**30
"""Address space of the process that reads damaged files: a multiple of what importing takes."""

FUZZ = """
import json, pathlib, resource, sys
import numpy as np
from thermosim.anatomy.clinical_files import read_ct, read_segments
from thermosim.anatomy.grid import Grid
from thermosim.anatomy.markups import read_markups
from thermosim.applicators.pose_files import read_poses
from thermosim.errors import InputError

resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
grid = Grid((20, 20, 6), (0.02, 0.02, 0.005), (-0.2, -0.2, -0.21))
readers = {".dcm": lambda p: read_segments(p, grid=grid), "": read_ct}
counts = {"read": 0, "refused": 0}
generator = np.random.default_rng(5)
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    whole = path if path.is_file() else next(path.iterdir())
    content = whole.read_bytes()
    for trial in range(30):
        data = bytearray(content)
        if trial % 3 == 0:
            del data[int(generator.integers(len(data))):]
        elif trial % 3 == 1:
            for place in generator.integers(0, len(data), 1 + trial // 4):
                data[place] ^= 1 << int(generator.integers(8))
        else:
            for place in generator.integers(132, len(data) - 4, 1 + trial // 10):
                data[place:place + 4] = [b"\\xff" * 4, b"\\xff\\xff\\xff\\x7f", b"\\0" * 4][trial % 9 // 3]
        whole.write_bytes(data)
        try:
            readers.get(path.suffix, read_poses)(path)
            counts["read"] += 1
        except InputError as error:
            assert len(str(error)) < 2000
            counts["refused"] += 1
    whole.write_bytes(content)
print(json.dumps(counts))
"""


def test_random_damage_is_read_or_refused(data_dir: Path, tmp_path: Path) -> None:
    folder = data_dir / "importers"
    names = ("highdicom_seg_image_ct_binary_overlap", "highdicom_seg_image_ct_true_fractional")
    names += ("pydicom_liver_deflate", "pydicom_liver_rle")
    sources = [folder / "dicom_seg" / f"{name}.dcm" for name in names]
    sources += [folder / "rtstruct" / "pydicom_rtstruct.dcm", folder / "markups" / "L1.fcsv"]
    for source in sources:
        (tmp_path / source.name).write_bytes(source.read_bytes())
    (tmp_path / "plan.json").write_bytes((folder / "markups" / "Endpoints.mrk.json").read_bytes())
    for name in ("MR_small_RLE", "MR_small_jpeg_ls_lossless", "MR_small_jp2klossless", "image_dfl"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "slice.dcm").write_bytes(Path(get_testdata_file(f"{name}.dcm")).read_bytes())
    run = subprocess.run(
        [sys.executable, "-c", FUZZ, str(tmp_path), str(MEMORY)],
        cwd=ROOT,
        env=dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1") | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    counts = json.loads(run.stdout.splitlines()[-1])
    assert counts["refused"] > 80
    assert counts["read"] > 25  # flips in pixels or in names leave a file that can be read


def segmentation(data_dir: Path) -> Any:
    return pydicom.dcmread(data_dir / "importers" / "dicom_seg" / "highdicom_seg_image_ct_binary.dcm")


@pytest.mark.parametrize(
    ("keyword", "value", "message"),
    [
        ("NumberOfFrames", 2_000_000_000, "absurd size"),
        ("NumberOfFrames", 99_999, "truncated: 96 of the declared 3199968 bytes"),
        ("NumberOfFrames", 4, "truncated"),
        ("Rows", 65535, "truncated"),
        ("BitsAllocated", 64, "1 samples of 64 bits"),
        ("SamplesPerPixel", 3, "3 samples of 1 bits"),
        ("PixelData", b"", "no pixel data"),
    ],
)
def test_declared_sizes_are_compared_with_the_bytes(
    data_dir: Path, tmp_path: Path, keyword: str, value: Any, message: str
) -> None:
    dataset = segmentation(data_dir)
    setattr(dataset, keyword, value)
    dataset.save_as(tmp_path / "seg.dcm")
    with pytest.raises(InputError, match=message):
        read_mask(tmp_path / "seg.dcm")


def test_planes_far_apart_do_not_become_a_large_volume(data_dir: Path, tmp_path: Path) -> None:
    dataset = segmentation(data_dir)
    place = dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
    place.ImagePositionPatient = [*place.ImagePositionPatient[:2], 90_000.0]
    dataset.save_as(tmp_path / "seg.dcm")
    with pytest.raises(InputError, match=r"its planes span .* at most 4096 are read|not evenly spaced"):
        read_mask(tmp_path / "seg.dcm")


def test_a_packed_image_that_cannot_hold_its_pixels(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(get_testdata_file("MR_small_RLE.dcm"))
    dataset.Rows = dataset.Columns = 8000
    dataset.save_as(tmp_path / "slice.dcm")
    with pytest.raises(InputError, match="packed bytes cannot hold the declared 128000000 bytes"):
        read_ct(tmp_path)


def test_a_deflate_bomb_stops_at_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = write_series(tmp_path / "a", np.zeros((8, 8, 1), np.int16))
    path = next((tmp_path / "a").iterdir())
    start, _ = dicom_files._meta(path.read_bytes())
    body = path.read_bytes()[start:] + b"\x09\x00\x10\x00OB\x00\x00" + struct.pack("<I", 2**23) + bytes(2**23)
    packer = zlib.compressobj(wbits=-15)
    whole.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    whole.save_as(path)
    head = path.read_bytes()[: dicom_files._meta(path.read_bytes())[0]]
    path.write_bytes(head + packer.compress(body) + packer.flush())
    assert path.stat().st_size < 60_000
    monkeypatch.setattr(dicom_files, "MAXIMUM_INFLATED_BYTES", 2**20)
    with pytest.raises(InputError, match="unpack to more than 1048576 bytes"):
        read_ct(tmp_path / "a")


def test_segments_nested_without_end(tmp_path: Path) -> None:
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    nested = (b"\x40\x00\x60\xa3SQ\x00\x00\xff\xff\xff\xff" + item) * 20_000
    write_series(tmp_path / "a", np.zeros((8, 8, 1), np.int16))
    path = next((tmp_path / "a").iterdir())
    start, _ = dicom_files._meta(path.read_bytes())
    path.write_bytes(path.read_bytes()[:start] + nested)
    with pytest.raises(InputError, match=r"damaged or not supported \(RecursionError\)"):
        read_segments(path)


def test_contours_of_nonsense(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", np.zeros((8, 8, 3), np.int16))
    for text in (b"nan ", b"1e30", b"-inf", b"____"):
        write_rtstruct(tmp_path / "s.dcm", {"a": [np.full((4, 3), 4711)]})
        content = (tmp_path / "s.dcm").read_bytes().replace(b"4711", text)
        (tmp_path / "s.dcm").write_bytes(content)
        with pytest.raises(InputError, match=r"not made of points|none of its contours|truncated, damaged"):
            read_mask(tmp_path / "s.dcm", ct=tmp_path / "ct")
