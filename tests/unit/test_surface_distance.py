"""Distances to triangulated surfaces against closed forms and against every triangle in turn."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.errors import InputError
from thermosim.outcome.surface import extract_surface, refined
from thermosim.outcome.surface_distance import BLOCK, distance_to_surface

_spec = importlib.util.spec_from_file_location(
    "synthetic_result", Path(__file__).with_name("synthetic_result.py")
)
assert _spec is not None
assert _spec.loader is not None
synthetic = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(synthetic)


def to_each_triangle(points, surface):
    """Distances (n_points, n_triangles) by Ericson's regions (Real-Time Collision Detection, 5.1.5)."""
    result = np.empty((len(points), len(surface.triangles)))
    for column, (a, b, c) in enumerate(surface.points[surface.triangles]):
        for row, p in enumerate(points):
            result[row, column] = np.linalg.norm(p - closest_on_triangle(p, a, b, c))
    return result


def closest_on_triangle(p, a, b, c):
    ab, ac = b - a, c - a
    d1, d2 = ab @ (p - a), ac @ (p - a)
    if d1 <= 0 and d2 <= 0:
        return a
    d3, d4 = ab @ (p - b), ac @ (p - b)
    if d3 >= 0 and d4 <= d3:
        return b
    vc = d1 * d4 - d3 * d2
    if vc <= 0 and d1 >= 0 and d3 <= 0:
        return a + d1 / (d1 - d3) * ab
    d5, d6 = ab @ (p - c), ac @ (p - c)
    if d6 >= 0 and d5 <= d6:
        return c
    vb = d5 * d2 - d1 * d6
    if vb <= 0 and d2 >= 0 and d6 <= 0:
        return a + d2 / (d2 - d6) * ac
    va = d3 * d6 - d5 * d4
    if va <= 0 and d4 >= d3 and d5 >= d6:
        return b + (d4 - d3) / ((d4 - d3) + (d5 - d6)) * (c - b)
    return a + (vb * ab + vc * ac) / (va + vb + vc)


def test_distances_are_those_of_the_nearest_triangle():
    # A few large triangles, so that the nearest vertex is often not on the nearest triangle.
    rng = np.random.default_rng(0)
    surface = synthetic.sphere_surface(0.01, n=12)
    points = rng.uniform(-0.06, 0.06, (60, 3))
    # Brute force: dense points on every triangle, 60 per edge.
    u, v = np.meshgrid(np.linspace(0, 1, 60), np.linspace(0, 1, 60))
    keep = u + v <= 1.0
    u, v = u[keep], v[keep]
    a, b, c = (surface.points[surface.triangles[:, i]] for i in range(3))
    dense = (a[:, None] + u[None, :, None] * (b - a)[:, None] + v[None, :, None] * (c - a)[:, None]).reshape(
        -1, 3
    )
    brute, _ = cKDTree(dense).query(points)
    measured = distance_to_surface(points, surface)
    # Samples 0.05 mm apart overestimate by up to 0.035 mm close by, by nothing far away.
    assert np.all(measured <= brute + 1e-6)
    assert np.all(measured >= brute - 3.5e-5)


def soup(rng, sizes, n):
    """Loose triangles in a ball of 20 mm, some equal-sided, some needles, of several sizes [m]."""
    middles = rng.normal(size=(n, 1, 3)) * 0.01
    shapes = rng.normal(size=(n, 3, 3))
    shapes[::3, 2] = shapes[::3, 0] + 1e-4 * rng.normal(size=(len(shapes[::3]), 3))  # needles
    corners = middles + rng.choice(sizes, size=(n, 1, 1)) * shapes
    return TriangleSurface(corners.reshape(-1, 3), np.arange(3 * n).reshape(-1, 3))


@pytest.mark.parametrize("sizes", [[1e-3], [1e-4, 1e-3, 1e-2], [1e-5, 3e-2]])
def test_every_triangle_counts_whatever_its_size(sizes):
    rng = np.random.default_rng(len(sizes))
    surface = soup(rng, sizes, 120)
    points = rng.normal(size=(150, 3)) * 0.02
    exact = to_each_triangle(points, surface).min(axis=1)
    assert distance_to_surface(points, surface) == pytest.approx(exact, abs=1e-13)  # rounding of 0.1 m


def test_triangles_without_area_are_their_edges():
    corners = np.array([[0, 0, 0], [1, 0, 0], [3, 0, 0], [0, 2, 0], [0, 2, 0], [0, 2, 0.0]])
    surface = TriangleSurface(corners, np.array([[0, 1, 2], [3, 4, 5]]))
    points = np.array([[2.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [4.0, 0.0, 1.0], [0.5, 0.0, 0.0], [0.0, 3.0, 0.0]])
    assert distance_to_surface(points, surface) == pytest.approx([1.0, 1.0, 2**0.5, 0.0, 1.0], abs=1e-15)


def test_splitting_triangles_changes_no_distance():
    surface = synthetic.sphere_surface(0.01, n=16)
    points = np.random.default_rng(2).uniform(-0.03, 0.03, (500, 3))
    coarse = distance_to_surface(points, surface)
    assert distance_to_surface(points, refined(surface, 3e-4)) == pytest.approx(coarse, abs=1e-15)  # rounding


def test_from_the_middle_of_a_ball_all_of_it_is_near():
    """Far more vertices than are looked up at first lie within reach."""
    grid = synthetic.Grid.box((0.0, 0.0, 0.0), (24, 24, 24), 2e-3)
    surface = extract_surface(synthetic.LevelSet(grid, synthetic.sphere_level(grid, 0.02)))
    points = np.random.default_rng(3).normal(size=(20, 3)) * 1e-4
    exact = to_each_triangle(points[:3], surface).min(axis=1)
    assert distance_to_surface(points, surface)[:3] == pytest.approx(exact, abs=1e-15)  # rounding


def test_each_point_is_judged_by_itself():
    surface = synthetic.sphere_surface(0.01, n=16)
    points = np.random.default_rng(4).uniform(-0.03, 0.03, (2 * BLOCK + 17, 3))
    alone = distance_to_surface(points, surface)
    assert np.array_equal(alone[-5:], distance_to_surface(points[-5:], surface))
    assert distance_to_surface(points[:0], surface).shape == (0,)


def test_an_empty_surface_is_refused():
    nothing = TriangleSurface(np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int64))
    with pytest.raises(InputError, match="empty surface"):
        distance_to_surface(np.zeros((1, 3)), nothing)
