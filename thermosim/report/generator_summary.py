"""What generator and sensors did, as plain values for summary.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from thermosim.report.zones import setting
from thermosim.simulation_result import SimulationResult

MOST_EVENTS = 500
"""Events listed in summary.json; all of them are in result.h5."""


def headline_impedance(result: SimulationResult, config: Mapping[str, Any]) -> dict[str, float]:
    """First and last impedance of the treatment, NaN where they belong to different things.

    They can be compared while one and the same group of electrodes is driven at one place: not when
    needles take turns, nor across a pull-back.
    """
    groups = {event.unit for event in result.events}
    segments = setting(config, "protocol.segments") or ()
    moved = any(segment.get("pull_back_mm") for segment in segments[1 : max(1, len(result.segment_times))])
    same = len(groups) <= 1 and not moved
    return {
        "initial": result.initial_impedance if same else float("nan"),
        "final": result.final_impedance if same else float("nan"),
    }


def generator_summary(result: SimulationResult) -> dict[str, Any]:
    """Units, sensors, segments and events; keys end in their unit."""
    return {
        "units": _units(result),
        "sensors": _sensors(result),
        "segments": [
            {"number": number, "start_s": start, "end_s": end, "electrodes": _standing(result, number)}
            for number, (start, end) in enumerate(result.segment_times)
        ],
        "event_counts": dict(Counter(event.kind for event in result.events)),
        "events": [
            {"time_s": event.time, "kind": event.kind, "unit": event.unit, "value": event.value}
            for event in result.events[:MOST_EVENTS]
        ],
    }


def _standing(result: SimulationResult, number: int) -> list[dict[str, Any]]:
    """The electrodes that stood in the tissue in a segment, and where their tips were."""
    standing = result.places[number] if number < len(result.places) else result.electrodes
    return [{"name": e.name, "target_lps_mm": 1e3 * np.asarray(e.target_point)} for e in standing]


def _units(result: SimulationResult) -> list[dict[str, Any]]:
    traces = result.traces
    return [
        {
            "name": name,
            "highest_power_w": _highest(np.abs(traces.unit_power[:, column])),
            "highest_voltage_v": _highest(np.abs(traces.unit_voltage[:, column])),
            "highest_current_a": _highest(np.abs(traces.unit_current[:, column])),
            "impedance": [
                {"segment": one.segment, "initial_ohm": one.initial, "final_ohm": one.final}
                for one in result.unit_impedances
                if one.unit == name
            ],
        }
        for column, name in enumerate(result.units)
    ]


def _sensors(result: SimulationResult) -> list[dict[str, Any]]:
    readings = result.traces.sensor_temperature
    return [
        {
            "name": sensor.name,
            "unit": sensor.unit,
            "highest_c": _highest(readings[:, column]),
            "final_c": float(readings[-1, column]) if len(readings) else None,
        }
        for column, sensor in enumerate(result.sensors)
    ]


def _highest(values: Any) -> float | None:
    finite = np.asarray(values)[np.isfinite(values)]
    return float(finite.max()) if finite.size else None
