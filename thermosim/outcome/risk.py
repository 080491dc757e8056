"""What the heat did to the organs and vessel walls around the tumour."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from thermosim.config import DamageConfig
from thermosim.outcome.criteria import level_set
from thermosim.outcome.level_set import Region
from thermosim.outcome.results import StructureAtRisk
from thermosim.simulation import SimulationResult

NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)


def structures_at_risk(result: SimulationResult, damage: DamageConfig) -> tuple[StructureAtRisk, ...]:
    """Highest temperature, dose, Ω and dead volume of each organ, organ at risk and vessel in the box.

    For a vessel the tissue that touches it counts (cells sharing a face, edge or corner with its
    blood): the blood itself stays cold, its wall may not. Metal never counts. The dead volume is that
    of the cells whose centre is dead by the chosen criterion. Structures with no cell in the box are
    left out; the hottest structure comes first.
    """
    labels = result.anatomy.labels
    level = level_set(result, damage.criterion, damage)
    boxes = ndimage.find_objects(labels)
    vessel_labels = [s.label for s in result.anatomy.with_role("vessel")]
    found = []
    for structure in result.anatomy.structures:
        if structure.role not in ("organ", "risk", "vessel") or structure.label == 0:
            continue
        box = boxes[structure.label - 1] if structure.label <= len(boxes) else None
        if box is None:
            continue
        region = _widened(box, labels.shape)
        cells = labels[region] == structure.label
        if structure.role == "vessel":
            cells = ndimage.binary_dilation(cells, NEIGHBOURS) & ~np.isin(labels[region], vessel_labels)
        cells &= ~result.solid_mask[region]
        if not cells.any():
            continue
        found.append(
            StructureAtRisk(
                structure.name,
                _highest(result.highest_temperature[region], cells),
                _highest(result.thermal_dose[region], cells),
                _highest(result.damage_integral[region], cells),
                float(np.count_nonzero(cells & (level[region] > 0)) * result.anatomy.grid.cell_volume),
            )
        )
    return tuple(sorted(found, key=lambda s: -s.highest_temperature))


def _widened(box: tuple[slice, ...], shape: tuple[int, ...]) -> Region:
    """A box of slices and one cell more on each side."""
    x, y, z = (slice(max(s.start - 1, 0), min(s.stop + 1, n)) for s, n in zip(box, shape, strict=True))
    return (x, y, z)


def _highest(field: NDArray[np.float32], cells: NDArray[np.bool_]) -> float:
    return float(np.max(field, where=cells, initial=-np.inf))
