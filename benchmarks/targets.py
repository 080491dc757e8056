"""The figures that thermosim wants to reach on two processor cores, and what a record says of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]
Cases = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """What was measured: the value in words, its ratio to the target (above 1: better), met or not."""

    value: str
    ratio: float

    @property
    def met(self) -> bool:
        return self.ratio >= 1.0


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    target: str
    find: Callable[[Cases], Finding | None]


def median(cases: Cases, case: str, quantity: str) -> float:
    """Median of a quantity; raises KeyError where it was not measured."""
    for entry in cases[case]["quantities"]:
        if entry["name"].strip() == quantity:
            return float(entry["median"])
    raise KeyError(quantity)


def rows(cases: Cases, case: str) -> list[dict[str, Any]]:
    """The table of a case."""
    return list(cases[case]["details"]["rows"])


def row(cases: Cases, case: str, key: str, value: Any) -> dict[str, Any]:
    """The line of a case's table whose `key` is `value`."""
    for one in rows(cases, case):
        if one.get(key) == value:
            return one
    raise KeyError(value)


def peers(cases: Cases, case: str, key: str) -> list[tuple[str, float]]:
    """Name and figure of every peer that has one."""
    found = []
    for one in rows(cases, case):
        if one["peer"].startswith("thermosim") or key not in one:
            continue
        values = one[key] if isinstance(one[key], list) else [one[key]]
        found.append((one["peer"], float(sorted(values)[len(values) // 2])))
    if not found:
        raise KeyError(case)
    return found


def at_most(value: float, bound: float, text: str) -> Finding:
    """A value that should not exceed its bound."""
    return Finding(text, bound / value if value > 0.0 else float("inf"))


def _against_plain(cases: Cases) -> Finding:
    name, best = max(peers(cases, "heat_peers", "rates"), key=lambda p: p[1])
    ours = 1e6 * median(cases, "heat_step_whole", "cell-updates")
    return Finding(f"{1e-6 * ours:.0f} against {1e-6 * best:.0f} M/s ({name})", ours / best)


def _share(cases: Cases) -> Finding:
    share = median(cases, "heat_step_whole", "share of the triad")
    return Finding(f"{share:.0f} %", share / 80.0)


def _against_multigrid(cases: Cases) -> Finding:
    # names as in peers/potential.py, which not everybody can import
    known = ("PyAMG", "PETSc", "AMGCL")
    measured = [p for p in peers(cases, "potential_peers", "seconds") if p[0].startswith(known)]
    if not measured:
        raise KeyError("no multigrid peer")
    name, best = min(measured, key=lambda p: p[1])
    ours = row(cases, "potential_peers", "peer", "thermosim")["seconds"]
    return Finding(f"{best / ours:.1f} × ({ours:.2f} s against {best:.1f} s, {name})", best / ours / 15.0)


def _held(cases: Cases) -> Finding:
    value = median(cases, "potential_large", "held, per cell")
    return at_most(value, 45.0, f"{value:.0f} B")


def _warm(cases: Cases) -> Finding:
    value = median(cases, "warm_resolve", "iterations of a warm solve")
    return at_most(value, 2.0, f"{value:.1f}")


def _whole(cases: Cases) -> Finding:
    value = median(cases, "demo", "solver and outcome")
    volume = cases["demo"]["details"]["zone_volume_ml"]
    return at_most(value, 5.0, f"{value:.1f} s, zone {volume:.1f} ml")


def _against_stack(method: str, wanted: float) -> Callable[[Cases], Finding]:
    def find(cases: Cases) -> Finding:
        chosen = [one for one in rows(cases, "ablation_peers") if method in one["peer"] and "seconds" in one]
        if not chosen:
            raise KeyError(method)
        best = min(chosen, key=lambda one: one["seconds"])
        ours = row(cases, "ablation_peers", "peer", "thermosim")
        factor = best["seconds"] / ours["seconds"]
        volume = best.get("zone_volume_ml")
        zone = "zone not computed" if volume is None else f"zone {volume:.1f} ml"
        scaled = (
            f", scaled up from {best['simulated_seconds']:.0f} s of treatment" if best["extrapolated"] else ""
        )
        text = f"{factor:.1f} × ({best['seconds']:.0f} s at {best['tolerance']:.0e}{scaled}; {zone})"
        return Finding(text, factor / wanted)

    return find


def _spacing(
    mm: float, key: str, bound: float, unit: str, case: str = "spacing"
) -> Callable[[Cases], Finding]:
    def find(cases: Cases) -> Finding:
        value = float(row(cases, case, "spacing_mm", mm)[key])
        return at_most(value, bound, f"{value:.2g} {unit}")

    return find


def _coarse_zone(cases: Cases) -> Finding:
    if min(one["spacing_mm"] for one in rows(cases, "spacing")) > 0.5:
        raise KeyError("no fine solution")
    value = 100.0 * abs(row(cases, "spacing", "spacing_mm", 2.0)["volume_error"])
    return at_most(value, 2.5, f"{value:.1f} %")


def _batch(case: str, bound: float) -> Callable[[Cases], Finding]:
    def find(cases: Cases) -> Finding:
        value = median(cases, case, "1,000 cases, scaled up")
        count = cases[case]["details"]["cases"]
        return at_most(value, bound, f"{value:.0f} s, scaled up from {count} cases")

    return find


def _start(cases: Cases) -> Finding:
    value = median(cases, "start", "command to first step")
    return at_most(value, 3.0, f"{value:.1f} s")


FIGURES = (
    Figure(
        "heat step at 256³ with latent heat, shutdown, all models of death; best peer's plain one",
        "≥ 1 ×",
        _against_plain,
    ),
    Figure("share of the measured bandwidth that it uses", "≥ 80 %", _share),
    Figure(
        "cold potential of three needles at 160³ to 1e-6, with set-up; fastest algebraic multigrid",
        "≥ 15 ×",
        _against_multigrid,
    ),
    Figure("memory of that solve per cell", "< 45 B", _held),
    Figure("iterations of a warm solve after 1 s of heating", "≤ 2", _warm),
    Figure("whole ablation at 128³, 1 mm, with three models of death and margin", "≤ 5 s", _whole),
    Figure(
        "against Numba and warm matrix-free Jacobi-PCG at 1e-4", "≥ 12 ×", _against_stack("Jacobi-PCG", 12.0)
    ),
    Figure("against Numba and PyAMG at 1e-6", "≥ 100 ×", _against_stack("PyAMG", 100.0)),
    Figure("the same ablation at 0.5 mm, 256³", "≤ 60 s", _spacing(0.5, "solver_seconds", 60.0, "s")),
    Figure("at 2 mm, 64³", "< 0.3 s", _spacing(2.0, "solver_seconds", 0.3, "s")),
    Figure("its zone against that at 0.5 mm", "≤ 2.5 %", _coarse_zone),
    Figure("1,000 perturbed cases at 2 mm", "≤ 300 s", _batch("batch", 300.0)),
    Figure("zones and margins of a 256³ case", "< 1 s", _spacing(0.5, "outcome_seconds", 1.0, "s")),
    Figure("command to first step, kernels cached", "< 3 s", _start),
    Figure(
        "one H100: the ablation at 1 mm", "≤ 0.5 s", _spacing(1.0, "solver_seconds", 0.5, "s", "cuda:spacing")
    ),
    Figure("one H100: at 0.5 mm", "≤ 3 s", _spacing(0.5, "solver_seconds", 3.0, "s", "cuda:spacing")),
    Figure("one H100: 1,000 perturbed cases at 2 mm", "≤ 60 s", _batch("cuda:batch", 60.0)),
)


def findings(cases: Cases) -> list[tuple[Figure, Finding | None]]:
    """Every figure with what was found; None where it was not measured."""
    result: list[tuple[Figure, Finding | None]] = []
    for figure in FIGURES:
        try:
            result.append((figure, figure.find(cases)))
        except KeyError:
            result.append((figure, None))
    return result
