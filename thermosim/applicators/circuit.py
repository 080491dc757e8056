"""The tissue as an electric circuit: terminals against the ground, and what floats between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thermosim.errors import NumericalError

Real = NDArray[np.float64]
Terminals = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Circuit:
    """The tissue as the generator sees it, at the present σ.

    Parameters
    ----------
    admittance : (n, n) [S] Y of the n terminals against the ground: I = Y V.
    electrode_admittance : (n_electrodes, n) [S] current of each electrode per volt at each terminal;
        its rows sum, over the electrodes of a terminal, to the row of `admittance`. None: the
        electrodes of a terminal share its current equally.
    """

    admittance: Real
    electrode_admittance: Real | None = None

    def scaled(self, factor: float) -> Circuit:
        """The circuit of a tissue whose conductance has changed evenly by `factor`."""
        single = self.electrode_admittance
        return Circuit(factor * self.admittance, None if single is None else factor * single)


def terminals_for(drive: str, n_electrodes: int, active: Sequence[int]) -> Terminals:
    """How a segment bonds electrodes into terminals.

    ``together``: one terminal of all active electrodes first, then each other electrode alone;
    ``sequence`` and ``switching``: every electrode alone, in order.

    Examples
    --------
    >>> terminals_for("together", 4, [0, 2])
    ((0, 2), (1,), (3,))
    >>> terminals_for("switching", 3, [0, 2])
    ((0,), (1,), (2,))
    """
    if drive == "together":
        others = [e for e in range(n_electrodes) if e not in active]
        return (tuple(sorted(active)), *((e,) for e in others))
    return tuple((e,) for e in range(n_electrodes))


def terminal_admittance(admittance: Real, terminals: Terminals) -> Real:
    """Y of the terminals from Y of the single electrodes: Sᵀ Y S with S = 1 where electrode ∈ terminal."""
    bond = bond_matrix(terminals, len(admittance))
    return np.asarray(bond.T @ admittance @ bond)


def bond_matrix(terminals: Terminals, n_electrodes: int) -> Real:
    """S (n_electrodes, n_terminals): 1 where an electrode belongs to a terminal, else 0."""
    bond = np.zeros((n_electrodes, len(terminals)))
    for number, group in enumerate(terminals):
        bond[list(group), number] = 1.0
    return bond


def unit_voltages(admittance: Real, active: int) -> tuple[Real, float]:
    """Voltages with the active terminal at 1 V and the others floating, and the conductance G [S].

    A floating terminal carries no net current: Y_ff V_f = −Y_fa, and G = Y_aa + Y_af V_f.

    Raises
    ------
    NumericalError
        When no current can flow or the matrix is not finite.
    """
    if not np.all(np.isfinite(admittance)):
        raise NumericalError("the admittance matrix is not finite; the potential did not converge")
    voltages = np.zeros(len(admittance))
    voltages[active] = 1.0
    floating = np.flatnonzero(voltages == 0.0)
    if floating.size:
        try:
            coupling = admittance[floating, active]
            voltages[floating] = np.linalg.solve(admittance[np.ix_(floating, floating)], -coupling)
        except np.linalg.LinAlgError as error:
            raise NumericalError("a floating electrode has no link to tissue at all") from error
    conductance = float(admittance[active] @ voltages)
    if not conductance > 0.0:
        raise NumericalError(f"terminal {active} has a conductance of {conductance:g} S; no current can flow")
    return voltages, conductance
