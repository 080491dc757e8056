"""The generator: which voltage every terminal gets, from the impedance it sees and the time.

A *terminal* is a group of electrodes bonded together. The generator drives one terminal at a time
against the ground; all others float, that is, they carry no net current.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thermosim.applicators.circuit import Circuit as Circuit
from thermosim.applicators.circuit import Real, bond_matrix, terminals_for, unit_voltages
from thermosim.config import GeneratorConfig, SegmentConfig
from thermosim.errors import InputError
from thermosim.units import MINUTE

TIME_TOLERANCE = 1e-9
"""Two moments closer than this [s] are the same moment."""


@dataclass(frozen=True)
class Drive:
    """What the generator puts out at one moment; RMS values.

    `voltages` [V], `currents` [A], `powers` [W]: (n_terminals,). `electrode_voltages`,
    `electrode_currents`: (n_electrodes,). `impedance` [Ω]: voltage over current of the driven
    terminal, NaN while off. `limit`: the generator's limit that holds the output down, if any.
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

    @property
    def total_power(self) -> float:
        """Power that leaves the generator [W], Σ V I."""
        return float(self.powers.sum())

    @property
    def electrode_powers(self) -> Real:
        """Power that leaves through each electrode [W], V I; negative where a floating one takes it in."""
        return self.electrode_voltages * self.electrode_currents


@dataclass(frozen=True)
class Event:
    """Something the generator did at `time` [s in the segment] with one terminal.

    `kind` and `value`: ``pulse`` or ``turn`` begins with a power [W] (a voltage [V] at constant
    voltage); ``rise`` of the impedance to [Ω]; ``dwell_end`` after [s]; ``limit:NAME`` begins to
    hold the voltage at [V].
    """

    time: float
    kind: str
    terminal: int
    value: float


class Generator:
    """Runs one segment: call `drive` at rising times, at the latest at `next_event`.

    Parameters
    ----------
    config, segment : modes, limits, and how the needles take turns.
    n_electrodes : all electrodes of the layout.
    active : indices of those the segment drives; None: all.

    Notes
    -----
    ``constant_voltage``: V as given. ``constant_power``: V = √(P/G), with G the conductance of the
    driven terminal, others floating. ``impedance_controlled``: a pulse starts at `power` and gains
    `power_ramp` per minute; when the impedance exceeds the lowest one of the pulse's first
    `baseline_time` by `impedance_rise`, output pauses for `pause` seconds and the next pulse
    starts at `power_reduction` times the power last delivered, never below `minimum_power`
    (Goldberg et al. 1999, J Vasc Interv Radiol 10:907, describe such pulsing). Every limit holds
    at every moment: the output is scaled down to the tightest.

    Driven in ``sequence`` each needle has an equal share of the segment; ``switching`` moves on
    after `dwell_time`, or at once when the impedance rises by `switch_impedance_rise`, and lets a
    needle that rose rest for `pause` seconds.
    """

    def __init__(
        self,
        config: GeneratorConfig,
        segment: SegmentConfig,
        n_electrodes: int,
        active: Sequence[int] | None = None,
    ) -> None:
        chosen = list(range(n_electrodes)) if active is None else sorted(set(active))
        if not chosen or min(chosen) < 0 or max(chosen) >= n_electrodes:
            raise InputError(
                f"a segment drives needles {chosen} of {n_electrodes}; name at least one that exists"
            )
        self.config, self.segment = config, segment
        self.n_electrodes = n_electrodes
        self.terminals = terminals_for(segment.drive, n_electrodes, chosen)
        self.duration = segment.duration_min * MINUTE
        self._driven = [0] if segment.drive == "together" else chosen
        self._bond = bond_matrix(self.terminals, n_electrodes)
        self._voltage = config.voltage if segment.voltage is None else segment.voltage
        power = config.power if segment.power is None else segment.power
        self._pulsing = config.mode == "impedance_controlled"
        # the state; lists run over the driven terminals, `_turn` is a place in them
        self._turn: int | None = None
        self._next_turn = 0
        self._turn_start = 0.0
        self._baseline: float | None = None
        self._power = [float(power)] * len(self._driven)
        self._delivered: float | None = None
        self._rest_until = [0.0] * len(self._driven)
        self._limit: str | None = None
        self.events: list[Event] = []

    # ------------------------------------------------------------------------ output

    def drive(self, time: float, circuit: Circuit) -> Drive:
        """Read the circuit at `time` [s in the segment] and choose the output.

        Raises
        ------
        NumericalError
            When the circuit is not finite or carries no current.
        """
        n = len(self.terminals)
        if circuit.admittance.shape != (n, n):
            raise InputError(f"the circuit has shape {circuit.admittance.shape}, the segment {n} terminals")
        while True:
            self._take_turn(time)
            if self._turn is None:
                return self._silence()
            terminal = self._driven[self._turn]
            unit, conductance = unit_voltages(circuit.admittance, terminal)
            if not self._rises(time, 1.0 / conductance):
                return self._output(time, circuit, unit, conductance)

    def next_event(self, time: float) -> float:
        """The next moment [s in the segment] at which the output may change by itself."""
        if self._turn is None:
            moments = [until for until in self._rest_until if until > time + TIME_TOLERANCE]
        else:
            moments = [time + self.config.control_interval] if math.isfinite(self._allowed_rise()) else []
            if self.segment.drive == "switching":
                moments.append(self._turn_start + self.segment.dwell_time)
        if self.segment.drive == "sequence":
            moments.append((self._place_in_sequence(time) + 1) * self._share)
        moments.append(self.duration)
        later = [moment for moment in moments if moment > time + TIME_TOLERANCE]
        return min(later, default=time + self.config.control_interval)

    def _silence(self) -> Drive:
        zeros, none = np.zeros(len(self.terminals)), np.zeros(self.n_electrodes)
        return Drive(False, None, zeros, zeros, zeros, none, none, math.nan, None)

    def _output(self, time: float, circuit: Circuit, unit: Real, conductance: float) -> Drive:
        """Voltages within the limits, for the terminal that has its turn."""
        assert self._turn is not None
        config, terminal = self.config, self._driven[self._turn]
        wanted = self._wanted_power(time)
        voltage = self._voltage if wanted is None else math.sqrt(wanted / conductance)
        if not voltage > 0.0:
            self._delivered = 0.0
            return self._silence()
        if circuit.electrode_admittance is None:
            sizes = self._bond.sum(axis=0)
            currents = np.zeros(len(unit))
            currents[terminal] = conductance
            per_volt = self._bond @ (currents / sizes)
        else:
            per_volt = np.asarray(circuit.electrode_admittance @ unit)
        most = float(np.max(np.abs(per_volt[list(self.terminals[terminal])])))
        ceilings = {
            "maximum_power": math.sqrt(config.maximum_power / conductance),
            "maximum_voltage": config.maximum_voltage,
            "maximum_current": config.maximum_current / most,
        }
        tightest = min(ceilings, key=lambda name: ceilings[name])
        limit = tightest if ceilings[tightest] < voltage * (1.0 - 1e-12) else None
        voltage = min(voltage, ceilings[tightest])
        if limit != self._limit and limit is not None:
            self._note(time, f"limit:{limit}", voltage)
        self._limit = limit
        current = conductance * voltage
        self._delivered = voltage * current
        currents, powers = np.zeros(len(unit)), np.zeros(len(unit))
        currents[terminal], powers[terminal] = current, voltage * current
        volts = voltage * unit
        return Drive(
            True,
            terminal,
            volts,
            currents,
            powers,
            self._bond @ volts,
            voltage * per_volt,
            1.0 / conductance,
            limit,
        )

    def _wanted_power(self, time: float) -> float | None:
        """Power the mode asks for before any limit [W]; None where it asks for a voltage."""
        assert self._turn is not None
        if self.config.mode == "constant_voltage":
            return None
        power = self._power[self._turn]
        if self._pulsing:
            power += self.config.power_ramp * (time - self._turn_start) / MINUTE
        return power

    # ------------------------------------------------------------------------ whose turn

    def _take_turn(self, time: float) -> None:
        """Changes that come with time alone: end of a pause, of a dwell, of a share."""
        if self.segment.drive == "switching":
            self._switch(time)
        else:
            place = self._place_in_sequence(time) if self.segment.drive == "sequence" else 0
            if place != self._turn and self._is_ready(place, time):
                self._begin(place, time, "turn" if place != self._next_turn else "pulse")
                self._next_turn = place

    def _switch(self, time: float) -> None:
        if self._turn is not None:
            if time < self._turn_start + self.segment.dwell_time - TIME_TOLERANCE:
                return
            self._keep_reached_power(time)
            self._note(time, "dwell_end", time - self._turn_start)
            self._next_turn = (self._turn + 1) % len(self._driven)
            self._turn = None
        n = len(self._driven)
        for step in range(n):
            place = (self._next_turn + step) % n
            if self._is_ready(place, time):
                self._begin(place, time, "turn")
                return

    @property
    def _share(self) -> float:
        return self.duration / len(self._driven)

    def _place_in_sequence(self, time: float) -> int:
        return min(int((time + TIME_TOLERANCE) / self._share), len(self._driven) - 1)

    def _is_ready(self, place: int, time: float) -> bool:
        return time >= self._rest_until[place] - TIME_TOLERANCE

    def _begin(self, place: int, time: float, kind: str) -> None:
        self._turn, self._turn_start = place, time
        self._baseline = self._delivered = self._limit = None
        self._note(
            time, kind, self._voltage if self.config.mode == "constant_voltage" else self._power[place]
        )

    # ------------------------------------------------------------------------ impedance

    def _rises(self, time: float, impedance: float) -> bool:
        """Follow the baseline; on a rise end the turn and let its terminal rest."""
        assert self._turn is not None
        if self._baseline is None:
            self._baseline = impedance
        elif time <= self._turn_start + self.config.baseline_time + TIME_TOLERANCE:
            self._baseline = min(self._baseline, impedance)
        if impedance <= self._baseline + self._allowed_rise():
            return False
        if self._pulsing:
            self._keep_reached_power(time)
            reduced = self._power[self._turn] * self.config.power_reduction
            self._power[self._turn] = max(reduced, self.config.minimum_power)
        self._note(time, "rise", impedance)
        self._rest_until[self._turn] = time + self.config.pause
        self._next_turn = self._turn
        if self.segment.drive == "switching":
            self._next_turn = (self._turn + 1) % len(self._driven)
        self._turn = None
        return True

    def _allowed_rise(self) -> float:
        """Rise over the baseline that ends a turn [Ω]."""
        allowed = [math.inf]
        if self._pulsing:
            allowed.append(self.config.impedance_rise)
        if self.segment.drive == "switching":
            allowed.append(self.segment.switch_impedance_rise)
        return min(allowed)

    def _keep_reached_power(self, time: float) -> None:
        """Remember what the ramp reached, or what a limit left of it."""
        wanted = self._wanted_power(time)
        if self._pulsing and wanted is not None and self._turn is not None:
            limited = self._limit is not None and self._delivered is not None
            self._power[self._turn] = min(wanted, self._delivered or 0.0) if limited else wanted

    def _note(self, time: float, kind: str, value: float) -> None:
        place = 0 if self._turn is None else self._turn
        self.events.append(Event(time, kind, self._driven[place], value))

    # ------------------------------------------------------------------------ checkpoints

    def state(self) -> dict[str, Any]:
        """Everything that changes, as plain values for JSON (which keeps every bit of a float)."""
        return {
            "turn": self._turn,
            "next_turn": self._next_turn,
            "turn_start": self._turn_start,
            "baseline": self._baseline,
            "power": list(self._power),
            "delivered": self._delivered,
            "rest_until": list(self._rest_until),
            "limit": self._limit,
            "events": [[e.time, e.kind, e.terminal, e.value] for e in self.events],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, bit for bit.

        Raises
        ------
        InputError
            When the state does not belong to this segment.
        """
        n = len(self._driven)
        try:
            turn, power, rest = state["turn"], list(state["power"]), list(state["rest_until"])
            fits = len(power) == len(rest) == n and (turn is None or 0 <= turn < n)
            fits = fits and 0 <= state["next_turn"] < n
            if not fits:
                raise ValueError(f"{len(power)} terminals for {n}")
            self._turn, self._next_turn = turn, int(state["next_turn"])
            self._turn_start = float(state["turn_start"])
            self._baseline, self._delivered = state["baseline"], state["delivered"]
            self._power, self._rest_until = [float(p) for p in power], [float(r) for r in rest]
            self._limit = state["limit"]
            self.events = [Event(float(t), str(k), int(e), float(v)) for t, k, e, v in state["events"]]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"the generator's checkpoint does not fit this segment ({error}); start the run anew"
            ) from error
