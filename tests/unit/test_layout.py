"""Needle poses: patterns, frames, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thermosim.anatomy.grid import Grid
from thermosim.applicators.layout import check_inside, electrodes_from, segment_distance
from thermosim.config import ApplicatorConfig, LayoutConfig, NeedleConfig
from thermosim.errors import InputError

DEVICE = ApplicatorConfig(name="needle", radius_mm=0.735, active_length_mm=30.0)
CENTER = np.array([-0.06, -0.02, 0.11])


def place(**layout):
    return electrodes_from(LayoutConfig(**layout), DEVICE, {"tumor": CENTER})


def needle(name="a", target=(0.0, 0.0, 0.0), entry=(0.0, -100.0, 0.0)):
    return NeedleConfig(name, list(target), list(entry))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_ring_neighbours_are_at_the_spacing_asked_for(count):
    electrodes = place(pattern="ring", n_needles=count, pattern_spacing_mm=18.0, pattern_rotation_deg=25.0)
    tips = np.array([e.target_point for e in electrodes])
    # Round-off of a few products of numbers near 0.1 m.
    steps = np.linalg.norm(tips - np.roll(tips, 1, axis=0), axis=1)
    np.testing.assert_allclose(steps, 0.018, atol=1e-12)
    directions = np.array([e.direction for e in electrodes])
    np.testing.assert_allclose(directions, directions[0] * np.ones((count, 1)), atol=1e-12)


def test_ring_tips_lie_beyond_the_centre_around_the_axis():
    electrodes = place(pattern="ring", pattern_direction=[0.0, -2.0, 0.0], pattern_depth_mm=12.0)
    middle = np.mean([e.target_point for e in electrodes], axis=0)
    # Handles point to the front (-y), so the tips lie 12 mm behind the centre.
    np.testing.assert_allclose(middle, CENTER + np.array([0.0, 0.012, 0.0]), atol=1e-12)
    for electrode in electrodes:
        np.testing.assert_allclose(electrode.direction, [0.0, -1.0, 0.0], atol=1e-12)


def test_single_needle_of_a_ring_goes_through_the_centre():
    (electrode,) = place(pattern="ring", n_needles=1)
    to_center = CENTER - np.asarray(electrode.target_point)
    np.testing.assert_allclose(np.cross(to_center, electrode.direction), 0.0, atol=1e-12)


def test_points_are_in_the_frame_asked_for():
    (patient,) = place(frame="patient", needles=[needle()])
    (tumor,) = place(frame="tumor", needles=[needle()])
    np.testing.assert_allclose(patient.target_point, 0.0)
    np.testing.assert_allclose(np.subtract(tumor.target_point, patient.target_point), CENTER, atol=1e-15)


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ({}, ["layout.needles", "empty"]),
        ({"needles": [needle(entry=(0.0, 0.0, 0.0))]}, ["'a'", "no length"]),
        ({"needles": [needle(), needle(target=(20.0, 0, 0), entry=(20.0, -100, 0))]}, ["two needles", "'a'"]),
        ({"needles": [needle(target=(1.0, 2.0))]}, ["target_mm", "three"]),
        ({"needles": [needle(target=(float("nan"), 0.0, 0.0))]}, ["target_mm", "finite"]),
        ({"needles": [needle(entry=(0.0, -10.0, 0.0))]}, ["10 mm", "30 mm"]),
        ({"pattern": "square"}, ["'square'", "ring"]),
        ({"pattern": "ring", "n_needles": 0}, ["n_needles=0"]),
        ({"pattern": "ring", "pattern_direction": [0.0, 0.0, 0.0]}, ["pattern_direction"]),
        ({"pattern": "ring", "pattern_spacing_mm": 1.0}, ["touch", "minimum_gap_mm"]),
        ({"pattern": "ring", "pattern_spacing_mm": 1.8}, ["gap of only 0.33 mm", "0.5 mm"]),
        ({"pattern": "ring", "tumor": "other"}, ["'other'", "tumor"]),
    ],
)
def test_refuses_by_name(layout, words):
    with pytest.raises(InputError) as caught:
        place(**layout)
    for word in words:
        assert word in str(caught.value)


def test_refuses_shafts_that_cross_far_from_the_tips():
    # The lines cross at y = -100 mm, beyond the entry points and 70 mm behind the bare metal.
    crossing = [
        needle("a", (-10.0, 0.0, 0.0), (-5.0, -50.0, 0.0)),
        needle("b", (10.0, 0.0, 0.0), (5.0, -50.0, 0.0)),
    ]
    with pytest.raises(InputError, match="touch"):
        place(needles=crossing)


def test_refuses_an_anatomy_without_tumor():
    with pytest.raises(InputError, match="no tumour"):
        electrodes_from(LayoutConfig(pattern="ring"), DEVICE, {})


def test_needle_must_stand_inside_the_box():
    electrodes = place(needles=[needle()])
    check_inside(electrodes, Grid.box((0.0, -0.015, 0.0), (64, 64, 64), 1e-3))
    with pytest.raises(InputError, match=r"'a'.*beyond the computing box"):
        check_inside(electrodes, Grid.box((0.0, -0.015, 0.0), (64, 30, 64), 1e-3))


coordinate = st.floats(-1.0, 1.0).map(lambda value: round(value, 3))
point = st.tuples(coordinate, coordinate, coordinate).map(np.array)


@settings(max_examples=60, deadline=None)
@given(point, point, point, point)
def test_segment_distance_is_the_least_over_both_segments(a, b, c, d):
    s = np.linspace(0.0, 1.0, 61)
    one = a + s[:, None] * (b - a)
    other = c + s[:, None] * (d - c)
    sampled = np.linalg.norm(one[:, None] - other[None], axis=-1).min()
    exact = segment_distance(a, b, c, d)
    # Samples are at most 1/60 of a segment apart, so the sampled minimum is above the true one by at most
    # half a step of each segment.
    reach = (np.linalg.norm(b - a) + np.linalg.norm(d - c)) / 120
    assert sampled - reach - 1e-9 <= exact <= sampled + 1e-9
