"""What the page's script draws from: meshes and volume, packed small."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermosim.applicators.electrode import Electrode
from thermosim.outcome.results import Outcome, TumorMargin
from thermosim.report.meshes import BACKGROUND_COLOR, SceneMesh, layer_name, style
from thermosim.report.slices import SliceVolume
from thermosim.report.verdict import MARGIN_CLASSES, WET_COLOR, surface_center
from thermosim.simulation import SimulationResult

ISOTHERMS = (50.0, 60.0)
"""Lines of the highest temperature drawn on the slices [°C]."""

MARGIN_STEP = 1e-5
"""Margins travel as int16 in steps of 0.01 mm."""

NO_MARGIN = -32768


def packed_bytes(array: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def packed_mesh(mesh: SceneMesh) -> dict[str, Any]:
    """Points as uint16 within the mesh's own box [mm], little endian; triangles as uint16 or uint32."""
    points = 1e3 * mesh.points
    lower = points.min(axis=0)
    scale = np.maximum(points.max(axis=0) - lower, 1e-6) / 65535.0
    wide = len(points) > 65535
    packed: dict[str, Any] = {
        "name": layer_name(mesh.name),
        "layer": mesh.layer,
        "kind": mesh.kind,
        "color": mesh.color,
        "opacity": mesh.opacity,
        "lower": lower.tolist(),
        "scale": scale.tolist(),
        "points": packed_bytes(np.round((points - lower) / scale).astype("<u2")),
        "wide": wide,
        "triangles": packed_bytes(mesh.triangles.astype("<u4" if wide else "<u2")),
        "margin": None,
    }
    if mesh.values is not None:
        steps = np.floor(np.clip(mesh.values / MARGIN_STEP, -32767, 32767))
        packed["margin"] = packed_bytes(np.nan_to_num(steps, nan=NO_MARGIN).astype("<i2"))
    return packed


@dataclass(frozen=True)
class SliceImage:
    """A grey image of the slices: uint8 of the volume's shape, value = `offset` + `step` · code."""

    name: str
    values: NDArray[np.uint8]
    offset: float
    step: float
    unit: str = "HU"


def scene_data(
    meshes: Sequence[SceneMesh],
    tumors: Sequence[TumorMargin],
    contours: Sequence[tuple[str, str]],
    volume: Mapping[str, Any],
) -> dict[str, Any]:
    """What scene and slices of any report need, as plain values; lengths in mm, frame LPS.

    `contours`: kinds of meshes whose outline the slices show, and the colour of the line. `volume`: from
    `volume_data`, and whatever else a report knows on the same cells.
    """
    classes = [
        [lo if math.isfinite(lo) else -1e9, hi if math.isfinite(hi) else 1e9, color, name]
        for lo, hi, color, name in MARGIN_CLASSES
    ]
    return {
        "meshes": [packed_mesh(mesh) for mesh in meshes],
        "classes": classes,
        "wet": WET_COLOR,
        "contours": [list(pair) for pair in contours],
        "structures": {},
        "isotherms": [],
        "needles": [],
        "tumors": [
            {
                "name": layer_name(t.name),
                "center": (1e3 * surface_center(t.surface)).tolist(),
                "thinnest": (1e3 * t.thinnest_point).tolist()
                if np.isfinite(t.thinnest_point).all()
                else None,
                "label": f"{round(1e3 * t.all_around.minimum, 1) + 0.0:.1f} mm".replace("-", "−"),
            }
            for t in tumors
            if len(t.surface.triangles)
        ],
        "volume": dict(volume),
    }


def volume_data(
    shape: tuple[int, int, int],
    spacing: float,
    origin: NDArray[np.float64],
    images: Sequence[SliceImage] = (),
    board: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Cells of the slices and grey images on them; `board`: two images to lay out as a chequerboard."""
    return {
        "shape": shape,
        "spacing": 1e3 * spacing,
        "origin": (1e3 * origin).tolist(),
        "images": [
            {
                "name": image.name,
                "values": packed_bytes(image.values.transpose(2, 1, 0)),  # fastest along x in the page
                "offset": image.offset,
                "step": image.step,
                "unit": image.unit,
            }
            for image in images
        ],
        "board": None if board is None else list(board),
    }


def page_data(
    result: SimulationResult,
    outcome: Outcome,
    meshes: Sequence[SceneMesh],
    volume: SliceVolume,
    earlier_poses: Sequence[Sequence[Electrode]] = (),
) -> dict[str, Any]:
    """Everything the script needs for a simulated treatment."""
    structures = {}
    for structure in result.anatomy.structures:
        _, kind, color, _ = style(structure.name, structure)
        structures[str(structure.label)] = {
            "name": layer_name(structure.name),
            "kind": "outside" if structure.role == "background" else kind,
            "color": color if kind in ("vessel", "risk") else BACKGROUND_COLOR,
        }
    cells = {
        **volume_data(volume.shape, volume.spacing, volume.origin),
        "offset": volume.temperature_offset,
        "step": volume.temperature_step,
        "temperature": packed_bytes(volume.temperature.transpose(2, 1, 0)),
        "labels": packed_bytes(volume.labels.transpose(2, 1, 0)),
    }
    return {
        **scene_data(meshes, outcome.tumors, (("zone", "#ffe14d"), ("tumor", "#4fdcff")), cells),
        "structures": structures,
        "isotherms": ISOTHERMS,
        "needles": [
            {
                "name": e.name,
                "tip": (1e3 * e.metal_start).tolist(),
                "wires": [[[1e3 * c for c in point] for point in wire] for wire in e.wires],
                "bare": (1e3 * e.axis_end).tolist(),
                "entry": [1e3 * c for c in (e.entry_point if e.kind != "sphere" else e.target_point)],
            }
            for e in (*(e for pose in earlier_poses for e in pose), *result.electrodes)
        ],
    }


def script_safe(data: Mapping[str, Any]) -> str:
    """JSON that can stand inside a script element: no '<', so no closing tag."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
