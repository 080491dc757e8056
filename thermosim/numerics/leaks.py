"""Links of a level's cells to walls at a known potential, kept by rows: few rows have any but at their ends.

Electrodes reach a few hundred cells; the ground holds the faces of the box, which are whole rows at four of
them and the two ends of every row at the others. `kernels/multigrid.cu` (`leak_of_row`) reads them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermosim.backends.base import Array, Backend, Layout

ROW_ALIGNMENT = 8
"""Floats: rows of cells begin at whole 32-byte sectors."""


class Leaks:
    """Room for the links of some cells.

    Parameters
    ----------
    cells : numbers ``(i * ny + j) * nz + k`` of the cells that may have one.

    Attributes
    ----------
    values : float32; first three rows for all to share, as the kernels want them; then two numbers for each
        row that has links at its ends alone; then rows of cells.
    rows : int32, for each row of the grid where its cells begin and where its two numbers lie, 0 for the
        shared zeros.
    """

    def __init__(self, backend: Backend, layout: Layout, cells: NDArray[np.int64]) -> None:
        self.backend, self.layout, nz = backend, layout, layout.shape[2]
        row, k = np.divmod(np.unique(cells), nz)
        whole = np.unique(row[(k > 0) & (k < nz - 1)])
        short = np.setdiff1d(row, whole)
        length = -(-nz // ROW_ALIGNMENT) * ROW_ALIGNMENT
        self._shared = 3 * length
        begin = self._shared + -(-2 * len(short) // ROW_ALIGNMENT) * ROW_ALIGNMENT
        table = np.zeros((layout.n_rows, 2), np.int32)
        table[short, 1] = self._shared + 2 * np.arange(len(short))
        table[whole, 0] = begin + length * np.arange(len(whole))
        values = np.zeros(begin + length * len(whole), np.float32)
        values[[length, 2 * length + nz - 1]] = 1.0
        self.values: Array = backend.asarray(values, "float32")
        self.rows: Array = backend.asarray(table.ravel(), "int32")

    @property
    def arrays(self) -> tuple[Array, Array]:
        return self.values, self.rows

    @property
    def _table(self) -> NDArray[np.int64]:
        return np.asarray(self.backend.to_host(self.rows), np.int64).reshape(-1, 2)

    def places(self, cells: NDArray[np.int64]) -> NDArray[np.int32]:
        """Where in `values` the links of these cells lie, which are some of those it has room for."""
        nz = self.layout.shape[2]
        row, k = np.divmod(np.asarray(cells, np.int64), nz)
        begin, ends = self._table[row].T
        if np.any((begin == 0) & ((ends == 0) | (k > 0) & (k < nz - 1))):
            raise ValueError("no room for the links of some cells")
        return np.asarray(np.where(begin > 0, begin + k, ends + (k > 0)), np.int32)

    def clear(self) -> None:
        """No links."""
        self.values[self._shared :] = 0.0

    def set_all(self, links: NDArray[Any]) -> None:
        """Take over links given for every cell, (nx, ny, nz); it has room for all that are not zero."""
        cells = np.flatnonzero(links)
        values = np.zeros(self.values.size - self._shared, np.float32)
        values[self.places(cells) - self._shared] = links.ravel()[cells]
        self.values[self._shared :] = self.backend.asarray(values, "float32")

    def on_host(self) -> NDArray[np.float32]:
        """The links of every cell, (nx, ny, nz)."""
        values, (begin, ends) = np.asarray(self.backend.to_host(self.values)), self._table.T
        links = values[begin[:, None] + np.arange(self.layout.shape[2])]
        links[:, 0] += values[ends]
        links[:, -1] += values[ends + 1]
        return np.asarray(links.reshape(self.layout.shape), np.float32)


def parents_of(cells: NDArray[np.int64], fine: Layout, coarse: Layout) -> NDArray[np.int64]:
    """The cells of the coarser level that these cells belong to, each once."""
    i, j, k = np.unravel_index(cells, fine.shape)
    return np.unique(np.ravel_multi_index((i // 2, j // 2, k // 2), coarse.shape))
