"""The tables of the report, as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from thermosim.report.meshes import layer_name
from thermosim.report.vessels import vessel_table

CRITERION_NAMES = {
    "arrhenius": "Arrhenius, Ω ≥ 1 (63 % of cells dead)",
    "arrhenius_99": "Arrhenius, Ω ≥ 4.6 (99 % of cells dead)",
    "cem43": "Thermal dose (CEM43)",
    "three_state": "Three-state cell death",
}

OF_MODES = {
    "generator_voltage_v": ("constant_voltage",),
    "generator_current_a": ("constant_current",),
    "generator_power_w": (
        "constant_power",
        "temperature_controlled",
        "impedance_controlled",
        "ramp_to_roll_off",
    ),
    "target_temperature_c": ("temperature_controlled",),
    "hold_time_s": ("temperature_controlled",),
    "controlled_sensor": ("temperature_controlled",),
}
"""Settings that only some modes of the generator use."""

UNIT_SUFFIXES = {"a": "A", "c": "°C", "v": "V", "w": "W", "s": "s", "mm": "mm", "min": "min"}


def safe(value: Any) -> str:
    return escape(str(value), quote=True)


def number(value: Any, digits: int = 1, unit: str = "") -> str:
    """A number for people, a dash where there is none."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return "–"
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return f"{text.replace('-', '−')}{' ' + unit if unit else ''}"


def percent(value: Any) -> str:
    return "–" if value is None else number(100 * value, 0 if value in (0, 1) else 1, "%")


def criterion_name(name: str) -> str:
    if name.startswith("isotherm_"):
        return f"Isotherm {name.removeprefix('isotherm_')} °C"
    return CRITERION_NAMES.get(name, name)


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], chosen: int | None = None, texts: int = 1
) -> str:
    """A table of ready HTML cells; the first `texts` columns are text, the others numbers."""

    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}>{cell}</{tag}>" if i < texts else f'<{tag} class="n">{cell}</{tag}>'
            for i, cell in enumerate(row)
        )

    lines = "".join(
        f"<tr{' class=chosen' if i == chosen else ''}>{cells(row, 'td')}</tr>" for i, row in enumerate(rows)
    )
    top = f"<thead><tr>{cells(head, 'th')}</tr></thead>"
    return f'<div class="table"><table>{top}<tbody>{lines}</tbody></table></div>'


def numbers(summary: Mapping[str, Any]) -> str:
    parts = ["<h2>Numbers</h2>", *_outcome_tables(summary), *_device_tables(summary)]
    head, rows = vessel_table(summary)
    return "\n".join([*parts, *(["<h3>Open vessels</h3>", table(head, rows)] if rows else [])])


def _outcome_tables(summary: Mapping[str, Any]) -> list[str]:
    zones = summary["ablation_zone"]
    zone_rows = [
        [
            f"{safe(criterion_name(name))}{'' if not z['touches_box'] else ' (reaches the box)'}",
            number(z["volume_ml"]),
            number(z["long_axis_mm"]),
            number(z["middle_axis_mm"]),
            number(z["short_axis_mm"]),
            number(z["sphericity"], 2),
        ]
        for name, z in zones.items()
    ]
    chosen = list(zones).index(summary["criterion"]) if summary["criterion"] in zones else None
    head = ["Criterion of death", "Volume mL", "Long axis mm", "Middle mm", "Short mm", "Sphericity"]
    parts = [
        "<h3>Ablation zone by criterion (bold: used for the verdict)</h3>",
        table(head, zone_rows, chosen),
    ]
    parts.extend(margin_tables(summary))
    risks = summary["structures_at_risk"]
    if risks:
        parts.append("<h3>Structures at risk</h3>")
        parts.append(
            table(
                ["Structure", "Highest temperature °C", "Highest dose, min at 43 °C", "Highest Ω", "Dead mL"],
                [
                    [
                        safe(layer_name(r["name"])),
                        number(r["highest_temperature_c"]),
                        "–" if r["thermal_dose_min"] is None else f"{r['thermal_dose_min']:.3g}",
                        "–" if r["damage_integral"] is None else f"{r['damage_integral']:.2g}",
                        number(r["dead_volume_ml"], 2),
                    ]
                    for r in risks
                ],
            )
        )
    return parts


def margin_tables(summary: Mapping[str, Any]) -> list[str]:
    """The margin of each tumour, all around and without the surface near the capsule."""
    parts: list[str] = []
    for tumor in summary["tumors"]:
        rows = [("All around", tumor)]
        if tumor["near_capsule"] and tumor["without_capsule"]:
            rows.append(("Without the surface within 5 mm of the capsule", tumor["without_capsule"]))
        keys = list(tumor["margin_percentiles_mm"])
        parts.append(f"<h3>Margin of {safe(layer_name(tumor['name']).lower())}</h3>")
        parts.append(
            table(
                [
                    "Surface",
                    "Thinnest mm",
                    *(f"{k} % below, mm" for k in keys),
                    "≥ 0 mm",
                    "≥ 5 mm",
                    "≥ 10 mm",
                    "Area cm²",
                ],
                [
                    [
                        text,
                        number(s["minimal_ablative_margin_mm"]),
                        *(number(s["margin_percentiles_mm"].get(k)) for k in keys),
                        percent(s["surface_fraction_covered"]),
                        percent(s["surface_fraction_margin_at_least_5mm"]),
                        percent(s["surface_fraction_margin_at_least_10mm"]),
                        number(s["surface_area_cm2"]),
                    ]
                    for text, s in rows
                ],
            )
        )
        shells = ", ".join(
            f"{k.removesuffix('mm')} mm: {percent(v)}" for k, v in tumor["shell_coverage"].items()
        )
        parts.append(
            f"<p>Dead share of the tumour: {percent(tumor['coverage'])}. Dead share of the shell of "
            "liver around it: "
            f"{shells or '–'}.</p>"
        )
    return parts


def _device_tables(summary: Mapping[str, Any]) -> list[str]:
    impedance, power, audit = summary["impedance_ohm"], summary["electrical_power"], summary["energy_audit"]
    beyond = summary["ablation_zone"].get(summary["criterion"], {}).get("distance_beyond_tips_mm", {})
    parts = [
        "<h3>Electrodes and generator</h3>",
        table(
            [
                "Electrode",
                "Bare metal mm",
                "Diameter mm",
                "Coolant °C",
                "First current A",
                "Highest A",
                "Highest W",
                "Zone beyond tip mm",
            ],
            [
                [
                    safe(e["name"]),
                    number(e["active_length_mm"]) + (f" and {e['n_tines']} tines" if e["n_tines"] else ""),
                    number(e["diameter_mm"], 2),
                    "not cooled"
                    if e["coolant_temperature_c"] is None
                    else number(e["coolant_temperature_c"], 0),
                    number(e["first_current_a"], 2),
                    number(e["highest_current_a"], 2),
                    number(e["highest_power_w"]),
                    number(beyond.get(e["name"])),
                ]
                for e in summary["electrodes"]
            ],
        ),
        f"<p>Impedance {number(impedance['initial'], 1, 'Ω')} at the start, "
        f"{number(impedance['final'], 1, 'Ω')} at the "
        f"end; highest power {number(power['highest_w'], 1, 'W')}; hottest tissue "
        f"{number(summary['temperature']['highest_c'], 1, '°C')}.</p>",
        *_positions(summary),
        *_impedances(summary),
        *_log(summary),
        "<h3>Where the energy went</h3>",
    ]
    names: tuple[tuple[str, str], ...] = (
        ("electrical_j", "In: electrical current"),
        ("metabolic_j", "In: metabolism"),
        ("stored_j", "Stored in the tissue"),
        ("perfusion_j", "Carried away by perfusion"),
        ("vessels_j", "Carried away by vessels"),
        ("cooled_needles_j", "Carried away by needle cooling"),
        ("faces_j", "Lost through the edge of the box"),
    )
    if audit["displaced_j"]:
        names = (*names, ("displaced_j", "Beside this: heat of cells that metal entered or left"))
    total = (audit["electrical_j"] or 0) + (audit["metabolic_j"] or 0)
    rows = [
        [
            text,
            number((audit[key] or 0) / 1e3, 2),
            percent(audit[key] / total if total and audit[key] is not None else None),
        ]
        for key, text in names
    ]
    parts.append(table(["", "kJ", "of the input"], rows))
    parts.append(
        f"<p>Energy that is not accounted for: {_scientific(audit['relative_error'])} of the input. "
        "Heat in the tissue and "
        f"power of the generator differ by at most {_scientific(power['relative_error'])}.</p>"
    )
    return parts


def _positions(summary: Mapping[str, Any]) -> list[str]:
    """Which needles stood where in each burn, where they were moved from position to position."""
    if summary["settings"]["serial"] in (None, "none"):
        return []
    rows = []
    for segment in summary["generator"]["segments"]:
        for electrode in segment["electrodes"]:
            tip = ", ".join(number(value, 1) for value in electrode["target_lps_mm"])
            minutes = (segment["end_s"] - segment["start_s"]) / 60
            start = number(segment["start_s"] / 60, 1)
            rows.append([safe(electrode["name"]), str(segment["number"] + 1), start, number(minutes, 1), tip])
    head = ["Electrode in place", "Burn", "From min", "For min", "Tip at (LPS mm)"]
    return ["<h3>Positions in order</h3>", table(head, rows)]


def _impedances(summary: Mapping[str, Any]) -> list[str]:
    """First and last impedance of each unit in each segment, where one value cannot say it."""
    units = summary["generator"]["units"]
    rows = [
        [safe(unit["name"]), str(one["segment"] + 1), number(one["initial_ohm"]), number(one["final_ohm"])]
        for unit in units
        for one in unit["impedance"]
    ]
    if len(rows) < 2:
        return []
    head = ["Device or pole", "Segment", "First impedance Ω", "Last impedance Ω"]
    return [table(head, rows)]


def _log(summary: Mapping[str, Any]) -> list[str]:
    """How far the run is from a real generator's log."""
    log = summary["generator_log"]
    if log is None:
        return []
    names = {
        "power_w": ("Power", "W", 1),
        "current_a": ("Current", "A", 3),
        "voltage_v": ("Voltage", "V", 1),
        "impedance_ohm": ("Impedance", "Ω", 1),
        "temperature_c": ("Temperature", "K", 1),
    }
    rows = []
    for quantity, one in log["deviation"].items():
        name, unit, digits = names[quantity]
        rows.append(
            [
                name,
                number(one["mean"], digits, unit),
                number(one["rms"], digits, unit),
                str(one["n_readings"]),
            ]
        )
    head = ["Simulated less measured", "Mean", "Root mean square", "Readings"]
    return ["<h3>Against the generator's log</h3>", table(head, rows)]


def _scientific(value: Any) -> str:
    return "–" if value is None else f"{value:.1e}".replace("-", "−")


def _spoken(value: Any) -> str:
    """A setting in words: lists and mappings without brackets, empty things as a dash."""
    if value is None or value in ({}, [], ""):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(
            f"{k.replace('_', ' ')} {_spoken(v)}" for k, v in value.items() if v not in (None, [], {}, "")
        )
    if isinstance(value, (list, tuple)):
        return "; ".join(_spoken(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _segment(segment: Mapping[str, Any]) -> str:
    """One segment of the protocol in words, without what its drive does not use."""
    parts = [f"{segment['duration_min']:g} min", str(segment.get("drive", ""))]
    if segment.get("needles"):
        parts.append("needles " + ", ".join(segment["needles"]))
    if segment.get("drive") == "switching":
        parts.append(
            f"{segment['dwell_time']:g} s each, or until {segment['switch_impedance_rise']:g} Ω more"
        )
    if segment.get("pull_back_mm"):
        parts.append(f"pulled back by {segment['pull_back_mm']:g} mm before")
    for key, unit in (("voltage", "V"), ("power", "W")):
        if segment.get(key) is not None:
            parts.append(f"{segment[key]:g} {unit}")
    return " ".join(parts[:2]) + "".join(f", {part}" for part in parts[2:])


def _setting(name: str, value: Any, mode: Any) -> str:
    """A setting in words; a dash for what the generator's mode does not use."""
    if name in OF_MODES and mode not in OF_MODES[name]:
        return "–"
    if name == "segments" and isinstance(value, list):
        return "; then ".join(_segment(segment) for segment in value)
    if name == "groups" and value:
        return "; then ".join(" + ".join(group) for group in value)
    if name == "serial" and value == "none":
        return "–"
    if name in ("criterion", "conductivity_law", "generator_mode", "vessel_model"):
        return str(_spoken(value)).replace("_", " ")
    return _spoken(value)


def _setting_name(key: str) -> str:
    """A key of the summary for people: its unit in brackets."""
    key = key.replace("cem43", "CEM43")
    stem, _, last = key.rpartition("_")
    return f"{layer_name(stem)} [{UNIT_SUFFIXES[last]}]" if last in UNIT_SUFFIXES else layer_name(key)


def settings(summary: Mapping[str, Any]) -> str:
    grid, run = summary["grid"], summary["run"]
    mode = summary["settings"]["generator_mode"]
    spoken = {name: _setting(name, value, mode) for name, value in summary["settings"].items()}
    rows = [[safe(_setting_name(name)), safe(text)] for name, text in spoken.items() if text != "–"]
    shape = " × ".join(str(n) for n in grid["shape"])
    rows += [
        ["Grid", f"{shape} cells of {number(grid['spacing_mm'][0], 2)} mm"],
        ["Computed with", safe(f"{run['backend']}: {run['device']}")],
        ["Time of the solver", f"{number(run['solver_seconds'])} s, {run['time_steps']} time steps"],
        ["Version", safe(f"thermosim {run['versions']['thermosim']}, kernels {run['kernel_digest'][:12]}")],
    ]
    return "<h2>Settings that change the result</h2>" + table(["Setting", "Value"], rows, texts=2)
