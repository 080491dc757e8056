"""Smooth shapes of the phantom, each a function negative inside and close to a distance in metres."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.errors import InputError
from thermosim.units import MILLILITRE, MILLIMETRE

Array = NDArray[np.floating]
Shape = Callable[[Array, Array, Array], Array]
"""f(x, y, z) [m] of broadcastable coordinates [m, LPS]: negative inside, zero on the surface."""


def smooth_union(first: Array, second: Array, width: float) -> Array:
    """min(a, b) with its crease rounded over `width` [m] (quadratic polynomial blend).

    min(a, b) − h²/(4 w) with h = max(w − |a − b|, 0); never larger than the plain minimum.
    """
    overlap = np.maximum(width - np.abs(first - second), 0)
    return np.asarray(np.minimum(first, second) - overlap * overlap / (4 * width))


def smooth_cut(shape: Array, tool: Array, width: float) -> Array:
    """`shape` without `tool`: max(a, −b) with its edge rounded over `width` [m]."""
    return -smooth_union(-shape, tool, width)


def ellipsoid(
    x: Array, y: Array, z: Array, center: tuple[float, ...], radii: tuple[float, ...], tilt: float = 0.0
) -> Array:
    """Nearly the distance to an ellipsoid [m]: k₀ (k₀ − 1) / k₁, k₀ = |p/r|, k₁ = |p/r²|.

    `center`, `radii` [mm] along the axes; `tilt` [rad] turns it about y, +x upwards.
    """
    u, v, w = (a - a.dtype.type(MILLIMETRE * c) for a, c in zip((x, y, z), center, strict=True))
    if tilt:
        cosine, sine = u.dtype.type(np.cos(tilt)), u.dtype.type(np.sin(tilt))
        u, w = cosine * u + sine * w, cosine * w - sine * u
    p, q, r = (1.0 / (MILLIMETRE * a) for a in radii)
    p2, q2, r2 = (u * p) ** 2, (v * q) ** 2, (w * r) ** 2
    k0 = np.sqrt(p2 + q2 + r2)
    k1 = np.sqrt(p2 * (p * p) + q2 * (q * q) + r2 * (r * r))
    return np.asarray(k0 * (k0 - 1) / np.maximum(k1, u.dtype.type(1e-6)))


def liver_outline(x: Array, y: Array, z: Array) -> Array:
    """The liver before it is scaled and before the cava's groove is cut.

    A large right and a tapering left lobe under the dome of the diaphragm, hollowed from below
    and behind by stomach, bowel, kidney and spine, and pressed from above by the heart.
    """
    right = ellipsoid(x, y, z, (-42, 6, -6), (60, 66, 76))
    left = ellipsoid(x, y, z, (10, -20, 24), (92, 42, 32), 0.05)
    liver = smooth_union(right, left, 0.030)
    heart = ellipsoid(x, y, z, (44, -10, 92), (50, 52, 42))
    liver = smooth_cut(liver, heart, 0.030)
    bowel = ellipsoid(x, y, z, (52, 24, -66), (86, 84, 66), -0.42)
    liver = smooth_cut(liver, bowel, 0.014)
    kidney = ellipsoid(x, y, z, (-48, 78, -62), (36, 40, 56), 0.15)
    liver = smooth_cut(liver, kidney, 0.014)
    spine = ellipsoid(x, y, z, (16, 92, 10), (40, 44, 400))
    return smooth_cut(liver, spine, 0.016)


def gallbladder_outline(x: Array, y: Array, z: Array) -> Array:
    """A pear under the visceral surface, its fundus at the inferior edge, its neck at the hilum."""
    fundus = ellipsoid(x, y, z, (-22, -34, -58), (13, 16, 14))
    neck = ellipsoid(x, y, z, (-16, -16, -44), (7, 18, 7))
    return smooth_union(fundus, neck, 0.010)


def isosurface(shape: Shape, lower: Array, upper: Array, step: float) -> TriangleSurface:
    """Marching cubes on `shape` at level 0 in a box sampled every `step` [m]; outward normals.

    The box must enclose the surface with a cell to spare; it is evaluated slab by slab.
    """
    # VTK takes long to import, and only pictures and margins need it
    from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
    from vtkmodules.vtkCommonDataModel import vtkImageData
    from vtkmodules.vtkFiltersCore import vtkFlyingEdges3D

    counts = np.maximum(np.ceil((np.asarray(upper) - np.asarray(lower)) / step).astype(int) + 1, 2)
    axes = [lower[a] + step * np.arange(counts[a]) for a in range(3)]
    values = np.empty(tuple(counts), np.float32)
    for first in range(0, int(counts[0]), 16):
        part = axes[0][first : first + 16]
        values[first : first + 16] = shape(
            part[:, None, None], axes[1][None, :, None], axes[2][None, None, :]
        )
    image = vtkImageData()
    image.SetDimensions(*(int(count) for count in counts))
    image.SetSpacing(step, step, step)
    image.SetOrigin(*(float(corner) for corner in lower))
    image.GetPointData().SetScalars(numpy_to_vtk(values.ravel(order="F"), deep=True))
    edges = vtkFlyingEdges3D()
    edges.SetInputData(image)
    edges.SetValue(0, 0.0)
    edges.ComputeNormalsOff()
    edges.ComputeScalarsOff()
    edges.Update()
    mesh = edges.GetOutput()
    triangles = vtk_to_numpy(mesh.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    return outward(vtk_to_numpy(mesh.GetPoints().GetData()).astype(float), triangles.astype(np.int64))


def enclosed_volume(points: Array, triangles: NDArray[np.int64]) -> float:
    """Volume inside a closed surface [m³] by the divergence theorem; positive for outward normals."""
    a, b, c = (points[triangles[:, i]] - points.mean(axis=0) for i in range(3))
    return float(np.sum(np.cross(a, b) * c) / 6)


def outward(points: NDArray[np.float64], triangles: NDArray[np.int64]) -> TriangleSurface:
    """A surface whose triangles turn so that their normals point out of it."""
    if enclosed_volume(points, triangles) < 0:
        triangles = triangles[:, ::-1]
    return TriangleSurface(points, np.ascontiguousarray(triangles))


CENTROID = np.array([-30.0, -4.0, 5.0]) * MILLIMETRE
"""Where the outline's centre of volume lies in its own frame; the phantom's origin."""

_CAVA_HEIGHTS = np.array([-105.0, -40.0, 0.0, 35.0, 62.0, 100.0])
_CAVA_X = np.array([8.0, 5.0, 2.0, 0.0, -4.0, -4.0])
_CAVA_Y = np.array([46.0, 45.0, 43.0, 38.0, 29.0, 24.0])


class LiverShape:
    """The liver scaled to a volume, with the groove of the cava and the bed of the gallbladder.

    Parameters
    ----------
    volume : of the liver inside its capsule [m³].
    cava_radius : of the vena cava's lumen, which is not scaled [m].
    """

    def __init__(self, volume: float, cava_radius: float) -> None:
        self.cava_radius = cava_radius
        self.scale: float = (volume / (1380 * MILLILITRE)) ** (1 / 3)
        for _ in range(2):  # the groove of fixed width makes the volume not quite cubic in the scale
            self.scale *= (volume / self._sampled_volume()) ** (1 / 3)

    def _sampled_volume(self) -> float:
        lower, upper = self.box()
        step = 3 * MILLIMETRE * self.scale
        x, y, z = (np.arange(lower[a], upper[a], step, dtype=np.float32) for a in range(3))
        filled = 0.0
        for first in range(0, len(x), 16):
            values = self(x[first : first + 16, None, None], y[None, :, None], z[None, None, :])
            filled += float(np.sum(np.clip(0.5 - values / step, 0, 1), dtype=np.float64))
        return filled * step**3

    def box(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Corners of a box around liver and gallbladder [m, LPS]."""
        return self.placed([-106, -70, -86]), self.placed([108, 78, 76])

    def placed(self, point_mm: object) -> NDArray[np.float64]:
        """From the outline's own frame [mm] to the phantom's [m, LPS]."""
        return np.asarray((np.asarray(point_mm, float) * MILLIMETRE - CENTROID) * self.scale)

    def _own(self, x: Array, y: Array, z: Array) -> tuple[Array, Array, Array]:
        one = x.dtype.type
        own = tuple(a * one(1 / self.scale) + one(c) for a, c in zip((x, y, z), CENTROID, strict=True))
        return own[0], own[1], own[2]

    def cava_line(self) -> NDArray[np.float64]:
        """Centre line of the vena cava from below upwards (n, 3) [m, LPS]."""
        heights = np.linspace(_CAVA_HEIGHTS[0], _CAVA_HEIGHTS[-1], 22)
        return self.placed(np.stack([*self._cava_at(heights), heights], axis=1))

    @staticmethod
    def _cava_at(height_mm: Array) -> tuple[Array, Array]:
        return np.interp(height_mm, _CAVA_HEIGHTS, _CAVA_X), np.interp(height_mm, _CAVA_HEIGHTS, _CAVA_Y)

    def gallbladder(self, x: Array, y: Array, z: Array) -> Array:
        """The gallbladder's shape function [m]."""
        return np.asarray(gallbladder_outline(*self._own(x, y, z)) * x.dtype.type(self.scale))

    def __call__(self, x: Array, y: Array, z: Array) -> Array:
        """The liver's shape function [m]."""
        u, v, w = self._own(x, y, z)
        one = x.dtype.type
        cava_x, cava_y = (a.astype(x.dtype) * one(MILLIMETRE) for a in self._cava_at(w / MILLIMETRE))
        liver = liver_outline(u, v, w)
        liver = smooth_cut(liver, gallbladder_outline(u, v, w) - one(0.5 * MILLIMETRE), 0.004)
        # half a millimetre less than the lumen, so that no sliver of background is left between
        groove = np.hypot(u - cava_x, v - cava_y) - one(self.cava_radius / self.scale - 0.5 * MILLIMETRE)
        return np.asarray(smooth_cut(liver, groove, 0.004) * one(self.scale))

    def at(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """The liver's shape function [m] at points (..., 3) [m, LPS]."""
        return np.asarray(self(points[..., 0], points[..., 1], points[..., 2]))


class TumorShape:
    """A closed, star-shaped, bumpy ball around a centre.

    r(u) = R (1 + Σ aᵢ P_l(nᵢ·u)) with Legendre polynomials of order l = 2, 3, 4 about random axes
    nᵢ (order 2 makes it ellipsoidal), scaled so that its volume is that of a ball of `diameter`.

    Parameters
    ----------
    center : LPS [m]. diameter : [m]. irregularity : largest relative bump, 0 for a ball.
    random : source of the axes and amplitudes.
    """

    def __init__(
        self, center: NDArray[np.float64], diameter: float, irregularity: float, random: np.random.Generator
    ) -> None:
        self.center = np.asarray(center, float)
        self.orders = np.array([2, 2, 2, 3, 3, 3, 4, 4, 4, 4])
        axes = random.normal(size=(len(self.orders), 3))
        self.axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)
        self.amplitudes = random.normal(size=len(self.orders)) / (self.orders - 1)
        self.radius = 1.0
        self.directions = fibonacci_sphere(4000)
        bumps = self.radius_along(self.directions) - 1
        self.amplitudes *= irregularity / np.max(np.abs(bumps))
        relative = self.radius_along(self.directions)
        # ball's volume over V = ∮ r³/3 dΩ
        self.radius = 0.5 * diameter / float(np.mean(relative**3)) ** (1 / 3)
        if relative.min() <= 0:
            raise InputError(f"a tumour's irregularity is {irregularity:g}, at most 0.3; make it smoother")
        # |∇f| ≤ √(1 + (max |r'| / min r)²) outside, with r' along the sphere by finite differences
        near, step = self.directions[:1000], 1e-4
        slopes = []
        for shift in np.eye(3):
            moved = near + step * (shift - (near @ shift)[:, None] * near)
            moved /= np.linalg.norm(moved, axis=1, keepdims=True)
            slopes.append((self.radius_along(moved) - self.radius_along(near)) / step)
        steepest = float(np.sqrt(np.max(np.sum(np.square(slopes), axis=0))))
        self.steepness = float(np.hypot(1.0, 1.05 * steepest / (self.radius * relative.min())))

    @property
    def outer_radius(self) -> float:
        """Largest distance of the surface from the centre [m]."""
        return float(self.radius_along(self.directions).max())

    def radius_along(self, directions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance of the surface from the centre along unit vectors (..., 3) [m]."""
        cosine = directions @ self.axes.T
        square = cosine * cosine
        legendre = np.where(
            self.orders == 2,
            0.5 * (3 * square - 1),
            np.where(
                self.orders == 3,
                0.5 * (5 * square - 3) * cosine,
                0.125 * ((35 * square - 30) * square + 3),
            ),
        )
        return np.asarray(self.radius * (1 + legendre @ self.amplitudes))

    def surface_points(self) -> NDArray[np.float64]:
        """Evenly spread points on the surface [m, LPS]."""
        return self.center + self.radius_along(self.directions)[:, None] * self.directions

    def at(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """The shape function [m] at points (..., 3): |p − c| − r along p − c."""
        offset = points - self.center
        length = np.linalg.norm(offset, axis=-1)
        directions = offset / np.maximum(length, 1e-9)[..., None]
        return np.asarray(length - self.radius_along(directions))

    def __call__(self, x: Array, y: Array, z: Array) -> Array:
        return self.at(np.stack(np.broadcast_arrays(x, y, z), axis=-1).astype(float))

    def clearance(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """A distance that points (..., 3) outside surely have from the surface [m]."""
        return self.at(points) / self.steepness


def fibonacci_sphere(count: int) -> NDArray[np.float64]:
    """`count` nearly evenly spread unit vectors (count, 3)."""
    height = 1 - (2 * np.arange(count) + 1) / count
    angle = np.pi * (1 + 5**0.5) * np.arange(count)
    ring = np.sqrt(1 - height**2)
    return np.stack([ring * np.cos(angle), ring * np.sin(angle), height], axis=1)
