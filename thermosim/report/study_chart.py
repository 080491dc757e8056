"""The picture of a study: how many cases reach which margin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from thermosim.report.atomic import replacing

COLORS = ("#c2410c", "#0f766e", "#4338ca", "#a16207", "#be185d")


def write_margins(
    path: Path,
    margins: Mapping[str, Sequence[float]],
    planned: Mapping[str, float | None],
    wanted: Sequence[float],
) -> None:
    """Share of cases whose minimal ablative margin is at least so large, for each tumour.

    Parameters
    ----------
    path : PNG to write.
    margins : minimal margins [mm] of the cases, by tumour. planned : those of the plan itself.
    wanted : margins [mm] to be marked.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.4), layout="constrained")
    axes = figure.subplots()
    for number, (name, values) in enumerate(margins.items()):
        color = COLORS[number % len(COLORS)]
        if len(values):
            x = np.sort(np.asarray(values, dtype=float))
            share = 100.0 * np.arange(len(x), 0, -1) / len(x)
            label = f"{name}: {len(x)} cases as they may turn out"
            axes.step(np.append(x, x[-1]), np.append(share, 0.0), where="pre", color=color, label=label)
        plan = planned.get(name)
        if plan is not None:
            axes.axvline(plan, color=color, linestyle="--", linewidth=1.2, label=f"{name}: as planned")
    for value in wanted:
        axes.axvline(value, color="#94a3b8", linewidth=0.8)
        axes.annotate(
            f"{value:g} mm",
            (value, 101.0),
            ha="center",
            va="bottom",
            annotation_clip=False,
            color="#475569",
            fontsize=8,
        )
    axes.set(
        xlabel="minimal ablative margin [mm], negative where tumour is left",
        ylabel="cases with at least this margin [%]",
        ylim=(0.0, 100.0),
    )
    axes.set_title("What the plan is worth when needles and tissue are not as assumed", pad=18)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(True, color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, loc="best", fontsize=9)
    figure.supxlabel("Research tool, not a medical device", fontsize=7, color="#64748b")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, metadata={"Software": None})
