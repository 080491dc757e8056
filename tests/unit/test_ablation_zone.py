"""Size and shape of ablation zones against closed forms."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from thermosim.anatomy.grid import Grid
from thermosim.config import DamageConfig
from thermosim.errors import InputError, NumericalError
from thermosim.outcome.ablation_zone import ablation_zone, zone_from_level_set
from thermosim.outcome.criteria import CRITERIA, level_set, zone_level_set
from thermosim.outcome.level_set import LevelSet, bounding_region, dilated, region_in, smooth_level_set
from thermosim.outcome.surface import (
    extract_surface,
    moments,
    refined,
    triangle_areas,
    vertex_areas,
)

_spec = importlib.util.spec_from_file_location(
    "synthetic_result", Path(__file__).with_name("synthetic_result.py")
)
assert _spec is not None
assert _spec.loader is not None
synthetic = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(synthetic)

DAMAGE = DamageConfig()
OFF_CENTER = (1.3e-4, -2.1e-4, 3.7e-4)  # no symmetry with the cells


def sphere_result(spacing, radius=0.015, size=0.044, **options):
    n = round(size / spacing)
    grid = Grid.box(OFF_CENTER, (n, n, n), spacing)
    return synthetic.synthetic_result(grid, synthetic.sphere_level(grid, radius), **options)


def is_closed(surface):
    edges = np.sort(surface.triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    return bool((np.unique(edges, axis=0, return_counts=True)[1] == 2).all())


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_sphere_has_its_volume_axes_and_sphericity(criterion):
    # Thresholds other than the synthetic one move the surface: ln 4.6 per mm slope, 60 °C − threshold.
    radius = {"arrhenius_99": 0.015 - 1e-3 * np.log(4.6), "isotherm_50": 0.025, "isotherm_54": 0.021}.get(
        criterion, 0.015
    )
    zone = ablation_zone(sphere_result(1e-3, size=0.06), criterion, DAMAGE)
    # Chords of 1 mm cells cut 0.26 % off a 15 mm sphere (h²/R²-law); the smallest here has 13.5 mm.
    assert zone.volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.005)
    for axis in (zone.long_axis, zone.middle_axis, zone.short_axis):
        assert axis == pytest.approx(2 * radius, abs=1e-4)  # a tenth of a cell
    assert zone.sphericity == pytest.approx(1.0, abs=0.002)
    assert not zone.touches_box
    assert is_closed(zone.surface)


@pytest.mark.parametrize("tip", [-0.004, 0.0, 0.021])
def test_distance_beyond_the_tip_of_a_needle(tip):
    """A ball of 15 mm and a needle through its centre whose metal ends `tip` from it."""
    axis = np.array([0.6, 0.0, 0.8])
    needle = synthetic.needle(tuple(tip * axis), tuple((tip + 0.08) * axis))
    aside = synthetic.needle((0.0, 0.02, 0.0), (0.0, 0.02, 0.08))
    result = sphere_result(1e-3, electrodes=(needle, replace(aside, name="aside")))
    distances = ablation_zone(result, "arrhenius", DAMAGE).distance_beyond_tips
    # the level is the distance itself, which bends by h²/8R = 8 µm within a cell
    assert distances["needle"] == pytest.approx(0.015 + tip, abs=2e-5)
    assert np.isnan(distances["aside"])


def test_without_a_zone_no_needle_has_a_distance():
    zone = zone_from_level_set(None, "arrhenius", "none", electrodes=(synthetic.needle(),))
    assert list(zone.distance_beyond_tips) == ["needle"]
    assert np.isnan(zone.distance_beyond_tips["needle"])


def test_volume_converges_at_second_order():
    errors = [
        abs(ablation_zone(sphere_result(h), "arrhenius", DAMAGE).volume / (4 / 3 * np.pi * 0.015**3) - 1)
        for h in (2e-3, 1e-3)
    ]
    order = np.log2(errors[0] / errors[1])
    assert order == pytest.approx(2.0, abs=0.2)  # how the cells lie changes the constant a little


def test_a_dose_that_varies_over_decades_per_cell_keeps_its_place():
    # Four decades of Ω per cell: linear interpolation of Ω itself would be off by half a cell.
    zone = ablation_zone(sphere_result(1e-3, slope=4 * np.log(10)), "arrhenius", DAMAGE)
    assert zone.volume == pytest.approx(4 / 3 * np.pi * 0.015**3, rel=0.005)


def test_an_ellipsoid_in_a_turned_frame_has_its_axes():
    axes = np.asarray([0.018, 0.012, 0.008])
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    grid = Grid.box(OFF_CENTER, (42, 42, 42), 1e-3)
    body = synthetic.cell_points(grid) @ turn / axes
    level = LevelSet(grid, ((1.0 - np.linalg.norm(body, axis=-1)) * 0.01).astype(np.float32))
    zone = zone_from_level_set(level, "arrhenius", "")
    # Extents at the pointed ends lose up to h²κ/8 = 0.03 mm at each.
    assert (zone.long_axis, zone.middle_axis, zone.short_axis) == pytest.approx(tuple(2 * axes), abs=2e-4)
    assert zone.volume == pytest.approx(4 / 3 * np.pi * axes.prod(), rel=0.01)  # 8 mm radius: h²/R²
    p = 1.6075  # Thomsen's area of an ellipsoid, within 1.1 %
    a, b, c = axes
    area = 4 * np.pi * (((a * b) ** p + (a * c) ** p + (b * c) ** p) / 3) ** (1 / p)
    expected = np.pi ** (1 / 3) * (6 * zone.volume) ** (2 / 3) / area
    assert zone.sphericity == pytest.approx(expected, abs=0.015)


def test_no_dead_tissue_is_an_empty_zone():
    zone = ablation_zone(sphere_result(1e-3, radius=-0.02), "arrhenius", DAMAGE)
    assert zone.volume == zone.long_axis == zone.short_axis == zone.sphericity == 0.0
    assert len(zone.surface.triangles) == 0
    assert not zone.touches_box


def test_a_zone_cut_by_the_box_is_closed_on_its_faces():
    grid = Grid.box((0.015, 0.0, 0.0), (30, 40, 40), 1e-3)  # the face x = 0 halves the sphere
    zone = ablation_zone(
        synthetic.synthetic_result(grid, synthetic.sphere_level(grid, 0.0152)), "arrhenius", DAMAGE
    )
    assert zone.touches_box
    assert is_closed(zone.surface)
    assert zone.surface.points[:, 0].min() == pytest.approx(0.0, abs=1e-8)
    assert zone.volume == pytest.approx(2 / 3 * np.pi * 0.0152**3, rel=0.006)  # rim edge and h²/R²


def test_metal_inside_counts_and_garbage_in_it_does_not_matter():
    plain = sphere_result(1e-3)
    away = synthetic.cell_points(plain.anatomy.grid)
    metal = (np.hypot(away[..., 0], away[..., 1]) < 0.0016) & (away[..., 2] > -0.005)
    spoilt = plain.damage_integral.copy()
    spoilt[metal] = 0.0
    spoilt[tuple(np.argwhere(metal)[0])] = np.nan
    with_metal = replace(plain, solid_mask=metal, damage_integral=spoilt)
    zone = ablation_zone(with_metal, "arrhenius", DAMAGE)
    # The rod leaves the zone through its surface: there the filled values are one cell off at most.
    assert zone.volume == pytest.approx(ablation_zone(plain, "arrhenius", DAMAGE).volume, rel=1e-3)
    without = level_set(replace(plain, damage_integral=np.where(metal, 0, spoilt)), "arrhenius", DAMAGE)
    assert (without > 0).sum() < (level_set(with_metal, "arrhenius", DAMAGE) > 0).sum() - 100


def test_blood_is_never_ablated():
    # Blood that is as hot as the tissue, in a straight vessel of 4 mm radius through the middle.
    radius, tube = 0.015, 0.004
    plain = sphere_result(1e-3, radius)
    points = synthetic.cell_points(plain.anatomy.grid)
    wall = np.hypot(points[..., 0] - 0.0004, points[..., 1]) - tube
    result = sphere_result(1e-3, radius, lumens=[("portal_vein", wall)])
    through = 4 / 3 * np.pi * (radius**3 - (radius**2 - tube**2) ** 1.5)  # napkin ring, 0.4 mm aside
    zone = ablation_zone(result, "arrhenius", DAMAGE)
    # Chords of a 4 mm tube: 0.7 % of its 1.4 ml, and the two rims where the surfaces meet.
    assert zone.volume == pytest.approx(4 / 3 * np.pi * radius**3 - through, rel=0.01)
    hot = zone_level_set(result, "arrhenius", DAMAGE, hot_blood_inside=True)
    assert moments(extract_surface(hot))[0] == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.005)


def test_regions_of_masks_are_tight_and_stay_in_the_box():
    mask = np.zeros((9, 11, 13), dtype=bool)
    assert bounding_region(mask) is None
    mask[1, 7, 12] = mask[4, 5, 9] = True
    assert bounding_region(mask, 0) == (slice(1, 5), slice(5, 8), slice(9, 13))
    assert bounding_region(mask, 2) == (slice(0, 7), slice(3, 10), slice(7, 13))
    grid = Grid.box(OFF_CENTER, mask.shape, 1e-3)
    level = zone_level_set(sphere_result(1e-3), "arrhenius", DAMAGE)
    whole = level_set(sphere_result(1e-3), "arrhenius", DAMAGE)
    assert np.array_equal(whole[region_in(level.grid, sphere_result(1e-3).anatomy.grid)], level.values)
    assert region_in(grid, grid) == tuple(slice(0, n) for n in mask.shape)


def test_a_mask_grows_to_all_its_neighbours():
    mask = np.random.default_rng(4).random((7, 1, 12)) < 0.1
    assert np.array_equal(dilated(mask), ndimage.binary_dilation(mask, np.ones((3, 3, 3))))
    mask = np.random.default_rng(5).random((9, 8, 7)) < 0.02
    assert np.array_equal(dilated(mask), ndimage.binary_dilation(mask, np.ones((3, 3, 3))))


def test_refusals():
    result = sphere_result(2e-3)
    with pytest.raises(InputError, match="not one of"):
        ablation_zone(result, "isotherm_42", DAMAGE)
    broken = result.thermal_dose.copy()
    broken[10, 11, 12] = np.nan
    with pytest.raises(NumericalError, match=r"\(10, 11, 12\)"):
        level_set(replace(result, thermal_dose=broken), "cem43", DAMAGE)


@pytest.mark.parametrize("radius", [5.0, 10.0, 15.0])
def test_a_binary_sphere_becomes_smooth(radius):
    rng = np.random.default_rng(int(radius))
    center = rng.uniform(-0.5, 0.5, 3)
    n = int(2 * radius) + 5
    grid = Grid.box((0.0, 0.0, 0.0), (n, n, n), 1.0)
    mask = synthetic.sphere_level(grid, radius, center) > 0
    surface = extract_surface(smooth_level_set(mask, grid))
    error = np.linalg.norm(surface.points - center, axis=1) - radius
    assert np.sqrt((error**2).mean()) < 0.25  # voxels; the staircase itself has up to 0.5 and more
    assert abs(error.mean()) < 0.1
    assert np.abs(error).max() < 0.6  # the flat poles of the mask hold no more than half a voxel


def test_a_binary_sphere_of_thick_slices_becomes_smooth():
    spacing, center = (0.95, 0.95, 3.75), np.array([0.3, -0.2, 1.1])
    grid = Grid((40, 40, 11), spacing, (-18.5, -18.5, -18.75))
    mask = synthetic.sphere_level(grid, 15.0, center) > 0
    surface = extract_surface(smooth_level_set(mask, grid))
    error = np.linalg.norm(surface.points - center, axis=1) - 15.0
    # A slice hides up to half of itself, 1.9 mm, at the poles; elsewhere a quarter of a pixel remains.
    assert np.sqrt((error**2).mean()) < 0.15 * 3.75
    assert np.abs(error).max() < 0.5 * 3.75


def test_refined_surfaces_keep_shape_and_stay_closed():
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]]) * 0.02
    tetrahedron = synthetic.TriangleSurface(corners, np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]))
    fine = refined(tetrahedron, 0.0015)
    sides = fine.points[fine.triangles]
    assert np.linalg.norm(sides - np.roll(sides, 1, axis=1), axis=2).max() <= 0.0015
    assert is_closed(fine)
    assert moments(fine)[0] == pytest.approx(0.02**3 / 6, rel=1e-12)  # round-off: flat faces stay flat
    assert triangle_areas(fine).sum() == pytest.approx(triangle_areas(tetrahedron).sum(), rel=1e-12)
    assert vertex_areas(fine).sum() == pytest.approx(triangle_areas(fine).sum(), rel=1e-12)
