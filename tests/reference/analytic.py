"""Closed forms that the solvers are measured against. SI units, temperatures as rises where said so."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import quad
from scipy.special import erfc, i0, i1, k0, k1

Real = NDArray[np.float64]

# ---------------------------------------------------------------------------- sphere electrode


def sphere_potential(distance: ArrayLike, radius: float, voltage: float, ground: float = math.inf) -> Real:
    """φ(r) [V] around a sphere of `radius` a at `voltage` V, zero at the distance `ground` b.

    φ = V (1/r − 1/b)/(1/a − 1/b); V a/r in infinite tissue (Jackson 1999, Classical
    Electrodynamics, §1.7, by the analogy of σ with ε).
    """
    r = np.asarray(distance, dtype=np.float64)
    return np.asarray(voltage * (1.0 / r - 1.0 / ground) / (1.0 / radius - 1.0 / ground))


def sphere_resistance(radius: float, sigma: float, ground: float = math.inf) -> float:
    """R = (1/a − 1/b)/(4π σ) [Ω]; 1/(4π σ a) in infinite tissue."""
    return (1.0 / radius - 1.0 / ground) / (4.0 * math.pi * sigma)


def sphere_heating(
    distance: ArrayLike, radius: float, voltage: float, sigma: float, ground: float = math.inf
) -> Real:
    """q(r) = σ (dφ/dr)² = σ V² / (r⁴ (1/a − 1/b)²) [W/m³]."""
    r = np.asarray(distance, dtype=np.float64)
    return np.asarray(sigma * (voltage / (1.0 / radius - 1.0 / ground)) ** 2 / r**4)


# ---------------------------------------------------------------------------- steady heat


def point_source_rise(distance: ArrayLike, power: float, conductivity: float, perfusion: float) -> Real:
    """Steady rise above arterial temperature [K] around a point source in perfused tissue.

    θ(r) = P/(4π k r) exp(−r √(W/k)): the screened Poisson equation k∇²θ − Wθ + P δ(r) = 0
    (Carslaw & Jaeger 1959, Conduction of Heat in Solids, §10.4 for W = 0).

    Parameters
    ----------
    distance : r [m]. power : P [W]. conductivity : k [W/(m K)]. perfusion : W [W/(m³ K)].
    """
    r = np.asarray(distance, dtype=np.float64)
    return np.asarray(
        power / (4.0 * math.pi * conductivity * r) * np.exp(-r * math.sqrt(perfusion / conductivity))
    )


def slab_temperature(
    position: ArrayLike, length: float, left: float, right: float, k_left: float, k_right: float, joint: float
) -> Real:
    """Steady T(x) [°C] of two materials in series between walls at `left` and `right`.

    The flux is one: Q = (T_l − T_r)/(x_j/k_l + (L − x_j)/k_r) (Carslaw & Jaeger 1959, §3.2).
    """
    x = np.asarray(position, dtype=np.float64)
    flux = (left - right) / (joint / k_left + (length - joint) / k_right)
    return np.asarray(np.where(x <= joint, left - flux * x / k_left, right + flux * (length - x) / k_right))


def slab_source_rise(
    position: ArrayLike, length: float, source: float, conductivity: float, perfusion: float
) -> Real:
    """Steady rise [K] of a slab with a uniform source q, its faces at arterial temperature.

    θ = (q/W) (1 − cosh(m (x − L/2))/cosh(m L/2)), m = √(W/k); the parabola q x (L − x)/(2k) for W = 0.
    """
    x = np.asarray(position, dtype=np.float64)
    if perfusion == 0.0:
        return np.asarray(source * x * (length - x) / (2.0 * conductivity))
    m = math.sqrt(perfusion / conductivity)
    return np.asarray(
        source / perfusion * (1.0 - np.cosh(m * (x - 0.5 * length)) / math.cosh(0.5 * m * length))
    )


def coaxial_resistance(radius: float, outer: float, length: float, sigma: float) -> float:
    """R = ln(b/a)/(2π σ L) [Ω] between a needle of radius a and a coaxial cylinder of radius b."""
    return math.log(outer / radius) / (2.0 * math.pi * sigma * length)


def cooled_needle_rise(
    distance: ArrayLike,
    radius: float,
    outer: float,
    line_heating: float,
    conductivity: float,
    perfusion: float,
    film: float,
    coolant_rise: float,
) -> Real:
    """Steady rise above arterial temperature [K] beside a long cooled needle that drives a radial current.

    θ'' + θ'/r − m² θ = −A/(k r²), m² = W/k, because q = σ (dφ/dr)² = A/r² with A = σ V²/ln²(b/a);
    k θ'(a) = h (θ(a) − θ_c) at the wall, θ(b) = 0. With the modified Bessel functions as solutions of the
    homogeneous equation (Wronskian 1/r) and variation of parameters

    θ = α I₀(m r) + β K₀(m r) − (A/k) ∫_a^r [I₀(m r) K₀(m s) − K₀(m r) I₀(m s)] ds/s.

    The steady state of the problem of López Molina, Rivera & Berjano 2012, Math Probl Eng 2012:834807,
    doi:10.1155/2012/834807, who prescribe the wall's temperature (h → ∞) and let b → ∞.

    Parameters
    ----------
    distance : r from the axis [m]. radius, outer : a, b [m]. line_heating : A [W/m].
    conductivity : k [W/(m K)]. perfusion : W [W/(m³ K)]. film : h [W/(m² K)]. coolant_rise : θ_c [K].
    """
    m = math.sqrt(perfusion / conductivity)

    def forced(r: float) -> float:
        value, _ = quad(lambda s: (i0(m * r) * k0(m * s) - k0(m * r) * i0(m * s)) / s, radius, r, epsabs=0.0)
        return float(-line_heating / conductivity * value)

    wall = [
        conductivity * m * i1(m * radius) - film * i0(m * radius),
        -conductivity * m * k1(m * radius) - film * k0(m * radius),
    ]
    matrix = np.array([wall, [i0(m * outer), k0(m * outer)]])
    grown, fading = np.linalg.solve(matrix, [-film * coolant_rise, -forced(outer)])
    r = np.asarray(distance, dtype=np.float64)
    extra = np.array([forced(float(v)) for v in r.ravel()]).reshape(r.shape)
    return np.asarray(grown * i0(m * r) + fading * k0(m * r) + extra)


# ---------------------------------------------------------------------------- transient heat


def heat_kernel(position: ArrayLike, source: float, time: float, length: float, diffusivity: float) -> Real:
    """Green's function [1/m] of heat on 0 < x < L between cold ends, by images.

    Reflected with alternating sign, a source between cold ends is a periodic array of period 2L, so that
    G = Σ_n [g(x − s + 2nL) − g(x + s + 2nL)], g(x) = exp(−x²/(4αt))/√(4παt): the difference of two
    Green's functions of the periodic line (Carslaw & Jaeger 1959, §10.10 and §14.3). In three dimensions
    the product of one for each axis, times exp(−W t/(ρc)) for perfusion (Gao, Langer & Corry 1995,
    Int J Hyperthermia 11:267).
    """
    x, width = np.asarray(position, dtype=np.float64), 4.0 * diffusivity * time
    reach = math.ceil(6.5 * math.sqrt(width) / (2.0 * length)) + 1  # e^−42 is nothing
    total = np.zeros_like(x)
    for n in range(-reach, reach + 1):
        total += np.exp(-((x - source + 2 * n * length) ** 2) / width)
        total -= np.exp(-((x + source + 2 * n * length) ** 2) / width)
    return np.asarray(total / math.sqrt(math.pi * width))


def decay_rate(
    modes: tuple[int, ...],
    lengths: tuple[float, ...],
    conductivity: float,
    heat_capacity: float,
    perfusion: float,
) -> float:
    """λ = (k Σ (n π/L)² + W)/(ρc) [1/s] of a product of sines between faces at arterial temperature."""
    wave = sum((n * math.pi / length) ** 2 for n, length in zip(modes, lengths, strict=True))
    return (conductivity * wave + perfusion) / heat_capacity


def sine_decay(
    points: tuple[ArrayLike, ...],
    time: float,
    modes: tuple[int, ...],
    lengths: tuple[float, ...],
    conductivity: float,
    heat_capacity: float,
    perfusion: float,
) -> Real:
    """Rise [K] of Pennes' equation in a box with faces at arterial temperature, in 1, 2 or 3 dimensions.

    θ = Π sin(n_i π x_i/L_i) · exp(−λ t), exact for the initial θ of the same shape
    (separation of variables; Carslaw & Jaeger 1959, §5.5, with W added to the rate).

    Parameters
    ----------
    points : one coordinate array per axis [m], from the box's lower corner; they broadcast.
    """
    product: Real = np.asarray(1.0)
    for x, n, length in zip(points, modes, lengths, strict=True):
        product = product * np.sin(n * math.pi * np.asarray(x, dtype=np.float64) / length)
    return np.asarray(
        product * math.exp(-decay_rate(modes, lengths, conductivity, heat_capacity, perfusion) * time)
    )


def gaussian_blob_rise(
    distance: ArrayLike,
    time: float,
    peak: float,
    width: float,
    conductivity: float,
    heat_capacity: float,
    perfusion: float = 0.0,
) -> Real:
    """Rise [K] in infinite perfused tissue of a Gaussian blob of heat left at t = 0.

    θ(r, 0) = θ₀ exp(−r²/(2 s²)) becomes θ₀ (s²/(s² + 2 α t))^(3/2) exp(−r²/(2 (s² + 2 α t)))
    exp(−W t/(ρc)), α = k/(ρc): the convolution with Green's function of the heat equation
    (Carslaw & Jaeger 1959, §10.2).

    Parameters
    ----------
    distance : r [m]. time : t [s]. peak : θ₀ [K]. width : s [m].
    """
    r = np.asarray(distance, dtype=np.float64)
    spread = width**2 + 2.0 * conductivity / heat_capacity * time
    fading = (width**2 / spread) ** 1.5 * math.exp(-perfusion / heat_capacity * time)
    return np.asarray(peak * fading * np.exp(-(r**2) / (2.0 * spread)))


def continuous_point_source_rise(
    distance: ArrayLike,
    time: float,
    power: float,
    conductivity: float,
    heat_capacity: float,
    perfusion: float = 0.0,
) -> Real:
    """Rise [K] at time t of a point source P switched on at t = 0 in infinite perfused tissue.

    θ = P/(8π k r) [e^(−r√(W/k)) erfc(r/√(4αt) − √(Wt/ρc)) + e^(r√(W/k)) erfc(r/√(4αt) + √(Wt/ρc))],
    the time integral of Green's function (Carslaw & Jaeger 1959, §10.4 for W = 0).
    """
    r = np.asarray(distance, dtype=np.float64)
    m = math.sqrt(perfusion / conductivity)
    near = r / math.sqrt(4.0 * conductivity / heat_capacity * time)
    fade = math.sqrt(perfusion * time / heat_capacity)
    terms = np.exp(-m * r) * erfc(near - fade) + np.exp(m * r) * erfc(near + fade)
    return np.asarray(power / (8.0 * math.pi * conductivity * r) * terms)


# ---------------------------------------------------------------------------- dose


def cem43_constant(temperature: float, seconds: float) -> float:
    """CEM43 [min] of a constant temperature: t/60 · R^(43 − T) (Sapareto & Dewey 1984)."""
    ratio = 0.5 if temperature >= 43.0 else 0.25
    return seconds / 60.0 * ratio ** (43.0 - temperature)


def cem43_ramp(start: float, end: float, seconds: float) -> float:
    """CEM43 [min] of a temperature that runs linearly from `start` to `end` on one side of 43 °C.

    ∫ R^(43 − T(t)) dt = (R^(43 − end) − R^(43 − start)) / (−ln R · dT/dt).
    """
    if (start - 43.0) * (end - 43.0) < 0.0:
        raise ValueError(f"the ramp from {start} to {end} crosses 43; split it there")
    ratio = 0.5 if max(start, end) > 43.0 else 0.25
    slope = (end - start) / seconds
    return (ratio ** (43.0 - end) - ratio ** (43.0 - start)) / (-math.log(ratio) * slope) / 60.0
