"""What a quantity will be in the middle of the coming step, from what it was at the last ones."""

from __future__ import annotations

from dataclasses import dataclass

LARGEST_GROWTH = 2.0
"""The slope may be so many times the one before; one that grows faster is taken for a jump."""


@dataclass
class LimitedSlope:
    """The slope of a quantity that is read now and then, and that may jump.

    The slope of the last interval, limited by that of the one before: zero where they differ in sign, at most
    `LARGEST_GROWTH` times as steep (a limiter of the kind reviewed by Roe 1986, Annu Rev Fluid Mech 18:337,
    doi:10.1146/annurev.fl.18.010186.002005). Where the quantity is smooth it is the plain difference, and a
    value extrapolated by it is of second order; a jump is not carried on.

    Examples
    --------
    >>> trend = LimitedSlope()
    >>> for time, value in enumerate((1.0, 2.0, 3.5, 40.0, 39.0)):
    ...     trend.see(float(time), value)
    ...     print(trend.slope)
    0.0
    1.0
    1.5
    3.0
    0.0
    """

    time: float | None = None
    value: float = 0.0
    last: float | None = None
    slope: float = 0.0

    def see(self, time: float, value: float) -> None:
        """The quantity is `value` at `time`, later than all times before."""
        if self.time is not None and time > self.time:
            newest = (value - self.value) / (time - self.time)
            if self.last is None:
                self.slope = newest
            elif newest * self.last > 0.0:
                self.slope = min(newest, LARGEST_GROWTH * self.last, key=abs)
            else:
                self.slope = 0.0
            self.last = newest
        self.time, self.value = time, value

    def forget(self) -> None:
        """What comes has nothing to do with what was."""
        self.time, self.last, self.slope = None, None, 0.0
