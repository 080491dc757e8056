"""How good a fusion is, when it is refused, and what it does to shapes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.anatomy.grid import Grid
from thermosim.errors import InputError
from thermosim.outcome.landmarks import Landmarks
from thermosim.outcome.level_set import LevelSet, bounding_region, crop_grid
from thermosim.outcome.observed import ObservedShape
from thermosim.outcome.registration import WINDOW_HU, Image, Motion, no_motion, resampled
from thermosim.outcome.surface import extract_surface, moments
from thermosim.units import MILLIMETRE

LOW_OVERLAP = 0.85
"""A lower Dice of the livers after fusion is flagged."""
LOW_SIMILARITY = 0.3
"""A lower correlation of the CTs within the guide is flagged."""
LARGE_LANDMARK_ERROR = 5e-3
"""A larger mean error at landmarks is flagged [m]."""
BLUR = 0.04
"""A deformation may lower the correlation by so much, as sampling between voxels blurs."""
LEAST_COVER = 0.6
"""The CT after must show at least this share of what guides the fusion."""
MOST_CELLS = 400_000


@dataclass(frozen=True)
class Limits:
    """What a believable fusion keeps to: angles [rad], lengths [m], least Jacobian determinant."""

    rotation: float
    shift: float
    deformation: float
    jacobian: float


@dataclass(frozen=True)
class FusionQuality:
    """How good a fusion is; None where it cannot be said.

    `similarity_*` correlation of the CTs within the guide with frames as they are, and fused; `overlap_*`
    Dice of the livers; `landmark_errors_*` (n,) [m]; `rotation` [rad]; `shift` [m] of the guide's centre;
    `deformation` largest further displacement [m] and `jacobian` least determinant of a deformable one;
    `cover` share of the guide that the CT after shows; `warnings` for the reader.
    """

    rotation: float
    shift: float
    similarity_before: float | None = None
    similarity_after: float | None = None
    overlap_before: float | None = None
    overlap_after: float | None = None
    landmark_errors_before: NDArray[np.float64] | None = None
    landmark_errors_after: NDArray[np.float64] | None = None
    deformation: float | None = None
    jacobian: float | None = None
    cover: float | None = None
    warnings: tuple[str, ...] = ()


# ---------------------------------------------------------------------------- quality


def assess_fusion(
    motion: Motion,
    limits: Limits,
    cts: tuple[Image, Image] | None,
    livers: tuple[tuple[NDArray[np.bool_], Grid] | None, tuple[NDArray[np.bool_], Grid] | None],
    landmarks: Landmarks | None,
    left_out: NDArray[np.float64] | None = None,
    rigid: Motion | None = None,
) -> FusionQuality:
    """Measure a fusion and refuse one that cannot be right.

    Parameters
    ----------
    cts, livers : before and after. rigid : the motion that a deformable one started from.
    left_out : errors at landmarks that the motion was fitted to, each left out in turn.

    Raises
    ------
    InputError : beyond the limits, folded, too little overlap, or no better than before.
    """
    guide, center = _guide(cts, livers[0])
    moved_center = motion.after(center[None])[0]
    base = rigid if rigid is not None and rigid.matrix is not None else motion
    rotation = 0.0 if base.matrix is None else _angle(base.matrix)
    shift = _believable_shift(center, moved_center, cts, livers)
    if rotation > limits.rotation:
        raise InputError(
            f"fusion refused: it turns the patient by {np.degrees(rotation):.0f}°, at most "
            f"{np.degrees(limits.rotation):.0f}° are believed (fusion.maximum_rotation_deg); "
            "check that both CTs show the same patient the same way up, or give liver masks"
        )
    if shift > limits.shift:
        raise InputError(
            f"fusion refused: the liver's centre moves by {shift / MILLIMETRE:.0f} mm, at most "
            f"{limits.shift / MILLIMETRE:.0f} mm are believed (fusion.maximum_shift_mm); give liver masks"
        )
    deformation, jacobian = None, None
    if rigid is not None and guide is not None:
        deformation, jacobian = _deformation(motion, rigid, *guide)
        if deformation > limits.deformation or jacobian < limits.jacobian:
            raise InputError(
                f"fusion refused: the deformation reaches {deformation / MILLIMETRE:.0f} mm "
                f"(limit {limits.deformation / MILLIMETRE:.0f}, fusion.maximum_deformation_mm) and shrinks "
                f"volumes to {jacobian:.2f} (limit {limits.jacobian:g}, fusion.minimum_jacobian); use "
                "fusion.method=rigid"
            )
    warnings: list[str] = []
    similar_before = similar_after = cover = None
    if cts is not None and guide is not None and motion.kind != "none":
        similar_before, _ = _similarity(cts, no_motion(), *guide)
        similar_after, cover = _similarity(cts, motion, *guide)
        if cover < LEAST_COVER or similar_after is None:
            raise InputError(
                f"fusion refused: the CT after treatment shows only {100 * cover:.0f} % of the liver before; "
                f"at least {100 * LEAST_COVER:.0f} % are needed"
            )
        if similar_before is not None and similar_after < similar_before - 0.005:
            raise InputError(
                f"fusion refused: the CTs agree less after it (correlation {similar_after:.2f}) than before "
                f"({similar_before:.2f}); give liver masks, or use fusion.method=none if the frames agree"
            )
        if rigid is not None:
            similar_rigid, _ = _similarity(cts, rigid, *guide)
            if similar_rigid is not None and similar_after < similar_rigid - BLUR:
                raise InputError(
                    "fusion refused: the CTs agree less with the deformation (correlation "
                    f"{similar_after:.2f}) than without ({similar_rigid:.2f}); use fusion.method=rigid"
                )
        if similar_after < LOW_SIMILARITY:
            warnings.append(
                f"the fused CTs agree poorly (correlation {similar_after:.2f}); look at the chequerboard"
            )
    overlap_before = overlap_after = None
    if livers[0] is not None and livers[1] is not None:
        overlap_before = dice(livers[0], livers[1], no_motion())
        overlap_after = dice(livers[0], livers[1], motion)
        if rigid is not None and overlap_after < (overlap_rigid := dice(livers[0], livers[1], rigid)) - 0.01:
            raise InputError(
                "fusion refused: the livers overlap less with the deformation (Dice "
                f"{overlap_after:.2f}) than without ({overlap_rigid:.2f}); use fusion.method=rigid"
            )
        if overlap_after < overlap_before - 0.02:
            raise InputError(
                f"fusion refused: the livers overlap less after it (Dice {overlap_after:.2f}) than before "
                f"({overlap_before:.2f}); check the masks and the CTs"
            )
        if overlap_after < LOW_OVERLAP:
            warnings.append(
                f"the livers overlap by {overlap_after:.2f} only (Dice; {LOW_OVERLAP} or more is usual "
                "after a good fusion)"
            )
    errors_before = errors_after = None
    if landmarks is not None:
        errors_before = np.linalg.norm(landmarks.before - landmarks.after, axis=1)
        errors_after = left_out
        if errors_after is None:
            errors_after = np.linalg.norm(motion.after(landmarks.before) - landmarks.after, axis=1)
        if errors_after.mean() > LARGE_LANDMARK_ERROR:
            warnings.append(
                f"landmarks are off by {1e3 * errors_after.mean():.1f} mm on average after the fusion"
            )
    return FusionQuality(
        rotation,
        shift,
        similar_before,
        similar_after,
        overlap_before,
        overlap_after,
        errors_before,
        errors_after,
        deformation,
        jacobian,
        cover,
        tuple(warnings),
    )


def dice(
    before: tuple[NDArray[np.bool_], Grid], after: tuple[NDArray[np.bool_], Grid], motion: Motion
) -> float:
    """Overlap of two masks, 2 |A ∩ B| / (|A| + |B|), on the grid of the one before."""
    moved = resampled(Image(after[1], after[0]), before[1], motion, outside=0.0) > 0.5
    whole = np.count_nonzero(after[0]) * after[1].cell_volume / before[1].cell_volume
    total = float(np.count_nonzero(before[0])) + whole  # what lies beyond the grid before counts as missed
    return 0.0 if total == 0 else float(2.0 * np.count_nonzero(moved & before[0]) / total)


def _guide(
    cts: tuple[Image, Image] | None, liver: tuple[NDArray[np.bool_], Grid] | None
) -> tuple[tuple[Grid, NDArray[np.bool_]] | None, NDArray[np.float64]]:
    """Cells (on a light grid) where a fusion is judged, and their centre [m]."""
    if liver is not None:
        mask, grid = liver
        region = bounding_region(mask, 1)
        if region is not None:
            mask, grid = mask[region], crop_grid(grid, region)
    elif cts is not None:
        grid = cts[0].grid
        mask = cts[0].values > WINDOW_HU[0]
    else:
        return None, np.zeros(3)
    strides = [max(1, int(2.0e-3 / h)) for h in grid.spacing]
    while np.prod([n / s for n, s in zip(grid.shape, strides, strict=True)]) > 4 * MOST_CELLS:
        strides = [s + 1 for s in strides]
    mask = mask[tuple(slice(None, None, s) for s in strides)]
    spacing = tuple(s * h for s, h in zip(strides, grid.spacing, strict=True))
    light = Grid(mask.shape, spacing, grid.origin, grid.direction)  # type: ignore[arg-type]
    if not mask.any():
        raise InputError("the CT before treatment shows nothing but air; check the file")
    return (light, mask), light.points(np.argwhere(mask).mean(axis=0))


def _angle(matrix: NDArray[np.float64]) -> float:
    return float(np.arccos(np.clip(0.5 * (np.trace(matrix[:3, :3]) - 1.0), -1.0, 1.0)))


def _believable_shift(
    center: NDArray[np.float64],
    moved: NDArray[np.float64],
    cts: tuple[Image, Image] | None,
    livers: tuple[tuple[NDArray[np.bool_], Grid] | None, tuple[NDArray[np.bool_], Grid] | None],
) -> float:
    """How far the guide's centre lands from where it may be expected [m]: the nearest of those places.

    They are the liver's centre after, if known; else the same place in the frames as they are, or in the
    images laid centre on centre, as scanners choose their frames freely.
    """
    if livers[0] is not None and livers[1] is not None:
        mask, grid = livers[1]
        return float(np.linalg.norm(moved - grid.points(np.argwhere(mask).mean(axis=0))))
    places = [center]
    if cts is not None:
        middles = [image.grid.points(0.5 * (np.asarray(image.grid.shape) - 1)) for image in cts]
        places.append(center + middles[1] - middles[0])
    return float(min(np.linalg.norm(moved - place) for place in places))


def _similarity(
    cts: tuple[Image, Image], motion: Motion, grid: Grid, guide: NDArray[np.bool_]
) -> tuple[float | None, float]:
    """Correlation of the CTs within the guide, and the share of it that both show."""
    outside = -2000.0
    first = resampled(cts[0], grid, no_motion(), outside)[guide]
    second = resampled(cts[1], grid, motion, outside)[guide]
    both = (first > outside + 1) & (second > outside + 1)
    cover = float(both.mean())
    if both.sum() < 1000 or cover < 0.05:
        return None, cover
    a, b = (_windowed(values[both]) for values in (first, second))
    if a.std() <= 0 or b.std() <= 0:
        return 0.0, cover
    return float(np.corrcoef(a, b)[0, 1]), cover


def _windowed(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Values within the window of soft tissue."""
    return np.clip(values, *WINDOW_HU).astype(np.float64)


def _deformation(motion: Motion, rigid: Motion, grid: Grid, guide: NDArray[np.bool_]) -> tuple[float, float]:
    """Largest displacement beyond the rigid one [m] and least Jacobian determinant within the guide."""
    moved = motion.displacements(grid)
    further = np.linalg.norm(moved - rigid.displacements(grid), axis=-1)
    rows = [np.stack(list(np.gradient(moved[..., k], *grid.spacing)), axis=-1) for k in range(3)]
    gradient = np.stack(rows, axis=-2) @ np.linalg.inv(np.asarray(grid.direction))
    determinant = np.linalg.det(np.eye(3) + gradient)
    return float(further[guide].max()), float(determinant[guide].min())


# ---------------------------------------------------------------------------- shapes


def brought_before(shape: ObservedShape, motion: Motion, near: NDArray[np.float64]) -> ObservedShape:
    """A shape of the frame after, seen in the frame before.

    Rigid: exactly, as its grid is turned and moved. Deformable: φ_before(x) = φ_after(T(x)) on cells as
    fine as the shape's own, around the shape and the points `near` [m].
    """
    if motion.matrix is not None:
        grid = motion.grid_before(shape.level.grid)
        surface = TriangleSurface(
            (shape.surface.points - motion.matrix[:3, 3]) @ motion.matrix[:3, :3], shape.surface.triangles
        )
        return ObservedShape(LevelSet(grid, shape.level.values, shape.level.closed), surface, shape.volume)
    lattice = _lattice_before(shape, motion, near)
    points = lattice.points(np.stack(np.meshgrid(*(np.arange(n) for n in lattice.shape), indexing="ij"), -1))
    moved = points + motion.displacements(lattice)
    inside = shape.level.grid.contains(moved)
    values = shape.level.sample(moved.reshape(-1, 3)).reshape(lattice.shape)
    values[~inside] = -np.abs(values[~inside])  # beyond the crop of a closed shape nothing is inside
    level = LevelSet(lattice, values)
    surface = extract_surface(level)
    volume, _, _ = moments(surface)
    if not volume > 0:
        raise InputError("fusion refused: the deformation leaves nothing of the ablation zone")
    return ObservedShape(level, surface, volume)


def _lattice_before(shape: ObservedShape, motion: Motion, near: NDArray[np.float64]) -> Grid:
    """Cells in the frame before that hold the whole shape: found by walking towards it."""
    goal_low, goal_high = shape.surface.points.min(axis=0), shape.surface.points.max(axis=0)
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    wanted = goal_low + corners * (goal_high - goal_low)
    guess = np.repeat(near.mean(axis=0)[None], len(wanted), axis=0)
    for _ in range(30):  # x ← x − (T(x) − y) converges for a motion near a shift and a small turn
        step = wanted - motion.after(guess)
        guess = guess + step
        if np.abs(step).max() < 1e-4:
            break
    lower = guess.min(axis=0) - 15e-3
    upper = guess.max(axis=0) + 15e-3
    extent = upper - lower
    step_length = max(min(shape.level.grid.spacing), float((np.prod(extent) / MOST_CELLS) ** (1 / 3)))
    cells = tuple(int(n) for n in np.ceil(extent / step_length) + 1)
    return Grid.box(tuple(0.5 * (lower + upper)), cells, step_length)  # type: ignore[arg-type]


def gap_between(first: ObservedShape, second: ObservedShape) -> float:
    """Distance between the boxes around two shapes [m]; 0 where the boxes overlap."""
    low = np.maximum(first.surface.points.min(axis=0), second.surface.points.min(axis=0))
    high = np.minimum(first.surface.points.max(axis=0), second.surface.points.max(axis=0))
    return float(np.linalg.norm(np.maximum(low - high, 0.0)))
