"""The laws of tissue in NumPy and double precision: what the device functions are compared with.

Temperatures in °C, float64; every function takes arrays or numbers and broadcasts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thermosim.errors import InputError
from thermosim.units import GAS_CONSTANT, ZERO_CELSIUS_IN_KELVIN

Real = NDArray[np.float64]

BODY_TEMPERATURE = 37.0
"""Temperature at which properties are given [°C]."""
THERMAL_LIMIT = 100.0
"""k is constant above this temperature [°C]."""
HOTTEST_DOSE = 130.0
"""Hotter tissue, boiled dry and long dead, gathers thermal dose at the rate of this temperature [°C]."""
LEAST_LINEAR_RATIO = 0.05
"""Floor of 1 + a (T − 37), so that a cold start never makes σ vanish or change sign."""


def electrical_conductivity_ratio(
    temperature: ArrayLike,
    slope: ArrayLike,
    law: str,
    collapse_temperature: float,
    collapse_width: float,
    collapse_factor: float,
) -> Real:
    """σ(T)/σ(37 °C) with the collapse where water turns to vapour.

    With x = a (min(T, T_c) − 37): ``linear`` max(1 + x, 0.05), ``exponential`` e^x, ``constant`` 1;
    times f^s with s = clip((T − T_c)/w, 0, 1), so ln σ falls linearly from T_c to T_c + w: monotone,
    continuous, and never zero.

    Parameters
    ----------
    temperature : T [°C]. slope : a [1/K]. law : ``constant``, ``linear`` or ``exponential``.
    collapse_temperature : T_c [°C]. collapse_width : w [K]. collapse_factor : f [-].

    Raises
    ------
    InputError
        For an unknown law.

    References
    ----------
    a = 0.01-0.02 /K: Rossmann & Haemmerich 2014, Crit Rev Biomed Eng 42:467,
    doi:10.1615/CritRevBiomedEng.2015012486. The collapse is a modelling choice of the field.

    Examples
    --------
    >>> float(electrical_conductivity_ratio(57.0, 0.015, "linear", 100.0, 5.0, 0.01))
    1.3
    """
    T = np.asarray(temperature, dtype=np.float64)
    warm = np.asarray(slope, dtype=np.float64) * (np.minimum(T, collapse_temperature) - BODY_TEMPERATURE)
    if law == "constant":
        base = np.ones_like(warm)
    elif law == "linear":
        base = np.maximum(1.0 + warm, LEAST_LINEAR_RATIO)
    elif law == "exponential":
        base = np.exp(warm)
    else:
        raise InputError(f"tissue.conductivity_law={law!r} is not known; use linear, exponential or constant")
    dry = np.clip((T - collapse_temperature) / collapse_width, 0.0, 1.0)
    return np.asarray(base * collapse_factor**dry)


def thermal_conductivity_ratio(temperature: ArrayLike, slope: ArrayLike) -> Real:
    """k(T)/k(37 °C) = 1 + a (min(T, 100) − 37).

    Examples
    --------
    >>> float(thermal_conductivity_ratio(200.0, 0.001) - thermal_conductivity_ratio(100.0, 0.001))
    0.0
    """
    T = np.minimum(np.asarray(temperature, dtype=np.float64), THERMAL_LIMIT)
    return np.asarray(1.0 + np.asarray(slope, dtype=np.float64) * (T - BODY_TEMPERATURE))


def enthalpy_from_temperature(
    temperature: ArrayLike, boiling: float, width: float, latent: ArrayLike
) -> Real:
    """Enthalpy temperature u of T: ρc (u₂ − u₁) is the heat [J/m³] between two states.

    u = T below T_v; T_v + (T − T_v) (1 + ℓ/w) within w above it; T + ℓ beyond, with
    ℓ = L/(ρc) [K].

    Parameters
    ----------
    temperature : T [°C]. boiling : T_v [°C]. width : w [K], positive. latent : ℓ [K].

    Examples
    --------
    >>> float(enthalpy_from_temperature(100.0, 99.0, 1.0, 445.0))
    545.0
    """
    T = np.asarray(temperature, dtype=np.float64)
    return np.asarray(T + np.asarray(latent) * np.clip((T - boiling) / width, 0.0, 1.0))


def temperature_from_enthalpy(enthalpy: ArrayLike, boiling: float, width: float, latent: ArrayLike) -> Real:
    """Temperature of an enthalpy temperature: the inverse of `enthalpy_from_temperature`.

    Examples
    --------
    >>> float(temperature_from_enthalpy(545.0, 99.0, 1.0, 445.0))
    100.0
    """
    u = np.asarray(enthalpy, dtype=np.float64)
    heat = np.asarray(latent, dtype=np.float64)
    excess = u - boiling
    boils = boiling + excess * (width / (width + heat))
    return np.asarray(np.where(excess <= 0.0, u, np.where(excess < width + heat, boils, u - heat)))


def log_arrhenius_rate(temperature: ArrayLike, frequency_factor: float, activation_energy: float) -> Real:
    """ln(dΩ/dt) = ln A − E_a/(R T), with dΩ/dt in 1/s (Henriques & Moritz 1947, Am J Pathol 23:695).

    Examples
    --------
    >>> round(float(log_arrhenius_rate(50.0, 7.39e39, 2.577e5)), 2)
    -4.11
    """
    kelvin = np.asarray(temperature, dtype=np.float64) + ZERO_CELSIUS_IN_KELVIN
    return np.asarray(np.log(frequency_factor) - activation_energy / (GAS_CONSTANT * kelvin))


def arrhenius_rate(temperature: ArrayLike, frequency_factor: float, activation_energy: float) -> Real:
    """dΩ/dt = A exp(−E_a/(R T)) [1/s]."""
    return np.asarray(np.exp(log_arrhenius_rate(temperature, frequency_factor, activation_energy)))


def thermal_dose_rate(temperature: ArrayLike) -> Real:
    """d(CEM43)/dt = R^(43 − T) [min/min], R = 0.5 from 43 °C on and 0.25 below.

    Tissue hotter than `HOTTEST_DOSE` counts as that: single precision ends near 170 °C.
    Sapareto & Dewey 1984, Int J Radiat Oncol Biol Phys 10:787, doi:10.1016/0360-3016(84)90379-1.

    Examples
    --------
    >>> thermal_dose_rate([42.0, 43.0, 44.0]).tolist()
    [0.25, 1.0, 2.0]
    """
    T = np.minimum(np.asarray(temperature, dtype=np.float64), HOTTEST_DOSE)
    return np.asarray(np.where(T >= 43.0, 2.0, 4.0) ** (T - 43.0))


def three_state_rates(
    temperature: ArrayLike,
    alive: ArrayLike,
    dead: ArrayLike,
    forward: float,
    scale: float,
    backward: float,
) -> tuple[Real, Real]:
    """(dA/dt, dD/dt) [1/s] of alive ⇄ vulnerable → dead.

    With V = 1 − A − D and k_f = k_f0 exp(T/T_k) (1 − A): dA/dt = −k_f A + k_b V, dD/dt = k_f V
    (O'Neill et al. 2011, Ann Biomed Eng 39:570, doi:10.1007/s10439-010-0177-1).

    Parameters
    ----------
    temperature : T [°C]. alive, dead : A, D [-]. forward : k_f0 [1/s]. scale : T_k [°C].
    backward : k_b [1/s].
    """
    A, D = np.asarray(alive, dtype=np.float64), np.asarray(dead, dtype=np.float64)
    rate = forward * np.exp(np.asarray(temperature, dtype=np.float64) / scale) * (1.0 - A)
    vulnerable = 1.0 - A - D
    return np.asarray(-rate * A + backward * vulnerable), np.asarray(rate * vulnerable)


def perfusion_factor(shutdown: str, damage: ArrayLike, threshold: float = 0.8) -> Real:
    """What dying tissue leaves of its perfusion [-].

    ``arrhenius``: exp(−Ω), the share of living tissue; ``viability``: 1 until the dead fraction
    reaches `threshold`, 0 from then on; ``none``: 1.

    Parameters
    ----------
    shutdown : which law. damage : Ω for ``arrhenius``, dead fraction for ``viability``.

    Raises
    ------
    InputError
        For an unknown law.
    """
    value = np.asarray(damage, dtype=np.float64)
    if shutdown == "arrhenius":
        return np.asarray(np.exp(-value))
    if shutdown == "viability":
        return np.asarray(np.where(value < threshold, 1.0, 0.0))
    if shutdown == "none":
        return np.ones_like(value)
    raise InputError(f"damage.perfusion_shutdown={shutdown!r} is not known; use arrhenius, viability or none")
