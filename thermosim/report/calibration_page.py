"""The page of a calibration: what the data tell, and how well data that were not fitted are met."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.report import page
from thermosim.report.charts import GRID_LINE, INK, svg_text
from thermosim.report.comparison_page import DIFFERENCE_CLASSES
from thermosim.report.comparison_page import legend as difference_legend
from thermosim.report.margin_map import surface_map
from thermosim.report.meshes import layer_name
from thermosim.report.tables import number, percent, safe, table
from thermosim.report.trace_charts import COLORS, Series, chart

STATUS = {
    "fitted": "fitted",
    "not_told": "not told by the data: kept at its start",
    "at_bound": "ran into its bound: no estimate",
}
PRIOR, FITTED, OPEN = "#c4c9cf", "#0b6e63", "#b3202c"
UNITS = {"impedance_ohm": ("Impedance", "Ω"), "power_w": ("Power", "W"), "voltage_v": ("Voltage", "V")}
UNITS["current_a"] = ("Current", "A")

LIMITS = (
    "The fit takes the model as true. Whatever the model leaves out (steam, shrinkage, needles that stand "
    "elsewhere than planned) is put on the parameters as well.",
    "One zone and one log are few data. Values fitted to one treatment need not hold for another; the "
    "held-out part belongs to the same treatment unless a whole one was held out.",
    "Uncertainties are those of the problem made linear at the best fit, with the stated standard "
    "deviations and normal priors of ln(value); they hold no error of the model.",
    "The grid is a coarse one for planning; a finer one moves zone and impedance by some per cent.",
)


@dataclass(frozen=True)
class LogDrawing:
    """One quantity over time [s]."""

    quantity: str
    measured: tuple[NDArray[np.float64], NDArray[np.float64]]
    before: tuple[NDArray[np.float64], NDArray[np.float64]]
    after: tuple[NDArray[np.float64], NDArray[np.float64]]
    held_out_from: float


@dataclass(frozen=True)
class Drawings:
    """What is drawn of one treatment.

    `surface` observed, with the signed `difference` [m] of the fit on it, `held_out` vertices; `logs`: what
    the generator read.
    """

    name: str
    surface: TriangleSurface | None
    difference: NDArray[np.float64]
    held_out: NDArray[np.bool_]
    logs: tuple[LogDrawing, ...]


def calibration_page(summary: Mapping[str, Any], drawings: Sequence[Drawings]) -> str:
    """The page as text; every number shown comes from `summary`."""
    head = page.header(
        summary["title"],
        f"Unknowns of a case fitted to what was observed; zone by: {safe(summary['criterion'])}; grid of "
        f"{number(summary['grid_spacing_mm'], 1, 'mm')}. Calculated {safe(summary['created'][:10])}.",
        summary["disclaimer"],
    )
    sections = [
        head,
        page.verdict_box("calibration", _verdict(summary), _facts(summary)),
        "<h2>What the data tell</h2>",
        _forest(summary["parameters"]),
        _parameters(summary["parameters"]),
        _identifiability(summary["identifiability"]),
        "<h2>Before and after the fit</h2>",
        _errors(summary["treatments"]),
        *(_drawn(one) for one in drawings),
        "<h2>To use it</h2>",
        f"<p><code>{safe(summary['command'])}</code></p>",
        page.limits("What these numbers do not know", LIMITS, summary["notes"], summary["disclaimer"]),
    ]
    return page.document(summary["title"], sections, None)


def _verdict(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = summary["parameters"]
    told = [name for name, one in parameters.items() if one["status"] == "fitted"]
    if not told:
        return {
            "level": "fail",
            "sentence": "The data tell none of the parameters",
            "details": ["They are all left where they were; more or better data are needed."],
        }
    values = ", ".join(
        f"{layer_name(name)} {parameters[name]['value']:.3g} ± {parameters[name]['sd']:.2g}" for name in told
    )
    others = [name for name in parameters if name not in told]
    details = [f"Not fitted: {', '.join(layer_name(name) for name in others)}."] if others else []
    for treatment in summary["treatments"]:
        for name, part in treatment["after"]["held_out"].items():
            before = treatment["before"]["held_out"][name]
            key, scale, unit = ("rms_mm", 1.0, "mm") if name == "zone" else ("rms_log_ratio", 100.0, "%")
            details.append(
                f"Check on data that were not fitted ({safe(treatment['name'])}, {_quantity(name)}): "
                f"{number(scale * before[key], 1, unit)} before, {number(scale * part[key], 1, unit)} after."
            )
    good = len(told) == len(parameters) and summary["fit"]["converged"]
    return {"level": "pass" if good else "warn", "sentence": values, "details": details}


def _facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    fit = summary["fit"]
    condition = summary["identifiability"]["condition_number"]
    return [
        (str(fit["simulations"]), "simulations"),
        (number(fit["independent_readings"], 1), "independent readings fitted"),
        (number(math.sqrt(fit["residual_variance"]), 2), "misfit in units of the stated sd"),
        ("∞" if condition is None else number(condition, 1), "condition number: 1 is best"),
    ]


def _quantity(name: str) -> str:
    return "zone" if name == "zone" else UNITS[name][0].lower()


def _forest(parameters: Mapping[str, Any]) -> str:
    """Prior and result of each parameter as factors of its start, on a logarithmic axis."""
    width, row, left, right, top = 900, 46, 150, 40, 20
    height = top + row * len(parameters) + 40
    reach = max(1.96 * one["prior_sd"] for one in parameters.values())
    reach = max(reach, *(abs(math.log(one["ended_at"] / one["start"])) for one in parameters.values())) * 1.05

    def px(log: float) -> float:
        return float(left + (width - left - right) * (min(max(log, -reach), reach) / reach + 1.0) / 2.0)

    parts = [f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="Prior and result">']
    factors = [f for f in (0.1, 0.2, 0.5, 0.8, 1.0, 1.25, 2.0, 5.0, 10.0) if abs(math.log(f)) <= reach]
    for factor in factors:
        x = px(math.log(factor))
        parts.append(f'<path d="M{x:.1f} {top}V{height - 36}" stroke="{GRID_LINE}"/>')
        parts.append(svg_text(x, height - 20, f"× {factor:g}"))
    for place, (name, one) in enumerate(parameters.items()):
        y = top + row * (place + 0.5)
        parts.append(svg_text(left - 14, y + 4, layer_name(name), "end", INK))
        spread = 1.96 * one["prior_sd"]
        parts.append(_bar(px(-spread), px(spread), y - 8, PRIOR))
        middle, own = math.log(one["ended_at"] / one["start"]), 1.96 * one["log_sd"]
        color = FITTED if one["status"] == "fitted" else OPEN
        parts.append(_bar(px(middle - own), px(middle + own), y + 8, color))
        parts.append(f'<circle cx="{px(middle):.1f}" cy="{y + 8:.1f}" r="5" fill="{color}"/>')
    parts.append(svg_text((left + width - right) / 2, height - 4, "factor on the start; 95 % intervals"))
    names = [(PRIOR, "before the data"), (FITTED, "after, fitted"), (OPEN, "after, not told or at a bound")]
    swatches = "".join(f'<span><i style="background:{color}"></i>{name}</span>' for color, name in names)
    return "".join(parts) + f'</svg><p class="legend">{swatches}</p>'


def _bar(x: float, other: float, y: float, color: str) -> str:
    return (
        f'<path d="M{x:.1f} {y:.1f}H{other:.1f}" stroke="{color}" stroke-width="7" stroke-linecap="round"/>'
    )


def _figure(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}".replace("-", "−")


def _parameters(parameters: Mapping[str, Any]) -> str:
    rows = []
    for name, one in parameters.items():
        interval = one["interval_95"]
        rows.append(
            [
                safe(layer_name(name)),
                STATUS[one["status"]],
                _figure(one["start"]),
                _figure(one["value"]),
                _figure(one["sd"]),
                "–" if interval is None else f"{_figure(interval[0])} to {_figure(interval[1])}",
                percent(one["share_of_prior"]),
            ]
        )
    head = ["Parameter", "", "Start", "Value", "sd", "95 % interval", "Uncertainty left of the prior's"]
    keys = "; ".join(f"{layer_name(n)}: {', '.join(one['keys'])}" for n, one in parameters.items())
    return (
        f'{table(head, rows, texts=2)}<p class="muted">{safe(keys)}. The value is that of the first key.</p>'
    )


def _identifiability(found: Mapping[str, Any]) -> str:
    names = list(found["correlation"])
    if len(names) < 2:
        return ""
    rows = [
        [safe(layer_name(one)), *(number(found["correlation"][one][other], 2) for other in names)]
        for one in names
    ]
    tellings = []
    for combination in found["combinations"]:
        weights = ", ".join(
            f"{layer_name(name)} {number(value, 2)}" for name, value in combination["weights"].items()
        )
        share = combination["share_of_prior"]
        left = "not at all" if share is None else f"to {100 * share:.0f} % of the prior's sd"
        tellings.append(f"<li>{safe(weights)}: known {left}</li>")
    return (
        f"<h3>Correlation after the fit</h3>{table(['', *map(layer_name, names)], rows)}<h3>Combinations, "
        "best known first</h3><p class='muted'>Directions in ln(value) over the prior's sd, and how well "
        f"the data alone know them.</p><ul>{''.join(tellings)}</ul>"
    )


def _errors(treatments: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for treatment in treatments:
        if "observed_volume_ml" in treatment:
            volumes = [treatment[when]["predicted_volume_ml"] for when in ("before", "after")]
            observed = number(treatment["observed_volume_ml"])
            rows.append(
                [
                    safe(treatment["name"]),
                    f"volume [mL], {observed} observed",
                    *map(number, volumes),
                    "–",
                    "–",
                ]
            )
        for part in ("fitted", "held_out"):
            for name, before in treatment["before"][part].items():
                after = treatment["after"][part][name]
                what = f"{_quantity(name)}, {part.replace('_', ' ')}"
                if name == "zone":
                    keys, scale, text, base = ("rms_mm", "mean_difference_mm"), (1.0, 1.0), "[mm]", 0.0
                else:
                    keys, scale, text, base = ("rms_log_ratio", "mean_ratio"), (100.0, 100.0), "[%]", 100.0
                values = [
                    number(s * side[key] - (base if key == "mean_ratio" else 0.0))
                    for key, s in zip(keys, scale, strict=True)
                    for side in (before, after)
                ]
                rows.append([safe(treatment["name"]), f"{what} {text}", *values])
    head = ["Treatment", "", "rms before", "rms after", "mean before", "mean after"]
    return (
        table(head, rows, texts=2)
        + '<p class="muted">Zone: signed distance by which the prediction reaches beyond the observed one. '
        "Readings: simulated over measured.</p>"
    )


def _drawn(one: Drawings) -> str:
    parts = []
    if one.surface is not None:
        drawn = surface_map(
            one.name,
            one.surface,
            one.difference,
            DIFFERENCE_CLASSES,
            (),
            one.held_out,
            label="Map of the difference",
        )
        parts.append(
            f"<div><h3>{safe(layer_name(one.name))}: the observed surface unfolded, after the fit</h3>{drawn}"
            f'<p class="muted">Hatched: held out of the fit.</p>{difference_legend()}</div>'
        )
    for log in one.logs:
        name, unit = UNITS[log.quantity]
        series = [
            Series("measured", "#111111", log.measured[0] / 60.0, log.measured[1], dashed=True),
            Series("before", COLORS[4], log.before[0] / 60.0, log.before[1]),
            Series("after", COLORS[0], log.after[0] / 60.0, log.after[1]),
        ]
        split = log.held_out_from / 60.0
        told = f"From {split:.1f} min on held out of the fit." if math.isfinite(split) else ""
        parts.append(
            f"<div><h3>{safe(layer_name(one.name))}: {name.lower()}</h3>{chart(name, unit, series, None)}"
            f'<p class="muted">{told}</p></div>'
        )
    return f'<div class="two">{"".join(parts)}</div>' if parts else ""
