"""What all fitted links share: how far they reach and how far they may leave the plain stencil."""

from __future__ import annotations

from thermosim.anatomy.grid import Grid
from thermosim.errors import InputError

FITTED_DISTANCE = 2.5
"""Cells from the wall within which faces are fitted."""

SOLID_SKIN = 0.02
"""Cells; a centre this close to a wall has no finite wall link worth the stiffness."""

SMALLEST_FACTOR, LARGEST_FACTOR = 0.05, 5.0
"""Of a fitted face against the plain one."""


QUADRATURE = 6
"""Gauss points along a face's edge; fewer miss metal and shaft that cut a face."""


def require_cubic_cells(grid: Grid) -> float:
    """The spacing [m] of an isotropic, axis-aligned grid; InputError for any other."""
    if not (grid.is_axis_aligned and grid.is_isotropic):
        raise InputError(
            f"links are fitted on an isotropic, axis-aligned grid; this one has spacing {grid.spacing} m "
            f"and axes {grid.direction}: resample it first"
        )
    return grid.spacing[0]
