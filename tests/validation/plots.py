"""Plots of the scoreboard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from validation.catalogue import QUANTITIES
from validation.score import PASSES_WITHIN

if TYPE_CHECKING:
    from validation.document import Row

COLORS = {"ex_vivo_bovine": "#b2182b", "ex_vivo_porcine": "#e08214", "in_vivo_porcine": "#2166ac"}
NAMES = {
    "ex_vivo_bovine": "ex vivo, bovine",
    "ex_vivo_porcine": "ex vivo, porcine",
    "in_vivo_porcine": "in vivo, porcine",
}


def parity(rows: Sequence[Row], path: Path) -> None:
    """Predicted against measured volume, both logarithmic, with the experiments' SD; open: calibrated."""
    figure, axes = plt.subplots(figsize=(6.4, 6.0), constrained_layout=True)
    shown: set[str] = set()
    measurements = [(row, row.measurement) for row in rows]
    volumes = [r for r, one in measurements if one.quantity == "zone_volume_ml" and one.relative_to is None]
    for row in volumes:
        state = row.experiment.tissue
        if row.score.predicted <= 0.0:
            continue
        axes.errorbar(
            row.score.mean,
            row.score.predicted,
            xerr=min(row.score.sd, 0.9 * row.score.mean),
            fmt="o",
            color=COLORS[state],
            markerfacecolor=COLORS[state] if row.is_case else "white",
            capsize=2,
            markersize=5,
            label=NAMES[state] if state not in shown else None,
        )
        shown.add(state)
        axes.annotate(
            row.experiment.id,
            (row.score.mean, row.score.predicted),
            textcoords="offset points",
            xytext=(5, -9),
            fontsize=7,
        )
    ends = [0.6, 300.0]
    axes.plot(ends, ends, color="black", linewidth=0.8)
    for factor in (0.75, 1.25):
        axes.plot(ends, [factor * end for end in ends], color="grey", linewidth=0.6, linestyle="--")
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
    axes.set_xlabel("measured volume, mL (mean ± SD)")
    axes.set_ylabel("predicted volume, mL")
    axes.legend(loc="upper left", frameon=False, title="dashed: ± 25 %, open: calibrated")
    figure.savefig(path, dpi=140, metadata={"Software": None})
    plt.close(figure)


def deviations(rows: Sequence[Row], path: Path) -> None:
    """Deviation of each counted prediction in SD, with the band within which it counts as met."""
    cases = [row for row in rows if row.is_case]
    figure, axes = plt.subplots(figsize=(6.4, 0.6 + 0.21 * len(cases)), constrained_layout=True)
    names, limit = [], 6.0
    for place, row in enumerate(cases):
        deviation = max(-limit, min(limit, row.score.deviation))
        axes.barh(place, deviation, color=COLORS[row.experiment.tissue], height=0.7)
        if abs(row.score.deviation) > limit:
            axes.text(deviation, place, f"{row.score.deviation:+.0f}", va="center", fontsize=7)
        one = row.measurement
        what = one.label or QUANTITIES[one.quantity][0]
        run = "" if one.label or one.run == "main" else f", {one.run}"
        names.append(f"{row.experiment.id} {what}{run}")
    axes.axvspan(-PASSES_WITHIN, PASSES_WITHIN, color="#dddddd", zorder=0)
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(cases)), names, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlim(-limit - 0.6, limit + 0.6)
    axes.set_xlabel(f"(predicted − measured) / SD; grey: within {PASSES_WITHIN:g}")
    figure.savefig(path, dpi=140, metadata={"Software": None})
    plt.close(figure)
