"""A regular grid of cells in the patient's frame: the ruler of everything else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thermosim.errors import InputError

Vector = tuple[float, float, float]

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Grid:
    """Cells of a box in the patient's frame LPS (x to the left, y to the back, z to the head).

    The centre of cell (i, j, k) lies at ``origin + direction @ (spacing * (i, j, k))``.
    Arrays on it have shape ``(nx, ny, nz)`` and C order. The computing grid is isotropic with
    the identity as direction; grids of images may be anisotropic and oblique.

    Parameters
    ----------
    shape : number of cells along the three axes.
    spacing : edge lengths of a cell [m].
    origin : centre of cell (0, 0, 0), LPS [m].
    direction : 3×3 orthonormal matrix by rows; its columns are the axes in LPS.
    """

    shape: tuple[int, int, int]
    spacing: Vector
    origin: Vector
    direction: tuple[Vector, Vector, Vector] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise InputError(f"a grid needs three positive cell counts, got {self.shape}")
        if not all(np.isfinite(self.spacing)) or min(self.spacing) <= 0:
            raise InputError(f"cell spacing must be positive, got {self.spacing} m")
        if not np.all(np.isfinite(self.origin)):
            raise InputError(f"the grid's origin is not finite: {self.origin}")
        axes = np.asarray(self.direction)
        if axes.shape != (3, 3) or not np.allclose(axes.T @ axes, np.eye(3), atol=1e-3):
            raise InputError(f"the grid's axes are not orthonormal: {self.direction}")

    @classmethod
    def box(cls, center: Vector, shape: tuple[int, int, int], spacing: float) -> Grid:
        """An isotropic, axis-aligned grid of `shape` cells around `center` [m, LPS]."""
        origin = tuple(float(c) - 0.5 * (n - 1) * spacing for c, n in zip(center, shape, strict=True))
        return cls(shape, (spacing,) * 3, origin)  # type: ignore[arg-type]

    @property
    def n_cells(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def cell_volume(self) -> float:
        """Volume of a cell [m³]."""
        return float(np.prod(self.spacing))

    @property
    def is_axis_aligned(self) -> bool:
        return bool(np.allclose(self.direction, np.eye(3), atol=1e-6))

    @property
    def is_isotropic(self) -> bool:
        return bool(np.allclose(self.spacing, self.spacing[0], rtol=1e-6))

    @property
    def lower_corner(self) -> NDArray[np.float64]:
        """Corner of the box with the smallest indices [m, LPS] (axis-aligned grids)."""
        return np.asarray(self.origin) - 0.5 * np.asarray(self.spacing)

    @property
    def upper_corner(self) -> NDArray[np.float64]:
        """Corner of the box with the largest indices [m, LPS] (axis-aligned grids)."""
        return np.asarray(self.lower_corner + np.asarray(self.spacing) * np.asarray(self.shape))

    def axis(self, dimension: int) -> NDArray[np.float64]:
        """Cell centres along one axis [m, LPS] (axis-aligned grids)."""
        if not self.is_axis_aligned:
            raise InputError("only an axis-aligned grid has coordinates per axis")
        steps = np.arange(self.shape[dimension], dtype=np.float64)
        return np.asarray(self.origin[dimension] + self.spacing[dimension] * steps)

    def points(self, indices: NDArray[np.floating] | NDArray[np.integer]) -> NDArray[np.float64]:
        """LPS points [m] of (fractional) cell indices; shape (..., 3) in and out."""
        axes = np.asarray(self.direction)
        return np.asarray(np.asarray(self.origin) + (np.asarray(indices) * np.asarray(self.spacing)) @ axes.T)

    def indices(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Fractional cell indices of LPS points [m]; shape (..., 3) in and out."""
        axes = np.asarray(self.direction)
        return np.asarray(((np.asarray(points) - np.asarray(self.origin)) @ axes) / np.asarray(self.spacing))

    def contains(self, points: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Whether LPS points [m] lie in the box."""
        index = self.indices(points)
        return np.asarray(np.all((index >= -0.5) & (index <= np.asarray(self.shape) - 0.5), axis=-1))

    def affine_ras_mm(self) -> NDArray[np.float64]:
        """4×4 NIfTI affine: cell indices to RAS millimetres."""
        affine = np.eye(4)
        affine[:3, :3] = LPS_TO_RAS @ np.asarray(self.direction) @ np.diag(self.spacing) * 1e3
        affine[:3, 3] = LPS_TO_RAS @ np.asarray(self.origin) * 1e3
        return affine
