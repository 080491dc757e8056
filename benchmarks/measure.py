"""Timed samples and what is said of them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

import numpy as np

from thermosim.backends.base import Array, Backend


@dataclass
class Quantity:
    """One figure of a case: its samples, their unit, and the target it is held against, if any.

    `target` is the bound as text, such as ``<= 12``; it is shown beside the figure and enforced nowhere.
    """

    name: str
    unit: str
    samples: list[float] = field(default_factory=list)
    target: str | None = None

    @property
    def median(self) -> float:
        return median(self.samples)

    @property
    def meets_target(self) -> bool | None:
        """Whether the median keeps to the target; None without one."""
        if self.target is None:
            return None
        sign, bound = self.target.split()
        holds = {"<=": float.__le__, "<": float.__lt__, ">=": float.__ge__, ">": float.__gt__}
        return holds[sign](float(self.median), float(bound))

    def as_dict(self) -> dict[str, Any]:
        found = {"median": self.median, "minimum": min(self.samples), "maximum": max(self.samples)}
        return {**asdict(self), **found, "meets_target": self.meets_target}


@dataclass(frozen=True)
class Setting:
    """How a case is run.

    `size`: cells along an edge of the demo's box of 128 mm; `peers`: ``none``, ``quick`` (long runs are
    measured in part and scaled up) or ``full``; `fine`: whether the finest grids are computed too.
    """

    backend: Backend
    size: int
    repeats: int
    warm_up: int
    peers: str = "none"
    fine: bool = True

    def target(self, bound: str) -> str | None:
        return bound if self.size == FULL_SIZE else None

    @property
    def threads(self) -> int:
        return int(getattr(self.backend, "threads", 1))


FULL_SIZE = 128
"""Cells along an edge of the demo; targets hold for this size only."""


@dataclass
class Report:
    """Quantities of a case, and details that are no samples (`rows`: the lines of its table)."""

    quantities: list[Quantity]
    details: dict[str, Any] = field(default_factory=dict)


def wait_for(backend: Backend, array: Array) -> None:
    """Return when all kernels launched so far are done: a copy to the host comes after them."""
    backend.to_host(array[:1])


def seconds_of(backend: Backend, array: Array, work: Callable[[], object]) -> float:
    """Wall time of `work`, kernels included, which leave something in `array`."""
    wait_for(backend, array)
    begun = time.perf_counter()
    work()
    wait_for(backend, array)
    return time.perf_counter() - begun


def wall_seconds(work: Callable[[], object]) -> float:
    """Wall time of `work`, which returns when it is done."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


class PeakGrowth:
    """By how many bytes this process grows at most in the `with` block; None where Linux does not say."""

    bytes: int | None = None

    def __enter__(self) -> PeakGrowth:
        gc.collect()
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
            self._before = self._status("VmRSS")
        except OSError:
            self._before = -1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before >= 0:
            self.bytes = max(0, self._status("VmHWM") - self._before)

    @staticmethod
    def _status(key: str) -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key):
                return 1024 * int(line.split()[1])
        return 0


def held_bytes(*things: object) -> int:
    """Bytes of all NumPy arrays that these objects hold, each memory counted once."""
    found: dict[int, int] = {}
    seen: set[int] = set()
    waiting: list[object] = list(things)
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, np.ndarray):
            whole: Any = thing
            while isinstance(whole.base, np.ndarray):
                whole = whole.base
            found[int(whole.__array_interface__["data"][0])] = whole.nbytes
        elif isinstance(thing, dict):
            waiting += list(thing.values())
        elif isinstance(thing, list | tuple):
            waiting += list(thing)
        elif type(thing).__module__.startswith("thermosim.") and not isinstance(thing, Backend):
            waiting += list(vars(thing).values()) if hasattr(thing, "__dict__") else []
    return sum(found.values())
