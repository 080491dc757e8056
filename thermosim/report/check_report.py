"""check.json, the picture and the page of a judged plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyvista as pv

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.config import OutputConfig
from thermosim.errors import InputError
from thermosim.plan.check import PlanCheck
from thermosim.plan.findings import RuleResult
from thermosim.plan.paths import NeedlePath, Plan
from thermosim.report.atomic import write_text
from thermosim.report.check_page import check_page
from thermosim.report.meshes import (
    OTHERS_TRIANGLES,
    SceneMesh,
    needle_meshes,
    simplified,
    style,
    tumor_meshes,
    zone_meshes,
)
from thermosim.report.provenance import Anonymizer, now, versions, yaml_text
from thermosim.report.scene import draw_scene
from thermosim.report.summary import plain, write_summary
from thermosim.report.verdict import DISCLAIMER, weighed

FORMAT = "thermosim-check/1"

FILES = {"check": "check.json", "scene": "scene.png", "report": "report.html", "config": "config.yaml"}

FAULT_COLORS = {"fail": "#e0202e", "warn": "#f08a00"}
FAULT_RADIUS = 2.5e-3
"""Of the balls that mark offending places [m]."""

ESTIMATE = (
    "ellipsoids around the bare metal, superposed where needles burn together; it knows no power, no vessels "
    "and no capsule"
)


def write_check(
    directory: Path,
    check: PlanCheck,
    surfaces: Mapping[str, TriangleSurface],
    config: Mapping[str, Any],
    title: str,
    exit_code: int,
    options: OutputConfig,
    simulation: str | None = None,
) -> dict[str, Path]:
    """Write what `options` asks for and return the files by key (check, config, scene, report).

    ``check.json`` and ``config.yaml`` are always written. Each file is there whole or not at all; files
    of these names that this check does not write are removed.

    Parameters
    ----------
    surfaces : the whole anatomy by structure name [m, LPS]. config : the settings as plain values.
    exit_code : of the command. simulation : folder of the simulation's outputs, if there was one.

    Raises
    ------
    InputError : the directory cannot be written to.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"output.directory {directory.name!r} cannot be made: {error.strerror}; choose another one"
        ) from error
    paths = {key: directory / name for key, name in FILES.items()}
    written = {key: paths[key] for key in ("check", "config")}
    notes = []
    meshes = scene_meshes(check, surfaces) if options.scene or options.report else []
    if options.scene:
        problem = draw_scene(paths["scene"], meshes)
        if problem is None:
            written["scene"] = paths["scene"]
        else:
            notes.append(problem)
    summary = summarize(check, config, title, exit_code, notes, simulation)
    write_summary(paths["check"], summary)
    write_text(paths["config"], yaml_text(Anonymizer(config).config(config)))
    if options.report:
        picture = written["scene"].read_bytes() if "scene" in written else None
        written["report"] = paths["report"]
        write_text(paths["report"], check_page(summary, check, meshes, picture))
    for key, path in paths.items():
        if key not in written:
            path.unlink(missing_ok=True)
    return written


def summarize(
    check: PlanCheck,
    config: Mapping[str, Any],
    title: str,
    exit_code: int,
    notes: Sequence[str] = (),
    simulation: str | None = None,
) -> dict[str, Any]:
    """All that the check found as plain values; keys end in their unit. See docs/outputs.md."""
    anonymizer, plan = Anonymizer(config), check.plan
    return plain(  # type: ignore[no-any-return]
        {
            "format": FORMAT,
            "title": anonymizer.text(title),
            "created": now(),
            "disclaimer": DISCLAIMER,
            "verdict": check.verdict,
            "exit_code": exit_code,
            "counts": check.counts,
            "rules": [_rule(result) for result in check.results],
            "needles": [_needle(plan, path) for path in plan.paths],
            "burns": [
                {
                    "place": place.name,
                    "needle": place.device,
                    "pulled_back_mm": 1e3 * place.pulled_back,
                    "duration_min": plan.minutes(place),
                    "segments": [segment.number for segment in place.segments],
                    "target_lps_mm": [1e3 * np.asarray(e.target_point) for e in place.electrodes],
                }
                for place in plan.places
            ],
            "estimate": {
                "method": ESTIMATE,
                "zone_beside_mm": plan.rules.zone.beside_mm,
                "zone_beyond_mm": plan.rules.zone.beyond_mm,
                "zone_time_min": plan.rules.zone.time_min,
                "zone_source": plan.rules.zone.source,
                "tumors": [
                    {
                        "name": tumor.name,
                        "volume_ml": 1e6 * tumor.volume,
                        "coverage": tumor.coverage,
                        "minimal_ablative_margin_mm": 1e3 * tumor.all_around.minimum,
                        "thinnest_point_lps_mm": 1e3 * tumor.thinnest_point,
                    }
                    for tumor in check.tumors
                ],
            },
            "simulation": simulation,
            "versions": versions(),
            "notes": [anonymizer.text(note) for note in dict.fromkeys((*check.notes, *notes))],
        }
    )


def _rule(result: RuleResult) -> dict[str, Any]:
    return {
        "key": result.key,
        "title": result.title,
        "unit": result.unit,
        "wanted": result.side,
        "warn": result.warn,
        "fail": result.fail,
        "source": result.source,
        "verdict": result.verdict,
        "findings": [
            {
                "subject": finding.subject,
                "verdict": finding.verdict,
                "value": finding.value,
                "sentence": finding.sentence,
                "lacks_anatomy": finding.lacks,
                "places_lps_mm": [1e3 * np.asarray(place) for place in finding.places],
            }
            for finding in result.findings
        ],
    }


def _needle(plan: Plan, path: NeedlePath) -> dict[str, Any]:
    """The way of one needle and what it passes, from its start."""
    passed = [
        {
            "structure": body.structure.name,
            "role": body.structure.role,
            "from_mm": 1e3 * stretch.start,
            "to_mm": 1e3 * stretch.end,
        }
        for body in plan.bodies
        if body is not plan.skin
        for stretch in body.stretches(path.start, path.tip)
    ]
    return {
        "name": path.name,
        "target_lps_mm": 1e3 * path.tip,
        "entry_lps_mm": 1e3 * path.entry,
        "skin_lps_mm": None if path.skin is None else 1e3 * path.skin,
        "length_mm": 1e3 * path.length,
        "passes": sorted(passed, key=lambda part: float(part["from_mm"])),
    }


def scene_meshes(check: PlanCheck, surfaces: Mapping[str, TriangleSurface]) -> list[SceneMesh]:
    """Anatomy, needles at all their places, the estimated zone, and balls where a rule warns or fails."""
    structures = {body.structure.name: body.structure for body in check.plan.bodies}
    judged = {tumor.name for tumor in check.tumors}
    others = {name: s for name, s in surfaces.items() if name not in judged and len(s.triangles)}
    total = sum(len(surface.triangles) for surface in others.values())
    meshes = []
    for name, surface in others.items():
        layer, kind, color, opacity = style(name, structures.get(name))
        light = simplified(surface, max(int(OTHERS_TRIANGLES * len(surface.triangles) / total), 400))
        meshes.append(SceneMesh(name, layer, kind, color, opacity, light.points, light.triangles))
    for tumor in check.tumors:
        assert check.anatomy is not None
        margin = weighed(tumor, check.anatomy).margin
        meshes += tumor_meshes(tumor, margin)
    if check.zone_surface is not None:
        meshes += zone_meshes(check.zone_surface, "estimated zone")
    for place in check.plan.places:
        for electrode in place.electrodes:
            meshes += needle_meshes(electrode, with_shaft=place.pulled_back == 0)
    for verdict, name in (("warn", "Places that warn"), ("fail", "Places that fail")):
        places = [
            place
            for result in check.results
            for finding in result.findings
            if finding.verdict == verdict
            for place in finding.places
        ]
        meshes += [_fault(place, name, FAULT_COLORS[verdict]) for place in dict.fromkeys(places)]
    return meshes


def _fault(place: Sequence[float], name: str, color: str) -> SceneMesh:
    ball = pv.Sphere(radius=FAULT_RADIUS, center=place, theta_resolution=14, phi_resolution=14)
    return SceneMesh(
        name,
        name,
        "fault",
        color,
        1.0,
        np.asarray(ball.points, float),
        np.asarray(ball.regular_faces, dtype=np.int64),
    )
