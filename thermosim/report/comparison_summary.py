"""Figures of a comparison under names that scripts can rely on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thermosim.outcome.comparison import (
    Extreme,
    MarginComparison,
    SurfaceDistances,
    ZoneComparison,
)
from thermosim.outcome.results import MarginStatistics
from thermosim.report.provenance import now, versions
from thermosim.report.summary import plain
from thermosim.report.verdict import DISCLAIMER

FORMAT = "thermosim-comparison/1"


@dataclass(frozen=True)
class Comparison:
    """Everything that was compared.

    `zones` by criterion (``mask`` where the prediction is a mask), None where the prediction has no dead
    tissue; `margins` of each tumour by the shown one. `spacings` [m]: of prediction and observation.
    """

    shown: str
    zones: dict[str, ZoneComparison | None]
    descriptions: dict[str, str]
    margins: tuple[MarginComparison, ...]
    observed_volume: float
    spacings: tuple[tuple[float, ...], tuple[float, ...]]
    notes: tuple[str, ...] = ()


def comparison_summary(found: Comparison, title: str) -> dict[str, Any]:
    """All figures as plain values; lengths in mm, volumes in ml, differences predicted less observed."""
    return plain(  # type: ignore[no-any-return]
        {
            "format": FORMAT,
            "title": title,
            "created": now(),
            "disclaimer": DISCLAIMER,
            "criterion": found.shown,
            "observed_volume_ml": 1e6 * found.observed_volume,
            "zones": {
                name: {"description": found.descriptions[name], **_zone(zone)}
                for name, zone in found.zones.items()
            },
            "tumors": [_margin(margin) for margin in found.margins],
            "prediction_spacing_mm": [1e3 * h for h in found.spacings[0]],
            "observation_spacing_mm": [1e3 * h for h in found.spacings[1]],
            "versions": versions(),
            "notes": found.notes,
        }
    )


def _zone(zone: ZoneComparison | None) -> Mapping[str, Any]:
    if zone is None:  # nothing died: no overlap, and no surface to measure from
        nothing = {"predicted_volume_ml": 0.0, "dice": 0.0, "jaccard": 0.0}
        return {**nothing, "observed_to_predicted": None, "predicted_to_observed": None, "sides": []}
    return {
        "predicted_volume_ml": 1e6 * zone.predicted_volume,
        "volume_error_ml": 1e6 * zone.volume_error,
        "relative_volume_error": zone.relative_volume_error,
        "missed_volume_ml": 1e6 * zone.missed_volume,
        "excess_volume_ml": 1e6 * zone.excess_volume,
        "dice": zone.dice,
        "jaccard": zone.jaccard,
        "mean_surface_distance_mm": 1e3 * zone.mean_distance,
        "distance_95_percent_mm": 1e3 * zone.percentile_95,
        "maximal_distance_mm": 1e3 * zone.hausdorff,
        "observed_to_predicted": _distances(zone.from_observed),
        "predicted_to_observed": _distances(zone.from_predicted),
        "surface_fraction_within": {f"{mm}mm": share for mm, share in zone.within.items()},
        "center_shift_lps_mm": 1e3 * zone.center_shift,
        "sides": [
            {
                "side": side.side,
                "surface_fraction": side.area_share,
                "mean_difference_mm": 1e3 * side.mean,
                "lowest_difference_mm": 1e3 * side.lowest,
                "highest_difference_mm": 1e3 * side.highest,
            }
            for side in zone.sides
        ],
        "falls_shortest": _extreme(zone.shortest),
        "reaches_farthest": _extreme(zone.farthest),
    }


def _distances(distances: SurfaceDistances) -> Mapping[str, float]:
    return {
        "mean_mm": 1e3 * distances.mean,
        "rms_mm": 1e3 * distances.rms,
        "percentile_95_mm": 1e3 * distances.percentile_95,
        "maximum_mm": 1e3 * distances.maximum,
        "mean_difference_mm": 1e3 * distances.signed_mean,
    }


def _extreme(extreme: Extreme) -> Mapping[str, Any]:
    return {
        "difference_mm": 1e3 * extreme.difference,
        "point_lps_mm": 1e3 * np.asarray(extreme.point),
        "side": extreme.side,
    }


def _margin(margin: MarginComparison) -> Mapping[str, Any]:
    return {
        "name": margin.tumor,
        "volume_ml": 1e6 * margin.volume,
        "minimal_ablative_margin_predicted_mm": 1e3 * margin.predicted.minimum,
        "minimal_ablative_margin_observed_mm": 1e3 * margin.observed.minimum,
        "minimal_ablative_margin_error_mm": 1e3 * margin.minimum_error,
        "margin_error_mean_mm": 1e3 * margin.mean_error,
        "margin_error_rms_mm": 1e3 * margin.rms_error,
        "surface_fraction_predicted": _fractions(margin.predicted),
        "surface_fraction_observed": _fractions(margin.observed),
        "surface_fraction_falsely_safe": {f"{mm}mm": v for mm, v in margin.falsely_safe.items()},
    }


def _fractions(statistics: MarginStatistics) -> Mapping[str, float]:
    """Share of the surface with at least that margin."""
    return {f"{mm}mm": 1.0 - share for mm, share in statistics.fraction_below.items()}


def closing_lines(summary: Mapping[str, Any]) -> Sequence[str]:
    """What the command says at its end."""
    zone = summary["zones"][summary["criterion"]]
    if zone["observed_to_predicted"] is None:
        lines = [f"{summary['criterion']}: no tissue died in the prediction"]
    else:
        lines = [
            f"{summary['criterion']}: Dice {zone['dice']:.3f}, volume {zone['predicted_volume_ml']:.1f} ml "
            f"predicted and {summary['observed_volume_ml']:.1f} ml observed, surfaces "
            f"{zone['mean_surface_distance_mm']:.1f} mm apart on average and "
            f"{zone['maximal_distance_mm']:.1f} mm at most"
        ]
    lines += [
        f"{tumor['name']}: minimal ablative margin {tumor['minimal_ablative_margin_predicted_mm']:.1f} mm "
        f"predicted, {tumor['minimal_ablative_margin_observed_mm']:.1f} mm observed"
        for tumor in summary["tumors"]
    ]
    return lines
