"""What a published paper measures, read from a simulated case."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from thermosim.build import Result
from thermosim.outcome.criteria import CRITERIA, level_set

MILLI = 1e-3
REACH_STEP = 0.1e-3
"""A ray is walked in steps of 0.1 mm: far below the cell."""


def observe(result: Result, requests: list[dict[str, Any]]) -> dict[str, Any]:
    """All that measurements may ask for, as plain values.

    Parameters
    ----------
    requests : ``{"quantity": "temperature_c", "point_mm": [...]}`` and
        ``{"quantity": "zone_reach_mm", "point_mm": [...], "direction": [...]}``, answered in order
        under ``answers``.
    """
    simulation, outcome = result.simulation, result.outcome
    traces = simulation.traces
    on = np.flatnonzero(traces.total_power > 0)
    zones = {}
    for name in CRITERIA:
        zone = outcome.zones.get(name)
        if zone is None:
            zones[name] = {"volume_ml": 0.0, "axes_mm": [0.0, 0.0, 0.0], "touches_box": False}
            continue
        zones[name] = {
            "volume_ml": 1e6 * zone.volume,
            "axes_mm": [1e3 * axis for axis in (zone.long_axis, zone.middle_axis, zone.short_axis)],
            "touches_box": bool(zone.touches_box),
        }
    return {
        "criterion": outcome.criterion,
        "zones": zones,
        "energy_kj": simulation.audit.electrical / 1e3,
        "duration_min": float(traces.time[on[-1]]) / 60.0 if len(on) else 0.0,
        "impedance_ohm": [simulation.initial_impedance, simulation.final_impedance],
        "highest_power_w": float(np.nanmax(traces.total_power)),
        "highest_c": float(simulation.highest_temperature.max()),
        "audit_error": simulation.audit.relative_error,
        "answers": [_answer(result, request) for request in requests],
        "cells": list(simulation.anatomy.grid.shape),
        "spacing_mm": 1e3 * simulation.anatomy.grid.spacing[0],
        "seconds": simulation.run.solver_seconds,
        "device": simulation.run.device,
        "kernel_digest": simulation.run.kernel_digest,
    }


def value(observed: dict[str, Any], quantity: str, answer: int | None = None) -> float:
    """One quantity of `catalogue.QUANTITIES` from what `observe` returned."""
    zone = observed["zones"][observed["criterion"]]
    if quantity == "zone_volume_ml":
        return float(zone["volume_ml"])
    if quantity == "zone_long_axis_mm":
        return float(zone["axes_mm"][0])
    if quantity == "zone_transverse_mm":
        return float(0.5 * (zone["axes_mm"][1] + zone["axes_mm"][2]))
    if answer is not None:
        return float(observed["answers"][answer])
    return float(observed[quantity])


def _answer(result: Result, request: dict[str, Any]) -> float:
    point = MILLI * np.asarray(request["point_mm"], float)
    if request["quantity"] == "temperature_c":
        return float(sample(result, result.simulation.temperature, point[None])[0])
    direction = np.asarray(request["direction"], float)
    return 1e3 * reach(result, point, direction / np.linalg.norm(direction))


def sample(result: Result, field: NDArray[np.floating], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Trilinear values of a field at points [m, LPS]; outside the box that of the nearest cell."""
    grid = result.simulation.anatomy.grid
    first = np.array([grid.axis(axis)[0] for axis in range(3)])
    cells = ((points - first) / np.asarray(grid.spacing)).T
    return np.asarray(map_coordinates(np.asarray(field, np.float64), cells, order=1, mode="nearest"))


def reach(result: Result, start: NDArray[np.float64], direction: NDArray[np.float64]) -> float:
    """How far the zone goes from a point along a unit vector [m]: its outermost edge on the ray."""
    level = level_set(result.simulation, result.outcome.criterion, result.case.config.damage)
    grid = result.simulation.anatomy.grid
    far = float(np.linalg.norm(np.asarray(grid.shape) * np.asarray(grid.spacing)))
    distances = np.arange(0.0, far, REACH_STEP)
    inside = sample(result, level, start + distances[:, None] * direction) > 0
    return float(distances[np.flatnonzero(inside)[-1]]) if inside.any() else 0.0
