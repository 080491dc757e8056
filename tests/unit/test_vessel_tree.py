"""Distances to vessel walls, Murray's law and the order of branches."""

from __future__ import annotations

import numpy as np
import pytest

from thermosim.anatomy.grid import Grid
from thermosim.anatomy.vessel_tree import VesselTree, segment_segment_distances
from thermosim.errors import InputError

NODES = 1e-3 * np.array([[0, 0, -20], [0, 0, 0], [10, 0, 15], [-12, 0, 10], [20, 0, 18], [10, 5, 28]], float)
SEGMENTS = np.array([[0, 1], [1, 2], [1, 3], [2, 4], [2, 5]])
PARENTS = np.array([-1, 0, 0, 1, 1])
FLOWS = np.array([3.0, 2.0, 1.0, 1.2, 0.8])


def forked(exponent: float = 3.0) -> VesselTree:
    return VesselTree("portal_vein", NODES, SEGMENTS, PARENTS, 4e-3 * (FLOWS / 3) ** (1 / exponent))


def signed_volume(points: np.ndarray, triangles: np.ndarray) -> float:
    a, b, c = (points[triangles[:, i]] for i in range(3))
    return float(np.sum(np.cross(a, b) * c)) / 6


def test_signed_distance_of_one_segment_is_that_of_a_capsule() -> None:
    tree = VesselTree("a", NODES[:2], SEGMENTS[:1], PARENTS[:1], np.array([2e-3]))
    points = 1e-3 * np.array([[5, 0, -10], [0, 1, -10], [0, 0, 4], [3, 0, 4], [0, 0, -30]], float)
    distance, radius = tree.signed_distance(points)
    # beside: 5 − 2; inside: 1 − 2; above the end: 4 − 2; (3, 4, 5) triangle: 5 − 2; below: 10 − 2
    # round-off of numbers of order 0.01 m only
    np.testing.assert_allclose(distance, 1e-3 * np.array([3, -1, 2, 3, 8.0]), atol=1e-15)
    np.testing.assert_allclose(radius, 2e-3)


def test_grid_distance_agrees_with_points_within_the_band() -> None:
    tree, band = forked(), 4e-3
    grid = Grid.box((1e-3, 0.5e-3, 2e-3), (44, 30, 56), 1.1e-3)
    distance, radius = tree.on_grid(grid, band)
    i, j, k = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    exact, exact_radius = tree.signed_distance(grid.points(np.stack([i, j, k], axis=-1)))
    near = exact < band
    assert near.sum() > 3000
    # float32 of numbers below 0.01 m: spacing 1e-9
    np.testing.assert_allclose(distance[near], exact[near], atol=2e-9)
    assert np.all(distance[~near] == np.float32(band))
    # ties between two equally near walls may go either way, they are a set of measure zero
    assert np.mean(np.abs(radius[near] - exact_radius[near]) > 1e-8) < 1e-3


def test_grid_away_from_the_tree_is_untouched() -> None:
    distance, _ = forked().on_grid(Grid.box((1.0, 1.0, 1.0), (8, 8, 8), 1e-3), 3e-3)
    assert np.all(distance == np.float32(3e-3))


@pytest.mark.parametrize("exponent", [2.0, 2.7, 3.0])
def test_murray_error(exponent: float) -> None:
    # round-off of a few powers
    assert forked(exponent).murray_error(exponent) < 1e-14
    assert forked(exponent).murray_error(exponent + 0.5) > 0.05


def test_segment_distances_against_dense_sampling() -> None:
    random = np.random.default_rng(3)
    a, b, c, d = random.normal(size=(4, 25, 3))
    d[:5] = c[:5] + 2 * (b[:5] - a[:5])  # parallel pairs
    got = segment_segment_distances(a, b, c, d)
    t = np.linspace(0, 1, 201)[:, None, None]
    p, q = a + t * (b - a), c + t * (d - c)
    for i in range(25):
        for j in (i, (i + 7) % 25):
            gaps = np.linalg.norm(p[:, None, i] - q[None, :, j], axis=-1)
            # samples lie within 1/400 of a segment of length about 3 from the true foot points
            assert gaps.min() - 0.02 < got[i, j] < gaps.min() + 1e-12


def test_strahler_orders_and_chains() -> None:
    tree = forked()
    np.testing.assert_array_equal(tree.strahler_orders(), [2, 2, 1, 1, 1])
    assert [c.tolist() for c in tree.chains()] == [[0, 1, 3], [2], [4]]


def test_pruned_keeps_the_connected_wide_part() -> None:
    tree = forked()
    wide = tree.pruned(2 * tree.radii[1])
    assert wide is not None
    np.testing.assert_allclose(wide.radii, tree.radii[:2])
    np.testing.assert_array_equal(wide.parents, [-1, 0])
    assert tree.pruned(1.0) is None


def test_tubes_are_closed_and_point_outwards() -> None:
    tree = VesselTree("a", NODES[:2], SEGMENTS[:1], PARENTS[:1], np.array([2e-3]))
    surface = tree.surface(sides=48)
    edges = np.sort(surface.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    assert np.all(np.unique(edges, axis=0, return_counts=True)[1] == 2)
    cylinder = np.pi * 2e-3**2 * 20e-3
    # a 48-gon's area is 0.3 % below its circle's
    assert signed_volume(surface.points, surface.triangles) == pytest.approx(cylinder, rel=4e-3)


@pytest.mark.parametrize(
    ("parents", "radii", "match"),
    [
        (PARENTS, -np.ones(5), "radii positive"),
        (PARENTS, np.full(5, np.nan), "finite"),
        (np.array([-1, 2, 0, 1, 1]), np.ones(5), "before its child"),
        (np.array([-1, 0, 1, 1, 1]), np.ones(5), "does not begin"),
        (PARENTS[:3], np.ones(5), "one parent"),
    ],
)
def test_inconsistent_trees_are_refused(parents: np.ndarray, radii: np.ndarray, match: str) -> None:
    with pytest.raises(InputError, match=match):
        VesselTree("portal_vein", NODES, SEGMENTS, parents, radii)
