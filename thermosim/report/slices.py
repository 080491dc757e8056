"""A small volume around tumour and zone for the slices of the report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from thermosim.outcome.results import Outcome
from thermosim.simulation import SimulationResult

PADDING = 12e-3
"""Tissue shown beyond tumours and zone on each side [m]."""

MOST_CELLS = 450_000


@dataclass(frozen=True)
class SliceVolume:
    """Highest temperature and labels on a small grid.

    `shape`, `spacing` [m], `origin` centre of cell (0, 0, 0) [m, LPS]. `temperature` uint8 of that
    shape: T = `temperature_offset` + `temperature_step` · value [°C]. `labels` uint8.
    """

    shape: tuple[int, int, int]
    spacing: float
    origin: NDArray[np.float64]
    temperature: NDArray[np.uint8]
    temperature_offset: float
    temperature_step: float
    labels: NDArray[np.uint8]


def slice_volume(result: SimulationResult, outcome: Outcome) -> SliceVolume:
    """Cut the surroundings of tumours and zone out of the fields, at most 450 000 cells.

    The computing grid is kept where it is coarse enough; otherwise temperature is interpolated
    linearly and labels are taken from the nearest cell.
    """
    grid = result.anatomy.grid
    zone = outcome.zones.get(outcome.criterion)
    shown = [t.surface.points for t in outcome.tumors]
    if zone is not None:
        shown.append(zone.surface.points)
    shown = [points for points in shown if len(points)] or [
        np.vstack([e.target_point for e in result.electrodes])
    ]
    points = np.vstack(shown)
    first = grid.points(np.zeros(3))
    last = grid.points(np.asarray(grid.shape) - 1.0)
    lower = np.clip(points.min(axis=0) - PADDING, first, last)
    upper = np.clip(points.max(axis=0) + PADDING, first, last)
    extent = np.maximum(upper - lower, grid.spacing)
    spacing = max(max(grid.spacing), float((np.prod(extent) / MOST_CELLS) ** (1 / 3)))
    shape = tuple(int(n) for n in np.maximum(np.floor(extent / spacing).astype(int), 1) + 1)
    origin = np.asarray(lower if spacing > max(grid.spacing) else grid.points(np.floor(grid.indices(lower))))
    axes = [origin[d] + spacing * np.arange(shape[d]) for d in range(3)]
    index = [(axes[d] - grid.origin[d]) / grid.spacing[d] for d in range(3)]
    coordinates = np.stack(np.meshgrid(*index, indexing="ij"))
    temperature = map_coordinates(result.highest_temperature, coordinates, order=1, mode="nearest")
    nearest = [np.clip(np.round(i).astype(int), 0, n - 1) for i, n in zip(index, grid.shape, strict=True)]
    labels = result.anatomy.labels[np.ix_(*nearest)]
    offset = float(temperature.min())
    step = max(float(temperature.max()) - offset, 1e-3) / 255.0
    coded = np.round((temperature - offset) / step).astype(np.uint8)
    return SliceVolume((shape[0], shape[1], shape[2]), spacing, origin, coded, offset, step, labels)
