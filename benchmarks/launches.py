"""Which kernels run how often and how long, and the memory they have to move.

The bytes of a launch are counted from the kernel's source and the arrays it is given: a field of the
grid counts once if it is read, in as many neighbours as may be, and once if it is written. Tables by
label and lists beside walls are too small to count. Kernels that run as one program on the CPU, tile by
tile, share a cache: there a field counts once for all of them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any

from measure import wait_for

from thermosim.backends.base import Backend, Call, KernelSignature
from thermosim.backends.cpu_program import CpuProgram
from thermosim.resources import kernel_directory


@dataclass(frozen=True)
class Access:
    """Whether a kernel reads and writes the array of one parameter."""

    reads: bool
    writes: bool


@lru_cache(maxsize=256)
def accesses(source: str, name: str) -> dict[str, Access]:
    """Access to each pointer parameter of a kernel.

    A `const` one is read. Another is written, and also read if its entries appear anywhere but on the
    left of a plain assignment, or if another pointer into it is made.
    """
    text = re.sub(r"//[^\n]*", "", (kernel_directory() / f"{source}.cu").read_text())
    match = re.search(rf"^KERNEL {name}\((.*?)\)\s*\{{(.*?)^\}}", text, re.DOTALL | re.MULTILINE)
    if match is None:
        raise LookupError(f"no kernel {name} in {source}.cu")
    body = re.sub(r"\bstore\(\w+ \+", "store(", match.group(2))
    found = {}
    for declared in match.group(1).split(","):
        if "*" not in declared:
            continue
        parameter = declared.split()[-1].lstrip("*")
        if "const" in declared.split():
            found[parameter] = Access(True, False)
        else:
            used = re.search(rf"\b{parameter}(?!\[)\b|\b{parameter}\[[^\]]*\](?!\s*=[^=])", body)
            found[parameter] = Access(used is not None, True)
    return found


def bytes_per_cell(
    signature: KernelSignature, extent: tuple[int, ...], arguments: Sequence[Any]
) -> float | None:
    """Bytes per cell that a launch has to move; None if it also works on fields of another grid."""
    if not signature.has_grid:
        return None
    return _moved([(signature, arguments)], (extent[0], extent[1], extent[2]))


def program_bytes_per_cell(calls: Sequence[Call], shape: tuple[int, int, int]) -> float:
    """The same of a program whose fields pass through memory once, however many of its kernels use them.

    A field counts as read if it is before the program has written it, and once as written.
    """
    on_grid = [c for c in calls if c.signature.has_grid and c.ratio == 1]
    return _moved([(c.signature, c.arguments) for c in on_grid], shape) or 0.0


def _moved(
    launches: Sequence[tuple[KernelSignature, Sequence[Any]]], shape: tuple[int, int, int]
) -> float | None:
    """Bytes per cell of launches that share a cache; None where one works on fields of another grid.

    A launch may work on a part of its fields: then only that is moved.
    """
    size = None
    read: dict[int, int] = {}  # an array given twice is moved once
    written: dict[int, int] = {}
    for signature, arguments in launches:
        kinds, now = accesses(signature.source, signature.name), {}
        for (_, parameter), value in zip(signature.parameters, arguments[6:], strict=True):
            if not value.ndim or value.size < shape[0] * shape[1] * shape[2]:
                continue
            size = value.size if size is None else size
            if value.size != size:
                return None
            place = _address(value)
            if kinds[parameter].reads and place not in written:
                read[place] = value.dtype.itemsize
            if kinds[parameter].writes:
                now[place] = value.dtype.itemsize
        written |= now
    return float(sum(read.values()) + sum(written.values()))


def _address(array: Any) -> int:
    return int(array.ctypes.data) if hasattr(array, "ctypes") else int(array.data.ptr)


COUNTED_CELLS = 2**15
"""Launches on smaller grids are timed, but their bytes are not counted: they live in the cache."""


@dataclass
class KernelTime:
    """All launches of one kernel: how many, seconds, and cells (or entries).

    `bytes`, `counted_cells` and `counted_seconds` are of the launches whose bytes are counted.
    """

    source: str
    launches: int = 0
    seconds: float = 0.0
    cells: int = 0
    bytes: float = 0.0
    counted_cells: int = 0
    counted_seconds: float = 0.0


class LaunchProfile:
    """Times every launch of a backend while the `with` block runs.

    Each launch is waited for; on a GPU that costs some overlap, so whole runs are timed without it.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.kernels: dict[str, KernelTime] = {}
        self._programs: dict[int, tuple[CpuProgram, float]] = {}  # bytes per cell of each

    def __enter__(self) -> LaunchProfile:
        self._launch = self.backend._launch
        self.backend._launch = self._timed  # type: ignore[method-assign]
        profile, self._run = self, CpuProgram.__call__

        def timed(program: CpuProgram) -> None:
            profile._timed_program(program)

        CpuProgram.__call__ = timed  # type: ignore[method-assign]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self.backend._launch  # the class's own comes back
        CpuProgram.__call__ = self._run  # type: ignore[method-assign]

    def _timed_program(self, program: CpuProgram) -> None:
        """A program of the CPU: one line for all its kernels, which share the time."""
        calls = program._kept
        names = list(dict.fromkeys(call.signature.name for call in calls))
        source = calls[-1].signature.source  # faces come first in programs of heat and of potential
        entry = self.kernels.setdefault(" + ".join(names), KernelTime(source))
        begun = time.perf_counter()
        self._run(program)
        taken = time.perf_counter() - begun
        shape = next(call.extent for call in calls if call.signature.has_grid and call.ratio == 1)
        cells = shape[0] * shape[1] * shape[2]
        entry.seconds += taken
        entry.launches += 1
        entry.cells += cells
        if cells >= COUNTED_CELLS:
            if id(program) not in self._programs:
                moved = program_bytes_per_cell(calls, (shape[0], shape[1], shape[2]))
                self._programs[id(program)] = (program, moved)
            entry.bytes += self._programs[id(program)][1] * cells
            entry.counted_cells += cells
            entry.counted_seconds += taken

    def _timed(self, signature: KernelSignature, extent: tuple[int, ...], arguments: Sequence[Any]) -> None:
        cells = 1
        for n in extent:
            cells *= n
        entry = self.kernels.setdefault(signature.name, KernelTime(signature.source))
        begun = time.perf_counter()
        self._launch(signature, extent, arguments)
        if self.backend.name != "cpu":
            wait_for(self.backend, next(a for a in arguments if a.ndim))
        taken = time.perf_counter() - begun
        entry.seconds += taken
        entry.launches += 1
        entry.cells += cells
        moved = bytes_per_cell(signature, extent, arguments) if cells >= COUNTED_CELLS else None
        if moved is not None:
            entry.bytes += moved * cells
            entry.counted_cells += cells
            entry.counted_seconds += taken

    @property
    def seconds(self) -> float:
        """All kernels together."""
        return sum(entry.seconds for entry in self.kernels.values())

    def phases(self) -> dict[str, float]:
        """Seconds by what the kernels are for."""
        names = {"bioheat": "heat", "damage": "damage"}
        found: dict[str, float] = {}
        for entry in self.kernels.values():
            phase = names.get(entry.source, "potential")
            found[phase] = found.get(phase, 0.0) + entry.seconds
        return found

    def table(self) -> list[dict[str, float | str | None]]:
        """One row per kernel, the slowest first."""
        rows: list[dict[str, float | str | None]] = []
        for name, entry in sorted(self.kernels.items(), key=lambda item: -item[1].seconds):
            known = entry.counted_cells > 0
            rows.append(
                {
                    "kernel": name,
                    "launches": entry.launches,
                    "seconds": entry.seconds,
                    "cells_per_second": entry.cells / entry.seconds,
                    "bytes_per_cell": entry.bytes / entry.counted_cells if known else None,
                    "bytes_per_second": entry.bytes / entry.counted_seconds if known else None,
                }
            )
        return rows
