"""RKL2: explicit steps far beyond the explicit limit (Meyer, Balsara & Aslam 2014).

s stages reach (s² + s − 2)/4 explicit steps, second order in time, stable for the real negative
spectrum of diffusion. J Comput Phys 257:594, doi:10.1016/j.jcp.2013.08.021, eq. 16–18.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

SAFETY = 0.95
"""Share of the theoretical stability limit that is used."""


@dataclass(frozen=True)
class Stage:
    """Coefficients of one stage: Y_j = mu Y_{j−1} + nu Y_{j−2} + (1 − mu − nu) Y_0
    + mu_tilde τ L(Y_{j−1}) + gamma_tilde τ L(Y_0)."""

    mu: float
    nu: float
    mu_tilde: float
    gamma_tilde: float


def n_stages(time_step: float, explicit_limit: float) -> int:
    """Fewest stages that are stable for `time_step`, given the limit of the explicit step.

    Examples
    --------
    >>> n_stages(1.0, 2.0), n_stages(2.3, 1.0), n_stages(10.0, 1.0)
    (2, 3, 7)
    """
    ratio = time_step / (SAFETY * explicit_limit)
    return max(2, math.ceil(0.5 * (math.sqrt(9.0 + 16.0 * ratio) - 1.0) - 1e-12))


@lru_cache(maxsize=64)
def stages(s: int) -> tuple[Stage, ...]:
    """Coefficients of all `s` stages, the first with mu = 1 (only `mu_tilde` of it matters)."""

    def b(j: int) -> float:
        return 1.0 / 3.0 if j < 2 else (j * j + j - 2) / (2.0 * j * (j + 1))

    w = 4.0 / (s * s + s - 2)
    result = [Stage(1.0, 0.0, b(1) * w, 0.0)]
    for j in range(2, s + 1):
        mu = (2 * j - 1) / j * b(j) / b(j - 1)
        nu = -(j - 1) / j * b(j) / b(j - 2)
        result.append(Stage(mu, nu, mu * w, -(1.0 - b(j - 1)) * mu * w))
    return tuple(result)
