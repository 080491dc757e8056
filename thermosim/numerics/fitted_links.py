"""Links between cells fitted to the field beside electrodes and vessel walls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags, identity
from scipy.sparse.linalg import cg

from thermosim.anatomy.grid import Grid
from thermosim.errors import InputError
from thermosim.numerics.fit_limits import (
    FITTED_DISTANCE,
    LARGEST_FACTOR,
    SMALLEST_FACTOR,
    SOLID_SKIN,
    require_cubic_cells,
)
from thermosim.numerics.link_factors import LinkFactors
from thermosim.numerics.near_field import Array
from thermosim.numerics.needle import Needle
from thermosim.numerics.vessel_links import fit_vessel_links

__all__ = ["Needle", "combine", "fit_cooled_wall_links", "fit_electrode_links", "fit_vessel_links"]

Index = NDArray[np.int64]
Mask = NDArray[np.bool_]

FITTED_SHAFT = 8.0  # radii of insulated shaft beyond the metal that are fitted
SMALLEST_DIFFERENCE = 0.02  # of the drop to the wall: below it a link says nothing and stays plain
QUADRATURE = 6  # Gauss points along a face's edge; fewer miss metal and shaft that cut a face
BALANCE_ROUNDS = 3
BALANCE_DAMPING = 1e-5  # against squared potential differences: a cell cut off keeps its small loss


@dataclass
class _Region:
    """Cells near the electrodes, sorted by number, and the faces between them (low, high, axis)."""

    cells: Index
    index: Index
    owner: Index
    distance: Array  # from the wall [m]
    solid: Mask
    contact: Mask
    low: Index
    high: Index
    axis: Index
    surrounded: Mask  # all six neighbours are in the region
    metal_area: Array  # bare metal inside the box, per electrode [m²]


def _cells_near(grid: Grid, needle: Needle, reach: float) -> tuple[Index, Index, Array]:
    """Numbers, indices and wall distances [m] of the cells within `reach` [m] of metal and shaft.

    Walks the layers across the needle's steepest axis, so only cells near the needle are visited.
    """
    h, shape = grid.spacing[0], np.array(grid.shape)
    axis, start = needle.axis, grid.indices(needle.center)
    main = int(np.argmax(np.abs(axis)))
    others = [a for a in range(3) if a != main]
    radius = (reach + needle.radius) / h
    half = int(np.ceil(radius / abs(axis[main]))) + 1
    layers = np.arange(grid.shape[main])
    along = (layers - start[main]) / axis[main]
    last = radius if needle.kind == "sphere" else np.inf
    layers = layers[(along >= -radius / abs(axis[main]) - 1) & (along <= last / abs(axis[main]) + 1)]
    along = (layers - start[main]) / axis[main]
    foot = np.rint(start + along[:, None] * axis).astype(np.int64)
    window = np.arange(-half, half + 1)
    block = np.empty((len(layers), len(window), len(window), 3), dtype=np.int64)
    block[..., main] = layers[:, None, None]
    block[..., others[0]] = foot[:, others[0]][:, None, None] + window[:, None]
    block[..., others[1]] = foot[:, others[1]][:, None, None] + window
    index = block.reshape(-1, 3)
    index = index[np.all((index >= 0) & (index < shape), axis=1)]
    distance = needle.radius * needle.wall_distance(*needle.coordinates(grid.points(index)))
    keep = distance <= reach
    index = index[keep]
    return (index[:, 0] * shape[1] + index[:, 1]) * shape[2] + index[:, 2], index, distance[keep]


def _metal_surface(grid: Grid, needle: Needle) -> tuple[Index, float]:
    """Numbers of the cells that contain a piece of bare metal's surface, and its area in the box [m²]."""
    h = grid.spacing[0] / needle.radius
    step = h / 8
    end = needle.active_end
    lowest = -np.pi / 2
    highest = np.pi / 2 if needle.kind == "sphere" else end
    arc = np.linspace(lowest, highest, max(int(np.ceil((highest - lowest) / step)), 4) + 1)
    arc[-1] -= 1e-9
    turn = np.linspace(0, 2 * np.pi, max(int(np.ceil(2 * np.pi / step)), 12), endpoint=False)
    on_cap = np.full(len(arc), True) if needle.kind == "sphere" else arc < 0
    axial = np.where(on_cap, np.sin(np.where(on_cap, arc, 0.0)), arc)
    radial = np.where(on_cap, np.cos(np.where(on_cap, arc, 0.0)), 1.0)
    first = np.cross(needle.axis, np.eye(3)[np.argmin(np.abs(needle.axis))])
    first /= np.linalg.norm(first)
    second = np.cross(needle.axis, first)
    ring = np.cos(turn)[:, None] * first + np.sin(turn)[:, None] * second
    points = axial[:, None, None] * needle.axis + radial[:, None, None] * ring
    index = np.rint(grid.indices(needle.center + needle.radius * points.reshape(-1, 3))).astype(np.int64)
    shape = np.array(grid.shape)
    within = np.all((index >= 0) & (index < shape), axis=1)
    weight = np.repeat(radial, len(turn))
    area = needle.metal_area * float(weight[within].sum() / weight.sum())
    index = index[within]
    return np.unique((index[:, 0] * shape[1] + index[:, 1]) * shape[2] + index[:, 2]), area


def _region(grid: Grid, needles: Sequence[Needle]) -> _Region:
    """Cells near the needles, each owned by the nearest, and which of them touch bare metal."""
    h = require_cubic_cells(grid)
    found = [_cells_near(grid, needle, (FITTED_DISTANCE + 2.0) * h) for needle in needles]
    cells = np.concatenate([np.zeros(0, np.int64), *(f[0] for f in found)])
    index = np.concatenate([np.zeros((0, 3), np.int64), *(f[1] for f in found)])
    distance = np.concatenate([np.zeros(0), *(f[2] for f in found)])
    owner = np.repeat(np.arange(len(found)), np.array([len(f[0]) for f in found], dtype=np.int64))
    order = np.lexsort((distance, cells))
    cells, index, distance, owner = cells[order], index[order], distance[order], owner[order]
    first = np.concatenate([[True], cells[1:] != cells[:-1]]) if len(cells) else np.zeros(0, bool)
    cells, index, distance, owner = cells[first], index[first], distance[first], owner[first]

    stride = (grid.shape[1] * grid.shape[2], grid.shape[2], 1)
    low, high, axes = [], [], []
    for axis in range(3):
        candidate = np.flatnonzero(index[:, axis] < grid.shape[axis] - 1)
        place = np.searchsorted(cells, cells[candidate] + stride[axis])
        place = np.minimum(place, max(len(cells) - 1, 0))
        match = cells[place] == cells[candidate] + stride[axis]
        low.append(candidate[match])
        high.append(place[match])
        axes.append(np.full(int(match.sum()), axis))
    i, j, axis_of_face = np.concatenate(low), np.concatenate(high), np.concatenate(axes)

    solid = distance < SOLID_SKIN * h
    touches = np.zeros(len(cells), dtype=bool)
    metal_area = np.zeros(len(needles))
    for number, needle in enumerate(needles):
        surface, area = _metal_surface(grid, needle)
        metal_area[number] = area
        place = np.searchsorted(cells, surface)
        touches[place[owner[place] == number]] = True
    # neighbours of a solid cell that holds metal: its current is theirs
    touches_through = np.zeros(len(cells), dtype=bool)
    for a, b in ((i, j), (j, i)):
        touches_through[a[solid[b] & touches[b] & (owner[a] == owner[b])]] = True
    contact = (touches | touches_through) & ~solid
    surrounded = np.bincount(i, minlength=len(cells)) + np.bincount(j, minlength=len(cells)) == 6
    return _Region(cells, index, owner, distance, solid, contact, i, j, axis_of_face, surrounded, metal_area)


def _face_flux(needle: Needle, centers: Array, axes: Index, h: float) -> Array:
    """∫ -∂φ/∂n dA / h of the needle's field through square faces (Gauss points in metal count 0)."""
    nodes, weights = np.polynomial.legendre.leggauss(QUADRATURE)
    field = needle.near_field()
    total = np.zeros(len(axes))
    first, second = (axes + 1) % 3, (axes + 2) % 3
    rows = np.arange(len(axes))
    for u, weight_u in zip(nodes, weights, strict=True):
        for v, weight_v in zip(nodes, weights, strict=True):
            points = centers.copy()
            points[rows, first] += 0.5 * h * u
            points[rows, second] += 0.5 * h * v
            axial, radial = needle.coordinates(points)
            along, outward = field.flux(axial, radial)
            offset = (points - needle.center) / needle.radius
            n_axis = needle.axis[axes]
            n_radial = (offset[rows, axes] - axial * n_axis) / np.maximum(radial, 1e-9)
            total += 0.25 * weight_u * weight_v * (along * n_axis + outward * n_radial)
    return total * h / needle.radius  # gradients are per radius, areas h², one h belongs to the link


def _balance(
    factor: Array, difference: Array, low: Index, high: Index, inner: Mask, contact: Mask, adjustable: Index
) -> None:
    """Change factors as little as possible so that no current is lost in the `inner` cells.

    Current that the near field drives through the part of a solid cell outside metal and shaft has
    no link of its own; it goes through the nearest others. Least squares in the factors,
    min Σ δg² with Σ_j (g + δg)_ij (φ_i - φ_j) = 0 in each inner cell; factors at a limit stay there.
    """
    number = np.cumsum(inner) - 1
    size = int(inner.sum())
    a, b = low[adjustable], high[adjustable]
    faces = adjustable[(inner[a] & (inner[b] | contact[b])) | (inner[b] & contact[a])]
    for _ in range(BALANCE_ROUNDS):
        flow = factor * difference
        lost = (np.bincount(low, flow, len(inner)) - np.bincount(high, flow, len(inner)))[inner]
        if not len(faces) or not np.any(lost):
            return
        rows, columns, values = [], [], []
        for end, sign in ((low[faces], 1.0), (high[faces], -1.0)):
            keep = inner[end]
            rows.append(number[end[keep]])
            columns.append(np.flatnonzero(keep))
            values.append(sign * difference[faces[keep]])
        divergence = csr_matrix(
            (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
            shape=(size, len(faces)),
        )
        normal = divergence @ divergence.T
        normal += BALANCE_DAMPING * identity(size)
        diagonal = normal.diagonal()
        multiplier, _ = cg(normal, -lost, rtol=1e-3, maxiter=200, M=diags(1.0 / diagonal))
        wanted = factor[faces] + divergence.T @ multiplier
        factor[faces] = np.clip(wanted, SMALLEST_FACTOR, LARGEST_FACTOR)
        faces = faces[factor[faces] == wanted]


def _fit(grid: Grid, needles: Sequence[Needle], region: _Region, fitted: Mask) -> LinkFactors:
    """Factors of faces and wall links; electrodes not `fitted` keep plain faces and get no wall links."""
    h = grid.spacing[0]
    i, j = region.low, region.high
    factor = np.ones(len(i))
    open_face = ~(region.solid[i] | region.solid[j])
    nearest = np.where(region.distance[i] <= region.distance[j], region.owner[i], region.owner[j])
    near = open_face & (np.minimum(region.distance[i], region.distance[j]) < FITTED_DISTANCE * h)
    near &= ~(region.contact[i] & region.contact[j])
    centers = grid.points(region.index)
    coordinates = [needle.coordinates(centers) for needle in needles]
    potentials = [n.near_field().potential(*c) for n, c in zip(needles, coordinates, strict=True)]
    for number in np.flatnonzero(fitted).tolist():
        needle, potential, axial = needles[number], potentials[number], coordinates[number][0]
        shaft_end = needle.active_end + max(FITTED_SHAFT, 4 * h / needle.radius)
        chosen = np.flatnonzero(near & (nearest == number) & (np.minimum(axial[i], axial[j]) < shaft_end))
        a, b = i[chosen], j[chosen]
        flux = _face_flux(needle, 0.5 * (centers[a] + centers[b]), region.axis[chosen], h)
        difference = potential[a] - potential[b]
        drop = np.maximum(1.0 - np.maximum(potential[a], potential[b]), 0.02)
        usable = (flux * difference > 0) & (np.abs(difference) > SMALLEST_DIFFERENCE * drop)
        ratio = flux[usable] / difference[usable]
        factor[chosen[usable]] = np.clip(ratio, SMALLEST_FACTOR, LARGEST_FACTOR)
        inner = ~(region.solid | region.contact) & (region.owner == number) & (axial < shaft_end)
        inner &= (region.distance < FITTED_DISTANCE * h) & region.surrounded
        _balance(
            factor,
            np.where(open_face, potential[i] - potential[j], 0.0),
            i,
            j,
            inner,
            region.contact,
            chosen[usable],
        )

    walls, wall_factors, wall_areas = [], [], []
    for number in np.flatnonzero(fitted).tolist():
        needle, potential = needles[number], potentials[number]
        flow = np.where(open_face, factor * (potential[i] - potential[j]), 0.0)
        outflow = np.bincount(i, flow, len(potential)) - np.bincount(j, flow, len(potential))
        cells = np.flatnonzero(region.contact & (region.owner == number) & (outflow > 0))
        walls.append(cells)
        wall_factors.append(outflow[cells] / np.maximum(1.0 - potential[cells], 1e-3))
        axial, radial = coordinates[number]
        density = needle.wall_flux(axial[cells], radial[cells], h)
        area = outflow[cells] / density
        wall_areas.append(area * (region.metal_area[number] / max(area.sum(), 1e-300)))
    wall = np.concatenate([np.zeros(0, np.int64), *walls])
    changed = np.flatnonzero(factor != 1.0)
    return LinkFactors(
        solid_cells=region.cells[region.solid],
        face_cells=region.cells[i[changed]],
        face_axes=region.axis[changed].astype(np.int8),
        face_factors=factor[changed],
        wall_cells=region.cells[wall],
        wall_owners=region.owner[wall].astype(np.int32),
        wall_factors=np.concatenate([np.zeros(0), *wall_factors]),
        wall_areas=np.concatenate([np.zeros(0), *wall_areas]),
    )


def fit_electrode_links(grid: Grid, needles: Sequence[Needle]) -> LinkFactors:
    """Links of the electric problem beside electrodes.

    A face within 2.5 cells of an electrode gets the conductance that carries the flux of the
    electrode's own near field φ between its two cell centres,

        g_ij / (σ h) = ∫_face -∂φ/∂n dA / (h (φ_i - φ_j)),

    and each cell that meets bare metal one link to it that keeps the balance,

        g_i = Σ_j g_ij (φ_i - φ_j) / (1 - φ_i).

    So the near field solves the discrete equations whatever place and direction the electrode has.
    The matrix stays symmetric with non-positive off-diagonals. The insulated shaft lets no current
    through: cells with their centre in it are solid, faces it narrows carry less, and the current
    through the open part of such a cell goes to the links around it. Each face belongs to the
    nearest electrode; a part of an electrode outside the box is ignored.

    Parameters
    ----------
    grid : isotropic, axis-aligned.
    needles : electrodes; their place in the list is the owner of their wall links.

    Raises
    ------
    InputError : the grid is anisotropic or oblique.

    References
    ----------
    Peaceman, Soc. Pet. Eng. J. 18 (1978) 183, doi:10.2118/6893-PA; Ding & Renard, SPE 25261
    (1993): wells in reservoir grids; here with the electrode's own near field.

    Examples
    --------
    >>> grid = Grid.box((0.0, 0.0, 0.0), (24, 24, 24), 1e-3)
    >>> links = fit_electrode_links(grid, [Needle((0.0, 0.0, 0.0), (0.0, 0.0, 1.0), 2e-3, kind="sphere")])
    >>> round(float(links.wall_areas.sum() / (4 * np.pi * 2e-3**2)), 6)
    1.0
    """
    region = _region(grid, needles)
    return _fit(grid, needles, region, np.ones(len(needles), dtype=bool))


def fit_cooled_wall_links(
    grid: Grid, needles: Sequence[Needle], conductivity: float, heat_transfer: float | Sequence[float]
) -> LinkFactors:
    """Links of the heat problem beside electrodes, cooled from inside or not.

    A cooled electrode's bare metal lies behind a film: its wall link is that of
    `fit_electrode_links` in series with the film, 1/G = 1/(k h f) + 1/(h_c A); the shaft is
    insulated. An uncooled electrode (heat transfer 0) only cuts the links of its solid cells.

    Parameters
    ----------
    conductivity : thermal conductivity k of the tissue [W/(m K)].
    heat_transfer : h_c from coolant through the metal wall [W/(m² K)]; one for all or one each.

    Raises
    ------
    InputError : k not positive, h_c negative, or their number not that of the electrodes.
    """
    transfer = np.asarray(heat_transfer, dtype=np.float64)
    if transfer.ndim == 0:
        transfer = np.full(len(needles), float(transfer))
    if transfer.shape != (len(needles),):
        raise InputError(
            f"{transfer.size} heat transfer coefficients for {len(needles)} electrodes: give one each"
        )
    if not (np.isfinite(conductivity) and conductivity > 0):
        raise InputError(f"thermal conductivity is {conductivity} W/(m K); must be positive")
    if not np.all(transfer >= 0):
        raise InputError(f"heat transfer is {transfer.min()} W/(m² K); must be 0 (uncooled) or positive")
    region = _region(grid, needles)
    links = _fit(grid, needles, region, transfer > 0)
    film = grid.spacing[0] * conductivity / transfer[links.wall_owners] / links.wall_areas
    return replace(links, wall_factors=1.0 / (1.0 / links.wall_factors + film))


def combine(*links: LinkFactors) -> LinkFactors:
    """All boundaries of one grid together.

    Solid cells are united and the wall links of solid cells dropped. A face listed twice gets the
    product of its factors, kept within the limits of a fitted link: a face cut by one boundary
    (factor 0) stays cut. Owners are kept as they are.
    """
    solid = np.unique(np.concatenate([np.zeros(0, np.int64), *(part.solid_cells for part in links)]))
    keys = np.concatenate(
        [np.zeros(0, np.int64), *(3 * part.face_cells + part.face_axes.astype(np.int64) for part in links)]
    )
    values = np.concatenate([np.zeros(0), *(part.face_factors for part in links)])
    unique, place, count = np.unique(keys, return_inverse=True, return_counts=True)
    factor = np.ones(len(unique))
    np.multiply.at(factor, place, values)
    several = (count > 1) & (factor > 0)
    factor[several] = np.clip(factor[several], SMALLEST_FACTOR, LARGEST_FACTOR)
    wall_cells = np.concatenate([np.zeros(0, np.int64), *(part.wall_cells for part in links)])
    keep = ~np.isin(wall_cells, solid)
    return LinkFactors(
        solid_cells=solid,
        face_cells=unique // 3,
        face_axes=(unique % 3).astype(np.int8),
        face_factors=factor,
        wall_cells=wall_cells[keep],
        wall_owners=np.concatenate([np.zeros(0, np.int32), *(part.wall_owners for part in links)])[keep],
        wall_factors=np.concatenate([np.zeros(0), *(part.wall_factors for part in links)])[keep],
        wall_areas=np.concatenate([np.zeros(0), *(part.wall_areas for part in links)])[keep],
    )
