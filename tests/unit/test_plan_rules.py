"""Every rule of a plan passes, warns and fails at the figure that closed forms give."""

from __future__ import annotations

import numpy as np
import pytest
from plan_case import DEVICE, LIVER, TUMOR, Source, ball, box, limit, needle, of, plan, tube

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.anatomy.block import ball_surface
from thermosim.config import ApplicatorConfig, BlockTumorConfig, ProtocolConfig, SegmentConfig
from thermosim.config_check import LimitConfig, OrganConfig
from thermosim.errors import InputError
from thermosim.plan.anatomy_rules import anatomy_rules, length_in_box
from thermosim.plan.findings import Rule, judge, worst
from thermosim.plan.needle_rules import needle_rules
from thermosim.plan.tumor_rules import reach_rule

DOWN = needle("a", [0, 0, -15], [0, 0, 100])
"""Along z through the middle of tumour and liver, its tip 15 mm beyond the centre."""

VERDICTS = ("pass", "warn", "fail")


def each(*values: float) -> list[tuple[float, str]]:
    """One value that passes, one that warns and one that fails."""
    return list(zip(values, VERDICTS, strict=True))


def beside(distance: float, name: str = "b") -> object:
    return needle(name, [distance, 0, -15], [distance, 0, 100])


def test_a_value_on_its_limit_keeps_it():
    assert [judge(x, "at most", 1.0, 2.0) for x in (1.0, 1.5, 2.0, 2.1)] == ["pass", "warn", "warn", "fail"]
    assert [judge(x, "at least", 1.0, 0.0) for x in (1.0, 0.5, 0.0, -0.1)] == ["pass", "warn", "warn", "fail"]
    assert judge(99.0, "at most", None, None) == "pass"
    assert worst(["not judged", "pass"]) == "pass"


def test_limits_that_contradict_each_other_are_refused():
    with pytest.raises(InputError, match=r"rules\.x: fail=1 is stricter than warn=2, though at most"):
        Rule("x", "", "mm", "at most", LimitConfig(2.0, 1.0))
    with pytest.raises(InputError, match=r"rules\.x\.warn=nan must be finite"):
        Rule("x", "", "mm", "at least", LimitConfig(float("nan"), 1.0))


def test_the_gravest_finding_comes_first():
    for side, order in (("at most", [9.0, 4.0, 2.0, 1.0]), ("at least", [1.0, 2.0, 4.0, 9.0])):
        rule = Rule(
            "x", "", "mm", side, LimitConfig(3.0, 8.0) if side == "at most" else LimitConfig(3.0, 1.5)
        )
        for value in (2.0, 9.0, 1.0, 4.0):
            rule.judge(f"{value}", value, "")
        rule.leave("nobody", "why")
        findings = rule.result().findings
        assert [finding.value for finding in findings] == [*order, None]
        assert rule.result().verdict == "fail"


# ---------------------------------------------------------------------------- between needles


@pytest.mark.parametrize(("apart", "verdict"), each(6.6, 4.0, 1.9))
def test_free_space_between_parallel_needles(apart, verdict):
    results = needle_rules(plan(DOWN, beside(apart), needle_gap_mm=limit(5.0, 0.5)))
    rule = of(results, "needle_gap_mm")
    assert rule.verdict == verdict
    assert rule.findings[0].value == pytest.approx(apart - 1.5, abs=1e-9)


def test_shafts_that_cross_far_from_the_tips_are_seen():
    crossing = needle("b", [20, 0, -15], [-20, 0, 105])  # crosses a's axis at z = 45
    rule = of(needle_rules(plan(DOWN, crossing, needle_gap_mm=limit(5.0, 0.5))), "needle_gap_mm")
    assert rule.verdict == "fail"
    assert rule.findings[0].value == pytest.approx(-1.5, abs=1e-9)
    assert rule.findings[0].places[0] == pytest.approx([0, 0, 0.045], abs=1e-3)


def test_the_same_needle_at_its_next_position_is_no_neighbour():
    serial = ProtocolConfig(segments=[SegmentConfig(5.0)], serial="needles")
    results = needle_rules(plan(DOWN, beside(0.5), protocol=serial, needle_gap_mm=limit(5.0, 0.5)))
    assert of(results, "needle_gap_mm").verdict == "not judged"
    assert not of(results, "needle_gap_mm").lacks
    groups = ProtocolConfig(segments=[SegmentConfig(5.0)], serial="groups", groups=[["a", "b"]])
    together = needle_rules(plan(DOWN, beside(0.5), protocol=groups, needle_gap_mm=limit(5.0, 0.5)))
    assert of(together, "needle_gap_mm").verdict == "fail"


@pytest.mark.parametrize(("apart", "verdict"), each(20.0, 30.0, 45.0))
def test_the_nearest_neighbour_counts(apart, verdict):
    results = needle_rules(plan(DOWN, beside(apart), beside(-50, "c"), neighbour_distance_mm=limit(25, 40)))
    by_name = {finding.subject: finding for finding in of(results, "neighbour_distance_mm").findings}
    assert by_name["a"].verdict == by_name["b"].verdict == verdict
    assert by_name["a"].value == pytest.approx(min(apart, 50.0), abs=1e-9)
    assert by_name["c"].value == pytest.approx(50.0, abs=1e-9)


def test_needles_at_different_tumours_are_no_neighbours():
    source = Source({"left": np.zeros(3), "right": np.array([0.1, 0, 0])})
    results = needle_rules(plan(DOWN, beside(100), source=source, neighbour_distance_mm=limit(25, 40)))
    assert of(results, "neighbour_distance_mm").verdict == "not judged"


@pytest.mark.parametrize(("angle", "verdict"), each(5.0, 20.0, 40.0))
def test_the_angle_between_neighbours(angle, verdict):
    x, z = 115 * np.sin(np.deg2rad(angle)), 115 * np.cos(np.deg2rad(angle))
    tilted = needle("b", [20, 0, -15], [20 + x, 0, -15 + z])
    rule = of(needle_rules(plan(DOWN, tilted, neighbour_angle_deg=limit(10, 30))), "neighbour_angle_deg")
    assert rule.verdict == verdict
    assert rule.findings[0].value == pytest.approx(angle, abs=1e-9)


@pytest.mark.parametrize(("step", "verdict"), each(20.0, 27.0, 34.0))
def test_burns_before_and_after_a_pull_back_overlap(step, verdict):
    protocol = ProtocolConfig(segments=[SegmentConfig(5.0), SegmentConfig(5.0, pull_back_mm=step)])
    rule = of(
        needle_rules(plan(DOWN, protocol=protocol, pull_back_overlap_mm=limit(5, 0))), "pull_back_overlap_mm"
    )
    assert rule.verdict == verdict
    assert rule.findings[0].value == pytest.approx(30.0 - step, abs=1e-9)


@pytest.mark.parametrize(("count", "verdict"), each(12, 13, 21))
def test_positions_are_counted_without_their_pull_backs(count, verdict):
    protocol = ProtocolConfig(
        segments=[SegmentConfig(1.0), SegmentConfig(1.0, pull_back_mm=9)], serial="needles"
    )
    needles = [beside(2.0 * k, f"p{k}") for k in range(count)]
    checked = plan(*needles, protocol=protocol, positions=limit(12, 20))
    rule = of(needle_rules(checked), "positions")
    assert (rule.verdict, rule.findings[0].value) == (verdict, count)
    assert len(checked.places) == 2 * count


@pytest.mark.parametrize(("entry", "verdict"), each(130.0, 160.0, 260.0))
def test_depth_from_the_entry_point(entry, verdict):
    rule = of(
        needle_rules(plan(needle("a", [0, 0, -15], [0, 0, entry]), depth_mm=limit(150, 250))), "depth_mm"
    )
    assert rule.verdict == verdict
    assert rule.findings[0].value == pytest.approx(entry + 15, abs=1e-9)


# ---------------------------------------------------------------------------- skin and image

SKIN = box("skin", [-150, -150, -150], [150, 150, 80])


@pytest.mark.parametrize(("entry", "verdict"), each(82.0, 90.0, 130.0))
def test_the_entry_point_lies_on_the_skin(entry, verdict):
    bodies = (LIVER, TUMOR, SKIN)
    checked = plan(needle("a", [0, 0, -15], [0, 0, entry]), bodies=bodies, skin_distance_mm=limit(5, 20))
    rule = of(anatomy_rules(checked), "skin_distance_mm")
    assert rule.verdict == verdict
    assert rule.findings[0].value == pytest.approx(entry - 80, abs=1e-6)
    assert of(needle_rules(checked), "depth_mm").findings[0].value == pytest.approx(95.0, abs=1e-6)


def test_an_entry_point_below_the_skin_does_not_shorten_the_way():
    rib = box("rib_left_7", [-5, -5, 70], [5, 5, 75])
    checked = plan(needle("a", [0, 0, -15], [0, 0, 60]), bodies=(LIVER, TUMOR, SKIN, rib))
    assert of(anatomy_rules(checked), "organs.ribs").verdict == "fail"
    assert "below the skin" in of(anatomy_rules(checked), "skin_distance_mm").findings[0].sentence


def test_without_skin_nothing_is_said_of_it():
    rule = of(anatomy_rules(plan(DOWN)), "skin_distance_mm")
    assert (rule.verdict, rule.lacks, rule.findings[0].value) == ("not judged", True, None)


@pytest.mark.parametrize(("top", "verdict"), each(100.0, 90.0, 60.0))
def test_a_way_outside_the_image_is_measured(top, verdict):
    view = (np.array([-0.1, -0.1, -0.1]), np.array([0.1, 0.1, 1e-3 * top]))
    checked = plan(DOWN, source=Source(view=view), unknown_path_mm=limit(0, 30))
    rule = of(anatomy_rules(checked), "unknown_path_mm")
    assert rule.verdict == verdict
    assert rule.findings[0].value == pytest.approx(100.0 - top, abs=1e-9)


def test_length_in_a_box():
    low, high = -np.ones(3), np.ones(3)
    assert length_in_box(np.array([-2.0, 0, 0]), np.array([2.0, 0, 0]), low, high) == pytest.approx(2.0)
    assert length_in_box(np.array([-2.0, 3, 0]), np.array([2.0, 3, 0]), low, high) == 0.0
    assert length_in_box(*np.array([[-2.0] * 3, [2.0] * 3]), low, high) == pytest.approx(2 * np.sqrt(3))


# ---------------------------------------------------------------------------- vessels and organs


@pytest.mark.parametrize(("diameter", "verdict"), each(2.9, 4.0, 8.0))
def test_the_widest_vessel_on_the_way_counts(diameter, verdict):
    vessels = (
        tube("portal_vein", [-90, 0, 40], [90, 0, 40], diameter),
        tube("artery", [-9, 0, 50], [9, 0, 50], 1),
    )
    checked = plan(DOWN, bodies=(LIVER, TUMOR, *vessels), vessel_diameter_mm=limit(3, 6))
    rule = of(anatomy_rules(checked), "vessel_diameter_mm")
    assert rule.verdict == verdict
    assert rule.findings[0].value == pytest.approx(diameter, abs=1e-9)
    assert f"passes through {diameter:.1f} mm of portal vein" in rule.findings[0].sentence


@pytest.mark.parametrize(("gap", "verdict"), [(0.74, "fail"), (0.76, "pass")])
def test_a_vessel_beside_the_axis_is_touched_by_the_needles_thickness(gap, verdict):
    vein = tube("hepatic_vein", [-90, 4 + gap, 40], [90, 4 + gap, 40], 8)  # wall `gap` mm from the axis
    checked = plan(DOWN, bodies=(LIVER, TUMOR, vein), vessel_diameter_mm=limit(3, 6))
    rule = of(anatomy_rules(checked), "vessel_diameter_mm")
    assert rule.verdict == verdict
    if verdict == "fail":
        assert "grazes hepatic vein where it is 8.0 mm wide" in rule.findings[0].sentence
        assert rule.findings[0].places[0][2] == pytest.approx(0.04, abs=1e-3)


def test_the_shaft_is_followed_and_not_only_the_bare_metal():
    vein = tube("portal_vein", [-90, 0, 95], [90, 0, 95], 8)  # 5 mm below the entry point
    checked = plan(DOWN, bodies=(LIVER, TUMOR, vein), vessel_diameter_mm=limit(3, 6))
    assert of(anatomy_rules(checked), "vessel_diameter_mm").verdict == "fail"


@pytest.mark.parametrize(("gap", "verdict"), [(2.1, "pass"), (1.0, "warn"), (0.1, "warn"), (-0.2, "fail")])
def test_ribs_are_kept_clear_of(gap, verdict):
    rib = box("Rib right 9", [0.75 + gap, -40, 70], [30, 40, 80])
    rule = of(anatomy_rules(plan(DOWN, bodies=(LIVER, TUMOR, rib))), "organs.ribs")
    assert rule.verdict == verdict
    assert rule.findings[0].value == pytest.approx(gap, abs=1e-6)


def test_a_needle_through_a_rib_fails_by_the_length_in_it():
    rib = box("rib_right_9", [-10, -40, 70], [30, 40, 80])
    rule = of(anatomy_rules(plan(DOWN, bodies=(LIVER, TUMOR, rib))), "organs.ribs")
    assert rule.verdict == "fail"
    assert rule.findings[0].value == pytest.approx(-10.0, abs=1e-6)
    assert rule.findings[0].places[0] == pytest.approx([0, 0, 0.075], abs=1e-6)


def test_each_structure_belongs_to_the_first_rule_that_names_it():
    heart, rib = (
        box("heart", [-5, -5, 70], [5, 5, 80], "risk"),
        box("rib_1", [50, 50, 0], [60, 60, 9], "risk"),
    )
    results = anatomy_rules(plan(DOWN, bodies=(LIVER, TUMOR, heart, rib)))
    assert of(results, "organs.others").verdict == "fail"  # of the role risk, named by none
    assert "heart" in of(results, "organs.others").findings[0].sentence
    assert of(results, "organs.ribs").verdict == "pass"
    muscle = box("muscle", [-5, -5, 70], [5, 5, 80])  # not of the role risk: nobody asked
    assert (
        of(anatomy_rules(plan(DOWN, bodies=(LIVER, TUMOR, muscle))), "organs.others").verdict == "not judged"
    )


def test_an_organ_that_is_not_there_is_not_judged():
    results = anatomy_rules(plan(DOWN, organs={"lung": OrganConfig(["*lung*"], 2.0, 0.0)}))
    assert (of(results, "organs.lung").verdict, of(results, "organs.lung").lacks) == ("not judged", True)


# ---------------------------------------------------------------------------- liver and tumour


@pytest.mark.parametrize(("count", "verdict"), each(1, 2, 3))
def test_entries_into_the_liver_are_counted(count, verdict):
    lobes = tuple(
        box(f"lobe_{k}", [-9, -9, 70 + 8 * k], [9, 9, 75 + 8 * k], "organ") for k in range(count - 1)
    )
    checked = plan(
        DOWN, bodies=(LIVER, TUMOR, *lobes), capsule_entries=limit(1, 2), capsule_punctures=limit(1, 2)
    )
    results = anatomy_rules(checked)
    assert of(results, "capsule_entries").verdict == verdict
    assert of(results, "capsule_entries").findings[0].value == count
    assert of(results, "capsule_punctures").findings[0].value == count


def test_meshes_that_do_not_quite_meet_are_one_liver():
    halves = (
        box("left", [-60, -60, 0.4], [60, 60, 60], "organ"),
        box("right", [-60, -60, -60], [60, 60, 0], "organ"),
    )
    checked = plan(DOWN, bodies=(*halves, ball("tumor", [30, 0, 0], 5)), capsule_entries=limit(1, 2))
    assert of(anatomy_rules(checked), "capsule_entries").findings[0].value == 1


@pytest.mark.parametrize(("depth", "verdict"), each(12.0, 5.0, 0.0))
def test_liver_is_passed_before_the_tumour(depth, verdict):
    tumor = ball("tumor", [0, 0, 60 - depth - 15], 15)
    checked = plan(
        needle("a", [0, 0, 10], [0, 0, 100]), bodies=(LIVER, tumor), liver_before_tumor_mm=limit(10, 0.5)
    )
    rule = of(anatomy_rules(checked), "liver_before_tumor_mm")
    assert rule.verdict == verdict
    assert rule.findings[0].value == pytest.approx(depth, abs=1e-6)


def test_a_needle_beside_the_tumour_passes_none():
    rule = of(anatomy_rules(plan(beside(40))), "liver_before_tumor_mm")
    assert (rule.verdict, rule.lacks) == ("not judged", False)


@pytest.mark.parametrize(("tip", "verdict"), each(30.0, 33.0, 40.0))
def test_bare_metal_outside_the_liver_is_measured(tip, verdict):
    checked = plan(needle("a", [0, 0, tip], [0, 0, 130]), metal_outside_liver_mm=limit(0.5, 5))
    rule = of(anatomy_rules(checked), "metal_outside_liver_mm")
    assert rule.verdict == verdict
    assert rule.findings[0].value == pytest.approx(max(tip + 30 - 60, 0), abs=1e-6)


def test_metal_that_a_pull_back_brings_out_of_the_liver_is_seen():
    protocol = ProtocolConfig(segments=[SegmentConfig(5.0), SegmentConfig(5.0, pull_back_mm=50)])
    rule = of(
        anatomy_rules(plan(DOWN, protocol=protocol, metal_outside_liver_mm=limit(0.5, 4))),
        "metal_outside_liver_mm",
    )
    assert rule.findings[0].subject == "a, pulled back 50 mm"
    assert rule.findings[0].value == pytest.approx(5.0, abs=1e-6)  # -15 + 50 + 30 - 60
    assert rule.verdict == "fail"


def test_without_a_liver_nothing_is_said_of_it():
    results = anatomy_rules(plan(DOWN, bodies=(TUMOR,)))
    for key in ("capsule_entries", "capsule_punctures", "liver_before_tumor_mm", "metal_outside_liver_mm"):
        assert (of(results, key).verdict, of(results, key).lacks) == ("not judged", True)


@pytest.mark.parametrize(("aside", "verdict"), each(0.0, 3.0, 12.0))
def test_the_farthest_place_of_the_tumour_is_found(aside, verdict):
    surfaces: dict[str, TriangleSurface] = {"tumor": ball_surface(BlockTumorConfig("tumor", 30.0))}
    rule = reach_rule(plan(beside(aside), tumor_reach_mm=limit(15.2, 25)), surfaces)
    assert rule.verdict == verdict
    assert rule.findings[0].value == pytest.approx(15.0 + aside, abs=0.05)  # a mesh of 1 mm
    if verdict != "pass":
        assert rule.findings[0].places[0][0] == pytest.approx(-0.015, abs=1e-3)


def test_left_and_right_are_not_exchanged():
    """A rib on the patient's right (LPS: negative x) stands in the way of needles from there only."""
    rib = box("rib_right_8", [-80, -30, -30], [-70, 30, 30])
    right = needle("right", [10, 0, 0], [-100, 0, 0])
    left = needle("left", [-10, 0, 0], [100, 0, 0])
    by_name = {
        finding.subject: finding.verdict
        for finding in of(
            anatomy_rules(plan(right, left, bodies=(LIVER, TUMOR, rib))), "organs.ribs"
        ).findings
    }
    assert by_name == {"right": "fail", "left": "pass"}


def test_tines_are_followed_to_their_tips():
    tines = ApplicatorConfig(
        name="starburst", kind="tines", radius_mm=1.1, active_length_mm=5.0, n_tines=9, deployment_mm=30.0
    )
    trunk = needle("a", [0, 0, 15], [0, 0, 100])
    wire = np.asarray(plan(trunk, device=tines).electrodes[0].wires[0])
    floor = 0.5 * (wire[:, 2].min() + wire[:, 2].max())
    small = box("liver", [-60, -60, 1e3 * floor], [60, 60, 60], "organ")
    checked = plan(trunk, device=tines, bodies=(small,), metal_outside_liver_mm=limit(0.5, 5))
    fine = np.linspace(0, len(wire) - 1, 100_001)
    heights = np.interp(fine, np.arange(len(wire)), wire[:, 2])
    lengths = np.linalg.norm(np.diff(wire, axis=0), axis=1)
    below = float((lengths[np.minimum(fine.astype(int), len(lengths) - 1)] * (heights < floor)).mean())
    below *= len(lengths)  # mean over equal parts of each piece
    found = of(anatomy_rules(checked), "metal_outside_liver_mm").findings[0]
    assert found.value == pytest.approx(9 * 1e3 * below, rel=1e-3)
    assert found.verdict == "fail"
    x, y, z = 1e3 * wire[len(wire) // 2]  # in the way of one tine, 12 mm or so beside the trunk
    vein = tube("portal_vein", [x, y, z - 2], [x, y, z + 2], 6)
    with_vein = plan(trunk, device=tines, bodies=(LIVER, TUMOR, vein), vessel_diameter_mm=limit(3, 5))
    assert of(anatomy_rules(with_vein), "vessel_diameter_mm").verdict == "fail"
    alone = plan(trunk, device=DEVICE, bodies=(LIVER, TUMOR, vein), vessel_diameter_mm=limit(3, 5))
    assert of(anatomy_rules(alone), "vessel_diameter_mm").verdict == "pass"
