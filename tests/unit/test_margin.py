"""The ablative margin against closed forms and against analytic masks."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial import cKDTree

from thermosim.anatomy.grid import Grid
from thermosim.config import DamageConfig
from thermosim.errors import InputError
from thermosim.outcome.criteria import zone_level_set
from thermosim.outcome.level_set import LevelSet, smooth_level_set
from thermosim.outcome.margin import margin_between, margin_statistics, tumor_margin
from thermosim.outcome.surface import extract_surface

_spec = importlib.util.spec_from_file_location(
    "synthetic_result", Path(__file__).with_name("synthetic_result.py")
)
assert _spec is not None
assert _spec.loader is not None
synthetic = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(synthetic)

DAMAGE = DamageConfig()
TUMOR = synthetic.sphere_surface(0.010, n=32)


def level_on(spacing, radius, center, size=0.06):
    spacing = np.broadcast_to(spacing, 3)
    shape = tuple(int(np.ceil(size / h)) for h in spacing)
    origin = tuple(-0.5 * (n - 1) * h + 1.7e-4 for n, h in zip(shape, spacing, strict=True))
    grid = Grid(shape, tuple(float(h) for h in spacing), origin)
    return LevelSet(grid, synthetic.sphere_level(grid, radius, center))


def margin_of(result, name="tumor"):
    zone = zone_level_set(result, "arrhenius", DAMAGE, hot_blood_inside=True)
    return tumor_margin(result.anatomy, name, zone)


def box_result(radius, center=(0.0, 0.0, 0.0), n=50, spacing=1e-3, box=(0.0, 0.0, 0.0), **options):
    grid = Grid.box(box, (n, n, n), spacing)
    options.setdefault("tumors", {"tumor": TUMOR})
    return synthetic.synthetic_result(grid, synthetic.sphere_level(grid, radius, center), **options)


@pytest.mark.parametrize("spacing", [1e-3, (0.7e-3, 0.7e-3, 5e-3)])
@pytest.mark.parametrize(
    ("radius", "center"),
    [
        (0.018, (0.0, 0.0, 0.0)),
        (0.018, (0.003, -0.002, 0.004)),
        (0.012, (0.009, 0.0, -0.006)),
        (0.015, (0.0, 0.002, 0.028)),  # apart
    ],
)
def test_two_spheres(spacing, radius, center):
    """margin(p) = R − |p − c|, whether inside or outside."""
    margin = margin_between(TUMOR.points, level_on(spacing, radius, center, 0.09))
    expected = radius - np.linalg.norm(TUMOR.points - np.asarray(center), axis=1)
    # Linear between cells, the surface lies up to the chord's height h²/(8R) inside the sphere (0.01 mm,
    # 0.26 mm for slices of 5 mm), and in a cell's diagonal the other two directions add theirs.
    heights = np.sum(np.broadcast_to(spacing, 3) ** 2) / (8 * radius)
    assert np.abs(margin - expected).max() < 1.2 * heights


@pytest.mark.parametrize("ratio", [(1.0, 1.0, 1.0), (0.25, 0.25, 1.0)])
def test_the_margin_converges_at_second_order(ratio):
    center = (0.003, -0.002, 0.004)
    expected = 0.018 - np.linalg.norm(TUMOR.points - np.asarray(center), axis=1)
    errors = []
    steps = (4e-3, 2e-3, 1e-3) if ratio[0] == 1.0 else (5e-3, 2.5e-3)
    for h in steps:
        margin = margin_between(TUMOR.points, level_on(h * np.asarray(ratio), 0.018, center))
        errors.append(np.sqrt(np.mean((margin - expected) ** 2)))
    orders = np.log2(np.asarray(errors[:-1]) / errors[1:])
    assert np.all(np.abs(orders - 2.0) < 0.4)  # few cells across a radius at the coarse end


def test_an_ellipsoid_around_a_sphere():
    """The nearest point of the ellipsoid is found among a million points of it."""
    axes = np.asarray([0.024, 0.018, 0.015])
    grid = Grid.box((1e-4, 2e-4, 3e-4), (56, 44, 38), 1e-3)
    # Some smooth level set of the ellipsoid that is no distance.
    values = 1.0 - np.sum((synthetic.cell_points(grid) / axes) ** 2, axis=-1)
    zone = LevelSet(grid, values.astype(np.float32))
    points = TUMOR.points[::17]
    theta, phi = np.meshgrid(np.linspace(0, np.pi, 700), np.linspace(0, 2 * np.pi, 1400))
    surface = axes * np.stack(
        [np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=-1
    ).reshape(-1, 3)
    nearest, _ = cKDTree(surface).query(points)
    # Chords: h² κ/8 with κ up to 1/9.4 mm (and a level that is not linear): 0.03 mm.
    assert np.abs(margin_between(points, zone) - nearest).max() < 4e-5


def test_an_oblique_and_a_left_handed_grid_agree_with_a_straight_one():
    center = (0.003, -0.002, 0.004)
    expected = 0.018 - np.linalg.norm(TUMOR.points - np.asarray(center), axis=1)
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    for axes in (turn, turn @ np.diag([1.0, 1.0, -1.0])):
        direction = tuple(tuple(float(v) for v in row) for row in axes)
        origin = tuple(float(v) for v in axes @ (-0.5 * 1e-3 * np.full(3, 55)))
        grid = Grid((56, 56, 56), (1e-3, 1e-3, 1e-3), origin, direction)
        zone = LevelSet(grid, synthetic.sphere_level(grid, 0.018, center))
        assert np.abs(margin_between(TUMOR.points, zone) - expected).max() < 3e-5  # h²/(8R) = 0.01 mm


def test_a_masks_margin_is_sub_voxel():
    grid = level_on(1e-3, 0.018, (0, 0, 0)).grid
    zone = smooth_level_set(synthetic.sphere_level(grid, 0.018, (3e-4, -2e-4, 1e-4)) > 0, grid)
    margin = margin_between(TUMOR.points, zone)
    expected = 0.018 - np.linalg.norm(TUMOR.points - np.asarray((3e-4, -2e-4, 1e-4)), axis=1)
    # A mask's staircase is smoothed to 0.1 voxel on average; its flat poles keep up to half a voxel.
    assert np.sqrt(np.mean((margin - expected) ** 2)) < 0.2e-3
    assert abs(np.mean(margin - expected)) < 0.1e-3
    assert np.abs(margin - expected).max() < 0.5e-3


def test_statistics_of_an_eccentric_zone_in_closed_form():
    """On a sphere r shifted by s in R the margin's square root law gives the share of area below t.

    |p − c|² = r² + s² − 2 r s u with u uniform in (−1, 1) over the area.
    """
    r, s, radius = 0.010, 0.004, 0.016
    statistics = margin_of(box_result(radius, (s, 0, 0))).all_around
    assert statistics.minimum == pytest.approx(radius - r - s, abs=3e-5)  # h²/(8R) and vertices 0.8 mm apart

    assert statistics.fraction_below[0] == 0.0
    below = (1.0 + (r**2 + s**2 - (radius - 0.005) ** 2) / (2 * r * s)) / 2.0
    assert statistics.fraction_below[5] == pytest.approx(below, abs=0.01)  # vertices 1 mm apart on 20 mm
    assert statistics.fraction_below[10] == pytest.approx(1.0, abs=0.005)  # its largest margin is 10 mm
    for percent, value in statistics.percentiles.items():
        u = 2.0 * percent / 100.0 - 1.0  # u = −1 lies where the margin is smallest
        expected = radius - np.sqrt(r**2 + s**2 - 2 * r * s * u)
        assert value == pytest.approx(expected, abs=1e-4)  # a tenth of a cell
    assert statistics.surface_area == pytest.approx(4 * np.pi * r**2, rel=0.01)


def test_a_margin_on_a_flat_triangle_has_its_exact_shares():
    triangle = synthetic.TriangleSurface(np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0.0]]), np.array([[0, 1, 2]]))
    statistics = margin_statistics(triangle, np.array([-0.01, 0.01, 0.01]), np.ones(3, dtype=bool))
    assert statistics.fraction_below[0] == pytest.approx(0.25)  # a corner of half the edges
    assert statistics.fraction_below[5] == pytest.approx(0.5625)  # three quarters of the edges
    assert statistics.fraction_below[10] == pytest.approx(1.0)
    flat = margin_statistics(triangle, np.full(3, 0.005), np.ones(3, dtype=bool))
    assert flat.fraction_below == {0: 0.0, 5: 0.0, 10: 1.0}  # strictly below


def test_coverage_residual_and_shells_of_concentric_spheres():
    covered = margin_of(box_result(0.0155))
    assert covered.residual_volume == 0.0
    assert covered.coverage == 1.0
    assert covered.shell_coverage[5] == pytest.approx(1.0, abs=1e-3)  # the zone ends 0.5 mm beyond
    for shell in (6, 10):
        outer = 0.010 + 1e-3 * shell
        expected = (0.0155**3 - 0.010**3) / (outer**3 - 0.010**3)
        # The surface of the zone is known to 0.01 mm; partial volumes of 1 mm cells by planes.
        assert covered.shell_coverage[shell] == pytest.approx(expected, abs=0.006)
    assert covered.volume == pytest.approx(4 / 3 * np.pi * 0.010**3, rel=0.005)  # chords of the mesh

    small = margin_of(box_result(0.008))
    assert small.coverage == pytest.approx(0.8**3, abs=0.006)
    assert small.residual_volume == pytest.approx((1 - 0.8**3) * small.volume, rel=0.01)
    assert small.all_around.minimum == pytest.approx(-0.002, abs=5e-5)
    assert small.all_around.fraction_below[0] == 1.0


def test_residual_of_a_shifted_sphere_in_closed_form():
    """Volume common to two spheres of radius R at distance d: π (4R + d)(2R − d)² / 12."""
    d, radius = 0.006, 0.010
    shifted = margin_of(box_result(radius, (d, 0, 0)))
    lens = np.pi * (4 * radius + d) * (2 * radius - d) ** 2 / 12
    assert shifted.coverage == pytest.approx(lens / (4 / 3 * np.pi * radius**3), abs=0.006)
    assert shifted.thinnest_point == pytest.approx([-radius, 0, 0], abs=1e-3)  # the vertices' spacing


def test_the_capsule_is_the_livers_surface_not_the_boxs():
    n, spacing = 50, 1e-3
    grid = Grid.box((0.0, 0.0, 0.0), (n, n, n), spacing)
    x = synthetic.cell_points(grid)[..., 0]
    cut = margin_of(box_result(0.017, liver_mask=x < 0.011))
    inner = 0.011 - 0.005  # x beyond which the capsule is near: a cap of the tumour's sphere
    share = (0.010 - inner) / (2 * 0.010)
    area = 1.0 - cut.without_capsule.surface_area / cut.all_around.surface_area
    assert area == pytest.approx(share, abs=0.03)  # rows of vertices 1 mm apart on 20 mm
    assert np.all(cut.near_capsule[cut.surface.points[:, 0] > inner + 2e-4])
    assert not np.any(cut.near_capsule[cut.surface.points[:, 0] < inner - 2e-4])
    # The liver fills this box, whose face lies 3 mm beyond the tumour: no capsule.
    full = margin_of(box_result(0.017, box=(0.012, 0.0, 0.0)))
    assert not full.near_capsule.any()
    # Shells count inside the liver only: the zone cut at the capsule still covers them.
    assert cut.shell_coverage[5] == pytest.approx(1.0, abs=1e-3)
    everywhere = margin_of(box_result(0.017, liver_mask=x < -0.012))
    assert everywhere.near_capsule.all()
    assert everywhere.without_capsule is None


def test_a_tumours_surroundings_are_remembered_with_its_anatomy_alone():
    """Runs on one anatomy find what each finds alone; another anatomy has its own."""
    x = synthetic.cell_points(Grid.box((0.0, 0.0, 0.0), (50, 50, 50), 1e-3))[..., 0]
    wide, narrow = (box_result(radius, liver_mask=x < 0.011) for radius in (0.0155, 0.009))
    shared = [margin_of(replace(run, anatomy=wide.anatomy)) for run in (wide, narrow)]
    for one, alone in zip(shared, (margin_of(wide), margin_of(narrow)), strict=True):
        assert np.array_equal(one.margin, alone.margin)
        assert np.array_equal(one.near_capsule, alone.near_capsule)
        assert one.shell_coverage == alone.shell_coverage
        assert one.coverage == alone.coverage
    assert shared[0].coverage > shared[1].coverage
    elsewhere = replace(wide.anatomy, liver_mask=x < 0.02)
    assert not margin_of(replace(wide, anatomy=elsewhere)).near_capsule.all()
    assert margin_of(replace(wide, anatomy=elsewhere)).near_capsule.sum() < shared[0].near_capsule.sum()


def test_no_ablation_never_passes_for_success():
    none = margin_of(box_result(-0.02))
    assert none.all_around.minimum == pytest.approx(-0.020, rel=0.03)  # the tumour's extent, by directions
    assert none.all_around.fraction_below == {0: 1.0, 5: 1.0, 10: 1.0}
    assert none.residual_volume == none.volume
    assert none.coverage == 0.0
    assert none.shell_coverage == {5: 0.0, 6: 0.0, 10: 0.0}
    json.dumps([none.all_around.minimum, none.all_around.percentiles], allow_nan=False)


def test_blood_in_the_tumour_is_neither_alive_nor_counted():
    grid = Grid.box((0.0, 0.0, 0.0), (50, 50, 50), 1e-3)
    points = synthetic.cell_points(grid)
    wall = np.hypot(points[..., 0] - 0.010, points[..., 1]) - 0.003
    wet = margin_of(box_result(0.016, lumens=[("portal_vein", wall)]))
    # Hot blood at rest is no gap in the zone.
    assert wet.coverage == pytest.approx(1.0, abs=1e-3)
    assert wet.all_around.minimum == pytest.approx(0.006, abs=5e-5)
    assert wet.all_around.surface_area < 0.98 * 4 * np.pi * 0.010**2
    cold = box_result(0.016, lumens=[("portal_vein", wall)])
    cold.damage_integral[wall < 0] = 0.1
    cooled = margin_of(cold)
    # Cold blood cuts the zone at its wall, where the tumour's surface meets it: no margin there.
    assert cooled.all_around.minimum < 1e-3
    assert cooled.coverage > 0.97  # a rim of living tissue thinner than a cell along the wall
    assert cooled.coverage < 1.0


def test_a_zone_cut_by_the_box_ends_there():
    cut = margin_of(box_result(0.030, box=(0.013, 0.0, 0.0)))  # the face lies at x = −12 mm
    assert cut.all_around.minimum == pytest.approx(0.002, abs=2e-5)


def test_tumors_out_of_the_ordinary_are_refused():
    result = box_result(0.016)
    with pytest.raises(InputError, match="no tumour 'other'"):
        margin_of(result, "other")
    inverted = synthetic.TriangleSurface(TUMOR.points, TUMOR.triangles[:, ::-1])
    with pytest.raises(InputError, match="outward normals"):
        margin_of(box_result(0.016, tumors={"tumor": inverted}))
    with pytest.raises(InputError, match="finite"):
        margin_between(np.full((2, 3), np.nan), None)


@pytest.mark.parametrize("case", range(9))
def test_nine_analytic_pairs_within_a_voxel(data_dir, case):
    expected = json.loads((data_dir / "margin" / "qam_expected_T01.json").read_text())[case]
    folder = data_dir / "margin" / "qam_T01" / expected["case"]
    levels = []
    for what in ("Tumor", "Ablation"):
        image = nib.load(next(folder.glob(f"*_{what}.nii.gz")))
        grid = Grid(image.shape, tuple(1e-3 * float(z) for z in image.header.get_zooms()), (0.0, 0.0, 0.0))
        levels.append(smooth_level_set(np.asarray(image.dataobj) > 0, grid))
    margin = 1e3 * margin_between(extract_surface(levels[0]).points, levels[1])
    # The expected values are distances between voxel centres, so they may be off by one voxel.
    assert margin.min() == pytest.approx(expected["recomputed"]["min_distance"], abs=1.0)
    assert margin.max() == pytest.approx(expected["recomputed"]["max_distance"], abs=1.0)
