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


def terminals_for(drive: str, units: Sequence[str], active: Sequence[int]) -> Terminals:
    """How a segment bonds electrodes into terminals; those of one unit are bonded always.

    ``together``: one terminal of all active electrodes first, then each other unit; ``sequence``,
    ``switching`` and ``bipolar``: every unit is a terminal, in the order in which units appear.

    Parameters
    ----------
    units : the unit of each electrode. active : indices of the electrodes that the segment drives.

    Examples
    --------
    >>> terminals_for("together", ["a", "b", "c", "d"], [0, 2])
    ((0, 2), (1,), (3,))
    >>> terminals_for("switching", ["cluster", "cluster", "needle"], [0, 1, 2])
    ((0, 1), (2,))
    """
    bonded = {name: tuple(e for e, unit in enumerate(units) if unit == name) for name in dict.fromkeys(units)}
    if drive == "together":
        others = [group for group in bonded.values() if group[0] not in active]
        return (tuple(sorted(active)), *others)
    return tuple(bonded.values())


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


def unit_voltages(admittance: Real, active: int, sink: int | None = None) -> tuple[Real, float]:
    """Voltages per volt of the generator, all undriven terminals floating, and the conductance G [S].

    Against the ground (`sink` None) the active terminal is at 1 V. An isolated generator drives the
    active terminal against the terminal `sink`: V_a − V_s = 1 V and I_a = −I_s; only differences count,
    and V_a = −V_s = 1/2 V is chosen. A floating terminal carries no net current:
    Y_ff V_f = −Y_fa V_a − Y_fs V_s, and G = I_a / (V_a − V_s).

    Raises
    ------
    NumericalError
        When no current can flow or the matrix is not finite.

    Examples
    --------
    Two terminals joined by 10 mS, without any ground:

    >>> voltages, conductance = unit_voltages(np.array([[0.01, -0.01], [-0.01, 0.01]]), 0, 1)
    >>> voltages.tolist(), conductance
    ([0.5, -0.5], 0.01)
    """
    if not np.all(np.isfinite(admittance)):
        raise NumericalError("the admittance matrix is not finite; the potential did not converge")
    voltages = np.zeros(len(admittance))
    voltages[active] = 1.0
    driven = [active]
    if sink is not None:
        voltages[active], voltages[sink] = 0.5, -0.5
        driven = [active, sink]
    floating = [terminal for terminal in range(len(admittance)) if terminal not in driven]
    if floating:
        try:
            coupling = admittance[np.ix_(floating, driven)] @ voltages[driven]
            voltages[floating] = np.linalg.solve(admittance[np.ix_(floating, floating)], -coupling)
        except np.linalg.LinAlgError as error:
            raise NumericalError("a floating electrode has no link to tissue at all") from error
    conductance = float(admittance[active] @ voltages)
    if not conductance > 0.0:
        raise NumericalError(f"terminal {active} has a conductance of {conductance:g} S; no current can flow")
    return voltages, conductance
