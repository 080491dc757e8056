"""A whole treatment compared with an independent solution of the same equations, quantity by quantity.

Used by the fast tests (1 and 2 mm) and by the verification document (1 and 0.5 mm).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator
from solver_cases import ReferenceCase

from thermosim.simulation import SimulationResult

Kind = Literal["edge", "temperature", "resistance", "volume"]
Points = NDArray[np.float64]

LIMITS: dict[Kind, float] = {"edge": 0.3, "temperature": 1.0, "resistance": 0.02}
"""At 1 mm: 0.3 mm in the zone's edge, less than a third of a cell and a tenth of the 5 to 10 mm margin that
is judged by it; 1 °C; 2 % in resistance. Half of each at 0.5 mm."""

UNITS: dict[Kind, str] = {"edge": "mm", "temperature": "K", "resistance": "%", "volume": "%"}


@dataclass(frozen=True)
class Comparison:
    """One quantity: edges in mm, temperatures in °C, resistances in Ω, volumes in ml.

    `uncertainty`: the reference's own estimate of its error, in the same unit.
    """

    quantity: str
    kind: Kind
    found: float
    wanted: float
    uncertainty: float

    @property
    def error(self) -> float:
        """In mm and K; for resistance and volume relative to the reference."""
        return (self.found - self.wanted) / (self.wanted if self.kind in ("resistance", "volume") else 1.0)

    @property
    def own_error(self) -> float:
        """The reference's, in the unit of `error`."""
        return self.uncertainty / (self.wanted if self.kind in ("resistance", "volume") else 1.0)


class Reference:
    """The independent solution of one case, from `shared/reference`."""

    def __init__(self, folder: Path, case: ReferenceCase) -> None:
        self.case = case
        self.data: dict[str, Any] = json.loads((folder / f"{case}.json").read_text())
        self.quantities: dict[str, float] = self.data["quantities"]
        errors = next(v for k, v in self.data.items() if k.startswith("error_estimate"))
        self.uncertainty: dict[str, float] = errors
        self.end = f"t{self.data['t_end_s']}"

    def compare(self, result: SimulationResult) -> list[Comparison]:
        """Everything that can be compared, away from the singular ends of the metal (r ≥ 2 mm)."""
        return [
            *self._resistances(result),
            *self._temperatures(result),
            *self._edges(result),
            self._volume(result),
        ]

    def _known(self, quantity: str, kind: Kind, found: float, key: str, sign: float = 1.0) -> Comparison:
        return Comparison(quantity, kind, found, sign * self.quantities[key], self.uncertainty.get(key, 0.0))

    # ------------------------------------------------------------------ resistance

    def _resistances(self, result: SimulationResult) -> Iterable[Comparison]:
        yield self._known("R at the start", "resistance", result.initial_impedance, "R_initial_ohm")
        series = self.data["series"]
        time, resistance = resistance_trace(result)
        own = self.uncertainty["R_final_ohm"]
        # the reference's own steps are dense enough for straight lines from the second point on
        for t in (10.0, 30.0, 60.0, 120.0, 300.0, 600.0):
            if t < min(series["t_s"][-1], time[-1]):
                wanted = float(np.interp(t, series["t_s"], series["R_ohm"]))
                yield Comparison(
                    f"R at {t:.0f} s", "resistance", float(np.interp(t, time, resistance)), wanted, own
                )
        yield self._known("R at the end", "resistance", result.final_impedance, "R_final_ohm")

    # ------------------------------------------------------------------ temperature

    def _temperatures(self, result: SimulationResult) -> Iterable[Comparison]:
        for name, points in self._probes():
            key = f"T_{name}_{self.end}_C"
            yield self._known(name, "temperature", temperature_at(result, points), key)

    def _probes(self) -> Iterable[tuple[str, Points]]:
        """Points from 2 mm beyond the metal on; rings and shells where the reference has that symmetry."""
        if self.case in ("S1", "S1c"):
            for radius in (4, 5, 7.5, 10, 12, 15, 20, 30):
                yield f"r{radius:g}mm", shell(1e-3 * radius)
        elif self.case == "H1":
            for name, (x, y, z) in self.data["probe_coordinates_mm(x,y,z)"].items():
                if np.hypot(x, y) >= 2.0 or z <= -17.7:
                    yield name, 1e-3 * np.array([[x, y, z], [x, -y, z]])
        else:
            for name, (r, z) in self.data["probe_coordinates_mm(r,z)"].items():
                if r >= 2.0 or z <= -17.7:
                    yield name, ring(1e-3 * r, 1e-3 * z)

    # ------------------------------------------------------------------ zone

    def _edges(self, result: SimulationResult) -> Iterable[Comparison]:
        if self.case in ("S1", "S1c"):
            for number, direction in enumerate(shell(1.0)[::6]):
                found = edge_along(result, 2.5e-3 * direction, direction) + 2.5e-3
                yield self._known(f"zone's radius, direction {number}", "edge", 1e3 * found, "zone_radius_mm")
            return
        if self.case == "H1":
            for degrees in (0, 45, 90, 135, 180):
                ray = f"mid-plane {degrees}deg from needle axis"
                found = edge_sideways(result, float(degrees))
                yield self._known(
                    f"edge at {degrees}° from the vessel", "edge", found, f"zone_edge [{ray}]_{self.end}_mm"
                )
        else:
            for degrees in (0, 45, 127, 270):
                found = edge_sideways(result, float(degrees))
                yield self._known(
                    f"edge at {degrees}° in the mid-plane", "edge", found, f"zone_mid_radius_{self.end}_mm"
                )
        start, down = np.array([0.0, 0.0, -17.5e-3]), np.array([0.0, 0.0, -1.0])
        tip = 17.5 + 1e3 * edge_along(result, start, down)
        yield self._known("edge below the tip", "edge", tip, f"zone_z_min_{self.end}_mm", -1.0)

    def _volume(self, result: SimulationResult) -> Comparison:
        key = "zone_volume_ml" if self.case in ("S1", "S1c") else f"zone_volume_{self.end}_ml"
        return self._known("volume of the zone", "volume", zone_volume(result), key)

    def volume_limit(self, edge: float) -> float:
        """Relative error of the volume that `edge` [mm] all around the zone makes."""
        if self.case in ("S1", "S1c"):
            return 3.0 * edge / self.quantities["zone_radius_mm"]
        # about a cylinder of the volume's own mean radius and the zone's length
        length = self.quantities[f"zone_z_max_{self.end}_mm"] - self.quantities[f"zone_z_min_{self.end}_mm"]
        radius = np.sqrt(1e3 * self.quantities[f"zone_volume_{self.end}_ml"] / (np.pi * length))
        return float(2.0 * edge / radius + 2.0 * edge / length)


def beyond(comparisons: Iterable[Comparison], limits: dict[Kind, float]) -> dict[str, float]:
    """Errors beyond their limit, by quantity; kinds without a limit are passed over."""
    return {
        c.quantity: c.error for c in comparisons if c.kind in limits and not abs(c.error) <= limits[c.kind]
    }


def worst(comparisons: Iterable[Comparison], kind: Kind) -> float:
    """Largest error of a kind."""
    return max(abs(c.error) for c in comparisons if c.kind == kind)


# ---------------------------------------------------------------------------- measuring on the grid


def between_cells(result: SimulationResult, field: NDArray[np.floating]) -> RegularGridInterpolator:
    """Trilinear interpolation between cell centres."""
    grid = result.anatomy.grid
    return RegularGridInterpolator([grid.axis(a) for a in range(3)], field.astype(float))


def temperature_at(result: SimulationResult, points: Points) -> float:
    """Mean temperature [°C] over points [m]."""
    return float(between_cells(result, result.temperature)(points).mean())


def ring(radius: float, height: float) -> Points:
    """Points [m] around the axis: the reference is axisymmetric, the grid is not."""
    angle = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), np.full(24, height)], axis=-1)


def shell(radius: float) -> Points:
    """Points [m] spread evenly over a sphere (golden spiral)."""
    n = 60
    height = (np.arange(n) + 0.5) * 2.0 / n - 1.0
    angle = np.arange(n) * np.pi * (3.0 - np.sqrt(5.0))
    across = np.sqrt(1.0 - height**2)
    return radius * np.stack([across * np.cos(angle), across * np.sin(angle), height], axis=-1)


def edge_along(result: SimulationResult, start: Points, direction: Points) -> float:
    """Distance from `start` [m] at which ln Ω falls through 0, finer than the cells."""
    steps = np.arange(0.0, 25e-3, 0.1e-3)
    log = np.log(np.maximum(result.damage_integral, 1e-12))
    values = between_cells(result, log)(start + steps[:, None] * direction)
    last = int(np.flatnonzero(values >= 0.0)[-1])
    return float(steps[last] + 0.1e-3 * values[last] / (values[last] - values[last + 1]))


def edge_sideways(result: SimulationResult, degrees: float) -> float:
    """Radius [mm] of the zone in the plane z = 0, from 2 mm off the axis outwards."""
    angle = np.deg2rad(degrees)
    direction = np.array([np.cos(angle), np.sin(angle), 0.0])
    return 2.0 + 1e3 * edge_along(result, 2e-3 * direction, direction)


def zone_volume(result: SimulationResult) -> float:
    """Volume of Ω ≥ 1 [ml]: a cell at the edge counts by where ln Ω = 0 cuts it, to first order."""
    log = np.log(np.maximum(result.damage_integral.astype(float), 1e-12))
    slope = np.sqrt(sum(g**2 for g in np.gradient(log)))
    share = np.clip(0.5 + log / np.maximum(slope, 1e-9), 0.0, 1.0)
    cell = float(np.prod(result.anatomy.grid.spacing))
    return float(share[~result.solid_mask].sum()) * cell * 1e6


def resistance_trace(result: SimulationResult) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times [s] and resistances [Ω] while the power is on."""
    on = np.isfinite(result.traces.impedance)
    return result.traces.time[on], result.traces.impedance[on]
