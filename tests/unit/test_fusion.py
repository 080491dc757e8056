"""Fusion of two CTs: known motions come back, and what cannot be right is refused."""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from thermosim.errors import InputError
from thermosim.outcome.fusion import Limits, assess_fusion, brought_before, dice
from thermosim.outcome.landmarks import Landmarks, motion_of_landmarks, read_landmarks
from thermosim.outcome.observed import observed_shape
from thermosim.outcome.registration import (
    Image,
    Motion,
    deformable_motion,
    no_motion,
    resampled,
    rigid_motion,
)

CASE = runpy.run_path(str(Path(__file__).with_name("fusion_case.py")))
BEFORE, AFTER, LIVER_CENTER = CASE["BEFORE"], CASE["AFTER"], CASE["LIVER_CENTER"]
to_after = CASE["to_after"]
LIMITS = Limits(np.radians(30), 0.08, 0.03, 0.3)


@pytest.fixture(scope="module")
def images():
    before, after = CASE["cts"]()
    return Image(BEFORE, before), Image(AFTER, after)


@pytest.fixture(scope="module")
def livers():
    before = CASE["liver"](CASE["cells"](BEFORE))
    after = CASE["liver"](CASE["to_before"](CASE["cells"](AFTER)))
    return (before, BEFORE), (after, AFTER)


@pytest.fixture(scope="module")
def fused(images, livers):
    zone = CASE["ball_mask"](AFTER, CASE["ZONE_CENTER"], CASE["ZONE_RADIUS"], True)
    return rigid_motion(*images, livers[0][0], None, zone)


@pytest.fixture(scope="module")
def places():
    random = np.random.default_rng(7)
    points = LIVER_CENTER + random.uniform(-1, 1, (400, 3)) * CASE["LIVER_RADII"]
    return points[CASE["liver"](points)]


def test_a_known_rigid_motion_is_recovered(fused, places):
    off = np.linalg.norm(fused.after(places) - to_after(places), axis=1)
    # A quarter of a voxel of 4 mm at the worst place of the liver, a seventh on average.
    assert off.max() < 1.0e-3
    assert off.mean() < 0.6e-3


def test_frames_far_apart_are_found_by_the_centres(images, places):
    """Scanners choose their frames: half a metre between them is nothing."""
    away = np.array([0.0, 0.1, -0.5])
    far = dataclasses.replace(images[1].grid, origin=tuple(np.asarray(AFTER.origin) + away))
    found = rigid_motion(images[0], Image(far, images[1].values), None, None)
    off = np.linalg.norm(found.after(places) - to_after(places) - away, axis=1)
    assert off.max() < 1.5e-3  # less than half a voxel


def test_quality_of_a_good_fusion(fused, images, livers, places):
    marks = Landmarks(("a", "b", "c", "d"), places[:4], to_after(places[:4]))
    quality = assess_fusion(fused, LIMITS, images, livers, marks)
    assert quality.warnings == ()
    assert quality.similarity_after > quality.similarity_before + 0.2
    # 0.97: two livers of 4 mm voxels each, resampled on each other
    assert quality.overlap_after > 0.97 > quality.overlap_before
    assert quality.landmark_errors_after.max() < 1e-3
    assert quality.landmark_errors_before.min() > 5e-3
    assert np.degrees(quality.rotation) == pytest.approx(8.5, abs=1.0)  # of 3°, −4° and 7° about the axes
    assert quality.cover > 0.99


def test_the_written_transform_is_the_motion(fused, places, tmp_path):
    path = tmp_path / "t.tfm"
    sitk.WriteTransform(fused.transform, str(path))
    back = sitk.ReadTransform(str(path))
    moved = np.array([back.TransformPoint(list(1e3 * p)) for p in places[:20]]) * 1e-3
    # 1e-9 m: the file holds 15 digits
    np.testing.assert_allclose(moved, fused.after(places[:20]), atol=1e-9)


def test_a_rigid_motion_carries_shapes_without_resampling(fused):
    center, radius = CASE["ZONE_CENTER"], CASE["ZONE_RADIUS"]
    grid = CASE["around"](to_after(center), 0.06, (1e-3, 1e-3, 2e-3))
    shape = observed_shape(CASE["ball_mask"](grid, center, radius, True), grid, "zone")
    exact = Motion("rigid", sitk.Transform(), np.eye(4))
    exact.matrix[:3, :3] = CASE["TURN"]
    exact.matrix[:3, 3] = LIVER_CENTER + CASE["SHIFT"] - CASE["TURN"] @ LIVER_CENTER
    back = brought_before(shape, exact, center[None])
    assert back.volume == shape.volume
    distance = np.linalg.norm(back.surface.points - center, axis=1) - radius
    # half of 2 mm slices at the poles, a tenth of them on average
    assert np.abs(distance).max() < 1.0e-3
    assert np.sqrt(np.mean(distance**2)) < 0.2e-3
    # the level set tells the same surface
    values = back.level.sample(back.surface.points)
    assert np.abs(values).max() < 1e-4


def bulge(points):
    """A smooth push along x of 7 mm at most around the middle of the liver."""
    away = np.sum(((points - LIVER_CENTER) / 0.05) ** 2, axis=-1)
    moved = np.array(points, dtype=float)
    moved[..., 0] += 7e-3 * np.exp(-away)
    return moved


def test_a_known_deformation_is_recovered_better_than_by_a_rigid_motion(images, livers, places):
    points = CASE["cells"](BEFORE)
    source = points.copy()
    for _ in range(30):  # the inverse of the push
        source = source + (points - bulge(source))
    random = np.random.default_rng(5)
    after = Image(
        BEFORE, (CASE["hounsfield"](source) + random.normal(0, 10, BEFORE.shape)).astype(np.float32)
    )
    before = Image(BEFORE, CASE["hounsfield"](points).astype(np.float32))
    rigid = rigid_motion(before, after, livers[0][0], None)
    bent = deformable_motion(before, after, rigid, livers[0][0], 45e-3)
    off = {
        name: np.linalg.norm(motion.after(places) - bulge(places), axis=1).mean()
        for name, motion in (("rigid", rigid), ("bent", bent))
    }
    assert off["bent"] < 0.5 * off["rigid"]
    assert off["bent"] < 1.2e-3  # a third of a voxel
    quality = assess_fusion(bent, LIMITS, (before, after), (livers[0], None), None, rigid=rigid)
    assert 2e-3 < quality.deformation < 12e-3
    assert 0.5 < quality.jacobian < 1.0
    tight = dataclasses.replace(LIMITS, deformation=1e-3)
    with pytest.raises(InputError, match="maximum_deformation_mm"):
        assess_fusion(bent, tight, (before, after), (livers[0], None), None, rigid=rigid)
    # a shape of the frame after comes back through the deformation: T maps its surface onto the old one
    center = LIVER_CENTER + np.array([0.01, 0.0, 0.0])
    grid = CASE["around"](bulge(center), 0.05, (1.5e-3, 1.5e-3, 1.5e-3))
    shape = observed_shape(np.linalg.norm(CASE["cells"](grid) - bulge(center), axis=-1) < 0.015, grid, "zone")
    back = brought_before(shape, bent, center[None])
    distance = np.linalg.norm(bent.after(back.surface.points) - bulge(center), axis=1) - 0.015
    assert np.abs(distance).max() < 1.0e-3  # two thirds of a voxel


def turned(degrees: float, shift=(0.0, 0.0, 0.0)) -> Motion:
    transform = sitk.Euler3DTransform()
    transform.SetCenter([float(1e3 * x) for x in LIVER_CENTER])
    transform.SetRotation(0.0, 0.0, float(np.radians(degrees)))
    matrix = np.eye(4)
    matrix[:3, :3] = np.asarray(transform.GetMatrix()).reshape(3, 3)
    matrix[:3, 3] = LIVER_CENTER + shift - matrix[:3, :3] @ LIVER_CENTER
    transform.SetTranslation([float(1e3 * x) for x in shift])
    return Motion("rigid", transform, matrix)


@pytest.mark.parametrize(
    ("motion", "words"),
    [
        (turned(45.0), "maximum_rotation_deg"),
        (turned(0.0, (0.2, 0.0, 0.0)), "maximum_shift_mm"),
        (turned(0.0, (-0.02, -0.02, -0.03)), "agree less|overlap less"),
    ],
)
def test_what_cannot_be_right_is_refused(motion, words, images, livers):
    with pytest.raises(InputError, match=words):
        assess_fusion(motion, LIMITS, images, livers, None)


def test_a_deformation_that_makes_it_worse_is_refused(fused, images, livers):
    worse = Motion("deformable", turned(2.0).transform, None)
    wide = dataclasses.replace(LIMITS, deformation=0.1)
    with pytest.raises(InputError, match="less with the deformation"):
        assess_fusion(worse, wide, images, livers, None, rigid=fused)


def test_a_poor_fusion_is_flagged(images, livers, places):
    marks = Landmarks(("a", "b"), places[:2], to_after(places[:2]) + 8e-3)
    quality = assess_fusion(no_motion(), LIMITS, images, livers, marks)
    assert any("landmarks are off" in warning for warning in quality.warnings)
    assert any("Dice" in warning for warning in quality.warnings)


def test_images_of_nothing_are_refused(images):
    blank = Image(BEFORE, np.full(BEFORE.shape, -1000, np.int16))
    with pytest.raises(InputError, match="nothing but air"):
        assess_fusion(no_motion(), LIMITS, (blank, images[1]), (None, None), None)


def test_dice_of_masks_on_different_grids():
    grids = [CASE["around"](LIVER_CENTER, 0.06, spacing) for spacing in ((1e-3,) * 3, (0.8e-3, 1.1e-3, 2e-3))]
    first = (CASE["ball_mask"](grids[0], LIVER_CENTER, 0.02), grids[0])
    second = (CASE["ball_mask"](grids[1], LIVER_CENTER + np.array([0.01, 0, 0]), 0.02), grids[1])
    lens = np.pi * (4 * 0.02 + 0.01) * (2 * 0.02 - 0.01) ** 2 / 12
    # 0.01: partial volumes of voxels of 2 mm on a ball of 20 mm
    assert dice(first, second, no_motion()) == pytest.approx(lens / (4 / 3 * np.pi * 0.02**3), abs=0.01)


def test_resampling_follows_the_motion(fused, images, livers):
    moved = resampled(images[1], BEFORE, fused)
    away = np.linalg.norm(CASE["cells"](BEFORE) - CASE["ZONE_CENTER"], axis=-1) > 0.03
    inside = ndimage.binary_erosion(livers[0][0], iterations=2) & away
    # interpolation across the borders of small vessels, and 10 HU of noise
    assert np.corrcoef(moved[inside], images[0].values[inside])[0, 1] > 0.6
    assert abs(np.median(moved[inside] - images[0].values[inside])) < 3.0


def test_landmarks_give_a_motion_and_its_error(places, tmp_path):
    random = np.random.default_rng(8)
    before = places[:12]
    after = to_after(before) + random.normal(0, 0.5e-3, before.shape)
    motion, left_out = motion_of_landmarks(Landmarks(tuple("abcdefghijkl"), before, after))
    # twelve marks of 0.5 mm each: the motion is known to about 0.5 · √(6/36) mm
    assert np.linalg.norm(motion.after(places) - to_after(places), axis=1).mean() < 0.6e-3
    assert 0.4e-3 < np.sqrt(np.mean(left_out**2)) < 1.6e-3  # 0.5 mm along each of three axes, and the fit's
    fitted = np.linalg.norm(motion.after(before) - after, axis=1)
    assert left_out.mean() > fitted.mean()
    with pytest.raises(InputError, match="at least 4"):
        motion_of_landmarks(Landmarks(("a", "b", "c"), before[:3], after[:3]))
    line = LIVER_CENTER + np.outer(np.linspace(0, 0.05, 5), [1.0, 0, 0])
    with pytest.raises(InputError, match="one line"):
        motion_of_landmarks(Landmarks(tuple("abcde"), line, line))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,before_x\na,1\n", "before_y"),
        ("name,before_x,before_y,before_z,after_x,after_y,after_z\na,1,2,3,4,5,x\n", "line 2"),
        ("name,before_x,before_y,before_z,after_x,after_y,after_z\na,1,2,3,4,5\n", "line 2"),
        ("name,before_x,before_y,before_z,after_x,after_y,after_z\na,1,2,3,4,5,nan\n", "finite"),
        ("name,before_x,before_y,before_z,after_x,after_y,after_z\n", "at least one"),
    ],
)
def test_landmarks_that_cannot_be_read_are_refused(text, words, tmp_path):
    path = tmp_path / "marks.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_landmarks(path)
