"""Needle poses from files: 3D Slicer markups, CSV, or a layout in YAML."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from thermosim.anatomy.label_image import file_bytes
from thermosim.anatomy.markups import FRAMES, KINDS, MAXIMUM_MARKUP_BYTES, Markup, read_markups, to_lps
from thermosim.config import NeedleConfig
from thermosim.errors import InputError
from thermosim.units import MILLIMETRE

ORDERS = ("tip_first", "entry_first")
MAXIMUM_POSES = 100
_TIP = re.compile(r"(^|[^a-z])(tip|target)([^a-z]|$)", re.IGNORECASE)
_ENTRY = re.compile(r"(^|[^a-z])(entry|skin)([^a-z]|$)", re.IGNORECASE)
_CSV_COLUMNS = ("target_x", "target_y", "target_z", "entry_x", "entry_y", "entry_z")
_CSV_OPTIONS = ("name", "active_length_mm", "rotation_deg")

Point = NDArray[np.float64]


def read_poses(
    path: str | Path, *, order: str = "tip_first", coordinates: str | None = None
) -> tuple[NeedleConfig, ...]:
    """Needles of a plan, points in LPS millimetres of the images.

    Each line of a `.mrk.json` or `.acsv` is a needle; points are taken in pairs, of each list by itself
    (`.mrk.json`, `.fcsv`). A CSV has a header with target_x, target_y, target_z, entry_x, entry_y,
    entry_z [mm] and, if wanted, name, active_length_mm, rotation_deg. A YAML holds `needles` as in a
    `layout` group, alone or within a whole case.

    Parameters
    ----------
    order : which point of a line or pair is which: tip_first or entry_first. Labels that say tip or
        target, and entry or skin, come before it.
    coordinates : LPS or RAS, instead of what the file says; a CSV must say it here or in a line
        ``# coordinateSystem = LPS``.

    Raises
    ------
    InputError : damaged, an odd point without its partner, no frame, a needle of no length.
    """
    place = Path(path).expanduser()
    if order not in ORDERS:
        raise InputError(f"order {order!r} of a needle's points, must be {' or '.join(ORDERS)}")
    if coordinates not in (None, *FRAMES):
        raise InputError(f"coordinates {coordinates!r} of a needle's points, must be LPS or RAS")
    kind = place.suffix.lower()
    if kind in KINDS:
        needles = _from_markups(read_markups(place, coordinates), order, place.name)
    elif kind == ".csv":
        needles = _guarded(_from_csv, place, coordinates)
    elif kind in (".yaml", ".yml"):
        needles = _guarded(_from_yaml, place, coordinates)
    else:
        raise InputError(f"{place.name!r}: needles are read from .mrk.json, .fcsv, .acsv, .csv or .yaml")
    if not 0 < len(needles) <= MAXIMUM_POSES:
        raise InputError(f"{place.name}: {len(needles)} needles, must be 1 to {MAXIMUM_POSES}")
    for needle in needles:
        if np.linalg.norm(np.subtract(needle.target_mm, needle.entry_mm)) < 1.0:
            raise InputError(f"{place.name}: tip and entry of needle {needle.name!r} are the same point")
    return tuple(needles)


def _guarded(reader: Any, place: Path, coordinates: str | None) -> list[NeedleConfig]:
    data = file_bytes(place, "needle file", MAXIMUM_MARKUP_BYTES)
    try:
        needles: list[NeedleConfig] = reader(data.decode("utf-8-sig"), coordinates)
    except InputError as error:
        raise InputError(f"{place.name}: {error}") from None
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{place.name}: damaged needle file ({type(error).__name__}: {error})") from error
    return needles


def _needle(name: str, target: Point, entry: Point, **more: float) -> NeedleConfig:
    """A needle from LPS [m]."""
    points = [[round(float(x) / MILLIMETRE, 6) for x in point] for point in (target, entry)]
    return NeedleConfig(name, points[0], points[1], **more)


def _from_markups(markups: tuple[Markup, ...], order: str, file: str) -> list[NeedleConfig]:
    pairs: list[tuple[str, Point, tuple[str, ...]]] = []
    for markup in markups:
        if markup.kind == "Line":
            if len(markup.points) != 2:
                raise InputError(
                    f"{file}: line {markup.name!r} has {len(markup.points)} points, must have two"
                )
            pairs.append((markup.name, markup.points, markup.labels))
        elif markup.kind == "Fiducial":
            if len(markup.points) % 2:
                raise InputError(
                    f"{file}: {len(markup.points)} points in a list; needles need pairs of tip and entry"
                )
            for i in range(0, len(markup.points), 2):
                pairs.append(("", markup.points[i : i + 2], markup.labels[i : i + 2]))
    if not pairs:
        kinds = ", ".join(sorted({markup.kind for markup in markups}))
        raise InputError(f"{file}: holds {kinds}, but no lines or point pairs that could be needles")
    names = [_plain(name) for name, _, _ in pairs]
    needles = []
    for number, (name, (_, points, labels)) in enumerate(zip(names, pairs, strict=True), start=1):
        tip = 0 if order == "tip_first" else 1
        if all(_TIP.search(one) and _ENTRY.search(other) for one, other in [labels]):
            tip = 0
        elif all(_ENTRY.search(one) and _TIP.search(other) for one, other in [labels]):
            tip = 1
        own = name if name and names.count(name) == 1 else f"needle_{number}"
        needles.append(_needle(own, points[tip], points[1 - tip]))
    return needles


def _plain(name: str) -> str:
    """A name that can stand in a configuration: no blanks, and no point, which would name a pole."""
    return re.sub(r"[^\w-]+", "_", name).strip("_")


def _from_csv(text: str, coordinates: str | None) -> list[NeedleConfig]:
    said = re.search(r"^#\s*coordinateSystem\s*[:=]\s*(\w+)", text, re.MULTILINE | re.IGNORECASE)
    frame = coordinates or (said.group(1).upper() if said else None)
    if frame not in FRAMES:
        raise InputError(
            "it does not say whether its points are LPS or RAS; set layout.coordinates, or begin the file "
            "with a line '# coordinateSystem = LPS'"
        )
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    table = csv.DictReader(lines)
    columns = [column.strip() for column in table.fieldnames or ()]
    table.fieldnames = columns
    missing = [column for column in _CSV_COLUMNS if column not in columns]
    unknown = [column for column in columns if column not in (*_CSV_COLUMNS, *_CSV_OPTIONS)]
    if missing or unknown:
        raise InputError(
            f"columns {', '.join(missing) or 'none'} are missing and {', '.join(unknown) or 'none'} unknown; "
            f"it needs {', '.join(_CSV_COLUMNS)} [mm], and may have {', '.join(_CSV_OPTIONS)}"
        )
    needles = []
    for number, row in enumerate(table, start=1):
        try:
            points = to_lps([float(row[column]) for column in _CSV_COLUMNS], frame)
            more = {key: float(row[key]) for key in _CSV_OPTIONS[1:] if (row.get(key) or "").strip()}
        except (ValueError, TypeError):
            raise InputError(f"needle {number} is not made of numbers in mm") from None
        name = _plain(row.get("name") or "") or f"needle_{number}"
        needles.append(_needle(name, points[0], points[1], **more))
    return needles


def _from_yaml(text: str, coordinates: str | None) -> list[NeedleConfig]:
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"damaged YAML ({type(error).__name__})") from None
    if isinstance(document, dict) and isinstance(document.get("layout"), dict):
        document = document["layout"]
    if not isinstance(document, dict) or not isinstance(document.get("needles"), list):
        raise InputError("it holds no list 'needles' with name, target_mm and entry_mm of each")
    if document.get("frame", "patient") != "patient":
        raise InputError(
            f"frame: {document['frame']}; only points of the images (frame: patient) can be taken over"
        )
    needles = []
    for number, entry in enumerate(document["needles"], start=1):
        points = to_lps(
            [list(map(float, entry[key])) for key in ("target_mm", "entry_mm")], coordinates or "LPS"
        )
        more = {key: float(entry[key]) for key in _CSV_OPTIONS[1:] if entry.get(key) is not None}
        needles.append(_needle(str(entry.get("name") or f"needle_{number}"), points[0], points[1], **more))
    return needles
