"""layout.mrk.json: the needles as lines for 3D Slicer, which `layout=from_file` reads back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from thermosim.applicators.electrode import Electrode
from thermosim.report.atomic import write_text
from thermosim.units import MILLIMETRE

SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)


def write_layout(path: Path, electrodes: Iterable[Electrode]) -> None:
    """Write one line per device, from its tip to its entry, LPS mm; parts of one device count once."""
    lines: dict[str, dict[str, Any]] = {}
    for electrode in electrodes:
        name = electrode.applicator or electrode.name
        lines.setdefault(name, _line(name, electrode))
    write_text(path, json.dumps({"@schema": SCHEMA, "markups": list(lines.values())}, indent=1) + "\n")


def _line(name: str, electrode: Electrode) -> dict[str, Any]:
    ends = (("tip", electrode.target_point), ("entry", electrode.entry_point))
    return {
        "type": "Line",
        "name": name,
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": False,
        "fixedNumberOfControlPoints": True,
        "labelFormat": "%N-%d",
        "lastUsedControlPointNumber": 2,
        "controlPoints": [
            {
                "id": str(number),
                "label": f"{name} {label}",
                "description": "",
                "associatedNodeID": "",
                "position": [round(x / MILLIMETRE, 6) for x in point],
                "orientation": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0],
                "selected": True,
                "locked": False,
                "visibility": True,
                "positionStatus": "defined",
            }
            for number, (label, point) in enumerate(ends, start=1)
        ],
        "measurements": [],
    }
