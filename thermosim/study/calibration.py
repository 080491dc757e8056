"""Unknown numbers fitted to data by least squares, with what the data can tell about them.

Unknowns are x = ln(value), so that they stay positive and a step is a factor. The sum of squares

    S(x) = Σ r_i(x)² + Σ_j ((x_j − m_j) / p_j)²

has residuals r in units of their standard deviations and a normal prior of middle m and sd p for each
unknown. scipy's trust-region reflective least squares keeps bounds; the Jacobian J = ∂r/∂x is by finite
differences, one-sided while searching, central at the end. The posterior covariance is that of the
linearised problem, C = (JᵀJ / s² + diag(p⁻²))⁻¹, where s² ≥ 1 is the residual variance: data that the best
fit misses by more than their standard deviations count for less.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from thermosim.errors import InputError

Real = NDArray[np.float64]
Residuals = Callable[[Real], Real]
"""From values of the unknowns to residuals in units of their standard deviations."""

AT_BOUND = 1e-3
"""An unknown this close to a bound, in ln, lies on it."""

NO_EFFECT = 1e-6
"""A direction whose effect on the residuals is this small against the strongest has none: round-off."""

CONFOUNDED = 0.9
"""Unknowns of which the data tell little but a product or ratio have a larger correlation than this."""


@dataclass(frozen=True)
class Unknown:
    """A positive number to be found: `start` is also the middle of the prior, `prior_sd` that of its ln."""

    name: str
    start: float
    lower: float
    upper: float
    prior_sd: float

    def __post_init__(self) -> None:
        if not (0.0 < self.lower < self.upper and math.isfinite(self.upper)):
            raise InputError(
                f"parameters.{self.name}: bounds {self.lower:g} to {self.upper:g} are refused; they must be "
                "positive, and lower below upper"
            )
        if not self.lower < self.start < self.upper:
            raise InputError(
                f"parameters.{self.name}: its start {self.start:g} must lie between its bounds "
                f"{self.lower:g} and {self.upper:g}; set parameters.{self.name}.start, or other bounds"
            )
        if not (0.0 < self.prior_sd <= 3.0):
            raise InputError(
                f"parameters.{self.name}.prior_sd={self.prior_sd:g} is refused; it is the standard deviation "
                "of the logarithm and must be positive and at most 3 (a factor of 20)"
            )


@dataclass(frozen=True)
class Estimate:
    """What is known of one unknown after the fit.

    `status`: ``fitted``; ``not_told``: the data leave it nearly as unknown as it was, it is kept at its
    start; ``at_bound``: the fit runs into a bound, which says that something else is wrong. `value` at
    which the fit ended; `log_sd` of its ln, `share_of_prior` = log_sd / prior_sd.
    """

    unknown: Unknown
    status: str
    value: float
    log_sd: float
    share_of_prior: float

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval, within the bounds."""
        low, high = (self.value * math.exp(sign * 1.96 * self.log_sd) for sign in (-1.0, 1.0))
        return max(low, self.unknown.lower), min(high, self.unknown.upper)


@dataclass(frozen=True)
class Combination:
    """A direction in the space of ln(value) / prior sd, and how well the data alone know it.

    `weights` of the unknowns, of length 1 as a vector; `share_of_prior`: sd along it over the prior's, inf
    where the data do not feel it at all.
    """

    weights: Real
    share_of_prior: float


@dataclass(frozen=True)
class Calibration:
    """The result: `estimates` in the order of the unknowns, their `correlation` after the fit (n, n).

    `residual_variance` s² of the fitted data (before it is set to at least 1), over `n_independent` readings;
    `condition_number` of the Jacobian in units of the priors' sd, inf where a direction has no effect;
    `combinations` best known first; `n_evaluations` of the residuals; `converged`, or why not in `message`.
    """

    estimates: tuple[Estimate, ...]
    correlation: Real
    residual_variance: float
    n_independent: float
    condition_number: float
    combinations: tuple[Combination, ...]
    n_evaluations: int
    converged: bool
    message: str

    @property
    def values(self) -> Real:
        return np.array([estimate.value for estimate in self.estimates])

    @property
    def confounded(self) -> tuple[tuple[str, str, float], ...]:
        """Pairs of unknowns whose estimates are strongly correlated."""
        names = [estimate.unknown.name for estimate in self.estimates]
        return tuple(
            (names[i], names[j], float(self.correlation[i, j]))
            for i in range(len(names))
            for j in range(i)
            if abs(self.correlation[i, j]) > CONFOUNDED
        )


def calibrate(
    unknowns: Sequence[Unknown],
    residuals: Residuals,
    n_independent: float,
    *,
    step: float = 0.05,
    tolerance: float = 1e-3,
    maximum_iterations: int = 12,
    told_share: float = 0.7,
) -> Calibration:
    """Fit the unknowns, find what the data tell, and fit again without those they do not tell.

    Parameters
    ----------
    residuals : from values to residuals; called again and again, never twice for the same values.
    n_independent : how many independent readings they stand for.
    step : of ln(value) in finite differences. tolerance : relative change of S, or of x, that ends it.
    told_share : an unknown is told by the data if its sd falls below this share of its prior's.

    Notes
    -----
    Unknowns that are not told are put back to their start and the others are fitted again; the uncertainty
    of those stays in the sd of the others.
    """
    if not unknowns:
        raise InputError("there is no parameter to fit; give parameters")
    problem = _Problem(unknowns, residuals, step)
    free = np.ones(len(unknowns), dtype=bool)
    x, converged, message = problem.search(problem.middle, free, tolerance, maximum_iterations)
    while True:
        found = problem.judge(x, n_independent)
        bad = free & (found.log_sd > told_share * problem.prior_sd)
        if not bad.any():
            break
        free &= ~bad
        x = np.where(free, x, problem.middle)
        if free.any():
            x, converged, message = problem.search(x, free, tolerance, maximum_iterations)
    estimates = []
    for j, unknown in enumerate(unknowns):
        share = float(found.log_sd[j] / unknown.prior_sd)
        if not free[j]:
            estimates.append(Estimate(unknown, "not_told", unknown.start, float(found.log_sd[j]), share))
            continue
        edge = min(x[j] - problem.lower[j], problem.upper[j] - x[j]) < AT_BOUND
        value = float(np.clip(np.exp(x[j]), unknown.lower, unknown.upper))
        status = "at_bound" if edge else "fitted"
        estimates.append(Estimate(unknown, status, value, float(found.log_sd[j]), share))
    return Calibration(
        tuple(estimates),
        found.correlation,
        found.variance,
        n_independent,
        found.condition,
        found.combinations,
        problem.n_evaluations,
        converged,
        message,
    )


@dataclass(frozen=True)
class _Judgement:
    log_sd: Real
    correlation: Real
    variance: float
    condition: float
    combinations: tuple[Combination, ...]


class _Problem:
    """Residuals of ln values, remembered, and their derivatives."""

    def __init__(self, unknowns: Sequence[Unknown], residuals: Residuals, step: float) -> None:
        self._residuals, self._step = residuals, step
        self.middle = np.log([unknown.start for unknown in unknowns])
        self.lower = np.log([unknown.lower for unknown in unknowns])
        self.upper = np.log([unknown.upper for unknown in unknowns])
        self.prior_sd = np.array([unknown.prior_sd for unknown in unknowns])
        self._known: dict[bytes, Real] = {}

    @property
    def n_evaluations(self) -> int:
        return len(self._known)

    def data(self, x: Real) -> Real:
        key = np.round(x, 12).tobytes()
        if key not in self._known:
            self._known[key] = np.asarray(self._residuals(np.exp(np.clip(x, self.lower, self.upper))), float)
        return self._known[key]

    def jacobian(self, x: Real, free: NDArray[np.bool_], central: bool) -> Real:
        """∂r/∂x of the free unknowns; one-sided towards the inside of the bounds, or central."""
        here, columns = self.data(x), []
        for j in np.flatnonzero(free):
            ends = []
            sides = (1.0, -1.0) if central else (1.0 if x[j] + self._step <= self.upper[j] else -1.0,)
            for side in sides:
                moved = x.copy()
                moved[j] = np.clip(x[j] + side * self._step, self.lower[j], self.upper[j])
                if moved[j] != x[j]:
                    ends.append((float(moved[j]), self.data(moved)))
            if len(ends) == 1:
                ends.append((float(x[j]), here))
            (at, value), (other, base) = ends
            columns.append((value - base) / (at - other))
        return np.column_stack(columns)

    def search(
        self, start: Real, free: NDArray[np.bool_], tolerance: float, iterations: int
    ) -> tuple[Real, bool, str]:
        """Minimise S over the free unknowns."""
        prior = self.prior_sd[free]

        def full(part: Real) -> Real:
            x = start.copy()
            x[free] = part
            return x

        def fun(part: Real) -> Real:
            return np.concatenate([self.data(full(part)), (part - self.middle[free]) / prior])

        def jac(part: Real) -> Real:
            return np.vstack([self.jacobian(full(part), free, central=False), np.diag(1.0 / prior)])

        inside = np.clip(start[free], self.lower[free] + 1e-9, self.upper[free] - 1e-9)
        found = least_squares(
            fun,
            inside,
            jac=jac,
            bounds=(self.lower[free], self.upper[free]),
            x_scale=prior,
            ftol=tolerance,
            xtol=tolerance,
            gtol=1e-8,
            max_nfev=iterations,
        )
        return full(found.x), bool(found.status > 0), str(found.message)

    def judge(self, x: Real, n_independent: float) -> _Judgement:
        """Uncertainty of all unknowns at x, whether they were free or not."""
        n = len(x)
        jacobian = self.jacobian(x, np.ones(n, dtype=bool), central=True)
        squares = float(np.sum(self.data(x) ** 2))
        variance = squares / max(n_independent - n, 1.0)
        scale = max(variance, 1.0)
        information = jacobian.T @ jacobian / scale
        covariance = np.linalg.inv(information + np.diag(self.prior_sd**-2.0))
        sd = np.sqrt(np.diag(covariance))
        squared, directions = np.linalg.eigh(information * np.outer(self.prior_sd, self.prior_sd))
        strengths = np.sqrt(np.maximum(squared, 0.0))[::-1]
        tiny = NO_EFFECT * max(float(strengths[0]), 1e-300)
        weakest = float(strengths[-1])
        return _Judgement(
            sd,
            covariance / np.outer(sd, sd),
            variance,
            float(strengths[0]) / weakest if weakest > tiny else math.inf,
            tuple(
                Combination(direction, float(1.0 / strength) if strength > tiny else math.inf)
                for direction, strength in zip(directions.T[::-1], strengths, strict=True)
            ),
        )
