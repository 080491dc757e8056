"""Figures of a calibration under names that scripts can rely on."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thermosim.outcome.surface import extract_surface, moments
from thermosim.report.calibration_page import STATUS, Drawings, LogDrawing
from thermosim.report.provenance import Anonymizer, now, versions
from thermosim.report.summary import plain
from thermosim.report.verdict import DISCLAIMER
from thermosim.study.calibration import Calibration, Estimate
from thermosim.study.calibration_data import (
    Misfit,
    ObservedTreatment,
    Prediction,
    Weights,
    misfits,
    zone_difference,
)

FORMAT = "thermosim-calibration/1"

NO_BETTER = 0.95
"""A held-out error that is left so large a share of what it was has not improved."""


@dataclass(frozen=True)
class CalibrationResult:
    """A calibration with all it was made from.

    `keys` and `overrides` of the case by unknown; `before` and `after` the fit, predictions of each of the
    `treatments`; `criterion` in words; `case_overrides` common to all treatments; `spacing` of the grid [m].
    """

    calibration: Calibration
    keys: Mapping[str, tuple[str, ...]]
    overrides: Mapping[str, tuple[str, ...]]
    treatments: tuple[ObservedTreatment, ...]
    before: tuple[Prediction, ...]
    after: tuple[Prediction, ...]
    weights: Weights
    criterion: str
    experiment: str | None
    case_overrides: tuple[str, ...]
    spacing: float
    n_simulations: int


def calibration_summary(result: CalibrationResult, title: str) -> dict[str, Any]:
    """All figures as plain values."""
    found = result.calibration
    names = [estimate.unknown.name for estimate in found.estimates]
    anonymizer = Anonymizer({})
    treatments = [_treatment(result, number) for number in range(len(result.treatments))]
    fitted = [s for e in found.estimates if e.status != "not_told" for s in result.overrides[e.unknown.name]]
    kept = [s for e in found.estimates if e.status == "not_told" for s in result.overrides[e.unknown.name]]
    case = [anonymizer.text(word) for word in result.case_overrides]
    experiment = [f"experiment={result.experiment}" if result.experiment else "~experiment"]
    return plain(  # type: ignore[no-any-return]
        {
            "format": FORMAT,
            "title": title,
            "created": now(),
            "disclaimer": DISCLAIMER,
            "experiment": result.experiment,
            "case_overrides": case,
            "criterion": result.criterion,
            "grid_spacing_mm": 1e3 * result.spacing,
            "parameters": {
                estimate.unknown.name: _parameter(estimate, result.keys[estimate.unknown.name])
                for estimate in found.estimates
            },
            "overrides": fitted,
            "kept": kept,
            "command": shlex.join(["thermosim", "simulate", *experiment, *case, *fitted, *kept]),
            "fit": {
                "converged": found.converged,
                "message": found.message,
                "simulations": result.n_simulations,
                "residual_variance": found.residual_variance,
                "independent_readings": found.n_independent,
            },
            "identifiability": {
                "condition_number": found.condition_number,
                "correlation": {
                    one: dict(zip(names, row, strict=True))
                    for one, row in zip(names, found.correlation, strict=True)
                },
                "combinations": [
                    {
                        "weights": dict(zip(names, combination.weights, strict=True)),
                        "share_of_prior": combination.share_of_prior,
                    }
                    for combination in found.combinations
                ],
                "confounded": [
                    {"first": one, "second": other, "correlation": value}
                    for one, other, value in found.confounded
                ],
            },
            "treatments": treatments,
            "weights": {
                "zone_sd_mm": 1e3 * result.weights.zone_sd,
                "zone_correlation_mm": 1e3 * result.weights.zone_correlation,
                "log_sd": result.weights.log_sd,
                "log_correlation_s": result.weights.log_correlation,
            },
            "versions": versions(),
            "notes": [*_notes(found), *_held_out_notes(treatments)],
        }
    )


def _parameter(estimate: Estimate, keys: Sequence[str]) -> Mapping[str, Any]:
    unknown, told = estimate.unknown, estimate.status == "fitted"
    low, high = estimate.interval
    return {
        "keys": list(keys),
        "status": estimate.status,
        "value": estimate.value if told else None,
        "sd": estimate.value * estimate.log_sd if told else None,
        "log_sd": estimate.log_sd,
        "interval_95": [low, high] if told else None,
        "ended_at": estimate.value,
        "start": unknown.start,
        "lower": unknown.lower,
        "upper": unknown.upper,
        "prior_sd": unknown.prior_sd,
        "share_of_prior": estimate.share_of_prior,
    }


def _treatment(result: CalibrationResult, number: int) -> Mapping[str, Any]:
    seen = result.treatments[number]
    found: dict[str, Any] = {"name": seen.name}
    if seen.zone is not None:
        found["observed_volume_ml"] = 1e6 * seen.zone.volume
    for when, predictions in (("before", result.before), ("after", result.after)):
        prediction = predictions[number]
        volume = 0.0 if prediction.zone is None else moments(extract_surface(prediction.zone))[0]
        found[when] = {"predicted_volume_ml": 1e6 * volume}
        for part in ("fitted", "held_out"):
            parts = misfits(seen, prediction, result.weights, part == "held_out")
            found[when][part] = {name: _misfit(name, misfit) for name, misfit in parts.items()}
    return found


def _misfit(name: str, misfit: Misfit) -> Mapping[str, Any]:
    common = {"n": misfit.n, "independent": misfit.independent}
    if name == "zone":
        return {"mean_difference_mm": 1e3 * misfit.mean, "rms_mm": 1e3 * misfit.rms, **common}
    return {"mean_ratio": math.exp(misfit.mean), "rms_log_ratio": misfit.rms, **common}


def _notes(found: Calibration) -> list[str]:
    notes = []
    for estimate in found.estimates:
        name = estimate.unknown.name
        if estimate.status == "not_told":
            notes.append(
                f"{name}: the data leave {100 * estimate.share_of_prior:.0f} % of its prior uncertainty; it "
                "is not fitted but kept at its start, and what is not known of it is part of the others' sd"
            )
        if estimate.status == "at_bound":
            notes.append(f"{name}: the fit ran into the bound {estimate.value:g}; its value is no estimate")
    for one, other, value in found.confounded:
        notes.append(
            f"{one} and {other} are correlated by {value:+.2f}: the data tell a combination of them better "
            "than either"
        )
    if np.isinf(found.condition_number):
        notes.append("a combination of the parameters has no effect on the data at all")
    if found.residual_variance > 1.0:
        notes.append(
            f"the best fit misses the data by {math.sqrt(found.residual_variance):.1f} of their stated "
            "standard deviations; all sd are larger by that"
        )
    if not found.converged:
        notes.append("the search stopped before it converged; raise fit.maximum_iterations")
    return notes


def _held_out_notes(treatments: Sequence[Mapping[str, Any]]) -> list[str]:
    """A fit that does not help where it was not fitted."""
    notes = []
    for treatment in treatments:
        for name, after in treatment["after"]["held_out"].items():
            key = "rms_mm" if name == "zone" else "rms_log_ratio"
            before = treatment["before"]["held_out"].get(name)
            if before is not None and after[key] > NO_BETTER * before[key]:
                notes.append(
                    f"{treatment['name']}: the held-out part of {name} is met no better than before; the "
                    "values are not confirmed"
                )
    return notes


def closing_lines(summary: Mapping[str, Any]) -> list[str]:
    """What the command says at its end."""
    lines = []
    for name, one in summary["parameters"].items():
        if one["status"] == "fitted":
            low, high = one["interval_95"]
            lines.append(f"{name}: {one['value']:.4g} ± {one['sd']:.2g} (95 %: {low:.4g} to {high:.4g})")
        else:
            lines.append(f"{name}: {STATUS[one['status']]} ({one['ended_at']:.4g})")
    for treatment in summary["treatments"]:
        for part in ("fitted", "held_out"):
            before, after = treatment["before"][part], treatment["after"][part]
            for quantity in before:
                key, unit = ("rms_mm", " mm") if quantity == "zone" else ("rms_log_ratio", " of ln")
                lines.append(
                    f"{treatment['name']}, {quantity} {part.replace('_', ' ')}: rms "
                    f"{before[quantity][key]:.3g} → {after[quantity][key]:.3g}{unit}"
                )
    lines += [f"caution: {note}" for note in summary["notes"]]
    return [*lines, f"to use it: {summary['command']}"]


def drawings_of(result: CalibrationResult) -> list[Drawings]:
    """What the page draws of each treatment."""
    found = []
    for seen, before, after in zip(result.treatments, result.before, result.after, strict=True):
        zone, logs = seen.zone, []
        for log in seen.logs:
            then, later = ((one.time, np.asarray(one.readings[log.quantity])) for one in (before, after))
            logs.append(LogDrawing(log.quantity, (log.time, log.values), then, later, log.held_out_from))
        found.append(
            Drawings(
                seen.name,
                None if zone is None else zone.surface,
                np.zeros(0) if zone is None else zone_difference(zone, after),
                np.zeros(0, dtype=bool) if zone is None else zone.held_out,
                tuple(logs),
            )
        )
    return found
