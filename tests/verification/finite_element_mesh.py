"""A body-fitted mesh of curved hexahedra around parallel needles and one vessel, made by hand.

The axes of needles and vessel lie in the plane y = 0, which is a plane of symmetry: half the box is meshed. A
graded lattice fills the box; around each needle and the vessel an upright prism of it is taken out and filled
with layers that run from the prism's faces to the metal or to the vessel's wall. Below a needle's tip the
layers follow spheres about the centre of its hemisphere, so tip, shaft end and vessel have their exact shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skfem import ElementHex2, MeshHex, MeshHex2

Array = NDArray[np.float64]
MERGED = 1e-8
"""Nodes of neighbouring blocks that are closer than this [m] are one node."""


@dataclass(frozen=True)
class Rod:
    """A needle along +z: centre (x, 0) [m], radius, end of its hemispherical tip, half-width of its prism."""

    x: float
    radius: float
    tip: float
    prism: float

    @property
    def center(self) -> float:
        """z of the hemisphere's centre [m]."""
        return self.tip + self.radius

    def inner(self, points: Array) -> Array:
        """Where the layers that start at these points of the prism meet the needle's surface."""
        away = points - np.array([self.x, 0.0, 0.0])
        height = away[..., 2].copy()
        away[..., 2] = np.minimum(height - self.center, 0.0)
        away *= self.radius / np.linalg.norm(away, axis=-1, keepdims=True)
        away[..., 0] += self.x
        away[..., 2] += np.maximum(height, self.center)
        return away


@dataclass(frozen=True)
class Tube:
    """A vessel along z: centre (x, 0) and radius [m], half-widths of its prism in x and y."""

    x: float
    radius: float
    prism: tuple[float, float]

    def inner(self, points: Array) -> Array:
        """Where the layers that start at these points of the prism meet the vessel's wall."""
        wall = points.copy()
        away = points[..., :2] - np.array([self.x, 0.0])
        away *= self.radius / np.linalg.norm(away, axis=-1, keepdims=True)
        wall[..., :2] = away + np.array([self.x, 0.0])
        return wall

    def core(self, points: Array) -> Array:
        """The prism shrunk to a block within the lumen."""
        core = points.copy()
        share = 0.5 * self.radius / np.array(self.prism)
        core[..., 0] = self.x + share[0] * (points[..., 0] - self.x)
        core[..., 1] = share[1] * points[..., 1]
        return core


def spread(
    start: float, stop: float, first: float, growth: float, largest: float, both: bool = False
) -> Array:
    """Nodes from start to stop; cells grow from `first` at start (and at stop if `both`)."""
    length, nodes = stop - start, [0.0]
    while nodes[-1] < length * (1 - 1e-9):
        near = min(nodes[-1], length - nodes[-1]) if both else nodes[-1]
        nodes.append(nodes[-1] + min(first + growth * near, largest))
    share = np.array(nodes) / nodes[-1]
    if both:
        share = 0.5 * (share + 1.0 - share[::-1])
    return np.asarray(start + length * share)


def geometric(n: int, first: float) -> Array:
    """n cells that fill 0 to 1, the first one `first` long, each longer than the last by one factor."""
    low, high = 1.0 + 1e-9, 1e3
    while high / low > 1.0 + 1e-12:
        factor = np.sqrt(low * high)
        if first * (factor**n - 1.0) / (factor - 1.0) < 1.0:
            low = factor
        else:
            high = factor
    return np.asarray((low ** np.arange(n + 1) - 1.0) / (low**n - 1.0))


def joined(*pieces: Array) -> Array:
    """Consecutive pieces of one axis, their common ends once."""
    return np.concatenate([pieces[0], *(piece[1:] for piece in pieces[1:])])


def _with_middles(nodes: Array) -> Array:
    fine = np.empty(2 * len(nodes) - 1)
    fine[::2], fine[1::2] = nodes, 0.5 * (nodes[1:] + nodes[:-1])
    return fine


def _layers(outside: Array, inside: Array, shares: Array) -> Array:
    """A block between two faces; `shares` from 0 at the inner to 1 at the outer face, with middles."""
    s = _with_middles(shares)[:, None, None, None]
    return np.asarray(inside + s * (outside - inside))


class HexMesh:
    """Blocks of second-order hexahedra joined into one mesh.

    Parameters
    ----------
    blocks : lattices (2 l + 1, 2 m + 1, 2 n + 1, 3) of nodes [m]; every second one is a corner.
    is_blood : whether each block lies in the vessel's lumen.
    """

    def __init__(self, blocks: Sequence[Array], is_blood: Sequence[bool]) -> None:
        points = np.concatenate([block.reshape(-1, 3) for block in blocks])
        _, first, number = np.unique(
            np.rint(points / MERGED).astype(np.int64), axis=0, return_index=True, return_inverse=True
        )
        points, number = points[first], number.ravel()
        cells, blood, start = [], [], 0
        for block, wet in zip(blocks, is_blood, strict=True):
            lattice = number[start : start + block[..., 0].size].reshape(block.shape[:3])
            start += lattice.size
            part = np.stack(
                [
                    lattice[a : a + lattice.shape[0] - 2 : 2, b : b + lattice.shape[1] - 2 : 2,
                            c : c + lattice.shape[2] - 2 : 2].ravel()
                    for a in range(3) for b in range(3) for c in range(3)
                ]
            )  # fmt: skip
            cells.append(part)
            blood.append(np.full(part.shape[1], wet))
        nodes = np.concatenate(cells, axis=1)
        place = np.rint(2 * ElementHex2().doflocs).astype(int) @ np.array([9, 3, 1])
        corners, compact = np.unique(nodes[place[:8]], return_inverse=True)
        straight = MeshHex(points[corners].T.copy(), compact.reshape(8, -1))
        curved = MeshHex2.from_mesh(straight)
        known = curved.doflocs.copy()
        known[:, curved.dofs.element_dofs] = points[nodes[place]].transpose(2, 0, 1)
        self.mesh = MeshHex2(known, straight.t)
        self.is_blood = np.concatenate(blood)


def box_with_rods(x: Array, y: Array, z: Array, rods: Sequence[Rod], tube: Tube, layers: int) -> HexMesh:
    """Half the box, y ≥ 0; the axes' nodes include the faces of all prisms and the planes between tissues."""
    axes = [_with_middles(a) for a in (x, y, z)]
    lattice = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    taken = np.zeros(tuple(len(a) - 1 for a in (x, y, z)), dtype=bool)
    blocks: list[Array] = []
    blood: list[bool] = []

    def cut(low: tuple[float, float], high: tuple[float, float], bottom: float) -> tuple[int, int, int, int]:
        """Cell indices of a prism; its cells are taken out."""
        found = [
            int(np.argmin(np.abs(a - v))) for a, v in ((x, low[0]), (x, high[0]), (y, high[1]), (z, bottom))
        ]
        for index, (a, v) in zip(found, ((x, low[0]), (x, high[0]), (y, high[1]), (z, bottom)), strict=True):
            if abs(a[index] - v) > MERGED:
                raise ValueError(f"no node of the mesh's axes lies on the prism's face at {v} m")
        i, j, m, k = found
        taken[i:j, :m, k:] = True
        return i, j, m, k

    def sides(i: int, j: int, m: int, k: int) -> list[Array]:
        i, j, m, k = 2 * i, 2 * j, 2 * m, 2 * k
        return [lattice[i, : m + 1, k:], lattice[j, : m + 1, k:], lattice[i : j + 1, m, k:]]

    for rod in rods:
        place = cut((rod.x - rod.prism, 0.0), (rod.x + rod.prism, rod.prism), rod.center - rod.prism)
        i, j, m, k = place
        bottom = lattice[2 * i : 2 * j + 1, : 2 * m + 1, 2 * k]
        shares = geometric(layers, rod.radius / (1.5 * layers * (rod.prism - rod.radius)))
        for face in [*sides(*place), bottom]:
            blocks.append(_layers(face, rod.inner(face), shares))
            blood.append(False)
    place = cut((tube.x - tube.prism[0], 0.0), (tube.x + tube.prism[0], tube.prism[1]), z[0])
    i, j, m, k = place
    coarse = np.linspace(0.0, 1.0, max(2, layers // 2) + 1)
    for face in sides(*place):
        wall = tube.inner(face)
        blocks.append(_layers(face, wall, coarse))
        blocks.append(_layers(wall, tube.core(face), np.linspace(0.0, 1.0, 2)))
        blood += [False, True]
    blocks.append(tube.core(lattice[2 * i : 2 * j + 1, : 2 * m + 1]))
    blood.append(True)

    for corner in zip(*np.nonzero(~taken), strict=True):
        i, j, k = (2 * int(c) for c in corner)
        blocks.append(lattice[i : i + 3, j : j + 3, k : k + 3])
        blood.append(False)
    return HexMesh(blocks, blood)
