"""Writes the tables and pictures of docs/performance.md from records of the benchmarks.

python benchmarks/report.py                         from the newest record
python benchmarks/report.py FIRST.json SECOND.json  later ones replace cases of earlier ones
python benchmarks/report.py --check                 whether the document shows what docs/performance.json says
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from targets import Cases, findings

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DOCUMENT = ROOT / "docs" / "performance.md"
PUBLISHED = ROOT / "docs" / "performance.json"
IMAGES = ROOT / "docs" / "images"
FORMAT = "thermosim-benchmark/2"
FULL_SIZE = 128

UNMEASURED = "unmeasured"


def main(words: list[str] | None = None) -> int:
    """The command: 0 done, 1 the document differs from its record, 2 no record."""
    parser = argparse.ArgumentParser(description="Writes docs/performance.md from records.")
    parser.add_argument("records", nargs="*", type=Path, help="the newest in benchmarks/results if none")
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    options = parser.parse_args(words)
    if options.check:
        published = json.loads(PUBLISHED.read_text())
        same = DOCUMENT.read_text() == filled(DOCUMENT.read_text(), published)
        print(
            "docs/performance.md shows its record" if same else "docs/performance.md differs from its record"
        )
        return 0 if same else 1
    if not DOCUMENT.is_file():
        print("report: error: docs/performance.md lies in a checkout of thermosim only", file=sys.stderr)
        return 2
    paths = options.records or sorted((HERE / "results").glob("*.json"), key=lambda p: p.stat().st_mtime)[-1:]
    if not paths:
        print("report: error: no record in benchmarks/results; run `thermosim bench` first", file=sys.stderr)
        return 2
    try:
        record = merged([json.loads(path.read_text()) for path in paths])
    except (OSError, ValueError, KeyError) as error:
        print(f"report: error: {error}", file=sys.stderr)
        return 2
    import plots

    PUBLISHED.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    DOCUMENT.write_text(filled(DOCUMENT.read_text(), record))
    for name in plots.draw(record["cases"], IMAGES):
        print(f"written: docs/images/{name}")
    print(f"written: {DOCUMENT.relative_to(ROOT)}, {PUBLISHED.relative_to(ROOT)}")
    return 0


def merged(records: list[dict[str, Any]]) -> dict[str, Any]:
    """One record of several: each case from the last one that has it, with the provenance of its own.

    Raises
    ------
    ValueError
        When one is no record of this version.
    """
    cases: Cases = {}
    for record in records:
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise ValueError(f"not a record of {FORMAT}; run the benchmark again")
        for name, case in record["cases"].items():
            device = case.get("provenance", record["provenance"])["backend"]
            if device != "cpu" and ":" not in name:
                name = f"{device}:{name}"
            cases[name] = {
                **case,
                "provenance": case.get("provenance", record["provenance"]),
                "settings": case.get("settings", record["settings"]),
            }
    return {
        "format": FORMAT,
        "provenance": records[-1]["provenance"],
        "settings": records[-1]["settings"],
        "cases": cases,
    }


def filled(text: str, record: dict[str, Any]) -> str:
    """The document with every marked part written anew."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}: written by benchmarks/report.py -->", f"<!-- end of {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise ValueError(f"{DOCUMENT.name} has no single part {name!r}")
        body = table(record)
        text = pattern.sub(lambda _, b=begin, e=end, body=body: f"{b}\n\n{body}\n\n{e}", text)
    return text


# ---------------------------------------------------------------------------- tables


def _table(head: list[str], lines: list[list[str]]) -> str:
    """Markdown; the word `unmeasured` where there are no lines."""
    if not lines:
        return f"_{UNMEASURED}_"
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *lines])


def _picture(text: str, alternative: str, name: str) -> str:
    """The table with its picture below; no picture where nothing was measured."""
    return text if text == f"_{UNMEASURED}_" else f"{text}\n\n![{alternative}](images/{name})"


def _number(value: float | None, digits: int = 3) -> str:
    if value is None:
        return "–"
    if value != 0.0 and (abs(value) >= 1e4 or abs(value) < 1e-3):
        return f"{value:.{digits - 1}e}"
    return f"{value:.{digits}g}" if abs(value) < 10.0**digits else f"{value:.0f}"


def provenance_text(record: dict[str, Any]) -> str:
    """Which machine, when, which commit; a line for each run that the cases come from."""
    groups: dict[str, list[str]] = {}
    for name, case in record["cases"].items():
        about, settings = case["provenance"], case["settings"]
        text = (
            f"`{about['commit']}` on {about['date'][:10]}, {about['device']}; size {settings['size']}, "
            f"{settings['repeats']} repeats, load {about['load_average_before']:.1f} at the start"
        )
        groups.setdefault(text, []).append(name)
    if not groups:
        return f"_{UNMEASURED}_"
    return "\n".join(f"- {text}: {', '.join(f'`{n}`' for n in names)}" for text, names in groups.items())


def full_size(cases: Cases) -> Cases:
    """The cases that were run at the size of the targets."""
    return {name: case for name, case in cases.items() if case["settings"]["size"] == FULL_SIZE}


def figures_table(record: dict[str, Any]) -> str:
    lines = []
    for figure, found in findings(full_size(record["cases"])):
        if found is None:
            lines.append([figure.name, figure.target, UNMEASURED, "", ""])
        else:
            met = "met" if found.met else "**not met**"
            lines.append([figure.name, figure.target, found.value, f"{found.ratio:.2f}", met])
    return _table(["figure", "target", "measured", "ratio to the target", ""], lines)


def cases_table(record: dict[str, Any]) -> str:
    shown = ("triad", "demo", "memory", "heat_step", "heat_step_boiling", "heat_step_whole", "potential")
    shown += ("potential_large", "warm_resolve", "start", "batch")
    lines = []
    both = [*shown, *(f"cuda:{n}" for n in shown)]
    for name in (n for n in both if n in record["cases"]):
        for q in record["cases"][name]["quantities"]:
            spread = "" if len(q["samples"]) == 1 else f"{_number(q['minimum'])} – {_number(q['maximum'])}"
            label = q["name"].strip()
            lines.append([f"`{name}`", label, f"{_number(q['median'])} {q['unit']}".strip(), spread])
            name = ""
            lines[-1][0] = lines[-1][0] if lines[-1][0] != "``" else ""
    return _table(["case", "quantity", "median", "min – max"], lines)


def kernels_table(record: dict[str, Any]) -> str:
    lines = []
    for row in record["cases"].get("demo", {}).get("details", {}).get("kernels", [])[:12]:
        rate = None if row["bytes_per_second"] is None else 1e-9 * row["bytes_per_second"]
        lines.append(
            [
                f"`{row['kernel']}`",
                str(row["launches"]),
                _number(row["seconds"]),
                _number(1e-6 * row["cells_per_second"]),
                _number(row["bytes_per_cell"]),
                _number(rate),
            ]
        )
    return _table(["kernel", "launches", "s", "M cells/s", "B/cell", "GB/s"], lines)


def peers_table(record: dict[str, Any]) -> str:
    cases, parts = record["cases"], []
    if "heat_peers" in cases:
        lines = []
        for row in cases["heat_peers"]["details"]["rows"]:
            rates = sorted(row.get("rates", []))
            value = row["missing"] if "missing" in row else _number(1e-6 * rates[len(rates) // 2])
            lines.append([row["peer"], row.get("version", ""), value, str(row.get("bytes", ""))])
        if "heat_step_whole" in cases:
            rate = next(q for q in cases["heat_step_whole"]["quantities"] if q["name"] == "cell-updates")
            lines.insert(1, ["thermosim, everything", "", _number(rate["median"]), ""])
        edge = cases["heat_peers"]["details"]["edge"]
        parts.append(
            f"Plain heat step at {edge}³:\n\n" + _table(["", "version", "M cells/s", "B/cell"], lines)
        )
    if "potential_peers" in cases:
        lines = []
        for row in cases["potential_peers"]["details"]["rows"]:
            if "missing" in row:
                lines.append([row["peer"], "", row["missing"], "", "", ""])
                continue
            lines.append(
                [
                    row["peer"],
                    row.get("version", ""),
                    _number(row["seconds"]),
                    str(row.get("iterations", "")),
                    f"{row['true_residual']:.1e}",
                    _number(row.get("bytes_per_cell")),
                ]
            )
        details = cases["potential_peers"]["details"]
        head = ["", "version", "s", "iterations", "true residual", "B/cell"]
        parts.append(
            f"Potential of three needles at {details['edge']}³ to {details['tolerance']:.0e}:\n\n"
            + _table(head, lines)
        )
    if "ablation_peers" in cases:
        lines = []
        for row in cases["ablation_peers"]["details"]["rows"]:
            if "missing" in row:
                lines.append([row["peer"], row["missing"], "", "", ""])
                continue
            scaled = row.get("extrapolated")
            note = f"scaled up from {row['simulated_seconds']:.0f} s of treatment" if scaled else "whole"
            interval = row.get("interval")
            every = (
                "by error estimate"
                if interval is None
                else f"every {interval:g} s"
                if interval
                else "every step"
            )
            lines.append(
                [
                    row["peer"],
                    f"{_number(row['seconds'])} ({note})",
                    f"{row['tolerance']:.0e}",
                    every,
                    _number(row.get("zone_volume_ml"), 4),
                ]
            )
        edge = cases["ablation_peers"]["details"]["edge"]
        head = ["", "s", "tolerance", "potential solved", "zone [ml]"]
        parts.append(f"Whole ablation at {edge}³, three models of death:\n\n" + _table(head, lines))
    if "potential_peers" in cases:
        parts.append("![Peers](images/performance_peers.png)")
    return "\n\n".join(parts) if parts else f"_{UNMEASURED}_"


def threads_table(record: dict[str, Any]) -> str:
    rows = record["cases"].get("threads", {}).get("details", {}).get("rows", [])
    lines = [
        [
            str(row["threads"]),
            f"{_number(1e-6 * row['heat_rate'])} ({row['heat_rate'] / rows[0]['heat_rate']:.2f} ×)",
            f"{_number(row['cold_seconds'])} ({rows[0]['cold_seconds'] / row['cold_seconds']:.2f} ×)",
            f"{_number(row['minute_seconds'])} ({rows[0]['minute_seconds'] / row['minute_seconds']:.2f} ×)",
        ]
        for row in rows
    ]
    return _table(["threads", "heat step [M/s]", "cold potential [s]", "a minute of the demo [s]"], lines)


def growth_table(record: dict[str, Any]) -> str:
    lines = [
        [
            f"{row['edge']}³",
            _number(1e-6 * row["heat_rate"]),
            _number(row["cold_seconds"]),
            str(row["iterations"]),
            _number(1e9 * row["cold_seconds"] / row["cells"]),
            _number(row["bytes_per_cell"]),
        ]
        for row in record["cases"].get("growth", {}).get("details", {}).get("rows", [])
    ]
    head = [
        "cells",
        "heat step [M/s]",
        "cold potential [s]",
        "iterations",
        "ns/cell",
        "B/cell beyond the anatomy",
    ]
    return _picture(
        _table(head, lines), "Time per cell against the number of cells", "performance_growth.png"
    )


def spacing_table(record: dict[str, Any]) -> str:
    lines = [
        [
            f"{row['spacing_mm']:g}",
            _number(row["solver_seconds"]),
            _number(row["outcome_seconds"]),
            _number(row["zone_volume_ml"], 4),
            f"{100 * row['volume_error']:+.1f} %",
            f"{row['radius_error_mm']:+.2f}",
            f"{row['margin_error_mm']:+.2f}",
            f"{row['surface_error_mm']:.2f}",
        ]
        for row in record["cases"].get("spacing", {}).get("details", {}).get("rows", [])
    ]
    head = [
        "spacing [mm]",
        "solver [s]",
        "zones, margins [s]",
        "zone [ml]",
        "volume",
        "radius [mm]",
        "margin [mm]",
        "surface [mm]",
    ]
    return _picture(
        _table(head, lines), "Time and error of the demo against grid spacing", "performance_spacing.png"
    )


def studies_table(record: dict[str, Any]) -> str:
    lines = [
        [
            row["name"],
            _number(row["solver_seconds"]),
            f"{row['time_ratio']:.2f}",
            f"{row['potential_solves']} / {row['potential_iterations']}",
            f"{row['time_steps']} / {row['heat_evaluations']}",
            f"{row['radius_error_mm']:+.3f}",
        ]
        for row in record["cases"].get("studies", {}).get("details", {}).get("rows", [])
    ]
    head = ["", "s", "time", "solves / iterations", "steps / stages", "radius [mm]"]
    return _picture(
        _table(head, lines), "Time and error with one algorithm changed at a time", "performance_studies.png"
    )


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "provenance": provenance_text,
    "figures": figures_table,
    "cases": cases_table,
    "kernels": kernels_table,
    "peers": peers_table,
    "threads": threads_table,
    "growth": growth_table,
    "spacing": spacing_table,
    "studies": studies_table,
}


if __name__ == "__main__":
    raise SystemExit(main())
