"""Observed orders of the coupled nonlinear problem in space and time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from verification.coupled_orders import Study, in_space, in_time, treatment_in_time
from verification.sections import Claim, Section, section

from thermosim.backends.base import Backend

LEAST_ORDER = 1.9
"""Fitted order below which second order is not observed: kinks (boiling begins in a cell, perfusion stops)
make single halvings differ by some tenths."""

LEAST_ORDERS_OF_A_TREATMENT = (1.85, 1.85, 1.7, 1.7)
"""Of T, ln Ω, energy and impedance; why they are lower is in the text."""

MANUFACTURED = """\
A cube of 24 mm between two plate electrodes, 48 s at 30 W, with T(x, t) = T_b + a(t) Π sin(π x_i/L), 57 °C
in the middle at first and 93 °C at last, and φ = x/L + ε sin cos cos prescribed (Roache 2002,
doi:10.1115/1.1436090), and the sources of heat and current that make them a solution of

∇·(σ(T)∇φ) = s_φ,  ρc ∂u(T)/∂t = ∇·(k(T)∇T) + W e^(−(Ω−Ω₀)) (T_a − T) + P σ|∇φ|²/∫σ|∇φ|² + s,
∂Ω/∂t = A e^(−E/RT),

with σ and k linear in T (2 % and 0.3 % per kelvin), latent heat of 40 K released from 82 to 92 °C, and
perfusion that stops as the tissue dies. Everything but the two sources is the program: time loop, generator,
solver of the potential (at every step, residual 5·10⁻⁷), heat on the links, RKL2, damage.

In space: root mean square error against the exact solution, steps of 0.375 s, whose own error is a tenth of
the least in the table. In time: on a grid of 16³ the difference from the same with steps of 0.094 s, so that
the grid's error, common to all, is left out. float32 and the residual of the potential end this at about
5·10⁻⁵ K, below every row. "living share" is e^(−(Ω−Ω₀)), what multiplies the perfusion."""

TREATMENT = """\
One minute of a needle at 30 V in perfused liver, 3 mm grid: σ(T), k(T), perfusion that stops with Ω, boiling
from 80 °C on over 10 K, the potential solved at every step. Steps of one length; differences from steps of
0.094 s. At constant voltage the power follows the conductance, so that the generator is part of the loop.

The field is solved for the middle of the step; the conductance at its start, which the generator reads,
follows from Σ q σ/σ_solved over the cells. q is shared half and half by the cells of a link, its resistance
is not quite: that leaves an error of first order in the step, but of second in the cell. On this coarse grid
it is seen in energy and impedance, where less than 10⁻³ is left of them; hence lower limits for these two
(1.7, against 1.85)."""


def rows_of(study: Study, what: str) -> list[tuple[str | float, ...]]:
    """Errors and observed orders, a row for each quantity."""
    rows: list[tuple[str | float, ...]] = []
    for name, errors in study.errors.items():
        shown = [f"{e:.2e}" for e in errors]
        orders = ", ".join(f"{o:.2f}" for o in study.orders(name))
        rows.append((what, name, ", ".join(shown), orders, f"{study.fitted(name):.2f}"))
    return rows


def claims_of(study: Study, what: str, least: Sequence[float]) -> list[Claim]:
    return [
        Claim(f"order {what}: {name.split(',')[0]}", study.fitted(name), limit, sense="at least")
        for name, limit in zip(study.errors, least, strict=True)
    ]


def plot(axes: Axes, study: Study, sizes: Sequence[float], label: str) -> None:
    """Errors over the size of cells or steps, with a line of second order."""
    for (name, errors), mark in zip(study.errors.items(), ("o-", "s-", "^-", "d-"), strict=False):
        axes.loglog(sizes, errors, mark, label=name)
    line = np.array([min(sizes), max(sizes)])
    lowest = min(errors[int(np.argmin(sizes))] for errors in study.errors.values())
    axes.loglog(line, 0.6 * lowest * (line / line[0]) ** 2, "k:", label="second order")
    axes.set(xlabel=label, ylabel="error")
    axes.legend()


@section("coupled_orders", "Manufactured solution of the coupled nonlinear problem", 21)
def coupled_orders(backend: Backend) -> Section:
    """Space and time."""
    space, time = in_space(backend), in_time(backend)
    grids = ", ".join(f"{n:g}³" for n in space.resolution)
    steps = ", ".join(f"{s:g}" for s in time.resolution)

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        plot(left, space, [24.0 / n for n in space.resolution], "cell, mm")
        plot(right, time, time.resolution, "time step, s")

    return Section(
        "coupled_orders",
        "Manufactured solution of the coupled nonlinear problem",
        MANUFACTURED,
        ("resolutions", "quantity", "errors", "orders", "fitted"),
        [*rows_of(space, f"grids {grids}"), *rows_of(time, f"steps {steps} s")],
        draw,
        [
            *claims_of(space, "in space", (LEAST_ORDER,) * 3),
            *claims_of(time, "in time", (LEAST_ORDER,) * 2),
        ],
    )


@section("treatment_order", "Order in time of a treatment", 22)
def treatment_order(backend: Backend) -> Section:
    """A needle at constant voltage."""
    study = treatment_in_time(backend)
    steps = ", ".join(f"{s:g}" for s in study.resolution)
    return Section(
        "treatment_order",
        "Order in time of a treatment",
        TREATMENT,
        ("resolutions", "quantity", "errors", "orders", "fitted"),
        rows_of(study, f"steps {steps} s"),
        lambda figure: plot(figure.subplots(), study, study.resolution, "time step, s"),
        claims_of(study, "in time", LEAST_ORDERS_OF_A_TREATMENT),
    )
