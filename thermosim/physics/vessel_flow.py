"""Heat transfer from a round vessel's wall to the blood in it: named correlations for the Nusselt number.

All are for smooth round tubes and take Re = ρ v d/μ and Pr = μ c/k at the mean temperature of the blood.
Equation numbers: *Incropera* is Incropera, DeWitt, Bergman & Lavine, Fundamentals of Heat and Mass Transfer,
6th edition, Wiley 2007, chapter 8; *Shah & London* is Laminar Flow Forced Convection in Ducts, Academic
Press 1978, chapter V.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from thermosim.checks import CORRELATIONS
from thermosim.errors import InputError

LAMINAR_WALL_TEMPERATURE = 3.66
"""Nu of fully developed laminar flow, wall of one temperature: Incropera eq. 8.55."""

LAMINAR_WALL_FLUX = 4.36
"""Nu of fully developed laminar flow, even heat flux through the wall (48/11): Incropera eq. 8.53."""

ENTRANCE = 0.001
"""x* up to which the laminar entrance follows Lévêque's power law, with its first correction."""

_GAUSS = np.polynomial.legendre.leggauss(12)

LAMINAR_LIMIT = 2300.0
"""Re up to which flow in a tube stays laminar: Incropera eq. 8.2."""

TURBULENT_LIMIT = 4000.0
"""Re from which flow counts as turbulent here; Gnielinski 2013 interpolates between the two limits."""


@dataclass(frozen=True)
class Blood:
    """What flows: `density` ρ [kg/m³], `specific_heat_capacity` c [J/(kg K)], `thermal_conductivity` k
    [W/(m K)], `viscosity` μ [Pa s].

    The defaults: ρ, c, k of blood from IT'IS v4; μ of whole blood at high shear, 3.45 mPa s (Cho & Kensey
    1991, Biorheology 28:241, doi:10.3233/BIR-1991-283-415, table of infinite-shear viscosities), rounded.
    Blood is taken as Newtonian: its viscosity rises at shear rates below some 100 1/s, that is in wide
    veins of slow flow; Nu of laminar flow hardly depends on it.
    """

    density: float = 1050.0
    specific_heat_capacity: float = 3617.0
    thermal_conductivity: float = 0.52
    viscosity: float = 3.5e-3

    @property
    def prandtl(self) -> float:
        """Pr = μ c / k; 24 for blood."""
        return self.viscosity * self.specific_heat_capacity / self.thermal_conductivity

    @property
    def volumetric_heat_capacity(self) -> float:
        """ρ c [J/(m³ K)]."""
        return self.density * self.specific_heat_capacity


# ---------------------------------------------------------------------------- flow


def volume_flow(velocity: float, diameter: float) -> float:
    """Q = v π d²/4 [m³/s] of a mean velocity [m/s] in a round vessel [m]."""
    return velocity * 0.25 * math.pi * diameter**2


def mean_velocity(flow: float, diameter: float) -> float:
    """v = 4 Q / (π d²) [m/s] of a volume flow [m³/s] in a round vessel [m].

    Examples
    --------
    10 mL/min through 3.4 mm, as in the experiment of Lehmann et al. 2016:

    >>> round(1e3 * mean_velocity(10e-6 / 60, 3.4e-3), 1)  # mm/s
    18.4
    """
    return flow / (0.25 * math.pi * diameter**2)


def reynolds(velocity: float, diameter: float, blood: Blood) -> float:
    """Re = ρ v d / μ."""
    return blood.density * velocity * diameter / blood.viscosity


def hydrodynamic_entrance_length(re: float, diameter: float) -> float:
    """0.05 Re d in laminar, 10 d in turbulent flow [m]: Incropera eq. 8.3 and 8.4."""
    return 0.05 * re * diameter if re <= LAMINAR_LIMIT else 10.0 * diameter


def thermal_entrance_length(re: float, pr: float, diameter: float) -> float:
    """0.05 Re Pr d in laminar, 10 d in turbulent flow [m]: Incropera eq. 8.23."""
    return 0.05 * re * pr * diameter if re <= LAMINAR_LIMIT else 10.0 * diameter


# ---------------------------------------------------------------------------- laminar


def nusselt_developing(x_star: float) -> float:
    """Local Nu of a thermally developing laminar flow (Graetz), wall of one temperature.

    Nu = 1.077 x*^(−1/3) − 0.7 for x* ≤ 0.001, else 3.657 + 6.874 (10³ x*)^(−0.488) exp(−57.2 x*),
    x* = x / (d Re Pr); within 1 % of the exact series (a test solves the Graetz problem).
    Shah & London, thermal entrance of the circular duct.

    Raises
    ------
    InputError : x* is not positive; at the inlet itself Nu is infinite.
    """
    _positive("x* = x / (d Re Pr)", x_star)
    if x_star <= ENTRANCE:
        return float(1.077 * x_star ** (-1.0 / 3.0) - 0.7)
    return float(3.657 + 6.874 * (1e3 * x_star) ** -0.488 * math.exp(-57.2 * x_star))


def nusselt_developing_mean(x_star: float) -> float:
    """Mean of `nusselt_developing` from the inlet to x*; infinite at 0."""
    return nusselt_developing_between(0.0, _positive("x* = x / (d Re Pr)", x_star))


def nusselt_developing_between(first: float, last: float) -> float:
    """Mean of `nusselt_developing` over a piece of vessel from x*₁ to x*₂."""
    if first < 0 or not last > first:
        raise InputError(f"a piece of vessel from x*={first:g} to {last:g} is empty; order its ends")
    return (_developing_integral(last) - _developing_integral(first)) / (last - first)


def _developing_integral(x_star: float) -> float:
    """∫ Nu dx* from the inlet, by Gauss points in ln x* where there is no closed form."""
    near = min(x_star, ENTRANCE)
    total = 1.5 * 1.077 * near ** (2.0 / 3.0) - 0.7 * near
    developed = 1.0  # from here on Nu is 3.657 to all digits
    if x_star > ENTRANCE:
        span = math.log(min(x_star, developed) / ENTRANCE)
        for node, weight in zip(*_GAUSS, strict=True):
            x = ENTRANCE * math.exp(0.5 * span * (1.0 + node))
            total += 0.5 * span * weight * x * nusselt_developing(x)
    return float(total + 3.657 * max(0.0, x_star - developed))


def nusselt_hausen(re: float, pr: float, length_to_diameter: float) -> float:
    """Mean Nu from the inlet of a laminar thermal entrance, wall of one temperature (Hausen 1943).

    Nu = 3.66 + 0.0668 Gz / (1 + 0.04 Gz^(2/3)), Gz = Re Pr d / L: Incropera eq. 8.56. Velocity profile fully
    developed, or Pr ≥ 5; Re ≤ 2300.
    """
    _within("Re", re, 0.0, LAMINAR_LIMIT, "hausen")
    graetz = re * pr / _positive("L/d", length_to_diameter)
    return float(3.66 + 0.0668 * graetz / (1.0 + 0.04 * graetz ** (2.0 / 3.0)))


def nusselt_sieder_tate(
    re: float, pr: float, length_to_diameter: float, viscosity_ratio: float = 1.0
) -> float:
    """Mean Nu of a laminar entrance where velocity and temperature develop together (Sieder & Tate 1936).

    Nu = 1.86 (Re Pr d / L)^(1/3) (μ/μ_wall)^0.14: Incropera eq. 8.57. For 0.60 ≤ Pr ≤ 5,
    0.0044 ≤ μ/μ_wall ≤ 9.75 and Nu ≥ 3.66; below, flow is developed and 3.66 is returned. The older texts
    (0.48 < Pr < 16700) allow it for blood; its Pr of 24 is let pass.
    """
    _within("Re", re, 0.0, LAMINAR_LIMIT, "sieder_tate")
    _within("Pr", pr, 0.48, 16_700.0, "sieder_tate")
    _within("the ratio of viscosities", viscosity_ratio, 0.0044, 9.75, "sieder_tate")
    graetz = re * pr / _positive("L/d", length_to_diameter)
    return max(LAMINAR_WALL_TEMPERATURE, float(1.86 * graetz ** (1.0 / 3.0) * viscosity_ratio**0.14))


# ---------------------------------------------------------------------------- turbulent, transition


def friction_factor(re: float) -> float:
    """Darcy's f = (0.790 ln Re − 1.64)⁻² of a smooth tube, 3000 ≤ Re ≤ 5·10⁶.

    Petukhov: Incropera eq. 8.21.
    """
    _within("Re", re, 3000.0, 5e6, "friction_factor")
    return float((0.790 * math.log(re) - 1.64) ** -2)


def nusselt_gnielinski(re: float, pr: float) -> float:
    """Nu = (f/8)(Re − 1000) Pr / (1 + 12.7 (f/8)^(1/2) (Pr^(2/3) − 1)): Incropera eq. 8.62.

    Gnielinski 1976 (Int Chem Eng 16:359). 3000 ≤ Re ≤ 5·10⁶, 0.5 ≤ Pr ≤ 2000, L/d ≥ 10.
    """
    _within("Re", re, 3000.0, 5e6, "gnielinski")
    _within("Pr", pr, 0.5, 2000.0, "gnielinski")
    f = friction_factor(re) / 8.0
    return float(f * (re - 1000.0) * pr / (1.0 + 12.7 * math.sqrt(f) * (pr ** (2.0 / 3.0) - 1.0)))


def nusselt_dittus_boelter(re: float, pr: float, *, blood_is_heated: bool = True) -> float:
    """Nu = 0.023 Re^(4/5) Prⁿ, n = 0.4 where the wall heats the blood, else 0.3: Incropera eq. 8.60.

    Re ≥ 10 000, 0.6 ≤ Pr ≤ 160, L/d ≥ 10.
    """
    _within("Re", re, 10_000.0, math.inf, "dittus_boelter")
    _within("Pr", pr, 0.6, 160.0, "dittus_boelter")
    return float(0.023 * re**0.8 * pr ** (0.4 if blood_is_heated else 0.3))


def nusselt_auto(re: float, pr: float, first: float, last: float) -> float:
    """Nu of a piece of vessel from `first` to `last` diameters behind the inlet, whatever the flow.

    Laminar (Re ≤ 2300): mean of the developing value over the piece. Turbulent (Re ≥ 4000): Gnielinski.
    Between: (1 − γ) Nu(2300) + γ Nu(4000), γ = (Re − 2300)/1700 (Gnielinski 2013, Int J Heat Mass Transf
    63:134, doi:10.1016/j.ijheatmasstransfer.2013.04.015).
    """
    if re <= 0.0:
        return LAMINAR_WALL_TEMPERATURE

    def laminar(value: float) -> float:
        return nusselt_developing_between(first / (value * pr), last / (value * pr))

    if re <= LAMINAR_LIMIT:
        return laminar(re)
    if re >= TURBULENT_LIMIT:
        return nusselt_gnielinski(re, pr)
    share = (re - LAMINAR_LIMIT) / (TURBULENT_LIMIT - LAMINAR_LIMIT)
    return (1.0 - share) * laminar(LAMINAR_LIMIT) + share * nusselt_gnielinski(TURBULENT_LIMIT, pr)


def nusselt(correlation: str, re: float, pr: float, first: float, last: float) -> float:
    """Nu by the name of a correlation for a piece of vessel `first` to `last` diameters behind the inlet.

    `hausen` and `sieder_tate` are means from the inlet to `last`.

    Raises
    ------
    InputError : an unknown name, or Re or Pr outside the correlation's range.
    """
    if correlation == "auto":
        return nusselt_auto(re, pr, first, last)
    if correlation in ("laminar", "laminar_flux", "developing"):
        _within("Re", re, 0.0, LAMINAR_LIMIT, correlation)
    if correlation == "laminar":
        return LAMINAR_WALL_TEMPERATURE
    if correlation == "laminar_flux":
        return LAMINAR_WALL_FLUX
    if correlation == "developing":
        return nusselt_auto(re, pr, first, last)
    if correlation == "hausen":
        return nusselt_hausen(re, pr, last)
    if correlation == "sieder_tate":
        return nusselt_sieder_tate(re, pr, last)
    if correlation == "gnielinski":
        return nusselt_gnielinski(re, pr)
    if correlation == "dittus_boelter":
        return nusselt_dittus_boelter(re, pr)
    raise InputError(f"correlation {correlation!r} is not known; use one of {', '.join(CORRELATIONS)}")


def film_coefficient(nu: float, diameter: float, blood: Blood) -> float:
    """h = Nu k / d [W/(m² K)], the definition of Nu."""
    return nu * blood.thermal_conductivity / _positive("the diameter", diameter)


def _positive(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{name} is {value:g}; it must be positive")
    return value


def _within(name: str, value: float, low: float, high: float, correlation: str) -> None:
    if not low <= value <= high:
        limit = f"at least {low:g}" if math.isinf(high) else f"{low:g} to {high:g}"
        raise InputError(
            f"{name} is {value:.4g}, the correlation {correlation} holds for {limit}; use correlation=auto"
        )
