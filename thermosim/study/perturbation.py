"""Plans as they may turn out: draws of needle poses, tissue values and output around a case."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from thermosim.config import LayoutConfig, SimulationConfig
from thermosim.config_perturb import SpreadConfig

MEAN_OVER_DEVIATION = 2.0 * math.sqrt(2.0 / math.pi)
"""Mean length of a vector of three normal numbers over their standard deviation (Maxwell)."""


@dataclass(frozen=True)
class Draw:
    """One perturbed case; number 0 is the plan itself.

    `shifts` (n_needles, 3) LPS [mm]; factors on perfusion (all tissues), σ and k (by tissue) and output.
    """

    number: int
    shifts: NDArray[np.float64]
    perfusion: float
    electrical: dict[str, float]
    thermal: dict[str, float]
    output: float


def draw(number: int, seed: int, n_needles: int, spread: SpreadConfig) -> Draw:
    """Draw one case; the same number and seed always give the same, whatever else is drawn.

    Needles are shifted as a whole, by normal errors with the given mean distance in space. Factors are
    log-normal with mean 1 and the given coefficient of variation.

    Examples
    --------
    >>> float(draw(0, 1, 2, SpreadConfig()).shifts.sum())
    0.0
    """
    tissues = spread.tissues
    if number == 0:
        ones = dict.fromkeys(tissues, 1.0)
        return Draw(0, np.zeros((n_needles, 3)), 1.0, ones, dict(ones), 1.0)
    normal = np.random.default_rng((seed, number)).standard_normal
    common = spread.common_error_mm / MEAN_OVER_DEVIATION * normal(3)
    own = spread.targeting_error_mm / MEAN_OVER_DEVIATION * normal((n_needles, 3))
    perfusion, output = (_factor(normal(), cv) for cv in (spread.perfusion_cv, spread.output_cv))
    electrical = {name: _factor(normal(), spread.electrical_conductivity_cv) for name in tissues}
    thermal = {name: _factor(normal(), spread.thermal_conductivity_cv) for name in tissues}
    return Draw(number, common + own, perfusion, electrical, thermal, output)


def _factor(normal: float, variation: float) -> float:
    """exp(s z − s²/2), s² = ln(1 + cv²): mean 1, coefficient of variation `variation`."""
    variance = math.log1p(variation**2)
    return math.exp(math.sqrt(variance) * float(normal) - 0.5 * variance)


def perturbed(config: SimulationConfig, layout: LayoutConfig, one: Draw) -> SimulationConfig:
    """The case as it turns out; `layout` is its own, needle by needle in the patient's frame."""
    needles = []
    for needle, shift in zip(layout.needles, one.shifts.tolist(), strict=True):
        target, entry = (
            [a + b for a, b in zip(point, shift, strict=True)]
            for point in (needle.target_mm, needle.entry_mm)
        )
        needles.append(replace(needle, target_mm=target, entry_mm=entry))
    tissue = deepcopy(config.tissue)
    for name, values in tissue.tissues.items():
        values.perfusion_rate *= one.perfusion
        values.electrical_conductivity *= one.electrical.get(name, 1.0)
        values.thermal_conductivity *= one.thermal.get(name, 1.0)
    protocol = deepcopy(config.protocol)
    # what is set is scaled, whatever the mode is; the device's limits stay
    for holder in (protocol.generator, *protocol.segments):
        for key in ("voltage", "current", "power"):
            value = getattr(holder, key)
            if value is not None:
                setattr(holder, key, one.output * value)
    return replace(config, layout=replace(layout, needles=needles), tissue=tissue, protocol=protocol)


# ---------------------------------------------------------------------------- what they say

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)


@dataclass(frozen=True)
class Probability:
    """Share of cases, and its 95 % interval by Wilson's score (Wilson 1927, J Am Stat Assoc 22:209)."""

    share: float
    low: float
    high: float


def probability(hits: int, n: int) -> Probability:
    """Share of `hits` among `n` cases with its interval.

    Examples
    --------
    >>> p = probability(9, 10)
    >>> p.share, round(p.low, 3), round(p.high, 3)
    (0.9, 0.596, 0.982)
    """
    if n == 0:
        return Probability(math.nan, math.nan, math.nan)
    z, share = 1.959964, hits / n
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Probability(share, max(0.0, center - half), min(1.0, center + half))


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Percentiles of what was found, by name; empty where nothing was."""
    if not len(values):
        return {}
    found = np.percentile(np.asarray(values, dtype=np.float64), PERCENTILES)
    return {str(p): float(v) for p, v in zip(PERCENTILES, found, strict=True)}
