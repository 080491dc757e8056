"""From the positions of DICOM's planes to one regular grid (PS3.3, C.7.6.2 and C.7.6.16)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.grid import Grid
from thermosim.anatomy.label_image import image_grid
from thermosim.errors import InputError

MAXIMUM_SLICES = 4096
POSITION_TOLERANCE = 0.05
"""Planes may lie so far from their place in a regular stack, as a share of the slice spacing or a pixel."""

MINIMUM_TOLERANCE = 0.01
"""The same in mm: positions are written with few decimals."""


def plane_axes(orientation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns: the direction of rising column index, of rising row index, and their normal."""
    along_row, along_column = orientation[:3], orientation[3:]
    lengths = np.linalg.norm(along_row), np.linalg.norm(along_column)
    if not np.allclose(lengths, 1.0, atol=1e-3) or abs(along_row @ along_column) > 1e-3:
        raise InputError(f"ImageOrientationPatient {orientation.tolist()}: not unit vectors at right angles")
    return np.stack([along_row, along_column, np.cross(along_row, along_column)], axis=1)


def stack_grid(
    positions: NDArray[np.float64],
    orientation: NDArray[np.float64],
    pixel_spacing: NDArray[np.float64],
    rows: int,
    columns: int,
    slice_spacing: float,
    *,
    gaps: bool,
) -> tuple[Grid, NDArray[np.int64]]:
    """The grid of parallel planes, and the slice index of each.

    Parameters
    ----------
    positions : (n, 3) centre of the first pixel of each plane, LPS [mm].
    orientation : (6,) direction cosines of rows and columns.
    pixel_spacing : distance between rows, then between columns [mm].
    slice_spacing : distance between planes [mm], or 0. It holds where planes are missing; otherwise, and
        where planes lie closer than that, the distances found do.
    gaps : whether planes may be missing (empty planes of a segmentation) or stand for a defect.

    Raises
    ------
    InputError : a tilted gantry, uneven or missing planes, an absurd extent.
    """
    axes = plane_axes(orientation)
    local = (positions - positions[0]) @ axes
    depth = local[:, 2]
    order = np.unique(np.round(depth, 4))
    steps = np.diff(order)
    steps = steps[steps > MINIMUM_TOLERANCE]
    if steps.size and not gaps:
        slice_spacing = float(np.median(steps))
    elif steps.size:
        least = float(steps.min())
        share = least / slice_spacing if slice_spacing else 0.0
        if share < 0.5 or abs(share - round(share)) > POSITION_TOLERANCE:  # a thickness is no spacing
            slice_spacing = least
    if not slice_spacing:
        raise InputError("a single plane without SliceThickness has no extent; more planes are needed")
    _refuse_tilt(local, pixel_spacing)
    index = (depth - depth.min()) / slice_spacing
    whole = np.rint(index).astype(np.int64)
    off = np.abs(index - whole) * slice_spacing
    if off.max() > max(POSITION_TOLERANCE * slice_spacing, MINIMUM_TOLERANCE):
        worst = int(np.argmax(off))
        raise InputError(
            f"its planes are not evenly spaced: the one at {_place(positions[worst])} mm lies "
            f"{off[worst]:.2f} mm from its place in a stack of {slice_spacing:g} mm; resample it first"
        )
    n_slices = int(whole.max()) + 1
    if n_slices > MAXIMUM_SLICES:
        raise InputError(
            f"its planes span {n_slices} slices of {slice_spacing:g} mm, at most {MAXIMUM_SLICES} are read"
        )
    if not gaps:
        _refuse_gaps(whole, positions, slice_spacing)
    first = positions[int(np.argmin(depth))]
    affine = np.eye(4)
    affine[:3, 0] = axes[:, 0] * pixel_spacing[1]
    affine[:3, 1] = axes[:, 1] * pixel_spacing[0]
    affine[:3, 2] = axes[:, 2] * slice_spacing
    affine[:3, 3] = first
    return image_grid((columns, rows, n_slices), affine), whole


def _refuse_tilt(local: NDArray[np.float64], pixel_spacing: NDArray[np.float64]) -> None:
    """Planes that shift sideways from one to the next: a tilted gantry, or planes of several stacks."""
    sideways = np.ptp(local[:, :2], axis=0)
    if sideways.max() <= max(POSITION_TOLERANCE * float(pixel_spacing.min()), MINIMUM_TOLERANCE):
        return
    far, near = local[np.argmax(local[:, 2])], local[np.argmin(local[:, 2])]
    shift = far - near
    angle = float(np.rad2deg(np.arctan2(np.linalg.norm(shift[:2]), abs(shift[2]))))
    raise InputError(
        f"its planes shift sideways by up to {sideways.max():.2f} mm (a gantry tilt of {angle:.1f}°, or "
        "several stacks in one); straighten it first, for instance with 3D Slicer's 'Acquisition geometry "
        "regularization'"
    )


def _refuse_gaps(whole: NDArray[np.int64], positions: NDArray[np.float64], spacing: float) -> None:
    """Two planes in one place, or places without a plane."""
    there, counts = np.unique(whole, return_counts=True)
    if counts.max() > 1:
        twice = int(np.flatnonzero(whole == there[np.argmax(counts)])[0])
        raise InputError(
            f"two planes lie in one place ({_place(positions[twice])} mm): several acquisitions are mixed; "
            "leave one of them"
        )
    missing = np.setdiff1d(np.arange(there[-1] + 1), there)
    if missing.size:
        before = int(np.flatnonzero(whole == missing[0] - 1)[0])
        raise InputError(
            f"{missing.size} slice(s) are missing in a stack of {spacing:g} mm, the first after the plane "
            f"at {_place(positions[before])} mm; export the whole series"
        )


def _place(position: NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{x:.1f}" for x in position) + ")"
