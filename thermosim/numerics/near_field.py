"""The electric near field of one electrode alone in a large uniform body.

A needle is a half-infinite rod: hemispherical tip, bare metal at potential 1, then an insulated
shaft. A band is the same with bare metal on a stretch of the shaft only; another band of the shaft
may be held at potential 0 (the other pole of a bipolar needle). The field is solved once per shape
on a body-fitted, graded, axisymmetric mesh; coordinates are the distance d from the axis (from the
hemisphere's centre below it) and the arc t along the wall. Both families of mesh lines are
orthogonal, so two-point fluxes are consistent everywhere.
Lengths here are in needle radii; the solution depends on lengths over the radius only.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from thermosim.errors import InputError
from thermosim.resources import cache_directory

if TYPE_CHECKING:
    from scipy.sparse import csc_matrix

Array = NDArray[np.float64]

FINEST_CELL = 2e-3  # at the junction of metal and shaft, where the field has a square-root singularity
GROWTH = 0.12  # growth of the cells away from it
LARGEST_LOGARITHMIC_CELL = 0.07
LARGEST_ARC_CELL = 0.5
CAP_CELL = np.pi / 48
MESH_EXTENT = 20.0  # outer boundary, in active lengths; beyond it the field falls as 1/distance
CACHE_VERSION = 1


class NearField(Protocol):
    """Potential (1 on the metal, 0 far away) and its flux, lengths in radii.

    `axial` is measured along the axis from the centre of the hemisphere (or sphere), towards the
    handle; `radial` from the axis.
    """

    @property
    def current(self) -> float:
        """Dimensionless current C: the resistance in a body of conductivity σ is 1 / (σ R C)."""
        ...

    def potential(self, axial: Array, radial: Array) -> Array:
        """φ at the points; inside the solid its value at the wall."""
        ...

    def flux(self, axial: Array, radial: Array) -> tuple[Array, Array]:
        """-∂φ/∂axial and -∂φ/∂radial at the points; zero inside the solid."""
        ...

    def wall_flux(self, arc: Array, width: float) -> Array:
        """Mean flux through the bare metal over `width` around the wall position `arc`."""
        ...


class SphereField:
    """φ = 1/d outside a sphere of radius 1: closed form."""

    current = 4 * np.pi

    def potential(self, axial: Array, radial: Array) -> Array:
        return np.asarray(1.0 / np.maximum(np.hypot(axial, radial), 1.0))

    def flux(self, axial: Array, radial: Array) -> tuple[Array, Array]:
        distance = np.hypot(axial, radial)
        density = np.where(distance < 1.0, 0.0, 1.0 / np.maximum(distance, 1.0) ** 3)
        return axial * density, radial * density

    def wall_flux(self, arc: Array, width: float) -> Array:
        return np.ones_like(arc)


class _Table:
    """Bilinear interpolation in a table over a non-uniform rectangular mesh, clamped at its edges."""

    def __init__(self, x: Array, y: Array, values: Array) -> None:
        self.x, self.y, self.values = x, y, np.ascontiguousarray(values)

    def __call__(self, x: Array, y: Array) -> Array:
        i, p = self._locate(self.x, x)
        j, q = self._locate(self.y, y)
        flat, row = self.values.ravel(), self.values.shape[1]
        k = i * row + j
        low = flat[k] * (1 - q) + flat[k + 1] * q
        high = flat[k + row] * (1 - q) + flat[k + row + 1] * q
        return np.asarray(low * (1 - p) + high * p)

    @staticmethod
    def _locate(nodes: Array, x: Array) -> tuple[NDArray[np.intp], Array]:
        x = np.clip(x, nodes[0], nodes[-1])
        i = np.clip(np.searchsorted(nodes, x, side="right") - 1, 0, len(nodes) - 2)
        return i, (x - nodes[i]) / (nodes[i + 1] - nodes[i])


def _march(start: float, stop: float, spacing: Callable[[float], float]) -> Array:
    """Nodes from start to stop with the local spacing given, stretched to end exactly."""
    nodes = [start]
    while nodes[-1] < stop:
        nodes.append(nodes[-1] + spacing(nodes[-1]))
    x = np.array(nodes)
    return np.asarray(start + (x - start) * ((stop - start) / (x[-1] - start)))


class _Mesh:
    """Faces, link conductances and wall links of the needle's mesh, lengths in radii.

    Bare metal lies from `start` to `aspect`, counted from the tip's end; `other` is the same of the
    other pole, if there is one. Along the wall t counts from where the hemisphere meets the rod.
    """

    def __init__(self, aspect: float, start: float = 0.0, other: tuple[float, float] | None = None) -> None:
        own = (start - 1.0 if start > 0 else -np.inf, aspect - 1.0)
        bands = [own]
        if other is not None:
            bands.append((other[0] - 1.0 if other[0] > 0 else -np.inf, other[1] - 1.0))
        edges = sorted(edge for band in bands for edge in band if edge > 0)
        self.bands, end = bands, edges[-1]
        outer = MESH_EXTENT * (end + 1.0)
        self.d_faces = 1.0 + _march(
            0.0, outer - 1.0, lambda x: min(FINEST_CELL + GROWTH * x, LARGEST_LOGARITHMIC_CELL * (1.0 + x))
        )
        rod = [
            _march(low, high, lambda s, low=low, high=high: self._arc_cell(low, high, s))  # type: ignore[misc]
            for low, high in zip([0.0, *edges[:-1]], edges, strict=True)
        ]
        shaft = end + _march(0.0, outer, lambda s: FINEST_CELL + GROWTH * s)
        cap = np.linspace(-0.5 * np.pi, 0.0, round(0.5 * np.pi / CAP_CELL) + 1)
        self.t_faces = np.concatenate([cap, *(part[1:] for part in rod), shaft[1:]])
        self.d = np.sqrt(self.d_faces[1:] * self.d_faces[:-1])
        self.t = 0.5 * (self.t_faces[1:] + self.t_faces[:-1])
        self.shape = (len(self.d), len(self.t))
        self.metal, *rest = [(self.t > low) & (self.t < high) for low, high in bands]
        self.other = rest[0] if rest else np.zeros_like(self.metal)
        cap_cell = self.t < 0

        # width of a wall-parallel face: solid angle on the cap, angle × length on the rod
        self.width = 2 * np.pi * np.where(cap_cell, np.diff(np.sin(np.minimum(self.t_faces, 0.0))),
                                          np.diff(self.t_faces))  # fmt: skip
        radii = np.concatenate([[1.0], self.d, self.d_faces[-1:]])
        resistance = np.where(cap_cell, -np.diff(1.0 / radii)[:, None], np.diff(np.log(radii))[:, None])
        radial = self.width / resistance
        self.wall, self.across = radial[0], radial[1:-1]
        self.wall_area = self.width.copy()  # radius 1
        center = 0.5 * (max(edges[-1], own[1]) + max(min(low for low, _ in bands), -1.0))
        # 1/distance decay from the middle of the metal on the outer boundary
        x, z = (
            self.d_faces[-1] * np.cos(np.minimum(self.t, 0)),
            self.d_faces[-1] * np.sin(np.minimum(self.t, 0)) + np.maximum(self.t, 0),
        )
        inward = (x * np.cos(np.minimum(self.t, 0)) + (z - center) * np.sin(np.minimum(self.t, 0))) / (
            x**2 + (z - center) ** 2
        )
        area = self.width * np.where(cap_cell, self.d_faces[-1] ** 2, self.d_faces[-1])
        self.outer = 1.0 / (1.0 / radial[-1] + 1.0 / (area * inward))
        self.ring = np.pi * np.diff(self.d_faces**2)
        half = 0.5 * np.diff(self.t_faces) * np.where(cap_cell, self.d[:, None], 1.0)
        inner = self.t_faces[1:-1]
        self.t_area = self.ring[:, None] * np.cos(np.minimum(inner, 0.0))
        self.along = self.t_area / (half[:, :-1] + half[:, 1:])
        top = self.t_faces[-1] - center
        self.top = self.ring / (half[:, -1] + (self.d**2 + top**2) / top)

    @staticmethod
    def _arc_cell(low: float, high: float, s: float) -> float:
        """Width of a cell at `s` on a stretch of the rod: fine where metal meets insulation."""
        first = CAP_CELL if low == 0.0 else FINEST_CELL
        return min(first + GROWTH * (s - low), LARGEST_ARC_CELL, FINEST_CELL + GROWTH * max(high - s, 0.0))

    def right_side(self) -> Array:
        """b of A φ = b."""
        right = np.zeros(self.shape)
        right[0] = np.where(self.metal, self.wall, 0.0)
        return right

    def diagonal(self) -> Array:
        """Diagonal of A."""
        diagonal = np.zeros(self.shape)
        diagonal[:-1] += self.across
        diagonal[1:] += self.across
        diagonal[:, :-1] += self.along
        diagonal[:, 1:] += self.along
        diagonal[0] += np.where(self.metal | self.other, self.wall, 0.0)
        diagonal[-1] += self.outer
        diagonal[:, -1] += self.top
        return diagonal

    def applied(self, potential: Array) -> Array:
        """A φ."""
        result = self.diagonal() * potential
        result[:-1] -= self.across * potential[1:]
        result[1:] -= self.across * potential[:-1]
        result[:, :-1] -= self.along * potential[:, 1:]
        result[:, 1:] -= self.along * potential[:, :-1]
        return result

    def matrix(self) -> csc_matrix:
        """A, for a direct solver."""
        from scipy.sparse import coo_matrix  # slow to import, and fields are mostly remembered

        number = np.arange(self.shape[0] * self.shape[1]).reshape(self.shape)
        pairs = ((number[:-1], number[1:], self.across), (number[:, :-1], number[:, 1:], self.along))
        rows, columns, values = [], [], []
        for low, high, g in pairs:
            rows += [low.ravel(), high.ravel()]
            columns += [high.ravel(), low.ravel()]
            values += [-g.ravel(), -g.ravel()]
        rows.append(number.ravel())
        columns.append(number.ravel())
        values.append(self.diagonal().ravel())
        matrix = coo_matrix(
            (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
            shape=(number.size,) * 2,
        )
        return matrix.tocsc()

    def is_solved_by(self, potential: Array) -> bool:
        """Whether a field read from disk is the solution: a stale or damaged file is not trusted."""
        residual = np.abs(self.applied(potential) - self.right_side())
        return bool(np.all(residual <= 1e-9 * self.diagonal()))


class NeedleField:
    """Interpolated field of a needle, from the cell values `solution` on `mesh`."""

    def __init__(self, mesh: _Mesh, solution: Array) -> None:
        u, u_faces = np.log(mesh.d), np.log(mesh.d_faces)
        first = np.where(mesh.metal, 1.0, np.where(mesh.other, 0.0, solution[0]))
        values = np.vstack([first, solution])
        self._potential = _Table(np.concatenate([[0.0], u]), mesh.t, values)

        through = np.vstack(
            [
                np.where(mesh.metal | mesh.other, mesh.wall * (1.0 * mesh.metal - solution[0]), 0.0),
                mesh.across * (solution[:-1] - solution[1:]),
                mesh.outer * solution[-1],
            ]
        )
        # times d: constant for a line source
        scale = np.where(mesh.t < 0, mesh.d_faces[:, None], 1.0)
        self._across = _Table(u_faces, mesh.t, through / (mesh.width * scale))
        along = mesh.along * (solution[:, :-1] - solution[:, 1:]) / mesh.t_area
        inner = mesh.t_faces[1:-1]
        bare = np.any([(low < inner) & (inner < high) for low, high in mesh.bands], axis=0)
        wall = np.where(bare, 0.0, along[0])
        along = np.vstack([wall, along])
        tip = np.zeros((len(along), 1))
        self._along = _Table(np.concatenate([[0.0], u]), mesh.t_faces[:-1], np.hstack([tip, along]))
        first_metal, n = int(np.argmax(mesh.metal)), int(mesh.metal.sum())
        own = slice(first_metal, first_metal + n)
        self._arc = mesh.t_faces[first_metal : first_metal + n + 1]
        self._cumulated_current = np.concatenate([[0.0], np.cumsum(through[0, own])])
        self._cumulated_area = np.concatenate([[0.0], np.cumsum(mesh.wall_area[own])])
        self.current = float(self._cumulated_current[-1])
        self.current_into_other = -float(through[0, mesh.other].sum())

    @staticmethod
    def _mesh_coordinates(axial: Array, radial: Array) -> tuple[Array, Array, Array, Array]:
        below = np.minimum(axial, 0.0)
        distance = np.maximum(np.hypot(radial, below), 1e-12)
        sine = below / distance
        arc = np.where(axial < 0, np.arcsin(sine), axial)
        return distance, arc, sine, np.sqrt(1.0 - sine**2)

    def potential(self, axial: Array, radial: Array) -> Array:
        distance, arc, _, _ = self._mesh_coordinates(axial, radial)
        return self._potential(np.log(np.maximum(distance, 1.0)), arc)

    def flux(self, axial: Array, radial: Array) -> tuple[Array, Array]:
        distance, arc, sine, cosine = self._mesh_coordinates(axial, radial)
        u = np.log(np.maximum(distance, 1.0))
        outside = distance >= 1.0
        across = np.where(outside, self._across(u, arc) / np.maximum(distance, 1.0), 0.0)
        along = np.where(outside, self._along(u, arc), 0.0)
        return across * sine + along * cosine, across * cosine - along * sine

    def wall_flux(self, arc: Array, width: float) -> Array:
        width = min(width, 0.5 * float(self._arc[-1] - self._arc[0]))
        low = np.clip(arc - 0.5 * width, self._arc[0], self._arc[-1] - width)
        low_current, high_current, low_area, high_area = (
            np.interp(x, self._arc, cumulated)
            for cumulated in (self._cumulated_current, self._cumulated_area)
            for x in (low, low + width)
        )
        return np.asarray((high_current - low_current) / (high_area - low_area))


def needle_field(aspect: float, start: float = 0.0, other: tuple[float, float] | None = None) -> NeedleField:
    """Field of a needle, or of a band on its shaft, solved or remembered.

    Solves ∇²φ = 0, φ = 1 on the metal, φ = 0 on the other pole, no flux on the shaft,
    φ ~ 1/distance far away, by finite volumes on an orthogonal mesh. Solutions are kept in memory
    and in the user's cache folder.

    Parameters
    ----------
    aspect, start : where the bare metal ends and begins, from the tip's end [radii]; start 0: the
        tip (cap included) is bare, else the metal begins on the rod.
    other : start and end of the other pole of the same shaft, or None.

    Raises
    ------
    InputError : metal shorter than a radius, poles that overlap, or a rod that is no needle.

    Examples
    --------
    >>> field = needle_field(41.0)
    >>> resistance = 1.0 / (0.2 * 0.75e-3 * field.current)  # radius 0.75 mm in 0.2 S/m [ohm]
    >>> round(resistance, 1)
    87.2
    """
    if not (np.isfinite(aspect) and 2.0 < aspect <= 2000.0):
        raise InputError(f"active length / radius is {aspect:g}; must lie between 2 and 2000")
    bands = [(start, aspect)] if other is None else sorted([(start, aspect), other])
    for low, high in bands:
        if not (np.isfinite(high - low) and high - low >= 1.0 and (low == 0.0 or low > 1.0)):
            raise InputError(
                f"bare metal from {low:g} to {high:g} radii behind the tip's end; it must be at least "
                "1 radius long and begin at the tip (0) or on the rod (above 1)"
            )
    if len(bands) == 2 and bands[1][0] - bands[0][1] < 0.5:
        raise InputError(
            f"the insulation between two poles is {bands[1][0] - bands[0][1]:g} radii; must be at least 0.5"
        )
    rounded = [float(f"{value:.6g}") for value in (aspect, start)]
    partner = None if other is None else (float(f"{other[0]:.6g}"), float(f"{other[1]:.6g}"))
    return _needle_field(rounded[0], rounded[1], partner)


@lru_cache(maxsize=32)
def _needle_field(aspect: float, start: float, other: tuple[float, float] | None) -> NeedleField:
    mesh = _Mesh(aspect, start, other)
    shape = [aspect] if start == 0.0 and other is None else [aspect, start, *(other or ())]
    name = "_".join(f"{value:.6g}" for value in shape)
    path = cache_directory() / f"near_field_{CACHE_VERSION}_{name}.npy"
    solution = _read(path, mesh.shape)
    if solution is None or not mesh.is_solved_by(solution):
        from scipy.sparse.linalg import splu

        factors = splu(
            mesh.matrix(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
        solution = factors.solve(mesh.right_side().ravel()).reshape(mesh.shape)
        _write(path, solution)
    return NeedleField(mesh, solution)


def _header(shape: tuple[int, int]) -> bytes:
    """What a cached file of this shape must begin with, byte for byte."""
    buffer = io.BytesIO()
    description = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, description)
    return buffer.getvalue()


def _read(path: Path, shape: tuple[int, int]) -> Array | None:
    """The cached array, or None where there is none of just this shape and type."""
    header, n_bytes = _header(shape), 8 * shape[0] * shape[1]
    with suppress(OSError), path.open("rb") as file:
        content = file.read(len(header) + n_bytes + 1)
        if len(content) == len(header) + n_bytes and content.startswith(header):
            return np.frombuffer(content, dtype="<f8", offset=len(header)).reshape(shape)
    return None


def _write(path: Path, solution: Array) -> None:
    """Write in one step; a folder that cannot be written only costs the next run a solve."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_header(solution.shape) + np.asarray(solution, "<f8").tobytes())
            Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
