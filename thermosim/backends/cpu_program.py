"""Programs on the CPU: lists of kernels that run slab by slab, so that fields pass through memory once.

A kernel that reads its neighbours has to stay a plane behind the one that writes them, and one that
overwrites a field behind those that still read it. `lags` finds by how much from the parameters' types
and the mark AROUND in the sources; `kernels/cpu_program.h` runs the slabs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thermosim.backends.base import Call, KernelSignature

CALL = np.dtype(
    [
        ("run", "u8"),
        ("arguments", "u8"),
        ("starts", "u8"),
        ("lists", "u8"),
        ("planes", "i4"),
        ("lag", "i4"),
        ("ratio", "i4"),
        ("unused", "i4"),
    ]
)
"""`Call` of kernels/cpu_program.h."""

SLAB_CELLS = 131_072
"""Cells of a slab: enough work for two threads, and a dozen fields of some slabs fit into the last cache."""

CACHED_CELLS = 400_000
"""A grid of at most so many cells is one slab: all of its fields fit into the last cache."""


def run_functions(signatures: Iterable[KernelSignature]) -> str:
    """C++ that takes a kernel's arguments from a list and shifts them to a slab of planes.

    Kernels that leave several values per row have no such function: their rows are numbered by the grid.
    """
    lines = ['#include "cpu_program.h"']
    for signature in signatures:
        if signature.kind == "row" and signature.several_values:
            continue
        names = [name for _, name in signature.parameters]
        given = 0
        words = []
        if signature.has_grid:
            given = 6
            words = ["last - first", *(f"c.arguments[{a}].integer" for a in range(1, 5))]
            words.append("c.arguments[5].integer + first * c.arguments[3].integer")
        for place, (c_type, name) in enumerate(signature.parameters):
            a = given + place
            if c_type.endswith("*"):
                base = c_type.removesuffix("*")
                if name == "rows":
                    words.append(f"({base}*)c.arguments[{a}].pointer + (long)first * c.arguments[1].integer")
                else:
                    words.append(f"c.entries<{base}>({a}, first)")
            elif name == "n" and signature.kind == "entry":
                words.append("c.starts[last] - c.starts[first]")
            elif name == "fine_nx":  # of which the slab sees the rest
                words.append(f"c.arguments[{a}].integer - 2 * first")
            elif name == "fine_origin":
                step = given + names.index("fine_sx")
                words.append(f"c.arguments[{a}].integer + 2 * first * c.arguments[{step}].integer")
            else:
                words.append(f"c.arguments[{a}].{'real' if c_type == 'float' else 'integer'}")
        lines.append(
            f'extern "C" void run_{signature.name}(const Call& c, int first, int last) '
            f"{{ {signature.name}({', '.join(words)}); }}"
        )
    return "\n".join(lines) + "\n"


def _address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


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


class CpuProgram:
    """Calls made ready for `run_program`.

    Parameters
    ----------
    library : the compiled kernels.
    calls : in order; all work on one grid, or on planes of one twice as coarse (`ratio` 2).
    """

    def __init__(self, library: ctypes.CDLL, calls: Sequence[Call]) -> None:
        self._run = library.run_program
        n = len(calls)
        table = np.zeros(n, CALL)
        arguments: list[int] = []
        begins = []
        self.planes = max(call.planes for call in calls if call.ratio == 1)
        self._kept = calls
        addresses: list[list[int]] = []
        for place, call in enumerate(calls):
            begins.append(len(arguments))
            row = table[place]
            row["run"] = _function_address(library, call.signature.name)
            row["planes"], row["ratio"] = call.planes, call.ratio
            lists, mine = 0, []
            for a, value in enumerate(call.arguments):
                if value.ndim:
                    mine.append(_address(value))
                    arguments.append(mine[-1])
                    if call.starts is not None and value.size == call.starts[-1]:
                        lists |= 1 << a
                else:
                    arguments.append(int(value.view("u4")))
            row["lists"] = lists
            addresses.append(mine)
            if call.starts is not None:
                row["starts"] = _address(call.starts)
        self._arguments = np.array(arguments, dtype="u8")
        table["arguments"] = self._arguments.ctypes.data + 8 * np.array(begins, dtype="u8")
        self._table = table
        self._done = np.empty(n, "i4")
        cells = max((call.extent[1] * call.extent[2] for call in calls if call.signature.has_grid), default=1)
        whole = self.planes * cells <= CACHED_CELLS
        self._width = self.planes if whole else max(1, -(-SLAB_CELLS // cells))
        if not whole:
            table["lag"] = lags(calls, addresses)
        self._ready = (table.ctypes.data, n, self.planes, self._width, self._done.ctypes.data)

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
    library.run_program.argtypes = [
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_void_p,
    ]
