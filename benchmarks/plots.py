"""Pictures of a record: error against time, growth with the grid, peers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter

INK, OURS, OTHERS = "#333333", "#c2410c", "#64748b"
LIMIT_MM = 0.5
"""Error of the zone's radius that planning can live with."""


def draw(cases: dict[str, Any], folder: Path) -> list[str]:
    """Write every picture that the record has data for; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    pictures = {
        "performance_spacing.png": ("spacing", _spacing),
        "performance_growth.png": ("growth", _growth),
        "performance_peers.png": ("potential_peers", _peers),
        "performance_studies.png": ("studies", _studies),
    }
    for name, (case, picture) in pictures.items():
        if case not in cases:
            continue
        figure = picture(cases)
        if figure is not None:
            figure.savefig(folder / name, dpi=110, metadata={"Software": None})
            plt.close(figure)
            drawn.append(name)
    return drawn


def _clean(axes: Any) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":  # numbers at powers of ten only, written out
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=INK)
    axes.grid(True, which="major", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)


def _spacing(cases: dict[str, Any]) -> Any:
    """Time against error of the zone: which spacing gives half a millimetre soonest."""
    rows = cases["spacing"]["details"]["rows"][:-1]  # the finest is the reference
    finest = cases["spacing"]["details"]["rows"][-1]
    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for key, label, color, marker in (
        ("surface_error_mm", "mean distance of the zone's surface", OURS, "o"),
        ("radius_error_mm", "radius of the ball of the zone's volume", OTHERS, "s"),
        ("margin_error_mm", "minimal ablative margin", "#0f766e", "^"),
    ):
        x = [row["solver_seconds"] for row in rows]
        y = [max(abs(row[key]), 1e-3) for row in rows]
        axes.plot(x, y, marker=marker, color=color, label=label, linewidth=1.2)
    for row in rows:
        axes.annotate(
            f"{row['spacing_mm']:g} mm",
            (row["solver_seconds"], max(abs(row["surface_error_mm"]), 1e-3)),
            textcoords="offset points",
            xytext=(6, 6),
            color=INK,
        )
    axes.axhline(LIMIT_MM, color=INK, linewidth=0.8, linestyle="--")
    axes.set(xscale="log", yscale="log", xlabel="solver [s]", ylabel="difference from the finest grid [mm]")
    axes.set_title(
        f"Time and error of the demo; finest {finest['spacing_mm']:g} mm, {finest['solver_seconds']:.0f} s"
    )
    axes.legend(frameon=False, fontsize=9)
    _clean(axes)
    return figure


def _growth(cases: dict[str, Any]) -> Any:
    """Time per cell of heat step and cold potential."""
    rows = cases["growth"]["details"]["rows"]
    figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    cells = [row["cells"] for row in rows]
    axes.plot(cells, [1e9 / row["heat_rate"] for row in rows], "o-", color=OURS, label="heat, one stage")
    cold = [1e9 * row["cold_seconds"] / row["cells"] for row in rows]
    axes.plot(cells, cold, "s-", color=OTHERS, label="potential, cold")
    for row, value in zip(rows, cold, strict=True):
        place = {"textcoords": "offset points", "xytext": (0, 7), "ha": "center"}
        axes.annotate(f"{row['edge']}³", (row["cells"], value), color=INK, **place)
    axes.set(xscale="log", yscale="log", xlabel="cells", ylabel="time per cell [ns]")
    axes.set_title("Growth with the grid")
    axes.legend(frameon=False)
    _clean(axes)
    return figure


def _peers(cases: dict[str, Any]) -> Any:
    """Bars of all peers, three panels."""
    panels = (
        ("heat_peers", "plain heat step [M cells/s], more is better", "rates", 1e-6),
        ("potential_peers", "cold potential [s], less is better, logarithmic", "seconds", 1.0),
        ("ablation_peers", "whole ablation [s], less is better, logarithmic", "seconds", 1.0),
    )
    have = [p for p in panels if p[0] in cases]
    figure, all_axes = plt.subplots(
        len(have), 1, figsize=(7.2, 2.2 * len(have)), layout="constrained", squeeze=False
    )
    for axes, (case, label, key, scale) in zip(all_axes[:, 0], have, strict=True):
        rows = [row for row in cases[case]["details"]["rows"] if key in row]
        values = []
        for row in rows:
            some = sorted(row[key]) if isinstance(row[key], list) else [row[key]]
            values.append(scale * some[len(some) // 2])
        names = [row["peer"] + (" (scaled up)" if row.get("extrapolated") else "") for row in rows]
        colors = [OURS if row["peer"].startswith("thermosim") else OTHERS for row in rows]
        bars = axes.barh(names, values, color=colors)
        axes.bar_label(
            bars, fmt=lambda value: f"{value:.3g}" if value < 1000 else f"{value:.0f}", padding=3, color=INK
        )
        axes.set(xscale="linear" if case == "heat_peers" else "log", xlabel=label)
        axes.invert_yaxis()
        axes.margins(x=0.12)
        _clean(axes)
        axes.grid(False, axis="y")
    return figure


def _studies(cases: dict[str, Any]) -> Any:
    """Time and error of each change of one algorithm."""
    rows = cases["studies"]["details"]["rows"][:-1]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9.5, 0.36 * len(rows) + 1.3), layout="constrained", sharey=True
    )
    names = [row["name"] for row in rows]
    colors = [OURS if n == 0 else OTHERS for n in range(len(rows))]
    left.bar_label(left.barh(names, [row["time_ratio"] for row in rows], color=colors), fmt="%.2f", padding=3)
    left.set(xlabel="time over that as it is")
    errors = [row["radius_error_mm"] for row in rows]
    right.barh(names, errors, color=colors)
    right.axvline(0.0, color=INK, linewidth=0.8)
    right.set(xlabel="radius of the zone against solver=strict [mm]")
    left.invert_yaxis()
    left.margins(x=0.15)
    for axes in (left, right):
        _clean(axes)
        axes.grid(False, axis="y")
    return figure
