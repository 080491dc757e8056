"""What a treatment achieved, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import TriangleSurface


@dataclass(frozen=True)
class AblationZone:
    """Tissue dead by one criterion.

    `long_axis`, `short_axis`, `middle_axis` [m]: extents along the principal axes; `sphericity`
    (0..1] = π^(1/3) (6 V)^(2/3) / A; `distance_beyond_tips` [m] by needle: how far the zone reaches
    beyond the tip, where it stands at the end, along the needle's axis; negative where the zone ends
    before the tip, NaN where the axis misses it.
    """

    criterion: str
    description: str
    volume: float
    long_axis: float
    middle_axis: float
    short_axis: float
    sphericity: float
    surface: TriangleSurface
    touches_box: bool
    distance_beyond_tips: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class MarginStatistics:
    """Area-weighted statistics of the signed margin over a tumour's surface.

    `minimum` and `percentiles` [m] (keys 1, 5, 25, 50, 75, 95); `fraction_below` share of the
    surface with a margin below 0, 5 and 10 mm (keys in mm); `surface_area` [m²] taken into account.
    """

    minimum: float
    percentiles: dict[int, float]
    fraction_below: dict[int, float]
    surface_area: float


@dataclass(frozen=True)
class TumorMargin:
    """The ablative margin of one tumour.

    `margin` (n_vertices,) [m] signed distance from the tumour's surface to the zone's, positive
    where the zone goes beyond the tumour. `near_capsule` (n_vertices,) bool: within 5 mm of the
    liver capsule. `without_capsule`: statistics without those places, None if all of them are.
    `shell_coverage`: share of the 5, 6 and 10 mm shells around the tumour (inside the liver) that
    is ablated, keys in mm. `residual_volume` [m³] of living tumour.
    """

    name: str
    volume: float
    surface: TriangleSurface
    margin: NDArray[np.float64]
    near_capsule: NDArray[np.bool_]
    all_around: MarginStatistics
    without_capsule: MarginStatistics | None
    thinnest_point: NDArray[np.float64]
    shell_coverage: dict[int, float]
    residual_volume: float
    coverage: float


@dataclass(frozen=True)
class StructureAtRisk:
    """Highest temperature [°C], dose [min] and Ω in one structure of the box."""

    name: str
    highest_temperature: float
    thermal_dose: float
    damage_integral: float
    dead_volume: float


@dataclass(frozen=True)
class Outcome:
    """Zones by criterion, margins by tumour for the chosen criterion, and structures at risk.

    `cautions` are those of the `notes` that a reader of the verdict must know beside it.
    """

    criterion: str
    zones: dict[str, AblationZone]
    tumors: tuple[TumorMargin, ...]
    structures_at_risk: tuple[StructureAtRisk, ...]
    notes: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
