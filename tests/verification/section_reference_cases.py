"""Whole treatments against the independent solutions S1, S1c, N1, N3 and H1, at 1 and 0.5 mm."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from solver_cases import ReferenceCase, reference_problem
from verification.reference_cases import (
    LIMITS,
    Comparison,
    Kind,
    Reference,
    resistance_trace,
    worst,
)
from verification.sections import Claim, Section, section, shared_folder

from thermosim.backends.base import Backend
from thermosim.simulation import SimulationResult, run

SPACINGS = (1e-3, 0.5e-3)
COLORS = {1e-3: "#c44e52", 0.5e-3: "#4c72b0"}
NAMES: dict[Kind, tuple[str, str, float]] = {
    "edge": ("edge of the zone", "mm", 1.0),
    "temperature": ("temperature at the probes", "K", 1.0),
    "resistance": ("resistance", "%", 100.0),
    "volume": ("volume of the zone", "%", 100.0),
}
"""What a kind is called, the unit of its error, and the factor to that unit."""

JUDGED = """\
Limits: 0.3 mm in the zone's edge (less than a third of a cell of 1 mm, and a tenth of the 5 to 10 mm
margin that is judged by it), 1 K at probe points from 2 mm beyond the metal on (nearer, straight lines
between cells err by more than the solver), 2 % in resistance, on 1 mm; half of each on 0.5 mm. The volume
may be off by what these distances make all around it. The reference's own error is far below all of them."""


def compare_case(case: ReferenceCase, title: str, text: str, backend: Backend) -> Section:
    """Run a case on both grids and set it beside its reference."""
    folder = shared_folder("reference")
    reference = Reference(folder, case)
    results = {h: run(reference_problem(case, h), backend) for h in SPACINGS}
    found = {h: reference.compare(result) for h, result in results.items()}
    traces = {h: resistance_trace(result) for h, result in results.items()}
    return Section(
        f"reference_{case.lower()}",
        title,
        f"{text}\n\n{JUDGED}",
        ("quantity", "reference", "± own error", "1 mm", "error", "0.5 mm", "error", "unit of errors"),
        _rows(found),
        partial(_draw, folder=folder, reference=reference, found=found, traces=traces),
        [*_claims(reference, found), *_energy_claims(results)],
    )


def _rows(found: dict[float, list[Comparison]]) -> list[tuple[str | float, ...]]:
    rows: list[tuple[str | float, ...]] = []
    for coarse, fine in zip(*(_gathered(found[h]) for h in SPACINGS), strict=True):
        _, unit, factor = NAMES[coarse.kind]
        rows.append(
            (
                coarse.quantity,
                f"{coarse.wanted:.3f}",
                f"{coarse.uncertainty:.1g}",
                f"{coarse.found:.3f}",
                f"{factor * coarse.error:+.3f}",
                f"{fine.found:.3f}",
                f"{factor * fine.error:+.3f}",
                unit,
            )
        )
    return rows


def _gathered(comparisons: list[Comparison]) -> list[Comparison]:
    """The ten directions of a sphere's radius as their two extremes; all else as it is."""
    rays = sorted((c for c in comparisons if c.quantity.startswith("zone's radius")), key=lambda c: c.found)
    others = [c for c in comparisons if not c.quantity.startswith("zone's radius")]
    if not rays:
        return others
    ends = [
        Comparison(
            f"zone's radius, {name} of {len(rays)} directions", "edge", c.found, c.wanted, c.uncertainty
        )
        for name, c in (("smallest", rays[0]), ("largest", rays[-1]))
    ]
    return [*others[:-1], *ends, others[-1]]


def _claims(reference: Reference, found: dict[float, list[Comparison]]) -> list[Claim]:
    claims = []
    for h in SPACINGS:
        share = h / 1e-3  # half of each limit on 0.5 mm
        for kind, limit in LIMITS.items():
            name, unit, factor = NAMES[kind]
            value = factor * worst(found[h], kind)
            claims.append(
                Claim(f"{name}, largest error on {1e3 * h:g} mm", value, factor * share * limit, unit)
            )
        limit = reference.volume_limit(share * LIMITS["edge"])
        value = 100.0 * worst(found[h], "volume")
        claims.append(Claim(f"volume of the zone, error on {1e3 * h:g} mm", value, 100.0 * limit, "%"))
    return claims


def _energy_claims(results: dict[float, SimulationResult]) -> list[Claim]:
    # the trapezoidal rule of perfusion over steps of up to 5 s; float32 fields
    energy = max(result.audit.relative_error for result in results.values())
    power = max(result.power_relative_error for result in results.values())
    return [
        Claim("energy not found again, share of what was given", 100.0 * energy, 0.02, "%"),
        Claim("Σ q h³ against Σ V I, worst of all solves", 100.0 * power, 0.001, "%"),
    ]


# ---------------------------------------------------------------------------- plot


def _draw(
    figure: Figure,
    folder: Path,
    reference: Reference,
    found: dict[float, list[Comparison]],
    traces: dict[float, tuple[np.ndarray, np.ndarray]],
) -> None:
    figure.set_size_inches(10.5, 3.6)
    left, middle, right = figure.subplots(1, 3)
    series = reference.data["series"]
    left.plot(series["t_s"], series["R_ohm"], color="black", lw=1.2, label="reference")
    for h, (time, resistance) in traces.items():
        left.plot(time, resistance, ls="--", lw=1.2, color=COLORS[h], label=f"{1e3 * h:g} mm")
    left.set(xlabel="time [s]", ylabel="resistance [Ω]", title="Resistance")
    left.legend(frameon=False)

    distance, temperature = _profile(folder, reference)
    middle.plot(distance, temperature, color="black", lw=1.2, label="reference")
    probes = _probe_distances(reference)
    for h, marker, size in ((SPACINGS[0], "o", 6), (SPACINGS[1], "x", 5)):
        known = {c.quantity: c for c in found[h]}
        x, y = zip(*[(d, known[name].found) for name, d in probes.items() if name in known], strict=True)
        middle.plot(x, y, marker, ms=size, mfc="none", color=COLORS[h], label=f"{1e3 * h:g} mm")
    middle.set(
        xlabel="distance from the axis [mm]" if reference.case[0] != "S" else "distance from the centre [mm]",
        ylabel="temperature [°C]",
        xlim=(0, 31),
        title=f"Temperature at {reference.data['t_end_s']} s",
    )
    middle.legend(frameon=False)

    kinds: list[Kind] = ["edge", "temperature", "resistance", "volume"]
    limits = {**LIMITS, "volume": reference.volume_limit(LIMITS["edge"])}
    place = np.arange(len(kinds))
    for number, h in enumerate(SPACINGS):
        used = [100.0 * worst(found[h], kind) / limits[kind] for kind in kinds]
        right.bar(place + 0.36 * (number - 0.5), used, 0.34, color=COLORS[h], label=f"{1e3 * h:g} mm")
    for h in SPACINGS:
        right.axhline(100.0 * h / 1e-3, color=COLORS[h], ls=":", lw=1.2)
    right.set_xticks(place, ["edge", "temper-\nature", "resis-\ntance", "volume"])
    right.set(ylabel="largest error [% of the limit on 1 mm]", title="Errors (dotted: limits)", ylim=(0, 130))
    right.legend(frameon=False, loc="upper right")


def _profile(folder: Path, reference: Reference) -> tuple[list[float], list[float]]:
    """The reference's temperature at the end along one line: distance [mm], temperature [°C]."""
    with (folder / f"{reference.case}_profiles.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    key = f"T_C_{reference.end}s"
    if reference.case.startswith("S"):
        return [float(r["r_mm"]) for r in rows], [float(r[key]) for r in rows]
    name, line = ("ray", "mid-plane 90deg") if reference.case == "H1" else ("line", "mid z=0")
    own = [r for r in rows if r[name].startswith(line)]
    return [float(r["coord_mm"]) for r in own], [float(r[key]) for r in own]


def _probe_distances(reference: Reference) -> dict[str, float]:
    """Probes on the line of `_profile`, with their distance [mm]."""
    if reference.case.startswith("S"):
        return {f"r{r:g}mm": r for r in (4, 5, 7.5, 10, 12, 15, 20, 30)}
    if reference.case == "H1":
        return {f"+y_{r}mm_z0": float(r) for r in (2, 3, 5, 10, 15, 20, 30)}
    return {f"mid_r{r:g}": r for r in (2, 3, 5, 7.5, 10, 15, 20, 30)}


# ---------------------------------------------------------------------------- the cases


@section("reference_s1", "Sphere electrode, σ(T): reference S1", 30)
def sphere(backend: Backend) -> Section:
    text = """\
A sphere of 2 mm radius at 21 V for 300 s in the middle of a sphere of 60 mm; σ rises with temperature by
1.5 %/K. The reference is a one-dimensional finite-volume solution with 1600 graded cells and a stiff BDF
integrator."""
    return compare_case("S1", "Sphere electrode, σ(T): reference S1", text, backend)


@section("reference_s1c", "Sphere electrode, constant σ: reference S1c", 31)
def sphere_of_constant_conductivity(backend: Backend) -> Section:
    text = """\
As S1, but with a constant σ: resistance and heat have closed forms, R = (1/a − 1/b)/(4π σ), and the zone
follows from Pennes' equation with a known source."""
    return compare_case("S1c", "Sphere electrode, constant σ: reference S1c", text, backend)


@section("reference_n1", "Needle in a cylinder: reference N1", 32)
def needle(backend: Backend) -> Section:
    text = """\
A needle of 1.5 mm with 30.75 mm of bare metal (hemispherical tip, insulated shaft) at 22 V for 720 s on
the axis of a cylinder of 60 mm radius and 120 mm length, perfused. The reference is an axisymmetric
finite-element solution (quadratic elements, BDF2). Probes are averaged over 24 points around the axis."""
    return compare_case("N1", "Needle in a cylinder: reference N1", text, backend)


@section("reference_n3", "Needle at constant power, no perfusion: reference N3", 33)
def needle_at_constant_power(backend: Backend) -> Section:
    text = """\
As N1, but at a constant power of 6 W for 600 s and without perfusion, as in an excised liver: heat has
nowhere to go but outwards, and the generator's voltage follows the falling resistance."""
    return compare_case("N3", "Needle at constant power, no perfusion: reference N3", text, backend)


@section("reference_h1", "Needle beside a vessel: reference H1", 34)
def needle_beside_a_vessel(backend: Backend) -> Section:
    text = """\
As N1 in a cube of 120 mm, with a vessel of 6 mm diameter parallel to the needle and 12 mm from its axis:
blood of σ = 0.7 S/m, and a wall that takes heat at 1500 W/(m² K) against 37 °C. The reference is a
three-dimensional solution on quadratic tetrahedra. Probes on the vessel's wall are read between a cell of
tissue and one of blood."""
    return compare_case("H1", "Needle beside a vessel: reference H1", text, backend)
