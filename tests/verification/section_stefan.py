"""Boiling tissue as shipped, against Neumann's solution of the Stefan problem."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from verification.sections import Claim, Section, section
from verification.stefan import HalfSpace, without_slope

from thermosim.backends.base import Backend

SECONDS = 600.0
LENGTH = 60e-3
SPACINGS = (1e-3, 0.5e-3)
WIDTHS = (4.0, 1.0, 0.25)
STEP = 1.0

TEXT = """\
Excised bovine liver as in `configs/tissue/ex_vivo_bovine.yaml` ({latent:.3g} J/m³ of latent heat: 2.26 MJ/kg
of the water's 71 % of 1079 kg/m³, which warms the same tissue by {kelvin:.0f} K) at {start:.0f} °C is held
at {wall:.0f} °C at its face. A front of boiling walks into it, s = 2 λ √(αt) by Neumann's similarity solution
(Carslaw & Jaeger 1959, *Conduction of Heat in Solids*, 2nd ed., § 11.2), λ from

(L/ρc) λ √π = e^(−λ²) [(T_w − T_v)/erf λ − (T_v − T_0)/erfc λ].

That is for one k and for all latent heat at 99 °C; thermosim releases it over a width. The same similarity
turns the problem *with* width and k(T) into an ordinary differential equation, solved to 10⁻¹⁰: it tells
what the width changes (column "exact, this width"), and what is left is the grid's error. A code whose latent
heat is wrong by the density, a factor of 1000, would put the front at {wrong:.0f} mm.

Limit: 1 % of the distance the front has gone, 0.05 mm, on a grid of 1 mm as on 0.5 mm: a twentieth of a cell,
far below the 0.3 mm that is asked of a zone's edge."""


def front(case: HalfSpace, backend: Backend, spacing: float, time: float = SECONDS) -> float:
    """Length [m] of dry tissue."""
    u = case.solve(backend, spacing, round(LENGTH / spacing), time, STEP)
    return case.dry_length(case.temperature(u), spacing)


def exact_front(case: HalfSpace) -> float:
    """The same of the similarity solution with the width of the latent range."""
    fine = 1e-6
    x = (np.arange(round(LENGTH / fine)) + 0.5) * fine
    return case.dry_length(case.similar(x, SECONDS), fine)


def study(backend: Backend) -> dict[str, list[dict[str, float]]]:
    """Fronts [mm] after ten minutes, by width and spacing, of constant k and of k(T) as shipped."""
    shipped = HalfSpace.shipped("ex_vivo_bovine")
    found: dict[str, list[dict[str, float]]] = {"constant": [], "shipped": []}
    for name, base in (("constant", without_slope(shipped)), ("shipped", shipped)):
        for width in WIDTHS if name == "constant" else (shipped.width,):
            case = replace(base, width=width)
            row = {
                "width": width,
                "closed": 1e3 * case.neumann_front(SECONDS) if name == "constant" else float("nan"),
                "exact": 1e3 * exact_front(case),
            }
            row |= {f"{h:g}": 1e3 * front(case, backend, h) for h in SPACINGS}
            found[name].append(row)
    return found


@section("stefan", "Stefan problem: the latent heat of the tissue as shipped", 17)
def stefan(backend: Backend) -> Section:
    """Front, temperature and claims."""
    shipped = HalfSpace.shipped("ex_vivo_bovine")
    constant = without_slope(shipped)
    found = study(backend)
    rows: list[tuple[str | float, ...]] = []
    claims = []
    for name, law in (("constant", "constant"), ("shipped", "k(T)")):
        for row in found[name]:
            closed = "none" if name == "shipped" else f"{row['closed']:.3f}"
            fronts = [f"{row[f'{h:g}']:.3f}" for h in SPACINGS]
            rows.append((law, f"{row['width']:g}", closed, f"{row['exact']:.3f}", *fronts))
            if row["width"] != shipped.width:
                continue
            wanted = row["exact"] if name == "shipped" else row["closed"]
            title = "k(T)" if name == "shipped" else "constant k"
            against = "similarity solution" if name == "shipped" else "closed form"
            for h in SPACINGS:
                error = 100.0 * abs(row[f"{h:g}"] / wanted - 1.0)
                what = f"front on {1e3 * h:g} mm against the {against}, {title}"
                claims.append(Claim(what, error, 1.0, "%"))
    narrow = found["constant"][-1]
    what = f"similarity solution of {narrow['width']:g} K width against the closed form"
    claims.append(Claim(what, 100.0 * abs(narrow["exact"] / narrow["closed"] - 1.0), 0.1, "%"))
    wrong = replace(constant, latent=constant.latent / 1000.0)
    text = TEXT.format(
        latent=shipped.latent_heat,
        kelvin=shipped.latent,
        start=shipped.start,
        wall=shipped.wall,
        wrong=1e3 * wrong.neumann_front(SECONDS),
    )
    columns = ("k", "width, K", "closed form, mm", "exact, this width, mm", "1 mm grid", "0.5 mm grid")

    def draw(figure: Figure) -> None:
        _draw(figure, constant, backend)

    return Section(
        "stefan",
        "Stefan problem: the latent heat of the tissue as shipped",
        text,
        columns,
        rows,
        draw,
        claims,
    )


def _draw(figure: Figure, case: HalfSpace, backend: Backend) -> None:
    profile, walk = figure.subplots(1, 2)
    x: NDArray[np.float64] = np.linspace(0.0, 40e-3, 800)
    profile.plot(1e3 * x, case.neumann_temperature(x, SECONDS), "k-", lw=1, label="closed form")
    for h, mark in zip(SPACINGS, ("o", "."), strict=True):
        n = round(LENGTH / h)
        centers = (np.arange(n) + 0.5) * h
        temperature = case.temperature(case.solve(backend, h, n, SECONDS, STEP))
        near = centers < x[-1]
        profile.plot(1e3 * centers[near], temperature[near], mark, ms=4, label=f"{1e3 * h:g} mm")
    profile.set(xlabel="depth, mm", ylabel="temperature after 10 min, °C")
    profile.legend()
    times = SECONDS * np.array([1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0])
    smooth = np.linspace(0.0, SECONDS, 200)
    walk.plot(smooth, [1e3 * case.neumann_front(t) for t in smooth], "k-", lw=1, label="closed form")
    for h, mark in zip(SPACINGS, ("o", "."), strict=True):
        walk.plot(
            times, [1e3 * front(case, backend, h, t) for t in times], mark, ms=5, label=f"{1e3 * h:g} mm"
        )
    walk.set(xlabel="time, s", ylabel="front, mm")
    walk.legend()
