"""VTK surfaces: the legacy text format and XML PolyData (.vtp)."""

from __future__ import annotations

import base64
import zlib
from typing import Literal
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from thermosim.errors import InputError

Surface = tuple[NDArray[np.float64], NDArray[np.int64]]

_LEGACY_TYPES = {
    "char": "i1",
    "unsigned_char": "u1",
    "short": "i2",
    "unsigned_short": "u2",
    "int": "i4",
    "unsigned_int": "u4",
    "long": "i8",
    "unsigned_long": "u8",
    "vtktypeint64": "i8",
    "vtktypeint32": "i4",
    "vtkidtype": "i4",  # VTK writes its own index type as 32 bits in binary files
    "float": "f4",
    "double": "f8",
}

_XML_TYPES = {
    "Int8": "i1",
    "UInt8": "u1",
    "Int16": "i2",
    "UInt16": "u2",
    "Int32": "i4",
    "UInt32": "u4",
    "Int64": "i8",
    "UInt64": "u8",
    "Float32": "f4",
    "Float64": "f8",
}


class _Cursor:
    """A place in the bytes of a legacy file."""

    def __init__(self, data: bytes, offset: int, binary: bool) -> None:
        self.data, self.offset, self.binary = data, offset, binary

    def line(self) -> str | None:
        """The next line that is not empty; None at the end."""
        while self.offset < len(self.data):
            end = self.data.find(b"\n", self.offset)
            end = len(self.data) if end < 0 else end
            text = self.data[self.offset : min(end, self.offset + 1000)].decode("latin-1").strip()
            self.offset = end + 1
            if text:
                return text
        return None

    def numbers(self, count: int, kind: str) -> NDArray[np.generic]:
        """`count` numbers from here on."""
        dtype = np.dtype(_LEGACY_TYPES[kind.lower()]).newbyteorder(">")
        if count < 0 or count * (dtype.itemsize if self.binary else 2) > len(self.data) - self.offset + 1:
            raise InputError(f"truncated VTK file: {count} values declared, the file ends before")
        if self.binary:
            values = np.frombuffer(self.data, dtype, count, self.offset)
            self.offset += count * dtype.itemsize
            return values
        words = self.data[self.offset :].split(maxsplit=count)
        if len(words) < count:
            raise InputError(f"truncated VTK file: {len(words)} of {count} values are there")
        rest = len(words[count]) if len(words) > count else 0
        self.offset = len(self.data) - rest
        return np.array(words[:count]).astype(np.float64 if dtype.kind == "f" else np.int64)


def parse_vtk_legacy(data: bytes) -> Surface:
    """Legacy VTK PolyData, text or binary, versions up to 5.1 (offsets and connectivity)."""
    head = data[:600].split(b"\n", 3)
    if not head[0].startswith(b"# vtk DataFile Version") or len(head) < 4:
        raise InputError("not a legacy VTK file")
    binary = head[2].strip().upper() == b"BINARY"
    cursor = _Cursor(data, sum(len(line) + 1 for line in head[:3]), binary)
    points: NDArray[np.float64] | None = None
    parts: list[NDArray[np.int64]] = []
    while (text := cursor.line()) is not None:
        words = text.split()
        keyword = words[0].upper()
        if keyword == "DATASET" and words[1].upper() != "POLYDATA":
            raise InputError(f"holds {words[1]}, a surface must be POLYDATA")
        if keyword in ("POINT_DATA", "CELL_DATA"):
            break
        if keyword == "METADATA":
            _skip_metadata(cursor)
        elif keyword == "POINTS":
            points = cursor.numbers(3 * int(words[1]), words[2]).astype(np.float64).reshape(-1, 3)
        elif keyword in ("VERTICES", "LINES", "POLYGONS", "TRIANGLE_STRIPS"):
            cells = _legacy_cells(cursor, int(words[1]), int(words[2]))
            if keyword == "POLYGONS":
                parts.append(polygon_triangles(*cells))
            elif keyword == "TRIANGLE_STRIPS":
                parts.append(_strip_triangles(*cells))
    if points is None or not parts:
        raise InputError("truncated VTK file, or one without points and polygons")
    return points, np.concatenate(parts)


def _skip_metadata(cursor: _Cursor) -> None:
    """Past a METADATA block, which ends at an empty line."""
    end = cursor.data.find(b"\n\n", cursor.offset)
    cursor.offset = len(cursor.data) if end < 0 else end + 2


def _legacy_cells(cursor: _Cursor, first: int, second: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Offsets and connectivity of one cell section, from the old or the new layout."""
    place = cursor.offset
    text = cursor.line() or ""
    if text.upper().startswith("OFFSETS"):
        offsets = cursor.numbers(first, text.split()[1]).astype(np.int64)
        text = cursor.line() or ""
        if not text.upper().startswith("CONNECTIVITY"):
            raise InputError("corrupt VTK file: CONNECTIVITY expected")
        return offsets, cursor.numbers(second, text.split()[1]).astype(np.int64)
    cursor.offset = place
    table = cursor.numbers(second, "int").astype(np.int64)
    if first > 0 and second == 4 * first and (table[::4] == 3).all():
        return 3 * np.arange(first + 1), table.reshape(-1, 4)[:, 1:].ravel()
    sizes, at = [], 0
    for _ in range(first):
        size = int(table[at])
        if not 0 <= size <= second:
            raise InputError(f"corrupt VTK file: a cell of {size} points")
        sizes.append(size)
        at += size + 1
    if at != second:
        raise InputError("corrupt VTK file: cells do not fill their table")
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    keep = np.ones(second, bool)
    keep[offsets[:-1] + np.arange(first)] = False
    return offsets, table[keep]


def _check_offsets(offsets: NDArray[np.int64], connectivity: NDArray[np.int64]) -> None:
    if len(offsets) and (offsets[0] != 0 or (np.diff(offsets) < 0).any() or offsets[-1] > len(connectivity)):
        raise InputError("corrupt VTK file: cell offsets are out of order")


def polygon_triangles(offsets: NDArray[np.int64], connectivity: NDArray[np.int64]) -> NDArray[np.int64]:
    """Polygons cut into triangles around their first corner."""
    _check_offsets(offsets, connectivity)
    sizes = np.diff(offsets)
    triangles = []
    for size in np.unique(sizes[sizes >= 3])[:1000]:
        polygons = connectivity[offsets[:-1][sizes == size][:, None] + np.arange(size)]
        triangles += [polygons[:, [0, i, i + 1]] for i in range(1, int(size) - 1)]
    return np.concatenate(triangles) if triangles else np.empty((0, 3), np.int64)


def _strip_triangles(offsets: NDArray[np.int64], connectivity: NDArray[np.int64]) -> NDArray[np.int64]:
    """Strips cut into triangles, every other one turned."""
    _check_offsets(offsets, connectivity)
    triangles = []
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        strip = connectivity[start:end]
        part = np.stack([strip[:-2], strip[1:-1], strip[2:]], axis=1)
        part[1::2] = part[1::2][:, [1, 0, 2]]
        triangles.append(part)
    return np.concatenate(triangles) if triangles else np.empty((0, 3), np.int64)


def parse_vtp(data: bytes) -> Surface:
    """XML PolyData: text, inline base64 or appended data, plain or zlib-compressed."""
    if b"<!ENTITY" in data or b"<!DOCTYPE" in data:
        raise InputError("a .vtp file must not declare entities")
    data, appended, encoding = _split_appended(data)
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise InputError(f"truncated or corrupt XML ({error})") from None
    if root.tag != "VTKFile" or root.get("type") != "PolyData":
        raise InputError("not a VTK XML PolyData file")
    compressor = root.get("compressor", "")
    if compressor not in ("", "vtkZLibDataCompressor"):
        raise InputError(f"compressed by {compressor}; save it uncompressed or with zlib")
    order: Literal["<", ">"] = ">" if root.get("byte_order") == "BigEndian" else "<"
    header = np.dtype(_XML_TYPES[root.get("header_type", "UInt32")]).newbyteorder(order)

    def array(element: ElementTree.Element | None) -> NDArray[np.generic]:
        if element is None:
            raise InputError("corrupt .vtp: an array is missing")
        dtype = np.dtype(_XML_TYPES[element.get("type", "")]).newbyteorder(order)
        form = element.get("format", "ascii")
        if form == "ascii":
            return np.array((element.text or "").split()).astype(dtype)
        if form == "binary":
            raw = _decoded((element.text or "").strip().encode(), header, bool(compressor), True)
        else:
            start = int(element.get("offset", "0"))
            if not 0 <= start <= len(appended):
                raise InputError("truncated .vtp: appended data ends before an array")
            raw = _decoded(appended[start:], header, bool(compressor), encoding == "base64")
        return np.frombuffer(raw[: len(raw) // dtype.itemsize * dtype.itemsize], dtype)

    all_points, all_triangles, n = [], [], 0
    for piece in root.iter("Piece"):
        points = array(piece.find("Points/DataArray")).astype(np.float64).reshape(-1, 3)
        if len(points) != int(piece.get("NumberOfPoints", "-1")):
            raise InputError("truncated .vtp: fewer points than declared")
        for tag, cut in (("Polys", polygon_triangles), ("Strips", _strip_triangles)):
            if int(piece.get(f"NumberOf{tag}", "0")) == 0:
                continue
            named = {e.get("Name"): e for e in piece.findall(f"{tag}/DataArray")}
            ends = array(named.get("offsets")).astype(np.int64)
            corners = array(named.get("connectivity")).astype(np.int64)
            offsets = np.concatenate([[0], ends]) if len(ends) == 0 or ends[0] != 0 else ends
            part = cut(offsets, corners)
            if len(part) and (part.min() < 0 or part.max() >= len(points)):
                raise InputError("corrupt .vtp: a polygon names a point that is not there")
            all_triangles.append(part + n)
        all_points.append(points)
        n += len(points)
    if not all_points or not all_triangles:
        raise InputError("holds no polygons")
    return np.concatenate(all_points), np.concatenate(all_triangles)


def _split_appended(data: bytes) -> tuple[bytes, bytes, str]:
    """The XML with its appended section cut out, that section after its underscore, its encoding."""
    start = data.find(b"<AppendedData")
    if start < 0:
        return data, b"", ""
    mark = data.find(b"_", data.find(b">", start))
    end = data.rfind(b"</AppendedData>")
    if mark < 0 or end < mark:
        raise InputError("truncated .vtp: its appended data do not end")
    encoding = "base64" if b"base64" in data[start:mark] else "raw"
    return data[:start] + data[end + len(b"</AppendedData>") :], data[mark + 1 : end], encoding


def _decoded(data: bytes, header: np.dtype[np.generic], compressed: bool, is_base64: bool) -> bytes:
    """The bytes of one array: a header of sizes, then its blocks (VTK XML format)."""

    def take(n_bytes: int, source: bytes) -> tuple[bytes, bytes]:
        if not is_base64:
            chunk, rest = source[:n_bytes], source[n_bytes:]
        else:
            n_text = 4 * ((n_bytes + 2) // 3)
            chunk, rest = base64.b64decode(source[:n_text])[:n_bytes], source[n_text:]
        if len(chunk) < n_bytes:
            raise InputError("truncated .vtp: an array ends early")
        return chunk, rest

    size = header.itemsize
    if not compressed:
        lead = int(np.frombuffer(take(size, data)[0], header)[0])
        if lead > len(data):
            raise InputError(f"truncated .vtp: {lead} bytes declared, {len(data)} are there")
        return take(size + lead, data)[0][size:]
    n_blocks = int(np.frombuffer(take(size, data)[0], header)[0])
    if n_blocks * size > len(data):
        raise InputError(f"corrupt .vtp: {n_blocks} blocks declared")
    table_bytes, rest = take(size * (3 + n_blocks), data)
    table = np.frombuffer(table_bytes, header).astype(np.uint64).tolist()
    block_size, last_size, packed_sizes = int(table[1]), int(table[2]), [int(x) for x in table[3:]]
    if sum(packed_sizes) > len(data):
        raise InputError("truncated .vtp: a compressed array ends early")
    packed, _ = take(sum(packed_sizes), rest)
    out, at = [], 0
    for number, packed_size in enumerate(packed_sizes):
        wanted = last_size if number == n_blocks - 1 and last_size else block_size
        if wanted > 1032 * packed_size + 64:
            raise InputError("corrupt .vtp: a block cannot unpack to its declared size")
        try:
            block = zlib.decompressobj().decompress(packed[at : at + packed_size], max(wanted, 1))
        except zlib.error as error:
            raise InputError(f"corrupt .vtp: {error}") from None
        if len(block) != wanted:
            raise InputError("corrupt .vtp: a block unpacks to another size")
        out.append(block)
        at += packed_size
    return b"".join(out)
