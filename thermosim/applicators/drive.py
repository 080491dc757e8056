"""What a generator puts out at one moment, and what it did when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from thermosim.applicators.circuit import Real


@dataclass(frozen=True)
class Drive:
    """What the generator puts out at one moment; RMS values, negative in counter-phase.

    `voltages` [V], `currents` [A], `powers` [W]: (n_terminals,), at the electrodes. `electrode_voltages`,
    `electrode_currents`: (n_electrodes,). `impedance` [Ω]: voltage over current at the generator's
    clamps, NaN while off; `generator_power` [W] leaves them, and cables take what the electrodes do not
    get. `limit`: the generator's limit that holds the output down, if any. `turn`: whose turn it is, a
    terminal or a pair; None while off. `sink_terminal`: the terminal that takes the current of an
    isolated generator. `driven`: electrodes that are connected.
    """

    on: bool
    active_terminal: int | None
    voltages: Real
    currents: Real
    powers: Real
    electrode_voltages: Real
    electrode_currents: Real
    impedance: float
    limit: str | None
    turn: int | None = None
    sink_terminal: int | None = None
    driven: tuple[int, ...] = ()
    generator_power: float = 0.0

    @property
    def total_power(self) -> float:
        """Power that reaches the tissue [W], Σ V I of the electrodes."""
        return float(self.powers.sum())

    def among(self, standing: Sequence[int], n_electrodes: int) -> Drive:
        """The same by all electrodes of a layout, of which only `standing` are in the tissue."""
        if len(standing) == n_electrodes:
            return self
        voltages, currents = np.zeros(n_electrodes), np.zeros(n_electrodes)
        voltages[list(standing)] = self.electrode_voltages
        currents[list(standing)] = self.electrode_currents
        return replace(
            self,
            electrode_voltages=voltages,
            electrode_currents=currents,
            driven=tuple(standing[e] for e in self.driven),
        )

    @property
    def load_impedance(self) -> float:
        """Impedance [Ω] behind the cables."""
        return self.impedance * (self.total_power / self.generator_power) if self.on else self.impedance

    @property
    def electrode_powers(self) -> Real:
        """Power that leaves through each electrode [W], V I; negative where a floating one takes it in."""
        return self.electrode_voltages * self.electrode_currents


@dataclass(frozen=True)
class Event:
    """Something the generator did at `time` [s in the segment] with one terminal, or a pair.

    `kind` and `value`: ``pulse`` or ``turn`` begins with a power [W], voltage [V] or current [A];
    ``rise`` of the impedance to [Ω]; ``power_drop`` to [W]; ``limit:maximum_impedance`` exceeded by
    [Ω]; any other ``limit:NAME`` begins to hold the voltage at [V]; ``target_reached`` and
    ``hold_end`` at [°C]; ``dwell_end`` after [s]; ``done``: no more power for it, at [s].
    """

    time: float
    kind: str
    terminal: int
    value: float
    sink: int | None = None
