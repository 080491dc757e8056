"""Watching a run: what a callback is told after every time step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where the run stands: times [s], hottest tissue [°C], power [W], cells × evaluations per second."""

    time: float
    duration: float
    hottest_temperature: float
    power: float
    cell_updates_per_second: float


Callback = Callable[[Progress], None]
