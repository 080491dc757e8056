"""What the heat did to the organs and vessel walls around the tumour."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.grid import Grid
from thermosim.outcome.level_set import LevelSet, Region, bounding_region, dilated, region_in
from thermosim.outcome.results import StructureAtRisk
from thermosim.simulation import SimulationResult


def structures_at_risk(result: SimulationResult, zone: LevelSet | None) -> tuple[StructureAtRisk, ...]:
    """Highest temperature, dose, Ω and dead volume of each organ, organ at risk and vessel in the box.

    For a vessel the tissue that touches it counts (cells sharing a face, edge or corner with its
    blood): the blood itself stays cold, its wall may not. Metal never counts. The dead volume is that
    of the cells whose centre is dead by the chosen criterion. Structures with no cell in the box are
    left out; the hottest structure comes first.

    Parameters
    ----------
    zone : dead tissue by the chosen criterion on a part of the result's grid, from
        `thermosim.outcome.criteria.zone_level_set`; None for none.
    """
    labels, grid = result.anatomy.labels, result.anatomy.grid
    vessel_labels = [s.label for s in result.anatomy.with_role("vessel")]
    found = []
    for structure in result.anatomy.structures:
        if structure.role not in ("organ", "risk", "vessel") or structure.label == 0:
            continue
        region = bounding_region(labels == structure.label, padding=1)
        if region is None:
            continue
        cells = labels[region] == structure.label
        if structure.role == "vessel":
            cells = dilated(cells) & ~np.isin(labels[region], vessel_labels)
        cells &= ~result.solid_mask[region]
        if not cells.any():
            continue
        found.append(
            StructureAtRisk(
                structure.name,
                _highest(result.highest_temperature[region], cells),
                _highest(result.thermal_dose[region], cells),
                _highest(result.damage_integral[region], cells),
                float(_count_dead(cells, region, zone, grid) * grid.cell_volume),
            )
        )
    return tuple(sorted(found, key=lambda s: -s.highest_temperature))


def _count_dead(cells: NDArray[np.bool_], region: Region, zone: LevelSet | None, grid: Grid) -> int:
    """How many of the cells of a region of the grid lie in the zone."""
    if zone is None:
        return 0
    both = [
        (max(a.start, b.start), min(a.stop, b.stop), a.start, b.start)
        for a, b in zip(region, region_in(zone.grid, grid), strict=True)
    ]
    if any(stop <= start for start, stop, _, _ in both):
        return 0
    structure = cells[tuple(slice(start - a, stop - a) for start, stop, a, _ in both)]
    dead = zone.values[tuple(slice(start - b, stop - b) for start, stop, _, b in both)] > 0
    return int(np.count_nonzero(structure & dead))


def _highest(field: NDArray[np.float32], cells: NDArray[np.bool_]) -> float:
    """The largest value in some of a field's cells."""
    # What a layer holds in all of its cells is found fast and tells which layers need not be looked through.
    bounds = np.nan_to_num(field.max(axis=(1, 2)), nan=np.inf)
    best = np.float32(-np.inf)
    for layer in np.argsort(-bounds):
        if best >= bounds[layer]:
            break
        best = np.max(field[layer], where=cells[layer], initial=best)
    return float(best)
