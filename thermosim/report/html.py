"""report.html: one self-contained page for the doctor who planned the needles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thermosim.applicators.electrode import Electrode
from thermosim.outcome.results import Outcome
from thermosim.report import page
from thermosim.report.atomic import write_text
from thermosim.report.generator_log import GeneratorLog
from thermosim.report.meshes import SceneMesh
from thermosim.report.page_data import ISOTHERMS, page_data
from thermosim.report.slices import slice_volume
from thermosim.report.tables import criterion_name, number, numbers, percent, safe, settings
from thermosim.report.trace_charts import traces_section
from thermosim.report.verdict import weighed
from thermosim.simulation import SimulationResult

SWITCHES = (
    ("zone", "Ablation zone", "#ffe14d"),
    ("tumor", "Tumour", "#4fdcff"),
    ("heat", "Temperature", None),
    ("isotherms", f"{ISOTHERMS[0]:g} °C (dashed) and {ISOTHERMS[1]:g} °C (dotted)", None),
    ("vessels", "Vessels", None),
    ("needles", "Needles", None),
)
"""What can be shown on the slices, and colours of its lines."""

HEAT_SCALE = '<span>42 °C <span class="heat" id="heatbar"></span> 110 °C</span>'

LIMITS = (
    "Tissue properties come from the literature, not from this patient. Perfusion and electrical "
    "conductivity of "
    "liver and tumour vary between patients and change the size of the zone.",
    "Needles are where the plan puts them. In practice targeting is off by some millimetres, and the "
    "liver moves "
    "with breathing; a margin of a few millimetres in one calculated case is not a margin in a patient.",
    "Dead tissue is not removed or shrunk: a margin measured on CT after ablation lies on tissue that "
    "has shrunk.",
    "Vessels thinner than the stated diameter are counted as perfusion; blood is not warmed along its "
    "way unless "
    "the vessel model says so.",
    "Steam and charring enter only as a fall of electrical conductivity and as latent heat; gas does "
    "not move.",
    "The return electrode is simplified as stated under ground; this affects the impedance more than "
    "the zone.",
)


def write_report(
    path: Path,
    summary: Mapping[str, Any],
    result: SimulationResult,
    outcome: Outcome,
    meshes: Sequence[SceneMesh],
    picture: bytes | None,
    earlier_poses: Sequence[Sequence[Electrode]] = (),
    log: GeneratorLog | None = None,
) -> None:
    """Write the page, whole or not at all.

    Every number shown comes from `summary`; `meshes` and the fields feed the drawings; `picture` is
    the PNG that stands in for the turning scene where the browser has no WebGL; `earlier_poses` are
    places that needles were pulled back from; `log` of a real generator is drawn over the readings.
    """
    write_text(path, report_page(summary, result, outcome, meshes, picture, earlier_poses, log))


def report_page(
    summary: Mapping[str, Any],
    result: SimulationResult,
    outcome: Outcome,
    meshes: Sequence[SceneMesh],
    picture: bytes | None,
    earlier_poses: Sequence[Sequence[Electrode]] = (),
    log: GeneratorLog | None = None,
) -> str:
    """The page as text."""
    data = page_data(result, outcome, meshes, slice_volume(result, outcome), earlier_poses)
    stand = "were pulled back: dark metal marks all their places" if earlier_poses else "stand as planned"
    sections = [
        _header(summary),
        *(_verdict(tumor, summary) for tumor in summary["tumors"]),
        page.cautions(summary["cautions"]),
        page.scene(
            "The treatment in space",
            picture,
            "Liver, vessels, needles, ablation zone and tumour coloured by margin",
            f"Needles {stand}.",
        ),
        "<p class='muted'>Margin: how far dead tissue reaches beyond the tumour.</p>",
        page.margin_legend(),
        page.slices("Highest temperature that each place reached.", SWITCHES, HEAT_SCALE),
        page.margins([weighed(tumor, result.anatomy) for tumor in outcome.tumors]),
        traces_section(result, log, summary["settings"]["controlled_sensor"] or "mean"),
        numbers(summary),
        settings(summary),
        page.limits("Limits of the model", LIMITS, _other_notes(summary), summary["disclaimer"]),
    ]
    return page.document(summary["title"], sections, data)


def _other_notes(summary: Mapping[str, Any]) -> list[str]:
    """The notes that do not stand beside the verdict already."""
    return [note for note in summary["notes"] if note not in summary["cautions"]]


def _header(summary: Mapping[str, Any]) -> str:
    warnings = []
    if not summary["completed"]:
        warnings.append(
            (
                "Not finished.",
                "The run was stopped before the protocol ended; everything below shows the treatment up "
                "to then.",
            )
        )
    zone = summary["ablation_zone"].get(summary["criterion"])
    if zone and zone["touches_box"]:
        warnings.append(
            (
                "Box too small.",
                "The ablation zone reaches the edge of the computing box, so its volume and the margins "
                "are not reliable. Enlarge grid.margin_mm.",
            )
        )
    subtitle = (
        f"Simulated radiofrequency ablation of {number((summary['treatment_time_s'] or 0) / 60)} "
        f"min{_cooling(summary)}; dead tissue judged by: {safe(criterion_name(summary['criterion']))}. "
        f"Calculated {safe(summary['created'][:10])}."
    )
    return page.header(summary["title"], subtitle, summary["disclaimer"], warnings)


def _cooling(summary: Mapping[str, Any]) -> str:
    """How much of a finished treatment goes on without power after the last segment."""
    minutes = summary["settings"].get("cooling_after_min")
    return f", the last {minutes:g} of them without power" if summary["completed"] and minutes else ""


def _verdict(tumor: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    zone = summary["ablation_zone"].get(summary["criterion"], {})
    axes = [zone.get(f"{name}_axis_mm") for name in ("long", "middle", "short")]
    facts = [
        (number(tumor["minimal_ablative_margin_mm"], 1, "mm"), "thinnest margin (wanted: 5 mm)"),
        (percent(tumor["surface_fraction_margin_at_least_5mm"]), "of the surface has 5 mm or more"),
        (percent(tumor["surface_fraction_margin_at_least_10mm"]), "has 10 mm or more"),
        (
            number(tumor["residual_volume_ml"], 2, "mL"),
            f"of {number(tumor['volume_ml'], 1, 'mL')} tumour left alive",
        ),
        (
            number(zone.get("volume_ml"), 1, "mL"),
            f"ablation zone, {' × '.join(number(axis, 0) for axis in axes)} mm",
        ),
    ]
    return page.verdict_box(tumor["name"], tumor["verdict"], facts)
