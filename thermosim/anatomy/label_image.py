"""Label images from NIfTI and NRRD files, read as data that may be damaged.

Sizes declared in a header are compared with the bytes that are there before anything is allocated.
"""

from __future__ import annotations

import bz2
import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from thermosim.anatomy.grid import LPS_TO_RAS, Grid
from thermosim.errors import InputError

MAXIMUM_VOXELS = 2**31
MAXIMUM_LABEL = 65535
MAXIMUM_FILE_BYTES = 2**33
_DEFLATE_LIMIT = 1032  # deflate never packs tighter than 1:1032 (zlib's technical details)

Image = TypeVar("Image")


@dataclass(frozen=True)
class Segment:
    """A named label of a Slicer segmentation: its layer and value."""

    name: str
    layer: int
    value: int


@dataclass(frozen=True)
class LabelImage:
    """Label values on an image grid: one uint16 array of the grid's shape per layer.

    `frame_of_reference`: DICOM's UID of the frame, None where the format has none.
    """

    grid: Grid
    layers: tuple[NDArray[np.uint16], ...]
    segments: tuple[Segment, ...]
    frame_of_reference: str | None = None


@dataclass(frozen=True)
class Volume:
    """Voxel values of any number type as a file holds them: one array of the grid's shape per layer."""

    grid: Grid
    layers: tuple[NDArray[np.generic], ...]
    segments: tuple[Segment, ...] = ()


def read_label_image(path: Path) -> LabelImage:
    """A label map from `.nii`, `.nii.gz`, `.nrrd` or Slicer's `.seg.nrrd`.

    Raises
    ------
    InputError : no such file, not such an image, truncated, values that are not whole numbers from
        0 to 65535, absurd size, no usable position in the patient.
    """
    return read_image(path, "label map", labels_of)


def read_volume(path: Path) -> Volume:
    """An image of any numbers from `.nii`, `.nii.gz` or `.nrrd`.

    Raises
    ------
    InputError : as for a label map, except that its values may be any.
    """
    return read_image(path, "image", lambda volume: volume)


def labels_of(volume: Volume) -> LabelImage:
    """The same image with its values as labels."""
    if len(volume.layers) > 1 and not volume.segments:
        raise InputError(f"the image has {len(volume.layers)} volumes and no segments; a label map has one")
    return LabelImage(volume.grid, tuple(as_labels(layer) for layer in volume.layers), volume.segments)


def read_image(path: Path, what: str, convert: Callable[[Volume], Image]) -> Image:
    """What `convert` makes of the image; `what` names it in messages."""
    from thermosim.anatomy.nrrd import nrrd_volume  # here to keep the two formats' modules apart

    data = file_bytes(path, what)
    try:
        with np.errstate(all="ignore"):
            return convert(nrrd_volume(data) if data.startswith(b"NRRD") else nifti_volume(data))
    except InputError as error:
        raise InputError(f"{what} {path.name!r}: {error}") from None
    except (ValueError, IndexError, KeyError, OverflowError, TypeError, EOFError, MemoryError) as error:
        raise InputError(
            f"{what} {path.name!r}: truncated or corrupt image ({type(error).__name__})"
        ) from error


def file_bytes(path: Path, what: str, limit: int = MAXIMUM_FILE_BYTES) -> bytes:
    """All bytes of a file that may be missing, unreadable or too large."""
    if not path.is_file():
        raise InputError(f"{what} {path.name!r} was not found; check its path")
    try:
        size = path.stat().st_size
        if size > limit:
            raise InputError(f"{what} {path.name!r} has {size} bytes, at most {limit} are read")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{what} {path.name!r} cannot be read ({error.strerror})") from error


def check_size(shape: tuple[int, ...]) -> None:
    """Refuse empty and absurd images before anything is allocated."""
    if min(shape, default=0) < 1:
        raise InputError(f"image size {shape} must be positive along every axis")
    n = 1
    for length in shape:
        n *= int(length)
    if n > MAXIMUM_VOXELS:
        raise InputError(f"image size {shape} exceeds {MAXIMUM_VOXELS} voxels; crop it around the liver")


def inflate(data: bytes, n_bytes: int, kind: str) -> bytes:
    """Exactly `n_bytes` unpacked from gzip (or bzip2) data, never more.

    Raises
    ------
    InputError : the packed data are too short for that, damaged, or hold fewer bytes.
    """
    if kind == "gzip":
        if n_bytes > _DEFLATE_LIMIT * len(data):
            raise InputError(f"truncated: {len(data)} packed bytes cannot hold the declared {n_bytes}")
        inflater = zlib.decompressobj(wbits=31)
        try:
            result = inflater.decompress(data, n_bytes)
            if len(result) == n_bytes and not inflater.eof:
                beyond = inflater.decompress(inflater.unconsumed_tail, 1)  # to the checksum, or more data
                if not beyond and not inflater.eof:
                    raise InputError("truncated gzip data: the checksum is missing")
        except zlib.error as error:
            raise InputError(f"damaged gzip data ({error})") from None
    else:
        try:
            result = bz2.BZ2Decompressor().decompress(data, n_bytes)
        except OSError:
            raise InputError("damaged bzip2 data") from None
    if len(result) < n_bytes:
        raise InputError(f"truncated: {len(result)} of the declared {n_bytes} bytes are there")
    return result


def as_labels(values: NDArray[np.generic]) -> NDArray[np.uint16]:
    """Voxel values as uint16 labels.

    Raises
    ------
    InputError : NaN, fractions, negative values or values above 65535.
    """
    labels = np.empty(values.shape, np.uint16)
    for k in range(values.shape[-1]):  # slice by slice: big floating-point images stay affordable
        part = values[..., k]
        if part.dtype.kind == "f":
            if not np.isfinite(part).all():
                raise InputError("the image holds NaN or infinite values; a label map has whole numbers")
            if (part != np.rint(part)).any():
                odd = float(part[part != np.rint(part)].flat[0])
                raise InputError(f"the image holds the value {odd:g}; a label map has whole numbers only")
        elif part.dtype.kind not in "iu":
            raise InputError(f"voxels of type {part.dtype}; a label map has whole numbers")
        low, high = part.min(), part.max()
        if low < 0 or high > MAXIMUM_LABEL:
            raise InputError(f"label values {low:g} to {high:g}, must lie between 0 and {MAXIMUM_LABEL}")
        labels[..., k] = part
    return labels


def image_grid(shape: tuple[int, ...], affine_lps_mm: NDArray[np.float64]) -> Grid:
    """Grid of an image from its 4×4 matrix from indices to LPS [mm]."""
    if not np.isfinite(affine_lps_mm).all():
        raise InputError("the image's position holds NaN or infinite numbers")
    columns = affine_lps_mm[:3, :3]
    spacing = np.linalg.norm(columns, axis=0)
    if spacing.min() < 1e-3 or spacing.max() > 1e3:
        text = " × ".join(f"{s:g}" for s in spacing)
        raise InputError(f"voxel spacing {text} mm, must lie between 0.001 and 1000 mm")
    direction = columns / spacing
    if abs(np.linalg.det(direction)) < 0.5 or not np.allclose(direction.T @ direction, np.eye(3), atol=1e-3):
        raise InputError("the image's axes are not at right angles (sheared or singular); resample it first")
    if np.abs(affine_lps_mm[:3, 3]).max() > 1e5:
        raise InputError("the image lies more than 100 m from the patient's origin")
    u, _, v = np.linalg.svd(direction)  # nearest orthonormal matrix
    return Grid(
        (int(shape[0]), int(shape[1]), int(shape[2])),
        tuple(float(s) * 1e-3 for s in spacing),  # type: ignore[arg-type]
        tuple(float(x) * 1e-3 for x in affine_lps_mm[:3, 3]),  # type: ignore[arg-type]
        tuple(tuple(float(x) for x in row) for row in u @ v),  # type: ignore[arg-type]
    )


def nifti_volume(data: bytes) -> Volume:
    """NIfTI-1 or -2 in one file, plain or gzip."""
    packed = data[:2] == b"\x1f\x8b"
    head = _first_bytes(data, 540) if packed else data[:540]
    size_of_header = int.from_bytes(head[:4], "little")
    swapped = int.from_bytes(head[:4], "big")
    header_class = {348: nib.Nifti1Header, 540: nib.Nifti2Header}.get(
        size_of_header if size_of_header in (348, 540) else swapped
    )
    if header_class is None:
        raise InputError("not a NIfTI or NRRD image; save it as .nii.gz or .nrrd")
    n_head = int(header_class.template_dtype.itemsize)
    if len(head) < n_head:
        raise InputError("truncated NIfTI header")
    try:
        header = header_class.from_fileobj(io.BytesIO(head[:n_head]), check=False)
        shape = tuple(int(n) for n in header.get_data_shape())
        dtype = header.get_data_dtype()
        offset = int(header["vox_offset"])
        slope, intercept = (float(header[key]) for key in ("scl_slope", "scl_inter"))
        units = header.get_xyzt_units()[0]
        forms = int(header["sform_code"]), int(header["qform_code"])
        affine = header.get_best_affine()
    except (HeaderDataError, WrapStructError) as error:
        raise InputError(f"corrupt NIfTI header ({error})") from None
    if header["magic"].item().rstrip(b"\x00\r\n\x1a")[:2] != b"n+":
        raise InputError("not a NIfTI image in one file (.nii or .nii.gz)")
    shape = volume_shape(shape)
    check_size(shape)
    if dtype.kind not in "iuf":
        raise InputError(f"voxels of type {dtype}; they must be whole or floating-point numbers")
    if not n_head <= offset <= 2**20:
        raise InputError(f"corrupt NIfTI header: data offset {offset}")
    if max(forms) <= 0:
        raise InputError(
            "the image does not say how it lies in the patient (sform_code and qform_code are 0); "
            "save it again from a viewer that sets them"
        )
    n_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if packed:
        raw = inflate(data, offset + n_bytes, "gzip")
    elif len(data) < offset + n_bytes:
        raise InputError(f"truncated: {len(data) - offset} of the declared {n_bytes} bytes are there")
    else:
        raw = data
    values = np.frombuffer(raw, dtype, n_bytes // dtype.itemsize, offset).reshape(shape, order="F")
    if np.isfinite(slope) and slope != 0 and (slope, intercept) != (1.0, 0.0):
        values = values.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    scale = {"meter": 1e3, "micron": 1e-3}.get(units, 1.0)
    to_lps = np.eye(4)
    to_lps[:3, :3] = LPS_TO_RAS * scale
    grid = image_grid(shape, to_lps @ np.asarray(affine, np.float64))
    return Volume(grid, (values,))


def volume_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Three lengths; trailing axes of length one are tolerated."""
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise InputError(f"the image has {len(shape)} dimensions {shape}; it must have three")
    return shape


def _first_bytes(data: bytes, n: int) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(data[: 64 * n], n)
    except zlib.error:
        return b""
