"""What was observed of treatments, as residuals of a simulation, split into a fitted and a held-out part."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import TriangleSurface
from thermosim.errors import InputError
from thermosim.outcome.comparison import SIDES, check_overlap
from thermosim.outcome.level_set import LevelSet
from thermosim.outcome.margin import margin_between
from thermosim.outcome.surface import extract_surface, moments, vertex_areas, with_edge_length

Real = NDArray[np.float64]
Bools = NDArray[np.bool_]

MAXIMUM_POINTS = 1500
"""Points of an observed surface at which it is compared."""

LEAST_EDGE = 1.5e-3


@dataclass(frozen=True)
class Prediction:
    """What a simulation says of one treatment: its zone (None: nothing died) and its generator's readings.

    `time` [s], rising; `readings` by quantity at these times, NaN where there are none.
    """

    zone: LevelSet | None
    time: Real
    readings: Mapping[str, Real]


@dataclass(frozen=True)
class ObservedZone:
    """An observed surface, the area that each of its vertices stands for [m²], and which are held out."""

    surface: TriangleSurface
    areas: Real
    held_out: Bools
    volume: float

    @property
    def points(self) -> Real:
        return self.surface.points


@dataclass(frozen=True)
class ObservedLog:
    """Readings `values` of one quantity at `time` [s], averaged over intervals of `interval` [s].

    Those after `held_out_from` [s] are not fitted.
    """

    quantity: str
    time: Real
    values: Real
    interval: float
    held_out_from: float


@dataclass(frozen=True)
class ObservedTreatment:
    """All that was seen of one treatment."""

    name: str
    zone: ObservedZone | None
    logs: tuple[ObservedLog, ...]


@dataclass(frozen=True)
class Weights:
    """Standard deviations of the data, and how far apart readings are independent.

    `zone_sd`, `zone_correlation` [m]; `log_sd` of ln(simulated/measured), `log_correlation` [s].
    """

    zone_sd: float
    zone_correlation: float
    log_sd: float
    log_correlation: float


@dataclass(frozen=True)
class Misfit:
    """How far a simulation is from one part of the data.

    `mean` and `rms`: of the signed distance of the surfaces [m], or of ln(simulated/measured); `n` points
    or intervals, `independent` of them.
    """

    mean: float
    rms: float
    n: int
    independent: float


def octants(names: Sequence[str]) -> NDArray[np.int64]:
    """Signs (n, 3) of the LPS axes of octants such as ``right-anterior-superior``.

    Raises
    ------
    InputError : not one side of each of the three pairs.

    Examples
    --------
    >>> octants(["right-anterior-superior"]).tolist()
    [[-1, -1, 1]]
    """
    signs = []
    for name in names:
        words = name.split("-")
        axes = [[i for i, pair in enumerate(SIDES) if word in pair] for word in words]
        if len(words) != 3 or sorted(axes) != [[0], [1], [2]]:
            raise InputError(
                f"held_out.octants: {name!r} is no octant; use left or right, anterior or posterior, "
                "superior or inferior, joined by hyphens, such as right-anterior-superior"
            )
        sign = [0, 0, 0]
        for word, (axis,) in zip(words, axes, strict=True):
            sign[axis] = 1 if word == SIDES[axis][0] else -1
        signs.append(sign)
    return np.array(signs, dtype=np.int64).reshape(-1, 3)


def observed_zone(level: LevelSet, held: NDArray[np.int64], whole: bool) -> ObservedZone:
    """The surface of an observed zone at evenly spread points; `held` octants, or all of it if `whole`."""
    full = extract_surface(level)
    volume, center, _ = moments(full)
    surface = with_edge_length(full, max(LEAST_EDGE, *level.grid.spacing), MAXIMUM_POINTS)
    side = np.where(surface.points - center > 0, 1, -1)
    inside = (side[:, None, :] == held[None]).all(axis=2).any(axis=1)
    return ObservedZone(surface, vertex_areas(surface), inside | whole, volume)


def observed_log(
    quantity: str, time: Real, values: Real, interval: float, share: float, whole: bool, duration: float
) -> ObservedLog:
    """The readings of one quantity in the `duration` [s] of the treatment.

    The last `share` of their time is held out, or all of it if `whole`.
    """
    good = np.isfinite(values) & (values > 0)
    if not good.any():
        raise InputError(f"the log has no reading of {quantity} above 0; leave it out of log_quantities")
    first, last = time[good][0], time[good][-1]
    good &= (time >= 0.0) & (time <= duration)
    if not good.any():
        raise InputError(
            f"the log's {quantity} from {first:g} to {last:g} s and the treatment of {duration:g} s have no "
            "time in common; its time must count from the treatment's start, in the unit its column names"
        )
    at = time[good]
    split = -math.inf if whole else float(at[0] + (1.0 - share) * (at[-1] - at[0]))
    return ObservedLog(quantity, at, values[good], interval, split if share > 0 or whole else math.inf)


def check_start(treatment: ObservedTreatment, prediction: Prediction) -> None:
    """Refuse data that do not belong to the treatment, at the start of the search.

    Raises
    ------
    InputError : no dead tissue, zones apart, a log of another time.
    """
    if treatment.zone is not None:
        if prediction.zone is None:
            raise InputError(
                f"treatment {treatment.name!r}: at the start of the search no tissue dies, so no zone can be "
                "fitted; check the case, or choose other starts (parameters.NAME.start)"
            )
        predicted = extract_surface(prediction.zone)
        low, high = treatment.zone.points.min(axis=0), treatment.zone.points.max(axis=0)
        check_overlap(predicted, TriangleSurface(np.stack([low, high]), predicted.triangles[:0]))
    for log in treatment.logs:
        if not np.isfinite(_ratios(log, prediction)).any():
            first, last = float(log.time[0]), float(log.time[-1])
            raise InputError(
                f"treatment {treatment.name!r}: the log's {log.quantity} from {first:g} to {last:g} s and "
                f"the simulated one to {float(prediction.time[-1]):g} s have no time in common; check its "
                "time column"
            )


def zone_difference(zone: ObservedZone, prediction: Prediction) -> Real:
    """Signed distance [m] by which the prediction reaches beyond each observed point."""
    return margin_between(zone.points, prediction.zone)


def _ratios(log: ObservedLog, prediction: Prediction) -> Real:
    """ln(simulated / measured) at each reading; NaN where the simulation has none."""
    simulated = np.asarray(prediction.readings[log.quantity], float)
    simulated = np.where(simulated > 0, simulated, np.nan)
    there = np.interp(log.time, prediction.time, np.log(simulated), left=np.nan, right=np.nan)
    return np.asarray(there - np.log(log.values))


def log_difference(log: ObservedLog, prediction: Prediction) -> tuple[Real, Bools]:
    """Mean of ln(simulated / measured) over each interval, 0 where it has none, and which have one."""
    number = _number(log)
    ratio = _ratios(log, prediction)
    good = np.isfinite(ratio)
    n = int(number[-1]) + 1
    count = np.bincount(number[good], minlength=n)
    total = np.bincount(number[good], weights=ratio[good], minlength=n)
    return total / np.maximum(count, 1), count > 0


def _number(log: ObservedLog) -> NDArray[np.int64]:
    """The interval that each reading falls into."""
    return np.asarray((log.time - log.time[0]) / log.interval + 1e-9, dtype=np.int64)


def _held(log: ObservedLog) -> Bools:
    """Which intervals of a log are held out."""
    n = int(_number(log)[-1]) + 1
    middle = log.time[0] + (np.arange(n) + 0.5) * log.interval
    return np.asarray(middle > log.held_out_from)


def residuals(
    treatments: Sequence[ObservedTreatment], predictions: Sequence[Prediction], weights: Weights
) -> Real:
    """Residuals of the fitted part in units of their sd.

    Each point of a surface counts for the area it stands for over the square of the correlation length,
    each interval of a log for its length over the correlation time: Σ r² is then a sum over independent
    readings, however finely they are sampled.
    """
    parts = [np.zeros(0)]
    for treatment, prediction in zip(treatments, predictions, strict=True):
        zone = treatment.zone
        if zone is not None:
            share = np.sqrt(zone.areas[~zone.held_out]) / weights.zone_correlation
            parts.append(share * zone_difference(zone, prediction)[~zone.held_out] / weights.zone_sd)
        for log in treatment.logs:
            difference, _ = log_difference(log, prediction)
            share_of_time = math.sqrt(log.interval / weights.log_correlation)
            parts.append(share_of_time * difference[~_held(log)] / weights.log_sd)
    return np.concatenate(parts)


def n_independent(treatments: Sequence[ObservedTreatment], weights: Weights) -> float:
    """How many independent readings the fitted part stands for."""
    total = 0.0
    for treatment in treatments:
        if treatment.zone is not None:
            total += float(treatment.zone.areas[~treatment.zone.held_out].sum()) / weights.zone_correlation**2
        for log in treatment.logs:
            read = np.bincount(_number(log), minlength=len(_held(log))) > 0
            total += float((read & ~_held(log)).sum()) * log.interval / weights.log_correlation
    return total


def misfits(
    treatment: ObservedTreatment, prediction: Prediction, weights: Weights, held_out: bool
) -> dict[str, Misfit]:
    """How far a prediction is from the fitted or the held-out part, by ``zone`` and quantity of the log."""
    found = {}
    zone = treatment.zone
    if zone is not None and (zone.held_out == held_out).any():
        mine = zone.held_out == held_out
        difference, areas = zone_difference(zone, prediction)[mine], zone.areas[mine]
        independent = float(areas.sum()) / weights.zone_correlation**2
        found["zone"] = _misfit(difference, areas, independent)
    for log in treatment.logs:
        difference, known = log_difference(log, prediction)
        mine = known & (_held(log) == held_out)
        if mine.any():
            independent = float(mine.sum()) * log.interval / weights.log_correlation
            found[log.quantity] = _misfit(difference[mine], np.ones(int(mine.sum())), independent)
    return found


def _misfit(difference: Real, weight: Real, independent: float) -> Misfit:
    mean = float(np.average(difference, weights=weight))
    rms = math.sqrt(float(np.average(difference**2, weights=weight)))
    return Misfit(mean, rms, len(difference), independent)
