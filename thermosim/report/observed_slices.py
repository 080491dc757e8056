"""Cells around an observed tumour and zone, and the CTs on them, for the slices of a report."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.grid import Grid
from thermosim.outcome.observation import Observation
from thermosim.outcome.registration import Image, Motion, no_motion, resampled
from thermosim.report.page_data import SliceImage, volume_data

PADDING = 20e-3
"""Tissue shown beyond tumour and zone on each side [m]."""
MOST_CELLS = 450_000
WINDOW = (-100.0, 220.0)
"""Grey values from black to white [HU]."""


def observed_volume(observation: Observation) -> dict[str, Any]:
    """Cells around tumour and zone, with what CTs there are."""
    grid = cells_around([observation.tumor.surface.points, observation.zone_shape.surface.points])
    images = []
    for name, ct, motion in (
        ("CT before", observation.inputs.ct_before, no_motion()),
        ("CT after", observation.inputs.ct_after, observation.motion),
    ):
        if ct is not None:
            images.append(grey_image(name, ct, grid, motion))
    board = (0, 1) if len(images) == 2 else None
    return volume_data(grid.shape, grid.spacing[0], np.asarray(grid.origin), images, board)


def cells_around(clouds: list[NDArray[np.float64]], finest: float = 1e-3, padding: float = PADDING) -> Grid:
    """Isotropic, axis-aligned cells around clouds of points [m], at most 450 000."""
    points = np.vstack([cloud for cloud in clouds if len(cloud)])
    lower, upper = points.min(axis=0) - padding, points.max(axis=0) + padding
    spacing = max(finest, float((np.prod(upper - lower) / MOST_CELLS) ** (1 / 3)))
    shape = tuple(int(n) for n in np.ceil((upper - lower) / spacing))
    return Grid.box(tuple(0.5 * (lower + upper)), shape, spacing)  # type: ignore[arg-type]


def grey_image(name: str, ct: Image, grid: Grid, motion: Motion) -> SliceImage:
    """A CT on the cells, in the window of soft tissue."""
    low, high = WINDOW
    values = np.clip(resampled(ct, grid, motion, outside=low), low, high)
    coded = np.round((values - low) / (high - low) * 255.0).astype(np.uint8)
    return SliceImage(name, coded, low, (high - low) / 255.0)
