"""The clock of a treatment: how long the next time step may be."""

from __future__ import annotations

from dataclasses import dataclass

GROWTH = 1.1
"""A step may be so many times as long as the one before: about a tenth of the time since the last jump of the
power, as warming tissue slows down."""


@dataclass
class Clock:
    """Chooses time steps [s] that follow the generator and the fastest change of temperature.

    `maximum_rise` [K] is the largest change of any cell wanted in one step. When the heat source
    jumps, `expect` limits the next step by the rate it causes; afterwards the change seen in each
    step decides.
    """

    maximum_step: float
    maximum_rise: float
    time: float = 0.0
    suggestion: float = float("inf")

    def expect(self, rate: float) -> None:
        """The fastest cell will at first change by `rate` [K/s]."""
        if rate > 0.0:
            self.suggestion = min(self.suggestion, self.maximum_rise / rate)

    def next_step(self, until: float) -> float:
        """Length of the next step, ending at `until` [s] at the latest and in steps of like length."""
        left = until - self.time
        step = min(self.maximum_step, self.suggestion)
        n_steps = max(1, int(-(-left // step))) if step < left else 1
        return left / n_steps

    def learn(self, step: float, change: float) -> None:
        """A step of `step` seconds changed the fastest cell by `change` kelvin.

        A step that was cut short by an event does not hold back the next one.
        """
        allowed = 0.9 * step * self.maximum_rise / change if change > 0.0 else float("inf")
        self.suggestion = min(GROWTH * max(step, self.suggestion), max(allowed, 0.3 * step))
