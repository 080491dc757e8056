"""Programs on the CPU: lists of kernels that run tile by tile, so that fields pass through memory once.

A kernel that reads its neighbours has to stay a plane behind the one that writes them, and one that
overwrites a field behind those that still read it. `lags` finds by how much from the parameters' types
and the mark AROUND in the sources; `kernels/cpu_program.h` runs the tiles.
"""

from __future__ import annotations

import ctypes
import sys
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermosim.backends.base import Call, KernelSignature

CALL = np.dtype(
    [
        ("run", "u8"),
        ("arguments", "u8"),
        ("starts", "u8"),
        ("planes", "i4"),
        ("rows", "i4"),
        ("lag", "i4"),
        ("ratio", "i4"),
    ]
)
"""`Call` of kernels/cpu_program.h."""

TILE_PLANES, TILE_CELLS = 4, 16_384
"""Planes of a tile, and cells of each: a dozen fields of it and of the planes behind it fit into a cache."""

CACHED_CELLS = 60_000
"""A grid of at most so many cells is one tile, for one thread."""


def run_functions(signatures: Iterable[KernelSignature]) -> str:
    """C++ that takes a kernel's arguments from a list and shifts them to a box of planes and rows.

    Kernels that leave several values per row, or take rows for entries, have no such function: they number
    rows by the whole grid.
    """
    lines = ['#include "cpu_program.h"']
    for signature in signatures:
        names = [name for _, name in signature.parameters]
        if signature.several_values or (signature.kind == "entry" and "leak_rows" in names):
            continue
        given = 6 if signature.has_grid else 0
        words, by_plane = [], "rows" in names or "leak_rows" in names  # numbered by rows of the whole grid
        if signature.has_grid:
            planes, i = ("1", "i") if by_plane else ("b.i1 - b.i0", "b.i0")
            words = [planes, "b.j1 - b.j0", *(f"c.arguments[{a}].integer" for a in range(2, 5))]
            words.append(
                f"c.arguments[5].integer + {i} * c.arguments[3].integer + b.j0 * c.arguments[4].integer"
            )
        for place, (c_type, name) in enumerate(signature.parameters):
            a = given + place
            if c_type.endswith("*"):
                base = c_type.removesuffix("*")
                if name == "leak_rows":
                    words.append(f"({base}*)c.arguments[{a}].pointer + 2 * ((long)i * c.rows + b.j0)")
                elif name == "rows":
                    words.append(f"({base}*)c.arguments[{a}].pointer + (long)i * c.rows + b.j0")
                else:
                    shift = " + first" if name in signature.by_entry else ""
                    words.append(f"({base}*)c.arguments[{a}].pointer{shift}")
            elif name == "n" and signature.kind == "entry":
                words.append("last - first")
            elif name in ("fine_nx", "fine_ny"):  # of which the box sees the rest
                words.append(f"c.arguments[{a}].integer - 2 * b.{'i0' if name == 'fine_nx' else 'j0'}")
            elif name == "fine_origin":
                x, y = given + names.index("fine_sx"), given + names.index("fine_sy")
                steps = f"b.i0 * c.arguments[{x}].integer + b.j0 * c.arguments[{y}].integer"
                words.append(f"c.arguments[{a}].integer + 2 * ({steps})")
            else:
                words.append(f"c.arguments[{a}].{'real' if c_type == 'float' else 'integer'}")
        call = f"{signature.name}({', '.join(words)});"
        if signature.kind == "entry":
            ends = "first = c.starts[i * c.rows + b.j0], last = c.starts[i * c.rows + b.j1]"
            call = f"for (int i = b.i0; i < b.i1; ++i) {{ const int {ends}; if (last > first) {call} }}"
        elif by_plane:
            call = f"for (int i = b.i0; i < b.i1; ++i) {call}"
        lines.append(f'extern "C" void run_{signature.name}(const Call& c, const Box& b) {{ {call} }}')
    return "\n".join(lines) + "\n"


MOST_ADDRESSES = 4096
_addresses: dict[int, tuple[weakref.ref[NDArray[Any]], int]] = {}


def address(array: NDArray[Any]) -> int:
    """Where an array's numbers lie; remembered, since NumPy takes longer to say so than a launch does."""
    known = _addresses.get(id(array))
    if known is not None and known[0]() is array:
        return known[1]
    if len(_addresses) >= MOST_ADDRESSES:
        _addresses.clear()
    place = int(array.__array_interface__["data"][0])
    _addresses[id(array)] = (weakref.ref(array), place)
    return place


@dataclass
class _Users:
    """The largest lag, one more where a plane has to be waited for, of those that used an array so far."""

    written: int = -1  # before somebody else uses the same cell
    read: int = -1  # before somebody overwrites the cell
    read_around: int = -1


def lags(calls: Sequence[Call], addresses: Sequence[Sequence[int]]) -> list[int]:
    """By how many planes each call stays behind the front.

    A call waits one plane longer than an earlier one if it reads at the neighbours what that one wrote, or
    overwrites what that one reads at the neighbours; it keeps pace where both use a cell of their own.
    Coarse planes are finished in pairs of fine ones: whoever shares an array with them waits for the pair.

    Parameters
    ----------
    calls : in order. addresses : those of each call's arrays, in the order of its parameters.
    """
    found: list[int] = []
    arrays: dict[int, _Users] = {}
    for call, places in zip(calls, addresses, strict=True):
        signature, lag = call.signature, 0
        names = [name for c_type, name in signature.parameters if c_type.endswith("*")]
        for name, address in zip(names, places, strict=True):
            users = arrays.setdefault(address, _Users())
            near = int(name in signature.around)
            if users.written >= 0:
                lag = max(lag, users.written + near)
            if name not in signature.constant:
                lag = max(lag, users.read, users.read_around + 1 if users.read_around >= 0 else 0)
        pair = int(call.ratio == 2)
        for name, address in zip(names, places, strict=True):
            users = arrays[address]
            if name not in signature.constant:
                users.written = max(users.written, lag + pair)
            elif name in signature.around:
                users.read_around = max(users.read_around, lag + pair)
            else:
                users.read = max(users.read, lag + pair)
        found.append(lag)
    return found


_found_lags: dict[tuple[Any, ...], list[int]] = {}


def _lags(calls: Sequence[Call], addresses: Sequence[Sequence[int]]) -> list[int]:
    """`lags`, remembered for programs of the same kernels that share their arrays in the same way."""
    numbers: dict[int, int] = {}
    shared = tuple(numbers.setdefault(place, len(numbers)) for places in addresses for place in places)
    key = (tuple((call.signature.name, call.ratio) for call in calls), shared)
    if key not in _found_lags:
        _found_lags[key] = lags(calls, addresses)
    return _found_lags[key]


class CpuProgram:
    """Calls made ready for `run_program`.

    Parameters
    ----------
    library : the compiled kernels.
    calls : in order; all work on one grid, or on planes of one twice as coarse (`ratio` 2).
    """

    def __init__(self, library: ctypes.CDLL, calls: Sequence[Call], threads: int) -> None:
        self._run = library.run_program
        n = len(calls)
        arguments: list[int] = []
        begins: list[int] = []
        entries: list[tuple[int, ...]] = []
        extents = [call.extent for call in calls if call.ratio == 1 and call.signature.has_grid]
        planes, rows, length = (max(extent[axis] for extent in extents) for axis in range(3))
        self._kept = calls
        addresses: list[list[int]] = []
        for call in calls:
            begins.append(len(arguments))
            mine = []
            for value in call.arguments:
                if value.ndim:
                    mine.append(address(value))
                    arguments.append(mine[-1])
                else:
                    arguments.append(int.from_bytes(value.tobytes(), sys.byteorder))
            addresses.append(mine)
            starts = 0 if call.starts is None else address(call.starts)
            run = _function_address(library, call.signature.name)
            entries.append((run, 0, starts, *call.box, 0, call.ratio))
        table = np.array(entries, CALL)
        self._arguments = np.array(arguments, dtype="u8")
        table["arguments"] = self._arguments.ctypes.data + 8 * np.array(begins, dtype="u8")
        self._table = table
        if planes * rows * length > CACHED_CELLS:
            table["lag"] = _lags(calls, addresses)
            tile = (TILE_PLANES, max(1, TILE_CELLS // length))
            # a thread's rows have to be more than what the last call stays behind
            threads = max(1, min(threads, rows // (2 * int(table["lag"].max()) + 2)))
        else:
            tile, threads = (planes, rows), 1
        self.tile, self.threads = tile, threads
        self._ready = (table.ctypes.data, n, planes, rows, *tile, threads)

    def __call__(self) -> None:
        self._run(*self._ready)


def _function_address(library: ctypes.CDLL, name: str) -> int:
    addresses: dict[str, int] = library.__dict__.setdefault("_run_addresses", {})
    if name not in addresses:
        function = getattr(library, f"run_{name}")
        addresses[name] = ctypes.cast(function, ctypes.c_void_p).value or 0
    return addresses[name]


def declare(library: ctypes.CDLL) -> None:
    """Types of `run_program`."""
    library.run_program.restype = None
    library.run_program.argtypes = [ctypes.c_void_p, *[ctypes.c_int] * 6]
