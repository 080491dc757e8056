"""How much of a tumour and of the shells around it is ablated, with partial volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkImagingStencil import vtkImageStencilToImage, vtkPolyDataToImageStencil

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.anatomy.grid import Grid
from thermosim.outcome.level_set import LevelSet, dilated
from thermosim.outcome.surface import moments, refined, to_polydata
from thermosim.outcome.surface_distance import distance_to_surface

MAXIMUM_SAMPLES = 250_000
SUBSAMPLES = 3


@dataclass(frozen=True)
class Coverage:
    """Shares of volume: `residual` of the tumour that is alive (blood left out), `shells` ablated."""

    residual: float
    shells: dict[int, float]


class Surroundings:
    """A tumour and the shells around it, made ready to be compared with ablation zones.

    Volumes are sums over a lattice around the tumour, as fine as the grid where that needs at most
    250 000 cells. A cell cut by one surface counts by the plane through it; one cut by several by
    3³ points in it. Shells lie inside the liver; one without any liver in it is taken whole.

    Parameters
    ----------
    tumor : closed surface. liver : None for no capsule near. blood : open vessels.
    spacing : of the grid [m].
    """

    def __init__(
        self,
        tumor: TriangleSurface,
        liver: LevelSet | None,
        blood: Sequence[LevelSet],
        spacing: float,
        shells_mm: tuple[int, ...] = (5, 6, 10),
    ) -> None:
        outer = 1e-3 * max(shells_mm)
        self._lattice = _lattice(tumor, spacing, outer)
        step = self._lattice.spacing[0]
        distance = tumor_distance(tumor, self._lattice, outer + 2.0 * step)
        cells = np.nonzero(distance.ravel() < outer + step)[0]
        self._planes = planes = _Planes(self._lattice, cells)
        beside = planes.of(distance)
        tissue = [(-1.0, 0.0, planes.of(one.on(self._lattice))) for one in blood]
        self._tumor = _Shape([(-1.0, 0.0, beside)])
        self._tumor_volume = self._tumor.volume(planes)
        self._tumor_tissue = _Shape([*self._tumor.sides, *tissue])
        within = [] if liver is None else [(1.0, 0.0, planes.of(liver.on(self._lattice)))]
        self._shells: dict[int, tuple[_Shape, float]] = {}
        for millimetres in shells_mm:
            shell = [(1.0, 0.0, beside), (-1.0, 1e-3 * millimetres, beside)]
            whole = _Shape([*shell, *within, *tissue])
            volume = whole.volume(planes)
            if volume <= 0.0:
                whole = _Shape([*shell, *tissue])
                volume = whole.volume(planes)
            self._shells[millimetres] = whole, volume

    def coverage(self, zone: LevelSet | None) -> Coverage:
        """What a zone of dead tissue, None for none, leaves of the tumour and covers of the shells."""
        if zone is None:
            return Coverage(1.0, dict.fromkeys(self._shells, 0.0))
        planes = self._planes
        edge = planes.of(zone.on(self._lattice))
        residual = 1.0
        if self._tumor_volume > 0.0:
            alive = _Shape([*self._tumor_tissue.sides, (-1.0, 0.0, edge)])
            residual = alive.volume(planes) / self._tumor_volume
        shells = {}
        for millimetres, (whole, volume) in self._shells.items():
            hit = _Shape([*whole.sides, (1.0, 0.0, edge)]).volume(planes)
            shells[millimetres] = min(hit / volume, 1.0) if volume > 0.0 else 0.0
        return Coverage(float(min(max(residual, 0.0), 1.0)), shells)


Plane = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Signed distance at the centres of the n chosen cells (n,) and its gradient (3, n), linear in the cell."""


class _Planes:
    """Chosen cells of a lattice, and fields on it as one plane per cell."""

    def __init__(self, lattice: Grid, cells: NDArray[np.int64]) -> None:
        self.step = lattice.spacing[0]
        self.shape = lattice.shape
        self.cells = cells
        self.index = np.unravel_index(cells, lattice.shape)
        middle = (np.arange(SUBSAMPLES) + 0.5) / SUBSAMPLES - 0.5
        offsets = np.stack(np.meshgrid(middle, middle, middle, indexing="ij"), axis=-1)
        self.offsets = offsets.reshape(-1, 3) * self.step

    def of(self, field: NDArray[np.floating]) -> Plane:
        """A field as signed distance: divided by the length of its gradient."""
        gradient = np.empty((3, len(self.cells)))
        for axis in range(3):
            along = np.moveaxis(field, axis, 0)
            rise = np.empty_like(field)
            width = np.full(self.shape[axis], 2.0 * self.step)
            width[[0, -1]] = self.step
            risen = np.moveaxis(rise, axis, 0)
            np.subtract(along[2:], along[:-2], out=risen[1:-1])
            np.subtract(along[1], along[0], out=risen[0])
            np.subtract(along[-1], along[-2], out=risen[-1])
            np.divide(rise.ravel()[self.cells], width[self.index[axis]], out=gradient[axis])
        length = np.sqrt(gradient[0] ** 2 + gradient[1] ** 2 + gradient[2] ** 2)
        np.maximum(length, np.finfo(np.float32).tiny, out=length)
        # Far from the surface only the sign matters; the cut keeps products finite.
        far = 1e3 * self.step
        distance = np.clip(field.ravel()[self.cells] / length, -far, far)
        gradient /= length
        return distance, gradient


class _Shape:
    """An intersection of half-spaces sign · (plane) + offset > 0 in each cell."""

    def __init__(self, sides: list[tuple[float, float, Plane]]) -> None:
        self.sides = sides

    def volume(self, planes: _Planes) -> float:
        """Its volume [m³] over all cells."""
        step = planes.step
        reach = 0.87 * step  # half the diagonal of a cell: beyond it a plane does not cut the cell
        centres = []
        possible = np.ones(len(planes.cells), dtype=bool)
        cuts = np.zeros(len(planes.cells), dtype=np.int8)
        for sign, offset, plane in self.sides:
            centre = sign * plane[0] + offset
            possible &= centre > -reach
            cuts += centre < reach
            centres.append(centre)
        cuts[~possible] = 0
        total = float(np.count_nonzero(possible & (cuts == 0)))
        once = cuts == 1
        for (sign, _, plane), centre in zip(self.sides, centres, strict=True):
            rows = np.flatnonzero(once & (centre < reach))
            total += float(_share_of_cell(centre[rows] / step, sign * plane[1][:, rows]).sum())
        rows = np.flatnonzero(cuts > 1)
        width = step / SUBSAMPLES
        for block in np.array_split(rows, max(1, len(rows) // 20_000)):
            share = np.ones((len(block), len(planes.offsets)))
            for (sign, _, plane), centre in zip(self.sides, centres, strict=True):
                inside = centre[block, None] + sign * (plane[1][:, block].T @ planes.offsets.T)
                inside /= width
                inside += 0.5
                np.minimum(share, np.clip(inside, 0.0, 1.0, out=inside), out=share)
            total += float(share.mean(axis=1).sum())
        return total * step**3


def _share_of_cell(centre: NDArray[np.float64], normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of a unit cube where centre + normal · x > 0, x from the cube's middle; normal (3, n).

    V = Σ over corners of (−1)^k (α − m·corner)³₊ / (6 m₁ m₂ m₃), with m = |normal| and α the distance
    of the plane to the corner where the function is largest (Scardovelli & Zaleski, J. Comput. Phys. 164
    (2000), eq. 4).
    """
    m = np.maximum(np.abs(normal), 3e-3)
    alpha = centre + 0.5 * m.sum(axis=0)
    total = np.zeros(len(centre))
    for corner in range(8):
        bits = [(corner >> axis) & 1 for axis in range(3)]
        reached = alpha - sum(m[axis] for axis in range(3) if bits[axis])
        np.maximum(reached, 0.0, out=reached)
        total += (-1) ** sum(bits) * reached * reached * reached
    return np.asarray(np.clip(total / (6.0 * m.prod(axis=0)), 0.0, 1.0))


def _lattice(tumor: TriangleSurface, spacing: float, reach: float) -> Grid:
    """An isotropic lattice around a tumour and `reach` [m] more, no finer than the grid."""
    lower = tumor.points.min(axis=0) - reach - 2 * spacing
    upper = tumor.points.max(axis=0) + reach + 2 * spacing
    extent = upper - lower
    step = max(spacing, float((np.prod(extent) / MAXIMUM_SAMPLES) ** (1 / 3)))
    shape = tuple(int(n) for n in np.ceil(extent / step) + 1)
    return Grid.box(tuple(0.5 * (lower + upper)), shape, step)  # type: ignore[arg-type]


def tumor_distance(tumor: TriangleSurface, lattice: Grid, farthest: float) -> NDArray[np.float64]:
    """Signed distance [m] of a lattice's cells to a closed surface, negative inside.

    Exact within a cell of the surface; further out by the nearest of the closest points that the
    cells at the surface know, corrected to second order for its being aside of the true one. More
    than `farthest` [m] outside, and more than two cells inside, it is only known to be that far.
    """
    step = lattice.spacing[0]
    shape = np.asarray(lattice.shape)
    fine = refined(tumor, step)
    touched = np.zeros(lattice.shape, dtype=bool)
    index = np.clip(np.rint(lattice.indices(fine.points)).astype(int), 0, shape - 1)
    touched[tuple(index.T)] = True
    band = dilated(touched)
    cells = np.argwhere(band)
    inside = _voxelized(tumor, lattice)
    sign = np.where(inside, -1.0, 1.0)
    signed = np.full(lattice.shape, np.nan)
    signed[band] = distance_to_surface(lattice.points(cells), tumor) * sign[band]

    seeds = np.argwhere(touched)
    seeds = seeds[np.all((seeds > 0) & (seeds < shape - 1), axis=1)]
    gradient = np.stack(
        [signed[tuple((seeds + unit).T)] - signed[tuple((seeds - unit).T)] for unit in np.eye(3, dtype=int)]
    )
    gradient /= np.maximum(np.linalg.norm(gradient, axis=0), 1e-30)
    feet = seeds.T - (signed[tuple(seeds.T)] / step) * gradient
    seeded = np.zeros(lattice.shape, dtype=bool)
    seeded[tuple(seeds.T)] = True
    number = np.zeros(lattice.shape, dtype=np.int32)
    number[tuple(seeds.T)] = np.arange(len(seeds))
    away, nearest = ndimage.distance_transform_edt(~seeded, return_indices=True)
    # A seed's centre lies 0.87 cells from the surface at most, and 1.45 from any place it is nearest to.
    known = np.where(inside, away > 4.0, away > farthest / step + 2.0)
    signed[known] = away[known] * step * sign[known]
    # One layer more on each side, so that every cell has six neighbours.
    foot = np.pad(number[tuple(nearest)], 1, mode="edge")
    far = np.nonzero(~band & ~known)
    here = np.ravel_multi_index(tuple(axis + 1 for axis in far), foot.shape)
    best = np.full(len(here), np.inf)
    chosen = np.zeros(len(here), dtype=np.int32)
    for stride in (0, *(turn * n // foot.itemsize for n in foot.strides for turn in (1, -1))):
        candidate = foot.ravel()[here + stride]
        square = sum((foot_axis[candidate] - axis) ** 2 for foot_axis, axis in zip(feet, far, strict=True))
        better = square < best
        np.copyto(best, square, where=better)
        np.copyto(chosen, candidate, where=better)
    # The best foot known is a little aside of the true one, by t along the surface. On a sphere of the
    # tumour's size that makes the distance d too long by t² / (2 d (1 + d/R)).
    distance = np.sqrt(best)
    along = sum(
        (foot_axis[chosen] - axis) * slope[chosen]
        for foot_axis, axis, slope in zip(feet, far, gradient, strict=True)
    )
    radius = (3.0 * max(moments(tumor)[0], 0.0) / (4.0 * np.pi)) ** (1 / 3) / step
    aside = np.maximum(best - along**2, 0.0)
    distance -= aside / (2.0 * distance * (1.0 + distance / max(radius, 1.0)))
    signed[far] = distance * step * sign[far]
    return signed


def _voxelized(surface: TriangleSurface, lattice: Grid) -> NDArray[np.bool_]:
    """Cells whose centre lies inside a closed surface."""
    scaled = TriangleSurface(lattice.indices(surface.points), surface.triangles)
    stencil = vtkPolyDataToImageStencil()
    stencil.SetInputData(to_polydata(scaled))
    stencil.SetOutputOrigin(0.0, 0.0, 0.0)
    stencil.SetOutputSpacing(1.0, 1.0, 1.0)
    nx, ny, nz = lattice.shape
    stencil.SetOutputWholeExtent(0, nx - 1, 0, ny - 1, 0, nz - 1)
    image = vtkImageStencilToImage()
    image.SetInputConnection(stencil.GetOutputPort())
    image.SetInsideValue(1)
    image.SetOutsideValue(0)
    image.SetOutputScalarTypeToUnsignedChar()
    image.Update()
    flat = vtk_to_numpy(image.GetOutput().GetPointData().GetScalars())
    return np.asarray(flat.reshape(lattice.shape, order="F") > 0)
