"""Problems with a closed form: sphere electrode, point source, slab, cooled needle, heat kernel."""

from __future__ import annotations

import itertools

import numpy as np
from matplotlib.figure import Figure
from reference import analytic
from solver_cases import reference_problem
from verification.closed_forms import (
    CAPACITY,
    SIGMA,
    CooledNeedle,
    Field,
    K,
    at_one_volt,
    distance_from,
    heat_of,
    point_source,
    shells,
    sphere_in_a_large_body,
    spot_in_a_box,
    two_slabs,
)
from verification.sections import Claim, Section, section

from thermosim.backends.base import Backend

RED, BLUE, GREEN = "#c44e52", "#4c72b0", "#55a868"

SPHERE = "Sphere electrode: potential, resistance, heat"
POINT = "Point source with perfusion, steady and switched on"
SLAB = "Two materials in series"
COOLED = "Cooled needle with perfusion"
KERNEL = "Heat left in one cell: Green's function of the box"


@section("sphere", SPHERE, 10)
def sphere(backend: Backend) -> Section:
    text = """\
A sphere of radius a at voltage V in a large body of constant σ: φ = V a/r, R = 1/(4π σ a), q = σ V² a²/r⁴
(Jackson 1999, Classical Electrodynamics, §1.7); inside an earthed sphere of radius b: φ = V (1/r −
1/b)/(1/a − 1/b), R = (1/a − 1/b)/(4π σ). The large body is a box of 40 mm whose faces let the field fall as
1/r; the sphere sits in the middle of the grid or off it. Links beside the electrode are fitted to such a
field, so the errors are far below those of a grid of this size. The earthed sphere's surface is a
staircase: a part of a cell at 60 mm."""
    rows: list[tuple[str | float, ...]] = []
    for spacing in (2e-3, 1e-3):
        for center in ((0.0, 0.0, 0.0), (0.3e-3, -0.4e-3, 0.17e-3)):
            for radius in (1.5e-3, 4e-3):
                problem = sphere_in_a_large_body(center, radius, spacing)
                treatment, phi, resistance = at_one_volt(problem, backend)
                exact = analytic.sphere_potential(distance_from(treatment, center), radius, 1.0)
                error = np.abs(phi - exact)[~treatment.solid_mask].max()
                place = "middle" if center[0] == 0.0 else "off"
                ohms = analytic.sphere_resistance(radius, SIGMA)
                body = f"large body, a = {1e3 * radius:g} mm, {place}"
                rows.append((body, 1e3 * spacing, ohms, resistance, 100.0 * (resistance / ohms - 1.0), error))
    for spacing in (2e-3, 1e-3):
        treatment, phi, resistance = at_one_volt(reference_problem("S1", spacing), backend)
        r = distance_from(treatment, (0.0, 0.0, 0.0))
        inside = ~treatment.solid_mask & (r < 50e-3)
        error = np.abs(phi - analytic.sphere_potential(r, 2e-3, 1.0, 60e-3))[inside].max()
        ohms = analytic.sphere_resistance(2e-3, SIGMA, 60e-3)
        body = "earthed sphere of 60 mm, a = 2 mm"
        rows.append((body, 1e3 * spacing, ohms, resistance, 100.0 * (resistance / ohms - 1.0), error))

    radius, volts = 3e-3, 20.0
    treatment, _, resistance = at_one_volt(sphere_in_a_large_body((0.0, 0.0, 0.0), radius, 1e-3), backend)
    total, q = heat_of(treatment, volts)
    r = distance_from(treatment, (0.0, 0.0, 0.0))
    exact_q = analytic.sphere_heating(r, radius, volts, SIGMA)
    bounds = np.array([5.0, 7.0, 9.0, 12.0, 16.0])
    ratios = [
        float(q[s].sum() / exact_q[s].sum())
        for s in ((r > 1e-3 * a) & (r < 1e-3 * b) for a, b in itertools.pairwise(bounds))
    ]

    def figure(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        near = r < 16e-3
        distance = np.linspace(3e-3, 16e-3, 200)
        left.semilogy(1e3 * r[near].ravel(), q[near].ravel(), ".", ms=2, color=RED, label="cells of 1 mm")
        exact_line = analytic.sphere_heating(distance, radius, volts, SIGMA)
        left.semilogy(1e3 * distance, exact_line, color="black", lw=1.2, label="exact")
        left.set(
            xlabel="distance from the centre [mm]", ylabel="heat q [W/m³]", title="20 V on a sphere of 3 mm"
        )
        left.legend(frameon=False, markerscale=2)
        middle = 0.5 * (bounds[:-1] + bounds[1:])
        right.plot(middle, 100.0 * (np.array(ratios) - 1.0), "o-", color=RED)
        right.axhline(0.0, color="black", lw=0.8)
        right.set(xlabel="middle of the shell [mm]", ylabel="heat in the shell: error [%]", ylim=(-1, 8))
        right.set_title("Heat shell by shell")

    worst = max(abs(float(row[4])) for row in rows[:8])
    return Section(
        "sphere",
        SPHERE,
        text,
        ("case", "h [mm]", "exact R [Ω]", "found R [Ω]", "error [%]", "largest error of φ, share of V"),
        rows,
        figure,
        [
            Claim("R in a large body, any place, 1 and 2 mm", worst, 0.05, "%"),
            Claim("R in the earthed sphere, 1 and 2 mm", max(abs(float(w[4])) for w in rows[8:]), 0.05, "%"),
            Claim("φ up to the metal, share of V", max(float(row[5]) for row in rows), 2e-3),
            Claim("Σ q h³ against V²/R", 100.0 * abs(total * resistance / volts**2 - 1.0), 1e-3, "%"),
            # a cell's mean of 1/r⁴ is 1 + 10/6 (h/r)² of its middle: 6.7 % at 5 mm
            Claim("heat in shells from 5 mm on", 100.0 * max(abs(x - 1.0) for x in ratios), 7.3, "%"),
        ],
    )


@section("point_source", POINT, 11)
def point(backend: Backend) -> Section:
    text = """\
A source of power P in one cell of perfused tissue: θ = P/(4π k r) exp(−r √(W/k)) when steady, and with erfc
while it builds up (Carslaw & Jaeger 1959, Conduction of Heat in Solids, §10.4, extended by W). Close to a
source of one cell the seven-point stencil errs by (h/r)²/4 along the axes, more where the field is
screened; averaged over directions only the screening length errs, by (h/L)²/24. Limits follow from this at
4.5 to 8 cells."""
    power, perfusion = 0.1, 40e3
    lines: dict[float, tuple[Field, Field, Field]] = {}
    rows: list[tuple[str | float, ...]] = []
    for h, n in ((1e-3, 51), (0.5e-3, 102 + 1)):
        box, r = point_source(backend, n, h, power, perfusion)
        box.advance(10.0, 115)  # 12 time constants ρc/W of 95 s
        exact = analytic.point_source_rise(np.maximum(r, 0.5 * h), power, K, perfusion)
        near = (r > 4.5e-3) & (r < 8e-3)
        pointwise = 100.0 * float(np.abs(box.rise[near] / exact[near] - 1.0).max())
        mean = 100.0 * max(
            abs(float(box.rise[s].sum() / exact[s].sum()) - 1.0)
            for s in ((r > a) & (r < a + 1e-3) for a in (4.5e-3, 5.5e-3, 6.5e-3))
        )
        taken = 100.0 * perfusion * float(box.rise.sum()) * h**3 / power
        rows.append(("steady", 1e3 * h, pointwise, mean, taken))
        some = (r > 1e-3) & (r < 12e-3)
        lines[h] = (r[some], box.rise[some], exact[some])
    transient = 0.0
    for time_row in (60.0, 120.0):
        box, r = point_source(backend, 51, 1e-3, power, 20e3)
        box.advance(2.0, round(time_row / 2.0))
        exact = analytic.continuous_point_source_rise(np.maximum(r, 1e-3), time_row, power, K, CAPACITY, 20e3)
        near = (r > 4.5e-3) & (r < 8e-3)
        pointwise = 100.0 * float((np.abs(box.rise - exact)[near] / exact[near].max()).max())
        mean = 100.0 * max(abs(float(box.rise[s].sum() / exact[s].sum()) - 1.0) for s in shells(r, 1e-3))
        transient = max(transient, mean)
        rows.append((f"after {time_row:.0f} s", 1.0, pointwise, mean, "–"))

    def figure(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        distance = np.linspace(1.5e-3, 12e-3, 200)
        line = analytic.point_source_rise(distance, power, K, perfusion)
        for h, color in ((1e-3, RED), (0.5e-3, BLUE)):
            r, found, exact = lines[h]
            left.semilogy(1e3 * r, found, ".", ms=2, color=color, label=f"cells of {1e3 * h:g} mm")
            right.plot(1e3 * r, 100.0 * (found / exact - 1.0), ".", ms=2, color=color)
        left.semilogy(1e3 * distance, line, color="black", lw=1.2, label="exact")
        left.set(xlabel="distance [mm]", ylabel="rise [K]", title="Steady, P = 0.1 W", ylim=(1e-2, 30))
        left.legend(frameon=False, markerscale=2)
        right.axhline(0.0, color="black", lw=0.8)
        right.set(xlabel="distance [mm]", ylabel="error [%]", ylim=(-10, 10), title="Error, cell by cell")

    return Section(
        "point_source",
        POINT,
        text,
        ("state", "h [mm]", "worst cell, 4.5–8 mm [%]", "worst shell [%]", "heat taken by blood [% of P]"),
        rows,
        figure,
        [
            Claim("steady, worst cell, 1 mm", float(rows[0][2]), 4.0, "%"),
            Claim("steady, worst cell, 0.5 mm, a quarter of it", float(rows[1][2]), 1.0, "%"),
            Claim("steady, worst shell, 1 mm", float(rows[0][3]), 0.7, "%"),
            Claim("switched on, worst shell, 1 mm", transient, 1.4, "%"),
            # 6.9 screening lengths to the faces: (1 + 6.9) e^−6.9 = 0.8 % leave through them
            Claim("heat taken by the blood, 1 mm", float(rows[0][4]), 99.2, "% of P", "at least"),
        ],
    )


@section("slab", SLAB, 12)
def slab(backend: Backend) -> Section:
    text = """\
Eight layers of 1 mm, heated in the first, with a conductivity that falls by four in the middle: straight
lines, whose slope jumps where k does (Carslaw & Jaeger 1959, §3.2). The harmonic mean of k at a face makes
this exact; what is left is float32 and the cold faces across the slab, 32 mm away (4·10⁻⁶)."""
    found, exact = two_slabs(backend)
    rows = [(float(n + 0.5), e, f, f / e - 1.0) for n, (f, e) in enumerate(zip(found, exact, strict=True))]

    def figure(figure: Figure) -> None:
        axes = figure.subplots()
        depth = np.arange(8) + 0.5
        axes.plot(depth, exact, color="black", lw=1.2, label="exact")
        axes.plot(depth, found, "o", mfc="none", color=RED, label="cells of 1 mm")
        axes.axvline(4.0, color="gray", ls=":", lw=1.0)
        axes.annotate("k = 0.8 | 0.2 W/(m K)", (4.0, 0.115), ha="center", backgroundcolor="white")
        axes.set(xlabel="depth [mm]", ylabel="rise [K]", title="Two materials in series")
        axes.legend(frameon=False, markerscale=2)

    worst = float(np.max(np.abs(found / exact - 1.0)))
    return Section(
        "slab",
        SLAB,
        text,
        ("depth [mm]", "exact rise [K]", "found [K]", "relative error"),
        rows,
        figure,
        [Claim("largest relative error", worst, 1e-4)],
    )


@section("cooled_needle", COOLED, 13)
def cooled_needle(backend: Backend) -> Section:
    text = """\
A long needle of 1.5 mm at 40 V on the axis of an earthed cylinder of 48 mm, cooled from inside to 5, 15 or
25 °C, in perfused liver of constant σ and k (W of reference N1). Current flows straight outwards: R =
ln(b/a)/(2π σ L), q = A/r², and the steady temperature is a combination of modified Bessel functions and one
integral (`cooled_needle_rise` in `tests/reference/analytic.py`), the steady state of the problem that López
Molina, Rivera & Berjano solved (2012, Math Probl Eng 2012:834807, doi:10.1155/2012/834807). They find
tissue hottest some 3 mm from the metal and hardly dependent on the coolant between 5 and 25 °C. The
needle's axis lies off the grid. The cylinder's surface is a staircase, which moves R by a part of a cell in
24 mm; beside it, and beside the metal, lie the largest errors in temperature."""
    case = CooledNeedle()
    line = np.linspace(case.radius, 15e-3, 600)
    rows: list[tuple[str | float, ...]] = []
    profiles: dict[tuple[float, float], tuple[Field, Field]] = {}
    resistance_error, audit = 0.0, 0.0
    for h in (2e-3, 1e-3, 0.5e-3):
        for coolant in (5.0, 15.0, 25.0) if h > 0.5e-3 else (15.0,):
            result = case.run(coolant, h, backend)
            distance, temperature = case.profile(result)
            profiles[h, coolant] = distance, temperature
            exact = case.exact(line, coolant)
            inner = distance < 20e-3
            error = np.abs(temperature - case.exact(distance, coolant))[inner].max()
            peak = line[np.argmax(exact)] - case.radius
            rows.append(
                (
                    1e3 * h,
                    coolant,
                    exact.max(),
                    temperature.max(),
                    1e3 * peak,
                    1e3 * float(distance[np.argmax(temperature)] - case.radius),
                    float(error),
                )
            )
            length = result.temperature.shape[2] * h
            ohms = analytic.coaxial_resistance(case.radius, case.outer, length, SIGMA)
            if h == 1e-3:
                resistance_error = max(resistance_error, 100.0 * abs(result.initial_impedance / ohms - 1.0))
            audit = max(audit, 100.0 * result.audit.relative_error)

    def worst(h: float) -> float:
        return max(float(row[6]) for row in rows if row[0] == 1e3 * h)

    distance, warm = profiles[1e-3, 25.0]
    difference = np.abs(warm - profiles[1e-3, 5.0][1])[distance > 10e-3].max()
    places = [float(row[5]) for row in rows if row[0] == 1.0]
    shift = max(abs(float(row[5]) - float(row[4])) for row in rows if row[0] == 1.0)

    def figure(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        for coolant, color in ((5.0, BLUE), (15.0, GREEN), (25.0, RED)):
            distance, temperature = profiles[1e-3, coolant]
            near = distance < 15e-3
            left.plot(1e3 * line, case.exact(line, coolant), color=color, lw=1.2)
            left.plot(
                1e3 * distance[near],
                temperature[near],
                ".",
                ms=3,
                color=color,
                label=f"coolant {coolant:g} °C",
            )
        left.axvline(1e3 * case.radius, color="gray", ls=":", lw=1.0)
        left.set(xlabel="distance from the axis [mm]", ylabel="temperature [°C]", xlim=(0, 15))
        left.set_title("Exact (lines) and cells of 1 mm")
        left.legend(frameon=False, markerscale=2)
        for h, color in ((2e-3, RED), (1e-3, GREEN), (0.5e-3, BLUE)):
            distance, temperature = profiles[h, 15.0]
            error = temperature - case.exact(distance, 15.0)
            right.plot(1e3 * distance, error, ".", ms=3, color=color, label=f"{1e3 * h:g} mm")
        right.axhline(0.0, color="black", lw=0.8)
        right.set(xlabel="distance from the axis [mm]", ylabel="error [K]", title="Error, coolant 15 °C")
        right.legend(frameon=False, markerscale=2)

    return Section(
        "cooled_needle",
        COOLED,
        text,
        (
            "h [mm]",
            "coolant [°C]",
            "exact hottest [°C]",
            "found [°C]",
            "exact distance from the metal [mm]",
            "found (cell) [mm]",
            "largest error within 20 mm [K]",
        ),
        rows,
        figure,
        [
            Claim("temperature within 20 mm, 2 mm cells", worst(2e-3), 0.6, "K"),
            Claim("temperature within 20 mm, 1 mm cells", worst(1e-3), 0.3, "K"),
            Claim("temperature within 20 mm, 0.5 mm cells", worst(0.5e-3), 0.15, "K"),
            Claim("resistance, 1 mm cells", resistance_error, 0.2, "%"),
            # the profile is flat at its top: a cell's middle is all that can be asked for
            Claim("place of the hottest cell against the exact one, 1 mm cells", shift, 0.25, "mm"),
            Claim("hottest cell from the metal, nearest, 1 mm cells", min(places), 2.0, "mm", "at least"),
            Claim("hottest cell from the metal, farthest, 1 mm cells", max(places), 3.5, "mm"),
            Claim("coolant of 25 instead of 5 °C, from 10 mm on, 1 mm cells", difference, 1.5, "K"),
            Claim("energy not found again", audit, 0.05, "%"),
        ],
    )


@section("heat_kernel", KERNEL, 14)
def kernel(backend: Backend) -> Section:
    text = """\
30 J left in one cell near an edge of a box with cold faces, then conduction and perfusion for 360 s. The
program has no periodic faces; but a source between cold faces is, reflected with alternating signs, a
periodic array of twice the period, so that the exact rise is the product over the axes of differences of
the periodic line's Green's functions, times exp(−W t/ρc) (Carslaw & Jaeger 1959, §10.10 and §14.3; periodic
Pennes: Gao, Langer & Corry 1995, Int J Hyperthermia 11:267). Of the peak the stencil errs by ¾ h²/(4αt),
and ¼ more because the program's source is a point in its cell's middle; the limit leaves 40 % for higher
orders and the faces."""
    spot = spot_in_a_box(backend)
    rows: list[tuple[str | float, ...]] = []
    for time, found, exact in zip(spot.times, spot.found, spot.exact, strict=True):
        error = 100.0 * float(np.abs(found - exact).max() / exact.max())
        limit = 100.0 * 1.4 * spot.spacing**2 / (4.0 * K / CAPACITY * time)
        left_over = 100.0 * (float(found.sum() / exact.sum()) - 1.0)
        rows.append((time, exact.max(), found.max(), error, limit, left_over))

    def figure(figure: Figure) -> None:
        for axes, time, found, exact in zip(
            figure.subplots(1, 3), spot.times, spot.found, spot.exact, strict=True
        ):
            i, j, k = spot.source
            for name, slices, color in (("x", (slice(None), j, k), RED), ("z", (i, j, slice(None)), BLUE)):
                where = (np.arange(exact[slices].size) + 0.5) * 1e3 * spot.spacing
                axes.plot(where, exact[slices], color=color, lw=1.2)
                axes.plot(where, found[slices], "o", ms=3, mfc="none", color=color, label=f"along {name}")
            axes.set(xlabel="place in the box [mm]", ylabel="rise [K]", title=f"{time:g} s")
        axes.legend(frameon=False, markerscale=2)

    claims = [
        Claim(f"largest error after {row[0]:g} s", float(row[3]), float(row[4]), "% of peak") for row in rows
    ]
    lost = max(abs(float(row[5])) for row in rows)
    claims.append(Claim("heat left between the faces, all times", lost, 0.8, "%"))
    return Section(
        "heat_kernel",
        KERNEL,
        text,
        (
            "time [s]",
            "exact peak [K]",
            "found [K]",
            "largest error [% of peak]",
            "limit",
            "heat left, error [%]",
        ),
        rows,
        figure,
        claims,
    )
