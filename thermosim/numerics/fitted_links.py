"""Links between cells fitted to the field beside electrodes and vessel walls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.grid import Grid
from thermosim.errors import InputError
from thermosim.numerics.electrode_shape import (
    Array,
    ElectrodeShape,
    Index,
    Mask,
    cell_numbers,
    inside_grid,
)
from thermosim.numerics.fit_limits import (
    FITTED_DISTANCE,
    LARGEST_FACTOR,
    SMALLEST_FACTOR,
    require_cubic_cells,
)
from thermosim.numerics.link_factors import LinkFactors
from thermosim.numerics.needle import Needle
from thermosim.numerics.vessel_links import fit_vessel_links

__all__ = ["Needle", "combine", "fit_cooled_wall_links", "fit_electrode_links", "fit_vessel_links"]

SMALLEST_DIFFERENCE = 0.02  # of the drop to the wall: below it a link says nothing and stays plain
GAP_WIDTH = 1.5  # cells from the wall within which faces take over what solid cells of a gap would carry
LARGEST_GAP_SHARE = 1.0  # of what they carry themselves
BALANCE_ROUNDS = 3
BALANCE_DAMPING = 1e-5  # against squared potential differences: a cell cut off keeps its small loss
BALANCE_TOLERANCE = 1e-3  # of the loss, in each round
BALANCE_ITERATIONS = 200


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


def _cells_near(grid: Grid, shape: ElectrodeShape, reach: float) -> tuple[Index, Array, Mask, Array]:
    """Indices, wall distances [m], solidity and distances from metal [m] of the cells within `reach`."""
    index = shape.window(grid, reach)
    points = grid.points(index)
    distance = shape.distance(points)
    keep = distance <= reach
    index, points, distance = index[keep], points[keep], distance[keep]
    return index, distance, shape.solid(points, distance, grid.spacing[0]), shape.metal_distance(points)


def _metal_surface(grid: Grid, shape: ElectrodeShape) -> tuple[Index, float]:
    """Numbers of the cells that contain a piece of bare metal's surface, and its area in the box [m²]."""
    points, area = shape.surface(grid.spacing[0] / 8)
    index = np.rint(grid.indices(points)).astype(np.int64)
    within = inside_grid(grid, index)
    return np.unique(cell_numbers(grid, index[within])), float(area[within].sum())


def _region(grid: Grid, needles: Sequence[ElectrodeShape]) -> _Region:
    """Cells near the needles, each owned by the nearest, and which of them touch bare metal.

    Poles of one shaft have the same wall; there the nearer metal decides.
    """
    h = require_cubic_cells(grid)
    found = [_cells_near(grid, needle, (FITTED_DISTANCE + 2.0) * h) for needle in needles]
    index = np.concatenate([np.zeros((0, 3), np.int64), *(f[0] for f in found)])
    distance = np.concatenate([np.zeros(0), *(f[1] for f in found)])
    solid = np.concatenate([np.zeros(0, bool), *(f[2] for f in found)])
    from_metal = np.concatenate([np.zeros(0), *(f[3] for f in found)])
    owner = np.repeat(np.arange(len(found)), np.array([len(f[0]) for f in found], dtype=np.int64))
    cells = cell_numbers(grid, index)
    order = np.lexsort((from_metal, distance, cells))
    cells, index, distance, owner, solid = (a[order] for a in (cells, index, distance, owner, solid))
    first = np.concatenate([[True], cells[1:] != cells[:-1]]) if len(cells) else np.zeros(0, bool)
    cells, index, distance, owner, solid = (a[first] for a in (cells, index, distance, owner, solid))

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


def _face_flux(shape: ElectrodeShape, centers: Array, axes: Index, h: float) -> Array:
    """∫ -∂φ/∂n dA / h of the electrode's field through square faces (Gauss points in metal count 0)."""
    total = np.zeros(len(axes))
    orders = shape.quadrature(centers, h)
    for order in np.unique(orders).tolist():
        rows = np.flatnonzero(orders == order)
        first, second = (axes[rows] + 1) % 3, (axes[rows] + 2) % 3
        nodes, weights = np.polynomial.legendre.leggauss(order)
        each, across = np.arange(len(rows)), np.tile(axes[rows], order)
        for u, weight_u in zip(nodes, weights, strict=True):
            points = np.tile(centers[rows], (order, 1, 1))
            points[:, each, first] += 0.5 * h * u
            points[:, each, second] += 0.5 * h * nodes[:, None]
            flux = shape.flux(points.reshape(-1, 3), across).reshape(order, -1)
            total[rows] += 0.25 * weight_u * (weights @ flux)
    return total * h  # a face has h², one h belongs to the link


def _widen_gap(
    flux: Array, region: _Region, chosen: Index, needle: ElectrodeShape, mine: Mask, centers: Array, h: float
) -> None:
    """Let the open faces beside the gap of two poles carry what passes through its solid cells.

    Between the poles of one shaft current flows along the insulation, part of it through the open parts
    of cells that are solid and have no links. In each layer of cells across an axis the faces beside the
    shaft carry that part too, in proportion to what they carry anyway.
    """

    def middles(of: Index) -> Array:
        return np.asarray(0.5 * (centers[region.low[of]] + centers[region.high[of]]))

    blocked = np.flatnonzero((region.solid[region.low] | region.solid[region.high]) & mine)
    blocked = blocked[needle.gap(middles(blocked))]
    if not len(blocked):
        return
    beside = np.minimum(region.distance[region.low], region.distance[region.high])[chosen] < GAP_WIDTH * h
    beside &= needle.gap(middles(chosen))
    lost = _face_flux(needle, middles(blocked), region.axis[blocked], h)
    layers = [  # one number per axis and layer
        3 * region.index[region.low[of], region.axis[of]] + region.axis[of] for of in (blocked, chosen)
    ]
    size = int(max(layer.max(initial=0) for layer in layers)) + 1
    missing = np.bincount(layers[0], lost, size)
    carried = np.bincount(layers[1][beside], flux[beside], size)
    share = np.where(missing * carried > 0, missing / np.where(carried == 0, 1.0, carried), 0.0)
    flux[beside] *= 1.0 + np.minimum(share, LARGEST_GAP_SHARE)[layers[1][beside]]


def _potential(shape: ElectrodeShape, centers: Array, chosen: Mask) -> Array:
    """The near field at the chosen cells, 0 elsewhere."""
    result = np.zeros(len(centers))
    result[chosen] = shape.potential(centers[chosen])
    return result


def _balance(
    factor: Array, difference: Array, low: Index, high: Index, inner: Mask, contact: Mask, adjustable: Index
) -> None:
    """Change factors as little as possible so that no current is lost in the `inner` cells.

    Current that the near field drives through the part of a solid cell outside metal and shaft has
    no link of its own; it goes through the nearest others. Least squares in the factors,
    min Σ δg² with Σ_j (g + δg)_ij (φ_i - φ_j) = 0 in each inner cell; factors at a limit stay there.
    """
    number = np.where(inner, np.cumsum(inner) - 1, int(inner.sum()))
    a, b = low[adjustable], high[adjustable]
    faces = adjustable[(inner[a] & (inner[b] | contact[b])) | (inner[b] & contact[a])]
    for _ in range(BALANCE_ROUNDS):
        flow = factor * difference
        lost = (np.bincount(low, flow, len(inner)) - np.bincount(high, flow, len(inner)))[inner]
        if not len(faces) or not np.any(lost):
            return
        start, end, drop = number[low[faces]], number[high[faces]], difference[faces]
        multiplier = _multipliers(start, end, drop, np.asarray(-lost, dtype=np.float64))
        wanted = factor[faces] + drop * (multiplier[start] - multiplier[end])
        factor[faces] = np.clip(wanted, SMALLEST_FACTOR, LARGEST_FACTOR)
        faces = faces[factor[faces] == wanted]


def _multipliers(start: Index, end: Index, drop: Array, wanted: Array) -> Array:
    """Solution of (D Dᵀ + ε) m = wanted, D the divergence of flows g · drop from `start` to `end`.

    Conjugate gradients with the diagonal; cell number `len(wanted)` stands for all that are no unknowns, and
    m is 0 there, (n + 1,).
    """
    size = len(wanted)
    square = drop**2
    diagonal = np.bincount(start, square, size + 1) + np.bincount(end, square, size + 1) + BALANCE_DAMPING
    solution, residual = np.zeros(size + 1), np.append(wanted, 0.0)
    direction, before = np.zeros(size + 1), 1.0
    limit = BALANCE_TOLERANCE * np.linalg.norm(wanted)
    for _ in range(BALANCE_ITERATIONS):
        if np.linalg.norm(residual) <= limit:
            break
        scaled = residual / diagonal
        now = float(residual @ scaled)
        direction = scaled + (now / before) * direction
        flow = square * (direction[start] - direction[end])
        applied = np.bincount(start, flow, size + 1) - np.bincount(end, flow, size + 1)
        applied += BALANCE_DAMPING * direction
        applied[size] = 0.0
        length = now / float(direction @ applied)
        solution += length * direction
        residual -= length * applied
        before = now
    return solution


def _fit(grid: Grid, needles: Sequence[ElectrodeShape], region: _Region, fitted: Mask) -> LinkFactors:
    """Factors of faces and wall links; electrodes not `fitted` keep plain faces and get no wall links."""
    h = grid.spacing[0]
    i, j = region.low, region.high
    factor = np.ones(len(i))
    open_face = ~(region.solid[i] | region.solid[j])
    nearest = np.where(region.distance[i] <= region.distance[j], region.owner[i], region.owner[j])
    near = open_face & (np.minimum(region.distance[i], region.distance[j]) < FITTED_DISTANCE * h)
    centers = grid.points(region.index)
    touching = region.contact[i] & region.contact[j]
    if touching.any():
        across = np.flatnonzero(touching & (region.owner[i] != region.owner[j]))
        faces = 0.5 * (centers[i[across]] + centers[j[across]])
        between_poles = np.any([needle.gap(faces) for needle in needles], axis=0)
        touching[across[between_poles]] = False  # the two cells belong to different metal
    near &= ~touching
    own = [region.owner == number for number in range(len(needles))]
    for a, b in ((i, j), (j, i)):  # an owner needs φ at its cells' neighbours too
        for number, mine in enumerate(own):
            mine[b[region.owner[a] == number]] = True
    potentials = [_potential(needle, centers, mine) for needle, mine in zip(needles, own, strict=True)]
    for number in np.flatnonzero(fitted).tolist():
        needle, potential = needles[number], potentials[number]
        beside = needle.fitted(centers, h)
        chosen = np.flatnonzero(near & (nearest == number) & (beside[i] | beside[j]))
        a, b = i[chosen], j[chosen]
        flux = _face_flux(needle, 0.5 * (centers[a] + centers[b]), region.axis[chosen], h)
        _widen_gap(flux, region, chosen, needle, nearest == number, centers, h)
        difference = potential[a] - potential[b]
        drop = np.maximum(1.0 - np.maximum(potential[a], potential[b]), 0.02)
        usable = (flux * difference > 0) & (np.abs(difference) > SMALLEST_DIFFERENCE * drop)
        ratio = flux[usable] / difference[usable]
        factor[chosen[usable]] = np.clip(ratio, SMALLEST_FACTOR, LARGEST_FACTOR)
        inner = ~(region.solid | region.contact) & (region.owner == number) & beside
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
        density = needle.metal_flux(centers[cells], h)
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


def fit_electrode_links(grid: Grid, needles: Sequence[ElectrodeShape]) -> LinkFactors:
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
    grid: Grid,
    needles: Sequence[ElectrodeShape],
    conductivity: float | NDArray[np.floating],
    heat_transfer: float | Sequence[float],
    electric: LinkFactors | None = None,
) -> LinkFactors:
    """Links of the heat problem beside electrodes, cooled from inside or not.

    A cooled electrode's bare metal lies behind a film: its wall link is that of
    `fit_electrode_links` in series with the film, 1/G = 1/(k h f) + 1/(h_c A); the shaft is
    insulated. An uncooled electrode (heat transfer 0) only cuts the links of its solid cells.

    Parameters
    ----------
    conductivity : thermal conductivity k of the tissue [W/(m K)]; one for all or one for each cell.
    heat_transfer : h_c from coolant through the metal wall [W/(m² K)]; one for all or one each.
    electric : `fit_electrode_links` of the same electrodes, to spare the work where all are cooled.

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
    k = np.asarray(conductivity, dtype=np.float64)
    if not (np.all(np.isfinite(k)) and np.all(k > 0)):
        raise InputError(f"thermal conductivity is {np.min(k)} W/(m K); must be positive")
    if not np.all(transfer >= 0):
        raise InputError(f"heat transfer is {transfer.min()} W/(m² K); must be 0 (uncooled) or positive")
    links = electric
    if links is None or not np.all(transfer > 0):
        links = _fit(grid, needles, _region(grid, needles), transfer > 0)
    beside_wall = k if k.ndim == 0 else k.ravel()[links.wall_cells]
    film = grid.spacing[0] * beside_wall / transfer[links.wall_owners] / links.wall_areas
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
