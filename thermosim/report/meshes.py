"""Light meshes of a run for pictures: anatomy, ablation zone, tumours by margin, needles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyvista as pv
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from thermosim.anatomy.anatomy import Structure, TriangleSurface
from thermosim.applicators.electrode import Electrode
from thermosim.outcome.results import Outcome, TumorMargin
from thermosim.report.verdict import weighed
from thermosim.simulation import SimulationResult

LIVER_TRIANGLES = 14_000
TUMOR_TRIANGLES = 16_000
ZONE_TRIANGLES = 16_000
OTHERS_TRIANGLES = 60_000
LONGEST_SHAFT = 0.2
"""Shafts are drawn no longer than this [m]."""

VESSEL_COLORS = {
    "hepatic_vein": "#3567b5",
    "portal_vein": "#7b58a8",
    "artery": "#c8443c",
    "vena_cava": "#24508f",
}
OTHER_VESSEL_COLOR = "#5b7fa6"
MARK_COLOR = "#101418"
MARK_RADIUS = 1.2e-3
LIVER_COLOR = "#b0695a"
TUMOR_COLOR = "#d9c39a"
RISK_COLOR = "#8a9a5b"
BACKGROUND_COLOR = "#a9a9a9"
ZONE_COLOR = "#f4c95d"
METAL_COLOR = "#2b2f36"
SHAFT_COLOR = "#8d949e"


@dataclass(frozen=True)
class SceneMesh:
    """One mesh of the scene. `layer` groups meshes under one switch; `kind` is liver, vessel, tumor,
    zone, needle, risk, mark or other. `values` margin [m] per point, None for a plain colour."""

    name: str
    layer: str
    kind: str
    color: str
    opacity: float
    points: NDArray[np.float64]
    triangles: NDArray[np.int64]
    values: NDArray[np.float64] | None = None


def layer_name(name: str) -> str:
    """A name for people: underscores become spaces."""
    text = name.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def simplified(surface: TriangleSurface, target: int) -> TriangleSurface:
    """The same surface with about `target` triangles at most."""
    count = len(surface.triangles)
    if count <= target:
        return surface
    mesh = pv.PolyData.from_regular_faces(surface.points * 1e3, surface.triangles)
    small = mesh.decimate(1.0 - target / count)
    return TriangleSurface(
        np.asarray(small.points, float) * 1e-3, np.asarray(small.regular_faces, dtype=np.int64)
    )


def needle_meshes(electrode: Electrode, with_shaft: bool = True) -> list[SceneMesh]:
    """Bare metal, tines and shaft of one electrode as closed tubes (a sphere electrode as a ball).

    A band's tip, in front of its metal, is drawn as shaft.
    """
    if electrode.kind == "sphere":
        ball = pv.Sphere(radius=electrode.radius, center=electrode.target_point).triangulate()
        return [_needle(electrode, ball, "tip", METAL_COLOR)]
    end = np.asarray(electrode.entry_point)
    length = float(np.linalg.norm(end - electrode.axis_end))
    if length > LONGEST_SHAFT:
        end = electrode.axis_end + LONGEST_SHAFT * electrode.direction
    # Needles are drawn a little thicker than they are: 1.5 mm would be hard to see beside a liver.
    radius = max(electrode.radius, 0.9e-3)
    bare_from, tip = electrode.metal_start, np.asarray(electrode.target_point)
    parts = []
    if electrode.active_length > 1e-4:
        parts.append((bare_from, electrode.axis_end, radius, METAL_COLOR, "tip"))
    if with_shaft and electrode.active_start > 1e-4 and not electrode.pole:
        parts.append((tip, bare_from, 0.8 * radius, SHAFT_COLOR, "front"))
    if with_shaft and length > 1e-4 and electrode.pole != "distal":
        parts.append((electrode.axis_end, end, 0.8 * radius, SHAFT_COLOR, "shaft"))
    meshes = []
    for start, stop, part_radius, color, part in parts:
        tube = pv.Cylinder(
            center=0.5 * (start + stop),
            direction=stop - start,
            radius=part_radius,
            height=float(np.linalg.norm(stop - start)),
            resolution=16,
        ).triangulate()
        meshes.append(_needle(electrode, tube, part, color))
    if electrode.wires:
        meshes.append(_needle(electrode, _tines(electrode), "tines", METAL_COLOR))
    return meshes


def _tines(electrode: Electrode) -> pv.PolyData:
    """All tines as tubes, drawn thicker than they are."""
    tubes = [
        pv.MultipleLines(points=np.asarray(wire)).tube(
            radius=max(electrode.wire_radius, 0.5e-3), n_sides=8, capping=True
        )
        for wire in electrode.wires
    ]
    return tubes[0].append_polydata(*tubes[1:]).triangulate()


def _needle(electrode: Electrode, mesh: pv.PolyData, part: str, color: str) -> SceneMesh:
    return SceneMesh(
        f"{electrode.name} {part}",
        "Needles",
        "needle",
        color,
        1.0,
        np.asarray(mesh.points, float),
        np.asarray(mesh.regular_faces, dtype=np.int64),
    )


def scene_meshes(
    result: SimulationResult,
    outcome: Outcome,
    display_surfaces: Mapping[str, TriangleSurface],
    earlier_poses: Sequence[Sequence[Electrode]] = (),
) -> list[SceneMesh]:
    """All meshes of the scene [m, LPS], light enough for a web page.

    Tumours with a margin come from the outcome and carry it; everything else from
    `display_surfaces`. Surfaces without triangles are left out. Of needles that were pulled back
    the bare metal is drawn at each earlier place as well.
    """
    structures = {s.name: s for s in result.anatomy.structures}
    judged = {tumor.name for tumor in outcome.tumors}
    others = [n for n, s in display_surfaces.items() if n not in judged and len(s.triangles)]
    total = sum(len(display_surfaces[n].triangles) for n in others)
    meshes = []
    for name in others:
        surface = display_surfaces[name]
        layer, kind, color, opacity = style(name, structures.get(name))
        share = max(int(OTHERS_TRIANGLES * len(surface.triangles) / total), 400)
        light = simplified(surface, LIVER_TRIANGLES if kind == "liver" else share)
        meshes.append(SceneMesh(name, layer, kind, color, opacity, light.points, light.triangles))
    for tumor in outcome.tumors:
        meshes.extend(tumor_meshes(tumor, weighed(tumor, result.anatomy).margin))
    zone = outcome.zones.get(outcome.criterion)
    if zone is not None:
        meshes.extend(zone_meshes(zone.surface))
    for pose in earlier_poses:
        for electrode in pose:
            meshes.extend(needle_meshes(electrode, with_shaft=False))
    for electrode in result.electrodes:
        meshes.extend(needle_meshes(electrode))
    return meshes


def tumor_meshes(tumor: TumorMargin, margin: NDArray[np.float64]) -> list[SceneMesh]:
    """A tumour coloured by `margin` [m] at its vertices, and a bead at its thinnest place."""
    if not len(tumor.surface.triangles):
        return []
    light = simplified(tumor.surface, TUMOR_TRIANGLES)
    _, nearest = cKDTree(tumor.surface.points).query(light.points)
    layer = layer_name(tumor.name)
    meshes = [
        SceneMesh(
            tumor.name, layer, "tumor", TUMOR_COLOR, 1.0, light.points, light.triangles, margin[nearest]
        )
    ]
    if np.isfinite(tumor.thinnest_point).all():
        meshes.append(mark_mesh(tumor.thinnest_point, f"{tumor.name} thinnest place", "Thinnest place"))
    return meshes


def mark_mesh(point: NDArray[np.float64], name: str, layer: str) -> SceneMesh:
    """A bead at a point."""
    bead = pv.Sphere(radius=MARK_RADIUS, center=point, theta_resolution=12, phi_resolution=12)
    triangles = np.asarray(bead.regular_faces, dtype=np.int64)
    return SceneMesh(name, layer, "mark", MARK_COLOR, 1.0, np.asarray(bead.points, float), triangles)


def zone_meshes(
    surface: TriangleSurface, name: str = "ablation zone", kind: str = "zone", color: str = ZONE_COLOR
) -> list[SceneMesh]:
    """An ablation zone as glass."""
    if not len(surface.triangles):
        return []
    light = simplified(surface, ZONE_TRIANGLES)
    return [SceneMesh(name, layer_name(name), kind, color, 0.3, light.points, light.triangles)]


def style(name: str, structure: Structure | None) -> tuple[str, str, str, float]:
    """Layer, kind, colour and opacity of a structure."""
    if structure is None:
        return layer_name(name), "other", BACKGROUND_COLOR, 0.25
    if structure.role == "organ":
        return layer_name(name), "liver", LIVER_COLOR, 0.18
    if structure.role == "vessel":
        group = structure.vessel_group or name
        return layer_name(group), "vessel", VESSEL_COLORS.get(group, OTHER_VESSEL_COLOR), 1.0
    if structure.role == "tumor":
        return layer_name(name), "tumor", TUMOR_COLOR, 1.0
    if structure.role == "risk":
        return layer_name(name), "risk", RISK_COLOR, 0.5
    return layer_name(name), "other", BACKGROUND_COLOR, 0.25
