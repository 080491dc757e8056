"""Size and shape of the tissue that is dead by one criterion."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.grid import Grid
from thermosim.applicators.electrode import Electrode
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
    return zone_from_level_set(
        level, criterion, describe(criterion, damage), result.anatomy.grid, result.electrodes
    )


def zone_from_level_set(
    level: LevelSet | None,
    criterion: str,
    description: str,
    box: Grid | None = None,
    electrodes: Sequence[Electrode] = (),
) -> AblationZone:
    """The zone inside a level set, simulated or observed; None stands for no dead tissue.

    `electrodes` : those of them that are needles are asked how far the zone reaches beyond their tips.
    """
    needles = [electrode for electrode in electrodes if electrode.kind == "needle"]
    surface = EMPTY if level is None else extract_surface(level)
    volume, _, covariance = moments(surface)
    if level is None or volume <= 0.0:
        nowhere = {electrode.name: float("nan") for electrode in needles}
        return AblationZone(criterion, description, 0.0, 0.0, 0.0, 0.0, 0.0, EMPTY, False, nowhere)
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
        {electrode.name: distance_beyond_tip(level, electrode) for electrode in needles},
    )


def distance_beyond_tip(level: LevelSet, electrode: Electrode) -> float:
    """How far [m] the zone reaches beyond a needle's tip, along its axis and away from the handle.

    Measured from the end of the metal to the farthest point of the axis that lies in the zone;
    negative where the zone ends before the tip, NaN where the axis misses it.
    """
    grid = level.grid
    tip = np.asarray(electrode.target_point)
    away = -electrode.direction
    ends = [(-0.5, n - 0.5) for n in grid.shape]
    along = (grid.points(np.array(list(product(*ends)))) - tip) @ away
    # Between samples a tenth of a cell apart the level is as good as linear.
    step = 0.1 * min(grid.spacing)
    places = np.arange(along.min(), along.max() + step, step)
    points = tip + places[:, None] * away
    inside = grid.contains(points)
    values = np.where(inside, level.sample(points), -1.0)
    dead = np.flatnonzero(values > 0)
    if len(dead) == 0:
        return float("nan")
    last = int(dead[-1])
    end = places[last]
    if last + 1 < len(places) and inside[last + 1]:
        end += step * values[last] / (values[last] - values[last + 1])
    return float(end)


def principal_extents(
    points: NDArray[np.float64], covariance: NDArray[np.float64]
) -> tuple[float, float, float]:
    """Extents [m] of points along the principal axes of a body's covariance, longest first."""
    _, axes = np.linalg.eigh(covariance)
    along = axes.T @ points.T
    extents = np.sort(along.max(axis=1) - along.min(axis=1))
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
