"""Resistance of electrodes and heat flow to walls on coarse grids, wherever and however they lie.

The box's outermost cells hold the exact potential, so that only the links are judged.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags
from scipy.sparse.linalg import cg, splu

from thermosim.anatomy.grid import Grid
from thermosim.applicators.tines import tine_curves
from thermosim.numerics import near_field
from thermosim.numerics.fitted_links import fit_cooled_wall_links, fit_electrode_links, fit_vessel_links
from thermosim.numerics.link_factors import LinkFactors
from thermosim.numerics.near_field import needle_field
from thermosim.numerics.needle import Needle
from thermosim.numerics.tines import Tines

Array = NDArray[np.float64]
N1_RADIUS, N1_ACTIVE_LENGTH = 0.75e-3, 30.75e-3


def cell_centers(grid: Grid) -> Array:
    return grid.points(np.indices(grid.shape).reshape(3, -1).T)


def solve(
    grid: Grid,
    links: LinkFactors,
    known: Array,
    wall: float | Array,
    fixed: NDArray[np.bool_] | None = None,
) -> tuple[Array, Array]:
    """Potential on the grid with `known` values in the fixed cells (default: the outermost ones) and
    the currents through the wall links, in units of conductivity × spacing; `wall` is the metal's
    potential, one for all or one for each wall link."""
    n, index = grid.n_cells, np.indices(grid.shape).reshape(3, -1)
    solid = np.zeros(n, dtype=bool)
    solid[links.solid_cells] = True
    if fixed is None:
        fixed = np.any((index == 0) | (index == np.array(grid.shape)[:, None] - 1), axis=0)
    unknown = ~(solid | fixed)
    number = np.cumsum(unknown) - 1
    size = int(unknown.sum())
    diagonal, right = np.zeros(size), np.zeros(size)
    rows, columns, values = [], [], []
    for axis, stride in enumerate((grid.shape[1] * grid.shape[2], grid.shape[2], 1)):
        factor = np.ones(n)
        chosen = links.face_axes == axis
        factor[links.face_cells[chosen]] = links.face_factors[chosen]
        low = np.flatnonzero(index[axis] < grid.shape[axis] - 1)
        low = low[~(solid[low] | solid[low + stride])]
        for a, b in ((low, low + stride), (low + stride, low)):
            g = factor[np.minimum(a, b)]
            here, both = unknown[a], unknown[a] & unknown[b]
            diagonal += np.bincount(number[a[here]], g[here], size)
            edge = here & ~both
            right += np.bincount(number[a[edge]], g[edge] * known[b[edge]], size)
            rows.append(number[a[both]])
            columns.append(number[b[both]])
            values.append(-g[both])
    inner = unknown[links.wall_cells]
    cells, g = number[links.wall_cells[inner]], links.wall_factors[inner]
    metal = np.broadcast_to(np.asarray(wall, dtype=np.float64), inner.shape)[inner]
    diagonal += np.bincount(cells, g, size)
    right += np.bincount(cells, g * metal, size)
    rows.append(np.arange(size))
    columns.append(np.arange(size))
    values.append(diagonal)
    matrix = csr_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(size, size)
    )
    solution, failed = cg(matrix, right, x0=known[unknown], rtol=1e-7, maxiter=4000, M=diags(1 / diagonal))
    assert failed == 0
    result = known.copy()
    result[unknown] = solution
    current = np.zeros(len(links.wall_cells))
    current[inner] = g * (metal - solution[cells])
    return result, current


def random_pose(seed: int, spacing: float, axis: tuple[float, float, float] | None) -> tuple[Grid, Needle]:
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=3) if axis is None else np.array(axis)
    direction /= np.linalg.norm(direction)
    tip = rng.uniform(-0.5, 0.5, 3) * spacing - 0.5 * N1_ACTIVE_LENGTH * direction
    n = round(54e-3 / spacing)
    grid = Grid.box((0.0, 0.0, 0.0), (n, n, n), spacing)
    return grid, Needle(tuple(tip), tuple(direction), N1_RADIUS, N1_ACTIVE_LENGTH)


@pytest.mark.parametrize("axis", [None, (0.0, 0.0, 1.0), (1.0, 0.0, 1.0)])
@pytest.mark.parametrize(
    ("spacing", "poses", "limit"),
    # limits: somewhat above the worst of 24 to 90 poses each (0.48 %, 0.34 %, 0.22 %, 0.14 %), far
    # below what is asked for (2 % at 2 mm, 1 % at 1 mm)
    [(3e-3, 5, 0.006), (2e-3, 5, 0.005), (1.5e-3, 3, 0.004), (1e-3, 1, 0.003)],
)
def test_needle_resistance_in_any_pose(
    axis: tuple[float, float, float] | None, spacing: float, poses: int, limit: float
) -> None:
    for seed in range(poses):
        grid, needle = random_pose(seed, spacing, axis)
        field = needle.near_field()
        exact = field.potential(*needle.coordinates(cell_centers(grid)))
        potential, current = solve(grid, fit_electrode_links(grid, [needle]), exact, 1.0)
        whole = field.current * needle.radius / spacing
        assert whole / current.sum() == pytest.approx(1.0, abs=limit), f"pose {seed}"
        away = needle.wall_distance(*needle.coordinates(cell_centers(grid))) * needle.radius > 2 * spacing
        # of the needle's potential, two cells off; seen 0.002
        assert np.abs(potential - exact)[away].max() < 0.005


def test_shaft_end_that_shares_a_cell_with_active_metal() -> None:
    for fraction in np.linspace(-0.5, 0.5, 9):
        spacing, n = 2e-3, 27
        grid = Grid.box((0.0, 0.0, 0.0), (n, n, n), spacing)
        end = np.array([0.1e-3, 0.15e-3, 14e-3 + fraction * spacing])  # axis inside one column of cells
        tip = end - np.array([0.0, 0.0, N1_ACTIVE_LENGTH])
        needle = Needle(tuple(tip), (0.0, 0.0, 1.0), N1_RADIUS, N1_ACTIVE_LENGTH)
        exact = needle.near_field().potential(*needle.coordinates(cell_centers(grid)))
        _, current = solve(grid, fit_electrode_links(grid, [needle]), exact, 1.0)
        whole = needle.near_field().current * needle.radius / spacing
        # plain treatment loses the cut cell's current: 2 %; seen 0.11 %
        assert whole / current.sum() == pytest.approx(1.0, abs=0.004)


@pytest.mark.parametrize("spacing", [2e-3, 1e-3])
def test_sphere_electrode_against_closed_form(spacing: float) -> None:
    for seed in range(4):
        shift = np.random.default_rng(seed).uniform(-0.5, 0.5, 3) * spacing
        n = round(24e-3 / spacing)
        grid = Grid.box((0.0, 0.0, 0.0), (n, n, n), spacing)
        needle = Needle(tuple(shift), (0.0, 0.0, 1.0), 2e-3, kind="sphere")
        exact = needle.near_field().potential(*needle.coordinates(cell_centers(grid)))
        _, current = solve(grid, fit_electrode_links(grid, [needle]), exact, 1.0)
        # I = 4π σ R V; asked for 0.5 %, seen 0.06 % at 2 mm and 0.015 % at 1 mm
        assert current.sum() * spacing == pytest.approx(4 * np.pi * 2e-3, rel=1.5e-3)


def test_resistance_of_reference_needle_in_its_cylinder(reference_dir: Path) -> None:
    """Case N1: all of it, the insulated shaft to the wall and ground at 60 mm, against finite elements."""
    reference = json.loads((reference_dir / "N1.json").read_text())["quantities"]["R_initial_ohm"]
    spacing, n = 2e-3, 62
    grid = Grid.box((0.7e-3, -0.4e-3, 0.0), (n, n, n), spacing)
    points = cell_centers(grid)
    ground = (np.hypot(points[:, 0], points[:, 1]) > 60e-3) | (np.abs(points[:, 2]) > 60e-3)
    ground |= np.any((np.indices(grid.shape).reshape(3, -1) % (n - 1)) == 0, axis=0)
    needle = Needle((0.0, 0.0, -15.75e-3), (0.0, 0.0, 1.0), N1_RADIUS, N1_ACTIVE_LENGTH)
    _, current = solve(grid, fit_electrode_links(grid, [needle]), np.zeros(grid.n_cells), 1.0, ground)
    # the ground's staircase moves it by a part of a cell at 60 mm: 0.1 % of R; links 0.2 %
    assert 1 / (0.2 * spacing * current.sum()) == pytest.approx(reference, rel=0.004)


def test_cluster_of_needles_does_not_depend_on_the_grid() -> None:
    """Three needles 5 mm apart: their near regions overlap on every grid used here."""
    direction = np.array([0.3, 0.5, 0.8])
    direction /= np.linalg.norm(direction)
    side = np.cross(direction, [1.0, 0.0, 0.0])
    side /= np.linalg.norm(side)
    other = np.cross(direction, side)
    angle = 2 * np.pi * np.arange(3) / 3
    tips = -10e-3 * direction + 5e-3 / np.sqrt(3) * (
        np.cos(angle)[:, None] * side + np.sin(angle)[:, None] * other
    )
    needles = [Needle(tuple(tip), tuple(direction), N1_RADIUS, 20e-3) for tip in tips]
    resistance = []
    for spacing in (0.8e-3, 1.6e-3, 2e-3):
        n = round(40e-3 / spacing)
        grid = Grid.box((0.0, 0.0, 0.0), (n, n, n), spacing)
        fields = [m.near_field().potential(*m.coordinates(cell_centers(grid))) for m in needles]
        links = fit_electrode_links(grid, needles)
        _, current = solve(grid, links, sum(fields) / 2.2, 1.0)
        share = np.bincount(links.wall_owners, current) / current.sum()
        assert share == pytest.approx(1 / 3, abs=0.01)  # equal by symmetry
        resistance.append(1 / (spacing * current.sum()))
    # a needle's reference field ignores its neighbours 2.5 cells away; seen 0.6 %
    assert resistance[1:] == pytest.approx([resistance[0]] * 2, rel=0.01)


def outermost(grid: Grid) -> NDArray[np.bool_]:
    index = np.indices(grid.shape).reshape(3, -1)
    return np.any((index == 0) | (index == np.array(grid.shape)[:, None] - 1), axis=0)


def solve_tines(spacing: float, size: float, tines: Tines) -> tuple[Grid, LinkFactors, Array]:
    """Currents through the wall links [m], the near field on the box's outermost cells."""
    n = round(size / spacing)
    grid = Grid.box((0.0, 0.0, 0.0), (n, n, n), spacing)
    links = fit_electrode_links(grid, [tines])
    known, edge = np.zeros(grid.n_cells), outermost(grid)
    known[edge] = tines.potential(cell_centers(grid)[edge])
    return grid, links, solve(grid, links, known, 1.0)[1] * spacing


@pytest.mark.parametrize(("spacing", "limit"), [(1e-3, 0.005), (2e-3, 0.01)])
def test_ring_of_wire_against_closed_form(spacing: float, limit: float) -> None:
    """A curved wire of 0.3 mm radius; a thin torus has I / σ = 4 π² R / ln(8 R / a)."""
    ring, wire = 12e-3, 0.3e-3
    for seed in range(3):
        rng = np.random.default_rng(seed)
        turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        angle = 2 * np.pi * np.arange(97) / 96
        points = ring * (np.cos(angle)[:, None] * turn[0] + np.sin(angle)[:, None] * turn[1])
        points += rng.uniform(-0.5, 0.5, 3) * spacing
        points[-1] = points[0]
        far = (0.5, 0.5, 0.5)  # the trunk stands outside the box
        tines = Tines(far, (1.0, 1.0, 1.0), 1e-3, 0.0, (tuple(map(tuple, points)),), wire)
        *_, current = solve_tines(spacing, 40e-3, tines)
        exact = 4 * np.pi**2 * ring / np.log(8 * ring / wire)
        # asked for 3 %; seen 0.1 % at 1 mm and 0.3 % at 2 mm
        assert current.sum() == pytest.approx(exact, rel=limit), f"pose {seed}"


def free_part(tines: Tines, points: Array) -> Array:
    """0 up to 7 mm along a tine, rising to 1 at 13 mm, at the point of a tine nearest to each point."""
    _, foot = tines.nearest(points)
    off = np.linalg.norm(foot - np.asarray(tines.tip), axis=1)
    return np.clip((off - 7e-3) / 6e-3, 0.0, 1.0)


SHAPES = {  # tines, deployment, turn [°], bare trunk, radius of a tine, middle of the metal ahead of the tip
    "starburst": (9, 30e-3, 80.0, 10e-3, 0.3e-3, 5e-3),
    "umbrella": (10, 30e-3, 165.0, 0.0, 0.25e-3, 0.0),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("spacing", "poses", "whole_limit", "tine_limit"),
    # asked for 3 % at 1 mm; worst seen of 12 poses: 0.35 % and 0.25 % at 1 mm, 0.3 % and 2 % at 2 mm
    [(1e-3, 2, 0.006, 0.006), (2e-3, 4, 0.006, 0.03)],
)
def test_tines_carry_their_current(
    shape: str, spacing: float, poses: int, whole_limit: float, tine_limit: float
) -> None:
    n_tines, deployment, turn, bare, wire, ahead = SHAPES[shape]
    for seed in range(poses):
        rng = np.random.default_rng(seed)
        axis = rng.normal(size=3)
        axis /= np.linalg.norm(axis)
        tip = rng.uniform(-0.5, 0.5, 3) * spacing + ahead * axis
        wires = tine_curves(tip, axis, 1.05e-3, wire, n_tines, deployment, np.deg2rad(turn), 0.3 * seed)
        tines = Tines(tuple(tip), tuple(axis), 1.05e-3, bare, wires, wire)
        grid, links, current = solve_tines(spacing, 48e-3, tines)
        field = tines.near_field()
        assert field.current / current.sum() == pytest.approx(1.0, abs=whole_limit), f"pose {seed}"

        # each tine's own current, with what it carries near the trunk faded out: there it shares its
        # cells with the others
        cells = grid.points(np.stack(np.unravel_index(links.wall_cells, grid.shape), axis=1))
        found = np.bincount(tines.wire_of(cells), free_part(tines, cells) * current, n_tines)
        middles = np.asarray(field.middles.data)
        on_tines = field.radius[field.real] == wire
        whole = (field.density * field.length)[field.real] * free_part(tines, middles) * on_tines
        expected = np.bincount(tines.wire_of(middles), whole, n_tines)
        assert found == pytest.approx(expected, rel=tine_limit), f"pose {seed}"


@pytest.mark.parametrize(
    ("radius", "pole", "gap", "spacing", "poses", "limit"),
    # worst seen of 6 poses each: 0.7 %, 1.3 %, 0.7 %, and where the gap is 1.5 cells 2.6 %; a current
    # along the gap that solid cells swallow would cost up to 2.5 %, 2 % and 3.8 %
    [
        (0.9e-3, 8e-3, 4e-3, 1e-3, 2, 0.012),
        (0.9e-3, 8e-3, 4e-3, 2e-3, 4, 0.017),
        (0.9e-3, 18e-3, 4e-3, 2e-3, 3, 0.011),
        (0.65e-3, 8e-3, 3e-3, 2e-3, 3, 0.03),
    ],
)
def test_resistance_between_the_poles_of_a_bipolar_needle(
    radius: float, pole: float, gap: float, spacing: float, poses: int, limit: float
) -> None:
    """Against the axisymmetric problem of both poles: between them, and both together against far away."""
    length = 2 * pole + gap
    bands = [(0.0, pole / radius), ((pole + gap) / radius, length / radius)]
    fields = [needle_field(bands[k][1], bands[k][0], bands[1 - k]) for k in (0, 1)]
    exact = radius * np.array(
        [
            [fields[0].current, -fields[1].current_into_other],
            [-fields[0].current_into_other, fields[1].current],
        ]
    )
    # the same coupling seen from either pole: reciprocity, to the solver's round-off
    assert exact[0, 1] == pytest.approx(exact[1, 0], rel=1e-8)
    for seed in range(poses):
        rng = np.random.default_rng(seed)
        axis = rng.normal(size=3)
        axis /= np.linalg.norm(axis)
        tip = rng.uniform(-0.5, 0.5, 3) * spacing - 0.5 * length * axis
        starts = (0.0, pole + gap)
        needles = [
            Needle(
                tuple(tip),
                tuple(axis),
                radius,
                pole,
                active_start=starts[k],
                other_pole=(starts[1 - k], starts[1 - k] + pole),
            )
            for k in (0, 1)
        ]
        n = round((length + 24e-3) / spacing)
        grid = Grid.box((0.0, 0.0, 0.0), (n, n, n), spacing)
        links = fit_electrode_links(grid, needles)
        admittance = np.zeros((2, 2))
        for k in (0, 1):
            known = fields[k].potential(*needles[0].coordinates(cell_centers(grid)))
            _, current = solve(grid, links, known, (links.wall_owners == k).astype(float))
            admittance[:, k] = spacing * np.bincount(links.wall_owners, current, 2)
        across = [z[0, 0] + z[1, 1] - z[0, 1] - z[1, 0] for z in map(np.linalg.inv, (admittance, exact))]
        assert across[0] / across[1] == pytest.approx(1.0, abs=limit), f"pose {seed}"
        # bonded, there is no current along the gap; seen 0.6 %
        assert exact.sum() / admittance.sum() == pytest.approx(1.0, abs=0.01), f"pose {seed}"


@pytest.mark.parametrize("film", [0.1e-3, 2e-3])
@pytest.mark.parametrize("spacing", [3e-3, 2e-3])
def test_heat_to_a_cooled_needle(film: float, spacing: float) -> None:
    """Against the axisymmetric problem with the film in its wall condition."""
    mesh = near_field._Mesh(N1_ACTIVE_LENGTH / N1_RADIUS)
    mesh.wall = np.where(mesh.metal, 1 / (1 / mesh.wall + film / N1_RADIUS / mesh.wall_area), mesh.wall)
    solution = splu(mesh.matrix()).solve(mesh.right_side().ravel()).reshape(mesh.shape)
    whole = (mesh.wall * (1 - solution[0]))[mesh.metal].sum() * N1_RADIUS / spacing
    field = near_field.NeedleField(mesh, solution)
    for seed in range(3):
        grid, needle = random_pose(seed, spacing, None)
        links = fit_cooled_wall_links(grid, [needle], 0.52, 0.52 / film)
        known = field.potential(*needle.coordinates(cell_centers(grid)))
        _, current = solve(grid, links, known, 1.0)
        # the film evens out the flux that the fitted links assume; seen 0.4 %
        assert current.sum() == pytest.approx(whole, rel=0.008)


@pytest.mark.parametrize("axis", [(0.0, 0.0, 1.0), (0.3, -0.5, 0.8), (1.0, 1.0, 0.2)])
@pytest.mark.parametrize("film", [0.0, 0.52 / 1500])
@pytest.mark.parametrize("spacing", [2e-3, 1e-3])
def test_heat_to_a_vessel(axis: tuple[float, float, float], film: float, spacing: float) -> None:
    """Steady flow to a vessel: T = T_v + (q r_v / k) (ln(r / r_v) + k / (h_c r_v))."""
    radius, n = 3e-3, round(36e-3 / spacing)
    grid = Grid.box((0.0, 0.0, 0.0), (n, n, n), spacing)
    direction = np.array(axis) / np.linalg.norm(axis)
    points = cell_centers(grid) - np.array([0.31, -0.2, 0.45]) * spacing
    along = points @ direction
    distance = np.linalg.norm(np.cross(points, direction), axis=1)
    exact = radius * np.log(np.maximum(distance, 0.5 * radius) / radius) + film
    links = fit_vessel_links(
        grid,
        (distance - radius).reshape(grid.shape).astype(np.float32),
        np.full(grid.shape, radius, np.float32),
        film,
    )
    temperature, current = solve(grid, links, exact, 0.0)
    # flow into a stretch of the vessel whose ends are faded out over two cells and more
    fade = np.clip((11e-3 - np.abs(along[links.wall_cells])) / 5e-3, 0.0, 1.0)
    length = (2 * 6 + 5) * 1e-3
    # asked for 2 %; what is left is mostly the fading; seen 0.5 %
    assert -(fade @ current) * spacing == pytest.approx(2 * np.pi * radius * length, rel=0.01)
    tissue = distance > radius
    # temperature error per unit flux [m]: a hundredth of a cell's worth; seen 0.03 mm
    assert np.abs(temperature - exact)[tissue].max() < 0.05 * spacing
