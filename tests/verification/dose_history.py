"""Dose and damage of prescribed temperatures by the program's own kernel, and their closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.special import exp1

from thermosim.backends.base import Backend, Layout
from thermosim.build import load_case
from thermosim.config import DamageConfig
from thermosim.physics.bioheat import ThermalLaw
from thermosim.physics.damage import DamageModels, DamageState
from thermosim.tissue import laws
from thermosim.units import GAS_CONSTANT, ZERO_CELSIUS_IN_KELVIN


def shipped() -> DamageConfig:
    """The constants of `configs/damage`."""
    return load_case("demo").config.damage


def dose_of_ramp(start: float, rate: float, seconds: float) -> float:
    """CEM43 [min] of T = start + rate t, exact: the integral of R^(43 − T) over each side of 43 °C."""

    def side(low: float, high: float, base: float) -> float:
        """∫ base^(T − 43) dT from low to high."""
        return float((base ** (high - 43.0) - base ** (low - 43.0)) / math.log(base))

    end = start + rate * seconds
    low, high = min(start, end), max(start, end)
    below = side(low, min(high, 43.0), 4.0) if low < 43.0 else 0.0
    above = side(max(low, 43.0), high, 2.0) if high > 43.0 else 0.0
    return (below + above) / abs(rate) / 60.0


def damage_of_ramp(start: float, rate: float, seconds: float, config: DamageConfig) -> float:
    """Ω of T = start + rate t, exact.

    ∫ e^(−θ/T) dT = T e^(−θ/T) − θ E₁(θ/T), θ = E/R, T in kelvin (Abramowitz & Stegun 1964, 5.1.1 by parts).
    """
    theta = config.activation_energy / GAS_CONSTANT

    def antiderivative(celsius: float) -> float:
        kelvin = celsius + ZERO_CELSIUS_IN_KELVIN
        x = theta / kelvin
        return float(
            math.exp(math.log(config.frequency_factor) - x) * kelvin * (1.0 - x * exp1(x) * math.exp(x))
        )

    return (antiderivative(start + rate * seconds) - antiderivative(start)) / rate


def integrate(
    history: Callable[[float], float], seconds: float, n_steps: int, backend: Backend, config: DamageConfig
) -> tuple[float, float]:
    """Ω and CEM43 [min] after a history of temperature [°C], by the kernel in equal steps."""
    layout = Layout((1, 1, 3))
    one, none = np.ones(1, np.float32), np.zeros(1, np.float32)
    law = ThermalLaw(one, one, none, none, none, none, 37.0, 37.0, 200.0, 1.0, 37.0, "none", 0.8)
    models = DamageModels(backend, layout, backend.field(layout, 0, "uint8"), config, law)
    state, step = DamageState.start(backend, layout, config, 37.0), seconds / n_steps
    for number in range(n_steps):
        before, after = (backend.field(layout, history(t * step) - 37.0) for t in (number, number + 1))
        models.advance(state, before, after, step)
    fields = (state.integral, state.dose)
    omega, dose = (float(backend.to_host(layout.interior(f))[0, 0, 0]) for f in fields)
    return omega, dose


def exact(start: float, rate: float, seconds: float, config: DamageConfig) -> tuple[float, float]:
    """Ω and CEM43 [min] of a ramp, or of a constant temperature where `rate` is 0."""
    if rate == 0.0:
        omega = seconds * float(laws.arrhenius_rate(start, config.frequency_factor, config.activation_energy))
        return omega, float(laws.thermal_dose_rate(start)) * seconds / 60.0
    return damage_of_ramp(start, rate, seconds, config), dose_of_ramp(start, rate, seconds)
