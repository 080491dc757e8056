"""When tissue counts as dead: the published criteria as level sets of the simulated fields."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import Anatomy
from thermosim.anatomy.grid import Grid
from thermosim.config import DamageConfig
from thermosim.errors import InputError, NumericalError
from thermosim.outcome.level_set import LevelSet, Region, bounding_region, crop_grid, dilated

CRITERIA = (
    "arrhenius",
    "arrhenius_99",
    "cem43",
    "three_state",
    "isotherm_50",
    "isotherm_54",
    "isotherm_60",
)
ARRHENIUS_THRESHOLDS = {"arrhenius": 1.0, "arrhenius_99": 4.6}
LOWEST_LEVEL = -12.0
"""Levels are cut here, so that a cell that was never warm does not pull the surface to its neighbour."""


class DamageFields(Protocol):
    """What the criteria look at: a simulation's result, or what a file kept of one."""

    @property
    def anatomy(self) -> Anatomy: ...
    @property
    def solid_mask(self) -> NDArray[np.bool_]: ...
    @property
    def highest_temperature(self) -> NDArray[np.float32]: ...
    @property
    def damage_integral(self) -> NDArray[np.float32]: ...
    @property
    def thermal_dose(self) -> NDArray[np.float32]: ...
    @property
    def dead_fraction(self) -> NDArray[np.float32]: ...


def describe(criterion: str, damage: DamageConfig) -> str:
    """A criterion in words with its threshold."""
    _check(criterion)
    if criterion in ARRHENIUS_THRESHOLDS:
        share = {"arrhenius": "63 %", "arrhenius_99": "99 %"}[criterion]
        return f"Arrhenius damage integral of at least {ARRHENIUS_THRESHOLDS[criterion]:g} ({share} dead)"
    if criterion == "cem43":
        return f"thermal dose of at least {damage.cem43_threshold:g} equivalent minutes at 43 °C"
    if criterion == "three_state":
        return f"three-state model, dead fraction of at least {damage.three_state_threshold:g}"
    return f"highest temperature of at least {_isotherm(criterion):g} °C"


def level_set(
    result: DamageFields, criterion: str, damage: DamageConfig, *, hot_blood_inside: bool = False
) -> NDArray[np.float32]:
    """Level of a criterion on the whole grid, float32, positive where tissue is dead.

    Arrhenius: ln Ω − ln threshold; CEM43: ln D − ln threshold; three states:
    ln(1 − threshold) − ln(1 − dead fraction); isotherms: T_highest − threshold. These grow almost
    linearly through the threshold, though Ω and the dose vary over decades between cells, so that
    linear interpolation finds the surface to second order.

    Metal takes the mean level of the tissue around it, so it is inside where the zone surrounds it.
    Blood in open vessels is outside: the level is cut at the vessel wall.

    Parameters
    ----------
    hot_blood_inside : keep blood that meets the criterion itself (at rest, in an occluded vessel)
        inside. For the margin: such a vessel is no gap in the zone.

    Raises
    ------
    InputError : unknown criterion. NumericalError : a field is not finite in tissue.
    """
    _check(criterion)
    whole: Region = (
        slice(0, result.solid_mask.shape[0]),
        slice(0, result.solid_mask.shape[1]),
        slice(0, result.solid_mask.shape[2]),
    )
    return _level_in(result, criterion, damage, whole, hot_blood_inside)


def zone_level_set(
    result: DamageFields, criterion: str, damage: DamageConfig, *, hot_blood_inside: bool = False
) -> LevelSet | None:
    """As `level_set`, cropped to the zone and two cells around it; None if nothing is dead."""
    _check(criterion)
    region = _hot_region(result, criterion, damage, padding=3)
    if region is None:
        return None
    level = _level_in(result, criterion, damage, region, hot_blood_inside)
    tight = bounding_region(level > 0, padding=2)
    if tight is None:
        return None
    grid = crop_grid(crop_grid(result.anatomy.grid, region), tight)
    return LevelSet(grid, np.ascontiguousarray(level[tight]))


def _hot_region(result: DamageFields, criterion: str, damage: DamageConfig, padding: int) -> Region | None:
    """Around the tissue cells whose own field meets the criterion, `padding` cells more."""
    field, threshold = _field(result, criterion, damage)
    rough = bounding_region(field >= threshold, padding=0)
    if rough is None:
        return None
    tight = bounding_region((field[rough] >= threshold) & ~result.solid_mask[rough], padding=0)
    if tight is None:
        return None
    x, y, z = (
        slice(max(a.start + b.start - padding, 0), min(a.start + b.stop + padding, n))
        for a, b, n in zip(rough, tight, field.shape, strict=True)
    )
    return (x, y, z)


def check_finite(result: DamageFields, criterion: str, damage: DamageConfig) -> None:
    """Refuse a field that a criterion looks at if it is not finite in tissue, anywhere on the grid.

    Raises
    ------
    InputError : unknown criterion. NumericalError : names the first such cell.
    """
    _check(criterion)
    field, _ = _field(result, criterion, damage)
    finite = np.isfinite(field)
    if not finite.all():
        _refuse(np.argwhere(~finite & ~result.solid_mask), criterion)


def _refuse(cells: NDArray[np.integer], criterion: str) -> None:
    if len(cells):
        cell = tuple(int(i) for i in cells[0])
        raise NumericalError(f"the field behind criterion {criterion!r} is not finite in tissue cell {cell}")


def _check(criterion: str) -> None:
    if criterion not in CRITERIA:
        raise InputError(f"damage criterion {criterion!r} is not one of {', '.join(CRITERIA)}")


def _isotherm(criterion: str) -> float:
    return float(criterion.removeprefix("isotherm_"))


def _field(result: DamageFields, criterion: str, damage: DamageConfig) -> tuple[NDArray[np.float32], float]:
    """The field a criterion looks at, and its threshold."""
    if criterion in ARRHENIUS_THRESHOLDS:
        return result.damage_integral, ARRHENIUS_THRESHOLDS[criterion]
    if criterion == "cem43":
        return result.thermal_dose, damage.cem43_threshold
    if criterion == "three_state":
        return result.dead_fraction, damage.three_state_threshold
    return result.highest_temperature, _isotherm(criterion)


def _level_in(
    result: DamageFields,
    criterion: str,
    damage: DamageConfig,
    region: Region,
    hot_blood_inside: bool,
) -> NDArray[np.float32]:
    field, threshold = _field(result, criterion, damage)
    solid = result.solid_mask[region]
    level = np.array(field[region], dtype=np.float32, order="C")
    level[solid] = threshold
    finite = np.isfinite(level)
    if not finite.all():
        _refuse(np.argwhere(~finite) + [s.start for s in region], criterion)
    tiny = np.float32(1e-30)
    if criterion.startswith("isotherm"):
        level -= np.float32(threshold)
    elif criterion == "three_state":
        np.subtract(np.float32(1.0), level, out=level)
        np.log(np.maximum(level, np.float32(1e-7), out=level), out=level)
        np.subtract(np.float32(np.log(1.0 - threshold)), level, out=level)
    else:
        np.log(np.maximum(level, tiny, out=level), out=level)
        level -= np.float32(np.log(threshold))
    np.maximum(level, np.float32(LOWEST_LEVEL), out=level)
    _fill_from_neighbours(level, solid)
    _cut_at_vessel_walls(level, result, region, hot_blood_inside)
    return level


def _fill_from_neighbours(level: NDArray[np.float32], unknown: NDArray[np.bool_]) -> None:
    """Give unknown cells the mean of their known neighbours (26 of them), layer by layer, in place."""
    if not unknown.any():
        return
    # One unknown layer more on each side, so that every cell has 26 neighbours.
    cells = np.flatnonzero(np.pad(unknown, 1))
    known = np.pad(~unknown, 1).ravel()
    padded = np.pad(level, 1)
    values = padded.reshape(-1)
    strides = np.asarray(padded.strides) // padded.itemsize
    steps = (np.argwhere(np.ones((3, 3, 3))) - 1) @ strides
    while len(cells):
        total = np.zeros(len(cells))
        count = np.zeros(len(cells))
        for step in steps:
            usable = known[cells + step]
            count += usable
            total += np.where(usable, values[cells + step], 0.0)
        found = count > 0
        if not found.any():
            values[cells] = LOWEST_LEVEL
            break
        values[cells[found]] = total[found] / count[found]
        known[cells[found]] = True
        cells = cells[~found]
    level[...] = padded[1:-1, 1:-1, 1:-1]


def _cut_at_vessel_walls(
    level: NDArray[np.float32], result: DamageFields, region: Region, hot_blood_inside: bool
) -> None:
    """Put blood outside, in place, with the zero at the vessel wall where the tissue beside it is dead."""
    grid: Grid = result.anatomy.grid
    spacing = min(grid.spacing)
    tissue = ~result.solid_mask[region]
    for lumen in result.anatomy.lumens:
        distance = np.ascontiguousarray(lumen.signed_distance[region])
        blood = distance < 0
        blood &= tissue
        if hot_blood_inside:
            blood &= level <= 0
        if not blood.any():
            continue
        # Only blood and the cells that touch it: further away the tissue's own level holds.
        near = dilated(blood)
        near &= distance < spacing
        near &= tissue
        if hot_blood_inside:
            near &= distance >= 0
        cells = np.flatnonzero(near)
        # Two levels per cell: about the slope of ln Ω and ln dose at the edge of a zone. Blood that is
        # colder than that keeps its level, for then a rim of living tissue lies along the wall.
        wall = np.asarray(distance.ravel()[cells] * (2.0 / spacing), dtype=np.float32)
        flat = level.reshape(-1)
        flat[cells] = np.minimum(flat[cells], wall)
