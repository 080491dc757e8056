"""Fitted links: what must hold for any electrode, vessel and grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from thermosim.anatomy.grid import Grid
from thermosim.applicators.electrode import Electrode
from thermosim.errors import InputError
from thermosim.numerics.fit_limits import LARGEST_FACTOR, SMALLEST_FACTOR
from thermosim.numerics.fitted_links import (
    combine,
    fit_cooled_wall_links,
    fit_electrode_links,
    fit_vessel_links,
)
from thermosim.numerics.link_factors import LinkFactors
from thermosim.numerics.needle import Needle

SPACING = 1.5e-3


def box(spacing: float = SPACING, size: float = 48e-3) -> Grid:
    n = round(size / spacing)
    return Grid.box((0.0, 0.0, 0.0), (n, n, n), spacing)


def random_needle(seed: int, spacing: float = SPACING, active_length: float = 20e-3) -> Needle:
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    tip = rng.uniform(-0.5, 0.5, 3) * spacing - 0.5 * active_length * axis
    return Needle(tuple(tip), tuple(axis), 0.75e-3, active_length)


def net_outflow(grid: Grid, links: LinkFactors, potential: NDArray[np.float64]) -> NDArray[np.float64]:
    """Flow out of each cell through its faces, in units of conductivity × spacing."""
    solid = np.zeros(grid.n_cells, dtype=bool)
    solid[links.solid_cells] = True
    number = np.arange(grid.n_cells).reshape(grid.shape)
    total = np.zeros(grid.n_cells)
    for axis, stride in enumerate((grid.shape[1] * grid.shape[2], grid.shape[2], 1)):
        factor = np.ones(grid.n_cells)
        chosen = links.face_axes == axis
        factor[links.face_cells[chosen]] = links.face_factors[chosen]
        low = np.take(number, np.arange(grid.shape[axis] - 1), axis).ravel()
        high = low + stride
        flow = factor[low] * (potential[low] - potential[high]) * ~(solid[low] | solid[high])
        total += np.bincount(low, flow, grid.n_cells) - np.bincount(high, flow, grid.n_cells)
    return total


def potential_on(grid: Grid, needle: Needle) -> NDArray[np.float64]:
    points = grid.points(np.indices(grid.shape).reshape(3, -1).T)
    return needle.near_field().potential(*needle.coordinates(points))


def assert_well_formed(grid: Grid, links: LinkFactors) -> None:
    keys = 3 * links.face_cells + links.face_axes
    assert len(np.unique(keys)) == len(keys)
    walls = np.stack([links.wall_cells, links.wall_owners])
    assert np.unique(walls, axis=1).shape == walls.shape
    assert len(np.unique(links.solid_cells)) == len(links.solid_cells)
    assert not np.isin(links.wall_cells, links.solid_cells).any()
    assert np.all((links.face_factors >= SMALLEST_FACTOR) & (links.face_factors <= LARGEST_FACTOR))
    assert np.all(np.isfinite(links.wall_factors) & (links.wall_factors > 0))
    assert np.all(links.wall_areas > 0)
    for cells in (links.solid_cells, links.face_cells, links.wall_cells):
        assert np.all((cells >= 0) & (cells < grid.n_cells))
    index = np.stack(np.unravel_index(links.face_cells, grid.shape))[links.face_axes, np.arange(len(keys))]
    assert np.all(index < np.array(grid.shape)[links.face_axes] - 1)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    spacing=st.sampled_from([1e-3, 1.5e-3, 2e-3, 3e-3]),
    shift=st.floats(-40e-3, 40e-3),
)
def test_links_are_well_formed_wherever_the_needle_lies(seed: int, spacing: float, shift: float) -> None:
    grid, needle = box(spacing), random_needle(seed, spacing)
    moved = Needle(
        tuple(np.asarray(needle.tip) + shift * needle.axis),
        needle.direction,
        needle.radius,
        needle.active_length,
    )
    assert_well_formed(grid, fit_electrode_links(grid, [moved]))


@pytest.mark.parametrize("spacing", [1e-3, 1.5e-3, 2e-3, 3e-3])
def test_the_near_field_solves_the_discrete_equations(spacing: float) -> None:
    for seed in range(4):
        grid, needle = box(spacing), random_needle(seed, spacing)
        links = fit_electrode_links(grid, [needle])
        potential = potential_on(grid, needle)
        current = links.wall_factors * (1.0 - potential[links.wall_cells])
        whole = needle.near_field().current * needle.radius / spacing
        # what slivers at the shaft's end cost; seen up to 0.45 %
        assert current.sum() == pytest.approx(whole, rel=0.01)
        outflow = net_outflow(grid, links, potential)
        outflow[links.wall_cells] -= current
        inner = outflow.reshape(grid.shape)[1:-1, 1:-1, 1:-1]
        # the truncation error of the plain stencil beyond the fitted faces; seen up to 0.6 % of the current
        assert np.abs(inner).max() < 0.01 * whole


def test_wall_areas_sum_to_the_bare_metal() -> None:
    grid, needle = box(), random_needle(3)
    links = fit_electrode_links(grid, [needle])
    area = (
        2 * np.pi * needle.radius * needle.active_length
    )  # hemisphere: the same as a cylinder of its height
    assert links.wall_areas.sum() == pytest.approx(area, rel=1e-9)  # normalised


def test_axes_can_be_exchanged() -> None:
    grid, needle = box(), random_needle(5)
    links = fit_electrode_links(grid, [needle])
    turned = Needle(
        tuple(np.roll(needle.tip, 1)),
        tuple(np.roll(needle.direction, 1)),
        needle.radius,
        needle.active_length,
    )
    other = fit_electrode_links(grid, [turned])
    index = np.roll(np.stack(np.unravel_index(links.wall_cells, grid.shape)), 1, axis=0)
    cells = np.ravel_multi_index(tuple(index), grid.shape)
    order = np.argsort(cells)
    np.testing.assert_array_equal(cells[order], np.sort(other.wall_cells))
    # the least-squares balance is solved to 1e-3 of the loss, in another order of cells
    np.testing.assert_allclose(
        links.wall_factors[order], other.wall_factors[np.argsort(other.wall_cells)], rtol=1e-2
    )


def test_each_needle_owns_its_wall_links() -> None:
    grid = box()
    needles = [Needle((x, 0.2e-3, -10e-3), (0.0, 0.1, 1.0), 0.75e-3, 20e-3) for x in (-5e-3, 0.4e-3, 5e-3)]
    links = fit_electrode_links(grid, needles)
    assert_well_formed(grid, links)
    points = grid.points(np.stack(np.unravel_index(links.wall_cells, grid.shape), axis=1))
    distance = np.stack([n.wall_distance(*n.coordinates(points)) for n in needles])
    np.testing.assert_array_equal(distance.argmin(axis=0), links.wall_owners)
    for owner, needle in enumerate(needles):
        assert links.wall_areas[links.wall_owners == owner].sum() == pytest.approx(
            needle.metal_area, rel=1e-9
        )


def test_a_needle_outside_the_box_changes_nothing() -> None:
    far = Needle((0.2, 0.0, 0.0), (0.0, 0.0, 1.0), 0.75e-3, 20e-3)
    for links in (fit_electrode_links(box(), [far]), fit_electrode_links(box(), [])):
        assert not len(links.solid_cells) + len(links.face_cells) + len(links.wall_cells)


def test_a_needle_half_outside_has_the_area_inside() -> None:
    grid = box()
    top = grid.upper_corner[2]
    links = fit_electrode_links(
        grid, [Needle((0.3e-3, 0.1e-3, top - 10e-3), (0.0, 0.0, 1.0), 0.75e-3, 20e-3)]
    )
    # counted on surface points an eighth of a cell apart
    assert links.wall_areas.sum() == pytest.approx(2 * np.pi * 0.75e-3 * 10e-3, rel=0.02)


def test_film_is_in_series_with_the_tissue() -> None:
    grid, needle = box(), random_needle(2)
    bare = fit_electrode_links(grid, [needle])
    film = fit_cooled_wall_links(grid, [needle], 0.52, 1500.0)
    np.testing.assert_array_equal(bare.wall_cells, film.wall_cells)
    conductance = 0.52 * SPACING * film.wall_factors
    expected = 1 / (1 / (0.52 * SPACING * bare.wall_factors) + 1 / (1500.0 * bare.wall_areas))
    np.testing.assert_allclose(conductance, expected, rtol=1e-12)  # the same formula


def test_uncooled_needles_only_cut_links() -> None:
    grid = box()
    needles = [Needle((x, 0.0, -10e-3), (0.0, 0.0, 1.0), 1.5e-3, 20e-3) for x in (-10e-3, 10e-3)]
    links = fit_cooled_wall_links(grid, needles, 0.52, [0.0, 2000.0])
    assert set(links.wall_owners.tolist()) == {1}
    assert np.all(grid.points(np.stack(np.unravel_index(links.face_cells, grid.shape), axis=1))[:, 0] > 0)
    solid = grid.points(np.stack(np.unravel_index(links.solid_cells, grid.shape), axis=1))[:, 0]
    assert (solid > 0).sum() == (solid < 0).sum() > 0


def test_cooled_walls_refuse_bad_numbers() -> None:
    grid, needle = box(), random_needle(0)
    with pytest.raises(InputError, match="give one each"):
        fit_cooled_wall_links(grid, [needle], 0.52, [1.0, 2.0])
    with pytest.raises(InputError, match="conductivity"):
        fit_cooled_wall_links(grid, [needle], 0.0, 100.0)
    with pytest.raises(InputError, match="heat transfer"):
        fit_cooled_wall_links(grid, [needle], 0.52, -1.0)
    with pytest.raises(InputError, match="heat transfer"):
        fit_cooled_wall_links(grid, [needle], 0.52, np.nan)


def vessel_arrays(
    grid: Grid, radius: float, axis: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    points = grid.points(np.moveaxis(np.indices(grid.shape), 0, -1)) - np.array([0.3e-3, -0.4e-3, 0.1e-3])
    distance = np.linalg.norm(np.cross(points, axis), axis=-1) - radius
    return distance.astype(np.float32), np.full(grid.shape, radius, dtype=np.float32)


@pytest.mark.parametrize("film", [0.0, 3e-4])
def test_vessel_wall_links_are_well_formed_and_have_the_walls_area(film: float) -> None:
    grid, axis = box(2e-3), np.array([0.0, 0.0, 1.0])
    distance, radius = vessel_arrays(grid, 3e-3, axis)
    links = fit_vessel_links(grid, distance, radius, film, owner=4)
    assert_well_formed(grid, links)
    assert set(links.wall_owners.tolist()) == {4}
    np.testing.assert_array_equal(links.solid_cells, np.flatnonzero(distance.ravel() < 0))
    length = grid.shape[2] * grid.spacing[2]
    # the divergence theorem on the fitted faces, limits of a few factors; seen 0.01 %
    assert links.wall_areas.sum() == pytest.approx(2 * np.pi * 3e-3 * length, rel=2e-3)


def test_vessels_refuse_bad_arrays() -> None:
    grid = box(3e-3)
    distance, radius = vessel_arrays(grid, 3e-3, np.array([0.0, 0.0, 1.0]))
    with pytest.raises(InputError, match="shapes"):
        fit_vessel_links(grid, distance[1:], radius, 0.0)
    with pytest.raises(InputError, match="wall length"):
        fit_vessel_links(grid, distance, radius, -1.0)
    with pytest.raises(InputError, match="radius"):
        fit_vessel_links(grid, distance, 0 * radius, 0.0)
    with pytest.raises(InputError, match="not a number"):
        fit_vessel_links(grid, distance * np.nan, radius, 0.0)


def test_a_cell_that_only_blood_surrounds_is_no_tissue() -> None:
    grid = box(3e-3)
    distance, radius = vessel_arrays(grid, 8e-3, np.array([0.0, 0.0, 1.0]))
    distance[8, 8, 8] = 1e-4
    links = fit_vessel_links(grid, distance, radius, 0.0)
    assert np.ravel_multi_index((8, 8, 8), grid.shape) in links.solid_cells
    assert_well_formed(grid, links)


def test_no_vessel_gives_no_links() -> None:
    grid = box(3e-3)
    far = np.full(grid.shape, 1.0, dtype=np.float32)
    links = fit_vessel_links(grid, far, 0 * far, 0.0)
    assert not len(links.solid_cells) + len(links.face_cells) + len(links.wall_cells)


def make_links(solid: list[int], faces: list[tuple[int, int, float]], walls: list[int]) -> LinkFactors:
    return LinkFactors(
        np.array(solid, dtype=np.int64),
        np.array([f[0] for f in faces], dtype=np.int64),
        np.array([f[1] for f in faces], dtype=np.int8),
        np.array([f[2] for f in faces], dtype=np.float64),
        np.array(walls, dtype=np.int64),
        np.zeros(len(walls), dtype=np.int32),
        np.ones(len(walls)),
        np.ones(len(walls)),
    )


def test_combined_boundaries() -> None:
    first = make_links([1, 2], [(5, 0, 2.0), (6, 1, 0.0), (7, 2, 0.5)], [3, 9])
    second = make_links([2, 9], [(5, 0, 1.5), (6, 1, 3.0), (5, 1, 0.7)], [4])
    both = combine(first, second)
    assert both.solid_cells.tolist() == [1, 2, 9]
    faces = zip(both.face_cells, both.face_axes, both.face_factors, strict=True)
    assert {(int(c), int(a)): float(f) for c, a, f in faces} == {
        (5, 0): 3.0,
        (6, 1): 0.0,
        (7, 2): 0.5,
        (5, 1): 0.7,
    }
    assert both.wall_cells.tolist() == [3, 4]
    assert not len(combine().solid_cells)


def test_only_cubic_cells() -> None:
    grid = Grid((10, 10, 10), (1e-3, 1e-3, 2e-3), (0.0, 0.0, 0.0))
    with pytest.raises(InputError, match="isotropic"):
        fit_electrode_links(grid, [random_needle(0)])


def test_an_electrode_gives_its_geometry() -> None:
    electrode = Electrode("a", (0.0, 0.0, 0.0), (0.0, 0.0, 0.1), 0.75e-3, 30e-3)
    assert electrode.geometry == Needle((0.0, 0.0, 0.0), (0.0, 0.0, 1.0), 0.75e-3, 30e-3)
    sphere = Electrode("b", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 2e-3, 0.0, "sphere")
    assert sphere.geometry.kind == "sphere"
