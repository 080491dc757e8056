"""What fitting links beside an electrode asks of its shape: walls, and its field alone in a large body."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.grid import Grid

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]


class ElectrodeShape(Protocol):
    """Metal and shaft of one electrode, and its near field: potential 1 on the metal, 0 far away.

    Points are LPS [m] of shape (n, 3); distances are in metres and negative inside.
    """

    @property
    def metal_area(self) -> float:
        """Area of bare metal [m²]."""
        ...

    def window(self, grid: Grid, reach: float) -> Index:
        """Indices (n, 3) of cells of the grid, among them all within `reach` [m] of metal and shaft."""
        ...

    def distance(self, points: Array) -> Array:
        """Distance from the wall of metal and shaft [m]."""
        ...

    def metal_distance(self, points: Array) -> Array:
        """Distance from the bare metal [m]; decides between poles that share a shaft."""
        ...

    def solid(self, points: Array, distance: Array, spacing: float) -> Mask:
        """Whether a cell with its centre there is no tissue; `distance` is that of the points."""
        ...

    def potential(self, points: Array) -> Array:
        """The near field φ; 1 in metal."""
        ...

    def flux(self, points: Array, axes: Index) -> Array:
        """-∂φ/∂x along axis 0, 1 or 2, for each point its own [1/m]; 0 inside metal and shaft."""
        ...

    def metal_flux(self, points: Array, width: float) -> Array:
        """Flux out of the metal nearest to the points, a mean over `width` [m], positive [1/m]."""
        ...

    def fitted(self, points: Array, spacing: float) -> Mask:
        """Whether the near field holds there: beside the metal, and some way along the shaft."""
        ...

    def quadrature(self, points: Array, spacing: float) -> Index:
        """Gauss points along the edge for the flux through a face of `spacing` with its centre there."""
        ...

    def gap(self, points: Array) -> Mask:
        """Whether a point lies beside the insulation between this pole and the other one of its shaft."""
        ...

    def surface(self, step: float) -> tuple[Array, Array]:
        """Points on the bare metal at most `step` [m] apart, and the area each stands for [m²]."""
        ...


def cell_numbers(grid: Grid, index: Index) -> Index:
    """Numbers of the cells (n, 3) in C order."""
    return np.asarray((index[:, 0] * grid.shape[1] + index[:, 1]) * grid.shape[2] + index[:, 2])


def inside_grid(grid: Grid, index: Index) -> Mask:
    """Which indices (n, 3) are cells of the grid."""
    return np.asarray(np.all((index >= 0) & (index < np.array(grid.shape)), axis=1))
