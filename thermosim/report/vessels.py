"""What open vessels took away: rows of the summary, datasets of the HDF5 file, a table of the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from thermosim.simulation import SimulationResult

MILLILITRES_PER_MINUTE = 6e7


def vessel_summary(result: SimulationResult) -> list[dict[str, Any]]:
    """One entry for each group of open vessels; see docs/outputs.md."""
    rows = []
    for vessel in result.vessels:
        film, stream = vessel.film_coefficient, vessel.stream
        least, mean, largest = film if film is not None else (None, None, None)
        rows.append(
            {
                "group": vessel.group,
                "model": vessel.model,
                "flow_ml_min": None if vessel.flow is None else MILLILITRES_PER_MINUTE * vessel.flow,
                "film_w_m2_k": {"least": least, "mean": mean, "largest": largest},
                "inlet_temperature_c": vessel.inlet_temperature,
                "wall_heat_j": vessel.wall_heat,
                "joule_heat_j": None if stream is None else stream.joule_heat,
                "enthalpy_gain_j": None if stream is None else stream.enthalpy_gain,
                "relative_error": None if stream is None else stream.relative_error,
                "outlet_temperature_c": _last(stream.outlet_temperature) if stream is not None else None,
                "highest_outlet_temperature_c": _highest(stream.outlet_temperature) if stream else None,
                "highest_blood_temperature_c": _highest(stream.highest_temperature) if stream else None,
            }
        )
    return rows


def _last(values: Any) -> float | None:
    return float(values[-1]) if len(values) else None


def _highest(values: Any) -> float | None:
    return float(values.max()) if len(values) else None


def write_vessels(group: Any, result: SimulationResult, put: Callable[..., Any]) -> None:
    """Blood that warmed along its way, segment by segment."""
    for vessel in result.vessels:
        stream = vessel.stream
        if stream is None:
            continue
        one = group.create_group(vessel.group.replace("/", "_"))
        put(one, "time", stream.time, "s", "time since the start of the treatment")
        put(one, "outlet_temperature", stream.outlet_temperature, "degC", "mixed blood that leaves the tree")
        put(one, "start", stream.start, "m", "end of each segment towards the root, LPS")
        put(one, "end", stream.end, "m", "other end of each segment, LPS")
        put(one, "radius", stream.radius, "m", "radius of each segment")
        put(one, "flow", stream.flow, "m3/s", "flow in each segment")
        put(one, "temperature", stream.temperature, "degC", "blood in each segment at the end")
        put(one, "highest_temperature", stream.highest_temperature, "degC", "highest in each segment")


def vessel_table(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the page's table; no rows without open vessels."""

    def text(value: Any, digits: int = 1) -> str:
        return "–" if value is None else f"{value:.{digits}f}"

    head = ["Vessels", "Model", "Flow mL/min", "Film W/(m² K)", "Inlet °C"]
    head += ["Outlet °C, end", "Outlet °C, highest", "Heat from tissue kJ"]
    rows = [
        [
            v["group"].replace("_", " "),
            v["model"],
            text(v["flow_ml_min"]),
            text(v["film_w_m2_k"]["mean"], 0),
            text(v["inlet_temperature_c"]),
            text(v["outlet_temperature_c"], 2),
            text(v["highest_outlet_temperature_c"], 2),
            text(1e-3 * v["wall_heat_j"], 2),
        ]
        for v in summary.get("vessels", [])
    ]
    return head, rows
