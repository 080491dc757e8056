"""The electric potential by a direct solution of the seven-point system, in double precision.

∇·(σ∇φ) = 0 on cells: Σ_faces g (φ_neighbour − φ) = 0 with g = h · 2 σ₁ σ₂ / (σ₁ + σ₂) · factor, wall
links g = h · factor · σ to metal at a potential, ground links g = h · factor · σ to zero. The heat
of a link, g (Δφ)², goes half to each of its cells; that of a wall or ground link to its one cell.
Then Σ q h³ = Σ V I holds exactly, because the discrete power is φᵀ L φ (Strang 1986, Introduction
to Applied Mathematics, §2.1, on networks).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

from thermosim.numerics.link_factors import LinkFactors

Field = NDArray[np.float64]
FACES = ("-x", "+x", "-y", "+y", "-z", "+z")


@dataclass(frozen=True)
class Network:
    """Links of a box of cells: three lists of conductances [S].

    `pairs` (m, 2) cells and `pair_conductances` (m,); `wall_cells`, `wall_owners`,
    `wall_conductances`; `ground_cells`, `ground_conductances`.
    """

    shape: tuple[int, int, int]
    spacing: float
    n_owners: int
    pairs: NDArray[np.int64]
    pair_conductances: Field
    wall_cells: NDArray[np.int64]
    wall_owners: NDArray[np.int32]
    wall_conductances: Field
    ground_cells: NDArray[np.int64]
    ground_conductances: Field


def no_links() -> LinkFactors:
    """Link factors of a box without electrodes."""
    index, number = np.empty(0, np.int64), np.empty(0)
    return LinkFactors(
        index, index, np.empty(0, np.int8), number, index, np.empty(0, np.int32), number, number
    )


def face_ground(
    shape: tuple[int, int, int], faces: tuple[str, ...] = FACES
) -> tuple[NDArray[np.int64], Field]:
    """Cells and factors of grounded faces of the box: half a cell away, so the factor is 2 per face."""
    number = np.arange(int(np.prod(shape))).reshape(shape)
    cells = []
    for face in faces:
        at: list[slice | int] = [slice(None)] * 3
        at["xyz".index(face[1])] = 0 if face[0] == "-" else -1
        cells.append(number[tuple(at)].ravel())
    joined = np.concatenate(cells)
    return joined, np.full(len(joined), 2.0)


def network(
    conductivity: Field,
    spacing: float,
    links: LinkFactors,
    n_owners: int,
    ground: tuple[NDArray[np.int64], Field],
) -> Network:
    """Assemble the links.

    Parameters
    ----------
    conductivity : σ [S/m] (nx, ny, nz). spacing : h [m]. links : of all electrodes.
    n_owners : number of electrodes. ground : cells and factors of the links to zero potential.
    """
    shape = conductivity.shape
    sigma = np.asarray(conductivity, dtype=np.float64).copy()
    sigma.reshape(-1)[links.solid_cells] = 0.0
    factors = [np.ones([n - (axis == a) for a, n in enumerate(shape)]) for axis in range(3)]
    for cell, axis, factor in zip(links.face_cells, links.face_axes, links.face_factors, strict=True):
        factors[int(axis)][np.unravel_index(int(cell), shape)] *= factor
    number = np.arange(sigma.size).reshape(shape)
    pairs, conductances = [], []
    for axis in range(3):
        n = shape[axis]
        first, second = np.take(sigma, range(n - 1), axis), np.take(sigma, range(1, n), axis)
        total = first + second
        mean = np.divide(2.0 * first * second, total, out=np.zeros_like(total), where=total > 0.0)
        a, b = np.take(number, range(n - 1), axis), np.take(number, range(1, n), axis)
        pairs.append(np.stack([a.ravel(), b.ravel()], axis=1))
        conductances.append((spacing * mean * factors[axis]).ravel())
    flat = sigma.ravel()
    ground_cells, ground_factors = ground
    return Network(
        (shape[0], shape[1], shape[2]),
        spacing,
        n_owners,
        np.concatenate(pairs),
        np.concatenate(conductances),
        links.wall_cells,
        links.wall_owners,
        spacing * links.wall_factors * flat[links.wall_cells],
        ground_cells,
        spacing * ground_factors * flat[ground_cells],
    )


def solve(net: Network, voltages: Field) -> Field:
    """φ [V] with the electrodes at `voltages`; 0 in cells that no link reaches."""
    n = int(np.prod(net.shape))
    a, b, g = net.pairs[:, 0], net.pairs[:, 1], net.pair_conductances
    diagonal = np.bincount(a, g, n) + np.bincount(b, g, n)
    diagonal += np.bincount(net.wall_cells, net.wall_conductances, n)
    diagonal += np.bincount(net.ground_cells, net.ground_conductances, n)
    matrix = sparse.coo_matrix((-g, (a, b)), shape=(n, n))
    matrix = sparse.csc_matrix(matrix + matrix.T + sparse.diags(np.where(diagonal > 0.0, diagonal, 1.0)))
    inflow = net.wall_conductances * np.asarray(voltages, dtype=np.float64)[net.wall_owners]
    right = np.bincount(net.wall_cells, inflow, n)
    return np.asarray(splu(matrix).solve(right)).reshape(net.shape)


def currents(net: Network, potential: Field, voltages: Field) -> Field:
    """Current out of every electrode into tissue [A], positive outwards."""
    phi = potential.ravel()
    drop = np.asarray(voltages, dtype=np.float64)[net.wall_owners] - phi[net.wall_cells]
    return np.bincount(net.wall_owners, net.wall_conductances * drop, net.n_owners)


def admittance_matrix(net: Network) -> Field:
    """Y [S], I = Y V: one column per electrode at 1 V with the others at zero."""
    columns = []
    for owner in range(net.n_owners):
        unit = np.zeros(net.n_owners)
        unit[owner] = 1.0
        columns.append(currents(net, solve(net, unit), unit))
    return np.stack(columns, axis=1)


def joule_heating(net: Network, potential: Field, voltages: Field) -> Field:
    """q [W/m³] of the shape of the box; Σ q h³ = Σ V I."""
    phi = potential.ravel()
    power = np.zeros(phi.size)
    a, b = net.pairs[:, 0], net.pairs[:, 1]
    half = 0.5 * net.pair_conductances * (phi[a] - phi[b]) ** 2
    power += np.bincount(a, half, phi.size) + np.bincount(b, half, phi.size)
    drop = np.asarray(voltages, dtype=np.float64)[net.wall_owners] - phi[net.wall_cells]
    power += np.bincount(net.wall_cells, net.wall_conductances * drop**2, phi.size)
    lost = net.ground_conductances * phi[net.ground_cells] ** 2
    power += np.bincount(net.ground_cells, lost, phi.size)
    return power.reshape(net.shape) / net.spacing**3
