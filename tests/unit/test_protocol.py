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
    tips = [segment.electrodes([needle])[0].target_point[2] for segment in protocol.segments]
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
