"""The log of a real generator, and how far the simulated treatment is from it."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermosim.errors import InputError
from thermosim.simulation_result import Traces

LARGEST_FILE = 20_000_000
"""Bytes; a log of one treatment has a few hundred kilobytes."""

MOST_ROWS = 200_000

COLUMNS = {
    "power_w": ("power_w", 1.0),
    "power_kw": ("power_w", 1e3),
    "current_a": ("current_a", 1.0),
    "current_ma": ("current_a", 1e-3),
    "voltage_v": ("voltage_v", 1.0),
    "impedance_ohm": ("impedance_ohm", 1.0),
    "impedance_ω": ("impedance_ohm", 1.0),
    "temperature_c": ("temperature_c", 1.0),
    "temperature_°c": ("temperature_c", 1.0),
}
"""Columns of the file in lower case: quantity, and factor to its unit."""

TIMES = {"time_s": 1.0, "time_min": 60.0, "time": 1.0}
"""Columns of time: factor to seconds; ``mm:ss`` and ``h:mm:ss`` are understood in each."""

LIMITS = {
    "power_w": (0.0, 1e4),
    "current_a": (0.0, 1e3),
    "voltage_v": (0.0, 1e4),
    "impedance_ohm": (0.0, 1e6),
    "temperature_c": (-50.0, 300.0),
}
"""Readings outside these are no readings."""

Real = NDArray[np.float64]


@dataclass(frozen=True)
class GeneratorLog:
    """Readings of a real generator: `time` [s], rising, and what was logged by quantity, NaN where nothing.

    Quantities: ``power_w``, ``current_a``, ``voltage_v``, ``impedance_ohm`` at the generator's clamps,
    ``temperature_c`` of the device.
    """

    time: Real
    readings: dict[str, Real]


@dataclass(frozen=True)
class Deviation:
    """Simulated less measured, over `n_readings` readings: mean and root mean square in time."""

    mean: float
    rms: float
    n_readings: int


def read_generator_log(path: str | Path) -> GeneratorLog:
    """Read a CSV file with a header; fields are separated by comma, semicolon or tab.

    One column is the time (``time_s``, ``time_min`` or ``time``; numbers, ``mm:ss`` or ``h:mm:ss``), the
    others any of ``power_W``, ``current_A`` (or ``_mA``), ``voltage_V``, ``impedance_Ohm`` and
    ``temperature_C``. A cell may be empty; lines that begin with ``#`` are skipped.

    Raises
    ------
    InputError
        For a file that is missing, too large or no such table; a bad row by its line's number.
    """
    file = Path(path).expanduser()
    key = f"output.generator_log_file={file.name}"
    try:
        size = file.stat().st_size
        if size > LARGEST_FILE:
            raise InputError(
                f"{key} has {size / 1e6:.0f} MB, at most {LARGEST_FILE / 1e6:.0f} MB are read; cut it"
            )
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{key} cannot be read: {error.strerror}; give the path of a CSV file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{key} is no UTF-8 text; export it as CSV") from error
    lines = [(n, line) for n, line in enumerate(text.splitlines(), start=1) if _counts(line)]
    if not lines:
        raise InputError(f"{key} is empty; it needs a header such as time_s,power_W,impedance_Ohm")
    if len(lines) - 1 > MOST_ROWS:
        raise InputError(f"{key} has {len(lines) - 1} rows, at most {MOST_ROWS} are read; thin it out")
    separator = max(",;\t", key=lines[0][1].count)
    names = [name.strip().lower() for name in next(csv.reader([lines[0][1]], delimiter=separator))]
    time_column = _check_header(key, names)
    time: list[float] = []
    columns: dict[str, list[float]] = {name: [] for name in names if name in COLUMNS}
    for number, line in lines[1:]:
        cells = next(csv.reader([line], delimiter=separator))
        if len(cells) != len(names):
            raise InputError(f"{key} line {number} has {len(cells)} fields, the header {len(names)}; mend it")
        row = dict(zip(names, (cell.strip() for cell in cells), strict=True))
        moment = _seconds(row[time_column])
        if moment is None:
            raise InputError(f"{key} line {number}: {row[time_column]!r} is no time; use seconds or mm:ss")
        time.append(moment * (1.0 if ":" in row[time_column] else TIMES[time_column]))
        if len(time) > 1 and time[-1] <= time[-2]:
            raise InputError(f"{key} line {number}: its time {row[time_column]} is not after the line before")
        for name, values in columns.items():
            values.append(_reading(f"{key} line {number}", name, row[name]))
    if not time:
        raise InputError(f"{key} has a header but no readings; add rows")
    readings = {COLUMNS[name][0]: np.array(values) for name, values in columns.items()}
    return GeneratorLog(np.array(time), readings)


def _counts(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _check_header(key: str, names: list[str]) -> str:
    """The column of time."""
    times = [name for name in names if name in TIMES]
    known = "power_W, current_A, voltage_V, impedance_Ohm, temperature_C"
    if len(times) != 1:
        raise InputError(f"{key}: its header has {len(times)} columns of time; it needs one, such as time_s")
    for name in names:
        if name not in COLUMNS and name not in TIMES:
            raise InputError(f"{key}: the column {name!r} is not known; use some of {known}, or remove it")
    quantities = [COLUMNS[name][0] for name in names if name in COLUMNS]
    if not quantities:
        raise InputError(f"{key}: its header has no reading; add some of {known}")
    if len(set(quantities)) < len(quantities):
        raise InputError(f"{key}: its header names a quantity twice; keep one column of each")
    return times[0]


def _seconds(text: str) -> float | None:
    """``12.5`` as it is, ``3:05`` and ``1:03:05`` in seconds; None for anything else."""
    parts = text.split(":")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        return None
    if len(values) > 3 or not all(math.isfinite(v) and v >= 0 for v in values):
        return None
    if any(v >= 60.0 for v in values[1:]):
        return None
    return float(sum(value * 60.0**power for power, value in enumerate(reversed(values))))


def _reading(where: str, name: str, text: str) -> float:
    if not text:
        return math.nan
    quantity, factor = COLUMNS[name]
    low, high = LIMITS[quantity]
    try:
        value = factor * float(text)
    except ValueError as error:
        raise InputError(f"{where}: {text!r} under {name} is no number; mend it or leave it empty") from error
    if not (math.isfinite(value) and low <= value <= high):
        raise InputError(
            f"{where}: {text} under {name} is out of range (as {quantity} {low:g} to {high:g}); mend it or "
            "leave it empty"
        )
    return value


def at_the_clamps(traces: Traces, sensor: str = "mean") -> dict[str, Real]:
    """What a generator would have logged, at the times of the traces.

    V = √(P Z) and I = √(P/Z) of all that leaves the generator; 0 while it is off, the impedance then
    NaN. `sensor`: ``mean``, ``highest`` or ``lowest`` of all sensors.
    """
    power, impedance = np.asarray(traces.generator_power, float), np.asarray(traces.impedance, float)
    on = np.isfinite(impedance)
    known = np.where(on, impedance, 1.0)
    found = {
        "power_w": power,
        "voltage_v": np.where(on, np.sqrt(power * known), 0.0),
        "current_a": np.where(on, np.sqrt(power / known), 0.0),
        "impedance_ohm": impedance,
    }
    if traces.sensor_temperature.size:
        choose: dict[str, Callable[..., Real]] = {"mean": np.mean, "highest": np.max, "lowest": np.min}
        found["temperature_c"] = np.asarray(choose[sensor](traces.sensor_temperature, axis=1))
    return found


def deviations(log: GeneratorLog, traces: Traces, sensor: str = "mean") -> dict[str, Deviation]:
    """Simulated less measured for each logged quantity over the time that both cover.

    Each reading counts for the time to the middle between it and its neighbours. The generator's output
    holds between two rows of the traces; temperatures are interpolated. Readings where either is missing
    (an impedance while off) do not count.
    """
    simulated, found = at_the_clamps(traces, sensor), {}
    time = np.asarray(traces.time, float)
    if not len(time):
        return {}
    within = (log.time >= time[0]) & (log.time <= time[-1])
    middle = 0.5 * (log.time[1:] + log.time[:-1])
    weight = (
        np.diff(np.concatenate([log.time[:1], middle, log.time[-1:]])) if len(log.time) > 1 else np.ones(1)
    )
    before = np.clip(np.searchsorted(time, log.time, side="right") - 1, 0, None)
    for quantity, measured in log.readings.items():
        if quantity not in simulated:
            continue
        values = simulated[quantity]
        there = np.interp(log.time, time, values) if quantity == "temperature_c" else values[before]
        counts = within & np.isfinite(measured) & np.isfinite(there)
        total = float(weight[counts].sum())
        if total <= 0.0:
            found[quantity] = Deviation(math.nan, math.nan, int(counts.sum()))
            continue
        difference = (there - measured)[counts]
        mean = float(weight[counts] @ difference) / total
        rms = math.sqrt(float(weight[counts] @ difference**2) / total)
        found[quantity] = Deviation(mean, rms, int(counts.sum()))
    return found


def log_summary(log: GeneratorLog | None, traces: Traces, sensor: str) -> Mapping[str, Any] | None:
    """The comparison as plain values for summary.json; None without a log."""
    if log is None:
        return None
    return {
        "first_reading_s": float(log.time[0]),
        "last_reading_s": float(log.time[-1]),
        "deviation": {
            quantity: {"mean": one.mean, "rms": one.rms, "n_readings": one.n_readings}
            for quantity, one in deviations(log, traces, sensor).items()
        },
    }
