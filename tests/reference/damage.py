"""The three models of death, integrated over a temperature history to tight tolerances."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from scipy.integrate import solve_ivp

from thermosim.config import DamageConfig
from thermosim.tissue import laws

TOLERANCE = 1e-10


def integrate(
    history: Callable[[float], float],
    duration: float,
    constants: DamageConfig | None = None,
    breaks: Sequence[float] = (),
) -> dict[str, float]:
    """Ω [-], CEM43 [min], alive and dead fraction [-] at the end of a temperature history.

    dΩ/dt = A exp(−E_a/(R T)) (Henriques & Moritz 1947), dD/dt = R^(43 − T) / 60 with t in s
    (Sapareto & Dewey 1984), alive ⇄ vulnerable → dead (O'Neill et al. 2011).

    Parameters
    ----------
    history : T(t) [°C], t [s]. duration : [s]. constants : None for the shipped liver.
    breaks : times [s] where T(t) has a kink or a jump; the integration restarts there.
    """
    given = constants or DamageConfig()

    def rates(time: float, state: np.ndarray) -> list[float]:
        temperature = history(time)
        alive, dead = laws.three_state_rates(
            temperature,
            state[2],
            state[3],
            given.three_state_forward,
            given.three_state_scale,
            given.three_state_backward,
        )
        damage = laws.arrhenius_rate(temperature, given.frequency_factor, given.activation_energy)
        return [float(damage), float(laws.thermal_dose_rate(temperature)) / 60.0, float(alive), float(dead)]

    state = np.array([0.0, 0.0, given.three_state_initial_alive, 0.0])
    marks = [0.0, *sorted(b for b in breaks if 0.0 < b < duration), duration]
    for start, end in pairwise(marks):
        # a jump belongs to the later part: stay a hair inside this one
        inner = (start, end)
        solution = solve_ivp(
            lambda t, y, low=start, high=end: rates(min(max(t, low + 1e-12), high - 1e-12), y),
            inner,
            state,
            method="DOP853",
            rtol=TOLERANCE,
            atol=1e-14,
            max_step=(end - start) / 20.0,
        )
        if not solution.success:
            raise RuntimeError(solution.message)
        state = solution.y[:, -1]
    return {
        "damage_integral": float(state[0]),
        "thermal_dose": float(state[1]),
        "alive": float(state[2]),
        "dead_fraction": float(state[3]),
    }
