"""Where the needles stood during a treatment, for pictures and tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thermosim.applicators.electrode import Electrode
from thermosim.report.zones import setting
from thermosim.simulation import SimulationResult
from thermosim.units import MILLIMETRE, MINUTE


def poses(result: SimulationResult, config: Mapping[str, Any]) -> list[tuple[Electrode, ...]]:
    """The electrodes at each of their places, in order of time; the last entry is `result.electrodes`.

    Needles move between segments only, all of them together (`pull_back_mm`). Segments that a
    stopped run did not reach do not count.
    """
    pulled_back = [0.0]
    start = 0.0
    for number, segment in enumerate(setting(config, "protocol.segments") or ()):
        known = result.segment_times  # a segment may have ended early, so that the next one began early
        if number >= len(known) if known else 0.0 < start >= result.treatment_time:
            break
        pulled_back.append(pulled_back[-1] + (segment.get("pull_back_mm") or 0.0) * MILLIMETRE)
        start += segment["duration_min"] * MINUTE
    places = list(dict.fromkeys(pulled_back[1:])) or [0.0]
    return [
        result.electrodes
        if place == places[-1]
        else tuple(electrode.moved(place - places[-1]) for electrode in result.electrodes)
        for place in places
    ]
