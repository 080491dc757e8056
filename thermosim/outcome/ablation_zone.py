"""Size and shape of the tissue that is dead by one criterion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.grid import Grid
from thermosim.config import DamageConfig
from thermosim.outcome.criteria import describe, zone_level_set
from thermosim.outcome.level_set import LevelSet
from thermosim.outcome.results import AblationZone
from thermosim.outcome.surface import EMPTY, extract_surface, moments, triangle_areas
from thermosim.simulation import SimulationResult


def ablation_zone(result: SimulationResult, criterion: str, damage: DamageConfig) -> AblationZone:
    """The ablation zone of one criterion: volume, axes, sphericity and surface.

    Volume V = ⅓ ∮ x·n dA over the closed triangulated surface where the level is zero, second order
    in the cell spacing. Metal inside the zone counts, blood does not.

    Parameters
    ----------
    result : what a simulation returned. criterion : one of `thermosim.outcome.criteria.CRITERIA`.
    damage : thresholds.

    Raises
    ------
    InputError : unknown criterion.
    """
    level = zone_level_set(result, criterion, damage)
    return zone_from_level_set(level, criterion, describe(criterion, damage), result.anatomy.grid)


def zone_from_level_set(
    level: LevelSet | None,
    criterion: str,
    description: str,
    box: Grid | None = None,
) -> AblationZone:
    """The zone inside a level set, simulated or observed; None stands for no dead tissue."""
    surface = EMPTY if level is None else extract_surface(level)
    volume, _, covariance = moments(surface)
    if level is None or volume <= 0.0:
        return AblationZone(criterion, description, 0.0, 0.0, 0.0, 0.0, 0.0, EMPTY, False)
    long_axis, middle_axis, short_axis = principal_extents(surface.points, covariance)
    area = float(triangle_areas(surface).sum())
    sphericity = np.pi ** (1 / 3) * (6.0 * volume) ** (2 / 3) / area
    return AblationZone(
        criterion,
        description,
        volume,
        long_axis,
        middle_axis,
        short_axis,
        float(min(sphericity, 1.0)),
        surface,
        touches_faces(level, box),
    )


def principal_extents(
    points: NDArray[np.float64], covariance: NDArray[np.float64]
) -> tuple[float, float, float]:
    """Extents [m] of points along the principal axes of a body's covariance, longest first."""
    _, axes = np.linalg.eigh(covariance)
    along = points @ axes
    extents = np.sort(along.max(axis=0) - along.min(axis=0))
    return float(extents[2]), float(extents[1]), float(extents[0])


def touches_faces(level: LevelSet, box: Grid | None = None) -> bool:
    """Whether the inside reaches the faces of the box (the level set's own grid by default)."""
    box = level.grid if box is None else box
    first = np.rint(box.indices(np.asarray(level.grid.origin))).astype(int)
    for axis in range(3):
        layers = np.moveaxis(level.values, axis, 0)
        if first[axis] == 0 and (layers[0] > 0).any():
            return True
        if first[axis] + level.grid.shape[axis] == box.shape[axis] and (layers[-1] > 0).any():
            return True
    return False
