"""Triangle surfaces from STL, OBJ, PLY and VTK files, read as data that may be damaged.

The parsers are our own because a reader that trusts the sizes a file declares can be made to
allocate without bound or to index out of range. Each declared count is checked against the bytes
that are there before anything is allocated.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.anatomy.vtk_files import parse_vtk_legacy, parse_vtp
from thermosim.errors import InputError

MAXIMUM_FILE_BYTES = 2**31
MAXIMUM_TRIANGLES = 20_000_000


def read_surface(path: Path) -> TriangleSurface:
    """Points in the file's own frame and unit, polygons cut into triangles.

    Raises
    ------
    InputError : no such file, unknown kind, truncated or corrupt, no triangles.
    """
    readers: dict[str, Callable[[bytes], tuple[NDArray[np.float64], NDArray[np.int64]]]] = {
        ".stl": _parse_stl,
        ".obj": _parse_obj,
        ".ply": _parse_ply,
        ".vtk": parse_vtk_legacy,
        ".vtp": parse_vtp,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path.name}: a surface must be one of {', '.join(readers)}, got {path.suffix!r}")
    if not path.is_file():
        raise InputError(f"surface file {path.name!r} was not found; check the directory and the file's name")
    if path.stat().st_size > MAXIMUM_FILE_BYTES:
        raise InputError(f"{path.name}: larger than {MAXIMUM_FILE_BYTES} bytes; decimate the surface first")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path.name}: cannot be read ({error.strerror})") from error
    try:
        with np.errstate(all="ignore"):
            points, triangles = reader(data)
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from None
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError, RecursionError) as error:
        raise InputError(f"{path.name}: truncated or corrupt surface ({type(error).__name__})") from error
    return _checked(points, triangles, path.name)


def stated_frame(path: Path) -> str | None:
    """LPS or RAS if the file says so, as 3D Slicer writes it: `SPACE=RAS` in the header, or a field array.

    A `.vtp` is understood where that array is text, not where it is packed.
    """
    try:
        with open(path, "rb") as handle:
            head = handle.read(4096)
    except OSError:
        return None
    found = re.search(rb"SPACE=(LPS|RAS)", head)
    if found:
        return found.group(1).decode()
    codes = re.search(rb'Name="SPACE"[^>]*format="ascii"[^>]*>([\s\d]*)<', head)
    text = "".join(chr(int(code)) for code in codes.group(1).split() if int(code) < 128) if codes else ""
    return next((frame for frame in ("LPS", "RAS") if frame in text), None)


def check_frame(path: Path, frame: str, key: str) -> None:
    """Refuse to read a surface in another frame than the one it says itself.

    Raises
    ------
    InputError : the file says LPS and `frame` is RAS, or the other way; names the setting `key`.
    """
    stated = stated_frame(path)
    if stated is not None and stated != frame:
        raise InputError(
            f"{path.name} says that its points are {stated}; read as {frame}, left and right "
            f"would be exchanged: set {key}={stated}"
        )


def _checked(points: NDArray[np.float64], triangles: NDArray[np.int64], name: str) -> TriangleSurface:
    if len(triangles) == 0 or len(points) == 0:
        raise InputError(f"{name}: holds no triangles; export a closed surface")
    if len(triangles) > MAXIMUM_TRIANGLES:
        raise InputError(f"{name}: {len(triangles)} triangles, at most {MAXIMUM_TRIANGLES}; decimate it")
    if triangles.min() < 0 or triangles.max() >= len(points):
        raise InputError(f"{name}: corrupt surface, a triangle names a point outside 0..{len(points) - 1}")
    used = points[np.unique(triangles)]
    if not np.isfinite(used).all() or np.abs(used).max() > 1e6:
        raise InputError(f"{name}: corrupt surface, its coordinates are not finite or exceed 1e6")
    finite = np.where(np.isfinite(points), points, 0.0)
    return TriangleSurface(finite, triangles)


def fans(polygons: list[list[int]]) -> NDArray[np.int64]:
    """Polygons of any size cut into triangles around their first corner."""
    triangles = [(p[0], p[i], p[i + 1]) for p in polygons for i in range(1, len(p) - 1)]
    return np.array(triangles, np.int64).reshape(-1, 3)


def _parse_stl(data: bytes) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Binary if its declared count fits its size exactly, else text."""
    n = int.from_bytes(data[80:84], "little") if len(data) >= 84 else -1
    if len(data) >= 84 and len(data) == 84 + 50 * n:
        record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
        corners = np.frombuffer(data, record, count=n, offset=84)["corners"].astype(np.float64)
    elif data[:512].lstrip()[:5].lower() == b"solid" and b"vertex" in data:
        words = data.split()
        at = [i for i, word in enumerate(words) if word == b"vertex"]
        if len(at) % 3 or b"endsolid" not in data[-4096:]:
            raise InputError("truncated text STL: a facet lacks corners or the end is missing")
        corners = np.array([words[i + 1 : i + 4] for i in at]).astype(np.float64).reshape(-1, 3, 3)
    else:
        raise InputError(f"not an STL, or truncated: {len(data)} bytes do not fit the declared {n} triangles")
    points = corners.reshape(-1, 3)
    return points, np.arange(len(points), dtype=np.int64).reshape(-1, 3)


def _parse_obj(data: bytes) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Wavefront OBJ: `v` and `f` lines, indices from 1 or negative from the end."""
    points: list[list[bytes]] = []
    polygons: list[list[int]] = []
    for line in data.splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == b"v":
            if len(words) < 4:
                raise InputError("truncated OBJ: a point has fewer than three coordinates")
            points.append(words[1:4])
        elif words[0] == b"f":
            corners = [int(w.split(b"/")[0]) for w in words[1:]]
            if len(corners) < 3 or 0 in corners:
                raise InputError("corrupt OBJ: a face has fewer than three corners or the index 0")
            polygons.append([c - 1 if c > 0 else len(points) + c for c in corners])
    if not points:
        raise InputError("not an OBJ: it has no points")
    return np.array(points).astype(np.float64), fans(polygons)


_PLY_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}


def _parse_ply(data: bytes) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """PLY 1.0, text or binary; elements `vertex` and `face` in that order."""
    end = data.find(b"end_header")
    if not data.startswith(b"ply") or end < 0 or end > 65536:
        raise InputError("not a PLY: no header")
    body = data.find(b"\n", end) + 1
    order = ""
    elements: list[tuple[str, int, list[list[str]]]] = []
    for line in data[:end].decode("latin-1").splitlines():
        words = line.split()
        if words[:1] == ["format"]:
            order = words[1]
        elif words[:1] == ["element"]:
            elements.append((words[1], int(words[2]), []))
        elif words[:1] == ["property"]:
            elements[-1][2].append(words[1:])
    if [name for name, _, _ in elements][:2] != ["vertex", "face"]:
        raise InputError("a PLY surface must hold the elements vertex and face, in this order")
    (_, n_points, properties), (_, n_faces, face_properties) = elements[:2]
    if not 0 < n_points <= len(data) or not 0 < n_faces <= len(data):
        raise InputError(f"truncated PLY: {n_points} points and {n_faces} faces do not fit {len(data)} bytes")
    if face_properties[0][0] != "list":
        raise InputError("corrupt PLY: faces must begin with their list of corners")
    names = [p[-1] for p in properties]
    columns = [names.index(axis) for axis in "xyz"]
    if order == "ascii":
        lines = data[body:].splitlines()
        if len(lines) < n_points + n_faces:
            raise InputError(f"truncated PLY: {len(lines)} lines for {n_points} points and {n_faces} faces")
        rows = [line.split() for line in lines[: n_points + n_faces]]
        points = np.array([[row[c] for c in columns] for row in rows[:n_points]]).astype(np.float64)
        polygons = [[int(w) for w in row[1 : 1 + int(row[0])]] for row in rows[n_points:]]
        return points, fans(polygons)
    mark = {"binary_little_endian": "<", "binary_big_endian": ">"}.get(order)
    if mark is None or any(p[0] == "list" for p in properties):
        raise InputError(f"corrupt PLY: unknown format {order!r} or a list among the points' properties")
    record = np.dtype([(f"p{i}", mark + _PLY_TYPES[p[0]]) for i, p in enumerate(properties)])
    table = np.frombuffer(data, record, count=n_points, offset=body)
    points = np.stack([table[f"p{c}"] for c in columns], axis=1).astype(np.float64)
    faces = _ply_faces(data, body + n_points * record.itemsize, n_faces, face_properties, mark)
    return points, faces


def _ply_faces(
    data: bytes, offset: int, n_faces: int, properties: list[list[str]], mark: str
) -> NDArray[np.int64]:
    """Binary faces: all alike in one stroke, or mixed polygons one by one."""

    def number(kind: str, at: int) -> int:
        dtype = np.dtype(mark + _PLY_TYPES[kind])
        if at + dtype.itemsize > len(data):
            raise InputError("truncated PLY: a face reaches beyond the end of the file")
        return int(np.frombuffer(data, dtype, 1, at)[0])

    def layout(at: int) -> tuple[list[tuple[str, str, int]], int]:
        """Fields of the face that begins at `at`, and where the next one begins."""
        fields = []
        for i, words in enumerate(properties):
            length = 1
            if words[0] == "list":
                length = number(words[1], at)
                if not 0 <= length <= 1000:
                    raise InputError(f"corrupt PLY: a face with a list of {length} entries")
                fields.append((f"n{i}", mark + _PLY_TYPES[words[1]], 1))
                at += np.dtype(_PLY_TYPES[words[1]]).itemsize
            kind = words[2] if words[0] == "list" else words[0]
            fields.append((f"v{i}", mark + _PLY_TYPES[kind], length))
            at += length * np.dtype(_PLY_TYPES[kind]).itemsize
        if at > len(data):
            raise InputError("truncated PLY: a face reaches beyond the end of the file")
        return fields, at

    fields, end = layout(offset)
    record = np.dtype([(name, kind, (length,)) for name, kind, length in fields])
    if offset + n_faces * record.itemsize <= len(data):
        table = np.frombuffer(data, record, count=n_faces, offset=offset)
        counts = [name for name, _, _ in fields if name.startswith("n")]
        if all((table[name] == table[name][0]).all() for name in counts):
            corners = table["v0"].astype(np.int64)
            return np.concatenate([corners[:, [0, i, i + 1]] for i in range(1, corners.shape[1] - 1)])
    polygons = []
    for _ in range(n_faces):
        fields, end = layout(offset)
        start = offset + np.dtype(fields[0][1]).itemsize
        polygons.append(np.frombuffer(data, fields[1][1], fields[1][2], start).tolist())
        offset = end
    return fans(polygons)
