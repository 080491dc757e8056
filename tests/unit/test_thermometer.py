"""Sensors read the temperature between cells, and never that of metal."""

from __future__ import annotations

import numpy as np
import pytest

from thermosim.anatomy.grid import Grid
from thermosim.backends import select
from thermosim.backends.base import Layout
from thermosim.physics.thermometer import Thermometer, cells_and_weights

SHAPE = (8, 10, 12)
GRID = Grid.box((0.01, -0.02, 0.03), SHAPE, 2e-3)


def points_of(index: np.ndarray) -> tuple[float, float, float]:
    return tuple(float(c) for c in np.asarray(GRID.origin) + 2e-3 * np.asarray(index))  # type: ignore[return-value]


def test_a_linear_temperature_is_read_exactly() -> None:
    backend, layout = select("cpu", 1), Layout(SHAPE)
    rng = np.random.default_rng(1)
    places = rng.uniform(0.0, np.array(SHAPE) - 1.0, (20, 3))
    index = np.moveaxis(np.indices(SHAPE), 0, -1)
    slope = np.array([1.5, -0.75, 0.25])
    field = backend.field(layout)
    layout.interior(field)[:] = backend.asarray(index @ slope, "float32")
    groups = [[points_of(p) for p in places[:3]], [], [points_of(p) for p in places[3:]]]
    read = Thermometer(backend, layout, GRID, groups, np.zeros(SHAPE, bool), 37.0).read(field)
    assert [len(group) for group in read] == [3, 0, 17]
    # values up to 13 K in float32
    assert np.concatenate([np.array(g) for g in read if g]) == pytest.approx(37.0 + places @ slope, abs=2e-6)


def test_metal_is_left_out_and_the_rest_counts_in_full() -> None:
    solid = np.zeros(SHAPE, bool)
    solid[3, 4, 5] = True
    cells, weights = cells_and_weights(GRID, points_of(np.array([3.25, 4.0, 5.0])), solid)
    assert np.array(np.unravel_index(cells, SHAPE)).T.tolist() == [[4, 4, 5]]
    assert weights.tolist() == [1.0]
    cells, weights = cells_and_weights(GRID, points_of(np.array([3.5, 4.5, 5.5])), solid)
    assert len(cells) == 7
    assert weights == pytest.approx(np.full(7, 1.0 / 7.0))


def test_deep_in_metal_the_nearest_tissue_is_read() -> None:
    solid = np.zeros(SHAPE, bool)
    solid[2:6, 3:8, 4:9] = True
    cells, weights = cells_and_weights(GRID, points_of(np.array([3.9, 5.5, 6.5])), solid)
    found = np.array(np.unravel_index(cells, SHAPE)).T
    assert not solid[tuple(found.T)].any()
    assert set(found[:, 0]) == {1} or set(found[:, 0]) == {6}
    assert weights.sum() == pytest.approx(1.0)
    # 2.1 cells to the face at x = 6, more to any other
    assert set(found[:, 0]) == {6}


def test_a_sensor_outside_the_box_reads_its_edge() -> None:
    cells, weights = cells_and_weights(GRID, points_of(np.array([-3.0, 0.0, 20.0])), np.zeros(SHAPE, bool))
    assert np.array(np.unravel_index(cells, SHAPE)).T.tolist() == [[0, 0, 11]]
    assert weights.tolist() == [1.0]
