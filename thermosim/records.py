"""What is kept of a run while it goes on: rows of the traces, events, impedances of each unit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermosim.applicators.drive import Drive
from thermosim.applicators.electrode import Electrode
from thermosim.applicators.generator import Generator
from thermosim.applicators.protocol import Segment
from thermosim.simulation_result import Sensor, Traces, TreatmentEvent, UnitImpedance

PER_ELECTRODE = ("voltage", "current", "power")
PER_UNIT = ("unit_voltage", "unit_current", "unit_power", "unit_impedance")
PER_SENSOR = "sensor_temperature"


def sensors_of(electrodes: Sequence[Electrode]) -> tuple[Sensor, ...]:
    """The sensors of all electrodes in order, named after them."""
    found = []
    for electrode in electrodes:
        n = len(electrode.sensors)
        for number in range(1, n + 1):
            name = electrode.name if n == 1 else f"{electrode.name} {number}"
            found.append(Sensor(name, electrode.unit))
    return tuple(found)


@dataclass
class Records:
    """Grows with the run; plain values, so that a checkpoint can keep it.

    `units`: the unit of each electrode. `n_sensors`: of all electrodes.
    """

    units: tuple[str, ...]
    n_sensors: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    events: list[TreatmentEvent] = field(default_factory=list)
    impedances: list[UnitImpedance] = field(default_factory=list)
    n_noted: int = 0  # events of the present generator that are noted

    @cached_property
    def unit_names(self) -> tuple[str, ...]:
        """Units in the order of their first electrodes."""
        return tuple(dict.fromkeys(self.units))

    @cached_property
    def _members(self) -> tuple[list[int], ...]:
        """Electrodes of each unit."""
        return tuple([e for e, unit in enumerate(self.units) if unit == name] for name in self.unit_names)

    def add(
        self, time: float, drive: Drive | None, sensors: Sequence[Sequence[float]], **scalars: float
    ) -> None:
        """One row: what the generator puts out, what the sensors read, and further readings."""
        n = len(self.units)
        row: dict[str, Any] = {"time": time, **scalars, "impedance": math.nan, "total_power": 0.0}
        row["generator_power"] = 0.0
        row |= dict.fromkeys(PER_ELECTRODE, [0.0] * n)
        row |= dict.fromkeys(PER_UNIT[:3], [0.0] * len(self.unit_names))
        row |= {"unit_impedance": [math.nan] * len(self.unit_names)}
        if drive is not None and drive.on:
            row |= {
                "voltage": drive.electrode_voltages.tolist(),
                "current": drive.electrode_currents.tolist(),
                "power": drive.electrode_powers.tolist(),
                "impedance": drive.impedance,
                "total_power": drive.total_power,
                "generator_power": drive.generator_power,
                **self._by_unit(drive),
            }
        row[PER_SENSOR] = [value for group in sensors for value in group]
        self.rows.append(row)

    def _by_unit(self, drive: Drive) -> dict[str, list[float]]:
        readings: dict[str, list[float]] = {name: [] for name in PER_UNIT}
        voltages, currents = drive.electrode_voltages.tolist(), drive.electrode_currents.tolist()
        for own in self._members:
            voltage = voltages[own[0]]  # one for all: they are bonded
            current = sum(currents[electrode] for electrode in own)
            readings["unit_voltage"].append(voltage)
            readings["unit_current"].append(current)
            readings["unit_power"].append(voltage * current)
            readings["unit_impedance"].append(_impedance(drive, own[0], voltage, current))
        return readings

    def see(self, segment: Segment, drive: Drive) -> None:
        """Follow the first and the last impedance of each driven unit in each segment."""
        for name, value in zip(self.unit_names, self._by_unit(drive)["unit_impedance"], strict=True):
            if math.isnan(value):
                continue
            for place, known in enumerate(self.impedances):
                if known.unit == name and known.segment == segment.number:
                    self.impedances[place] = UnitImpedance(name, segment.number, known.initial, value)
                    break
            else:
                self.impedances.append(UnitImpedance(name, segment.number, value, value))

    def note(self, segment: Segment, generator: Generator) -> bool:
        """Take over what the generator did since the last time; whether there was anything."""
        new = generator.events[self.n_noted :]
        for event in new:
            who = [generator.terminals[event.terminal]]
            if event.sink is not None:
                who.append(generator.terminals[event.sink])
            unit = " – ".join(
                " + ".join(dict.fromkeys(self.units[segment.standing[e]] for e in group)) for group in who
            )
            self.events.append(TreatmentEvent(segment.start + event.time, event.kind, unit, event.value))
        self.n_noted = len(generator.events)
        return bool(new)

    def traces(self) -> Traces:
        """All rows as arrays."""
        widths = dict.fromkeys(PER_ELECTRODE, len(self.units)) | {PER_SENSOR: self.n_sensors}
        widths |= dict.fromkeys(PER_UNIT, len(self.unit_names))

        def column(name: str) -> NDArray[np.float64]:
            shape = (len(self.rows), widths[name]) if name in widths else (len(self.rows),)
            return np.array([row[name] for row in self.rows], dtype=float).reshape(shape)

        return Traces(**{name: column(name) for name in Traces.__dataclass_fields__})

    def state(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "rows": self.rows,
            "events": [list(asdict(event).values()) for event in self.events],
            "impedances": [list(asdict(one).values()) for one in self.impedances],
            "n_noted": self.n_noted,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.rows = list(state["rows"])
        self.events = [TreatmentEvent(*event) for event in state["events"]]
        self.impedances = [UnitImpedance(*one) for one in state["impedances"]]
        self.n_noted = int(state["n_noted"])


def _impedance(drive: Drive, electrode: int, voltage: float, current: float) -> float:
    """V/I of a unit whose first electrode is this; NaN where it is not driven. A pair has one for both."""
    if electrode not in drive.driven or current == 0.0:
        return math.nan
    return drive.load_impedance if drive.sink_terminal is not None else voltage / current
