"""Pennes' equation on cells, explicit in time, in double precision and without cleverness.

ρc ∂T/∂t = ∇·(k∇T) + W (T_a − T) + q + q_m, W = ω_b ρ_b c_b
(Pennes 1948, J Appl Physiol 1:93, doi:10.1152/jappl.1948.1.2.93). Faces between cells conduct by
the harmonic mean of their k (Patankar 1980, Numerical Heat Transfer and Fluid Flow, eq. 4.9), so
that the flux is continuous where k jumps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thermosim.numerics.link_factors import LinkFactors
from thermosim.tissue.laws import temperature_from_enthalpy

Field = NDArray[np.float64]


def face_conductances(
    conductivity: Field, spacing: float, walls: tuple[LinkFactors, ...] = ()
) -> list[Field]:
    """Conductance [W/K] of the inner faces along each axis: h · 2 k₁ k₂ / (k₁ + k₂) · factor.

    Entry `axis` has one element less than `conductivity` along that axis; 0 where a factor or a
    solid cell cuts the face.
    """
    k = np.asarray(conductivity, dtype=np.float64).copy()
    for links in walls:
        k.reshape(-1)[links.solid_cells] = 0.0
    faces = []
    for axis in range(3):
        n = k.shape[axis]
        first = np.take(k, range(n - 1), axis)
        second = np.take(k, range(1, n), axis)
        total = first + second
        mean = np.divide(2.0 * first * second, total, out=np.zeros_like(total), where=total > 0.0)
        faces.append(spacing * mean)
    for links in walls:
        for cell, axis, factor in zip(links.face_cells, links.face_axes, links.face_factors, strict=True):
            faces[int(axis)][np.unravel_index(int(cell), k.shape)] *= factor
    return faces


def net_heating(
    temperature: Field,
    spacing: float,
    conductivity: Field,
    *,
    perfusion: Field | float = 0.0,
    arterial: float = 37.0,
    source: Field | float = 0.0,
    boundary: float | None = None,
    walls: tuple[tuple[LinkFactors, tuple[float, ...]], ...] = (),
) -> Field:
    """Right-hand side of Pennes' equation [W/m³].

    Parameters
    ----------
    temperature : T [°C] (nx, ny, nz). spacing : h [m]. conductivity : k [W/(m K)] (nx, ny, nz).
    perfusion : W [W/(m³ K)]. arterial : T_a [°C]. source : q + q_m [W/m³].
    boundary : temperature of the box's faces, half a cell away [°C]; None: no flux.
    walls : fitted links with the temperature [°C] of each of their owners; the wall conductance
        is h · factor · k of the cell.
    """
    T = np.asarray(temperature, dtype=np.float64)
    k = np.broadcast_to(np.asarray(conductivity, dtype=np.float64), T.shape)
    power = np.zeros_like(T)  # W into each cell
    for axis, conductance in enumerate(face_conductances(k, spacing, tuple(w for w, _ in walls))):
        flow = conductance * np.diff(T, axis=axis)
        lower = [slice(None)] * 3
        upper = [slice(None)] * 3
        lower[axis], upper[axis] = slice(None, -1), slice(1, None)
        power[tuple(lower)] += flow
        power[tuple(upper)] -= flow
    if boundary is not None:
        for axis in range(3):
            for end in (0, -1):
                at: list[slice | int] = [slice(None)] * 3
                at[axis] = end
                power[tuple(at)] += 2.0 * spacing * k[tuple(at)] * (boundary - T[tuple(at)])
    for links, owner_temperatures in walls:
        for cell, owner, factor in zip(links.wall_cells, links.wall_owners, links.wall_factors, strict=True):
            at_cell = np.unravel_index(int(cell), T.shape)
            power[at_cell] += spacing * factor * k[at_cell] * (owner_temperatures[int(owner)] - T[at_cell])
    heating = power / spacing**3 + perfusion * (arterial - T) + source
    for links, _ in walls:
        heating.reshape(-1)[links.solid_cells] = 0.0
    return np.asarray(heating)


def step(temperature: Field, time_step: float, heat_capacity: Field | float, heating: Field) -> Field:
    """One explicit Euler step: T + Δt · heating / (ρc), without phase change."""
    return np.asarray(temperature + time_step * heating / heat_capacity)


def enthalpy_step(
    enthalpy: Field,
    time_step: float,
    heat_capacity: Field | float,
    heating: Field,
    boiling: float,
    width: float,
    latent: Field | float,
) -> tuple[Field, Field]:
    """The same with latent heat: new enthalpy temperature and temperature [°C].

    `heating` must come from the temperature, not from the enthalpy (Voller & Swaminathan 1990,
    Int J Numer Methods Eng 30:875, the enthalpy method).
    """
    new = np.asarray(enthalpy + time_step * heating / heat_capacity)
    return new, temperature_from_enthalpy(new, boiling, width, latent)


def stable_time_step(
    spacing: float, conductivity: float, heat_capacity: float, perfusion: float = 0.0
) -> float:
    """Largest stable explicit step in uniform tissue [s]: ρc / (12 k/h² + W), half of the bound."""
    return heat_capacity / (12.0 * conductivity / spacing**2 + perfusion)
