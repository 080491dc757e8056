"""How far a prediction lies from a published mean, in standard deviations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

PASSES_WITHIN = 1.5
"""A prediction this many SD from the mean counts as met: 87 % of single experiments lie there."""


@dataclass(frozen=True)
class Score:
    """One comparison. `deviation` = (predicted − mean)/SD; `relative_error` = predicted/mean − 1.

    With `at_most` the mean is a bound: below it the deviation is 0.
    """

    mean: float
    sd: float
    predicted: float
    at_most: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sd) and self.sd > 0.0):
            raise ValueError(f"an SD of {self.sd} is no scale for an error; give a positive one")

    @property
    def deviation(self) -> float:
        difference = (self.predicted - self.mean) / self.sd
        return max(difference, 0.0) if self.at_most else difference

    @property
    def relative_error(self) -> float:
        return self.predicted / self.mean - 1.0

    @property
    def passes(self) -> bool:
        """Whether the mean is met within `PASSES_WITHIN` SD; never where there is no number."""
        return math.isfinite(self.predicted) and abs(self.deviation) <= PASSES_WITHIN


@dataclass(frozen=True)
class Summary:
    """Many comparisons together: how many pass, mean |relative error|, mean and RMS deviation [SD]."""

    n: int
    n_passed: int
    mean_absolute_relative_error: float
    mean_deviation: float
    rms_deviation: float

    @property
    def share(self) -> float:
        return self.n_passed / self.n if self.n else math.nan


def summarize(scores: Sequence[Score]) -> Summary:
    """Statistics over scores; those without a finite prediction count as missed and have no error."""
    finite = [score for score in scores if math.isfinite(score.predicted)]
    n = len(finite)

    def mean(values: list[float]) -> float:
        return sum(values) / n if n else math.nan

    return Summary(
        len(scores),
        sum(score.passes for score in scores),
        mean([abs(score.relative_error) for score in finite]),
        mean([score.deviation for score in finite]),
        math.sqrt(mean([score.deviation**2 for score in finite])) if n else math.nan,
    )
