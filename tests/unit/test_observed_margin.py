"""Margins of observed masks against closed forms: balls, ellipsoids, shifted, eccentric, on thick slices."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from thermosim.anatomy.grid import Grid
from thermosim.errors import InputError
from thermosim.outcome.level_set import LevelSet, even_level_set
from thermosim.outcome.margin import margin_between
from thermosim.outcome.observed import ObservedShape, observed_margin, observed_shape, observed_shapes
from thermosim.outcome.surface import extract_surface, moments

THICK = (0.7e-3, 0.7e-3, 5e-3)


def grid_around(center, size, spacing, seed=0):
    """A grid whose cells have no special place relative to the centre."""
    spacing = np.asarray(spacing, float)
    shape = tuple(int(n) for n in np.ceil(size / spacing) + 2)
    offset = np.random.default_rng(seed).uniform(-0.5, 0.5, 3) * spacing
    origin = np.asarray(center) - 0.5 * (np.asarray(shape) - 1) * spacing + offset
    return Grid(shape, tuple(spacing), tuple(origin))


def cells(grid):
    return grid.points(np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1))


def ellipsoid(grid, center, radii):
    """Signed distance [m] to an ellipsoid near its surface, positive inside: f / |∇f|."""
    x = (cells(grid) - center) / radii
    f = np.linalg.norm(x, axis=-1)
    slope = np.linalg.norm(x / radii, axis=-1) / np.maximum(f, 1e-9)
    return (1.0 - f) / np.maximum(slope, 1e-9)


def exact_minimum(tumor_center, tumor_radii, zone_center, zone_radius):
    """Thinnest margin of an ellipsoid in a ball: R − max over the ellipsoid of |p − c|."""

    def negative(angles):
        t, p = angles
        ray = np.array([np.sin(t) * np.cos(p), np.sin(t) * np.sin(p), np.cos(t)])
        return -np.linalg.norm(tumor_center + tumor_radii * ray - zone_center)

    starts = [(t, p) for t in (0.4, 1.5, 2.7) for p in (0, 1.5, 3, 4.5)]
    return zone_radius + min(minimize(negative, start, method="Nelder-Mead").fun for start in starts)


TUMOR = (np.array([0.002, -0.001, 0.003]), np.array([0.011, 0.009, 0.010]))


def level_shape(values, grid, edge):
    """A shape from an exact level set instead of a mask."""
    level = even_level_set(LevelSet(grid, values.astype(np.float32)), edge)
    surface = extract_surface(level)
    return ObservedShape(level, surface, moments(surface)[0])


ZONES = (
    ((0.002, -0.001, 0.003), 0.020),
    ((0.005, -0.003, 0.001), 0.019),
    ((0.009, 0.002, 0.009), 0.012),  # eccentric: part of the tumour is left
    ((0.002, 0.001, 0.030), 0.012),  # apart
)


@pytest.mark.parametrize("shape", [(1.0, 1.0, 1.0), tuple(np.asarray(THICK) / 5e-3)])
def test_the_engine_converges_at_second_order(shape):
    """An ellipsoid in balls, both as exact level sets, on grids of one shape that are halved twice.

    The error of the thinnest margin, root mean square over four balls and two places of the grid: at
    one place alone the thinnest point falls between vertices by chance.
    """
    center, radii = TUMOR
    steps = (3e-3, 1.5e-3, 0.75e-3) if shape[0] == 1.0 else (5e-3, 2.5e-3, 1.25e-3)
    errors = []
    for step in steps:
        parts = []
        spacing = step * np.asarray(shape)
        for (middle, radius), seed in itertools.product(ZONES, range(2)):
            grids = [
                grid_around(c, 2 * np.max(r) + 3 * step, spacing, seed)
                for c, r in ((center, radii), (middle, radius))
            ]
            tumor = level_shape(ellipsoid(grids[0], center, radii), grids[0], step)
            ball = radius - np.linalg.norm(cells(grids[1]) - middle, axis=-1)
            zone = level_shape(ball, grids[1], step)
            found = margin_between(tumor.surface.points, zone.level, zone.surface).min()
            parts.append(found - exact_minimum(center, radii, np.asarray(middle), radius))
        errors.append(np.sqrt(np.mean(np.square(parts))))
    orders = np.log2(np.asarray(errors[:-1]) / errors[1:])
    assert np.log2(errors[0] / errors[2]) / 2 == pytest.approx(2.0, abs=0.3)
    assert np.all(orders > 1.3)
    assert errors[-1] < 0.02e-3


@pytest.mark.parametrize(
    ("spacing", "mean", "worst", "minimum"),
    [
        ((1e-3, 1e-3, 1e-3), 0.06e-3, 0.4e-3, 0.2e-3),
        ((0.7e-3, 0.7e-3, 1.25e-3), 0.06e-3, 0.45e-3, 0.12e-3),
        ((0.7e-3, 0.7e-3, 2.5e-3), 0.14e-3, 0.9e-3, 0.2e-3),
        (THICK, 0.5e-3, 2.4e-3, 0.5e-3),
    ],
)
def test_what_binary_masks_leave_open(spacing, mean, worst, minimum):
    """The limits are those of docs/numerics.md: rms, worst place and thinnest margin."""
    center, radii = TUMOR
    zone_center, zone_radius = np.array([0.004, -0.002, 0.002]), 0.019
    exact = exact_minimum(center, radii, zone_center, zone_radius)
    for seed in range(2):
        grids = [
            grid_around(c, 2 * np.max(r) + 0.01, spacing, seed)
            for c, r in ((center, radii), (zone_center, zone_radius))
        ]
        tumor, zone = observed_shapes(
            (ellipsoid(grids[0], center, radii) > 0, grids[0]),
            (np.linalg.norm(cells(grids[1]) - zone_center, axis=-1) < zone_radius, grids[1]),
        )
        margin = margin_between(tumor.surface.points, zone.level, zone.surface)
        wrong = margin - (zone_radius - np.linalg.norm(tumor.surface.points - zone_center, axis=1))
        assert np.sqrt(np.mean(wrong**2)) < mean
        assert np.abs(wrong).max() < worst
        assert abs(margin.min() - exact) < minimum
        # the volume of the voxels themselves, which is unbiased
        assert zone.volume == pytest.approx(4 / 3 * np.pi * zone_radius**3, rel=0.03)


def test_every_voxel_keeps_its_side():
    grid = Grid.box((0.0, 0.0, 0.0), (40, 40, 40), 1e-3)
    mask = np.linalg.norm(cells(grid), axis=-1) < 0.012
    mask[20, 20, 5:10] = True  # a spike one voxel thin
    shape = observed_shape(mask, grid, "tumour")
    values = shape.level.sample(cells(grid).reshape(-1, 3)).reshape(mask.shape)
    np.testing.assert_array_equal(values > 0, mask)


def test_residual_shells_and_statistics_of_balls():
    grid = Grid.box((0.0, 0.0, 0.0), (60, 60, 60), 1e-3)
    tumor, zone = observed_shapes(
        (np.linalg.norm(cells(grid), axis=-1) < 0.010, grid),
        (np.linalg.norm(cells(grid) - [0.006, 0, 0], axis=-1) < 0.010, grid),
    )
    found = observed_margin("tumor", tumor, zone)
    lens = np.pi * (4 * 0.010 + 0.006) * (2 * 0.010 - 0.006) ** 2 / 12
    whole = 4 / 3 * np.pi * 0.010**3
    assert found.residual_volume == pytest.approx(whole - lens, rel=0.02)
    assert found.all_around.minimum == pytest.approx(-0.006, abs=0.2e-3)
    # uncovered: x < −... where |p − s| > R: u < s / (2r) = 0.3 of the sphere's axis
    assert found.all_around.fraction_below[0] == pytest.approx((1 + 0.3) / 2, abs=0.02)
    big = observed_shape(np.linalg.norm(cells(grid), axis=-1) < 0.0155, grid, "zone")
    covered = observed_margin("tumor", tumor, big)
    for shell in (6, 10):
        outer = 0.010 + 1e-3 * shell
        expected = (0.0155**3 - 0.010**3) / (outer**3 - 0.010**3)
        assert covered.shell_coverage[shell] == pytest.approx(expected, abs=0.03)  # 0.1 mm of a mask


def test_the_capsule_is_the_livers_on_a_grid_of_its_own():
    grid = Grid.box((0.0, 0.0, 0.0), (60, 60, 60), 1e-3)
    coarse = Grid((40, 40, 20), (2e-3, 2e-3, 4e-3), (-0.039, -0.039, -0.038))
    liver = (cells(coarse)[..., 0] < 0.012, coarse)
    tumor, zone = observed_shapes(
        (np.linalg.norm(cells(grid), axis=-1) < 0.010, grid),
        (np.linalg.norm(cells(grid), axis=-1) < 0.016, grid),
    )
    found = observed_margin("tumor", tumor, zone, liver)
    inner = 0.012 - 0.005
    share = 1.0 - found.without_capsule.surface_area / found.all_around.surface_area
    assert share == pytest.approx((0.010 - inner) / 0.020, abs=0.06)  # a liver of 2 mm voxels
    assert found.shell_coverage[5] == pytest.approx(1.0, abs=0.01)


def test_empty_masks_are_refused():
    grid = Grid.box((0.0, 0.0, 0.0), (10, 10, 10), 1e-3)
    with pytest.raises(InputError, match="ablation zone is empty"):
        observed_shape(np.zeros(grid.shape, bool), grid, "ablation zone")


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    spacing=st.tuples(*(st.floats(0.8e-3, 3e-3) for _ in range(3))),
    angles=st.tuples(*(st.floats(-180, 180) for _ in range(3))),
    shift=st.tuples(*(st.floats(-0.5, 0.5) for _ in range(3))),
    mirrored=st.booleans(),
)
def test_the_margin_does_not_depend_on_the_frame(spacing, angles, shift, mirrored):
    """The same voxels in any orientation, left-handed ones included, at any place: the same margin."""
    masks = []
    for center, radius in (((0.0, 0.0, 0.0), 0.010), ((0.003, -0.001, 0.002), 0.016)):
        grid = grid_around(center, 2 * radius + 0.008, spacing)
        masks.append((np.linalg.norm(cells(grid) - center, axis=-1) < radius, grid))
    straight = observed_margin("tumor", *observed_shapes(*masks))
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.diag(
        [-1.0 if mirrored else 1.0, 1, 1]
    )
    moved = []
    for mask, grid in masks:
        origin = turn @ np.asarray(grid.origin) + np.asarray(shift)
        direction = tuple(tuple(float(x) for x in row) for row in turn)
        moved.append((mask, Grid(grid.shape, grid.spacing, tuple(float(x) for x in origin), direction)))
    again = observed_margin("tumor", *observed_shapes(*moved))
    # 1 µm: float32 level sets half a metre from the origin
    assert again.all_around.minimum == pytest.approx(straight.all_around.minimum, abs=1e-6)
    assert again.volume == pytest.approx(straight.volume, rel=1e-5)
    # the lattice for volumes is laid along the patient's axes: partial volumes differ a little
    assert again.shell_coverage[10] == pytest.approx(straight.shell_coverage[10], abs=0.01)


@pytest.mark.parametrize("case", range(9))
def test_nine_analytic_pairs_within_a_voxel(data_dir, case):
    expected = json.loads((data_dir / "margin" / "qam_expected_T01.json").read_text())[case]
    folder = Path(data_dir / "margin" / "qam_T01" / expected["case"])
    masks = []
    for what in ("Tumor", "Ablation"):
        image = nib.load(next(folder.glob(f"*_{what}.nii.gz")))
        grid = Grid(image.shape, tuple(1e-3 * float(z) for z in image.header.get_zooms()), (0.0, 0.0, 0.0))
        masks.append((np.asarray(image.dataobj) > 0, grid))
    tumor, zone = observed_shapes(*masks)
    margin = 1e3 * observed_margin("tumor", tumor, zone).margin
    # Expected are distances between voxel centres, so they may be off by one voxel.
    assert margin.min() == pytest.approx(expected["recomputed"]["min_distance"], abs=1.0)
    assert margin.max() == pytest.approx(expected["recomputed"]["max_distance"], abs=1.0)
