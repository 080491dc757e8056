"""Triangulated surfaces: extraction from a level set, integrals and refinement."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray
from vtkmodules.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray, vtk_to_numpy
from vtkmodules.vtkCommonCore import vtkPoints
from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkImageData, vtkPolyData
from vtkmodules.vtkFiltersCore import (
    vtkFlyingEdges3D,
    vtkQuadricDecimation,
)

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.outcome.level_set import LevelSet

EMPTY = TriangleSurface(np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int64))


def to_polydata(surface: TriangleSurface) -> vtkPolyData:
    """The surface as a vtkPolyData in double precision."""
    points = vtkPoints()
    points.SetData(numpy_to_vtk(np.ascontiguousarray(surface.points, dtype=np.float64), deep=True))
    cells = vtkCellArray()
    triangles = np.ascontiguousarray(surface.triangles, dtype=np.int64)
    cells.SetData(3, numpy_to_vtkIdTypeArray(triangles.ravel(), deep=True))
    polydata = vtkPolyData()
    polydata.SetPoints(points)
    polydata.SetPolys(cells)
    return polydata


def from_polydata(polydata: vtkPolyData) -> TriangleSurface:
    """A vtkPolyData of triangles as a TriangleSurface."""
    if polydata.GetNumberOfPolys() == 0:
        return EMPTY
    points = vtk_to_numpy(polydata.GetPoints().GetData()).astype(np.float64)
    triangles = vtk_to_numpy(polydata.GetPolys().GetConnectivityArray()).reshape(-1, 3).astype(np.int64)
    return TriangleSurface(points, triangles)


def extract_surface(level_set: LevelSet) -> TriangleSurface:
    """The surface where a level set is zero, by marching cubes, normals from inside to outside.

    Closed level sets give a closed surface also where the inside reaches the faces of the box.
    """
    values = level_set.padded
    if not values.max() > 0 or not values.min() <= 0:
        return EMPTY
    image = vtkImageData()
    image.SetDimensions(*values.shape)
    image.GetPointData().SetScalars(numpy_to_vtk(values.ravel(order="F"), deep=True))
    cubes = vtkFlyingEdges3D()
    cubes.SetInputData(image)
    cubes.SetValue(0, 0.0)
    cubes.ComputeNormalsOff()
    cubes.ComputeScalarsOff()
    cubes.Update()
    index = from_polydata(cubes.GetOutput())
    points = level_set.grid.points(index.points - 1.0)
    triangles = index.triangles
    # A frame of left-handed axes mirrors the triangles.
    if np.linalg.det(np.asarray(level_set.grid.direction)) < 0:
        triangles = triangles[:, ::-1]
    return TriangleSurface(points, np.ascontiguousarray(triangles))


def triangle_areas(surface: TriangleSurface) -> NDArray[np.float64]:
    """Area of each triangle [m²]."""
    a, b, c = _corners(surface, np.zeros(3))
    x, y, z = _cross(b - a, c - a)
    return np.asarray(0.5 * np.sqrt(x**2 + y**2 + z**2))


def _corners(surface: TriangleSurface, origin: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Corners a, b, c of all triangles against `origin`, each (3, n): long rows are read fastest."""
    points = np.ascontiguousarray((surface.points - origin).T)
    return [points.take(corner, axis=1) for corner in surface.triangles.T]


def _cross(
    a: NDArray[np.float64], b: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def vertex_areas(surface: TriangleSurface) -> NDArray[np.float64]:
    """Area that each vertex stands for [m²]: a third of its triangles; sums to the surface's area."""
    areas = np.repeat(triangle_areas(surface) / 3.0, 3)
    total = np.bincount(surface.triangles.ravel(), weights=areas, minlength=len(surface.points))
    return np.asarray(total, dtype=np.float64)


def moments(
    surface: TriangleSurface,
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Volume [m³], centroid [m] and covariance ∫(x−c)(x−c)ᵀ dV / V [m²] of what a closed surface encloses.

    By the divergence theorem, as a sum over tetrahedra from a common apex (exact for the polyhedron).
    """
    if len(surface.triangles) == 0:
        return 0.0, np.full(3, np.nan), np.full((3, 3), np.nan)
    apex = surface.points.mean(axis=0)
    a, b, c = _corners(surface, apex)
    six_volumes = sum(one * other for one, other in zip(a, _cross(b, c), strict=True))
    volume = float(six_volumes.sum() / 6.0)
    if volume == 0.0:
        return 0.0, apex, np.zeros((3, 3))
    total = a + b + c
    centroid = (six_volumes * total).sum(axis=1) / (24.0 * volume)
    second = np.empty((3, 3))
    for i, j in combinations_with_replacement(range(3), 2):
        products = sum(v[i] * v[j] for v in (a, b, c, total))
        second[i, j] = second[j, i] = (six_volumes * products).sum() / 120.0
    covariance = second / volume - np.outer(centroid, centroid)
    return volume, apex + centroid, np.asarray(covariance)


def refined(surface: TriangleSurface, longest_edge: float) -> TriangleSurface:
    """The same surface with no edge longer than `longest_edge` [m], by splitting edges in the middle.

    Closed surfaces stay closed: an edge is split in both of its triangles. The shape is unchanged.
    """
    points, triangles = surface.points, surface.triangles
    for _ in range(20):
        edges = triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
        run = points[edges[:, 0]] - points[edges[:, 1]]
        long_edges = np.flatnonzero(np.sqrt(np.einsum("ij,ij->i", run, run)) > longest_edge)
        if len(long_edges) == 0:
            break
        lower, upper = np.sort(edges[long_edges], axis=1).T
        key, inverse = np.unique(lower * len(points) + upper, return_inverse=True)
        middle = np.full(len(edges), -1, dtype=np.int64)
        middle[long_edges] = len(points) + inverse
        ends = points[np.column_stack([key // len(points), key % len(points)])]
        points = np.concatenate([points, ends.mean(axis=1)])
        triangles = _split(triangles, middle.reshape(-1, 3))
    return TriangleSurface(points, triangles)


def _split(triangles: NDArray[np.int64], middles: NDArray[np.int64]) -> NDArray[np.int64]:
    """Split triangles at the middles of their edges (01, 12, 20); −1 marks an edge left whole."""
    marked = middles >= 0
    count = marked.sum(axis=1)
    # Turn each triangle so that its first marked edge is 01, and with two marked edges 01 and 12.
    turn = np.where(count == 2, (np.argmin(marked, axis=1) + 1) % 3, np.argmax(marked, axis=1))
    order = (np.arange(3)[None, :] + turn[:, None]) % 3
    v = np.take_along_axis(triangles, order, axis=1)
    m = np.take_along_axis(middles, order, axis=1)
    whole, one, two, three = (v[count == n] for n in range(4))
    m1, m2, m3 = (m[count == n] for n in (1, 2, 3))
    pieces = [
        whole,
        np.column_stack([one[:, 0], m1[:, 0], one[:, 2]]),
        np.column_stack([m1[:, 0], one[:, 1], one[:, 2]]),
        np.column_stack([m2[:, 0], two[:, 1], m2[:, 1]]),
        np.column_stack([two[:, 0], m2[:, 0], m2[:, 1]]),
        np.column_stack([two[:, 0], m2[:, 1], two[:, 2]]),
        np.column_stack([three[:, 0], m3[:, 0], m3[:, 2]]),
        np.column_stack([m3[:, 0], three[:, 1], m3[:, 1]]),
        np.column_stack([m3[:, 2], m3[:, 1], three[:, 2]]),
        m3,
    ]
    return np.concatenate(pieces).astype(np.int64)


def with_edge_length(surface: TriangleSurface, edge: float, maximum_points: int) -> TriangleSurface:
    """The surface with edges of at most about `edge` [m] and at most about `maximum_points` vertices.

    Coarse triangles are split; a surface that is much finer is thinned by quadric decimation, which
    moves it by far less than `edge`. Where the number of vertices binds, the edges grow.
    """
    area = float(triangle_areas(surface).sum())
    # An equilateral triangulation with n vertices has 2n triangles of area √3/4 e².
    edge = max(edge, float(np.sqrt(area / (2.0 * maximum_points) * 4.0 / np.sqrt(3.0))))
    target = area / (np.sqrt(3.0) / 4.0 * edge**2)
    if len(surface.triangles) > 1.2 * target:
        thin = vtkQuadricDecimation()
        thin.SetInputData(to_polydata(surface))
        thin.SetTargetReduction(1.0 - target / len(surface.triangles))
        thin.VolumePreservationOn()
        thin.Update()
        surface = from_polydata(thin.GetOutput())
    return refined(surface, 1.5 * edge)
