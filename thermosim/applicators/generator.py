"""The generator: which voltage every terminal gets, from what it reads and the time.

A *terminal* is a group of electrodes bonded together: one unit (a device, or one pole of it), or all
driven units at once. The generator drives one terminal at a time against the ground, or, isolated from
the ground, one against another; all others float, that is, they carry no net current.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from thermosim.applicators.circuit import Circuit as Circuit
from thermosim.applicators.circuit import Real, bond_matrix, terminals_for, unit_voltages
from thermosim.applicators.controllers import TIME_TOLERANCE, Output, controller_for
from thermosim.applicators.drive import Drive as Drive
from thermosim.applicators.drive import Event as Event
from thermosim.config import GeneratorConfig, SegmentConfig
from thermosim.errors import InputError
from thermosim.units import MINUTE

Readings = Sequence[Sequence[float]]
"""Temperatures [°C] of each electrode's sensors."""


class Generator:
    """Runs one segment: call `drive` at rising times, at the latest at `next_event`.

    Parameters
    ----------
    config, segment : modes, limits, and how the needles take turns.
    units : the unit of each electrode of the layout; electrodes of one unit are bonded.
    active : indices of the electrodes that the segment drives; None: all.

    Notes
    -----
    What the modes want is written in `applicators/controllers.py`. It wants, limits and reads what is at its
    clamps: with `coupling_efficiency` η a cable in series leaves the electrodes the share η of the voltage
    and of the power, at the same current, and the impedance at the clamps is that of the tissue over η.
    Every limit holds at every moment:
    the output is scaled down to the tightest of power, voltage and current per unit. Above
    `maximum_impedance` there is no output, and a terminal whose impedance exceeded it, or the ceiling
    of pulses, rests for `pause` seconds (a control interval at least) before the next attempt.

    Driven in ``sequence`` each unit has an equal share of the segment; ``switching`` moves on
    after `dwell_time`, or at once when the impedance rises by `switch_impedance_rise`, and lets a
    unit that rose rest for `pause` seconds (clinical controllers switch at +30 Ω: Francica 2018,
    PMC6435052). ``bipolar`` switches the same way over pairs of units: multipolar operation, as in Clasen
    et al. 2006, Radiology 238:881, doi:10.1148/radiol.2382050571.
    """

    def __init__(
        self,
        config: GeneratorConfig,
        segment: SegmentConfig,
        units: Sequence[str],
        active: Sequence[int] | None = None,
    ) -> None:
        n_electrodes = len(units)
        chosen = list(range(n_electrodes)) if active is None else sorted(set(active))
        if not chosen or min(chosen) < 0 or max(chosen) >= n_electrodes:
            raise InputError(
                f"a segment drives needles {chosen} of {n_electrodes}; name at least one that exists"
            )
        self.config, self.segment = config, segment
        self.n_electrodes = n_electrodes
        self._coupling = config.coupling_efficiency
        self.terminals = terminals_for(segment.drive, units, chosen)
        self.duration = segment.duration_min * MINUTE
        self.finished = False
        """Whether nothing more will come in this segment."""
        self._places = self._lay_out_places(units, chosen)
        self._bond = bond_matrix(self.terminals, n_electrodes)
        self._unit_bond = bond_matrix(terminals_for("sequence", units, chosen), n_electrodes)
        self._control = controller_for(config, segment, len(self._places))
        self._switches = segment.drive in ("switching", "bipolar")
        # the state; lists run over the places, `_turn` is one of them
        self._turn: int | None = None
        self._next_turn = 0
        self._turn_start = 0.0
        self._baseline: float | None = None
        self._delivered: float | None = None
        self._rest_until = [0.0] * len(self._places)
        self._saved = 0.0  # time that needles in sequence left of their shares [s]
        self._limit: str | None = None
        self.events: list[Event] = []

    def _lay_out_places(self, units: Sequence[str], chosen: Sequence[int]) -> list[tuple[int, int | None]]:
        """Who takes turns: terminals, each against the ground or against another one."""
        if self.segment.drive == "together":
            return [(0, None)]
        terminal = {units[group[0]]: number for number, group in enumerate(self.terminals)}
        active = list(dict.fromkeys(units[e] for e in chosen))
        if self.segment.drive != "bipolar":
            return [(terminal[unit], None) for unit in active]
        pairs = self.segment.pairs or combinations(active, 2)
        places: list[tuple[int, int | None]] = [(terminal[one], terminal[other]) for one, other in pairs]
        if not places:
            raise InputError(f"bipolar drives {', '.join(active)} alone; a pair needs two units")
        return places

    # ------------------------------------------------------------------------ output

    def drive(self, time: float, circuit: Circuit, sensors: Readings | None = None) -> Drive:
        """Read circuit and sensors at `time` [s in the segment] and choose the output.

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
            terminal, sink = self._places[self._turn]
            unit, conductance = unit_voltages(circuit.admittance, terminal, sink)
            # per volt at the clamps: the cable, in series, takes the rest and carries the same current
            unit, conductance = self._coupling * unit, self._coupling * conductance
            if self._rises(time, 1.0 / conductance):
                continue
            temperature = self._temperature(sensors)
            for kind, value in self._control.read(self._turn, time, temperature, self._before):
                self._note(time, kind, value)
            if self._control.is_done(self._turn):
                self._retire(time)
                continue
            drive = self._output(time, circuit, unit, conductance)
            if drive is not None:
                return drive

    @property
    def needs_sensors(self) -> bool:
        """Whether `drive` must be given what the sensors read."""
        return self.config.mode == "temperature_controlled"

    def next_event(self, time: float) -> float:
        """The next moment [s in the segment] at which the output may change by itself."""
        if self.finished:
            return self.duration
        if self._turn is None:
            moments = [until for until in self._rest_until if until > time + TIME_TOLERANCE]
        else:
            moments = [self._control.next_moment(self._turn, time)]
            if self._watches_impedance and not self.needs_sensors:
                moments.append(time + self.config.control_interval)
            if self._switches:
                moments.append(self._turn_start + self.segment.dwell_time)
        if self.segment.drive == "sequence":
            moments.append((self._place_in_sequence(time) + 1) * self._share - self._saved)
        moments.append(self.duration)
        later = [moment for moment in moments if moment > time + TIME_TOLERANCE]
        return min(later, default=time + self.config.control_interval)

    def _silence(self) -> Drive:
        zeros, none = np.zeros(len(self.terminals)), np.zeros(self.n_electrodes)
        return Drive(False, None, zeros, zeros, zeros, none, none, math.nan, None)

    def _temperature(self, sensors: Readings | None) -> float:
        """What the controller goes by: mean, highest or lowest sensor of the driven electrodes [°C]."""
        assert self._turn is not None
        if not self.needs_sensors:
            return math.nan
        if sensors is None or len(sensors) != self.n_electrodes:
            raise InputError("a temperature-controlled generator needs the sensors of every electrode")
        driven = [value for electrode in self._electrodes(self._turn) for value in sensors[electrode]]
        if self.config.controlled_sensor == "mean":
            return sum(driven) / len(driven)
        return max(driven) if self.config.controlled_sensor == "highest" else min(driven)

    def _electrodes(self, place: int) -> tuple[int, ...]:
        """The electrodes that are connected during this place's turn."""
        terminal, sink = self._places[place]
        return self.terminals[terminal] + (() if sink is None else self.terminals[sink])

    def _output(self, time: float, circuit: Circuit, unit: Real, conductance: float) -> Drive | None:
        """Voltages within the limits for what has its turn; None when what is left ends the turn."""
        assert self._turn is not None
        config, (terminal, sink) = self.config, self._places[self._turn]
        elapsed = time - self._turn_start
        quantity, value = self._control.wanted(self._turn, elapsed)
        if quantity == "power":
            voltage = math.sqrt(value / conductance)
        else:
            voltage = value if quantity == "voltage" else value / conductance
        if not voltage > 0.0:
            self._delivered, self._limit = 0.0, None
            return self._silence()
        currents = np.zeros(len(unit))
        currents[terminal] = conductance
        if sink is not None:
            currents[sink] = -conductance
        if circuit.electrode_admittance is None:
            per_volt = self._bond @ (currents / self._bond.sum(axis=0))
        else:
            per_volt = np.asarray(circuit.electrode_admittance @ unit)
            if sink is not None:  # what flows into the one flows out of the other, to the last digit
                for end in (terminal, sink):
                    group = list(self.terminals[end])
                    per_volt[group] *= currents[end] / per_volt[group].sum()
        connected = np.zeros(self.n_electrodes)
        driven = self._electrodes(self._turn)
        connected[list(driven)] = per_volt[list(driven)]
        most = float(np.max(np.abs(self._unit_bond.T @ connected)))
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
        if self._control.collapses(self._turn, elapsed, self._delivered, limit):
            self._end_turn(time, "power_drop", self._delivered, max(config.pause, config.control_interval))
            return None
        volts = voltage * unit
        powers = np.zeros(len(unit))
        arriving = self._coupling * voltage * current
        if sink is None:
            powers[terminal] = arriving
        else:
            powers[[terminal, sink]] = 0.5 * arriving
        return Drive(
            True,
            terminal,
            volts,
            voltage * currents,
            powers,
            self._bond @ volts,
            voltage * per_volt,
            1.0 / conductance,
            limit,
            self._turn,
            sink,
            driven,
            voltage * current,
        )

    # ------------------------------------------------------------------------ whose turn

    def _take_turn(self, time: float) -> None:
        """Changes that come with time alone: end of a pause, of a dwell, of a share."""
        if self.finished:
            return
        if self._switches:
            self._switch(time)
        else:
            place = self._place_in_sequence(time) if self.segment.drive == "sequence" else 0
            if place != self._turn and self._is_ready(place, time):
                self._begin(place, time, "turn" if place != self._next_turn else "pulse")
                self._next_turn = place

    def _switch(self, time: float) -> None:
        n = len(self._places)
        if self._turn is not None:
            if time < self._turn_start + self.segment.dwell_time - TIME_TOLERANCE:
                return
            self._control.leave(self._turn, time - self._turn_start, self._before)
            self._note(time, "dwell_end", time - self._turn_start)
            self._next_turn = (self._turn + 1) % n
            self._turn = None
        for step in range(n):
            place = (self._next_turn + step) % n
            if self._is_ready(place, time):
                self._begin(place, time, "turn")
                return

    @property
    def _share(self) -> float:
        return self.duration / len(self._places)

    def _place_in_sequence(self, time: float) -> int:
        return min(int((time + self._saved + TIME_TOLERANCE) / self._share), len(self._places) - 1)

    def _is_ready(self, place: int, time: float) -> bool:
        return time >= self._rest_until[place] - TIME_TOLERANCE

    def _begin(self, place: int, time: float, kind: str) -> None:
        self._turn, self._turn_start = place, time
        self._baseline = self._delivered = self._limit = None
        self._note(time, kind, self._control.begin(place, time))

    def _retire(self, time: float) -> None:
        """The place whose turn it is needs no more power: the next one begins, or the segment ends."""
        assert self._turn is not None
        self._note(time, "done", time)
        if self._turn == len(self._places) - 1:
            self.finished = True
        self._saved = (self._turn + 1) * self._share - time
        self._turn = None

    @property
    def _before(self) -> Output:
        return Output(self._delivered, self._limit is not None)

    # ------------------------------------------------------------------------ impedance

    def _rises(self, time: float, impedance: float) -> bool:
        """Follow the baseline; on a rise end the turn and let its terminal rest."""
        assert self._turn is not None
        config = self.config
        if self._baseline is None:
            self._baseline = impedance
        elif time <= self._turn_start + self._control.baseline_time + TIME_TOLERANCE:
            self._baseline = min(self._baseline, impedance)
        at_least = max(config.pause, config.control_interval)  # a new baseline does not help against these
        if config.maximum_impedance is not None and impedance > config.maximum_impedance:
            self._end_turn(time, "limit:maximum_impedance", impedance, at_least)
        elif impedance > self._baseline + self._allowed_rise:
            self._end_turn(time, "rise", impedance, config.pause)
        elif self._ceiling is not None and impedance > self._ceiling:
            self._end_turn(time, "rise", impedance, at_least)
        else:
            return False
        return True

    def _end_turn(self, time: float, kind: str, value: float, pause: float) -> None:
        assert self._turn is not None
        place = self._turn
        self._control.rose(place, time - self._turn_start, self._before)
        self._note(time, kind, value)
        self._rest_until[place] = time + pause
        self._next_turn = (place + 1) % len(self._places) if self._switches else place
        if self._control.is_done(place):
            self._retire(time)
        self._turn = None

    @property
    def _ceiling(self) -> float | None:
        """Impedance [Ω] that ends a turn of a pulsing mode."""
        return self.config.impedance_ceiling if math.isfinite(self._control.allowed_rise) else None

    @property
    def _allowed_rise(self) -> float:
        """Rise over the baseline that ends a turn [Ω]."""
        switching = self.segment.switch_impedance_rise if self._switches else math.inf
        return min(self._control.allowed_rise, switching)

    @property
    def _watches_impedance(self) -> bool:
        return math.isfinite(self._allowed_rise) or self.config.maximum_impedance is not None

    def _note(self, time: float, kind: str, value: float) -> None:
        terminal, sink = self._places[0 if self._turn is None else self._turn]
        self.events.append(Event(time, kind, terminal, value, sink))

    # ------------------------------------------------------------------------ checkpoints

    def state(self) -> dict[str, Any]:
        """Everything that changes, as plain values for JSON (which keeps every bit of a float)."""
        return {
            "turn": self._turn,
            "next_turn": self._next_turn,
            "turn_start": self._turn_start,
            "baseline": self._baseline,
            "control": self._control.state(),
            "delivered": self._delivered,
            "rest_until": list(self._rest_until),
            "saved": self._saved,
            "limit": self._limit,
            "finished": self.finished,
            "events": [[e.time, e.kind, e.terminal, e.value, e.sink] for e in self.events],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, bit for bit.

        Raises
        ------
        InputError
            When the state does not belong to this segment.
        """
        n = len(self._places)
        try:
            turn, rest = state["turn"], list(state["rest_until"])
            fits = len(rest) == n and (turn is None or 0 <= turn < n) and 0 <= state["next_turn"] < n
            if not fits:
                raise ValueError(f"{len(rest)} terminals for {n}")
            self._control.restore(state["control"])
            self._turn, self._next_turn = turn, int(state["next_turn"])
            self._turn_start = float(state["turn_start"])
            self._baseline, self._delivered = state["baseline"], state["delivered"]
            self._rest_until, self._saved = [float(r) for r in rest], float(state["saved"])
            self._limit, self.finished = state["limit"], bool(state["finished"])
            self.events = [
                Event(float(t), str(k), int(e), float(v), None if s is None else int(s))
                for t, k, e, v, s in state["events"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"the generator's checkpoint does not fit this segment ({error}); start the run anew"
            ) from error
