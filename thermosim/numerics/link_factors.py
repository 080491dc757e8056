"""Geometry of a boundary finer than the grid, as factors on the links between cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LinkFactors:
    """How electrodes or vessel walls change the links of a seven-point stencil.

    Cells are numbered ``(i * ny + j) * nz + k``. The plain link between two neighbours of
    conductivity s₁, s₂ is ``h · 2 s₁ s₂ / (s₁ + s₂)``.

    Parameters
    ----------
    solid_cells : int64 (n,) cells that are no tissue at all (centre in metal, shaft or blood);
        all links to them are cut.
    face_cells, face_axes : int64 (m,), int8 (m,) faces between a cell and its next neighbour
        along axis 0, 1 or 2, each listed once.
    face_factors : float64 (m,) the plain link is multiplied by this (0 cuts it).
    wall_cells : int64 (w,) cells with a link to a wall; a cell may occur more than once, but only
        once per wall.
    wall_owners : int32 (w,) which electrode or vessel group (index in the list given).
    wall_factors : float64 (w,) the wall link is ``h · factor · s_cell``, between cell and wall.
    wall_areas : float64 (w,) area of wall it stands for [m²]; sums to the wall's area.
    """

    solid_cells: NDArray[np.int64]
    face_cells: NDArray[np.int64]
    face_axes: NDArray[np.int8]
    face_factors: NDArray[np.float64]
    wall_cells: NDArray[np.int64]
    wall_owners: NDArray[np.int32]
    wall_factors: NDArray[np.float64]
    wall_areas: NDArray[np.float64]
