"""The multigrid solver and the potential of needles, against a direct solution in double precision."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from reference import potential as oracle
from solver_cases import needle, two_needles

from thermosim.anatomy.grid import Grid
from thermosim.applicators.electrode import Electrode
from thermosim.backends import select
from thermosim.backends.base import Array, Backend, Layout
from thermosim.errors import InputError, NumericalError
from thermosim.numerics.fitted_links import fit_electrode_links
from thermosim.numerics.leaks import Leaks, parents_of
from thermosim.numerics.multigrid import Links, MultigridSolver
from thermosim.numerics.workspace import Workspace
from thermosim.physics.electric_potential import ConductivityLaw, ElectricPotential
from thermosim.physics.ground import ground_links
from thermosim.physics.solved_fields import SolvedFields, secant_admittance

SHAPE = (19, 14, 23)
SPACING = 2e-3


def adder(values: Array) -> Callable[[Array], None]:
    def add(field: Array) -> None:
        field += values

    return add


def uniform_solver(backend: Backend, shape: tuple[int, int, int]) -> tuple[MultigridSolver, Links, Layout]:
    """σ = 1 with all six faces grounded."""
    layout = Layout(shape)
    links, leaks = Links.empty(backend, layout), np.zeros(shape, np.float32)
    for axis, g in enumerate((links.gx, links.gy, links.gz)):
        inner = layout.interior(g)
        inner[:] = 1.0
        np.moveaxis(inner, axis, 0)[-1] = 0.0
        leak = np.moveaxis(leaks, axis, 0)
        leak[0] += 2.0
        leak[-1] += 2.0
    space = Workspace.allocate(backend, layout, 0.0)
    solver = MultigridSolver(backend, links, space, np.flatnonzero(leaks))
    links.leaks.set_all(leaks)
    solver.coarsen()
    return solver, links, layout


def random_source(layout: Layout, seed: int = 3) -> NDArray[np.float32]:
    field = np.zeros(layout.size, np.float32)
    layout.interior(field)[:] = np.random.default_rng(seed).uniform(-1.0, 1.0, layout.shape)
    return field


@pytest.mark.parametrize("shape", [(4, 4, 4), (17, 9, 33), (32, 32, 32), (40, 7, 3), (64, 64, 64)])
def test_few_iterations_whatever_the_size(shape: tuple[int, int, int]) -> None:
    backend = select("cpu", 1)
    solver, _, layout = uniform_solver(backend, shape)
    source, x = random_source(layout), backend.field(layout)
    report = solver.solve(x, adder(source), 1e-6, 30)
    # geometric multigrid: the count hardly grows with the grid; seen 3 to 8, and 9 at 160³
    assert report.iterations <= 12
    assert solver.true_relative_residual(x, adder(source)) < 2e-6  # float32 recurrence, drifts a little


def test_a_good_start_is_kept() -> None:
    backend = select("cpu", 1)
    solver, _, layout = uniform_solver(backend, (20, 20, 20))
    source, x = random_source(layout), backend.field(layout)
    solver.solve(x, adder(source), 1e-6, 30)
    before = x.copy()
    assert solver.solve(x, adder(source), 1e-5, 30).iterations == 0
    assert np.array_equal(x, before)


def test_a_slow_change_goes_on_as_it_went() -> None:
    # links that grow evenly with time around the middle: the fourth solution lies nearly on the line through
    # the second and the third
    backend = select("cpu", 1)
    solver, links, layout = uniform_solver(backend, (32, 32, 32))
    ball = np.linalg.norm(np.indices(layout.shape) - 16.0, axis=0) < 8.0
    faces = (links.gx, links.gy, links.gz)
    plain = [layout.interior(g).copy() for g in faces]
    source, x, earlier = random_source(layout), backend.field(layout), backend.field(layout)
    counts = []
    for step in range(4):
        for g, start in zip(faces, plain, strict=True):
            layout.interior(g)[:] = start * (1.0 + 0.05 * step * ball)
        solver.coarsen()
        before = x.copy()
        known = step >= 2
        from_here = solver.solve(before.copy(), adder(source), 1e-6, 30).iterations
        found = solver.solve(x, adder(source), 1e-6, 30, earlier=earlier if known else None)
        counts.append((from_here, found.iterations))
        assert solver.true_relative_residual(x, adder(source)) < 2e-6
        if known:  # to the rounding of one step there and back
            assert np.abs(earlier - before).max() < 1e-6 * np.abs(before).max()
        else:
            earlier[:] = before
    assert counts[3][1] < counts[3][0] - 1  # seen: 3 instead of 5


def test_ghost_cells_of_the_solution_stay_zero() -> None:
    backend = select("cpu", 1)
    solver, _, layout = uniform_solver(backend, (9, 6, 11))
    x = backend.field(layout)
    solver.solve(x, adder(random_source(layout)), 1e-6, 30)
    layout.interior(x)[:] = 0.0
    assert not x.any()


def test_failures_have_names() -> None:
    backend = select("cpu", 1)
    solver, links, layout = uniform_solver(backend, (16, 16, 16))
    source, x = random_source(layout), backend.field(layout)
    with pytest.raises(NumericalError, match="no electrode touches conducting tissue"):
        solver.solve(x, adder(np.zeros_like(source)), 1e-6, 30)
    with pytest.raises(
        NumericalError, match=r"did not converge: residual .* after 1 iterations.*maximum_iter"
    ):
        solver.solve(x, adder(source), 1e-6, 1)
    links.gx[layout.origin + 5] = np.nan
    solver.coarsen()
    with pytest.raises(NumericalError, match="non-finite"):
        solver.solve(backend.field(layout), adder(source), 1e-6, 30)


# ---------------------------------------------------------------------------- the potential of needles

SIGMA = np.array([0.2, 0.7, 0.002, 0.0], dtype=np.float32)
"""Tissue, blood, vapour, no conductor: jumps of up to 350."""


def electrodes(kind: str) -> tuple[Electrode, ...]:
    if kind == "two":
        return two_needles(apart=0.011)
    if kind == "oblique":
        return (needle("oblique", (0.0012, -0.0007, -0.009), (0.48, 0.36, 0.8), 0.015),)
    return (Electrode("sphere", (0.0003, 0.0005, -0.0002), (0.0, 0.0, 0.1), 3e-3, 3e-3, kind="sphere"),)


class Bench:
    """The solver and the oracle on the same links."""

    def __init__(self, kind: str, ground: str, backend: Backend) -> None:
        self.needles = electrodes(kind)
        grid = Grid.box((0.0, 0.0, 0.0), SHAPE, SPACING)
        links = fit_electrode_links(grid, [e.geometry for e in self.needles])
        self.layout = Layout(SHAPE)
        labels = np.random.default_rng(2).choice(3, SHAPE, p=[0.7, 0.2, 0.1]).astype(np.uint8)
        labels.ravel()[links.solid_cells] = 3
        field = backend.field(self.layout, 0, "uint8")
        self.layout.interior(field)[:] = labels
        law = ConductivityLaw(
            SIGMA, np.zeros(4, np.float32), np.array([0, 1, 0, 0], np.float32), 0, 100.0, 5.0, 0.01, 37.0
        )
        center = np.array(SHAPE) * SPACING / 2
        cells, factors = ground_links(SHAPE, ground, SPACING, center)
        self.potential = ElectricPotential(
            backend,
            self.layout,
            SPACING,
            field,
            law,
            links,
            len(self.needles),
            (cells, factors),
            Workspace.allocate(backend, self.layout, 0.0),
        )
        self.potential.set_terminals(tuple((e,) for e in range(len(self.needles))))
        self.potential.update_conductances(backend.field(self.layout))
        self.potential.solve(1e-7, 60)
        kept = ~np.isin(cells, links.solid_cells)
        self.network = oracle.network(
            SIGMA[labels].astype(float), SPACING, links, len(self.needles), (cells[kept], factors[kept])
        )
        self.labels, self.backend = labels, backend

        self._links, self._ground = links, (cells[kept], factors[kept])

    def remade(self, sigma: NDArray[np.float32]) -> oracle.Network:
        """The oracle for other conductivities of the labels."""
        field = sigma[self.labels].astype(float)
        return oracle.network(field, SPACING, self._links, len(self.needles), self._ground)

    def inside(self, field: Array) -> NDArray[np.float64]:
        return np.asarray(self.layout.interior(field), dtype=float)


@pytest.mark.parametrize("ground", ["faces", "far_field", "-z", "-x,+x"])
def test_the_count_of_iterations_is_small_whatever_is_grounded(ground: str) -> None:
    # insulated faces are hard on the coarse grids, whose correction is interpolated as if to zero there
    grid = Grid.box((0.0, 0.0, 0.0), (40, 40, 40), 1e-3)
    links = fit_electrode_links(grid, [needle(active_length=0.015).geometry])
    backend, layout = select("cpu", 1), Layout(grid.shape)
    labels = np.zeros(grid.n_cells, np.uint8)
    labels[links.solid_cells] = 3
    field = backend.field(layout, 0, "uint8")
    layout.interior(field)[:] = labels.reshape(grid.shape)
    law = ConductivityLaw(SIGMA, 0 * SIGMA, 0 * SIGMA, 0, 100.0, 5.0, 0.01, 37.0)
    cells, factors = ground_links(grid.shape, ground, 1e-3, np.full(3, 0.02))
    space = Workspace.allocate(backend, layout, 0.0)
    potential = ElectricPotential(backend, layout, 1e-3, field, law, links, 1, (cells, factors), space)
    potential.set_terminals(((0,),))
    potential.update_conductances(backend.field(layout))
    potential.solve(1e-6, 60)
    assert potential.iterations <= 20
    assert potential.true_relative_residuals()[0] < 5e-6  # float32 beside the shaft


CASES = [("two", "faces"), ("two", "-z"), ("oblique", "far_field"), ("oblique", "+x,-y"), ("sphere", "faces")]


@pytest.mark.parametrize(("kind", "ground"), CASES)
def test_potential_heat_and_admittance_are_those_of_the_direct_solution(kind: str, ground: str) -> None:
    bench = Bench(kind, ground, select("cpu", 1))
    n = len(bench.needles)
    admittance = oracle.admittance_matrix(bench.network)
    matrix, single = bench.potential.admittances()
    # a residual of 1e-7 and float32: links differ by 1e-7, the fields by some 1e-6
    assert matrix == pytest.approx(admittance, rel=2e-5)
    assert single == pytest.approx(admittance, rel=2e-5)
    for e in range(n):
        unit = np.eye(n)[e]
        phi = oracle.solve(bench.network, unit)
        assert np.abs(bench.inside(bench.potential.fields[e]) - phi).max() < 1e-5  # of 1 V
    voltages = np.array([20.0, -7.0])[:n]
    volts, heat = bench.backend.field(bench.layout), bench.backend.field(bench.layout)
    total, in_blood = bench.potential.joule_heating(voltages, volts, heat)
    wanted = oracle.joule_heating(bench.network, oracle.solve(bench.network, voltages), voltages)
    assert np.abs(bench.inside(heat) - wanted).max() < 1e-4 * wanted.max()
    assert total == pytest.approx(wanted.sum() * SPACING**3, rel=2e-5)
    assert total == pytest.approx(float(voltages @ matrix @ voltages), rel=1e-5)
    assert in_blood == pytest.approx(wanted[bench.labels == 1].sum() * SPACING**3, rel=1e-4)


@pytest.mark.parametrize("direction", [(0.0, 0.0, 1.0), (0.48, 0.36, 0.8)])
@pytest.mark.parametrize("jump", [1e2, 1e4])
@pytest.mark.parametrize("kind", ["shell", "patches"])
def test_vapour_around_a_needle_takes_no_more_iterations(
    kind: str, jump: float, direction: tuple[float, float, float]
) -> None:
    # σ jumps across cells that no coarse grid sees: what interpolates across them never converges
    along = np.array(direction)
    grid = Grid.box((0.0, 0.0, 0.0), (40, 40, 40), 1e-3)
    metal = needle(target=tuple(-0.0075 * along), direction=direction, active_length=0.015)
    links = fit_electrode_links(grid, [metal.geometry])
    points = np.stack(np.meshgrid(*(grid.axis(a) for a in range(3)), indexing="ij"), axis=-1)
    beside = points - np.clip(points @ along, -0.0075, 0.0075)[..., None] * along
    labels = (np.linalg.norm(beside, axis=-1) < 3.5e-3).astype(np.uint8)
    if kind == "patches":
        labels[np.random.default_rng(1).random(labels.shape) < 0.5] = 0
    labels.ravel()[links.solid_cells] = 3
    sigma = np.array([0.2, 0.2 / jump, 1.0, 0.0], np.float32)
    backend, layout = select("cpu", 1), Layout(grid.shape)
    field = backend.field(layout, 0, "uint8")
    layout.interior(field)[:] = labels
    law = ConductivityLaw(sigma, 0 * sigma, 0 * sigma, 0, 100.0, 5.0, 0.01, 37.0)
    ground = ground_links(grid.shape, "faces", 1e-3, np.full(3, 0.02))
    space = Workspace.allocate(backend, layout, 0.0)
    potential = ElectricPotential(backend, layout, 1e-3, field, law, links, 1, ground, space)
    potential.set_terminals(((0,),))
    potential.update_conductances(backend.field(layout))
    potential.solve(1e-6, 60)
    assert potential.iterations <= 14  # seen 7 or 8, and 12 where half of the cells are vapour of 1:10,000


def test_one_field_for_a_drive_is_what_all_unit_fields_give() -> None:
    bench = Bench("two", "faces", select("cpu", 1))
    potential, spacing = bench.potential, SPACING
    matrix, single = potential.admittances()
    old = oracle.admittance_matrix(bench.network)
    assert matrix == pytest.approx(old, rel=2e-5)
    # other tissue: σ of the labels changes unevenly, and only the field of one drive is solved again
    changed = SIGMA * np.array([1.3, 0.8, 1.0, 1.0], np.float32)
    potential._law = (bench.backend.asarray(changed, "float32"), *potential._law[1:])
    potential.update_conductances(bench.backend.field(bench.layout))
    bench.network = bench.remade(changed)
    volts = np.array([1.0, -0.4])
    wanted = oracle.admittance_matrix(bench.network) @ volts
    report = potential.solve_drive(volts, float(volts @ old @ volts), 2e-3, 1e-6, 60)
    phi = oracle.solve(bench.network, volts)
    difference = bench.inside(potential.fields[0]) - phi
    energy = oracle.joule_heating(bench.network, difference, 0.0 * volts).sum() * spacing**3
    power = float(volts @ wanted)
    assert report.error < 2e-3
    assert np.sqrt(energy / power) < 2e-3  # the estimate holds for the true error
    # the power of a field whose error is e is off by e², single currents by no more than e
    assert float(volts @ report.currents) == pytest.approx(power, rel=1e-5)
    assert report.currents == pytest.approx(wanted, rel=2e-3)
    heat, scratch = bench.backend.field(bench.layout), bench.backend.field(bench.layout)
    total, _ = potential.joule_heating(volts, scratch, heat)
    # power put in is power lost, to float32, however early the solve ended
    assert total == pytest.approx(float(volts @ report.currents), rel=5e-6)
    updated, rows = secant_admittance(matrix, single, volts, ((0,), (1,)), report.currents)
    assert updated @ volts == pytest.approx(report.currents, rel=1e-12)
    assert rows == pytest.approx(updated, rel=1e-6)  # the electrodes' rows are not made symmetric
    assert updated == pytest.approx(updated.T, rel=1e-12)
    assert np.all(np.linalg.eigvalsh(updated) > 0.0)


def test_the_secant_keeps_shares_of_bonded_electrodes() -> None:
    terminals = ((0, 2), (1,))
    single = np.array([[0.02, -0.004], [-0.006, 0.03], [0.01, -0.002]])
    matrix = np.array([single[list(group)].sum(axis=0) for group in terminals])
    volts, found = np.array([1.0, 0.3]), np.array([0.021, 0.001, 0.008])
    updated, rows = secant_admittance(matrix, single, volts, terminals, found)
    assert rows @ volts == pytest.approx(found, rel=1e-12)
    assert np.array([rows[list(group)].sum(axis=0) for group in terminals]) == pytest.approx(
        updated, rel=1e-12
    )
    unchanged, _ = secant_admittance(matrix, single, volts, terminals, -found)  # no power: no such tissue
    assert unchanged is matrix


def test_fields_of_any_drives_stay_a_basis() -> None:
    backend, layout = select("cpu", 1), Layout((6, 5, 4))
    solved = SolvedFields(backend, layout, 3)
    random = np.random.default_rng(4)
    units = random.uniform(-1.0, 1.0, (3, *layout.shape)).astype(np.float32)
    for field, unit in zip(solved.fields, units, strict=True):
        layout.interior(field)[:] = unit
    out = backend.field(layout)
    # pairs in turn, as in multipolar operation, then a needle alone with two that float
    drives = [(0.5, -0.5, 0.02), (0.01, 0.5, -0.5), (-0.5, -0.03, 0.5), (0.5, -0.5, 0.0), (0.1, 1.0, 0.2)]
    for drive in drives:
        volts = np.array(drive)
        place = solved.place_for(volts)
        assert np.array_equal(solved.voltages[:, place], volts)
        assert np.linalg.cond(solved.voltages) < 50.0
        for wanted in (volts, np.array([1.0, 0.0, 0.0])):
            solved.superpose(wanted, out)
            assert layout.interior(out) == pytest.approx(np.tensordot(wanted, units, axes=1), abs=1e-5)


def test_bonded_electrodes_are_one_terminal() -> None:
    bench = Bench("two", "faces", select("cpu", 1))
    apart, _ = bench.potential.admittances()
    bench.potential.set_terminals(((0, 1),))
    bench.potential.solve(1e-7, 60)
    together, single = bench.potential.admittances()
    assert together[0, 0] == pytest.approx(apart.sum(), rel=1e-5)
    assert single[:, 0] == pytest.approx(apart.sum(axis=1), rel=1e-5)


def test_the_residual_reached_is_the_true_one() -> None:
    bench = Bench("two", "faces", select("cpu", 1))
    # float32 leaves ‖b − A φ‖ at the rounding of A φ near the needles; seen 3e-7
    assert max(bench.potential.true_relative_residuals()) < 3e-6


def test_drift_is_nothing_for_an_even_change_and_bounds_an_uneven_one() -> None:
    backend = select("cpu", 1)
    bench = Bench("oblique", "faces", backend)
    potential = bench.potential
    heat, volts = backend.field(bench.layout), backend.field(bench.layout)
    potential.joule_heating(np.array([1.0]), volts, heat)
    cold = backend.field(bench.layout)
    factor, error = potential.drift(cold, heat)
    assert factor == pytest.approx(1.0, abs=1e-6)
    assert error < 1e-3  # the square root of float32's rounding


def test_an_electrode_outside_the_box_and_an_unknown_ground_are_refused() -> None:
    with pytest.raises(InputError, match=r"protocol\.ground='top'"):
        ground_links(SHAPE, "top", SPACING, np.zeros(3))
    with pytest.raises(InputError, match=r"protocol.ground='\+x,up'"):
        ground_links(SHAPE, "+x,up", SPACING, np.zeros(3))
    grid = Grid.box((0.0, 0.0, 0.0), SHAPE, SPACING)
    links = fit_electrode_links(grid, [needle().geometry])
    backend, layout = select("cpu", 1), Layout(SHAPE)
    law = ConductivityLaw(SIGMA[:1], SIGMA[:1] * 0, SIGMA[:1] * 0, 0, 100.0, 5.0, 0.01, 37.0)
    arguments = (backend, layout, SPACING, backend.field(layout, 0, "uint8"), law, links)
    ground = ground_links(SHAPE, "faces", SPACING, np.zeros(3))
    with pytest.raises(InputError, match="electrode 2 touches no tissue"):
        ElectricPotential(*arguments, 2, ground, Workspace.allocate(backend, layout, 0.0))


def test_only_a_field_solved_twice_in_a_row_has_one_of_before() -> None:
    backend, layout = select("cpu", 1), Layout((3, 4, 5))
    solved = SolvedFields(backend, layout, 2)
    assert solved.earlier_of(0) is None
    assert solved.earlier_of(1) is None
    layout.interior(solved.fields[1])[:] = 2.0
    assert solved.earlier_of(1) is None  # as it is now will be the one of before
    assert np.array_equal(solved.earlier_of(1), solved.fields[1])
    assert solved.earlier_of(0) is None
    assert solved.earlier is None


@pytest.mark.parametrize("shape", [(3, 4, 9), (2, 3, 8), (4, 2, 2), (3, 3, 1)])
def test_links_to_walls_are_kept_by_rows(shape: tuple[int, int, int]) -> None:
    backend, layout = select("cpu", 1), Layout(shape)
    links = np.random.default_rng(6).uniform(0.1, 1.0, shape).astype(np.float32)
    links[0, :, 1:-1] = 0.0  # ends alone
    links[1, 1] = 0.0  # none
    leaks = Leaks(backend, layout, np.flatnonzero(links))
    leaks.set_all(links)
    assert np.array_equal(leaks.on_host(), links)
    with pytest.raises(ValueError, match="no room"):
        leaks.places(np.array([np.ravel_multi_index((1, 1, 0), shape)]))
    if shape[2] > 2:
        with pytest.raises(ValueError, match="no room"):
            leaks.places(np.array([1]))
    leaks.clear()
    assert not leaks.on_host().any()
    coarse = Layout(tuple(-(-n // 2) for n in shape))  # type: ignore[arg-type]
    assert len(parents_of(np.arange(layout.n_cells), layout, coarse)) == coarse.n_cells
