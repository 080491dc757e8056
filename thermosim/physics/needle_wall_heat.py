"""Joule heat on the links between tissue and a cooled needle's wall: half of it arises at the wall.

Along a tube of current the heat is spread evenly over the potential: with φ as coordinate k d²θ/dφ² = −σ, so
that half of a link's heat flows to either end. All of it is booked on the tissue's cell; the wall's half is
taken back by a wall that seems colder by

    ½ (σ/k) (V − φ)²,

whatever film lies between metal and coolant: the same factors conduct current and heat. An uncooled needle
takes no heat, and all of it stays in the tissue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from thermosim.backends.base import Array, Backend, Layout
from thermosim.numerics.link_factors import LinkFactors


@dataclass
class NeedleWallHeat:
    """Wall temperatures of the cooled needles' links, as heat on them makes them seem.

    Parameters
    ----------
    links : of the cooled needles; `electrodes` is the number of each owner among all electrodes.
    temperatures : coolant of each owner, counted from the initial temperature [K].
    """

    backend: Backend
    layout: Layout
    links: LinkFactors
    electrodes: Sequence[int]
    temperatures: Sequence[float]
    half: Array | None = field(
        default=None, init=False
    )  # ½ σ (V − φ)² of each link at unit power scale [W/m]

    def __post_init__(self) -> None:
        owners = self.links.wall_owners
        self._electrode = np.asarray(self.electrodes, dtype=np.int64)[owners]
        self._cell = self.backend.asarray(self.layout.memory_index(self.links.wall_cells), "int32")
        self._coolant = self.backend.asarray(np.asarray(self.temperatures, dtype=float)[owners], "float32")

    def learn(self, potential: Array, sigma: Array, voltages: NDArray[np.float64]) -> None:
        """Take over the field [V] of these voltages, one per electrode, and σ [S/m]."""
        wall = self.backend.asarray(voltages[self._electrode], "float32")
        self.half = self._new()
        self.backend.on_entries("half_link_heat", wall.size, self._cell, wall, sigma, potential, self.half)

    def seeming_temperatures(self, conductivity: Array, scale: float) -> Array:
        """Of every link's wall, counted from the initial temperature [K].

        `conductivity`: k(T) of the cells [W/(m K)]; `scale`: the power over that of the field learnt.
        """
        if self.half is None or scale == 0.0:
            return self._coolant
        seeming = self._new()
        self.backend.on_entries(
            "seeming_wall",
            seeming.size,
            self._cell,
            self._coolant,
            self.half,
            np.float32(scale),
            conductivity,
            seeming,
        )
        return seeming

    def _new(self) -> Array:
        """A value for each link."""
        return self.backend.empty(len(self._electrode), "float32")
