"""Closed surfaces laid on the computing grid: labels, the liver's mask, lumens, tumours' surfaces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyvista as pv
from numpy.typing import NDArray
from vtkmodules.vtkImagingStencil import vtkImageStencilToImage, vtkPolyDataToImageStencil

from thermosim.anatomy.anatomy import Structure, TriangleSurface
from thermosim.anatomy.grid import Grid
from thermosim.anatomy.mesh import to_polydata
from thermosim.errors import InputError

ROLE_ORDER = ("background", "organ", "risk", "tumor", "vessel")
"""Where structures of equal priority overlap, the later role wins: blood cools whatever it is in."""


@dataclass(frozen=True)
class Solid:
    """A structure with its closed, outward surface [m, LPS] and its rank in overlaps."""

    structure: Structure
    surface: TriangleSurface
    priority: int = 0


def painting_order(solids: list[Solid]) -> list[Solid]:
    """Lowest first: by priority, then by role, then in the order given."""
    return sorted(solids, key=lambda s: (s.priority, ROLE_ORDER.index(s.structure.role)))


def inside(surface: TriangleSurface, grid: Grid) -> NDArray[np.bool_]:
    """Whether each cell's centre lies inside a closed surface; bool of the grid's shape.

    Every grid plane is cut with the surface exactly and filled between crossings (even-odd).
    """
    if not (grid.is_axis_aligned and grid.is_isotropic):
        raise InputError("surfaces can only be laid on an isotropic, axis-aligned grid")
    mask = np.zeros(grid.shape, bool)
    low = np.floor(grid.indices(surface.points.min(axis=0))).astype(np.int64)
    high = np.ceil(grid.indices(surface.points.max(axis=0))).astype(np.int64)
    low, high = np.maximum(low, 0), np.minimum(high, np.asarray(grid.shape) - 1)
    if (low > high).any():
        return mask
    # In units of cells with the crop's first centre as origin: the same exactness anywhere.
    local = TriangleSurface(grid.indices(surface.points) - low, surface.triangles)
    size = high - low
    stencil = vtkPolyDataToImageStencil()
    stencil.SetInputData(to_polydata(local))
    stencil.SetOutputOrigin(0.0, 0.0, 0.0)
    stencil.SetOutputSpacing(1.0, 1.0, 1.0)
    stencil.SetOutputWholeExtent(0, int(size[0]), 0, int(size[1]), 0, int(size[2]))
    stencil.SetTolerance(1e-6)
    image = vtkImageStencilToImage()
    image.SetInputConnection(stencil.GetOutputPort())
    image.SetInsideValue(1)
    image.SetOutsideValue(0)
    image.SetOutputScalarTypeToUnsignedChar()
    image.Update()
    values = np.asarray(pv.wrap(image.GetOutput()).point_data.active_scalars)
    filled = values.reshape(tuple(size + 1), order="F") > 0
    mask[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))] = filled
    return mask
