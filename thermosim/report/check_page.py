"""report.html of `thermosim check`: verdict, rules, the needles' ways, the scene, the estimate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thermosim.plan.check import PlanCheck
from thermosim.plan.findings import RuleResult
from thermosim.report import page
from thermosim.report.charts import legend, svg_text
from thermosim.report.meshes import (
    BACKGROUND_COLOR,
    LIVER_COLOR,
    OTHER_VESSEL_COLOR,
    RISK_COLOR,
    TUMOR_COLOR,
    SceneMesh,
    layer_name,
    style,
)
from thermosim.report.page_data import packed_bytes, scene_data, volume_data
from thermosim.report.tables import number, percent, safe, table
from thermosim.report.verdict import weighed

BADGES = {"pass": "#0b6e63", "warn": "#b86a00", "fail": "#b3202c", "not judged": "#6b7280"}

SENTENCES = {
    "pass": "The plan keeps every rule that could be judged",
    "warn": "The plan breaks no rule, but look at the warnings",
    "fail": "The plan breaks at least one rule",
    "not judged": "Nothing could be judged",
}

ROLE_COLORS = {
    "organ": LIVER_COLOR,
    "tumor": TUMOR_COLOR,
    "vessel": OTHER_VESSEL_COLOR,
    "risk": RISK_COLOR,
    "background": BACKGROUND_COLOR,
}

SWITCHES = (
    ("zone", "Estimated zone", "#ffe14d"),
    ("tumor", "Tumour", "#4fdcff"),
    ("fault", "Places that warn or fail", "#ff5a4d"),
    ("vessels", "Vessels", None),
    ("needles", "Needles", None),
)

LIMITS = (
    "The plan is judged as drawn: needles bend, the liver moves with breathing and with the needle itself, "
    "and targeting is off by some millimetres.",
    "A rule can only judge what the anatomy holds. What is reported as not judged was not looked at; it is "
    "no pass. Structures that are not segmented do not exist here.",
    "Limits marked as assumed are the project's choice. They have no published source; change them in the "
    "group rules to the practice of your site.",
    "The fast estimate is a sanity check of geometry: ellipsoids around bare metal, superposed where needles "
    "burn together. It knows no power, no impedance, no open vessels and no capsule, and is no prediction of "
    "the zone.",
    "Vessel widths are those of the segmentation, by the widest ball that fits; what is thinner than its "
    "voxels is not seen.",
)


def check_page(
    summary: Mapping[str, Any], check: PlanCheck, meshes: Sequence[SceneMesh], picture: bytes | None
) -> str:
    """The page as text; numbers come from `summary`, drawings from `check` and `meshes`."""
    sections = [
        page.header(
            summary["title"],
            f"Plan of {len(summary['needles'])} needle position(s) judged before any heat. Judged "
            f"{safe(summary['created'][:10])}.",
            summary["disclaimer"],
        ),
        page.verdict_box("Verdict", _said(summary), _facts(summary)),
        "<h2>Rules</h2>",
        _rules(check.results),
        _needles(summary, check),
    ]
    if check.anatomy is not None:
        sections += [
            page.scene(
                "The plan in space",
                picture,
                "Anatomy, needles, estimated zone and places where a rule warns or fails",
                "Balls mark places that fail (red) or warn (orange); dark metal is drawn at every place of a "
                "needle that is pulled back.",
            ),
            "<p class='muted'>Margin on the tumour: by the fast estimate.</p>",
            page.margin_legend(),
            page.slices("The anatomy that the estimate was laid on.", SWITCHES),
            page.margins([weighed(tumor, check.anatomy) for tumor in check.tumors]),
        ]
    sections += [
        _burns(summary),
        page.limits("What this check does not know", LIMITS, summary["notes"], summary["disclaimer"]),
    ]
    return page.document(summary["title"], sections, _data(check, meshes))


def _said(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The whole verdict in words, with what breaks rules first."""
    verdict = summary["verdict"]
    wanted = [v for v in ("fail", "warn") if summary["counts"][v]]
    details = [
        f"{rule['title']}: {rule['findings'][0]['sentence']}."
        for v in wanted
        for rule in summary["rules"]
        if rule["verdict"] == v
    ]
    level = "warn" if verdict == "not judged" else verdict
    return {"level": level, "sentence": SENTENCES[verdict], "details": details[:8]}


def _facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    counts = summary["counts"]
    facts = [
        (str(counts["fail"]), "rules fail"),
        (str(counts["warn"]), "rules warn"),
        (str(counts["pass"]), "rules pass"),
        (str(counts["not judged"]), "rules not judged"),
    ]
    for rule in summary["rules"]:
        if rule["key"] not in ("simulated_coverage", "simulated_margin_mm"):
            continue
        for finding in rule["findings"]:
            if finding["value"] is None:
                continue
            name = safe(layer_name(finding["subject"]).lower())
            if rule["key"] == "simulated_coverage":
                facts.append((percent(finding["value"]), f"of {name} covered, simulated"))
            else:
                facts.append((number(finding["value"], 1, "mm"), f"thinnest margin of {name}, simulated"))
    for tumor in summary["estimate"]["tumors"]:
        name = safe(layer_name(tumor["name"]).lower())
        facts.append((percent(tumor["coverage"]), f"of {name} covered, fast estimate"))
        margin = number(tumor["minimal_ablative_margin_mm"], 1, "mm")
        facts.append((margin, f"thinnest margin of {name}, fast estimate"))
    return facts


def _badge(verdict: str) -> str:
    return f'<strong style="color:{BADGES[verdict]}">{safe(verdict)}</strong>'


def value_in_words(value: float, result: RuleResult) -> str:
    """A value with its unit; counts and shares have none."""
    if result.key.endswith("_coverage"):
        return percent(value)
    digits = 0 if not result.unit else 1
    return number(value, digits, result.unit)


def limits_in_words(result: RuleResult) -> str:
    """Both limits of a rule, such as '≤ 3 mm, fails above 6 mm'."""
    sign, beyond = ("≤", "above") if result.side == "at most" else ("≥", "below")

    def text(value: float) -> str:
        if result.key.endswith("_coverage"):
            return f"{100 * value:g} %"
        return f"{value:g}{' ' + result.unit if result.unit else ''}".replace("-", "−")

    parts = [] if result.warn is None else [f"{sign} {text(result.warn)}"]
    if result.fail is not None:
        parts.append(f"fails {beyond} {text(result.fail)}")
    return ", ".join(parts) or "no limit"


def _rules(results: Sequence[RuleResult]) -> str:
    rows = []
    for result in results:
        findings = result.findings
        shown = [f for f in findings if f.verdict in ("warn", "fail")] or list(findings[:1])
        more = len(shown) - 6
        text = "<br>".join(safe(finding.sentence) for finding in shown[:6])
        text += f"<br>and {more} more" if more > 0 else ""
        worst = findings[0]
        found = "–" if worst.value is None else value_in_words(worst.value, result)
        rows.append(
            [
                _badge(result.verdict),
                safe(result.title),
                safe(found),
                safe(limits_in_words(result)),
                text,
                f'<span class="muted">{safe(result.source)}</span>',
            ]
        )
    head = ["Verdict", "Rule", "Found (worst)", "Wanted", "What was found", "Source of the limits"]
    return table(head, rows, texts=len(head))


def _needles(summary: Mapping[str, Any], check: PlanCheck) -> str:
    """A strip for each needle: what it passes from its start to its tip, and where a rule is broken."""
    needles = summary["needles"]
    if not needles:
        return ""
    bare = {
        electrode.applicator or electrode.name: 1e3 * (electrode.active_start + electrode.active_length)
        for place in check.plan.places
        for electrode in place.electrodes
    }
    bare |= {e.name: bare[e.applicator or e.name] for p in check.plan.places for e in p.electrodes}
    left, right, row, top, width = 150, 20, 34, 8, 900
    longest = max(needle["length_mm"] for needle in needles)
    scale = (width - left - right) / max(longest, 1.0)
    height = top + row * len(needles) + 40

    def px(before_tip: float) -> float:
        return float(width - right - scale * before_tip)

    parts = [
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" '
        'aria-label="What each needle passes on its way">'
    ]
    used = {"organ", "tumor"}
    for number_, needle in enumerate(needles):
        y = top + row * number_ + 6
        length = needle["length_mm"]
        parts.append(svg_text(left - 10, y + 14, safe(layer_name(needle["name"])), "end"))
        parts.append(
            f'<rect x="{px(length):.1f}" y="{y + 7}" width="{scale * length:.1f}" height="6" fill="#d5d9de"/>'
        )
        order = ("organ", "background", "risk", "tumor", "vessel")
        for part in sorted(needle["passes"], key=lambda p: order.index(p["role"])):
            used.add(part["role"])
            x = px(length - part["from_mm"])
            wide = max(scale * (part["to_mm"] - part["from_mm"]), 1.2)
            color, name = ROLE_COLORS[part["role"]], safe(layer_name(part["structure"]))
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="20" fill="{color}">'
                f"<title>{name}: {part['to_mm'] - part['from_mm']:.1f} mm</title></rect>"
            )
        metal = bare.get(needle["name"], 0.0)
        parts.append(
            f'<rect x="{px(metal):.1f}" y="{y + 8}" width="{scale * metal:.1f}" height="4" fill="#20242a"/>'
        )
        parts += _marks(needle, check, px, y)
    axis = top + row * len(needles) + 8
    for tick in range(0, int(longest) + 1, 20 if longest > 60 else 10):
        parts.append(f'<path d="M{px(tick):.1f} {axis - 4}v5" stroke="#8d949e"/>')
        parts.append(svg_text(px(tick), axis + 14, f"{tick}"))
    parts.append(svg_text((left + width - right) / 2, axis + 29, "mm before the tip"))
    names = {
        "organ": "Liver",
        "tumor": "Tumour",
        "vessel": "Vessel",
        "risk": "Structure at risk",
        "background": "Other structure",
    }
    items = [(ROLE_COLORS[role], name) for role, name in names.items() if role in used]
    items += [
        ("#d5d9de", "Nothing segmented"),
        ("#20242a", "Bare metal"),
        (BADGES["fail"], "A rule fails here"),
    ]
    items.append(("#f08a00", "A rule warns here"))
    return (
        "<h2>What each needle passes</h2><p class='muted'>From its start (skin, or the given entry point) on "
        "the left to its tip on the right.</p>" + "".join(parts) + "</svg>" + legend(items)
    )


def _marks(needle: Mapping[str, Any], check: PlanCheck, px: Any, y: float) -> list[str]:
    """Triangles above the strip at places of this needle that a rule warns of or fails at."""
    path = next(path for path in check.plan.paths if path.name == needle["name"])
    marks = []
    for result in check.results:
        for finding in result.findings:
            if finding.verdict not in ("warn", "fail") or finding.subject.split(",")[0] != path.name:
                continue
            color = {"fail": BADGES["fail"], "warn": "#f08a00"}[finding.verdict]
            for place in finding.places:
                along = float((np.asarray(place) - path.tip) @ (path.start - path.tip)) / max(
                    path.length, 1e-9
                )
                x = px(min(max(1e3 * along, 0.0), needle["length_mm"]))
                marks.append(
                    f'<path d="M{x - 5:.1f} {y - 7}h10l-5 8z" fill="{color}">'
                    f"<title>{safe(finding.sentence)}</title></path>"
                )
    return marks


def _burns(summary: Mapping[str, Any]) -> str:
    rows = [
        [
            safe(burn["place"]),
            ", ".join(str(number_ + 1) for number_ in burn["segments"]),
            number(burn["duration_min"], 1),
            "; ".join(", ".join(number(x, 1) for x in point) for point in burn["target_lps_mm"]),
        ]
        for burn in summary["burns"]
    ]
    head = ["Place", "Segment of the treatment", "Driven min", "Tip at (LPS mm)"]
    return "<h2>Burns in order</h2>" + table(head, rows, texts=2)


def _data(check: PlanCheck, meshes: Sequence[SceneMesh]) -> dict[str, Any] | None:
    """Scene and slices of the estimate's grid; None where there is no tumour to show."""
    if check.anatomy is None:
        return None
    anatomy = check.anatomy
    stride = max(1, int(np.ceil((anatomy.grid.n_cells / 450_000) ** (1 / 3))))
    labels = anatomy.labels[::stride, ::stride, ::stride]
    spacing = stride * anatomy.grid.spacing[0]
    shape = (labels.shape[0], labels.shape[1], labels.shape[2])
    cells = volume_data(shape, spacing, np.asarray(anatomy.grid.origin))
    cells["labels"] = packed_bytes(labels.transpose(2, 1, 0))
    structures = {}
    for structure in anatomy.structures:
        _, kind, color, _ = style(structure.name, structure)
        structures[str(structure.label)] = {
            "name": layer_name(structure.name),
            "kind": "outside" if structure.role == "background" else kind,
            "color": color if kind in ("vessel", "risk") else BACKGROUND_COLOR,
        }
    contours = (("zone", "#ffe14d"), ("tumor", "#4fdcff"), ("fault", "#ff5a4d"))
    return {
        **scene_data(meshes, check.tumors, contours, cells),
        "structures": structures,
        "needles": [
            {
                "name": electrode.name,
                "tip": (1e3 * electrode.metal_start).tolist(),
                "wires": [[[1e3 * c for c in point] for point in wire] for wire in electrode.wires],
                "bare": (1e3 * electrode.axis_end).tolist(),
                "entry": [1e3 * c for c in electrode.entry_point],
            }
            for place in check.plan.places
            for electrode in place.electrodes
        ],
    }
