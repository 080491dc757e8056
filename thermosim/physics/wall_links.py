"""Links of cells to walls, sorted once for the whole grid, and the lists of those within a window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermosim.backends.base import Array, Backend, Layout, row_starts
from thermosim.numerics.link_factors import LinkFactors
from thermosim.numerics.window import Window

Index = NDArray[np.int64]
Real = NDArray[np.float64]

RIM = "rim"
"""Name of the wall by which heat leaves a window."""

RIM_LINK = 6e-3
"""Length of the links over the rim [m]. A profile that current has warmed is passed on rightly by any length,
conducted heat by √(k/W): 3 mm in liver, 9 mm in tissue with a tenth of its blood."""


@dataclass(frozen=True)
class ThermalWall:
    """Walls of one kind: fitted links, one temperature per owner [°C], and a name for the audit.

    `by_owner`: the heat into each owner is booked by itself, and its temperature may be changed.
    """

    name: str
    links: LinkFactors
    temperatures: Sequence[float]
    by_owner: bool = False


@dataclass(frozen=True)
class WallArrays:
    """One kind of wall: its links sorted by cell, and what they have booked in a step [J/m]."""

    starts: NDArray[np.int32]  # first link of each row
    cell: Array
    factor: Array
    temperature: Array
    ledger: tuple[Array, Array, Array]  # flow at the start; booked so far, and a stage before
    owner: NDArray[np.int32]
    given: Array  # where each link as it was given is now; if none is missing
    n_owners: int  # 0: booked as one
    places: Array  # of its entries in the list of all links

    @property
    def n(self) -> int:
        return len(self.owner)

    @property
    def booked(self) -> Array:
        return self.ledger[1]


@dataclass(frozen=True)
class CellLists:
    """What `wall_drive` and `add_walls` need of some walls: their links cell by cell, and the cells.

    `links`: first link of each cell, factors, temperatures. `beside`: cell, Σ factor, and room for Σ factor ·
    temperature. `starts`: first cell of each row, and the end.
    """

    links: tuple[Array, Array, Array]
    starts: NDArray[np.int32]
    beside: tuple[Array, Array, Array]

    @property
    def n(self) -> int:
        return int(self.starts[-1])

    @property
    def temperatures(self) -> Array:
        return self.links[-1]


@dataclass(frozen=True)
class _Sorted:
    """The links of one wall, sorted by cell; `place`: of each in the list of all walls' links."""

    wall: ThermalWall
    order: Index
    cells: Index
    place: Index


class WallLinks:
    """All links to walls of a grid.

    Parameters
    ----------
    walls : in order. reference : what temperatures on the device are counted from [°C].
    """

    def __init__(self, walls: Sequence[ThermalWall], layout: Layout, reference: float) -> None:
        self._layout, self._reference = layout, reference
        orders = [np.argsort(wall.links.wall_cells, kind="stable") for wall in walls]
        cells = [wall.links.wall_cells[order] for wall, order in zip(walls, orders, strict=True)]
        cell = np.concatenate([np.empty(0, np.int64), *cells])
        order = np.argsort(cell, kind="stable")
        places = np.split(np.argsort(order), np.cumsum([len(c) for c in cells])[:-1]) if cells else []
        self._walls = [_Sorted(*parts) for parts in zip(walls, orders, cells, places, strict=True)]
        factors = [w.wall.links.wall_factors[w.order] for w in self._walls]
        self._factor = np.concatenate([np.empty(0), *factors])[order]
        self._value = np.concatenate([np.empty(0), *(self._temperature(w) for w in self._walls)])[order]
        self._cell = cell[order]
        self._beside, self._count = np.unique(self._cell, return_counts=True)
        index = np.repeat(np.arange(len(self._beside)), self._count)
        self._strength: Real = np.bincount(index, self._factor, len(self._beside)).astype(np.float64)

    def _temperature(self, one: _Sorted) -> Real:
        given = np.asarray(one.wall.temperatures, dtype=float)
        return np.asarray(given[one.wall.links.wall_owners[one.order]] - self._reference)

    def within(self, backend: Backend, window: Window) -> tuple[dict[str, WallArrays], CellLists]:
        """The arrays of every wall, and the lists of all, for the cells of a window."""
        inside = window.contains(self._cell)
        number = np.cumsum(inside) - 1
        arrays = {}
        for one in self._walls:
            mine = inside[one.place]
            order = one.order[mine]
            arrays[one.wall.name] = _arrays(
                backend,
                window,
                window.numbers(one.cells[mine]),
                one.wall.links.wall_factors[order],
                self._temperature(one)[mine],
                one.wall.links.wall_owners[order],
                np.argsort(order),
                len(one.wall.temperatures) if one.wall.by_owner else 0,
                number[one.place[mine]],
            )
        has_links = window.contains(self._beside)
        lists = _cell_lists(
            backend,
            window,
            window.numbers(self._beside[has_links]),
            self._count[has_links],
            self._strength[has_links],
            self._factor[inside],
            self._value[inside],
        )
        return arrays, lists


@dataclass(frozen=True)
class RimLinks:
    """Links from the cells on a window's rim to cells beyond it, whose temperatures they have.

    `beyond`: these cells, in the order of the links.
    """

    wall: WallArrays
    lists: CellLists
    beyond: Array

    @classmethod
    def of(cls, backend: Backend, window: Window, spacing: float) -> RimLinks:
        """Straight links of `RIM_LINK`, or as long as the grid allows."""
        cells, ends, lengths = window.over_the_rim(max(1, round(RIM_LINK / spacing)))
        n, factors = len(cells), 1.0 / lengths
        nothing, one = np.zeros(n), np.zeros(n, np.int32)
        order = np.arange(n)
        wall = _arrays(backend, window, cells, factors, nothing, one, order, 0, order)
        beside, index, count = np.unique(cells, return_inverse=True, return_counts=True)
        strength = np.bincount(index, factors, len(beside)).astype(np.float64)
        lists = _cell_lists(backend, window, beside, count, strength, factors, nothing)
        return cls(wall, lists, backend.asarray(window.grid.memory_index(ends), "int32"))


def _arrays(
    backend: Backend,
    window: Window,
    cells: Index,
    factors: Real,
    temperature: Real,
    owners: NDArray[np.int32],
    given: Index,
    n_owners: int,
    places: Index,
) -> WallArrays:
    empty = [backend.full(max(1, len(cells)), 0.0, "float64") for _ in range(3)]
    return WallArrays(
        row_starts(cells, window.layout.shape),
        backend.asarray(window.layout.memory_index(cells), "int32"),
        backend.asarray(factors, "float32"),
        backend.asarray(temperature, "float32"),
        (empty[0], empty[1], empty[2]),
        owners,
        backend.asarray(given, "int32"),
        n_owners,
        backend.asarray(places, "int32"),
    )


def _cell_lists(
    backend: Backend,
    window: Window,
    cells: Index,
    counts: NDArray[np.integer[Any]],
    strength: Real,
    factors: Real,
    temperatures: Real,
) -> CellLists:
    return CellLists(
        (
            backend.asarray(np.concatenate([[0], np.cumsum(counts)]), "int32"),
            backend.asarray(factors, "float32"),
            backend.asarray(temperatures, "float32"),
        ),
        row_starts(cells, window.layout.shape),
        (
            backend.asarray(window.layout.memory_index(cells), "int32"),
            backend.asarray(strength, "float32"),
            backend.full(max(1, len(cells)), 0.0, "float32"),
        ),
    )
