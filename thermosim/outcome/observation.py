"""One observed ablation: two masks, with or without CTs, to a fusion and a margin."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.anatomy.grid import Grid
from thermosim.errors import InputError
from thermosim.outcome.ablation_zone import zone_from_level_set
from thermosim.outcome.fusion import FusionQuality, Limits, assess_fusion, brought_before, gap_between
from thermosim.outcome.landmarks import Landmarks, motion_of_landmarks
from thermosim.outcome.level_set import LevelSet, bounding_region
from thermosim.outcome.observed import ObservedShape, observed_margin, observed_shapes
from thermosim.outcome.registration import (
    Image,
    Motion,
    deformable_motion,
    no_motion,
    resampled,
    rigid_motion,
)
from thermosim.outcome.results import AblationZone, TumorMargin
from thermosim.units import MILLIMETRE

Mask = tuple[NDArray[np.bool_], Grid]

FAR_APART = 30e-3
"""Without a fusion, a zone further than this from the tumour is not believed to be meant for it [m]."""

__all__ = ["Limits", "Observation", "ObservedInputs", "observe"]


@dataclass(frozen=True)
class ObservedInputs:
    """What was seen; `frames_*` are the UIDs of DICOM frames of reference, where there are any."""

    tumor: Mask
    zone: Mask
    liver_before: Mask | None = None
    liver_after: Mask | None = None
    ct_before: Image | None = None
    ct_after: Image | None = None
    landmarks: Landmarks | None = None
    frames_before: tuple[str, ...] = ()
    frames_after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Observation:
    """The margin of an observed ablation, everything in the frame before treatment.

    `uncorrected_minimum` [m]: without the correction for shrinkage. `liver` is the mask used for the
    capsule. `seconds` of wall time.
    """

    inputs: ObservedInputs
    motion: Motion
    quality: FusionQuality | None
    tumor: TumorMargin
    tumor_shape: ObservedShape
    zone_shape: ObservedShape
    zone: AblationZone
    liver: Mask | None
    shrinkage: float
    uncorrected_minimum: float
    notes: tuple[str, ...]
    seconds: float = 0.0


def observe(
    inputs: ObservedInputs,
    method: str,
    limits: Limits,
    control_spacing: float = 45e-3,
    shrinkage: float = 0.0,
    ignore_frames: bool = False,
) -> Observation:
    """Fuse by `method` (none, rigid, deformable, landmarks) and measure the margin.

    Parameters
    ----------
    control_spacing : of a deformable fusion [m]. shrinkage : linear fraction by which ablated tissue has
        shrunk; the zone is enlarged about its centre by 1 / (1 − shrinkage).

    Raises
    ------
    InputError : frames that do not agree, a fusion that cannot be right, masks that cannot be used.
    """
    _check_frames(inputs, method, ignore_frames)
    motion, quality = _fused(inputs, method, limits, control_spacing)
    tumor_shape, seen = observed_shapes(inputs.tumor, inputs.zone)
    zone_shape = brought_before(seen, motion, tumor_shape.surface.points)
    notes = [] if method != "none" else _frame_notes(inputs, tumor_shape, zone_shape)
    liver = inputs.liver_before
    if liver is None and inputs.liver_after is not None:
        liver = _liver_before(inputs.liver_after, motion, inputs.tumor[1])
    if liver is not None:
        notes.extend(_liver_notes(liver, tumor_shape))
    margin = observed_margin("tumor", tumor_shape, zone_shape, liver)
    uncorrected = margin.all_around.minimum
    if shrinkage > 0:
        zone_shape = enlarged(zone_shape, 1.0 / (1.0 - shrinkage))
        margin = observed_margin("tumor", tumor_shape, zone_shape, liver)
    zone = zone_from_level_set(zone_shape.level, "observed", "segmented in the image after treatment")
    return Observation(
        inputs,
        motion,
        quality,
        margin,
        tumor_shape,
        zone_shape,
        replace(zone, touches_box=_reaches_edge(inputs.zone)),
        liver,
        shrinkage,
        uncorrected,
        tuple(notes + _edge_notes(inputs)),
    )


def enlarged(shape: ObservedShape, factor: float) -> ObservedShape:
    """A shape scaled about the centre of its volume."""
    from thermosim.outcome.surface import moments

    _, center, _ = moments(shape.surface)
    grid = shape.level.grid
    origin = center + factor * (np.asarray(grid.origin) - center)
    scaled = Grid(
        grid.shape,
        tuple(factor * h for h in grid.spacing),  # type: ignore[arg-type]
        tuple(float(x) for x in origin),  # type: ignore[arg-type]
        grid.direction,
    )
    surface = TriangleSurface(center + factor * (shape.surface.points - center), shape.surface.triangles)
    return ObservedShape(
        LevelSet(scaled, shape.level.values, shape.level.closed), surface, factor**3 * shape.volume
    )


def _fused(
    inputs: ObservedInputs, method: str, limits: Limits, control_spacing: float
) -> tuple[Motion, FusionQuality | None]:
    cts = None if inputs.ct_before is None or inputs.ct_after is None else (inputs.ct_before, inputs.ct_after)
    left_out, rigid = None, None
    if method == "landmarks":
        if inputs.landmarks is None:
            raise InputError("fusion.method=landmarks needs landmarks")
        motion, left_out = motion_of_landmarks(inputs.landmarks)
    elif method in ("rigid", "deformable"):
        if cts is None:
            raise InputError(f"fusion.method={method} needs both CTs")
        before, after = cts
        guide = None if inputs.liver_before is None else mask_on(inputs.liver_before, before.grid)
        center = None
        if inputs.liver_after is not None:
            mask, grid = inputs.liver_after
            center = grid.points(np.argwhere(mask).mean(axis=0))
        excluded = mask_on(inputs.zone, after.grid)
        motion = rigid_motion(before, after, guide, center, excluded)
        if method == "deformable":
            rigid = motion
            motion = deformable_motion(before, after, rigid, guide, control_spacing, excluded)
    else:
        motion = no_motion()
        if inputs.landmarks is None and (inputs.liver_before is None or inputs.liver_after is None):
            return motion, None
    livers = (inputs.liver_before, inputs.liver_after)
    return motion, assess_fusion(motion, limits, cts, livers, inputs.landmarks, left_out, rigid)


def mask_on(mask: Mask, grid: Grid) -> NDArray[np.bool_]:
    """A mask on the cells of another grid of the same frame."""
    if mask[1] == grid:
        return mask[0]
    return np.asarray(resampled(Image(mask[1], mask[0]), grid, no_motion(), outside=0.0) > 0.5)


def _liver_before(liver: Mask, motion: Motion, grid: Grid) -> Mask:
    """The liver after treatment, seen in the frame before."""
    if motion.matrix is not None:
        return liver[0], motion.grid_before(liver[1])
    return np.asarray(resampled(Image(liver[1], liver[0]), grid, motion, outside=0.0) > 0.5), grid


# ---------------------------------------------------------------------------- what is refused or noted


def _box(grid: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=np.float64)
    points = grid.points(corners * (np.asarray(grid.shape) - 1))
    half = 0.5 * max(grid.spacing)
    return points.min(axis=0) - half, points.max(axis=0) + half


def _apart(first: Grid, second: Grid) -> float:
    """Distance between the boxes of two images [m]; 0 where they overlap."""
    (low_a, high_a), (low_b, high_b) = _box(first), _box(second)
    return float(np.linalg.norm(np.maximum(np.maximum(low_a - high_b, low_b - high_a), 0.0)))


def _check_frames(inputs: ObservedInputs, method: str, ignore: bool) -> None:
    """Refuse files of one moment that do not belong together, and frames that no fusion brings together."""
    for when, frames, files in (
        ("before", inputs.frames_before, (inputs.tumor, inputs.liver_before, inputs.ct_before)),
        ("after", inputs.frames_after, (inputs.zone, inputs.liver_after, inputs.ct_after)),
    ):
        if len(set(frames)) > 1 and not ignore:
            raise InputError(
                f"the files {when} treatment have {len(set(frames))} different DICOM frames of reference; "
                "give those of one study, or fusion.ignore_frames=true if they are known to agree"
            )
        grids = [f.grid if isinstance(f, Image) else f[1] for f in files if f is not None]
        for grid in grids[1:]:
            if (gap := _apart(grids[0], grid)) > 0:
                raise InputError(
                    f"the images {when} treatment do not overlap: {gap / MILLIMETRE:.0f} mm lie between "
                    "them; check that mask, liver and CT belong together, and LPS against RAS"
                )
    if method != "none":
        return
    both = {*inputs.frames_before}, {*inputs.frames_after}
    if both[0] and both[1] and both[0] != both[1] and not ignore:
        raise InputError(
            "tumour and ablation zone have different DICOM frames of reference; give ct_before and ct_after "
            "to fuse them, or fusion.ignore_frames=true if they are known to agree"
        )
    if (gap := _apart(inputs.tumor[1], inputs.zone[1])) > 0:
        _check_flips(_middle_and_box(inputs.tumor), _middle_and_box(inputs.zone), gap)
        raise InputError(
            f"the images of tumour and ablation zone do not overlap: {gap / MILLIMETRE:.0f} mm lie between "
            "them; give ct_before and ct_after to fuse them, or check LPS against RAS"
        )


def _frame_notes(inputs: ObservedInputs, tumor: ObservedShape, zone: ObservedShape) -> list[str]:
    """What is odd about frames that were taken as they are; refuses what cannot be meant."""
    gap = gap_between(tumor, zone)
    if gap <= 0:
        return []
    _check_flips(_middle_and_box_of(tumor.surface.points), _middle_and_box_of(zone.surface.points), gap)
    if gap > FAR_APART:
        raise InputError(
            f"{gap / MILLIMETRE:.0f} mm lie between tumour and ablation zone (at most "
            f"{FAR_APART / MILLIMETRE:.0f} mm are believed); check that they belong together, or give "
            "ct_before and ct_after to fuse them"
        )
    return [
        f"tumour and ablation zone do not touch: {gap / MILLIMETRE:.0f} mm lie between the boxes around them"
    ]


Placed = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def _middle_and_box_of(points: NDArray[np.float64]) -> Placed:
    return points.mean(axis=0), points.min(axis=0), points.max(axis=0)


def _middle_and_box(mask: Mask) -> Placed:
    """Middle of a mask and the corners of the box around it [m]."""
    region = bounding_region(mask[0], 0)
    if region is None:
        return (np.full(3, np.inf),) * 3
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    low, high = (np.array([getattr(s, end) for s in region]) for end in ("start", "stop"))
    return _middle_and_box_of(mask[1].points(low + corners * (high - 1 - low)))


def _check_flips(tumor: Placed, zone: Placed, gap: float) -> None:
    """Refuse by name a zone that lies over the tumour only with sides exchanged."""
    flips = {"left and right, front and back (LPS against RAS)": (-1, -1, 1), "left and right": (-1, 1, 1)}
    for name, signs in flips.items():
        place = zone[0] * np.asarray(signs)
        if np.all(place > tumor[1] - 5e-3) and np.all(place < tumor[2] + 5e-3):
            raise InputError(
                f"the ablation zone lies {gap / MILLIMETRE:.0f} mm from the tumour, but over it with {name} "
                "exchanged; one of the files is flipped, save it again with the right orientation"
            )


def _liver_notes(liver: Mask, tumor: ObservedShape) -> list[str]:
    mask, grid = liver
    index = np.rint(grid.indices(tumor.surface.points)).astype(int)
    inside = np.all((index >= 0) & (index < np.asarray(grid.shape)), axis=1)
    index = np.clip(index, 0, np.asarray(grid.shape) - 1)
    share = float((mask[tuple(index.T)] & inside).mean())
    if share < 0.5:
        return [f"only {100 * share:.0f} % of the tumour's surface lies in the liver's mask; check both"]
    return []


def _reaches_edge(mask: Mask) -> bool:
    return any(
        bool(np.moveaxis(mask[0], axis, 0)[end].any())
        for axis in range(3)
        if mask[0].shape[axis] > 1
        for end in (0, -1)
    )


def _edge_notes(inputs: ObservedInputs) -> list[str]:
    return [
        f"the {name} reaches the edge of its image, where it is cut off"
        for name, mask in (("tumour", inputs.tumor), ("ablation zone", inputs.zone))
        if _reaches_edge(mask)
    ]
