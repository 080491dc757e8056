"""CEM43 and Arrhenius damage of constant and rising temperatures against their closed forms."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from verification.dose_history import exact, integrate, shipped
from verification.sections import Claim, Section, section

from thermosim.backends.base import Backend

CONSTANT = (38.0, 43.0, 50.0, 60.0, 90.0)
SECONDS = 240.0
RAMP = (37.0, 0.2)  # from 37 °C by 0.2 K/s: 85 °C after 240 s
RISES = (8.0, 4.0, 2.0, 1.0)  # [K] per step

TEXT = """\
The kernel that counts dose and damage is given temperatures that have closed forms. Constant T:
D = t R^(43 − T) and Ω = t A e^(−E/RT), which the midpoint rule takes exactly; float32 leaves the rounding of
exponents up to 92 and of the sum. A ramp T = T_0 + βt from 37 to 85 °C, across the step of R at 43 °C:

D = [4^(T−43)/ln 4 up to 43 °C, 2^(T−43)/ln 2 from there]/β,
Ω = (A/β) [T e^(−θ/T) − θ E₁(θ/T)], θ = E/R, T in kelvin.

The midpoint rule errs there by (κ ΔT)²/24 for a rate that grows e-fold in 1/κ kelvin and a rise of ΔT per
step (κ = 0.24 to 0.32 1/K for Ω, ln 2 for the dose): by second order. The clock aims at 4 K per step in the
fastest cell, where Ω is then off by {usual:.0%}: a tenth of a kelvin in where Ω reaches 1. Cells at a zone's
edge are heated far more slowly."""


def study(backend: Backend) -> dict[str, list[float]]:
    """Relative errors at constant temperatures, and of the ramp by the rise per step with observed orders."""
    config = shipped()
    found: dict[str, list[float]] = {"omega": [], "dose": [], "ramp_omega": [], "ramp_dose": []}
    for temperature in CONSTANT:
        wanted = exact(temperature, 0.0, SECONDS, config)
        seen = integrate(lambda _t, value=temperature: value, SECONDS, 120, backend, config)  # type: ignore[misc]
        for name, a, b in zip(("omega", "dose"), seen, wanted, strict=True):
            found[name].append(abs(a / b - 1.0))
    start, rate = RAMP
    wanted = exact(start, rate, SECONDS, config)
    for rise in RISES:
        n_steps = round(rate * SECONDS / rise)
        seen = integrate(lambda t: start + rate * t, SECONDS, n_steps, backend, config)
        for name, a, b in zip(("ramp_omega", "ramp_dose"), seen, wanted, strict=True):
            found[name].append(abs(a / b - 1.0))
    for name in ("omega", "dose"):
        errors = np.array(found[f"ramp_{name}"])
        found[f"order_{name}"] = list(np.log2(errors[:-1] / errors[1:]))
    return found


@section("dose", "Thermal dose and Arrhenius damage: constant and rising temperature", 18)
def dose(backend: Backend) -> Section:
    """Errors, orders and claims."""
    found = study(backend)
    rows: list[tuple[str | float, ...]] = [
        (f"constant {T:g} °C", f"{a:.1e}", f"{b:.1e}", "", "")
        for T, a, b in zip(CONSTANT, found["omega"], found["dose"], strict=True)
    ]
    for number, rise in enumerate(RISES):
        orders = [f"{found[f'order_{n}'][number - 1]:.2f}" if number else "" for n in ("omega", "dose")]
        errors = [f"{found[f'ramp_{n}'][number]:.1e}" for n in ("omega", "dose")]
        rows.append((f"ramp, {rise:g} K per step", *errors, *orders))
    claims = [
        Claim("Ω at constant temperature, relative error", max(found["omega"]), 5e-5),
        Claim("CEM43 at constant temperature, relative error", max(found["dose"]), 5e-5),
        Claim("order of Ω on the ramp, last halving", found["order_omega"][-1], 1.9, sense="at least"),
        Claim("order of CEM43 on the ramp, last halving", found["order_dose"][-1], 1.9, sense="at least"),
    ]
    columns = ("temperature", "error of Ω", "error of CEM43", "order of Ω", "order of CEM43")

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for name, label, mark in (("omega", "Ω", "o-"), ("dose", "CEM43", "s-")):
            axes.loglog(RISES, found[f"ramp_{name}"], mark, label=label)
        rises = np.array(RISES)
        axes.loglog(rises, 3e-3 * rises**2, "k:", label="second order")
        axes.set(xlabel="rise per step, K", ylabel="relative error at the end of the ramp")
        axes.legend()

    return Section(
        "dose",
        "Thermal dose and Arrhenius damage: constant and rising temperature",
        TEXT.format(usual=found["ramp_omega"][1]),
        columns,
        rows,
        draw,
        claims,
    )
