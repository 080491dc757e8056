"""Which kernels run how often and how long, and the memory they have to move.

The bytes of a launch are counted from the kernel's source and the arrays it is given: a field of the
grid counts once if it is read, in as many neighbours as may be, and once if it is written. Tables by
label and lists beside walls are too small to count.
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

from thermosim.backends.base import Backend, KernelSignature, Layout
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
    whole = Layout((extent[0], extent[1], extent[2])).size
    kinds = accesses(signature.source, signature.name)
    touched: dict[tuple[int, bool], int] = {}
    for (_, parameter), value in zip(signature.parameters, arguments[6:], strict=True):
        if not value.ndim or value.size < extent[0] * extent[1] * extent[2]:
            continue
        if value.size != whole:
            return None
        access = kinds[parameter]
        for is_write, happens in ((False, access.reads), (True, access.writes)):
            if happens:  # an array given twice is moved once
                touched[_address(value), is_write] = value.dtype.itemsize
    return float(sum(touched.values()))


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

    def __enter__(self) -> LaunchProfile:
        self._launch = self.backend._launch
        self.backend._launch = self._timed  # type: ignore[method-assign]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self.backend._launch  # the class's own comes back

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
