"""report.html: one self-contained page for the doctor who planned the needles."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from thermosim.applicators.electrode import Electrode
from thermosim.outcome.results import Outcome
from thermosim.report import charts
from thermosim.report.atomic import write_text
from thermosim.report.generator_log import GeneratorLog
from thermosim.report.meshes import SceneMesh, layer_name
from thermosim.report.page_data import ISOTHERMS, page_data, script_safe
from thermosim.report.slices import slice_volume
from thermosim.report.tables import criterion_name, number, numbers, percent, safe, settings
from thermosim.report.trace_charts import traces_section
from thermosim.report.verdict import MARGIN_CLASSES, weighed
from thermosim.simulation import SimulationResult

LEVEL_COLORS = {"residual": "#b3202c", "thin": "#f0a202", "adequate": "#43a585", "wide": "#0b6e63"}

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""Content security policy: the browser itself refuses to load anything from outside."""

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
    resource = files("thermosim.report")
    style = resource.joinpath("page.css").read_text(encoding="utf-8")
    script = resource.joinpath("page.js").read_text(encoding="utf-8")
    volume = slice_volume(result, outcome)
    data = script_safe(page_data(result, outcome, meshes, volume, earlier_poses))
    body = "\n".join(
        [
            _header(summary),
            *(_verdict(tumor, summary) for tumor in summary["tumors"]),
            _scene(picture, bool(earlier_poses)),
            _slices(),
            _margins(result, outcome),
            traces_section(result, log, summary["settings"]["controlled_sensor"] or "mean"),
            numbers(summary),
            settings(summary),
            _limits(summary),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{safe(summary['title'])} – thermosim report</title>\n<style>\n{style}</style></head>\n"
        f'<body><main>\n{body}\n</main>\n<script type="application/json" id="data">{data}</script>\n'
        f"<script>\n{script}</script>\n</body></html>\n"
    )


def _header(summary: Mapping[str, Any]) -> str:
    parts = [
        f"<h1>{safe(summary['title'])}</h1>",
        '<p class="sub">Simulated radiofrequency ablation of '
        f"{number((summary['treatment_time_s'] or 0) / 60)} min{_cooling(summary)}; "
        f"dead tissue judged by: {safe(criterion_name(summary['criterion']))}. Calculated "
        f"{safe(summary['created'][:10])}.</p>",
        f'<p class="banner"><strong>Research only.</strong> {safe(summary["disclaimer"])}</p>',
    ]
    if not summary["completed"]:
        parts.append(
            '<p class="banner warn"><strong>Not finished.</strong> The run was stopped before the '
            "protocol ended; "
            "everything below shows the treatment up to then.</p>"
        )
    zone = summary["ablation_zone"].get(summary["criterion"])
    if zone and zone["touches_box"]:
        parts.append(
            '<p class="banner warn"><strong>Box too small.</strong> The ablation zone reaches the edge '
            "of the computing "
            "box, so its volume and the margins are not reliable. Enlarge grid.margin_mm.</p>"
        )
    return "\n".join(parts)


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
    said = tumor["verdict"]
    return (
        f'<section class="verdict" style="border-left-color:{LEVEL_COLORS[said["level"]]}">'
        f'<h2>{safe(layer_name(tumor["name"]))}</h2><p class="say">{safe(said["sentence"])}.</p>'
        + "".join(f'<p class="more">{safe(detail)}</p>' for detail in said["details"])
        + '<div class="facts">'
        + "".join(f"<div><b>{value}</b><span>{text}</span></div>" for value, text in facts)
        + "</div></section>"
    )


def _margin_legend() -> str:
    return charts.legend([(color, name) for _, _, color, name in MARGIN_CLASSES])


def _scene(picture: bytes | None, moved: bool) -> str:
    stand = "were pulled back: dark metal marks all their places" if moved else "stand as planned"
    if picture is None:
        still = '<p class="muted">There is no picture of the scene, and this browser has no WebGL.</p>'
    else:
        still = (
            '<img id="still" alt="Liver, vessels, needles, ablation zone and tumour coloured by margin" '
            f'src="data:image/png;base64,{base64.b64encode(picture).decode("ascii")}">'
        )
    return (
        '<h2>The treatment in space</h2><div id="scene3d" hidden>'
        '<p class="muted">Drag to turn, wheel or two fingers to zoom, Shift and drag to move. The '
        "tumour carries the "
        "colours of its margin. R, L, A, P, S, I: the patient's right, left, front, back, head, feet. "
        f"Needles {stand}.</p>"
        '<div class="scene"><canvas id="turn" aria-label="Three-dimensional scene"></canvas><canvas '
        'id="marks"></canvas></div>'
        '<div class="controls" id="views"></div><div class="controls" id="layers"></div></div>'
        f'<div id="stillbox">{still}</div>'
        f"<p class='muted'>Margin: how far dead tissue reaches beyond the tumour.</p>{_margin_legend()}"
    )


def _slices() -> str:
    names = {"axial": "Axial", "coronal": "Coronal", "sagittal": "Sagittal"}
    planes = "".join(
        f'<figure><figcaption><strong>{name}</strong><span class="muted" '
        f'id="{key}-where"></span></figcaption>'
        f'<canvas id="{key}" aria-label="{name} slice"></canvas>'
        f'<input type="range" id="{key}-slide" min="0" max="1" value="0" aria-label="{name} '
        'position"></figure>'
        for key, name in names.items()
    )
    lines = [("#ffe14d", "zone", "Ablation zone"), ("#4fdcff", "tumor", "Tumour")]
    switches = "".join(
        f'<label><input type="checkbox" id="show-{key}" checked><i '
        f'style="background:{color}"></i>{text}</label>'
        for color, key, text in lines
    )
    plain = "".join(
        f'<label><input type="checkbox" id="show-{key}" checked>{text}</label>'
        for key, text in (
            ("heat", "Temperature"),
            ("isotherms", f"{ISOTHERMS[0]:g} °C (dashed) and {ISOTHERMS[1]:g} °C (dotted)"),
            ("vessels", "Vessels"),
            ("needles", "Needles"),
        )
    )
    return (
        '<h2>Slices</h2><noscript><p class="muted">The slices and the turning scene need '
        "JavaScript.</p></noscript>"
        '<div id="slices" hidden><p class="muted">Highest temperature that each place reached. Move the '
        "sliders, or "
        f'click on a place to send the other two planes there.</p><div class="planes">{planes}</div>'
        f'<p id="readout"></p><div class="controls">{switches}{plain}</div>'
        '<div class="controls"><span>42 °C <span class="heat" id="heatbar"></span> 110 °C</span>'
        '<span id="jump" class="controls"></span></div></div>'
    )


def _margins(result: SimulationResult, outcome: Outcome) -> str:
    parts = ["<h2>Margin around the tumour</h2>"]
    wet = False
    for tumor in (weighed(tumor, result.anatomy) for tumor in outcome.tumors):
        wet |= bool(np.isnan(tumor.margin).any())
        if len(outcome.tumors) > 1:
            parts.append(f"<h3>{safe(layer_name(tumor.name))}</h3>")
        parts.append(
            '<div class="two"><div><h3>The surface unrolled</h3>'
            f"{charts.margin_map(tumor)}</div><div><h3>How much of the surface has which margin</h3>"
            f"{charts.margin_histogram(tumor)}</div></div>"
        )
    if not outcome.tumors:
        parts.append('<p class="muted">There is no tumour in this case.</p>')
    if wet:
        parts.append('<p class="muted">Grey: in the blood of an open vessel; such places do not count.</p>')
    return "\n".join([*parts, _margin_legend()])


def _limits(summary: Mapping[str, Any]) -> str:
    notes = "".join(f"<li>{safe(note)}</li>" for note in summary["notes"])
    return (
        "<h2>Limits of the model</h2><ul>"
        + "".join(f"<li>{safe(text)}</li>" for text in LIMITS)
        + "</ul>"
        + (f"<h3>Notes of this run</h3><ul>{notes}</ul>" if notes else "")
        + f"<footer>{safe(summary['disclaimer'])}</footer>"
    )
