"""DICOM segmentations (PS3.3, A.51): binary, fractional and label map, overlapping or not."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import unpack_bits
from pydicom.uid import UID

from thermosim.anatomy.dicom_files import (
    LABELMAP_SEGMENTATION,
    SEGMENTATION,
    check_pixels,
    dicom_errors,
    frame_of_reference,
    is_packed,
    number,
    open_dicom,
    plain_text,
    vector,
)
from thermosim.anatomy.dicom_geometry import stack_grid
from thermosim.anatomy.grid import Grid
from thermosim.anatomy.label_image import MAXIMUM_LABEL, LabelImage, Segment
from thermosim.errors import InputError

MAXIMUM_SEG_VOXELS = 2**29
"""Of one layer: 512 × 512 × 2048. Empty planes are not in the file, so bytes do not bound them."""

DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"


@dataclass(frozen=True)
class _Frame:
    """One plane of one segment (0: of all, in a label map)."""

    number: int
    segment: int
    position: NDArray[np.float64]


def read_seg(path: Path) -> LabelImage:
    """All segments, packed into as few layers as their overlaps allow.

    A fractional segmentation is cut at one half of its greatest value.

    Raises
    ------
    InputError : no segmentation, damaged, not one regular stack of planes, packed in a way that
        cannot be read.
    """
    dataset = open_dicom(path)
    with dicom_errors(path.name):
        return _label_image(dataset)


def _label_image(dataset: Any) -> LabelImage:
    kind = str(dataset.get("SOPClassUID"))
    if kind not in (SEGMENTATION, LABELMAP_SEGMENTATION):
        raise InputError(f"no segmentation but {UID(kind).name!r}")
    n_frames, rows, columns = check_pixels(dataset)
    names = _names(dataset)
    frames = _frames(dataset, n_frames, label_map=kind == LABELMAP_SEGMENTATION)
    shared = _first(dataset, "SharedFunctionalGroupsSequence")
    per_frame = dataset.PerFrameFunctionalGroupsSequence[0]
    measures = _first(shared, "PixelMeasuresSequence") or _first(per_frame, "PixelMeasuresSequence")
    plane = _first(shared, "PlaneOrientationSequence") or _first(per_frame, "PlaneOrientationSequence")
    if measures is None or plane is None:
        raise InputError("it does not say how its planes lie in the patient (orientation, pixel spacing)")
    spacing = vector(measures, "PixelSpacing", 2)
    between = number(measures, "SpacingBetweenSlices", 0.0) or number(measures, "SliceThickness", 0.0)
    positions = np.array([frame.position for frame in frames])
    grid, index = stack_grid(
        positions, vector(plane, "ImageOrientationPatient", 6), spacing, rows, columns, between, gaps=True
    )
    if grid.n_cells > MAXIMUM_SEG_VOXELS:
        raise InputError(
            f"{grid.shape} voxels, at most {MAXIMUM_SEG_VOXELS} are read; crop it around the liver"
        )
    pixels = _pixels(dataset, n_frames, rows, columns)
    if kind == LABELMAP_SEGMENTATION:
        return _from_label_map(dataset, grid, frames, index, pixels, names)
    layers, segments = _packed(grid, frames, index, pixels, names)
    return LabelImage(grid, tuple(layers), tuple(segments), frame_of_reference(dataset))


def _names(dataset: Any) -> dict[int, str]:
    """Names of the segments by number; one that occurs twice gets its number."""
    found: dict[int, str] = {}
    for item in dataset.get("SegmentSequence") or ():
        segment = int(item.SegmentNumber)
        label = plain_text(item.get("SegmentLabel") or "") or f"segment {segment}"
        found[segment] = label if label not in found.values() else f"{label} {segment}"
    if not found:
        raise InputError("it has no segments")
    if min(found) < 0 or max(found) > MAXIMUM_LABEL:
        raise InputError(
            f"segment numbers {min(found)} to {max(found)}, must lie between 0 and {MAXIMUM_LABEL}"
        )
    return found


def _frames(dataset: Any, n_frames: int, *, label_map: bool) -> list[_Frame]:
    groups = dataset.get("PerFrameFunctionalGroupsSequence")
    if not groups or len(groups) < n_frames:
        raise InputError(f"it describes {len(groups or ())} of its {n_frames} frames")
    shared = _first(dataset, "SharedFunctionalGroupsSequence")
    frames = []
    for i in range(n_frames):
        place = _first(groups[i], "PlanePositionSequence") or _first(shared, "PlanePositionSequence")
        whose = _first(groups[i], "SegmentIdentificationSequence") or _first(
            shared, "SegmentIdentificationSequence"
        )
        if place is None or (whose is None and not label_map):
            raise InputError(f"frame {i + 1} does not say where it lies or which segment it shows")
        segment = 0 if whose is None or label_map else int(whose.ReferencedSegmentNumber)
        frames.append(_Frame(i, segment, vector(place, "ImagePositionPatient", 3)))
    return frames


def _first(dataset: Any, keyword: str) -> Any | None:
    items = None if dataset is None else dataset.get(keyword)
    return items[0] if items else None


def _pixels(dataset: Any, n_frames: int, rows: int, columns: int) -> NDArray[np.generic]:
    """Frames (n, rows, columns): bool, or the label of each pixel."""
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    bits = int(dataset.BitsAllocated)
    if bits == 1 and not is_packed(dataset):
        flat = unpack_bits(dataset.PixelData)[: n_frames * rows * columns]
        values = np.asarray(flat).reshape(n_frames, rows, columns)
    elif syntax == DEFLATED_FRAMES:
        values = _inflated(dataset, n_frames, rows * columns, bits).reshape(n_frames, rows, columns)
    else:
        try:
            values = np.asarray(dataset.pixel_array)
        except (NotImplementedError, RuntimeError, ImportError) as error:
            raise InputError(
                f"its pixels are packed as {syntax.name!r}, which cannot be unpacked; save it uncompressed"
            ) from error
        values = values.reshape(n_frames, rows, columns)
    if str(dataset.SOPClassUID) == LABELMAP_SEGMENTATION:
        return values
    if str(dataset.get("SegmentationType")) == "FRACTIONAL":
        return np.asarray(2.0 * values >= number(dataset, "MaximumFractionalValue"))
    return np.asarray(values > 0)


def _inflated(dataset: Any, n_frames: int, n_pixels: int, bits: int) -> NDArray[np.generic]:
    """Frames that are deflated one by one (Supplement 244), shape (n, n_pixels)."""
    n_bytes = (n_pixels * bits + 7) // 8
    frames = []
    for frame in generate_frames(dataset.PixelData, number_of_frames=n_frames):
        try:
            raw = zlib.decompressobj(wbits=-zlib.MAX_WBITS).decompress(frame, n_bytes)
        except zlib.error as error:
            raise InputError(f"damaged deflated frame ({error})") from None
        if len(raw) < n_bytes:
            raise InputError(f"truncated: a frame unpacks to {len(raw)} of {n_bytes} bytes")
        frames.append(np.frombuffer(raw, np.uint8) if bits == 1 else np.frombuffer(raw, f"<u{bits // 8}"))
    if len(frames) != n_frames:
        raise InputError(f"truncated: {len(frames)} of {n_frames} frames are there")
    values = np.stack(frames)
    return np.unpackbits(values, axis=1, bitorder="little")[:, :n_pixels] if bits == 1 else values


def _packed(
    grid: Grid,
    frames: list[_Frame],
    index: NDArray[np.int64],
    pixels: NDArray[np.generic],
    names: dict[int, str],
) -> tuple[list[NDArray[np.uint16]], list[Segment]]:
    """Each segment in the first layer that is free where it lies."""
    layers: list[NDArray[np.uint16]] = []
    segments = []
    for segment, name in names.items():
        planes: dict[int, NDArray[np.bool_]] = {}
        for frame in (f for f in frames if f.segment == segment):
            k = int(index[frame.number])
            planes[k] = planes.get(k, False) | pixels[frame.number].T.astype(bool)
        number_of_layer = next(
            (
                i
                for i, layer in enumerate(layers)
                if not any((layer[:, :, k][inside] > 0).any() for k, inside in planes.items())
            ),
            len(layers),
        )
        if number_of_layer == len(layers):
            if grid.n_cells * (number_of_layer + 1) > MAXIMUM_SEG_VOXELS:
                raise InputError(f"its {len(names)} segments overlap too often to be held in memory")
            layers.append(np.zeros(grid.shape, np.uint16))
        value = segment if segment > 0 else max(names) + 1
        for k, inside in planes.items():
            layers[number_of_layer][:, :, k][inside] = value
        segments.append(Segment(name, number_of_layer, value))
    unknown = {frame.segment for frame in frames} - set(names)
    if unknown:
        raise InputError(f"frames show segment {min(unknown)}, which is not described")
    return layers, segments


def _from_label_map(
    dataset: Any,
    grid: Grid,
    frames: list[_Frame],
    index: NDArray[np.int64],
    pixels: NDArray[np.generic],
    names: dict[int, str],
) -> LabelImage:
    layer = np.zeros(grid.shape, np.uint16)
    background = int(dataset.get("PixelPaddingValue", 0) or 0)
    for frame in frames:
        layer[:, :, int(index[frame.number])] = pixels[frame.number].T
    if background:
        layer[layer == background] = 0
    segments = tuple(Segment(name, 0, value) for value, name in names.items() if value != background)
    return LabelImage(grid, (layer,), segments, frame_of_reference(dataset))
