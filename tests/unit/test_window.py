"""A window of a grid: its cells, what lies beyond, and the ways over its rim."""

from __future__ import annotations

import numpy as np
import pytest

from thermosim.backends.base import Layout
from thermosim.numerics.window import SIDES, Window

GRID = Layout((12, 10, 40))

WINDOWS = [
    Window.around(GRID, (3, 2, 9), (7, 9, 20)),
    Window.around(GRID, (0, 2, 0), (4, 10, 17)),  # three sides on faces of the grid
    Window.around(GRID, (5, 4, 30), (6, 5, 31)),
]


def places(part: Layout) -> list[int]:
    return part.memory_index(np.arange(part.n_cells)).tolist()


@pytest.mark.parametrize("window", WINDOWS)
def test_every_cell_lies_inside_or_outside_once(window: Window) -> None:
    cells = [*places(window.layout), *(p for part in window.outside for p in places(part))]
    assert sorted(cells) == sorted(places(GRID))


@pytest.mark.parametrize("window", WINDOWS)
def test_numbers_of_cells(window: Window) -> None:
    cells = np.arange(GRID.n_cells)
    inside = window.contains(cells)
    numbers = window.numbers(cells[inside])
    assert np.array_equal(numbers, np.arange(window.layout.n_cells))
    assert np.array_equal(window.layout.memory_index(numbers), GRID.memory_index(cells[inside]))


def test_the_whole_grid_has_no_rim() -> None:
    whole = Window.whole(GRID)
    assert whole.is_whole
    assert (whole.sides, whole.inner_sides, whole.outside) == (0b111111, (), ())
    assert len(whole.upper_rim(0)) == len(whole.over_the_rim(3)[0]) == 0
    assert Window.around(GRID, (0, 0, 0), (12, 9, 40)).is_whole  # 90 % of the cells
    assert not Window.around(GRID, (0, 0, 0), (12, 7, 40)).is_whole


def test_rows_begin_and_end_on_sectors_or_at_a_face() -> None:
    for window in WINDOWS:
        assert window.lower[2] % 8 == 0
        assert window.upper[2] % 8 == 0 or window.upper[2] == GRID.shape[2]


def test_growing_and_joining() -> None:
    window = WINDOWS[0]
    assert window.grown(2, [(0, False), (1, True)]) == Window(GRID, (1, 2, 8), (7, 10, 24))
    joined = window.joined(Window.around(GRID, (5, 0, 9), (9, 4, 12)))
    assert (joined.lower, joined.upper) == ((3, 0, 8), (9, 9, 24))


@pytest.mark.parametrize("window", WINDOWS)
def test_ways_over_the_rim(window: Window) -> None:
    cells, ends, lengths = window.over_the_rim(3)
    assert np.all(np.diff(cells) >= 0)
    here = np.stack(np.unravel_index(cells, window.layout.shape), axis=1) + window.lower
    there = np.stack(np.unravel_index(ends, GRID.shape), axis=1)
    assert np.array_equal(np.abs(there - here).sum(axis=1), lengths)
    assert not window.contains(ends).any()
    for axis, upper in SIDES:
        ways = (there - here)[:, axis]
        expected = 0
        if (axis, upper) in window.inner_sides:
            expected = window.layout.n_cells // window.layout.shape[axis]
            room = GRID.shape[axis] - window.upper[axis] if upper else window.lower[axis]
            assert set(np.abs(ways[(ways > 0) == upper & (ways != 0)]).tolist()) >= {min(3, room)}
        assert np.count_nonzero(ways > 0 if upper else ways < 0) == expected


@pytest.mark.parametrize("window", WINDOWS)
def test_faces_on_the_upper_rim(window: Window) -> None:
    for axis in range(3):
        index = np.unravel_index(window.upper_rim(axis), window.layout.shape)
        assert np.all(index[axis] == window.layout.shape[axis] - 1)
        assert (len(index[axis]) > 0) == ((axis, True) in window.inner_sides)
