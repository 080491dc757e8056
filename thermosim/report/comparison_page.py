"""The page of a comparison: where, and by how much, the predicted zone differs from the observed one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.outcome.comparison import Extreme, ZoneComparison
from thermosim.report import charts, page
from thermosim.report.comparison_summary import Comparison
from thermosim.report.margin_map import Mark, surface_map
from thermosim.report.meshes import TUMOR_COLOR, SceneMesh, layer_name, mark_mesh, simplified, zone_meshes
from thermosim.report.page_data import scene_data, volume_data
from thermosim.report.tables import criterion_name, number, percent, safe, table
from thermosim.report.verdict import surface_center

DIFFERENCE_CLASSES: tuple[tuple[float, float, str, str], ...] = (
    (-math.inf, -5.0, "#20589a", "falls short by more than 5 mm"),
    (-5.0, -2.0, "#8ab3d8", "falls short by 2–5 mm"),
    (-2.0, 2.0, "#dcd8cc", "within 2 mm"),
    (2.0, 5.0, "#f0a667", "reaches 2–5 mm beyond"),
    (5.0, math.inf, "#b8402a", "reaches more than 5 mm beyond"),
)
"""Lower and upper limit of predicted less observed [mm], colour and name."""

CONTOURS = (("zone", "#ffe14d"), ("observed", "#ff7bd0"), ("tumor", "#4fdcff"))
WORDS = {"subject": "zone", "place": "largest difference", "side": "Largest difference", "mark": "largest"}
"""What the page's script calls the coloured surface and its marked place."""

TRIANGLES = 16_000
PADDING = 10e-3
GOOD_MEAN, FAIR_MEAN = 2e-3, 4e-3
"""Mean distance of the surfaces [m] up to which they agree well, or roughly: about what two people who
outline the same zone, and a rigid registration, leave; the project's choice."""

LIMITS = (
    "The difference holds what the simulation gets wrong, and also what the comparison adds: error of "
    "the registration of planning and control images, breathing, and the outlining of the zone.",
    "Coagulated tissue shrinks, by some per cent to a third of its volume: an observed zone is smaller "
    "than the tissue that died. Nothing is corrected for that here.",
    "What is not perfused on an early image is not exactly the tissue that dies; a rim of congestion "
    "around it may count or not.",
    "An agreement of one zone is no validation of the model for others.",
)


def comparison_page(
    summary: Mapping[str, Any], found: Comparison, tumors: Mapping[str, TriangleSurface]
) -> str:
    """The page as text; every number shown comes from `summary`."""
    zone = found.zones[found.shown]
    head = page.header(
        summary["title"],
        f"Predicted against observed ablation zone; prediction judged by: {safe(_name(found.shown))}. "
        f"Calculated {safe(summary['created'][:10])}.",
        summary["disclaimer"],
    )
    sections = [head, page.verdict_box("ablation zone", _verdict(zone, summary), _facts(zone, summary))]
    data = None
    if zone is not None:
        meshes, volume = _meshes(zone, tumors), _volume(zone)
        data = {
            **scene_data(meshes, (), CONTOURS[: 3 if tumors else 2], volume),
            "classes": [
                [lo if math.isfinite(lo) else -1e9, hi if math.isfinite(hi) else 1e9, color, name]
                for lo, hi, color, name in DIFFERENCE_CLASSES
            ],
            "tumors": [_place(zone)],
            "words": WORDS,
        }
        sections += [
            page.scene(
                "Where they differ",
                None,
                "Observed zone coloured by difference",
                colors="The observed zone has the colours of the difference; the predicted one is yellow.",
            ),
            legend(),
            page.slices(
                "Outlines of the predicted and the observed zone.",
                [("zone", "Predicted", CONTOURS[0][1]), ("observed", "Observed", CONTOURS[1][1])]
                + ([("tumor", "Tumour", CONTOURS[2][1])] if tumors else []),
            ),
            _map(zone),
            _sides(summary["zones"][found.shown]),
        ]
    sections += [
        _table_of_zones(summary),
        _table_of_margins(summary),
        page.limits("What these numbers do not know", LIMITS, summary["notes"], summary["disclaimer"]),
    ]
    return page.document(summary["title"], sections, data)


def legend() -> str:
    return charts.legend([(color, f"prediction {name}") for _, _, color, name in DIFFERENCE_CLASSES])


def _name(criterion: str) -> str:
    return "the mask that was given" if criterion == "mask" else criterion_name(criterion)


def _verdict(zone: ZoneComparison | None, summary: Mapping[str, Any]) -> Mapping[str, Any]:
    if zone is None:
        return {"level": "fail", "sentence": "In the prediction no tissue died", "details": []}
    mean, biased = zone.mean_distance, zone.from_observed.signed_mean
    level = "pass" if mean <= GOOD_MEAN else "warn" if mean <= FAIR_MEAN else "fail"
    way = "larger" if zone.volume_error > 0 else "smaller"
    sentence = (
        f"The predicted zone is {percent(abs(zone.relative_volume_error))} {way} than the observed one; "
        f"their surfaces are {number(1e3 * mean, 1, 'mm')} apart on average"
    )
    lean = "beyond" if biased > 0 else "short of"
    shortest, farthest = (number(1e3 * e.difference, 1, "mm") for e in (zone.shortest, zone.farthest))
    details = [
        f"On average the prediction ends {number(1e3 * abs(biased), 1, 'mm')} {lean} the observed surface; "
        f"it falls shortest on the {zone.shortest.side} side ({shortest}) and reaches farthest on the "
        f"{zone.farthest.side} side ({farthest})."
    ]
    for tumor in summary["tumors"]:
        share = tumor["surface_fraction_falsely_safe"]["5mm"]
        margins = [
            number(tumor[f"minimal_ablative_margin_{which}_mm"], 1, "mm")
            for which in ("predicted", "observed")
        ]
        details.append(
            f"{layer_name(tumor['name'])}: minimal margin {margins[0]} predicted, {margins[1]} observed; "
            f"{percent(share)} of its surface had 5 mm in the prediction and less in truth."
        )
    return {"level": level, "sentence": sentence, "details": details}


def _facts(zone: ZoneComparison | None, summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    observed = (number(summary["observed_volume_ml"], 1, "mL"), "observed")
    if zone is None:
        return [(number(0.0, 1, "mL"), "predicted"), observed]
    return [
        (number(zone.dice, 2), "Dice: 1 is the same zone, 0 no overlap"),
        (number(1e6 * zone.predicted_volume, 1, "mL"), "predicted"),
        observed,
        (number(1e3 * zone.mean_distance, 1, "mm"), "mean distance of the surfaces"),
        (number(1e3 * zone.percentile_95, 1, "mm"), "95 % of the surface are closer"),
        (number(1e3 * zone.hausdorff, 1, "mm"), "largest distance"),
    ]


def _meshes(zone: ZoneComparison, tumors: Mapping[str, TriangleSurface]) -> list[SceneMesh]:
    seen, worst = zone.surface, _worst(zone)
    meshes = [
        SceneMesh(
            *("observed zone", "Observed zone", "observed", "#d58ab8", 1.0),
            *(seen.points, seen.triangles, zone.difference),
        ),
        mark_mesh(worst.point, "largest difference", "Largest difference"),
        *zone_meshes(zone.predicted_surface, "predicted zone"),
    ]
    for name, tumor in tumors.items():
        light = simplified(tumor, TRIANGLES)
        meshes.append(SceneMesh(name, "Tumour", "tumor", TUMOR_COLOR, 1.0, light.points, light.triangles))
    return meshes


def _volume(zone: ZoneComparison) -> dict[str, Any]:
    """Cells that the slices range over: outlines alone are drawn on them."""
    points = np.concatenate([zone.surface.points, zone.predicted_surface.points])
    lower, upper = points.min(axis=0) - PADDING, points.max(axis=0) + PADDING
    spacing = 1e-3
    shape = tuple(int(n) + 1 for n in np.ceil((upper - lower) / spacing))
    return volume_data(shape, spacing, lower)  # type: ignore[arg-type]


def _worst(zone: ZoneComparison) -> Extreme:
    return max(zone.shortest, zone.farthest, key=lambda extreme: abs(extreme.difference))


def _place(zone: ZoneComparison) -> Mapping[str, Any]:
    worst = _worst(zone)
    return {
        "name": "Observed zone",
        "center": (1e3 * surface_center(zone.surface)).tolist(),
        "thinnest": (1e3 * worst.point).tolist(),
        "label": number(1e3 * worst.difference, 1, "mm"),
    }


def _map(zone: ZoneComparison) -> str:
    marks = [
        Mark(extreme.point, f"{word}: {number(1e3 * extreme.difference, 1, 'mm')}")
        for word, extreme in (("shortest", zone.shortest), ("farthest", zone.farthest))
    ]
    drawn = surface_map(
        "difference", zone.surface, zone.difference, DIFFERENCE_CLASSES, marks, label="Map of the difference"
    )
    return (
        "<h2>The observed surface unfolded</h2>"
        f'<div class="two"><div>{drawn}</div><div><p class="muted">Every direction from the centre of the '
        "observed zone, in an equal-area projection (Mollweide); its middle faces the patient's front. "
        f"Colours say how far the prediction reaches beyond it or falls short.</p>{legend()}</div></div>"
    )


def _sides(zone: Mapping[str, Any]) -> str:
    rows = [
        [
            safe(side["side"]),
            percent(side["surface_fraction"]),
            number(side["mean_difference_mm"]),
            number(side["lowest_difference_mm"]),
            number(side["highest_difference_mm"]),
        ]
        for side in zone["sides"]
    ]
    head = ["Side", "Share of the surface", "Mean difference [mm]", "Lowest [mm]", "Highest [mm]"]
    return f"<h3>Difference by side (predicted less observed)</h3>{table(head, rows)}"


def _table_of_zones(summary: Mapping[str, Any]) -> str:
    rows = []
    for name, zone in summary["zones"].items():
        there = zone["observed_to_predicted"] or {}
        back = zone["predicted_to_observed"] or {}
        rows.append(
            [
                safe(_name(name)),
                number(zone["predicted_volume_ml"]),
                percent(zone.get("relative_volume_error")),
                number(zone["dice"], 3),
                number(zone["jaccard"], 3),
                number(zone.get("mean_surface_distance_mm")),
                number(there.get("mean_difference_mm")),
                f"{number(there.get('percentile_95_mm'))} / {number(back.get('percentile_95_mm'))}",
                f"{number(there.get('maximum_mm'))} / {number(back.get('maximum_mm'))}",
            ]
        )
    head = [
        "Prediction by",
        "Volume [mL]",
        "Volume error",
        "Dice",
        "Jaccard",
        "Mean distance [mm]",
        "Mean difference [mm]",
        "95 % of distances [mm]",
        "Largest distance [mm]",
    ]
    chosen = list(summary["zones"]).index(summary["criterion"])
    return (
        "<h2>Numbers</h2>"
        f"<h3>Zones against {number(summary['observed_volume_ml'], 1, 'mL')} observed</h3>"
        f"{table(head, rows, chosen)}"
        '<p class="muted">Distances are weighted by area; where two are given, from the observed surface to '
        "the predicted one / back. Differences are positive where the prediction reaches beyond.</p>"
    )


def _table_of_margins(summary: Mapping[str, Any]) -> str:
    rows: Sequence[Sequence[str]] = [
        [
            safe(tumor["name"]),
            number(tumor["minimal_ablative_margin_predicted_mm"]),
            number(tumor["minimal_ablative_margin_observed_mm"]),
            number(tumor["minimal_ablative_margin_error_mm"]),
            number(tumor["margin_error_mean_mm"]),
            number(tumor["margin_error_rms_mm"]),
            percent(tumor["surface_fraction_observed"]["5mm"]),
            percent(tumor["surface_fraction_falsely_safe"]["5mm"]),
        ]
        for tumor in summary["tumors"]
    ]
    if not rows:
        return ""
    head = [
        "Tumour",
        "Minimal margin predicted [mm]",
        "observed [mm]",
        "error [mm]",
        "Mean error of the margin [mm]",
        "Root mean square [mm]",
        "Surface with 5 mm observed",
        "falsely safe at 5 mm",
    ]
    return f"<h3>Margins</h3>{table(head, rows)}"
