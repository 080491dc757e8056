"""Observed orders of accuracy of the parts: potential, heat step, models of death."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from verification.linear_orders import (
    death_errors,
    heat_error,
    heat_error_in_time,
    orders,
    potential_error,
)
from verification.sections import Claim, Section, section

from thermosim.backends.base import Backend

TITLE = "Orders of accuracy of the parts"


@section("orders", TITLE, 20)
def parts(backend: Backend) -> Section:
    text = """\
Each part alone, where the rest is exact. In space: a manufactured potential with a σ that varies smoothly
by a factor of three, and a sine of 50 K that decays between cold faces. In time: the same sine against the
exact decay on its grid, and the models of death over a minute that warms from 37 to 63 °C and cools again,
against an integration to 10⁻¹⁰. The order is the logarithm of the ratio of two errors; each table's row
halves the cells or steps of the row above. The coupled nonlinear problem has sections of its own."""
    space, steps = (8, 16, 32, 64), (4, 8, 16, 32)
    series: dict[str, tuple[tuple[int, ...], list[float]]] = {
        "potential, in space": (space, [potential_error(backend, n) for n in space]),
        "heat, in space [K]": (space, [heat_error(backend, n) for n in space]),
        "heat, in time [K]": (steps, [heat_error_in_time(backend, 10, n) for n in steps]),
    }
    counts = (15, 30, 60, 120)
    death = [death_errors(backend, n) for n in counts]
    for name, words in (("integral", "Ω"), ("dose", "CEM43"), ("dead", "dead share of three states")):
        series[f"{words}, in time"] = (counts, [errors[name] for errors in death])
    rows: list[tuple[str | float, ...]] = []
    claims = []
    for name, (resolutions, errors) in series.items():
        observed = orders(errors)
        for number, (n, error) in enumerate(zip(resolutions, errors, strict=True)):
            order = f"{observed[number - 1]:.2f}" if number else ""
            rows.append((name if number == 0 else "", float(n), f"{error:.3g}", order))
        # a quarter off where the next power of the step still shows
        claims.append(Claim(f"{name}: lowest order seen", float(observed.min()), 1.75, "", "at least"))

    def figure(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        for number, (name, (resolutions, errors)) in enumerate(series.items()):
            axes = left if "space" in name else right
            marker = "osv^D<"[number]
            axes.loglog(
                resolutions,
                np.array(errors) / errors[0],
                f"{marker}-",
                lw=1.0,
                ms=5,
                label=name.split(",")[0],
            )
        for axes, ticks, words in (
            (left, [8, 16, 32, 64], "cells along an edge"),
            (right, [4, 8, 15, 30, 60, 120], "time steps"),
        ):
            n = np.array([ticks[0], ticks[-1]], dtype=float)
            axes.loglog(n, (n / n[0]) ** -2.0, "k:", lw=1.2, label="second order")
            axes.set(xlabel=words, ylabel="error, share of the coarsest")
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.minorticks_off()
            axes.legend(frameon=False, fontsize=8)
        left.set_title("In space")
        right.set_title("In time")

    return Section("orders", TITLE, text, ("part", "cells or steps", "error", "order"), rows, figure, claims)
