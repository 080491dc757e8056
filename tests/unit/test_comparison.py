"""Predicted against observed zones, by closed forms of spheres and ellipsoids."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from thermosim.anatomy.grid import Grid
from thermosim.errors import InputError
from thermosim.outcome.comparison import compare_margins, compare_zones, side_in_words
from thermosim.outcome.level_set import LevelSet, smooth_level_set

_spec = importlib.util.spec_from_file_location(
    "synthetic_result", Path(__file__).with_name("synthetic_result.py")
)
assert _spec is not None
assert _spec.loader is not None
synthetic = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(synthetic)

R_PREDICTED, R_OBSERVED = 0.014, 0.012
SHIFT = np.array([0.0032, -0.0026, 0.004])


def ball(spacing, radius, center=(0.0, 0.0, 0.0), size=0.05, offset=1.7e-4):
    """A ball on a grid that does not know its centre."""
    steps = np.broadcast_to(spacing, 3)
    shape = tuple(int(np.ceil(size / h)) for h in steps)
    origin = tuple(-0.5 * (n - 1) * h + offset for n, h in zip(shape, steps, strict=True))
    grid = Grid(shape, tuple(float(h) for h in steps), origin)
    return LevelSet(grid, synthetic.sphere_level(grid, radius, center))


def lens(r, s, d):
    """Volume that two balls of radii r and s, d apart, share."""
    return np.pi * (r + s - d) ** 2 * (d**2 + 2 * d * (r + s) - 3 * (r - s) ** 2) / (12 * d)


def sphere_volume(r):
    return 4.0 / 3.0 * np.pi * r**3


def on_sphere(radius, n=200_000):
    """Points evenly over a sphere."""
    steps = np.arange(n) + 0.5
    height, turn = 1.0 - 2.0 * steps / n, np.pi * (1.0 + 5.0**0.5) * steps
    ring = np.sqrt(1.0 - height**2)
    return radius * np.column_stack([ring * np.cos(turn), ring * np.sin(turn), height])


def expected_of_spheres():
    d = np.linalg.norm(SHIFT)
    shared = lens(R_PREDICTED, R_OBSERVED, d)
    there = R_PREDICTED - np.linalg.norm(on_sphere(R_OBSERVED) - SHIFT, axis=1)
    back = np.linalg.norm(on_sphere(R_PREDICTED) + SHIFT, axis=1) - R_OBSERVED
    return shared, there, back


@pytest.mark.parametrize("spacing", [1e-3, (0.7e-3, 0.7e-3, 2.5e-3)])
def test_two_spheres(spacing):
    found = compare_zones(ball(1e-3, R_PREDICTED, SHIFT, offset=3e-4), ball(spacing, R_OBSERVED))
    shared, there, back = expected_of_spheres()
    volumes = sphere_volume(R_PREDICTED), sphere_volume(R_OBSERVED)
    # chords of linear interpolation take h²/(8R) off each radius and direction: 0.02 mm, thick slices 0.07 mm
    height = np.sum(np.broadcast_to(spacing, 3) ** 2) / (8 * R_OBSERVED) + 3e-6 / (8 * R_PREDICTED)
    assert found.dice == pytest.approx(2 * shared / sum(volumes), abs=height / R_OBSERVED)
    assert found.jaccard == pytest.approx(shared / (sum(volumes) - shared), abs=1.5 * height / R_OBSERVED)
    assert found.volume_error == pytest.approx(volumes[0] - volumes[1], rel=0.15)
    assert found.missed_volume == pytest.approx(volumes[1] - shared, abs=4 * height * R_OBSERVED**2 * 4)
    assert found.center_shift == pytest.approx(SHIFT, abs=2e-5)
    for one, expected in ((found.from_observed, there), (found.from_predicted, back)):
        assert one.mean == pytest.approx(np.abs(expected).mean(), abs=height)
        assert one.signed_mean == pytest.approx(expected.mean(), abs=height)
        assert one.rms == pytest.approx(np.sqrt(np.mean(expected**2)), abs=height)
        assert one.maximum == pytest.approx(np.abs(expected).max(), abs=1.5 * height)
        assert one.percentile_95 == pytest.approx(np.quantile(np.abs(expected), 0.95), abs=1.5 * height)
    assert found.hausdorff == pytest.approx(2e-3 + np.linalg.norm(SHIFT), abs=1.5 * height)
    # farthest where the shift points to: left, anterior and superior
    assert found.farthest.side == "superior, left and anterior"
    assert found.shortest.side == "inferior, right and posterior"
    along = found.farthest.point / np.linalg.norm(found.farthest.point)
    assert along @ SHIFT / np.linalg.norm(SHIFT) > 0.99
    sides = {side.side: side for side in found.sides}
    assert sides["superior"].mean > 4e-3
    assert sides["inferior"].mean < 0.0
    assert sum(side.area_share for side in found.sides) == pytest.approx(1.0)


@pytest.mark.parametrize("ratio", [(1.0, 1.0, 1.0), (0.5, 0.5, 1.5)])
def test_order_of_convergence(ratio):
    """Second order in the spacing of overlap, volume and distances."""
    shared, there, _ = expected_of_spheres()
    volumes = sphere_volume(R_PREDICTED), sphere_volume(R_OBSERVED)
    errors = []
    for h in (3e-3, 1.5e-3, 0.75e-3):
        steps = h * np.asarray(ratio)
        found = compare_zones(ball(steps, R_PREDICTED, SHIFT, offset=3e-4), ball(steps, R_OBSERVED))
        errors.append(
            [
                found.dice - 2 * shared / sum(volumes),
                found.observed_volume / volumes[1] - 1.0,
                (found.from_observed.rms - np.sqrt(np.mean(there**2))) / R_OBSERVED,
            ]
        )
    # over both halvings together: where surfaces cross in few cells single ones scatter
    orders = 0.5 * np.log2(np.abs(errors[0]) / np.abs(errors[-1]))
    assert np.all(orders > 1.6)
    assert np.abs(errors[-1]).max() < 5e-3


def test_levels_of_any_unit_overlap_alike():
    """ln Ω of a run beside metres of a mask: the same surfaces, so the same intersection."""
    predicted, observed = ball(1e-3, R_PREDICTED, SHIFT), ball(1e-3, R_OBSERVED)
    steep = LevelSet(predicted.grid, np.maximum(1e3 * predicted.values, np.float32(-12.0)))
    one, other = compare_zones(steep, observed), compare_zones(predicted, observed)
    shared = expected_of_spheres()[0]
    assert one.dice == pytest.approx(other.dice, abs=1e-4)
    expected = 2 * shared / (sphere_volume(R_PREDICTED) + sphere_volume(R_OBSERVED))
    assert one.dice == pytest.approx(expected, abs=2e-3)


def test_a_zone_equals_itself():
    zone = ball(1e-3, R_OBSERVED)
    found = compare_zones(zone, zone)
    assert (found.dice, found.jaccard) == (1.0, 1.0)
    assert found.hausdorff < 1e-5  # a hundredth of a cell: the surface that is sampled is thinned
    assert found.within[1] == pytest.approx(1.0)
    assert abs(found.volume_error) < 1e-15


def test_an_ellipsoid_seen_where_a_sphere_was_predicted():
    """From the ellipsoid the distance to a concentric sphere is |p| − R; the sphere lies inside."""
    axes = np.array([0.020, 0.016, 0.014])
    radius = 0.012
    grid = Grid.box((1e-4, 2e-4, 3e-4), (46, 38, 34), 1e-3)
    level = 1.0 - np.sum((synthetic.cell_points(grid) / axes) ** 2, axis=-1)
    found = compare_zones(ball(1e-3, radius), LevelSet(grid, level.astype(np.float32)))
    points = on_sphere(1.0)
    # area of the ellipsoid per area of the unit sphere: abc |n / axes|
    weights = np.linalg.norm(points / axes, axis=1)
    difference = radius - np.linalg.norm(points * axes, axis=1)
    assert found.from_observed.signed_mean == pytest.approx(np.average(difference, weights=weights), abs=3e-5)
    assert found.shortest.difference == pytest.approx(radius - 0.020, abs=3e-5)
    assert found.shortest.side in ("left", "right")
    volume = 4 / 3 * np.pi * np.prod(axes)
    assert found.dice == pytest.approx(2 * sphere_volume(radius) / (sphere_volume(radius) + volume), abs=2e-3)
    assert found.excess_volume == pytest.approx(0.0, abs=1e-9)
    assert found.missed_volume == pytest.approx(volume - sphere_volume(radius), rel=5e-3)


def test_an_oblique_mask_is_compared_in_the_same_space():
    """A mask of an oblique image: same answer as the analytic field, within its own staircase."""
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    direction = tuple(tuple(float(v) for v in row) for row in turn)
    origin = tuple(float(v) for v in turn @ (-0.5e-3 * np.full(3, 45)))
    grid = Grid((46, 46, 46), (1e-3, 1e-3, 1e-3), origin, direction)
    mask = synthetic.sphere_level(grid, R_OBSERVED) > 0
    found = compare_zones(ball(1e-3, R_PREDICTED, SHIFT), smooth_level_set(mask, grid))
    exact = compare_zones(ball(1e-3, R_PREDICTED, SHIFT), ball(1e-3, R_OBSERVED))
    assert found.dice == pytest.approx(exact.dice, abs=5e-3)
    assert found.from_observed.mean == pytest.approx(exact.from_observed.mean, abs=1e-4)
    assert found.hausdorff == pytest.approx(exact.hausdorff, abs=5e-4)  # half a voxel at a mask's poles


def test_margins_of_a_tumor_in_both_zones():
    """Concentric tumour and zones shifted by d: minimum R − d − r, falsely safe where only one has 5 mm."""
    tumor = synthetic.sphere_surface(0.008, n=30)
    found = compare_margins("tumor", tumor, ball(1e-3, 0.016), ball(1e-3, 0.014, (0.0, 0.0, 0.004)), 1e-3)
    assert found.predicted.minimum == pytest.approx(0.008, abs=4e-5)
    assert found.observed.minimum == pytest.approx(0.002, abs=4e-5)
    assert found.minimum_error == pytest.approx(0.006, abs=8e-5)
    # observed margin 14 mm − |p − c| < 5 mm where |p − c| > 9 mm: cos θ < (64 + 16 − 81)/64
    assert found.falsely_safe[5] == pytest.approx(0.5 * (1 - 1 / 64), abs=0.01)
    assert found.falsely_safe[0] == 0.0
    nothing = compare_margins("tumor", tumor, None, ball(1e-3, 0.014), 1e-3)
    assert nothing.predicted.minimum < -0.015
    with pytest.raises(InputError, match="encloses"):
        compare_margins("leaf", ball_inside_out(tumor), ball(1e-3, 0.016), ball(1e-3, 0.014), 1e-3)


def ball_inside_out(surface):
    return type(surface)(surface.points, surface.triangles[:, ::-1])


def test_zones_that_lie_apart_are_refused_by_name():
    there = np.array([0.06, 0.04, 0.02])

    def moved(center):
        grid = Grid.box(tuple(center), (30, 30, 30), 1e-3)
        return LevelSet(grid, synthetic.sphere_level(grid, 0.01, center))

    with pytest.raises(InputError, match=r"do not overlap .* swapped \(RAS taken for LPS\)"):
        compare_zones(moved(there), moved(there * [-1, -1, 1]))
    with pytest.raises(InputError, match="has left and right swapped"):
        compare_zones(moved(there), moved(there * [-1, 1, 1]))
    with pytest.raises(InputError, match="register the observation first"):
        compare_zones(moved(there), moved(there + 0.03))
    with pytest.raises(InputError, match="share no volume"):  # boxes overlap at a corner
        compare_zones(moved(there), moved(there + 0.013))
    empty = smooth_level_set(np.zeros((5, 5, 5), dtype=bool), Grid.box((0, 0, 0), (5, 5, 5), 1e-3))
    with pytest.raises(InputError, match="observed zone is empty"):
        compare_zones(moved(there), empty)


def test_words_for_sides():
    assert side_in_words(np.array([0.0, 0.0, -1.0])) == "inferior"
    assert side_in_words(np.array([0.0, 0.0, 0.0])) == ""
