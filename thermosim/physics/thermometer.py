"""What sensors read: the temperature at points between the cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.grid import Grid, Vector
from thermosim.backends.base import Array, Backend, Layout


class Thermometer:
    """Sensors at fixed points, read with one gather of eight cells each.

    T(p) = Σ w_i T_i / Σ w_i over the eight cells around p with trilinear weights w, those of metal and
    of cells outside the body left out; where all eight are, the nearest cells of tissue count.

    Parameters
    ----------
    points : of each electrode's sensors, LPS [m].
    solid_mask : cells without tissue, shape (nx, ny, nz).
    reference : what temperature fields are counted from [°C].
    """

    def __init__(
        self,
        backend: Backend,
        layout: Layout,
        grid: Grid,
        points: Sequence[Sequence[Vector]],
        solid_mask: NDArray[np.bool_],
        reference: float,
    ) -> None:
        self.backend, self._reference = backend, reference
        self._counts = [len(group) for group in points]
        entries = [cells_and_weights(grid, point, solid_mask) for group in points for point in group]
        self._starts = np.cumsum([0, *(len(cells) for cells, _ in entries)])
        self._weights = [weights for _, weights in entries]
        cells = np.concatenate([cells for cells, _ in entries]) if entries else np.empty(0, np.int64)
        self._where = backend.asarray(layout.memory_index(cells), "int32")

    def read(self, temperature: Array) -> list[list[float]]:
        """What the sensors of each electrode show [°C] in a field of temperature."""
        (values,) = self.backend.fetch(self.backend.take(temperature, self._where))
        all_of_them = iter(
            float(weights @ values[start : start + len(weights)]) + self._reference
            for start, weights in zip(self._starts, self._weights, strict=False)
        )
        return [[next(all_of_them) for _ in range(count)] for count in self._counts]


def cells_and_weights(
    grid: Grid, point: Vector, solid_mask: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Flat indices of the cells that a sensor at `point` [m, LPS] reads, and their weights (sum 1)."""
    shape = np.array(grid.shape)
    place = (np.asarray(point) - grid.lower_corner) / np.asarray(grid.spacing) - 0.5
    place = np.clip(place, 0.0, shape - 1.0)
    low = np.minimum(place.astype(np.int64), shape - 2)
    part = place - low
    corners = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), axis=-1).reshape(-1, 3)
    weights = np.prod(np.where(corners == 1, part, 1.0 - part), axis=1)
    index = low + corners
    weights[solid_mask[tuple(index.T)]] = 0.0
    keep = weights > 1e-9  # less is the round-off of a point on a cell's centre
    if keep.any():
        return _flat(index[keep], shape), weights[keep] / weights[keep].sum()
    tissue = np.argwhere(~solid_mask)
    distance = np.sum((tissue - place) ** 2, axis=1)
    nearest = tissue[distance <= distance.min() * (1.0 + 1e-9)]  # equally near ones count alike
    return _flat(nearest, shape), np.full(len(nearest), 1.0 / len(nearest))


def _flat(index: NDArray[np.int64], shape: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(np.ravel_multi_index(tuple(index.T), tuple(shape)), dtype=np.int64)
