"""Readings of generator and sensors over time, with a real generator's log over them, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from thermosim.report import charts
from thermosim.report.charts import GRID_LINE, INK, MOST_POINTS, MUTED, nice_ticks, svg_text
from thermosim.report.generator_log import GeneratorLog, at_the_clamps
from thermosim.simulation_result import SimulationResult, TreatmentEvent

Real = NDArray[np.float64]

COLORS = ("#24508f", "#b3202c", "#0b6e63", "#7b58a8", "#b5651d", "#2a8fbd", "#8a8d00", "#c2478b")
MEASURED = "#111111"
EVENT_COLORS = {
    "rise": "#b3202c",
    "power_drop": "#b3202c",
    "limit": "#b5651d",
    "target_reached": "#0b6e63",
    "hold_end": "#0b6e63",
    "done": "#0b6e63",
    "pulse": MUTED,
    "turn": MUTED,
}
EVENT_NAMES = (
    (MUTED, "a pulse or a turn begins"),
    ("#b3202c", "impedance rises"),
    ("#b5651d", "a limit holds the output"),
    ("#0b6e63", "target reached, hold over, done"),
)
MOST_MARKS = 200
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 470, 226, 52, 34, 42, 12


@dataclass(frozen=True)
class Series:
    """One line: `steps` where a value holds until the next, `dashed` for what was measured."""

    name: str
    color: str
    minutes: Real
    values: Real
    steps: bool = False
    dashed: bool = False


def traces_section(result: SimulationResult, log: GeneratorLog | None, sensor: str = "mean") -> str:
    """All charts over time, and what the colours mean."""
    traces = result.traces
    minutes = np.asarray(traces.time, float) / 60.0
    clamps = at_the_clamps(traces, sensor)

    def steps(name: str, values: Real, color: str = COLORS[0]) -> Series:
        return Series(name, color, minutes, np.asarray(values, float), steps=True)

    def per_unit(values: Real) -> list[Series]:
        return [
            steps(name, values[:, column], COLORS[column % len(COLORS)])
            for column, name in enumerate(result.units)
        ]

    def measured(quantity: str) -> list[Series]:
        if log is None or quantity not in log.readings:
            return []
        return [Series("measured", MEASURED, log.time / 60.0, log.readings[quantity], dashed=True)]

    impedance = per_unit(traces.unit_impedance) if len(result.units) > 1 else []
    current = per_unit(traces.unit_current) if len(result.units) > 1 else []
    sensors = [
        Series(one.name, COLORS[column % len(COLORS)], minutes, traces.sensor_temperature[:, column])
        for column, one in enumerate(result.sensors)
    ]
    hottest = Series("hottest tissue", "#b3202c", minutes, np.asarray(traces.hottest_temperature, float))
    drawn: list[tuple[str, str, list[Series], float | None]] = [
        ("Power", "W", [steps("simulated", clamps["power_w"]), *measured("power_w")], 0.0),
        ("Voltage", "V RMS", [steps("simulated", clamps["voltage_v"]), *measured("voltage_v")], 0.0),
        (
            "Current",
            "A RMS",
            [*(current or [steps("simulated", clamps["current_a"])]), *measured("current_a")],
            0.0,
        ),
        (
            "Impedance",
            "Ω",
            [*(impedance or [steps("simulated", clamps["impedance_ohm"])]), *measured("impedance_ohm")],
            None,
        ),
        ("Hottest temperature", "°C", [hottest], None),
        ("Ablated volume", "mL", [Series("", "#0b6e63", minutes, 1e6 * traces.ablated_volume)], 0.0),
    ]
    if sensors or measured("temperature_c"):
        drawn.insert(4, ("Sensors", "°C", [*sensors, *measured("temperature_c")], None))
    body = "".join(chart(title, unit, series, low, result.events) for title, unit, series, low in drawn)
    marks = charts.legend(EVENT_NAMES) if result.events else ""
    return f'<h2>Over time</h2><div class="two">{body}</div>{marks}'


def chart(
    title: str,
    unit: str,
    series: Sequence[Series],
    low: float | None,
    events: Sequence[TreatmentEvent] = (),
) -> str:
    """Readings over time with a legend where there are several. NaN leaves a gap.

    `low`: the axis reaches down to it, None for a free start. `events` are ticks above the axis.
    """
    series = [_thinned(one) for one in series if len(one.minutes) > 1 and np.isfinite(one.values).any()]
    if not series:
        return f'<p class="muted">{escape(title)}: no readings.</p>'
    values = np.concatenate([one.values[np.isfinite(one.values)] for one in series])
    least = float(values.min())
    ticks = nice_ticks(least if low is None else min(low, least), float(values.max()), 4)
    end = max(1e-6, *(float(one.minutes[-1]) for one in series))
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - BOTTOM - TOP

    def px(minutes: Real | float) -> Real:
        return np.asarray(LEFT + wide * np.asarray(minutes) / end)

    def py(reading: Real | float) -> Real:
        return np.asarray(HEIGHT - BOTTOM - high * (np.asarray(reading) - ticks[0]) / (ticks[-1] - ticks[0]))

    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title, quote=True)}">',
        svg_text(LEFT, 16, f"{title} [{unit}]", "start", INK, ' font-weight="600"'),
    ]
    for tick in ticks:
        y = float(py(tick))
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{GRID_LINE}"/>')
        parts.append(svg_text(LEFT - 7, y + 4, f"{tick:g}", "end"))
    for tick in (tick for tick in nice_ticks(0.0, end, 6) if tick <= end):
        parts.append(f'<path d="M{float(px(tick)):.1f} {HEIGHT - BOTTOM}v4" stroke="{MUTED}"/>')
        parts.append(svg_text(float(px(tick)), HEIGHT - BOTTOM + 17, f"{tick:g}"))
    parts.append(svg_text(WIDTH - RIGHT, HEIGHT - 3, "minutes", "end"))
    parts += _marks(events, end)
    parts += [_path(one, px(one.minutes), py(one.values)) for one in series]
    if len(series) > 1:
        parts.append(_legend(series))
    return "".join(parts) + "</svg>"


def _thinned(one: Series) -> Series:
    """At most `MOST_POINTS` readings, evenly chosen, the last among them."""
    if len(one.minutes) <= MOST_POINTS:
        return one
    keep = np.unique(np.linspace(0, len(one.minutes) - 1, MOST_POINTS).round().astype(int))
    return Series(one.name, one.color, one.minutes[keep], one.values[keep], one.steps, one.dashed)


def _path(one: Series, x: Real, y: Real) -> str:
    drawn, pen = [], False
    for place, (left, level) in enumerate(zip(x, y, strict=True)):
        if not math.isfinite(level):
            pen = False
            continue
        drawn.append(f"{'L' if pen else 'M'}{left:.1f} {level:.1f}")
        if one.steps and place + 1 < len(x):
            drawn.append(f"H{x[place + 1]:.1f}")
        pen = True
    dash = ' stroke-dasharray="4 3"' if one.dashed else ""
    return f'<path d="{"".join(drawn)}" fill="none" stroke="{one.color}" stroke-width="1.6"{dash}/>'


def _marks(events: Sequence[TreatmentEvent], end: float) -> list[str]:
    """Short ticks above the plot, evenly thinned where there are too many."""
    shown = [event for event in events if event.kind.partition(":")[0] in EVENT_COLORS]
    stride = max(1, math.ceil(len(shown) / MOST_MARKS))
    wide = WIDTH - LEFT - RIGHT
    return [
        f'<path d="M{LEFT + wide * event.time / 60.0 / end:.1f} {TOP - 7}v6" '
        f'stroke="{EVENT_COLORS[event.kind.partition(":")[0]]}"/>'
        for event in shown[::stride]
        if event.time / 60.0 <= end
    ]


def _legend(series: Sequence[Series]) -> str:
    """Names in their colours under the title, as many as fit."""
    parts, place = [], float(LEFT)
    for one in series:
        width = 18.0 + 6.2 * len(one.name)
        if place + width > WIDTH - RIGHT:
            parts.append(svg_text(place, 30, "…", "start"))
            break
        parts.append(f'<path d="M{place:.1f} 26h10" stroke="{one.color}" stroke-width="2"/>')
        parts.append(svg_text(place + 13, 30, one.name, "start"))
        place += width + 8.0
    return "".join(parts)
