"""A box of cells within a grid, where things are computed step by step; beyond it at longer intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from thermosim.backends.base import Layout

Place = tuple[int, int, int]
Side = tuple[int, bool]
"""Axis, and whether it is the upper one of its two sides."""

SIDES: tuple[Side, ...] = tuple((axis, upper) for axis in range(3) for upper in (False, True))

MOST_OF_THE_GRID = 0.8
"""A window with more than this share of the cells is the whole grid: the rest saves less than it costs."""

ALIGNMENT = 8
"""Cells along z to which a window is widened: its rows begin and end on 32-byte sectors."""


@dataclass(frozen=True)
class Window:
    """The cells from `lower` up to but not including `upper` of a grid.

    Examples
    --------
    >>> window = Window.around(Layout((40, 40, 40)), (12, 15, 9), (20, 22, 30))
    >>> window.layout.shape, window.sides, [part.shape for part in window.outside]
    ((8, 7, 24), 0, [(12, 40, 40), (20, 40, 40), (8, 15, 40), (8, 18, 40), (8, 7, 8), (8, 7, 8)])
    """

    grid: Layout
    lower: Place
    upper: Place

    @classmethod
    def whole(cls, grid: Layout) -> Window:
        """All cells."""
        return cls(grid, (0, 0, 0), grid.shape)

    @classmethod
    def around(cls, grid: Layout, lower: Sequence[int], upper: Sequence[int]) -> Window:
        """At least these cells, as far as they lie in the grid; all of them if that is most of the grid."""
        low, high = list(lower), list(upper)
        low[2], high[2] = low[2] // ALIGNMENT * ALIGNMENT, -(-high[2] // ALIGNMENT) * ALIGNMENT
        low = [min(max(0, a), n - 1) for a, n in zip(low, grid.shape, strict=True)]
        high = [max(a + 1, min(b, n)) for a, b, n in zip(low, high, grid.shape, strict=True)]
        found = cls(grid, (low[0], low[1], low[2]), (high[0], high[1], high[2]))
        return cls.whole(grid) if found.layout.n_cells > MOST_OF_THE_GRID * grid.n_cells else found

    def joined(self, other: Window) -> Window:
        """The smallest one around both."""
        low = [min(a, b) for a, b in zip(self.lower, other.lower, strict=True)]
        high = [max(a, b) for a, b in zip(self.upper, other.upper, strict=True)]
        return Window.around(self.grid, low, high)

    def grown(self, cells: int, sides: Sequence[Side]) -> Window:
        """Wider by so many cells on these sides."""
        low, high = list(self.lower), list(self.upper)
        for axis, is_upper in sides:
            if is_upper:
                high[axis] += cells
            else:
                low[axis] -= cells
        return Window.around(self.grid, low, high)

    @property
    def is_whole(self) -> bool:
        return self.layout is self.grid

    @cached_property
    def layout(self) -> Layout:
        """Its cells, as a box of their own in the grid's fields."""
        if self.lower == (0, 0, 0) and self.upper == self.grid.shape:
            return self.grid
        return self.grid.part(self.lower, self.upper)

    @cached_property
    def inner_sides(self) -> tuple[Side, ...]:
        """Sides beyond which there are more cells of the grid."""
        ends = ((axis, upper, (self.lower, self.upper)[upper][axis]) for axis, upper in SIDES)
        return tuple((axis, upper) for axis, upper, end in ends if end != (0, self.grid.shape[axis])[upper])

    @property
    def sides(self) -> int:
        """Bits of the sides on the grid's faces, as kernels/bioheat.cu numbers them."""
        return sum(1 << bit for bit, side in enumerate(SIDES) if side not in self.inner_sides)

    @cached_property
    def outside(self) -> tuple[Layout, ...]:
        """All other cells, as boxes that do not overlap."""
        parts, low, high = [], [0, 0, 0], list(self.grid.shape)
        for axis in range(3):
            for start, end in ((0, self.lower[axis]), (self.upper[axis], self.grid.shape[axis])):
                if start < end:
                    begin, stop = list(low), list(high)
                    begin[axis], stop[axis] = start, end
                    parts.append(self.grid.part((begin[0], begin[1], begin[2]), (stop[0], stop[1], stop[2])))
            low[axis], high[axis] = self.lower[axis], self.upper[axis]
        return tuple(parts)

    def contains(self, cells: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of some cells of the grid [flat] lie in the window."""
        if self.is_whole:
            return np.ones(len(cells), dtype=bool)
        mask = np.zeros(self.grid.shape, dtype=bool)
        mask[tuple(slice(a, b) for a, b in zip(self.lower, self.upper, strict=True))] = True
        return mask.ravel()[cells]

    def numbers(self, cells: NDArray[np.int64]) -> NDArray[np.int64]:
        """The window's numbers of some of its cells, given by those of the grid [flat]."""
        if self.is_whole:
            return cells
        _, ny, nz = self.grid.shape
        row, k = np.divmod(cells, nz)
        i, j = np.divmod(row, ny)
        low, shape = self.lower, self.layout.shape
        return np.asarray(((i - low[0]) * shape[1] + j - low[1]) * shape[2] + k - low[2], dtype=np.int64)

    @cached_property
    def _own_numbers(self) -> NDArray[np.int64]:
        return np.arange(self.layout.n_cells).reshape(self.layout.shape)

    def upper_rim(self, axis: int) -> NDArray[np.int64]:
        """The window's numbers of cells with faces to cells beyond its upper side along an axis."""
        if (axis, True) not in self.inner_sides:
            return np.empty(0, np.int64)
        return np.asarray(np.take(self._own_numbers, -1, axis).ravel(), dtype=np.int64)

    def over_the_rim(self, distance: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """From every rim cell straight out of the window, `distance` cells or as far as the grid goes.

        Returns the rim cells by the window's numbers, sorted; the grid's cells [flat] where the ways end; and
        the ways' lengths [cells]. A cell on an edge has a way over each of its sides.
        """
        cells, ends, lengths = ([np.empty(0, np.int64)] for _ in range(3))
        steps = (self.grid.shape[1] * self.grid.shape[2], self.grid.shape[2], 1)
        for axis, is_upper in self.inner_sides:
            room = self.grid.shape[axis] - self.upper[axis] if is_upper else self.lower[axis]
            length, layer = min(distance, room), -1 if is_upper else 0
            cells.append(np.take(self._own_numbers, layer, axis).ravel())
            places = [np.arange(a, b) for a, b in zip(self.lower, self.upper, strict=True)]
            places[axis] = places[axis][layer:][:1] + (length if is_upper else -length)
            i, j, k = np.ix_(*(place * step for place, step in zip(places, steps, strict=True)))
            ends.append((i + j + k).ravel())
            lengths.append(np.full(len(cells[-1]), length))
        cell = np.concatenate(cells)
        order = np.argsort(cell, kind="stable")
        return cell[order], np.concatenate(ends)[order], np.concatenate(lengths)[order]
