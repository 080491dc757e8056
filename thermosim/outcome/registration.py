"""Fusion of two CTs: where each point before treatment lies after it.

Rigid by default: mutual information of Mattes on a pyramid of images, from several starts. Deformable on
request: a B-spline on top of the rigid motion. SimpleITK does the work; what comes out is checked in
`thermosim.outcome.fusion`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from thermosim.anatomy.grid import Grid
from thermosim.errors import InputError
from thermosim.outcome.level_set import bounding_region
from thermosim.units import MILLIMETRE

WINDOW_HU = (-150.0, 300.0)
"""Values are cut here: air, bone and metal must not outweigh the liver."""

WORKING_MM = 2.0
"""Edge of a voxel on which the finest step works."""

CAPSULE = 8e-3
"""Tissue around the liver that guides the fusion as well [m]."""

BORDER = 20e-3
"""Tissue around the liver that images are cut to [m]."""

SEED = 20_240_117


@dataclass(frozen=True)
class Image:
    """A CT on its grid, (nx, ny, nz) in Hounsfield units."""

    grid: Grid
    values: NDArray[Any]


@dataclass(frozen=True)
class Motion:
    """Where points before treatment lie after it.

    `transform` is ITK's (LPS, mm, before → after); `matrix` 4×4 [m] where it is rigid, else None.
    """

    kind: str  # none | rigid | deformable
    transform: Any
    matrix: NDArray[np.float64] | None

    def after(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """LPS points [m] of shape (n, 3), moved into the frame after treatment."""
        positions = np.asarray(points, dtype=np.float64)
        if self.matrix is not None:
            return np.asarray(positions @ self.matrix[:3, :3].T + self.matrix[:3, 3])
        moved = [self.transform.TransformPoint(p) for p in (positions / MILLIMETRE).tolist()]
        return np.asarray(moved, dtype=np.float64).reshape(-1, 3) * MILLIMETRE

    def grid_before(self, grid: Grid) -> Grid:
        """A grid of the frame after, turned and moved into the frame before (rigid only)."""
        assert self.matrix is not None
        turn = self.matrix[:3, :3].T
        origin = turn @ (np.asarray(grid.origin) - self.matrix[:3, 3])
        return Grid(
            grid.shape,
            grid.spacing,
            tuple(float(x) for x in origin),  # type: ignore[arg-type]
            tuple(tuple(float(x) for x in row) for row in turn @ np.asarray(grid.direction)),  # type: ignore[arg-type]
        )

    def displacements(self, grid: Grid) -> NDArray[np.float32]:
        """How far each cell of a grid before treatment moves [m], (nx, ny, nz, 3)."""
        import SimpleITK as sitk

        field = sitk.TransformToDisplacementField(
            self.transform,
            sitk.sitkVectorFloat32,
            [int(n) for n in grid.shape],
            [float(c) / MILLIMETRE for c in grid.origin],
            [float(h) / MILLIMETRE for h in grid.spacing],
            [float(x) for row in grid.direction for x in row],
        )
        values = sitk.GetArrayFromImage(field).transpose(2, 1, 0, 3)
        return np.asarray(values * np.float32(MILLIMETRE), dtype=np.float32)


def no_motion() -> Motion:
    """Both frames are taken as they are."""
    import SimpleITK as sitk

    return Motion("none", sitk.Euler3DTransform(), np.eye(4))


def rigid_motion(
    before: Image,
    after: Image,
    guide: NDArray[np.bool_] | None,
    liver_after_center: NDArray[np.float64] | None,
    excluded_after: NDArray[np.bool_] | None = None,
) -> Motion:
    """The rigid motion that lays the CT before over the CT after.

    Parameters
    ----------
    guide : voxels of `before` that count; None for all.
    liver_after_center : centre of the liver after [m], if it is known, as one of the starts.
    excluded_after : voxels of `after` that do not count: the ablation zone looks different by design.

    Notes
    -----
    The starts are: frames as they are, centres of the images on each other, and centres of the livers;
    each also turned by ±10° about the patient's long axis. A coarse search sees the whole body; its best
    three are refined on the guide, and the best of those is taken.
    """
    import SimpleITK as sitk

    body = _working(_itk(before.grid, before.values))
    body_mask = _everywhere(body)
    fixed, fixed_mask = (body, body_mask) if guide is None else _around(body, before.grid, guide)
    moving = _working(_itk(after.grid, after.values))
    moving_mask = None if excluded_after is None else _itk(after.grid, ~excluded_after)
    starts = _starts(body, moving, _center_of(fixed_mask), liver_after_center)
    coarse = _tried(body, moving, body_mask, moving_mask, starts, 8.0, 60)
    if not coarse:
        raise InputError(
            "fusion failed: the CTs have no start at which they overlap; check that both show the liver, "
            "or fuse them elsewhere and leave ct_before and ct_after out"
        )
    middle = _tried(fixed, moving, fixed_mask, moving_mask, coarse[:3], 4.0, 80)
    final = _tried(fixed, moving, fixed_mask, moving_mask, middle[:1] or coarse[:1], WORKING_MM, 60)
    if not final:
        raise InputError("fusion failed: the liver before lies outside the CT after; check both files")
    return Motion("rigid", final[0], _matrix_of(sitk.Euler3DTransform(final[0])))


def _tried(
    fixed: Any,
    moving: Any,
    fixed_mask: Any,
    moving_mask: Any,
    starts: Sequence[Any],
    level: float,
    steps: int,
) -> list[Any]:
    """Each start improved at one level, the best first; those that leave no overlap are dropped."""
    found: list[tuple[float, int, Any]] = []
    for start in starts:
        try:
            better, value = _optimized(fixed, moving, fixed_mask, moving_mask, start, level, steps)
        except RuntimeError:  # ITK's way to say that there is no overlap
            continue
        found.append((value, len(found), better))
    return [transform for _, _, transform in sorted(found, key=lambda one: one[:2])]


def deformable_motion(
    before: Image,
    after: Image,
    rigid: Motion,
    guide: NDArray[np.bool_] | None,
    control_spacing: float,
    excluded_after: NDArray[np.bool_] | None = None,
) -> Motion:
    """A B-spline on top of a rigid motion, its control points `control_spacing` [m] apart.

    Noisy images of few features lead it astray; `thermosim.outcome.fusion` refuses one under which the
    CTs or the livers agree less than under the rigid motion.
    """
    import SimpleITK as sitk

    fixed = _working(_itk(before.grid, before.values))
    fixed_mask = _everywhere(fixed)
    if guide is not None:
        fixed, fixed_mask = _around(fixed, before.grid, guide)
    moving = _working(_itk(after.grid, after.values))
    size = np.asarray(fixed.GetSize()) * np.asarray(fixed.GetSpacing()) * MILLIMETRE
    mesh = [int(n) for n in np.maximum(np.ceil(size / control_spacing), 1)]
    moving_mask = None if excluded_after is None else _itk(after.grid, ~excluded_after)
    method = _method(fixed_mask, moving_mask, fixed, samples=30_000)
    method.SetOptimizerAsLBFGSB(gradientConvergenceTolerance=1e-5, numberOfIterations=25)
    method.SetMovingInitialTransform(sitk.Euler3DTransform(rigid.transform))
    spline = sitk.BSplineTransformInitializer(fixed, mesh, order=3)
    method.SetInitialTransform(spline, inPlace=True)
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([2.0, 1.0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    try:
        method.Execute(fixed, moving)
    except RuntimeError as error:
        raise InputError(
            "fusion failed: the deformable step found no overlap; use fusion.method=rigid"
        ) from error
    both = sitk.CompositeTransform([sitk.Euler3DTransform(rigid.transform), spline])
    return Motion("deformable", both, None)


def resampled(image: Image, grid: Grid, motion: Motion, outside: float = -1024.0) -> NDArray[np.float32]:
    """An image of the frame after on a grid of the frame before, linear, (nx, ny, nz)."""
    import SimpleITK as sitk

    done = sitk.Resample(
        _itk(image.grid, image.values),
        [int(n) for n in grid.shape],
        motion.transform,
        sitk.sitkLinear,
        [float(c) / MILLIMETRE for c in grid.origin],
        [float(h) / MILLIMETRE for h in grid.spacing],
        [float(x) for row in grid.direction for x in row],
        outside,
        sitk.sitkFloat32,
    )
    return np.asarray(sitk.GetArrayFromImage(done).transpose(2, 1, 0), dtype=np.float32)


# ---------------------------------------------------------------------------- the work


def _itk(grid: Grid, values: NDArray[Any]) -> Any:
    """An array on a grid as ITK's image [mm]."""
    import SimpleITK as sitk

    array = values.astype(np.uint8) if values.dtype == bool else values
    if array.dtype not in (np.uint8, np.int16, np.float32):
        array = array.astype(np.float32)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetSpacing([float(h) / MILLIMETRE for h in grid.spacing])
    image.SetOrigin([float(c) / MILLIMETRE for c in grid.origin])
    image.SetDirection([float(x) for row in grid.direction for x in row])
    return image


def _working(image: Any) -> Any:
    """The image cut to the window and on voxels of about `WORKING_MM`, without aliasing."""
    import SimpleITK as sitk

    spacing = np.asarray(image.GetSpacing())
    image = sitk.Clamp(sitk.Cast(image, sitk.sitkFloat32), sitk.sitkFloat32, *WINDOW_HU)
    wanted = np.maximum(spacing, WORKING_MM)
    if np.all(wanted < 1.2 * spacing):
        return image
    size = np.asarray(image.GetSize())
    shape = np.maximum(np.floor((size - 1) * spacing / wanted).astype(int) + 1, 1)
    sigma = np.where(wanted > 1.2 * spacing, 0.5 * wanted, 0.0)
    for axis in range(3):
        if sigma[axis] > 0 and size[axis] >= 4:
            image = sitk.RecursiveGaussian(image, float(sigma[axis]), direction=axis)
    return sitk.Resample(
        image,
        [int(n) for n in shape],
        sitk.Transform(),
        sitk.sitkLinear,
        image.GetOrigin(),
        [float(w) for w in wanted],
        image.GetDirection(),
        WINDOW_HU[0],
    )


def _everywhere(image: Any) -> Any:
    """A mask of all of an image."""
    import SimpleITK as sitk

    mask = sitk.Image(image.GetSize(), sitk.sitkUInt8) + 1
    mask.CopyInformation(image)
    return mask


def _around(body: Any, grid: Grid, guide: NDArray[np.bool_]) -> tuple[Any, Any]:
    """A working image around its guide, and the guide with its border on the same voxels."""
    import SimpleITK as sitk

    nearest = sitk.Resample(_itk(grid, guide), body, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    inside = sitk.GetArrayFromImage(nearest) > 0  # (nz, ny, nx)
    spacing = np.asarray(body.GetSpacing())[::-1] * MILLIMETRE
    region = bounding_region(inside, math.ceil(BORDER / spacing.min()))
    if region is None:
        raise InputError("the liver's mask is empty where ct_before is; check that they belong together")
    # Beside the liver itself its border guides: the capsule is where contrast is.
    wide = ndimage.distance_transform_edt(~inside[region], sampling=spacing) < CAPSULE
    size = [s.stop - s.start for s in region][::-1]
    fixed = sitk.RegionOfInterest(body, size, [s.start for s in region][::-1])
    mask = sitk.GetImageFromArray(wide.astype(np.uint8))
    mask.CopyInformation(fixed)
    return fixed, mask


def _center_of(mask: Any) -> NDArray[np.float64]:
    """Centre of a mask [mm, LPS]."""
    import SimpleITK as sitk

    cells = np.argwhere(sitk.GetArrayViewFromImage(mask) > 0)[:, ::-1]
    middle = [float(x) for x in cells.mean(axis=0)]
    return np.asarray(mask.TransformContinuousIndexToPhysicalPoint(middle))


def _middle(image: Any) -> NDArray[np.float64]:
    half = [0.5 * (n - 1) for n in image.GetSize()]
    return np.asarray(image.TransformContinuousIndexToPhysicalPoint(half))


def _starts(
    fixed: Any, moving: Any, center: NDArray[np.float64], liver_after: NDArray[np.float64] | None
) -> list[Any]:
    """Motions to start from, each turned by nothing and by ±10° about the long axis."""
    import SimpleITK as sitk

    shifts = [np.zeros(3), _middle(moving) - _middle(fixed)]
    if liver_after is not None:
        shifts.insert(0, liver_after / MILLIMETRE - center)
    different: list[NDArray[np.float64]] = []
    for shift in shifts:
        if all(np.linalg.norm(shift - other) > 5.0 for other in different):
            different.append(shift)
    starts = []
    for shift in different:
        for angle in (0.0, 10.0, -10.0):
            start = sitk.Euler3DTransform()
            start.SetCenter([float(x) for x in center])
            start.SetTranslation([float(x) for x in shift])
            start.SetRotation(0.0, 0.0, float(np.radians(angle)))
            starts.append(start)
    return starts


def _method(fixed_mask: Any, moving_mask: Any, fixed: Any, samples: int = 60_000) -> Any:
    """Mattes mutual information over a fixed random sample of the guide."""
    import SimpleITK as sitk

    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=40)
    method.SetMetricFixedMask(fixed_mask)
    if moving_mask is not None:
        method.SetMetricMovingMask(moving_mask)
    method.SetInterpolator(sitk.sitkLinear)
    n_cells = int(np.prod(fixed.GetSize()))
    share = min(1.0, samples / n_cells)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(share, SEED)
    return method


def _optimized(
    fixed: Any, moving: Any, fixed_mask: Any, moving_mask: Any, start: Any, level: float, steps: int
) -> tuple[Any, float]:
    """The start improved on images smoothed to `level` [mm]; its metric (lower is better)."""
    import SimpleITK as sitk

    method = _method(fixed_mask, moving_mask, fixed)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0,
        minStep=0.005,
        numberOfIterations=steps,
        relaxationFactor=0.6,
        gradientMagnitudeTolerance=1e-8,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([max(1, round(level / WORKING_MM))])
    method.SetSmoothingSigmasPerLevel([0.5 * level if level > WORKING_MM else 0.0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(sitk.Euler3DTransform(start), inPlace=False)
    result = method.Execute(fixed, moving)
    if result.GetName() == "CompositeTransform":
        result = sitk.CompositeTransform(result).GetBackTransform()
    return sitk.Euler3DTransform(result), float(method.GetMetricValue())


def _matrix_of(transform: Any) -> NDArray[np.float64]:
    """4×4 matrix [m] of a rigid transform of ITK [mm]."""
    turn = np.asarray(transform.GetMatrix()).reshape(3, 3)
    center = np.asarray(transform.GetCenter()) * MILLIMETRE
    shift = np.asarray(transform.GetTranslation()) * MILLIMETRE
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    matrix[:3, 3] = center + shift - turn @ center
    return matrix
