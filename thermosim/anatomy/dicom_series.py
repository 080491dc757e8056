"""A CT as a folder of DICOM slices, or as one multi-frame file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.uid import UID

from thermosim.anatomy.dicom_files import (
    check_pixels,
    dicom_errors,
    frame_of_reference,
    is_dicom,
    number,
    open_dicom,
    plain_text,
    vector,
)
from thermosim.anatomy.dicom_geometry import stack_grid
from thermosim.anatomy.grid import Grid
from thermosim.anatomy.label_image import MAXIMUM_VOXELS
from thermosim.errors import InputError

MAXIMUM_FILES = 20_000


@dataclass(frozen=True)
class SeriesGeometry:
    """A series by its headers: its grid, and its files in order of rising slice index."""

    grid: Grid
    files: tuple[Path, ...]
    frame_of_reference: str | None


def series_geometry(directory: Path) -> SeriesGeometry:
    """Grid and ordered files of the one image series in a folder (not of its subfolders).

    Raises
    ------
    InputError : no images, several series, a tilted gantry, missing or doubled slices, slices of
        unlike size, orientation or frame of reference.
    """
    if not directory.is_dir():
        raise InputError(f"folder {directory.name!r} of a DICOM series was not found; check its path")
    names = sorted(os.listdir(directory))
    if len(names) > MAXIMUM_FILES:
        raise InputError(f"folder {directory.name!r} holds {len(names)} files, at most {MAXIMUM_FILES}")
    paths = [path for path in (directory / name for name in names) if path.is_file() and is_dicom(path)]
    headers = [(path, open_dicom(path, pixels=False)) for path in paths]
    images = [(path, head) for path, head in headers if "ImagePositionPatient" in head and "Rows" in head]
    if not images:
        if any("PerFrameFunctionalGroupsSequence" in head for _, head in headers):
            raise InputError(
                f"folder {directory.name!r} holds a multi-frame (enhanced) image, not one file per slice; "
                "convert it to NIfTI first"
            )
        raise InputError(
            f"folder {directory.name!r} holds no DICOM slices with a position "
            f"({len(names)} files, {len(paths)} of them DICOM)"
        )
    with dicom_errors(directory.name):
        return _stacked([path for path, _ in images], [head for _, head in images])


def _stacked(paths: list[Path], headers: list[Any]) -> SeriesGeometry:
    by_series: dict[str, list[Any]] = {}
    for head in headers:
        by_series.setdefault(str(head.get("SeriesInstanceUID")), []).append(head)
    if len(by_series) > 1:
        listed = ", ".join(
            f"number {plain_text(group[0].get('SeriesNumber') or '?', 12)} "
            f"({plain_text(group[0].get('Modality'), 16)}, {len(group)} images)"
            for group in by_series.values()
        )
        raise InputError(f"{len(by_series)} series are mixed: {listed}; keep one in the folder")
    first = headers[0]
    frames = {frame_of_reference(head) for head in headers}
    if len(frames) > 1:
        raise InputError(f"its slices have {len(frames)} frames of reference; they do not belong together")
    sizes = {(int(head.Rows), int(head.Columns)) for head in headers}
    if len(sizes) > 1:
        listed = ", ".join(f"{r} x {c}" for r, c in sorted(sizes))
        raise InputError(f"its slices are of different size: {listed} pixels; a localizer may be among them")
    orientation = np.array([vector(head, "ImageOrientationPatient", 6) for head in headers])
    spacing = np.array([vector(head, "PixelSpacing", 2) for head in headers])
    if np.abs(orientation - orientation[0]).max() > 1e-3 or np.abs(spacing - spacing[0]).max() > 1e-3:
        raise InputError("its slices differ in orientation or pixel spacing; they are no stack")
    positions = np.array([vector(head, "ImagePositionPatient", 3) for head in headers])
    rows, columns = sizes.pop()
    if rows * columns * len(headers) > MAXIMUM_VOXELS:
        raise InputError(f"{len(headers)} slices of {rows} x {columns} exceed {MAXIMUM_VOXELS} voxels")
    thickness = number(first, "SliceThickness", 0.0)
    grid, index = stack_grid(positions, orientation[0], spacing[0], rows, columns, thickness, gaps=False)
    files = tuple(paths[i] for i in np.argsort(index))
    return SeriesGeometry(grid, files, frames.pop())


def read_series(directory: Path) -> tuple[SeriesGeometry, NDArray[np.int16] | NDArray[np.float32]]:
    """Geometry and values of a series, (nx, ny, nz): rescaled, for CT Hounsfield units.

    int16 where all values are whole and fit, else float32.
    """
    geometry = series_geometry(directory)
    values: NDArray[np.float32] | None = None
    for k, path in enumerate(geometry.files):
        dataset = open_dicom(path)
        with dicom_errors(path.name):
            plane = modality_values(dataset, path).T
            if values is None:  # allocated once a slice has shown that it has the pixels it declares
                values = np.empty(geometry.grid.shape, np.float32)
            values[:, :, k] = plane
    assert values is not None
    return geometry, narrowed(values)


def modality_values(dataset: Any, path: Path) -> NDArray[np.float32]:
    """Values (rows, columns) of a single-frame file: slope × stored + intercept (PS3.3, C.11.1).

    Pixels that pydicom cannot unpack (JPEG lossless) are read by SimpleITK, which rescales them itself.
    """
    frames, rows, columns = check_pixels(dataset)
    if frames != 1:
        raise InputError(f"a slice with {frames} frames; a series has one frame in each file")
    try:
        pixels = np.asarray(dataset.pixel_array, np.float32)
        slope, intercept = number(dataset, "RescaleSlope", 1.0), number(dataset, "RescaleIntercept", 0.0)
        values = pixels * np.float32(slope) + np.float32(intercept)
    except (NotImplementedError, RuntimeError, ImportError):
        values = _through_simpleitk(path, UID(dataset.file_meta.TransferSyntaxUID))
    if values.shape != (rows, columns):
        raise InputError(f"its pixels unpack to {values.shape}, declared are {(rows, columns)}")
    return values


def _through_simpleitk(path: Path, syntax: UID) -> NDArray[np.float32]:
    """The same by GDCM."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        values = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise InputError(f"its pixels, packed as {syntax.name!r}, cannot be unpacked") from error
    return np.asarray(values[0] if values.ndim == 3 else values, np.float32)


def narrowed(values: NDArray[np.float32]) -> NDArray[np.int16] | NDArray[np.float32]:
    """The same values as int16 if nothing is lost."""
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError("the image holds NaN or infinite values")
    if low < -32768 or high > 32767:
        return values
    whole = values.astype(np.int16)
    return (
        whole
        if all(np.array_equal(whole[..., k], values[..., k]) for k in range(values.shape[-1]))
        else values
    )
