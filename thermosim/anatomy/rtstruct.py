"""Contours of a DICOM RTSTRUCT filled on the voxels of an image (PS3.3, C.8.8.5 and C.8.8.6)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import grid_points_in_poly

from thermosim.anatomy.dicom_files import RTSTRUCT, dicom_errors, open_dicom, plain_text
from thermosim.anatomy.grid import Grid
from thermosim.anatomy.label_image import MAXIMUM_VOXELS, LabelImage, Segment
from thermosim.errors import InputError

MAXIMUM_STRUCTURES = 250
PLANE_TOLERANCE = 0.1
"""A contour may leave its plane by so much [mm] and still count as lying in one."""

SAME_PLANE = 0.05
"""Contour plane and slice are one if they are no further apart, as a share of the slice spacing."""

LARGEST_GAP = 1.5
"""Between planes of this many usual distances or less the shape is interpolated; wider gaps are empty."""

_Contours = list[NDArray[np.float64]]


def read_rtstruct(path: Path, grid: Grid, frame_of_reference: str | None = None) -> LabelImage:
    """All structures with closed contours, each in the first layer that is free where it lies.

    A voxel is inside if its centre is, by the even-odd rule over all contours of a plane, so that
    contours within contours are holes. On slices between contour planes signed distances to the
    outlines are interpolated; the first and last plane stand for half a distance beyond.

    Parameters
    ----------
    grid : voxels to fill; its slices must be parallel to the contours' planes.
    frame_of_reference : of that image; a structure drawn in another frame is refused.

    Raises
    ------
    InputError : damaged, no closed contours, another frame, contours across the slices, or none of
        them on the grid.
    """
    dataset = open_dicom(path)
    with dicom_errors(path.name):
        if str(dataset.get("SOPClassUID")) != RTSTRUCT:
            raise InputError("no RTSTRUCT")
        frame, structures = _structures(dataset)
        if frame and frame_of_reference and frame != frame_of_reference:
            raise InputError("its frame of reference is not that of the CT; name the series it was drawn on")
        layers: list[NDArray[np.uint16]] = []
        segments = []
        for value, (name, contours) in enumerate(structures.items(), start=1):
            start, mask = _filled(contours, grid, name)
            box = tuple(slice(s, s + n) for s, n in zip(start, mask.shape, strict=True))
            free = (i for i, layer in enumerate(layers) if not layer[box][mask].any())
            number = next(free, len(layers))
            if number == len(layers):
                if grid.n_cells * (number + 1) > MAXIMUM_VOXELS:
                    raise InputError("its structures overlap too often to be held in memory")
                layers.append(np.zeros(grid.shape, np.uint16))
            layers[number][box][mask] = value
            segments.append(Segment(name, number, value))
        if not any(layer.any() for layer in layers):
            raise InputError("none of its contours lies on the image; is it the series they were drawn on?")
    return LabelImage(grid, tuple(layers), tuple(segments), frame or frame_of_reference)


def _structures(dataset: Any) -> tuple[str | None, dict[str, _Contours]]:
    """Frame of reference and closed contours (n, 3) LPS [m] of each structure, by name."""
    names: dict[int, str] = {}
    frames = set()
    for item in dataset.get("StructureSetROISequence") or ():
        number = int(item.ROINumber)
        name = plain_text(item.get("ROIName") or "") or f"ROI {number}"
        names[number] = name if name not in names.values() else f"{name} {number}"
        frames.add(str(item.get("ReferencedFrameOfReferenceUID") or ""))
    found: dict[str, _Contours] = {}
    for item in dataset.get("ROIContourSequence") or ():
        contours = []
        for contour in item.get("ContourSequence") or ():
            if str(contour.get("ContourGeometricType")) not in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"):
                continue
            values = np.array([float(x) for x in contour.ContourData], np.float64)
            if values.size % 3 or not np.isfinite(values).all():
                raise InputError("a contour is not made of points with three coordinates")
            if values.size >= 9:
                contours.append(1e-3 * values.reshape(-1, 3))
        if contours:
            number = int(item.ReferencedROINumber)
            found.setdefault(names.get(number, f"ROI {number}"), []).extend(contours)
    if not found:
        raise InputError("it holds no closed contours")
    if len(found) > MAXIMUM_STRUCTURES:
        raise InputError(f"it holds {len(found)} structures, at most {MAXIMUM_STRUCTURES} are read")
    return (frames.pop() or None) if len(frames) == 1 else None, found


def _filled(contours: _Contours, grid: Grid, name: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """First voxel and mask of a structure's box on the grid."""
    outlines = [grid.indices(points) for points in contours]
    depths = np.array([outline[:, 2].mean() for outline in outlines])
    uneven = max(float(np.ptp(outline[:, 2])) for outline in outlines) * grid.spacing[2]
    if uneven > 1e-3 * PLANE_TOLERANCE:
        raise InputError(
            f"contours of {name!r} leave the image's slices by {1e3 * uneven:.2f} mm; they were drawn "
            "on another orientation: convert the structure to a label map first, for instance with 3D Slicer"
        )
    corners = np.concatenate(outlines)[:, :2]
    low = np.maximum(np.floor(corners.min(axis=0)).astype(np.int64) - 1, 0)
    high = np.minimum(np.ceil(corners.max(axis=0)).astype(np.int64) + 2, grid.shape[:2])
    planes, which = _planes(depths)
    usual = float(np.median(np.diff(planes))) if len(planes) > 1 else 1.0
    first = max(int(np.ceil(planes[0] - 0.5 * usual - 1e-6)), 0)
    last = min(int(np.floor(planes[-1] + 0.5 * usual - 1e-6)), grid.shape[2] - 1)
    last = max(last, min(int(np.floor(planes[-1] + SAME_PLANE)), grid.shape[2] - 1))
    if (low >= high).any() or first > last:
        return np.zeros(3, np.int64), np.zeros((0, 0, 0), bool)
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    shapes: list[NDArray[np.bool_]] = []
    for number in range(len(planes)):
        shape = np.zeros(size, bool)
        for outline in (o for o, plane in zip(outlines, which, strict=True) if plane == number):
            # The shift decides for a centre that lies on the outline: one of two opposite sides has it.
            shape ^= grid_points_in_poly(size, outline[:, :2] - low + 1e-7)
        shapes.append(shape)
    mask = np.zeros((*size, last - first + 1), bool)
    for k in range(first, last + 1):
        mask[:, :, k - first] = _slice_at(float(k), planes, shapes, usual, grid.spacing[:2])
    return np.array([low[0], low[1], first]), mask


def _planes(depths: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Depths of the distinct planes, rising, and the plane of each contour."""
    order = np.argsort(depths)
    fresh = np.diff(depths[order], prepend=-np.inf) > SAME_PLANE
    number = np.empty(len(depths), np.int64)
    number[order] = np.cumsum(fresh) - 1
    return np.array([depths[number == i].mean() for i in range(int(number.max()) + 1)]), number


def _slice_at(
    k: float,
    planes: NDArray[np.float64],
    shapes: list[NDArray[np.bool_]],
    usual: float,
    spacing: tuple[float, ...],
) -> NDArray[np.bool_]:
    """The shape on slice `k`: that of its plane, or between two planes where their distances cancel."""
    nearest = int(np.argmin(np.abs(planes - k)))
    if abs(planes[nearest] - k) <= SAME_PLANE:
        return shapes[nearest]
    above = int(np.searchsorted(planes, k))
    if 0 < above < len(planes) and planes[above] - planes[above - 1] <= LARGEST_GAP * usual:
        weight = (k - planes[above - 1]) / (planes[above] - planes[above - 1])
        one, other = (_signed_distance(shapes[i], spacing) for i in (above - 1, above))
        return np.asarray((1.0 - weight) * one + weight * other > 0)
    if abs(planes[nearest] - k) <= 0.5 * usual:
        return shapes[nearest]
    return np.zeros_like(shapes[0])


def _signed_distance(shape: NDArray[np.bool_], spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """Distance to the outline [m], positive inside; very negative everywhere if the shape is empty."""
    if not shape.any():
        return np.full(shape.shape, -1.0)
    padded = np.pad(shape, 1)
    inside = ndimage.distance_transform_edt(padded, sampling=spacing)
    outside = ndimage.distance_transform_edt(~padded, sampling=spacing)
    return np.asarray((inside - outside)[1:-1, 1:-1])
