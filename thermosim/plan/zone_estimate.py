"""A fast estimate of the zone: an ellipsoid for each burn, superposed where needles burn together.

Each device at each place makes an ellipsoid around its bare metal, `beside_mm` beside and `beyond_mm` beyond
it (of a burn of `time_min`; a shorter one makes less, as the square root of its time). Heat of burns at the
same time adds up: with κ the distance from the ellipsoid's centre in units of its surface, the rise of
temperature falls as κ^−n, and tissue dies where Σ κᵢ^−n ≥ 1. The exponent is that of a point source in
perfused tissue at the surface, T ∝ exp(−r/λ)/r, n = 1 + r/λ, with 1/λ² = ω_b ρ_b c_b / k + 1/(α t) (Pennes
1948, and how far heat diffuses in the time t). Burns one after another do not add up.

It knows no power, no impedance, no open vessels, no capsule: a sanity check of geometry, no prediction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.grid import Grid
from thermosim.config import TissueConfig
from thermosim.config_check import ZoneConfig
from thermosim.outcome.level_set import LevelSet
from thermosim.plan.paths import Place, Plan
from thermosim.units import MILLIMETRE, MINUTE

Point = NDArray[np.float64]

AROUND = 25e-3
"""Room around tumours and bare metal in the estimate's grid [m]."""

MOST_CELLS = 1_500_000


@dataclass(frozen=True)
class Ellipsoid:
    """A zone of revolution: `center` [m, LPS], unit `axis`, semi-axes `along` and `across` [m]."""

    center: Point
    axis: Point
    along: float
    across: float

    def kappa(self, points: Point) -> NDArray[np.float64]:
        """Distance of points (..., 3) from the centre in units of the surface's: 1 on it."""
        offset = points - self.center
        height = offset @ self.axis
        aside = np.maximum((offset * offset).sum(axis=-1) - height * height, 0.0)
        return np.asarray(np.sqrt((height / self.along) ** 2 + aside / self.across**2))


def ellipsoid(place: Place, zone: ZoneConfig, minutes: float) -> Ellipsoid:
    """The zone of one device at one place, driven for so many minutes."""
    growth = math.sqrt(min(minutes / zone.time_min, 1.0))
    axis = place.electrodes[0].direction
    points = np.vstack(place.lines)
    heights = points @ axis
    center = 0.5 * (points.min(axis=0) + points.max(axis=0))
    foot = points - np.outer(heights, axis)
    middle = foot.mean(axis=0)
    spread = float(np.linalg.norm(foot - middle, axis=1).max())
    center = middle + 0.5 * (heights.min() + heights.max()) * axis
    radius = max(electrode.radius for electrode in place.electrodes)
    has_tines = any(electrode.wires for electrode in place.electrodes)
    beside = zone.beyond_mm if has_tines else zone.beside_mm
    return Ellipsoid(
        np.asarray(center),
        np.asarray(axis),
        0.5 * float(np.ptp(heights)) + growth * zone.beyond_mm * MILLIMETRE,
        max(spread, radius) + growth * beside * MILLIMETRE,
    )


def exponent(tissue: TissueConfig, radius: float, seconds: float) -> float:
    """n = 1 + r/λ of the liver, at the distance `radius` [m] after so many seconds."""
    liver = tissue.tissues.get("liver") or next(iter(tissue.tissues.values()))
    k = liver.thermal_conductivity
    perfusion = liver.perfusion_rate * tissue.blood_density * tissue.blood_specific_heat / k
    diffusivity = k / (liver.density * liver.specific_heat_capacity)
    return 1.0 + radius * math.sqrt(perfusion + 1.0 / (diffusivity * seconds))


@dataclass(frozen=True)
class ZoneEstimate:
    """Burns in order; each is a set of ellipsoids whose heat adds up, with the exponent of its decay."""

    burns: tuple[tuple[tuple[Ellipsoid, ...], float], ...]

    def level(self, points: Point) -> NDArray[np.float64]:
        """Positive where tissue dies, about the distance to the zone's surface [m] near it."""
        best = np.full(points.shape[:-1], -np.inf)
        for ellipsoids, n in self.burns:
            # the sum in a form that neither 0 nor infinity harms: κ_eff = (Σ κ^−n)^(−1/n)
            kappas = np.stack([np.maximum(one.kappa(points), 1e-6) for one in ellipsoids])
            least = kappas.min(axis=0)
            together = least * ((least / kappas) ** n).sum(axis=0) ** (-1.0 / n)
            scale = min(one.across for one in ellipsoids)
            best = np.maximum(best, scale * (1.0 - together))
        return best


def estimate(plan: Plan, tissue: TissueConfig) -> ZoneEstimate:
    """The superposed ellipsoids of a plan: needles of a segment add up, unless they burn in sequence."""
    zone = plan.rules.zone
    shapes = {
        (place.device, round(place.pulled_back, 9)): ellipsoid(place, zone, plan.minutes(place))
        for place in plan.places
    }
    burns: dict[tuple[tuple[str, float], ...], float] = {}
    for segment in plan.protocol.segments:
        devices = dict.fromkeys(plan.protocol.devices[e] for e in segment.active)
        keys = tuple((device, round(segment.pulled_back, 9)) for device in devices)
        groups = [(key,) for key in keys] if segment.config.drive == "sequence" else [keys]
        for group in groups:
            burns[group] = burns.get(group, 0.0) + segment.duration
    return ZoneEstimate(
        tuple(
            (
                tuple(shapes[key] for key in group),
                exponent(tissue, zone.beside_mm * MILLIMETRE, min(seconds, zone.time_min * MINUTE)),
            )
            for group, seconds in burns.items()
        )
    )


def estimate_grid(points: Sequence[Point], spacing: float) -> Grid:
    """An isotropic box around points [m, LPS] with room for the zone; coarser where it would be too large."""
    everything = np.vstack(list(points))
    lower, upper = everything.min(axis=0) - AROUND, everything.max(axis=0) + AROUND
    edge = max(spacing, float((np.prod(upper - lower) / MOST_CELLS) ** (1 / 3)))
    shape = np.maximum(2 * np.ceil((upper - lower) / (2 * edge)).astype(int), 8)
    x, y, z = 0.5 * (lower + upper)
    return Grid.box((float(x), float(y), float(z)), (int(shape[0]), int(shape[1]), int(shape[2])), edge)


def on_grid(zone: ZoneEstimate, grid: Grid) -> LevelSet:
    """The estimate at cell centres, slab by slab."""
    values = np.empty(grid.shape, np.float32)
    x, y, z = (grid.axis(dimension) for dimension in range(3))
    for i, first in enumerate(x):
        points = np.stack(np.meshgrid(first, y, z, indexing="ij"), axis=-1)
        values[i] = zone.level(points)[0]
    return LevelSet(grid, values)
