"""Tissue far from the needles: without conduction, and brought up to date only when somebody looks.

Beyond a window around the needles (`Bioheat.window`) conduction is left out, and nothing there is hot enough
to change perfusion or to boil, so that each cell obeys

    ρc du/dt = p(t) q + q_m + W (T_a − u)

by itself, with the power p(t) that scales the heat source q. With a = W/(ρc) this is solved exactly over any
time Δ, however p moves:

    u ← e^{−aΔ} u + (F/ρc) q + (q_m + W T_a)/ρc · (1 − e^{−aΔ})/a,   F = ∫ p(s) e^{−a (t − s)} ds,

and F of each kind of tissue is all that must be kept while time goes on. Heat leaves the window over links to
tissue a few millimetres beyond its rim (`physics.wall_links.RimLinks`) and is booked as carried away by blood
there: beyond the rim it warms nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermosim.backends.base import Array
from thermosim.numerics.window import Side, Window
from thermosim.physics.bioheat import Bioheat
from thermosim.physics.damage import DamageModels, DamageState
from thermosim.physics.electric_potential import ElectricPotential

MARGIN = 12e-3
"""A window begins so far beyond the bare metal of the needles [m]."""

GROWTH = 8e-3
"""By how much it grows on a side [m]."""

LARGEST_LAG = 0.4
"""How far the temperature beyond the window may have gone [K] before it is looked at: σ changes by 0.6 % on
the way, of the tissue that a quarter of the current's heat falls on."""

LONGEST_LAG = 60.0
"""It is looked at after so many seconds at the latest: death is summed up at the temperature halfway."""

WARMEST = 5.0
"""Where tissue beyond the window is warmer or colder by more than this [K], the window grows on all sides:
at 42 °C nothing dies in a quarter of an hour, and k and W are still those of 37 °C."""


class FarField:
    """The cells beyond the window of a heat equation.

    Their temperature is kept in `Bioheat.boiling_temperature`, which nobody exchanges or overwrites there;
    the enthalpy's field shows it after `bring_up_to_date` until the next step.
    """

    def __init__(self, bioheat: Bioheat, models: DamageModels, damage: DamageState) -> None:
        self.backend, self.bioheat = bioheat.backend, bioheat
        self._models, self._damage = models, damage
        law = bioheat.law
        self._capacity = law.capacity.astype(float)
        self._inverse_capacity = law.inverse_capacity.astype(float)
        self._rate = law.perfusion * self._inverse_capacity  # a [1/s]
        self._metabolic = law.metabolic.astype(float)
        arterial = law.perfusion.astype(float) * (law.arterial - law.reference)
        self._rest = (self._metabolic + arterial) * self._inverse_capacity  # [K/s]
        self.elapsed = 0.0  # time [s] since the far field was brought up to date
        self.energy = 0.0  # ∫ p dt since then [s]
        self.response: NDArray[np.float64] = np.zeros(len(self._rate))  # F [s]
        self.lag = 0.0  # estimated change of the fastest cell since then [K]
        self.speed = 0.0  # of the fastest cell in the time before that [K/s]
        self.power = 0.0  # mean p in that time
        self.fastest = 0.0  # largest q/(ρc) [K/s]
        self.is_too_warm = False
        self.drift = (0.0, 0.0)  # see `ElectricPotential.drift`

    @property
    def window(self) -> Window:
        return self.bioheat.window

    @property
    def temperature(self) -> Array:
        """Of the cells beyond the window when they were last brought up to date, from the reference [K]."""
        return self.bioheat.boiling_temperature

    def pass_time(self, power: float, step: float) -> None:
        """Go on by `step` seconds with the heat source scaled by `power`."""
        if self.window.is_whole:
            return
        self.response *= np.exp(-self._rate * step)
        self.response += power * self._integral(step)
        self.energy += power * step
        self.elapsed += step
        self.lag += step * (self.speed + self.fastest * abs(power - self.power))

    def _integral(self, seconds: float) -> NDArray[np.float64]:
        """(1 − e^{−aΔ})/a [s]."""
        rate = np.where(self._rate > 0.0, self._rate, 1.0)
        return np.where(self._rate > 0.0, -np.expm1(-rate * seconds) / rate, seconds)

    def _solution(self, seconds: float, response: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """u after so many seconds is decay · u + gain · q + offset; these, by label."""
        decay = np.exp(-self._rate * seconds)
        return decay, response * self._inverse_capacity, self._rest * self._integral(seconds)

    def lead_rim(self, heat: Array, power: float, step: float) -> None:
        """Give the heat equation the temperatures beyond the rim of the middle of the coming step."""
        if not self.window.is_whole:
            half = 0.5 * step
            response = self.response * np.exp(-self._rate * half) + power * self._integral(half)
            self.bioheat.set_rim_temperatures(heat, self._solution(self.elapsed + half, response))

    @property
    def is_due(self) -> bool:
        """Whether the far field has gone so far ahead that it should be looked at."""
        return self.lag > LARGEST_LAG or self.elapsed > LONGEST_LAG

    def bring_up_to_date(self, enthalpy: Array, heat: Array) -> float:
        """Advance the far field to this moment; returns the heat [J] that blood has carried away there.

        Must precede every change of the heat source, and all use of temperature beyond the window, for which
        `enthalpy` is filled in.
        """
        if self.elapsed == 0.0:
            return 0.0
        backend, labels, stored, n = self.backend, self.bioheat.labels, self.temperature, len(self._rate)
        tables = (
            *self._solution(self.elapsed, self.response),
            self._capacity,
            self._metabolic * self.elapsed,
        )
        on_device = [backend.asarray(table, "float32") for table in tables]
        found: list[Array] = []
        for part in self.window.outside:
            arguments = (stored, heat, labels, *on_device, np.float32(self.energy), enthalpy)
            rows = backend.on_rows("advance_without_conduction", part, 2, *arguments)
            found += (backend.sums(rows[:1]), backend.maxima(rows[1:]))
            found.append(
                self._models.advance_and_go_on(self._damage, stored, enthalpy, self.elapsed, False, part)
            )
        of_parts = np.reshape(backend.fetch(*found), (-1, 3))
        carried, (largest, fastest) = float(of_parts[:, 0].sum()), of_parts[:, 1:].max(axis=0).tolist()
        self._copy(enthalpy, stored)
        self.speed, self.power = fastest / self.elapsed, self.energy / self.elapsed
        self.is_too_warm = largest > WARMEST
        self.elapsed = self.energy = self.lag = 0.0
        self.response = np.zeros(n)
        return self.bioheat.spacing**3 * carried

    def _copy(self, source: Array, target: Array) -> None:
        """Beyond the window."""
        for part in self.window.outside:
            self.backend.on_cells("scale_add", part, np.float32(1), source, np.float32(0), target)

    def show(self, enthalpy: Array) -> None:
        """Fill in the far field as it was when it was last brought up to date."""
        self._copy(self.temperature, enthalpy)

    def take(self, enthalpy: Array) -> None:
        """Take the far field over from a field that shows it."""
        self._copy(enthalpy, self.temperature)

    # ------------------------------------------------------------------ σ beyond the window

    def weigh(self, potential: ElectricPotential, heat: Array) -> None:
        """How σ beyond the window has changed since the last solve, and how fast `heat` warms there."""
        parts = self.window.outside
        self.drift = (0.0, 0.0)
        if parts:
            sums = [potential.drift_sums(self.temperature, heat, 1.0, 0.0, part) for part in parts]
            total, rising, _ = np.sum(self.backend.fetch(*sums), axis=0).tolist()
            self.drift = (total, rising)
            self.fastest = self.bioheat.fastest_heating(heat, parts)

    def conductances_are_new(self) -> None:
        """σ was found from the temperature of this moment."""
        self.drift = (self.drift[0], self.drift[0])

    # ------------------------------------------------------------------ the window

    def widen(self, sides: tuple[Side, ...], enthalpy: Array, enthalpy_before: Array) -> None:
        """Let the window grow on some sides. The far field must be up to date.

        The cells that join have not changed in the step before, as far as `enthalpy_before` tells.
        """
        self._copy(enthalpy, enthalpy_before)
        cells = max(1, round(GROWTH / self.bioheat.spacing))
        self.bioheat.set_window(self.window.grown(cells, sides))
        self.is_too_warm = False

    # ------------------------------------------------------------------ checkpoints

    _PLAIN = ("elapsed", "energy", "lag", "speed", "power", "fastest", "is_too_warm", "drift")

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, the fields apart."""
        window = self.window
        plain = {name: getattr(self, name) for name in self._PLAIN}
        return {**plain, "response": self.response.tolist(), "window": [window.lower, window.upper]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint; `take` puts the field back."""
        for name in self._PLAIN:
            setattr(self, name, state[name])
        total, rising = state["drift"]
        self.drift = (float(total), float(rising))
        self.response = np.asarray(state["response"], dtype=np.float64)
        lower, upper = (tuple(int(n) for n in place) for place in state["window"])
        self.bioheat.set_window(Window(self.window.grid, lower, upper))  # type: ignore[arg-type]
