"""Boiling of a half-space against Neumann's similarity solution, with the tissue inputs as shipped.

Tissue at T_0 is held at T_w, above boiling, at its face x = 0. Behind the front s(t) = 2 λ √(α t) it is dry,
ahead of it wet; with one k and ρc on both sides and the latent heat L released at T_v alone (Carslaw & Jaeger
1959, Conduction of Heat in Solids, 2nd ed., § 11.2, Neumann's solution),

    (L/ρc) λ √π = e^(−λ²) [(T_w − T_v)/erf λ − (T_v − T_0)/erfc λ].

thermosim releases the latent heat over a width instead. The same similarity x/√t then makes an ordinary
differential equation of the whole problem, latent range and k(T) included, which is solved here to many
digits: what is left between it and the grid is the grid's error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from scipy.special import erf, erfc
from solver_cases import ORGAN

from thermosim.anatomy.anatomy import Structure
from thermosim.backends.base import Backend, Layout
from thermosim.build import load_case
from thermosim.config import TissueConfig
from thermosim.numerics.workspace import Workspace
from thermosim.physics.bioheat import Bioheat, ThermalLaw
from thermosim.tissue import laws
from thermosim.tissue.properties import TissueTable

Field = NDArray[np.float64]


@dataclass(frozen=True)
class HalfSpace:
    """Tissue of one k(T), ρc [J/(m³ K)] and latent heat, at `start` with its face at `wall` [°C].

    `latent` L/(ρc) [K], released from `boiling` to `boiling` + `width` [°C].
    """

    conductivity: float
    slope: float
    capacity: float
    latent: float
    boiling: float
    width: float
    start: float
    wall: float

    @classmethod
    def shipped(cls, tissue: str, name: str = "liver", wall: float = 200.0) -> HalfSpace:
        """A tissue of `configs/tissue`, as the program reads it."""
        config: TissueConfig = load_case("ex_vivo", [f"tissue={tissue}"]).config.tissue
        table = TissueTable.build(config, [Structure(ORGAN.label, name, name, "organ")])
        return cls(
            float(table.thermal_conductivity[0]),
            float(table.thermal_conductivity_slope[0]),
            float(table.heat_capacity[0]),
            float(table.latent_temperature[0]),
            config.vaporization_temperature,
            config.vaporization_width,
            config.initial_temperature,
            wall,
        )

    @property
    def latent_heat(self) -> float:
        """L [J/m³]."""
        return self.latent * self.capacity

    # ------------------------------------------------------------------ exact

    def neumann(self) -> float:
        """λ for constant k and all latent heat at `boiling`."""

        def balance(x: float) -> float:
            flows = (self.wall - self.boiling) / erf(x) - (self.boiling - self.start) / erfc(x)
            return float(math.exp(-x * x) * flows - self.latent * x * math.sqrt(math.pi))

        return float(brentq(balance, 1e-6, 3.0, xtol=1e-14))

    def neumann_front(self, time: float) -> float:
        """s(t) [m]."""
        return 2.0 * self.neumann() * math.sqrt(self.conductivity / self.capacity * time)

    def neumann_temperature(self, x: Field, time: float) -> Field:
        """T(x, t) [°C]."""
        front = self.neumann()
        eta = x / (2.0 * math.sqrt(self.conductivity / self.capacity * time))
        dry = self.wall - (self.wall - self.boiling) * erf(eta) / erf(front)
        wet = self.start + (self.boiling - self.start) * erfc(eta) / erfc(front)
        return np.where(eta < front, dry, wet)

    def _conductivity(self, temperature: float) -> float:
        return self.conductivity * float(laws.thermal_conductivity_ratio(temperature, self.slope))

    def similar(self, x: Field, time: float) -> Field:
        """T(x, t) [°C] with k(T) and the latent heat over `width`.

        With ζ = x/√t and the flux p = −k dT/dζ, dp/dζ = ½ ζ u'(T) dT/dζ; from the wall with a p(0) that
        leads to `start` far away.
        """
        kinks = (self.boiling + self.width, self.boiling)

        def march(p: float, until: float, dense: bool) -> tuple[list[object], float]:
            """From the wall on, range by range, so that no kink lies within one."""
            pieces, zeta, state = [], 0.0, [self.wall, p]
            for low, growth in (
                (kinks[0], 1.0),
                (kinks[1], 1.0 + self.latent / self.width),
                (-math.inf, 1.0),
            ):

                def slope(z: float, y: Field, growth: float = growth) -> list[float]:
                    steep = -y[1] / self._conductivity(y[0])
                    return [steep, 0.5 * z * self.capacity * growth * steep]

                def leaves(_z: float, y: Field, low: float = low) -> float:
                    return float(y[0] - low) if math.isfinite(low) else 1.0

                leaves.terminal = True  # type: ignore[attr-defined]
                piece = solve_ivp(
                    slope, (zeta, until), state, rtol=1e-10, atol=1e-10, events=leaves, dense_output=dense
                )
                pieces.append(piece)
                zeta, state = float(piece.t[-1]), list(piece.y[:, -1])
                if zeta >= until:
                    break
            return pieces, float(state[0])

        far = 12.0 * math.sqrt(self.conductivity / self.capacity)

        def miss(p: float) -> float:
            return march(p, far, False)[1] - self.start

        least = self.conductivity * (self.wall - self.start) / far
        p0 = float(brentq(miss, least, 4000.0 * least, xtol=1e-12 * least, rtol=1e-14))
        pieces, _ = march(p0, far, True)
        zeta = np.minimum(x / math.sqrt(time), far)
        result = np.full_like(zeta, self.start)
        for piece in pieces:
            inside = (zeta >= piece.t[0]) & (zeta <= piece.t[-1])  # type: ignore[attr-defined]
            if inside.any():
                result[inside] = piece.sol(zeta[inside])[0]  # type: ignore[attr-defined]
        return result

    # ------------------------------------------------------------------ on a grid

    def solve(self, backend: Backend, spacing: float, n: int, time: float, step: float) -> Field:
        """u [°C] of n cells along z by the program's own heat equation, sides and far end insulated."""
        layout = Layout((3, 3, n + 1))
        labels = np.ones(layout.shape, np.uint8)  # no tissue
        labels[1, 1, :n] = 0

        def table(value: float) -> NDArray[np.float32]:
            return np.array([value, 0.0], np.float32)

        law = ThermalLaw(
            table(self.capacity),
            table(self.conductivity),
            table(self.slope),
            table(0.0),
            table(self.latent),
            table(0.0),
            arterial=self.start,
            boundary=self.wall,
            boiling=self.boiling,
            boiling_width=self.width,
            reference=self.start,
            shutdown="none",
            shutdown_threshold=0.8,
        )
        field = backend.field(layout, 0, "uint8")
        layout.interior(field)[:] = backend.asarray(labels, "uint8")
        border = self.wall - self.start
        bioheat = Bioheat(
            backend, layout, spacing, field, law, [], Workspace.allocate(backend, layout, border)
        )
        bioheat.labels_changed()
        limit = 2.0 / bioheat.fastest_rates(labels)[0]
        u = backend.field(layout, border)
        layout.interior(u)[:] = 0.0
        temperature, none = u, backend.field(layout)
        n_steps = round(time / step)
        for _ in range(n_steps):
            bioheat.prepare(u, temperature, none, 0.0)
            u, temperature, _ = bioheat.advance(u, temperature, none, 0.0, time / n_steps, limit, boils=True)
        return np.asarray(backend.to_host(layout.interior(u)), dtype=float)[1, 1, :n] + self.start

    def temperature(self, enthalpy: Field) -> Field:
        """T [°C] of u."""
        return laws.temperature_from_enthalpy(enthalpy, self.boiling, self.width, self.latent)

    def dry_length(self, temperature: Field, spacing: float) -> float:
        """Length [m] of tissue that is dry, a cell that boils in part counted by its part."""
        return float(spacing * np.sum(np.clip((temperature - self.boiling) / self.width, 0.0, 1.0)))


def without_slope(case: HalfSpace) -> HalfSpace:
    """The same tissue with the k of 37 °C throughout, for which the closed form holds."""
    return replace(case, slope=0.0)
