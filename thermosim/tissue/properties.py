"""Tissue properties by label: the table that every field equation looks up."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import Structure
from thermosim.config import TissueConfig, TissueProperties
from thermosim.errors import InputError

Real = NDArray[np.float64]

PLAUSIBLE: dict[str, tuple[float, float, str, str]] = {
    "density": (50.0, 2.5e4, "kg/m³", "g/cm³ must be multiplied by 1000"),
    "specific_heat_capacity": (50.0, 1e4, "J/(kg K)", "kJ/(kg K) must be multiplied by 1000"),
    "thermal_conductivity": (5e-3, 1e3, "W/(m K)", "mW/(cm K) must be divided by 10"),
    "thermal_conductivity_slope": (-0.01, 0.1, "1/K", "it is relative to the value at 37 °C"),
    "electrical_conductivity": (1e-6, 100.0, "S/m", "mS/cm must be divided by 10"),
    "electrical_conductivity_slope": (-0.01, 0.1, "1/K", "0.015 means 1.5 % per kelvin"),
    "perfusion_rate": (0.0, 0.2, "1/s", "mL/(min kg) must be multiplied by density / 6e7"),
    "metabolic_heat": (0.0, 1e6, "W/m³", "W/kg must be multiplied by the density"),
    "water_fraction": (0.0, 1.0, "kg/kg", "percent must be divided by 100"),
}
"""Least and greatest plausible value, unit, and the unit trap a value outside often comes from."""


@dataclass(frozen=True)
class TissueTable:
    """Properties by label, float64 of shape (n_labels,); zero where a label has no structure.

    Parameters
    ----------
    names : tissue of each label, "" where there is none.
    density : ρ [kg/m³]. specific_heat_capacity : c [J/(kg K)].
    thermal_conductivity : k at 37 °C [W/(m K)]; its slope [1/K].
    electrical_conductivity : σ at 37 °C [S/m]; its slope [1/K].
    perfusion_rate : ω_b [1/s]. metabolic_heat : q_m [W/m³].
    latent_heat : L [J/m³], to turn the tissue's water into vapour.
    blood_heat_capacity : ρ_b c_b [J/(m³ K)].
    """

    names: tuple[str, ...]
    density: Real
    specific_heat_capacity: Real
    thermal_conductivity: Real
    thermal_conductivity_slope: Real
    electrical_conductivity: Real
    electrical_conductivity_slope: Real
    perfusion_rate: Real
    metabolic_heat: Real
    latent_heat: Real
    blood_heat_capacity: float

    @classmethod
    def build(cls, config: TissueConfig, structures: Iterable[Structure]) -> TissueTable:
        """Look up every structure's tissue.

        Raises
        ------
        InputError
            When a tissue is missing, or a property is not finite or not plausible.

        Examples
        --------
        >>> liver = TissueProperties(1079.0, 3540.0, 0.52, 0.0, 0.2, water_fraction=0.71)
        >>> config = TissueConfig(state="example", tissues={"liver": liver})
        >>> table = TissueTable.build(config, [Structure(0, "liver", "liver", "organ")])
        >>> round(float(table.latent_heat[0]) / 1e9, 2)
        1.73
        """
        listed = list(structures)
        check_shared(config)
        for structure in listed:
            if structure.tissue not in config.tissues:
                raise InputError(
                    f"{structure.name!r} is made of {structure.tissue!r}, which tissue={config.state} does "
                    f"not have; it has {', '.join(sorted(config.tissues))}"
                )
            check_tissue(structure.tissue, config.tissues[structure.tissue])
        n_labels = 1 + max((structure.label for structure in listed), default=-1)
        names = [""] * n_labels
        columns = {name: np.zeros(n_labels) for name in PLAUSIBLE}
        for structure in listed:
            names[structure.label] = structure.tissue
            for name, column in columns.items():
                column[structure.label] = getattr(config.tissues[structure.tissue], name)
        water = columns.pop("water_fraction")
        latent_heat = config.latent_heat_of_water * water * columns["density"]
        blood = config.blood_density * config.blood_specific_heat
        return cls(tuple(names), latent_heat=latent_heat, blood_heat_capacity=blood, **columns)

    @property
    def heat_capacity(self) -> Real:
        """ρc [J/(m³ K)]."""
        return self.density * self.specific_heat_capacity

    @property
    def perfusion_conductance(self) -> Real:
        """W = ω_b ρ_b c_b [W/(m³ K)], the heat sink of Pennes' equation."""
        return self.perfusion_rate * self.blood_heat_capacity

    @property
    def latent_temperature(self) -> Real:
        """L/(ρc) [K]: by how much the latent heat would warm the tissue; 0 where there is none."""
        capacity = self.heat_capacity
        return np.divide(self.latent_heat, capacity, out=np.zeros_like(capacity), where=capacity > 0.0)


def check_tissue(name: str, properties: TissueProperties) -> None:
    """Refuse a tissue whose properties are not finite and plausible.

    Raises
    ------
    InputError
        Names the tissue, the value, the range and the likely unit trap.
    """
    for key, (low, high, unit, trap) in PLAUSIBLE.items():
        value = float(getattr(properties, key))
        if not math.isfinite(value) or not low <= value <= high:
            raise InputError(
                f"tissue {name!r}: {key}={value:g} {unit} is not within {low:g} to {high:g} {unit}; {trap}"
            )


def check_shared(config: TissueConfig) -> None:
    """Refuse shared values that the laws cannot work with (InputError)."""
    ranges = {
        "initial_temperature": (-20.0, 60.0, "°C"),
        "arterial_temperature": (0.0, 60.0, "°C"),
        "blood_density": (500.0, 2000.0, "kg/m³"),
        "blood_specific_heat": (1000.0, 5000.0, "J/(kg K)"),
        "vaporization_temperature": (80.0, 200.0, "°C"),
        "vaporization_width": (1e-3, 50.0, "K"),
        "latent_heat_of_water": (0.0, 1e7, "J/kg"),
        "conductivity_collapse_temperature": (80.0, 300.0, "°C"),
        "conductivity_collapse_width": (1e-3, 100.0, "K"),
        "conductivity_collapse_factor": (1e-8, 1.0, ""),
    }
    for key, (low, high, unit) in ranges.items():
        value = float(getattr(config, key))
        if not math.isfinite(value) or not low <= value <= high:
            raise InputError(
                f"tissue.{key}={value:g} {unit} must lie within {low:g} to {high:g} {unit}; change it"
            )
    laws = ("linear", "exponential", "constant")
    if config.conductivity_law not in laws:
        raise InputError(
            f"tissue.conductivity_law={config.conductivity_law!r} is not known; use one of {', '.join(laws)}"
        )
