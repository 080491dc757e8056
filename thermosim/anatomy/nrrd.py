"""NRRD images and Slicer segmentations (http://teem.sourceforge.net/nrrd/format.html)."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.label_image import Segment, Volume, check_size, image_grid, inflate
from thermosim.errors import InputError

MAXIMUM_HEADER_BYTES = 2**20

_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}

_TO_LPS = {
    "left-posterior-superior": np.diag([1.0, 1.0, 1.0]),
    "lps": np.diag([1.0, 1.0, 1.0]),
    "right-anterior-superior": np.diag([-1.0, -1.0, 1.0]),
    "ras": np.diag([-1.0, -1.0, 1.0]),
    "left-anterior-superior": np.diag([1.0, -1.0, 1.0]),
    "las": np.diag([1.0, -1.0, 1.0]),
}


def nrrd_volume(data: bytes) -> Volume:
    """An image from the bytes of a NRRD file with attached data."""
    fields, pairs, body = _header(data)
    shape = tuple(int(n) for n in fields.get("sizes", "").split())
    if len(shape) != int(fields.get("dimension", "-1")) or not 3 <= len(shape) <= 4:
        raise InputError(f"the image has {len(shape)} dimensions {shape}; it must have three")
    check_size(shape)
    if "data file" in fields or "datafile" in fields:
        raise InputError("its data lie in another file; save it with attached data")
    if fields.get("type", "").lower() not in _TYPES:
        raise InputError(f"voxels of type {fields.get('type')!r}; they must be numbers")
    for skip in ("line skip", "lineskip", "byte skip", "byteskip"):
        if int(fields.get(skip, "0")) != 0:
            raise InputError(f"{skip} is not supported; save the image again")
    mark = "" if _TYPES[fields["type"].lower()].endswith("1") else _byte_order(fields)
    dtype = np.dtype(mark + _TYPES[fields["type"].lower()])
    values = _values(body, fields.get("encoding", "").lower(), shape, dtype)
    affine, spatial = _position(fields, len(shape))
    layer_axes = [axis for axis in range(len(shape)) if axis not in spatial]
    layers = [values] if not layer_axes else list(np.moveaxis(values, layer_axes[0], 0))
    grid = image_grid(tuple(shape[axis] for axis in spatial), affine)
    return Volume(grid, tuple(layers), _segments(pairs, len(layers)))


def _header(data: bytes) -> tuple[dict[str, str], dict[str, str], bytes]:
    """Fields, key/value pairs and what follows the empty line."""
    window = data[:MAXIMUM_HEADER_BYTES]
    found = re.search(rb"\r?\n\r?\n", window)
    if not re.match(rb"NRRD000[1-5]\r?\n", window) or found is None:
        raise InputError("not a NRRD image, or its header is truncated")
    fields: dict[str, str] = {}
    pairs: dict[str, str] = {}
    for line in window[: found.start()].decode("utf-8", "replace").splitlines()[1:]:
        if line.startswith("#"):
            continue
        if ":=" in line and (": " not in line or line.index(":=") < line.index(": ")):
            key, value = line.split(":=", 1)
            pairs[key.strip()] = value.strip()
        elif ":" in line:
            key, value = line.split(":", 1)
            fields[key.strip().lower()] = value.strip()
    return fields, pairs, data[found.end() :]


def _byte_order(fields: dict[str, str]) -> str:
    order = {"little": "<", "big": ">"}.get(fields.get("endian", "").lower())
    if order is None:
        raise InputError("the header does not say the byte order (endian: little or big)")
    return order


def _values(
    body: bytes, encoding: str, shape: tuple[int, ...], dtype: np.dtype[np.generic]
) -> NDArray[np.generic]:
    n = int(np.prod(shape, dtype=np.int64))
    n_bytes = n * dtype.itemsize
    if encoding in ("gz", "gzip"):
        raw = inflate(body, n_bytes, "gzip")
    elif encoding in ("bz2", "bzip2"):
        raw = inflate(body, n_bytes, "bzip2")
    elif encoding in ("txt", "text", "ascii"):
        if len(body) < 2 * n - 1:
            raise InputError(f"truncated: {len(body)} characters for {n} voxels")
        words = body.split()
        if len(words) < n:
            raise InputError(f"truncated: {len(words)} of {n} voxels are there")
        return np.array(words[:n]).astype(np.float64).reshape(shape, order="F")
    elif encoding == "raw":
        raw = body
    else:
        raise InputError(f"encoding {encoding!r} is not supported; save it as raw or gzip")
    if len(raw) < n_bytes:
        raise InputError(f"truncated: {len(raw)} of the declared {n_bytes} bytes are there")
    return np.frombuffer(raw, dtype, n).reshape(shape, order="F")


def _position(fields: dict[str, str], dimension: int) -> tuple[NDArray[np.float64], list[int]]:
    """Matrix from indices to LPS [mm], and which axes are spatial."""
    to_lps = _TO_LPS.get(fields.get("space", "").lower())
    if to_lps is None or "space directions" not in fields or "space origin" not in fields:
        raise InputError(
            "the image does not say how it lies in the patient (space, space directions, space origin); "
            "save it again from 3D Slicer"
        )
    vectors = re.findall(r"none|\([^()]*\)", fields["space directions"])
    spatial = [axis for axis, vector in enumerate(vectors) if vector != "none"]
    if len(vectors) != dimension or len(spatial) != 3:
        raise InputError(f"corrupt header: {len(spatial)} space directions for three axes")
    units = set(re.findall(r'"([^"]*)"', fields.get("space units", "")))
    if not units <= {"mm", ""}:
        raise InputError(f"space units {sorted(units)}; must be mm")
    affine = np.eye(4)
    for column, axis in enumerate(spatial):
        affine[:3, column] = to_lps @ _vector(vectors[axis])
    affine[:3, 3] = to_lps @ _vector(fields["space origin"])
    return affine, spatial


def _vector(text: str) -> NDArray[np.float64]:
    numbers = np.array([float(x) for x in text.strip("() ").split(",")])
    if numbers.shape != (3,):
        raise InputError(f"corrupt header: {text!r} is not a vector of three numbers")
    return numbers


def _segments(pairs: dict[str, str], n_layers: int) -> tuple[Segment, ...]:
    """Names, layers and label values of Slicer's segments."""
    segments = []
    for number in range(10000):
        if f"Segment{number}_ID" not in pairs and f"Segment{number}_Name" not in pairs:
            break
        name = pairs.get(f"Segment{number}_Name") or pairs[f"Segment{number}_ID"]
        layer = int(pairs.get(f"Segment{number}_Layer", number if n_layers > 1 else 0))
        value = int(pairs.get(f"Segment{number}_LabelValue", 1))
        if not 0 <= layer < n_layers:
            raise InputError(f"corrupt header: segment {name!r} lies in layer {layer} of {n_layers}")
        segments.append(Segment(name, layer, value))
    return tuple(segments)
