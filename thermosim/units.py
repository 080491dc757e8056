"""Conversions at the border of the program; inside, everything is SI with temperatures in °C."""

from __future__ import annotations

MILLIMETRE = 1e-3
MINUTE = 60.0
MILLILITRE = 1e-6
ZERO_CELSIUS_IN_KELVIN = 273.15
GAS_CONSTANT = 8.314462618
"""Molar gas constant R [J/(mol K)], exact since the 2019 SI (CODATA 2018)."""


def perfusion_rate_from_ml_per_min_per_kg(value: float, tissue_density: float) -> float:
    """Perfusion ω_b [1/s] from blood flow per tissue mass.

    ω_b = value · ρ / (10⁶ · 60), with `value` in mL/(min kg) and `tissue_density` ρ in kg/m³.

    Examples
    --------
    >>> round(perfusion_rate_from_ml_per_min_per_kg(1000.0, 1079.0), 5)
    0.01798
    """
    return value * tissue_density * 1e-6 / MINUTE


def perfusion_rate_from_ml_per_min_per_100g(value: float, tissue_density: float) -> float:
    """Perfusion ω_b [1/s] from mL/(min 100 g)."""
    return perfusion_rate_from_ml_per_min_per_kg(10.0 * value, tissue_density)


def perfusion_rate_from_mass_rate(value: float, blood_density: float) -> float:
    """Perfusion ω_b [1/s] from a mass rate w [kg/(m³ s)]: ω_b = w / ρ_b."""
    return value / blood_density


def perfusion_rate_from_heat_sink(value: float, blood_density: float, blood_heat: float) -> float:
    """Perfusion ω_b [1/s] from a heat sink W [W/(m³ K)]: ω_b = W / (ρ_b c_b)."""
    return value / (blood_density * blood_heat)
