"""Fields that were solved for known voltages of the terminals, and what follows from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thermosim.backends.base import Array, Backend, Layout

Real = NDArray[np.float64]

NEGLIGIBLE = 1e-9
"""Share of a field that float32 would lose anyway."""


class SolvedFields:
    """One field per terminal, each solved for voltages of its own; all others follow by superposition.

    At first field t is that of terminal t at 1 V and all others at 0. A field solved later for a drive
    takes the place of the one that has the largest share in it, so that the voltages stay a basis.

    Parameters
    ----------
    n : number of terminals.
    """

    def __init__(self, backend: Backend, layout: Layout, n: int) -> None:
        self.backend, self.layout = backend, layout
        self.fields: list[Array] = [backend.field(layout) for _ in range(n)]
        self.voltages: Real = np.eye(n)  # column t: the voltages of field t
        self.last_place: int | None = None  # which field was solved last
        self.earlier: Array | None = None  # that field as it was one solve before, once it is solved in a row

    def shares(self, voltages: Real) -> Real:
        """Share of each field in the one for these voltages."""
        return np.asarray(np.linalg.solve(self.voltages, voltages), dtype=np.float64)

    def superpose(self, voltages: Real, out: Array) -> None:
        """out = the field for these voltages [V], of the σ for which the fields were solved."""
        keep = 0.0
        for share, field in zip(self.shares(voltages), self.fields, strict=True):
            if keep == 0.0 or abs(share) > NEGLIGIBLE:
                self.backend.on_cells(
                    "scale_add", self.layout, np.float32(share), field, np.float32(keep), out
                )
                keep = 1.0

    def place_for(self, voltages: Real) -> int:
        """Which field makes room for the one of these voltages; it is overwritten by their superposition."""
        shares = self.shares(voltages)
        place = int(np.argmax(np.abs(shares)))
        field, keep = self.fields[place], shares[place]
        for number, share in enumerate(shares):
            if number != place and abs(share) > NEGLIGIBLE:
                self.backend.on_cells(
                    "scale_add", self.layout, np.float32(share), self.fields[number], np.float32(keep), field
                )
                keep = 1.0
        if keep != 1.0:
            self.backend.on_cells("scale_add", self.layout, np.float32(keep), field, np.float32(0.0), field)
        self.voltages[:, place] = voltages
        return place

    def earlier_of(self, place: int) -> Array | None:
        """The field at `place`, about to be solved, as it was before its last solve; None if unknown.

        Fields that take turns have none; only one is kept.
        """
        if place != self.last_place:
            self.last_place, self.earlier = place, None
            return None
        if self.earlier is None:
            self.earlier = self.backend.field(self.layout)
            self.backend.on_cells(
                "scale_add", self.layout, np.float32(1.0), self.fields[place], np.float32(0.0), self.earlier
            )
            return None
        return self.earlier

    def start_over(self) -> None:
        """The fields are about to be solved for unit voltages."""
        self.voltages = np.eye(len(self.fields))


def secant_admittance(
    admittance: Real, single: Real, voltages: Real, terminals: tuple[tuple[int, ...], ...], found: Real
) -> tuple[Real, Real]:
    """Y and the electrodes' Y, corrected so that they give the currents `found` at `voltages`.

    The secant update of least change that keeps Y symmetric and positive (BFGS; Nocedal & Wright 2006,
    Numerical Optimization, doi:10.1007/978-0-387-40065-5, ch. 6)

        Y ← Y − (Y V)(Y V)ᵀ / (Vᵀ Y V) + I Iᵀ / (Vᵀ I),   I the currents of the terminals.

    Parameters
    ----------
    admittance : (n, n) [S]. single : (n_electrodes, n) [S], rows of the electrodes.
    voltages : (n,) [V]. found : (n_electrodes,) [A] at these voltages.

    Returns
    -------
    Y and the electrodes' Y; where the power Vᵀ I is not positive, as they were.
    """
    currents = np.array([found[list(group)].sum() for group in terminals])
    before = admittance @ voltages
    power, known = float(voltages @ currents), float(voltages @ before)
    if not (power > 0.0 and known > 0.0):
        return admittance, single
    change = np.outer(currents, currents) / power - np.outer(before, before) / known
    updated = single.copy()
    for row, group in zip(change, terminals, strict=True):
        updated[list(group)] += row / len(group)  # shared evenly, then each electrode by what it lacks
    updated += np.outer(found - updated @ voltages, voltages) / float(voltages @ voltages)
    return admittance + change, updated
