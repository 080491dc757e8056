"""Points and lines from 3D Slicer: `.mrk.json`, and the older `.fcsv` and `.acsv`.

A file says in which frame its points are (LPS or RAS); older kinds that do not are RAS, as Slicer wrote them.
"""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.grid import LPS_TO_RAS
from thermosim.anatomy.label_image import file_bytes
from thermosim.errors import InputError
from thermosim.units import MILLIMETRE

MAXIMUM_MARKUP_BYTES = 2**24
MAXIMUM_POINTS = 10_000
FRAMES = ("LPS", "RAS")
KINDS = (".json", ".fcsv", ".acsv")
_UNITS = {"mm": 1e-3, "um": 1e-6, "m": 1.0}


@dataclass(frozen=True)
class Markup:
    """One markup: a list of points, or a line of two.

    `points` (n, 3) LPS [m]; `labels` one for each, empty where the file has none.
    """

    kind: str
    name: str
    points: NDArray[np.float64]
    labels: tuple[str, ...]


def read_markups(path: str | Path, frame: str | None = None) -> tuple[Markup, ...]:
    """All markups of a file that have points.

    Parameters
    ----------
    frame : LPS or RAS, instead of what the file says.

    Raises
    ------
    InputError : no such file, damaged, an unknown frame or unit, no points.
    """
    place = Path(path).expanduser()
    if frame not in (None, *FRAMES):
        raise InputError(f"frame {frame!r} of the points, must be LPS or RAS")
    readers = {".json": _from_json, ".fcsv": _from_fcsv, ".acsv": _from_acsv}
    reader = readers.get(place.suffix.lower())
    if reader is None:
        raise InputError(f"{place.name!r} is no markup file; it must end in .mrk.json, .fcsv or .acsv")
    data = file_bytes(place, "markup file", MAXIMUM_MARKUP_BYTES)
    try:
        found = tuple(markup for markup in reader(data.decode("utf-8-sig"), frame) if len(markup.points))
    except InputError as error:
        raise InputError(f"{place.name}: {error}") from None
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{place.name}: damaged markup file ({type(error).__name__})") from error
    if not found:
        raise InputError(f"{place.name}: holds no points")
    if sum(len(markup.points) for markup in found) > MAXIMUM_POINTS:
        raise InputError(f"{place.name}: more than {MAXIMUM_POINTS} points")
    return found


def read_points(path: str | Path, frame: str | None = None) -> dict[str, NDArray[np.float64]]:
    """All points of a markup file by label, LPS [m]; a point without one is called by its number.

    Raises
    ------
    InputError : as `read_markups`; a label that occurs twice.
    """
    points: dict[str, NDArray[np.float64]] = {}
    for markup in read_markups(path, frame):
        for label, point in zip(markup.labels, markup.points, strict=True):
            name = label or str(len(points) + 1)
            if name in points:
                raise InputError(f"{Path(path).name}: two points are called {name!r}; rename one of them")
            points[name] = point
    return points


def to_lps(points: Any, frame: str, unit: float = MILLIMETRE) -> NDArray[np.float64]:
    """Points (n, 3) of a frame and unit as LPS [m]."""
    array = np.asarray(points, np.float64).reshape(-1, 3) * unit
    if not np.isfinite(array).all() or np.abs(array).max(initial=0.0) > 10.0:
        raise InputError("a coordinate is not finite or lies more than 10 m from the origin; is the unit mm?")
    return array @ LPS_TO_RAS if frame == "RAS" else array


def _from_json(text: str, frame: str | None) -> list[Markup]:
    """Schema: markups-schema-v1.0.3.json of 3D Slicer."""
    document = json.loads(text)
    if not isinstance(document, dict) or not isinstance(document.get("markups"), list):
        raise InputError("no markups in it; save the lines or points from 3D Slicer's Markups module")
    found = []
    for entry in document["markups"]:
        own = str(entry.get("coordinateSystem", "LPS")).upper()
        if own not in FRAMES:
            raise InputError(f"coordinateSystem {own!r}, must be LPS or RAS")
        code = entry.get("coordinateUnits", "mm")
        unit = _UNITS.get(code[0] if isinstance(code, list) else code)
        if unit is None:
            raise InputError(f"coordinateUnits {code!r}, must be mm, um or m")
        points = [
            point
            for point in entry.get("controlPoints", [])
            if point.get("positionStatus", "defined") == "defined" and "position" in point
        ]
        positions = [[float(x) for x in point["position"]] for point in points]
        if any(len(position) != 3 for position in positions):
            raise InputError("a position has not three coordinates")
        found.append(
            Markup(
                str(entry.get("type", "")),
                str(entry.get("name", "")),
                to_lps(positions, frame or own, unit),
                tuple(str(point.get("label", "")) for point in points),
            )
        )
    return found


def _from_fcsv(text: str, frame: str | None) -> list[Markup]:
    """Slicer 3 and 4 point lists; the header names the columns, and from 4.4 on the frame (0 RAS, 1 LPS)."""
    own, columns, name = "RAS", ["label", "x", "y", "z"], ""
    rows = []
    for line in text.splitlines():
        header = re.match(r"#\s*(\w+)\s*=\s*(.*)$", line)
        if header:
            key, value = header.group(1).lower(), header.group(2).strip()
            if key == "coordinatesystem":
                own = {"0": "RAS", "1": "LPS"}.get(value, value.upper())
            elif key == "columns":
                columns = [column.strip() for column in value.split(",")]
            elif key == "name":
                name = value
        elif line.strip() and not line.startswith("#"):
            rows.append(line)
    if own not in FRAMES:
        raise InputError(f"CoordinateSystem {own!r}, must be LPS (1) or RAS (0)")
    axes = [columns.index(axis) for axis in "xyz"]
    at = columns.index("label") if "label" in columns else None
    table = list(csv.reader(rows))
    positions = [[float(row[axis]) for axis in axes] for row in table]
    labels = tuple(row[at] if at is not None and at < len(row) else "" for row in table)
    return [Markup("Fiducial", name, to_lps(positions, frame or own), labels)]


def _from_acsv(text: str, frame: str | None) -> list[Markup]:
    """Slicer 4 annotations: rulers, RAS; a ruler's line names its two points by number."""
    name = ""
    points, lines = [], []
    for line in text.splitlines():
        header = re.match(r"#\s*Name\s*=\s*(.*)$", line)
        if header:
            name = header.group(1).strip()
        words = line.split("|")
        if words[0] == "point":
            points.append([float(word) for word in words[1:4]])
        elif words[0] == "line":
            lines.append([int(word) for word in words[1:3]])
    positions = to_lps(points, frame or "RAS")
    if not lines:
        return [Markup("Fiducial", name, positions, ("",) * len(positions))]
    if min(min(line) for line in lines) < 0:
        raise InputError("a line names a point that is not there")
    return [Markup("Line", name, positions[line], ("", "")) for line in lines]
