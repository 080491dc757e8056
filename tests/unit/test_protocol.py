"""Segments, poses and what a protocol refuses."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from thermosim.applicators.electrode import Electrode
from thermosim.applicators.protocol import Protocol
from thermosim.config import GeneratorConfig, ProtocolConfig, SegmentConfig
from thermosim.errors import InputError

NAMES = ["a", "b", "c"]


def two_burns() -> ProtocolConfig:
    return ProtocolConfig(
        segments=[
            SegmentConfig(8.0, pull_back_mm=2.0),
            SegmentConfig(6.0, "switching", needles=["c", "a"], pull_back_mm=15.0),
        ],
        cooling_after_min=1.5,
    )


def test_segments_follow_each_other_and_end_in_cooling() -> None:
    protocol = Protocol(two_burns(), NAMES)
    first, second = protocol.segments
    assert (first.start, first.end, second.start, second.end) == (0.0, 480.0, 480.0, 840.0)
    assert (protocol.cooling_start, protocol.duration) == (840.0, 930.0)
    assert protocol.segment_at(0.0) is first
    assert protocol.segment_at(479.9) is first
    assert protocol.segment_at(480.0) is second
    assert protocol.segment_at(840.0) is None
    assert first.active == (0, 1, 2)
    assert second.active == (0, 2)
    assert protocol.generator(second).terminals == ((0,), (1,), (2,))
    assert protocol.generator(second).duration == second.duration


def test_pull_back_adds_up_over_the_segments() -> None:
    protocol = Protocol(two_burns(), NAMES)
    needle = Electrode("a", (0.0, 0.0, 0.0), (0.0, 0.0, 0.1), 0.75e-3, 0.03)
    tips = [segment.electrodes([needle] * 3)[0].target_point[2] for segment in protocol.segments]
    assert tips == pytest.approx([2e-3, 17e-3])
    assert [s.pulled_back for s in protocol.segments] == pytest.approx([2e-3, 17e-3])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"duration_min": 0.0}, "duration_min=0"),
        ({"duration_min": -1.0}, "duration_min=-1"),
        ({"duration_min": math.nan}, "duration_min=nan"),
        ({"drive": "all"}, "drive='all'"),
        ({"needles": ["z"]}, "'z' is not in the layout; it has a, b, c"),
        ({"needles": ["a", "a"]}, "twice"),
        ({"pull_back_mm": -1.0}, "pull_back_mm"),
        ({"voltage": 101.0}, "limit of 100 V"),
        ({"power": 201.0}, "limit of 200 W"),
        ({"drive": "switching", "dwell_time": 0.0}, "dwell_time"),
        ({"drive": "switching", "dwell_time": 61.0}, "dwell_time=61 s is longer than the segment of 1 min"),
        ({"drive": "bipolar"}, "isolated generator, but protocol.ground='faces'"),
        ({"pairs": [["a", "b"]]}, "pairs is for drive: bipolar"),
    ],
)
def test_a_segment_that_makes_no_sense_is_refused(change: dict[str, object], words: str) -> None:
    segment = replace(SegmentConfig(duration_min=1.0), **change)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=words):
        Protocol(ProtocolConfig(segments=[segment]), NAMES)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mode": "magic"}, "mode='magic'"),
        ({"voltage": 101.0}, "voltage=101 V exceeds"),
        ({"maximum_current": 0.0}, "maximum_current"),
        ({"control_interval": 0.0}, "control_interval"),
        ({"mode": "constant_power", "power": 250.0}, "power=250 W exceeds"),
        ({"mode": "constant_power", "power": -1.0}, "power=-1"),
        ({"mode": "impedance_controlled", "minimum_power": 300.0}, "minimum_power=300 W exceeds"),
        ({"mode": "impedance_controlled", "power": 2.0}, "below minimum_power=5 W"),
        ({"mode": "impedance_controlled", "power_reduction": 1.5}, "power_reduction=1.5"),
        ({"mode": "impedance_controlled", "impedance_rise": math.inf}, "impedance_rise"),
        (
            {"mode": "impedance_controlled", "impedance_ceiling": 200.0, "maximum_impedance": 150.0},
            "impedance_ceiling=200 Ω lies above maximum_impedance=150 Ω",
        ),
        ({"mode": "ramp_to_roll_off", "phases": 0}, "phases=0"),
        ({"mode": "ramp_to_roll_off", "power_drop": 1.0}, "power_drop=1"),
        ({"mode": "ramp_to_roll_off", "minimum_power": 40.0}, "power=30 W is below minimum_power=40 W"),
        ({"mode": "temperature_controlled", "controlled_sensor": "warm"}, "controlled_sensor='warm'"),
        ({"mode": "temperature_controlled", "hold_time": 61.0}, "hold_time=61 s is longer than the 60 s"),
        ({"mode": "temperature_controlled", "control_interval": 5.0}, "control_interval=5 s is too long"),
        ({"mode": "temperature_controlled", "power": 0.0}, "power=0 must be positive"),
        ({"mode": "constant_current", "current": 7.0}, "current=7 A exceeds maximum_current=2 A times the 3"),
        (
            {"mode": "constant_power", "power": 100.0, "maximum_voltage": 10.0},
            "power=100 W can never be reached with maximum_voltage=10 V and .*, which allow 60 W",
        ),
        ({"maximum_impedance": 0.0}, "maximum_impedance=0 must be positive"),
    ],
)
def test_a_generator_that_contradicts_itself_is_refused(change: dict[str, object], words: str) -> None:
    generator = replace(GeneratorConfig(), **change)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=words):
        Protocol(ProtocolConfig(generator=generator, segments=[SegmentConfig(duration_min=1.0)]), NAMES)


def test_an_empty_protocol_and_negative_cooling_are_refused() -> None:
    with pytest.raises(InputError, match="segments is empty"):
        Protocol(ProtocolConfig(), NAMES)
    with pytest.raises(InputError, match="cooling_after_min=-1"):
        Protocol(ProtocolConfig(segments=[SegmentConfig(duration_min=1.0)], cooling_after_min=-1.0), NAMES)


# ---------------------------------------------------------------------------- units and pairs

UNITS = ["one.distal", "one.proximal", "cluster", "cluster"]
DEVICES = ["one", "one", "cluster", "cluster"]


def multipolar(segment: SegmentConfig, ground: str = "none") -> Protocol:
    config = ProtocolConfig(segments=[segment], ground=ground)
    return Protocol(config, ["one d", "one p", "c1", "c2"], UNITS, DEVICES)


def test_segments_name_devices_poles_and_single_electrodes() -> None:
    def active(*names: str) -> tuple[int, ...]:
        return multipolar(SegmentConfig(1.0, needles=list(names)), "faces").segments[0].active

    assert active("one") == (0, 1)
    assert active("one.proximal") == (1,)
    assert active("one p") == (1,)
    assert active("cluster") == (2, 3)
    assert active() == (0, 1, 2, 3)
    with pytest.raises(InputError, match=r"'c1' is not in the layout; it has one, cluster, one\.distal"):
        active("c1")  # bonded to c2
    with pytest.raises(InputError, match="twice"):
        active("one", "one.distal")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"pairs": [["one.distal", "one"]]},
            "'one' is no unit that the segment drives; these are one.distal",
        ),
        ({"pairs": [["cluster", "cluster"]]}, "two different units"),
        ({"pairs": [["cluster"]]}, "two different units"),
        ({"pairs": [["one.distal", "cluster"], ["cluster", "one.distal"]]}, "twice"),
        ({"needles": ["cluster"]}, "drives cluster alone; a pair needs two units"),
        ({"needles": ["one"], "pairs": [["one.distal", "cluster"]]}, "'cluster' is no unit"),
    ],
)
def test_pairs_that_are_none_are_refused(change: dict[str, object], words: str) -> None:
    segment = replace(SegmentConfig(duration_min=1.0, drive="bipolar"), **change)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=words):
        multipolar(segment)


def test_a_ground_and_a_bipolar_drive_exclude_each_other() -> None:
    bipolar = SegmentConfig(1.0, "bipolar")
    assert multipolar(bipolar).generator(multipolar(bipolar).segments[0]).terminals == ((0,), (1,), (2, 3))
    with pytest.raises(InputError, match="isolated generator"):
        multipolar(bipolar, "far_field")
    with pytest.raises(InputError, match=r"drive=together has no way back .*ground=none"):
        multipolar(SegmentConfig(1.0))


@pytest.mark.parametrize("mode", ["temperature_controlled", "ramp_to_roll_off"])
@pytest.mark.parametrize("drive", ["switching", "bipolar"])
def test_modes_with_a_history_cannot_switch(mode: str, drive: str) -> None:
    segments, ground = [SegmentConfig(1.0, drive)], "none" if drive == "bipolar" else "faces"
    config = ProtocolConfig(GeneratorConfig(mode=mode), segments, ground)
    with pytest.raises(InputError, match="cannot switch"):
        Protocol(config, NAMES)


def test_a_segment_that_ends_early_brings_the_others_forward() -> None:
    protocol = Protocol(two_burns(), NAMES)
    protocol.finish(0, 100.0)
    first, second = protocol.segments
    assert (first.end, second.start, second.end, protocol.duration) == (100.0, 100.0, 460.0, 550.0)
    assert protocol.segment_at(100.0) is second
    again = Protocol(two_burns(), NAMES)
    again.restore(protocol.ends)
    assert again.segments == protocol.segments
    protocol.finish(1, 100.0)  # at once
    assert protocol.segment_at(100.0) is None
    assert protocol.duration == 190.0


def serial(**settings: object) -> Protocol:
    segments = [SegmentConfig(2.0), SegmentConfig(1.0, pull_back_mm=10.0)]
    config = replace(ProtocolConfig(segments=segments, cooling_after_min=0.0), **settings)  # type: ignore[arg-type]
    return Protocol(config, NAMES)


def test_each_needle_in_turn_runs_all_segments_alone() -> None:
    protocol = serial(serial="needles")
    assert [s.standing for s in protocol.segments] == [(0,), (0,), (1,), (1,), (2,), (2,)]
    assert [s.active for s in protocol.segments] == [s.standing for s in protocol.segments]
    assert [s.turn for s in protocol.segments] == [0, 0, 1, 1, 2, 2]
    assert [s.pulled_back for s in protocol.segments] == pytest.approx([0.0, 0.01] * 3)
    assert protocol.duration == 3 * 180.0
    assert protocol.most_standing == 1
    assert protocol.generator(protocol.segments[4]).terminals == ((0,),)


def test_groups_stand_together_in_their_turn() -> None:
    protocol = serial(serial="groups", groups=[["c", "a"], ["b"]])
    assert [s.standing for s in protocol.segments] == [(0, 2), (0, 2), (1,), (1,)]
    assert protocol.segments[0].driven == (0, 1)
    assert protocol.most_standing == 2


def test_segments_of_a_serial_plan_name_who_stands_and_pull_back_counts_anew() -> None:
    segments = [
        SegmentConfig(1.0, needles=["a"]),
        SegmentConfig(1.0, needles=["a"], pull_back_mm=10.0),
        SegmentConfig(2.0, needles=["b", "c"]),
        SegmentConfig(1.0, needles=["a"]),
    ]
    protocol = serial(serial="segments", segments=segments)
    assert [s.standing for s in protocol.segments] == [(0,), (0,), (1, 2), (0,)]
    assert [s.turn for s in protocol.segments] == [0, 0, 1, 2]
    assert [s.pulled_back for s in protocol.segments] == pytest.approx([0.0, 0.01, 0.0, 0.0])


def test_the_whole_device_stands_where_one_of_its_poles_is_driven() -> None:
    config = ProtocolConfig(segments=[SegmentConfig(1.0, needles=["x.distal"])], serial="segments")
    protocol = Protocol(
        config, ["x.distal", "x.proximal", "y"], ["x.distal", "x.proximal", "y"], ["x", "x", "y"]
    )
    (segment,) = protocol.segments
    assert (segment.standing, segment.active, segment.driven) == ((0, 1), (0,), (0,))


def test_a_group_of_unknown_needles_is_refused() -> None:
    with pytest.raises(InputError, match=r"groups\[1\]: 'z' is not in the layout; it has a, b, c"):
        serial(serial="groups", groups=[["a"], ["z"]])
