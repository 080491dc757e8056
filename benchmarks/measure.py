"""Timed samples and what is said of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

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
