"""DICOM files opened as data that may be damaged: sizes are bounded before anything is unpacked."""

from __future__ import annotations

import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.config import disable_value_validation
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from thermosim.anatomy.label_image import file_bytes
from thermosim.errors import InputError

MAXIMUM_DICOM_BYTES = 2**31
MAXIMUM_INFLATED_BYTES = 2**29
"""A deflated file may unpack to so much; deflate packs up to 1:1032."""

MAXIMUM_FRAMES = 100_000
MAXIMUM_PIXELS = 2**30
"""Over all frames of one file: 512 × 512 × 4096."""

MAXIMUM_PACKING = 4096
"""Pixels of nothing but background pack about 1:1000."""

MAXIMUM_META_BYTES = 2**16
MAXIMUM_MESSAGE = 500

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABELMAP_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.7"
RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"


def is_dicom(path: Path) -> bool:
    """Whether a file bears DICOM's mark (PS3.10, section 7.1), or is a `.dcm` that begins as old ones do."""
    try:
        with open(path, "rb") as handle:
            head = handle.read(132)
    except OSError:
        return False
    return _has_mark(head) or (path.suffix.lower() == ".dcm" and head[:2] == b"\x08\x00")


def _has_mark(data: bytes) -> bool:
    return data[128:132] == b"DICM"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what DICOM's libraries warn of and log, which names patients' images, off the user's screen."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def dicom_errors(name: str) -> Iterator[None]:
    """Whatever a damaged file makes the parser raise becomes one line that names the file."""
    try:
        with quiet(), disable_value_validation(), np.errstate(all="ignore"):
            yield
    except InputError as error:
        text = plain_text(error, MAXIMUM_MESSAGE)
        raise InputError(text if text.startswith("DICOM ") else f"DICOM {name!r}: {text}") from None
    except Exception as error:  # a parser of untrusted bytes may raise anything
        raise InputError(
            f"DICOM {name!r}: truncated, damaged or not supported ({type(error).__name__})"
        ) from error


def open_dicom(path: Path, *, pixels: bool = True) -> Any:
    """The data set of a file, deflated ones unpacked within ``MAXIMUM_INFLATED_BYTES``.

    Parameters
    ----------
    pixels : False stops before the pixel data, which is quick.

    Raises
    ------
    InputError : no such file, no DICOM, truncated, too large.
    """
    with dicom_errors(path.name):
        if pixels or _is_deflated(path):
            data = _plain(file_bytes(path, "DICOM file", MAXIMUM_DICOM_BYTES))
            return pydicom.dcmread(BytesIO(data), stop_before_pixels=not pixels, force=is_dicom(path))
        return pydicom.dcmread(path, stop_before_pixels=True, force=is_dicom(path))


def _is_deflated(path: Path) -> bool:
    if not path.is_file():
        raise InputError("was not found; check its path")
    with open(path, "rb") as handle:
        return _meta(handle.read(144 + MAXIMUM_META_BYTES))[1] == DeflatedExplicitVRLittleEndian


def _meta(data: bytes) -> tuple[int, str]:
    """Where the data set begins, and its transfer syntax (empty in old files without the mark)."""
    if not _has_mark(data):
        return 0, ""
    length = int.from_bytes(data[140:144], "little")
    if data[132:140] != b"\x02\x00\x00\x00UL\x04\x00" or not 0 < length <= MAXIMUM_META_BYTES:
        raise InputError("its file meta information has no usable length; save it again")
    meta = pydicom.filereader.read_dataset(
        BytesIO(data[132 : 144 + length]), is_implicit_VR=False, is_little_endian=True
    )
    return 144 + length, str(meta.TransferSyntaxUID)


def _plain(data: bytes) -> bytes:
    """The same file not deflated."""
    start, syntax = _meta(data)
    if syntax != DeflatedExplicitVRLittleEndian:
        return data
    inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    try:
        body = inflater.decompress(data[start:], MAXIMUM_INFLATED_BYTES)
    except zlib.error as error:
        raise InputError(f"damaged deflated data ({error})") from None
    if not inflater.eof:
        if len(body) >= MAXIMUM_INFLATED_BYTES:
            raise InputError(
                f"its deflated data unpack to more than {MAXIMUM_INFLATED_BYTES} bytes; save it uncompressed"
            )
        raise InputError("truncated: its deflated data do not end")
    value = ExplicitVRLittleEndian.encode()
    value += b"\0" * (len(value) % 2)
    element = struct.pack("<HH2sH", 0x0002, 0x0010, b"UI", len(value)) + value
    head = b"\x02\x00\x00\x00UL\x04\x00" + struct.pack("<I", len(element))
    return data[:132] + head + element + body


def plain_text(value: object, longest: int = 64) -> str:
    """Text of a file that can be shown: printable, and not too long."""
    text = "".join(c if c.isprintable() else "?" for c in str(value)[: longest + 1]).strip()
    return text if len(text) <= longest else text[: longest - 1] + "…"


def number(dataset: Any, keyword: str, default: float | None = None) -> float:
    """A finite number of the data set."""
    value = dataset.get(keyword)
    if value is None or value == "":
        if default is None:
            raise InputError(f"{keyword} is missing")
        return default
    result = float(value)
    if not np.isfinite(result):
        raise InputError(f"{keyword} is not finite")
    return result


def vector(dataset: Any, keyword: str, n: int) -> NDArray[np.float64]:
    """`n` finite numbers of the data set."""
    values = dataset.get(keyword)
    if values is None or isinstance(values, str | bytes) or len(values) != n:
        raise InputError(f"{keyword} is missing or has not {n} numbers")
    result = np.array([float(v) for v in values], np.float64)
    if not np.isfinite(result).all():
        raise InputError(f"{keyword} is not finite")
    return result


def frame_of_reference(dataset: Any) -> str | None:
    """UID of the frame in which the image's positions are given."""
    text = str(dataset.get("FrameOfReferenceUID") or "").strip()
    return text or None


def is_packed(dataset: Any) -> bool:
    """Whether the pixels are compressed; a transfer syntax that is not known counts as such."""
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    return not syntax.is_transfer_syntax or bool(syntax.is_encapsulated)


def check_pixels(dataset: Any) -> tuple[int, int, int]:
    """Frames, rows and columns, after comparing them with the bytes that are there.

    Raises
    ------
    InputError : no pixels, an absurd size, fewer bytes than declared.
    """
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    frames = int(dataset.get("NumberOfFrames") or 1)
    samples = int(dataset.get("SamplesPerPixel") or 1)
    bits = int(dataset.get("BitsAllocated") or 0)
    if rows < 1 or columns < 1 or not 1 <= frames <= MAXIMUM_FRAMES:
        raise InputError(f"absurd size: {frames} frames of {rows} x {columns} pixels")
    if samples != 1 or bits not in (1, 8, 16, 32):
        raise InputError(f"{samples} samples of {bits} bits per pixel are not supported, only grey values")
    if frames * rows * columns > MAXIMUM_PIXELS:
        raise InputError(f"{frames} frames of {rows} x {columns} pixels exceed {MAXIMUM_PIXELS} pixels")
    data = dataset.get("PixelData")
    if not data:
        raise InputError("it holds no pixel data")
    needed = (frames * rows * columns * bits + 7) // 8
    if is_packed(dataset):
        if needed > MAXIMUM_PACKING * len(data):
            raise InputError(f"{len(data)} packed bytes cannot hold the declared {needed} bytes of pixels")
    else:
        if len(data) < needed:
            raise InputError(f"truncated: {len(data)} of the declared {needed} bytes of pixels are there")
    return frames, rows, columns
