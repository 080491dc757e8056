"""The page that every report is: one HTML file with its style, its script and its data inside.

`simulate`, `margin`, `check` and `compare` put the same sections together; each section is a string.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from thermosim.outcome.results import TumorMargin
from thermosim.report import charts
from thermosim.report.margin_map import margin_map
from thermosim.report.meshes import layer_name
from thermosim.report.page_data import script_safe
from thermosim.report.tables import safe
from thermosim.report.verdict import MARGIN_CLASSES

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""Content security policy: the browser itself refuses to load anything from outside."""

LEVEL_COLORS = {
    "residual": "#b3202c",
    "thin": "#f0a202",
    "adequate": "#43a585",
    "wide": "#0b6e63",
    "fail": "#b3202c",
    "warn": "#f0a202",
    "pass": "#0b6e63",
}
"""Colour of the bar beside a verdict, by its level."""

PLANES = {"axial": "Axial", "coronal": "Coronal", "sagittal": "Sagittal"}


def document(title: str, sections: Sequence[str], data: Mapping[str, Any] | None) -> str:
    """The whole page as text; `data` feeds the scene and the slices, None where there are neither."""
    resource = files("thermosim.report")
    style = resource.joinpath("page.css").read_text(encoding="utf-8")
    body = "\n".join(section for section in sections if section)
    script = ""
    if data is not None:
        code = resource.joinpath("page.js").read_text(encoding="utf-8")
        script = (
            f'<script type="application/json" id="data">{script_safe(data)}</script>\n'
            f"<script>\n{code}</script>\n"
        )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{safe(title)} – thermosim report</title>\n<style>\n{style}</style></head>\n"
        f"<body><main>\n{body}\n</main>\n{script}</body></html>\n"
    )


def header(title: str, subtitle: str, disclaimer: str, warnings: Sequence[tuple[str, str]] = ()) -> str:
    """Title, one line below it (ready HTML), what this is not, and warnings as (head, text)."""
    return "\n".join(
        [
            f"<h1>{safe(title)}</h1>",
            f'<p class="sub">{subtitle}</p>',
            f'<p class="banner"><strong>Research only.</strong> {safe(disclaimer)}</p>',
            *(
                f'<p class="banner warn"><strong>{safe(head)}</strong> {safe(text)}</p>'
                for head, text in warnings
            ),
        ]
    )


def verdict_box(name: str, said: Mapping[str, Any], facts: Sequence[tuple[str, str]]) -> str:
    """A verdict: its subject, `level`, `sentence` and `details`, and figures as (value, what it is)."""
    return (
        f'<section class="verdict" style="border-left-color:{LEVEL_COLORS[said["level"]]}">'
        f'<h2>{safe(layer_name(name))}</h2><p class="say">{safe(said["sentence"])}.</p>'
        + "".join(f'<p class="more">{safe(detail)}</p>' for detail in said["details"])
        + '<div class="facts">'
        + "".join(f"<div><b>{value}</b><span>{text}</span></div>" for value, text in facts)
        + "</div></section>"
    )


def cautions(texts: Sequence[str]) -> str:
    """What a reader of the verdict must know beside it, or nothing."""
    if not texts:
        return ""
    listed = "".join(f"<li>{safe(text)}</li>" for text in texts)
    return f'<div class="banner warn"><strong>What weakens this verdict</strong><ul>{listed}</ul></div>'


def margin_legend() -> str:
    return charts.legend([(color, name) for _, _, color, name in MARGIN_CLASSES])


def scene(
    heading: str,
    picture: bytes | None,
    what: str,
    note: str = "",
    colors: str = "The tumour carries the colours of its margin; a ring marks its thinnest place.",
) -> str:
    """The scene that turns, or a still picture (PNG) where the browser cannot.

    `what` is seen in the still picture; `note` (ready HTML) is said beside how to turn the scene, `colors`
    what they mean.
    """
    if picture is None:
        still = '<p class="muted">There is no picture of the scene, and this browser has no WebGL.</p>'
    else:
        still = (
            f'<img id="still" alt="{safe(what)}" '
            f'src="data:image/png;base64,{base64.b64encode(picture).decode("ascii")}">'
        )
    return (
        f'<h2>{safe(heading)}</h2><div id="scene3d" hidden>'
        '<p class="muted">Drag to turn, wheel or two fingers to zoom, Shift and drag to move. '
        f"{colors} "
        f"R, L, A, P, S, I: the patient's right, left, front, back, head, feet. {note}</p>"
        '<div class="scene"><canvas id="turn" aria-label="Three-dimensional scene"></canvas><canvas '
        'id="marks"></canvas></div>'
        '<div class="controls" id="views"></div><div class="controls" id="layers"></div></div>'
        f'<div id="stillbox">{still}</div>'
    )


def slices(intro: str, switches: Sequence[tuple[str, str, str | None]], scale: str = "") -> str:
    """Three planes through the volume of the page's data.

    `intro` (ready HTML) says what the planes show; `switches` are (key, name, colour of a line or None),
    the keys being kinds of contours, or heat, isotherms, vessels and needles; `scale` is ready HTML.
    """
    planes = "".join(
        f'<figure><figcaption><strong>{name}</strong><span class="muted" '
        f'id="{key}-where"></span></figcaption>'
        f'<canvas id="{key}" aria-label="{name} slice"></canvas>'
        f'<input type="range" id="{key}-slide" min="0" max="1" value="0" aria-label="{name} '
        'position"></figure>'
        for key, name in PLANES.items()
    )
    boxes = "".join(
        f'<label><input type="checkbox" id="show-{key}" checked>'
        + (f'<i style="background:{color}"></i>' if color else "")
        + f"{safe(name)}</label>"
        for key, name, color in switches
    )
    return (
        '<h2>Slices</h2><noscript><p class="muted">The slices and the turning scene need '
        "JavaScript.</p></noscript>"
        f'<div id="slices" hidden><p class="muted">{intro} Move the sliders, or click on a place to send '
        f'the other two planes there.</p><div class="planes">{planes}</div>'
        f'<p id="readout"></p><div class="controls">{boxes}</div>'
        f'<div class="controls">{scale}<span id="images" class="controls"></span>'
        '<span id="jump" class="controls"></span></div></div>'
    )


def margins(tumors: Sequence[TumorMargin]) -> str:
    """Map and histogram of each tumour's margin; NaN marks places that do not count."""
    parts = ["<h2>Margin around the tumour</h2>"]
    for tumor in tumors:
        if len(tumors) > 1:
            parts.append(f"<h3>{safe(layer_name(tumor.name))}</h3>")
        parts.append(
            '<div class="two"><div><h3>The surface unfolded</h3>'
            f"{margin_map(tumor)}</div><div><h3>How much of the surface has which margin</h3>"
            f"{charts.margin_histogram(tumor)}</div></div>"
        )
    if not tumors:
        return "\n".join([*parts, '<p class="muted">There is no tumour in this case.</p>'])
    parts.append(
        '<p class="muted">The map shows every direction from the tumour\'s centre, in an equal-area '
        "projection (Mollweide): equal areas of the map are equal shares of all directions. Its middle faces "
        "the patient's front."
        + (
            " Hatched: within 5 mm of the liver capsule."
            if any(t.near_capsule.any() and not t.near_capsule.all() for t in tumors)
            else ""
        )
        + (
            " Grey: in the blood of an open vessel; such places do not count."
            if any(np.isnan(t.margin).any() for t in tumors)
            else ""
        )
        + "</p>"
    )
    return "\n".join([*parts, margin_legend()])


def limits(heading: str, texts: Sequence[str], notes: Sequence[str], disclaimer: str) -> str:
    """What the figures do not know, notes of this run, and the last line of the page."""
    listed = "".join(f"<li>{safe(note)}</li>" for note in notes)
    return (
        f"<h2>{safe(heading)}</h2><ul>"
        + "".join(f"<li>{safe(text)}</li>" for text in texts)
        + "</ul>"
        + (f"<h3>Notes of this run</h3><ul>{listed}</ul>" if listed else "")
        + f"<footer>{safe(disclaimer)}</footer>"
    )
