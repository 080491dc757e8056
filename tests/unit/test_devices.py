"""Devices of the catalogue as electrodes: clusters, bipolar needles, tines; and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from thermosim.anatomy.grid import Grid
from thermosim.applicators.devices import electrodes_of, tip_beyond_middle
from thermosim.applicators.electrode import Electrode
from thermosim.applicators.layout import check_inside, electrodes_from, exposed_bounds
from thermosim.applicators.tines import tine_curves
from thermosim.build import load_case
from thermosim.checks import TINE_TURNS
from thermosim.config import ApplicatorConfig, LayoutConfig, NeedleConfig
from thermosim.errors import InputError
from thermosim.numerics.fitted_links import fit_electrode_links
from thermosim.numerics.tines import Tines
from thermosim.report.meshes import needle_meshes

CLUSTER = ApplicatorConfig(name="cluster", kind="cluster", radius_mm=0.735, active_length_mm=25.0)
BIPOLAR = ApplicatorConfig(name="bipolar", kind="bipolar", radius_mm=0.9, active_length_mm=30.0)
STARBURST = ApplicatorConfig(name="starburst", kind="tines", radius_mm=1.05, active_length_mm=10.0)
UMBRELLA = ApplicatorConfig(
    name="umbrella",
    kind="tines",
    radius_mm=1.05,
    active_length_mm=0.0,
    n_tines=10,
    tine_shape="umbrella",
    tine_radius_mm=0.25,
    deployment_mm=30.0,
)
CENTER = np.array([-0.06, -0.02, 0.11])
AXIS = np.array([-0.6, -0.5, 0.3]) / np.linalg.norm([-0.6, -0.5, 0.3])


def place(device: ApplicatorConfig, **layout: object) -> tuple[Electrode, ...]:
    settings = {"pattern": "ring", "n_needles": 1, "pattern_depth_mm": None, **layout}
    return electrodes_from(LayoutConfig(**settings), device, {"tumor": CENTER})


def test_a_cluster_is_one_unit_of_parallel_needles() -> None:
    electrodes = place(CLUSTER)
    assert [e.name for e in electrodes] == ["needle_1_1", "needle_1_2", "needle_1_3"]
    assert {e.unit for e in electrodes} == {"needle_1"}
    tips = np.array([e.target_point for e in electrodes])
    # round-off of numbers near 0.1 m
    steps = np.linalg.norm(tips - np.roll(tips, 1, axis=0), axis=1)
    np.testing.assert_allclose(steps, 5e-3, atol=1e-12)
    np.testing.assert_allclose([e.direction for e in electrodes], np.tile(AXIS, (3, 1)), atol=1e-12)
    np.testing.assert_allclose(np.mean([e.center for e in electrodes], axis=0) - CENTER, 0, atol=5e-4)


def test_a_cluster_turns_about_its_axis() -> None:
    def tips(angle: float) -> np.ndarray:
        needle = NeedleConfig("c", [0.0, 0.0, 0.0], [0.0, 0.0, 100.0], rotation_deg=angle)
        found = electrodes_from(LayoutConfig(needles=[needle]), CLUSTER, {"tumor": CENTER})
        return np.array([e.target_point for e in found])

    np.testing.assert_allclose(tips(120.0), np.roll(tips(0.0), -1, axis=0), atol=1e-12)
    a, b = tips(0.0)[0], tips(40.0)[0]
    assert a @ b / np.linalg.norm(a) ** 2 == pytest.approx(np.cos(np.deg2rad(40.0)), abs=1e-12)


def test_a_bipolar_needle_is_two_poles_of_one_shaft() -> None:
    distal, proximal = place(BIPOLAR)
    assert (distal.unit, proximal.unit) == ("needle_1.distal", "needle_1.proximal")
    assert distal.applicator == proximal.applicator == "needle_1"
    assert distal.active_length == proximal.active_length == pytest.approx(13e-3)
    start = (proximal.metal_start - distal.metal_start) @ distal.direction
    assert start == pytest.approx(17e-3)
    end = (proximal.axis_end - np.asarray(distal.target_point)) @ distal.direction
    assert end == pytest.approx(30e-3)


def test_the_poles_share_the_solid_shaft_and_each_has_its_own_wall() -> None:
    poles = [e.geometry for e in place(BIPOLAR)]
    grid = Grid.box(tuple(CENTER), (40, 40, 40), 1e-3)
    links = fit_electrode_links(grid, poles)
    alone = fit_electrode_links(grid, poles[:1])
    np.testing.assert_array_equal(np.sort(links.solid_cells), np.sort(alone.solid_cells))
    points = grid.points(np.stack(np.unravel_index(links.wall_cells, grid.shape), axis=1))
    height = (points - np.asarray(poles[0].tip)) @ AXIS
    # a pole's cells lie beside it, or a cell away from its ends
    assert height[links.wall_owners == 0].max() < 13e-3 + 1.8e-3
    assert height[links.wall_owners == 1].min() > 17e-3 - 1.8e-3
    for owner in (0, 1):
        area = links.wall_areas[links.wall_owners == owner].sum()
        assert area == pytest.approx(2 * np.pi * 0.9e-3 * 13e-3, rel=1e-9)  # normalised


@pytest.mark.parametrize("device", [STARBURST, UMBRELLA])
def test_tines_leave_the_trunk_and_end_on_their_circle(device: ApplicatorConfig) -> None:
    (electrode,) = place(device)
    assert electrode.kind == "tines"
    assert len(electrode.wires) == device.n_tines
    tip = np.asarray(electrode.target_point)
    turn = TINE_TURNS[device.tine_shape][1]
    for wire in electrode.wires:
        points = np.asarray(wire)
        height = (points - tip) @ electrode.direction
        off = np.linalg.norm(points - tip - np.outer(height, electrode.direction), axis=1)
        assert off[0] == pytest.approx(1e-3 * device.radius_mm)
        assert off[-1] == pytest.approx(0.5e-3 * device.deployment_mm)
        assert np.all(np.diff(off) > 0)
        last = points[-1] - points[-2]
        forward = -(last @ electrode.direction) / np.linalg.norm(last)
        # the last edge is a chord: half a step of the turn short of the tip's direction
        assert np.rad2deg(np.arccos(forward)) == pytest.approx(turn, abs=6.0)
    assert electrode.sensors == tuple(wire[-1] for wire in electrode.wires)


def test_starburst_spreads_ahead_and_umbrella_hooks_back() -> None:
    (starburst,), (umbrella,) = place(STARBURST), place(UMBRELLA)
    for electrode, hooked in ((starburst, False), (umbrella, True)):
        wire = np.asarray(electrode.wires[0])
        height = (wire - np.asarray(electrode.target_point)) @ electrode.direction
        assert (height[-1] > height.min() + 5e-3) == hooked
    # without a depth the middle of the bare metal lies at the centre
    for electrode in (starburst, umbrella):
        height = np.concatenate([(line - CENTER) @ AXIS for line in electrode.metal_lines])
        assert 0.5 * (height.min() + height.max()) == pytest.approx(0.0, abs=1e-12)
    assert tip_beyond_middle(STARBURST) < 0 < tip_beyond_middle(CLUSTER)


def test_a_device_moves_as_a_whole() -> None:
    for device in (CLUSTER, BIPOLAR, STARBURST):
        for electrode in place(device):
            moved = electrode.moved(7e-3)
            step = 7e-3 * electrode.direction
            for one, other in zip(electrode.metal_lines, moved.metal_lines, strict=True):
                np.testing.assert_allclose(other - one, np.tile(step, (len(one), 1)), atol=1e-12)
            assert (moved.unit, moved.active_start) == (electrode.unit, electrode.active_start)


def test_the_box_holds_the_tines() -> None:
    electrodes = place(STARBURST)
    low, high = exposed_bounds(electrodes)
    tips = np.array([wire[-1] for wire in electrodes[0].wires])
    assert np.all(tips > low)
    assert np.all(tips < high)
    assert (high - low).max() > 45e-3
    check_inside(electrodes, Grid.box(tuple(CENTER), (40, 40, 40), 2e-3))
    with pytest.raises(InputError, match=r"needle_1.*beyond the computing box"):
        check_inside(electrodes, Grid.box(tuple(CENTER), (20, 20, 20), 2e-3))


def test_only_different_devices_must_keep_apart() -> None:
    assert len(place(BIPOLAR, n_needles=6, pattern_spacing_mm=15.0)) == 12
    assert len(place(CLUSTER, n_needles=3, pattern_spacing_mm=40.0)) == 9
    with pytest.raises(InputError, match=r"'needle_1_.' and 'needle_._.'"):
        place(CLUSTER, n_needles=3, pattern_spacing_mm=5.5)


def test_tines_must_keep_apart_from_other_shafts() -> None:
    first = NeedleConfig("a", [0.0, 0.0, 0.0], [0.0, 0.0, 100.0])
    (alone,) = electrodes_from(LayoutConfig(needles=[first]), STARBURST, {"tumor": CENTER})
    x, y, z = 1e3 * np.asarray(alone.wires[0][-1])
    for off, meets in ((0.0, True), (4.0, False)):  # the second trunk stands in the tip of a tine, or not
        second = NeedleConfig("b", [x + off, y + off, z - 30.0], [x + off, y + off, z + 100.0])
        layout = LayoutConfig(needles=[first, second])
        if meets:
            with pytest.raises(InputError, match="'a' and 'b' touch"):
                electrodes_from(layout, STARBURST, {"tumor": CENTER})
        else:
            assert len(electrodes_from(layout, STARBURST, {"tumor": CENTER})) == 2


def test_thin_wires_have_no_solid_cells_and_thick_ones_do() -> None:
    tip, axis = np.zeros(3), np.array([0.0, 0.0, 1.0])
    wires = tine_curves(tip, axis, 1.05e-3, 0.3e-3, 6, 20e-3, np.deg2rad(80.0))
    tines = Tines((0.0, 0.0, 0.0), (0.0, 0.0, 1.0), 1.05e-3, 0.0, wires, 0.3e-3)
    for spacing, solid_wires in ((1e-3, False), (0.5e-3, True)):
        n = round(30e-3 / spacing)
        grid = Grid.box((0.0, 0.0, 0.0), (n, n, n), spacing)
        links = fit_electrode_links(grid, [tines])
        points = grid.points(np.stack(np.unravel_index(links.solid_cells, grid.shape), axis=1))
        in_trunk = tines.trunk.distance(points) < 0.02 * spacing
        assert in_trunk.any()
        assert (not in_trunk.all()) == solid_wires
        # every wire has its links, and all bare metal is accounted for
        cells = grid.points(np.stack(np.unravel_index(links.wall_cells, grid.shape), axis=1))
        assert set(tines.wire_of(cells).tolist()) == set(range(6))
        assert links.wall_areas.sum() == pytest.approx(tines.metal_area, rel=1e-6)  # normalised


@pytest.mark.parametrize(
    ("device", "override", "words"),
    [
        ("cooled_cluster_25mm", "spacing_mm=1.5", ["applicators.spacing_mm=1.5", "at least 1.97 mm"]),
        ("cooled_cluster_25mm", "n_needles=1", ["applicators.n_needles=1", "at least 2"]),
        ("cooled_cluster_25mm", "n_needles=9", ["applicators.n_needles=9", "at most 7"]),
        ("bipolar_15g_30mm", "gap_mm=0", ["applicators.gap_mm=0", "at least 1 mm"]),
        ("bipolar_15g_30mm", "gap_mm=28", ["applicators.active_length_mm=30", "above 31.6 mm"]),
        ("starburst_9_50mm", "n_tines=0", ["applicators.n_tines=0", "at least 1"]),
        ("starburst_9_50mm", "n_tines=20", ["applicators.n_tines=20", "at most 12"]),
        ("starburst_9_50mm", "tine_shape=star", ["applicators.tine_shape='star'", "starburst", "umbrella"]),
        ("starburst_9_50mm", "tine_radius_mm=3", ["applicators.tine_radius_mm=3", "at most 1 mm"]),
        ("starburst_9_50mm", "tine_turn_deg=150", ["applicators.tine_turn_deg=150", "at most 110"]),
        ("starburst_9_50mm", "deployment_mm=2", ["applicators.deployment_mm=2", "above"]),
        ("starburst_9_50mm", "deployment_mm=200", ["applicators.deployment_mm=200", "at most 100 mm"]),
        ("starburst_9_50mm", "active_length_mm=-1", ["applicators.active_length_mm=-1", "at least 0"]),
        ("starburst_9_50mm", "coolant_temperature=10", ["coolant_temperature=10", "null"]),
        ("starburst_9_50mm", "kind=brush", ["applicators.kind='brush'", "tines"]),
    ],
)
def test_parameters_out_of_their_physical_range_are_refused_by_name(
    device: str, override: str, words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        load_case("quick", [f"applicators={device}", f"applicators.{override}"])
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_pictures_show_all_bare_metal() -> None:
    (tines,) = place(STARBURST)
    drawn = {mesh.name: mesh for mesh in needle_meshes(tines)}
    assert set(drawn) == {"needle_1 tip", "needle_1 shaft", "needle_1 tines"}
    for wire in tines.wires:
        gap = np.linalg.norm(drawn["needle_1 tines"].points - np.asarray(wire[-1]), axis=1).min()
        assert gap < 0.6e-3  # tubes are drawn 0.5 mm in radius
    (umbrella,) = place(UMBRELLA)
    assert {mesh.name for mesh in needle_meshes(umbrella)} == {"needle_1 shaft", "needle_1 tines"}
    poles = [mesh.name for electrode in place(BIPOLAR) for mesh in needle_meshes(electrode)]
    assert poles == ["needle_1.distal tip", "needle_1.proximal tip", "needle_1.proximal shaft"]


def test_geometry_that_cannot_be_is_refused() -> None:
    _, proximal = place(BIPOLAR)
    with pytest.raises(InputError, match=r"begins 0\.5 mm behind the tip"):
        replace(proximal, active_start=0.5e-3)
    (tines,) = place(STARBURST)
    with pytest.raises(InputError, match="no tines"):
        replace(tines, wires=())
    with pytest.raises(InputError, match="radius of the tines 2 mm"):
        replace(tines, wire_radius=2e-3)
    with pytest.raises(InputError, match="no coolant"):
        replace(tines, coolant_temperature=10.0)
    with pytest.raises(InputError, match="poles of 1 mm"):
        electrodes_of(BIPOLAR, "b", np.zeros(3), np.array([0.0, 0.0, 0.1]), 6e-3)
    with pytest.raises(InputError, match="same point twice"):
        Tines((0.0,) * 3, (0.0, 0.0, 1.0), 1e-3, 0.0, (((0.0,) * 3, (0.0,) * 3),), 0.3e-3)
