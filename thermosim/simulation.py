"""The time loop: a treatment from the first second to the last."""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time as wall_clock
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermosim import checkpoint as checkpoints
from thermosim.applicators.electrode import Electrode
from thermosim.applicators.generator import Circuit, Drive, Generator
from thermosim.applicators.protocol import Protocol, Segment
from thermosim.audit import Ledger
from thermosim.backends.base import Backend, Layout
from thermosim.callbacks import Callback, Progress
from thermosim.clock import Clock
from thermosim.errors import InputError, Interrupted, NumericalError
from thermosim.interrupts import noted
from thermosim.numerics.half_step import LimitedSlope
from thermosim.physics.bioheat import Outlook, Reading
from thermosim.physics.electric_potential import ElectricPotential
from thermosim.physics.solved_fields import secant_admittance
from thermosim.records import Records, sensors_of
from thermosim.simulation_result import (
    EnergyAudit,
    RunInfo,
    SimulationResult,
    Traces,
    vessel_results,
)
from thermosim.tissue.laws import arrhenius_rate
from thermosim.treatment import Problem, Treatment

__all__ = [
    "EnergyAudit",
    "Problem",
    "RunInfo",
    "Simulation",
    "SimulationResult",
    "Traces",
    "estimate_memory",
    "run",
]

UNREAD_CHANGE = 0.5
"""Change of the fastest cell [K] after which σ(T) is looked at again: 1 % of σ there, less elsewhere."""

USUAL_TOLERANCE = 0.02
"""`solver.resolve_tolerance` at and above which `UNREAD_CHANGE` holds; below, it shrinks in proportion."""

FIRST_STEP_OF_REST = 1.0
"""Longest first step [s] after the power goes off."""

LARGEST_LEAP = 1.0
"""The middle of a step may lie so many times the last step ahead of it: steps grow by half at most, but for
those that follow a step cut short by an event."""

LARGEST_LEAD = 0.02
"""Estimated error of the field of the middle of a step, taken for that of its start, up to which it is."""

SHARE_OF_SOLVER = 0.1
"""A field is solved to so much of the error at which it is solved again; both in energy norm."""

SAME_PATTERN = 0.02
"""Voltages of terminals closer than this, relative to the largest, are one drive: what differs are those of
floating terminals, which follow the tissue."""

MOST_FLOATING_CURRENT = 1e-3
"""Largest net current of a terminal that should float, relative to the driven one."""

NO_CURRENT = 1e-6
"""Relative current that is none: what the solution of the circuit leaves to a floating terminal."""

MOST_CORRECTIONS = 4
"""After so many corrections of floating terminals in vain the whole circuit is solved."""

WORTH_KEEPING = 10.0
"""Work [s of the clock on the wall] that a checkpoint must save: below it, starting again costs no more than
writing one now and then does."""

LARGEST_POWER_CHANGE = 0.2
"""Relative change of the power after which the time step is chosen afresh."""


def unit_pattern(voltages: NDArray[np.float64]) -> NDArray[np.float64]:
    """Voltages over the largest of them."""
    return np.asarray(voltages / np.max(np.abs(voltages)), dtype=np.float64)


def estimate_memory(shape: tuple[int, int, int], n_electrodes: int) -> int:
    """Bytes a run of this size takes at its peak, Python and its libraries included.

    Per cell 21 float32 fields (heat and damage 12, σ and links 4, the potential of the solve before,
    workspace 4), one per electrode where they take turns, a seventh of six for the coarse levels; about
    13 for the anatomy (labels, distance to and radius of each group of vessels) and what set-up needs beside
    it. The report takes 250 MB whatever the grid, which is more than the run of a small one.
    """
    padded = Layout(shape).size
    return padded * (4 * (21 + n_electrodes + 13) + 7) + 200_000_000


def device_memory(shape: tuple[int, int, int], n_electrodes: int) -> int:
    """Bytes that a run takes on a GPU.

    Per cell 22 float32 fields and one per electrode, see `estimate_memory`, and labels.
    """
    return Layout(shape).size * (4 * (22 + n_electrodes) + 2)


def check_device_memory(backend: Backend, shape: tuple[int, int, int], n_electrodes: int) -> None:
    """Refuse a grid whose fields do not fit into the memory of a GPU."""
    needed, free = device_memory(shape, n_electrodes), backend.free_memory()
    if free is not None and needed > free:
        raise InputError(
            f"a grid of {shape[0]} x {shape[1]} x {shape[2]} cells needs about {1e-9 * needed:.3g} GB "
            f"on the GPU, {1e-9 * free:.3g} GB are free there; raise grid.spacing_mm, shrink grid.size_mm "
            "or use backend=cpu"
        )


@contextmanager
def _deferred_interrupt(known: list[bool] | None) -> Iterator[list[bool]]:
    """Ctrl-C sets a flag instead of breaking a step apart; `known`: one that somebody else sets."""
    if known is not None:
        yield known
        return
    with noted([False]) as asked:
        yield asked


class _OnHost(Mapping[str, NDArray[Any]]):
    """Fields of a treatment by name, each copied to the host when it is asked for and not kept."""

    def __init__(self, treatment: Treatment, fields: dict[str, Any]) -> None:
        self._treatment, self._fields = treatment, fields

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._treatment.host(self._fields[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


class Simulation:
    """One run of one problem on one backend."""

    def __init__(self, problem: Problem, backend: Backend) -> None:
        check_device_memory(backend, problem.anatomy.grid.shape, len(problem.electrodes))
        self.problem, self.backend = problem, backend
        self.solver = problem.solver
        self.protocol = Protocol.of(problem.protocol, problem.electrodes)
        self.treatment = Treatment(problem, backend)
        self.clock = Clock(self.solver.maximum_time_step, self.solver.maximum_temperature_rise)
        self.ledger = Ledger()
        self.standing: tuple[int, ...] = ()  # which electrodes of the layout stand in the tissue
        self.sensors = sensors_of(problem.electrodes)
        self.records = Records(self.protocol.units, len(self.sensors))
        self.segment: Segment | None = None
        self.has_begun = False
        self.generator: Generator | None = None
        self.circuit: Circuit | None = None
        self.unread_change = 0.0  # bound on the change of temperature since σ was last looked at [K]
        self.conductance_factor = 1.0  # change of the conductance since the last solve
        self.heat_pattern: NDArray[np.float64] | None = None  # terminal voltages the heat field is for
        self.solved_pattern: NDArray[np.float64] | None = None  # and those the last field was solved for
        self.heat_power = (0.0, 0.0)  # Σ q h³ of the heat field, all and in blood [W]
        self.floating_current = self.worst_floating_current = 0.0  # of what floats, over the driven current
        self.worst_field_error = 0.0  # of a solve in energy norm, relative, as estimated
        self.delivered: float | None = None  # power of the last reading [W], None before the first
        self.worst_power_error = 0.0
        self.initial_impedance = self.final_impedance = math.nan
        self.admittance: NDArray[np.float64] | None = None
        self.drive: Drive | None = None
        self.last_terminal: int | None = None  # which one the generator drove last in this segment
        self.power_scale = 0.0
        self.last_voltages, self.last_scale = np.empty(0), 0.0
        self.solved_for = 0.0  # time [s] of the σ that the field was solved for last
        self.power_trend = LimitedSlope()
        self.power_terminal: int | None = None  # whose power `power_trend` follows
        self.step_before: float | None = None  # length [s] of the step whose start the workspace still holds
        self.next_record = 0.0
        self.next_checkpoint = 60.0 * self.solver.checkpoint_interval_min
        self.n_steps = 0
        self.solver_seconds = 0.0
        damage, start = problem.damage, problem.tissue.initial_temperature
        self._baseline_rate = float(arrhenius_rate(start, damage.frequency_factor, damage.activation_energy))

    # ------------------------------------------------------------------ the loop

    def run(self, callbacks: Sequence[Callback] = (), checkpoint: Path | None = None) -> SimulationResult:
        """From the present moment to the end of the protocol."""
        kept = wall_clock.perf_counter()
        with _deferred_interrupt(self.backend.interrupted) as interrupted:
            while self.clock.time < self.protocol.duration - 1e-9:
                begun = wall_clock.perf_counter()
                self._enter_segment()
                self._step()
                self._end_segment()
                self.solver_seconds += wall_clock.perf_counter() - begun
                for callback in callbacks:
                    callback(self._progress())
                due = self.clock.time >= self.next_checkpoint
                due &= wall_clock.perf_counter() - kept >= WORTH_KEEPING
                if checkpoint is not None and (due or interrupted[0]):
                    self.save(checkpoint)
                    kept = wall_clock.perf_counter()
                    self.next_checkpoint = self.clock.time + 60.0 * self.solver.checkpoint_interval_min
                if interrupted[0]:
                    raise Interrupted(f"stopped at {self.clock.time:.1f} s of simulated time")
        begun = wall_clock.perf_counter()
        self._close_step()
        if not self.records.rows or self.records.rows[-1]["time"] < self.clock.time:
            self._record(self._hottest, force=True)
        self.solver_seconds += wall_clock.perf_counter() - begun
        return self.result()

    _reading: Reading | None = None
    _pending: tuple[float, float, float] | None = None  # step, power, power in blood of the last step
    _outlook = Outlook()
    _hottest: float = math.nan

    def _step(self) -> None:
        """One time step: read the tissue, set the generator, heat, count the dead."""
        treatment, clock = self.treatment, self.clock
        self._close_step()
        self._watch_far_field()
        self._set_drive()
        while self._ends_early():  # what follows begins at this moment
            self._set_drive()
        if clock.time >= self.protocol.duration - 1e-9:
            return
        self._record(self._hottest, force=self._note_events())
        self._follow_power()
        step = clock.next_step(self._next_event())
        power, growth = self._power_ahead(0.5 * step)
        self.backend.meet("heat")
        in_blood = growth * self.power_scale * self.heat_power[1]
        treatment.cool_needle_heat(growth * self.power_scale)
        treatment.follow_blood(growth * self.power_scale, step)
        treatment.far_field.lead_rim(treatment.heat, growth * self.power_scale, step)
        boiled = treatment.temperature is not treatment.enthalpy
        boils = self._hottest > treatment.thermal_law.boiling - 2.0 * clock.maximum_rise
        treatment.enthalpy, treatment.temperature, before = treatment.bioheat.advance(
            treatment.enthalpy,
            treatment.temperature,
            treatment.heat,
            growth * self.power_scale,
            step,
            treatment.explicit_limit,
            boils=boils,
        )
        treatment.far_field.pass_time(growth * self.power_scale, step)
        treatment.book_blood(step)
        change = treatment.damage_models.advance(
            treatment.damage, before, treatment.temperature, step, boils or boiled, treatment.window.layout
        )
        clock.learn(step, change)
        self.unread_change += change
        clock.time += step
        self.n_steps += 1
        self.step_before = step
        self._pending = (step, power, in_blood)

    def _look_ahead(self) -> Outlook:
        """How to get from here to the middle of the coming step, whose length is a guess still."""
        damage, space = self.treatment.damage, self.treatment.workspace
        seconds = 0.5 * self.clock.next_step(self._next_event())
        alive = damage.alive if self.treatment.thermal_law.shutdown == "viability" else None
        if self.step_before is None:
            return Outlook(seconds, alive=alive)
        ahead = min(seconds / self.step_before, LARGEST_LEAP)
        return Outlook(seconds, ahead, space.first, alive)

    def _follow_power(self) -> None:
        """Remember how the power moves; what went before a pause or another's turn tells nothing."""
        on = self.drive is not None and self.drive.on
        stepwise = self.generator is not None and self.generator.needs_sensors  # constant between readings
        if not on or stepwise or self.last_terminal != self.power_terminal:
            self.power_trend.forget()
        if self.drive is not None and on:
            self.power_trend.see(self.clock.time, self.drive.total_power)
        self.power_terminal = self.last_terminal if on else None

    def _power_ahead(self, seconds: float) -> tuple[float, float]:
        """Power [W] after so many seconds, and its ratio to that of this moment."""
        power = self.drive.total_power if self.drive is not None and self.drive.on else 0.0
        if not power > 0.0:
            return 0.0, 1.0
        change = self.power_trend.slope * seconds / power
        growth = 1.0 + min(max(change, -LARGEST_POWER_CHANGE), LARGEST_POWER_CHANGE)
        return growth * power, growth

    def _close_step(self) -> None:
        """k and W of the present state; book the step that led to it."""
        treatment = self.treatment
        damage = treatment.damage
        by_fraction = treatment.thermal_law.shutdown == "viability"
        shutdown = damage.dead if by_fraction else damage.integral
        self._outlook = self._look_ahead()
        middle = self.clock.time + self._outlook.seconds
        baseline = 0.0 if by_fraction else self._baseline_rate * middle
        reading = treatment.bioheat.prepare(
            treatment.enthalpy, treatment.temperature, shutdown, baseline, self._outlook
        )
        self._hottest = reading.hottest_temperature
        if not reading.is_finite:
            x, y, z = (1e3 * v for v in treatment.where_broken())
            raise NumericalError(
                f"the temperature is not finite at {self.clock.time:.2f} s near "
                f"({x:.1f}, {y:.1f}, {z:.1f}) mm LPS; lower solver.maximum_time_step "
                "or check the tissue's values"
            )
        if self._pending is not None and self._reading is not None:
            step, power, in_blood = self._pending
            self.ledger.add_step(
                step,
                power,
                treatment.metabolic_power,
                in_blood,
                self._reading,
                reading,
                treatment.bioheat.wall_heat,
            )
        self._reading, self._pending = reading, None

    def _watch_far_field(self) -> None:
        """Look beyond the window from time to time, and widen it where heat has come near its rim."""
        treatment, far_field = self.treatment, self.treatment.far_field
        assert self._reading is not None
        sides = treatment.window.inner_sides if far_field.is_too_warm else self._reading.short_sides
        if not (sides or far_field.is_due):
            return
        self._bring_up_to_date()
        if sides:
            far_field.widen(sides, treatment.enthalpy, treatment.workspace.first)
            self._close_step()
        if treatment.potential is not None and self.heat_pattern is not None:
            far_field.weigh(treatment.potential, treatment.heat)

    def _bring_up_to_date(self) -> None:
        """Advance the tissue beyond the window to this moment."""
        treatment = self.treatment
        self.ledger.perfusion += treatment.far_field.bring_up_to_date(treatment.enthalpy, treatment.heat)

    # ------------------------------------------------------------------ generator and potential

    def _enter_segment(self) -> None:
        """Move needles and hand over to a new generator when a segment begins, or ends for good."""
        segment = self.protocol.segment_at(self.clock.time)
        if segment is self.segment and self.has_begun:
            return
        self._take_over(segment)
        self.clock.suggestion = math.inf if segment is not None else FIRST_STEP_OF_REST

    def _end_segment(self) -> None:
        """At a segment's end its last reading; the next step adds the first of what follows."""
        if self.segment is not None and self.clock.time >= self.segment.end - 1e-9:
            self._close_step()
            self._record(self._hottest, force=True)
            self.next_record = self.clock.time

    def _ends_early(self) -> bool:
        """Whether the generator has nothing left to do in this segment, which then ends now."""
        if self.generator is None or self.segment is None or not self.generator.finished:
            return False
        self._note_events()
        self._record(self._hottest, force=True)
        self.next_record = self.clock.time
        self.protocol.finish(self.segment.number, self.clock.time)
        self._enter_segment()
        return True

    def _note_events(self) -> bool:
        """Keep what the generator did since the last look; whether there was anything."""
        if self.generator is None or self.segment is None:
            return False
        return self.records.note(self.segment, self.generator)

    def _take_over(self, segment: Segment | None) -> None:
        treatment = self.treatment
        if segment is None:
            if not self.problem.protocol.cool_needles_after:
                self._change(lambda: treatment.cool_needles(False))
        else:
            electrodes = segment.electrodes(self.problem.electrodes)
            if electrodes != treatment.electrodes:
                self._change(lambda: treatment.place(electrodes))
            self.standing = segment.standing
        self.segment, self.has_begun = segment, True
        self.generator = None if segment is None else self.protocol.generator(segment)
        self.records.n_noted = 0
        self.drive = self.circuit = self.heat_pattern = self.delivered = self.last_terminal = None
        self.solved_pattern = None
        self.power_scale = 0.0

    def _change(self, change: Callable[[], None]) -> None:
        """Change the geometry and book the heat of cells that metal enters or leaves."""
        bioheat, treatment = self.treatment.bioheat, self.treatment
        if not self.has_begun:
            change()
            return
        self._close_step()
        self._bring_up_to_date()
        stored = bioheat.stored_heat(treatment.enthalpy)
        change()
        self.step_before = None
        self.ledger.displaced += bioheat.stored_heat(treatment.enthalpy) - stored
        self._close_step()

    @property
    def _segment_time(self) -> float:
        return self.clock.time - (self.segment.start if self.segment is not None else 0.0)

    def _set_drive(self) -> None:
        """Let the generator read the circuit and choose its output."""
        if self.generator is None:
            self.drive, self.power_scale = None, 0.0
            return
        time = self._segment_time
        if self._potential_is_stale():
            self._solve(None if self.heat_pattern is None else unit_pattern(self.last_voltages))
        power_before = self.delivered or 0.0
        before = self.generator.state()
        sensors = self._sensor_readings() if self.generator.needs_sensors else None
        self.drive = self.generator.drive(time, self._circuit_now, sensors)
        for attempt in range(MOST_CORRECTIONS + 1):
            fits, floats = self._field_fits(self.drive)
            if fits and floats:
                break
            # another needle's turn: its first reading is its baseline and needs a field of its own; or
            # what should float takes in current: its voltages follow from the currents found
            self.generator.restore(before)
            if not fits:
                self.power_scale = 0.0  # the heat field at hand is another's
            pattern = unit_pattern(self.drive.voltages) if attempt < MOST_CORRECTIONS else None
            self._solve(pattern, moves=not fits)
            self.drive = self.generator.drive(time, self._circuit_now, sensors)
        turned = self.drive.on and self.drive.turn != self.last_terminal
        self.last_terminal = self.drive.turn if self.drive.on else self.last_terminal
        self.delivered = self.drive.total_power if self.drive.on else 0.0
        if not self.drive.on:
            self.power_scale = 0.0
            if power_before > 0.0:
                self.clock.suggestion = min(self.clock.suggestion, FIRST_STEP_OF_REST)
            return
        self._fit_heat(self.drive)
        if math.isnan(self.initial_impedance):
            self.initial_impedance = self.drive.impedance
        self.final_impedance = self.drive.impedance
        assert self.segment is not None
        self.records.see(self.segment, self._drive_of_all)
        if (
            turned
            or abs(self.drive.total_power - power_before) > LARGEST_POWER_CHANGE * self.drive.total_power
        ):
            fastest = self.treatment.bioheat.fastest_heating(self.treatment.heat)
            self.clock.expect(self.power_scale * fastest)

    @property
    def _unread_limit(self) -> float:
        """Change of temperature [K] after which σ(T) is looked at again."""
        return UNREAD_CHANGE * min(1.0, self.solver.resolve_tolerance / USUAL_TOLERANCE)

    def _potential_is_stale(self) -> bool:
        treatment = self.treatment
        if self.circuit is None:
            return True
        if self.heat_pattern is None:  # solved, but no power since
            return self.unread_change >= self._unread_limit
        assert treatment.potential is not None
        if self.delivered == 0.0 and not self._pause_ends():
            return False
        boils = self._hottest > treatment.thermal_law.boiling
        if self.unread_change < self._unread_limit and not boils:
            return False
        self.conductance_factor, error = self._drift(self.conductance_factor)
        self.unread_change = 0.0
        tolerance = self.solver.resolve_tolerance
        return error > tolerance or tolerance == 0.0  # 0: at every step, float32 sums see no less than 3e-4

    def _drift(self, expected: float = 1.0) -> tuple[float, float]:
        """How conductance and field have changed since the last solve, see `ElectricPotential.drift`."""
        treatment = self.treatment
        assert treatment.potential is not None
        return treatment.potential.drift(
            treatment.temperature,
            treatment.heat,
            expected,
            self._heating_time,
            treatment.window.layout,
            treatment.far_field.drift,
        )

    def _pause_ends(self) -> bool:
        """Whether the generator, now silent, may change its output at this moment."""
        assert self.generator is not None
        return self.generator.next_event(self._segment_time - 1e-6) <= self._segment_time + 1e-6

    @property
    def _heating_time(self) -> float:
        """The coming step [s], its heat as multiple of the heat field."""
        return 2.0 * self._outlook.seconds * self.power_scale

    @property
    def _circuit_now(self) -> Circuit:
        assert self.circuit is not None
        return self.circuit.scaled(self.conductance_factor)

    def _field_fits(self, drive: Drive) -> tuple[bool, bool]:
        """Whether the field solved last is that of this drive, and whether what floats carries no current."""
        if not drive.on or self.solved_pattern is None:  # all unit fields are fresh
            return True, True
        fits = np.max(np.abs(unit_pattern(drive.voltages) - self.solved_pattern)) < SAME_PATTERN
        return bool(fits), self.floating_current <= MOST_FLOATING_CURRENT

    def _solve(self, pattern: NDArray[np.float64] | None, moves: bool = True) -> None:
        """Solve the field of these terminal voltages; None: all unit fields, and the whole circuit.

        `moves`: σ is brought up to date first.
        """
        treatment = self.treatment
        potential = treatment.potential
        assert potential is not None
        assert self.generator is not None
        self.backend.meet("potential")
        if potential.terminals != self.generator.terminals:
            potential.set_terminals(self.generator.terminals)
        guess = self.conductance_factor
        if moves:
            self.conductance_factor, self.unread_change = self._update_conductances(), 0.0
        try:
            self.circuit = self._read_circuit(potential, pattern, guess)
        except NumericalError as error:
            raise NumericalError(f"at {self.clock.time:.2f} s: {error}") from error
        if self.admittance is None:
            self.admittance = self.circuit.admittance
        self.heat_pattern, self.solved_pattern = None, pattern

    def _read_circuit(
        self, potential: ElectricPotential, pattern: NDArray[np.float64] | None, guess: float
    ) -> Circuit:
        """The circuit as the fields solved now show it; `guess`: how its conductance has changed."""
        solver, known = self.solver, self.circuit
        if pattern is None or known is None or known.electrode_admittance is None:
            potential.solve(solver.potential_tolerance, solver.maximum_iterations)
            self.floating_current = 0.0
            return Circuit(*potential.admittances())
        expected = known.admittance @ pattern
        report = potential.solve_drive(
            pattern,
            guess * float(pattern @ expected),
            SHARE_OF_SOLVER * solver.resolve_tolerance,
            solver.potential_tolerance,
            solver.maximum_iterations,
        )
        self.worst_field_error = max(self.worst_field_error, report.error)
        found = np.abs([report.currents[list(group)].sum() for group in potential.terminals])
        floats = np.abs(expected) < NO_CURRENT * np.max(np.abs(expected))
        self.floating_current = float(np.max(found, where=floats, initial=0.0) / np.max(found))
        return Circuit(
            *secant_admittance(
                known.admittance, known.electrode_admittance, pattern, potential.terminals, report.currents
            )
        )

    def _update_conductances(self) -> float:
        """σ of the middle of the coming step, for which the field is solved.

        Returns what takes the conductance of then to this moment. Where the middle is too far away, or it
        is not known yet whose field it will be, σ is that of now.
        """
        treatment, outlook = self.treatment, self._outlook
        potential = treatment.potential
        assert potential is not None
        self._bring_up_to_date()
        treatment.far_field.conductances_are_new()
        leads = self.step_before is not None and self.heat_pattern is not None and not self._pause_ends()
        self.step_before = None  # the solver overwrites what the outlook is made of
        if leads:
            ahead = treatment.workspace.third
            treatment.bioheat.temperature_ahead(treatment.enthalpy, outlook, ahead)
            potential.update_conductances(ahead, treatment.heat, self._heating_time)
            factor, error = self._drift()
            if error <= max(self.solver.resolve_tolerance, LARGEST_LEAD):
                self.solved_for = self.clock.time + outlook.seconds
                return factor
        potential.update_conductances(treatment.temperature, treatment.heat, self._heating_time)
        self.solved_for = self.clock.time
        return 1.0

    def _fit_heat(self, drive: Drive) -> None:
        """Heat field for the drive's voltages; only its scale changes while their ratios stay."""
        treatment = self.treatment
        if self.solved_pattern is None:
            self.solved_pattern = unit_pattern(drive.voltages)
        if self.heat_pattern is None:
            assert treatment.potential is not None
            assert self.circuit is not None
            scratch, pattern = treatment.workspace.first, self.solved_pattern
            self._bring_up_to_date()  # with the heat field that has acted so far
            self.heat_power = treatment.potential.joule_heating(pattern, scratch, treatment.heat)
            self.heat_pattern = pattern
            treatment.learn_needle_heat(pattern, scratch)
            treatment.far_field.weigh(treatment.potential, treatment.heat)
            given = float(pattern @ self.circuit.admittance @ pattern)
            error = abs(self.heat_power[0] - given) / given
            self.worst_power_error = max(self.worst_power_error, error)
            self.worst_floating_current = max(self.worst_floating_current, self.floating_current)
        # the discrete heat is scaled so that it is exactly the power that the generator delivers
        self.power_scale = drive.total_power / self.heat_power[0]
        self.last_voltages, self.last_scale = drive.voltages, self.power_scale

    def _next_event(self) -> float:
        if self.segment is None or self.generator is None:
            return self.protocol.duration
        event = self.segment.start + self.generator.next_event(self._segment_time)
        return min(self.segment.end, event)

    # ------------------------------------------------------------------ bookkeeping

    def _record(self, hottest: float, force: bool = False) -> None:
        if not force and self.clock.time < self.next_record - 1e-9:
            return
        self.records.add(
            self.clock.time,
            self._drive_of_all if self.drive is not None else None,
            self._readings_of_all(),
            hottest_temperature=hottest,
            ablated_volume=self._ablated_volume(),
            electrical_energy=self.ledger.electrical,
        )
        for stream in self.treatment.open_vessels.streams:
            stream.record(self.clock.time)
        interval = self.solver.report_interval
        self.next_record = interval * (math.floor(self.clock.time / interval + 1e-9) + 1)

    def _sensor_readings(self) -> list[list[float]]:
        """What the sensors of each electrode show at this moment [°C]."""
        return self.treatment.thermometer.read(self.treatment.temperature)

    def _readings_of_all(self) -> list[list[float]]:
        """The same for every electrode of the layout: NaN for one that is not in the tissue."""
        readings = [[math.nan] * len(electrode.sensors) for electrode in self.problem.electrodes]
        for electrode, values in zip(self.standing, self._sensor_readings(), strict=True):
            readings[electrode] = values
        return readings

    @property
    def _drive_of_all(self) -> Drive:
        """What the generator puts out, by electrodes of the layout."""
        assert self.drive is not None
        return self.drive.among(self.standing, len(self.problem.electrodes))

    def _places(self) -> tuple[tuple[Electrode, ...], ...]:
        """Who stood where in each segment that began."""
        return tuple(
            segment.electrodes(self.problem.electrodes)
            for segment in self.protocol.segments
            if segment.start < self.clock.time or segment.start == 0.0
        )

    def _ablated_volume(self) -> float:
        """Volume [m³] of tissue cells dead by the chosen criterion (whole cells: a trace, no outcome)."""
        treatment, config = self.treatment, self.problem.damage
        damage, criterion = treatment.damage, config.criterion
        if criterion.startswith("isotherm_"):
            field_, threshold = damage.highest_temperature, float(criterion.removeprefix("isotherm_"))
        else:
            field_, threshold = {
                "arrhenius": (damage.integral, 1.0),
                "arrhenius_99": (damage.integral, 4.6),
                "cem43": (damage.dose, config.cem43_threshold),
                "three_state": (damage.dead, config.three_state_threshold),
            }[criterion]
        k, box = treatment.bioheat.conductivity, treatment.window.layout
        cells = treatment.damage_models.dead_cells(field_, k, threshold, box)
        return cells * treatment.spacing**3

    def _progress(self) -> Progress:
        power = self.drive.total_power if self.drive is not None and self.drive.on else 0.0
        rate = self.treatment.bioheat.cell_updates / max(self.solver_seconds, 1e-9)
        return Progress(self.clock.time, self.protocol.duration, self._hottest, power, rate)

    def result(self) -> SimulationResult:
        """Everything in host memory."""
        self._bring_up_to_date()
        treatment, bioheat = self.treatment, self.treatment.bioheat
        potential = treatment.potential
        assert potential is not None
        stored = bioheat.stored_heat(treatment.enthalpy)
        residual = potential.latest_relative_residual()
        volts = treatment.workspace.first
        self.backend.on_cells("scale_add", treatment.layout, np.float32(0), volts, np.float32(0), volts)
        if len(self.last_voltages) == len(potential.fields):
            potential.superpose(self.last_voltages, volts)
        electric_potential = treatment.host(volts)
        counts = (potential.solves, potential.iterations, bioheat.cell_updates, bioheat.evaluations)
        del volts, bioheat, potential
        treatment.show_blood()
        treatment.release()  # the results are copies: make room for them
        damage = treatment.damage
        places = self._places()
        last = {electrode.name: electrode for standing in places for electrode in standing}
        return SimulationResult(
            anatomy=self.problem.anatomy,
            electrodes=tuple(last.get(e.name, e) for e in self.problem.electrodes),
            temperature=treatment.host(treatment.temperature) + np.float32(treatment.reference),
            highest_temperature=treatment.host(damage.highest_temperature),
            damage_integral=treatment.host(damage.integral),
            thermal_dose=treatment.host(damage.dose),
            dead_fraction=treatment.host(damage.dead),
            volumetric_heat_source=np.float32(self.last_scale) * treatment.host(treatment.heat),
            electric_potential=electric_potential,
            solid_mask=treatment.solid_mask,
            traces=self.records.traces(),
            audit=self.ledger.close(stored),
            run=RunInfo(
                backend=self.backend.name,
                device=self.backend.device,
                kernel_digest=self.backend.kernel_digest,
                solver_seconds=self.solver_seconds,
                cell_updates=counts[2],
                time_steps=self.n_steps,
                potential_solves=counts[0],
                potential_iterations=counts[1],
                peak_memory_bytes=peak_memory(),
                potential_residual=residual,
                potential_error=self.worst_field_error,
                floating_current=self.worst_floating_current,
                heat_evaluations=counts[3],
            ),
            initial_impedance=self.initial_impedance,
            final_impedance=self.final_impedance,
            admittance_matrix=np.empty((0, 0)) if self.admittance is None else self.admittance,
            power_relative_error=self.worst_power_error,
            treatment_time=self.clock.time,
            completed=self.clock.time >= self.protocol.duration - 1e-9,
            notes=tuple(treatment.open_vessels.notes),
            vessels=vessel_results(treatment.open_vessels, self.ledger.walls),
            units=self.records.unit_names,
            sensors=self.sensors,
            events=tuple(self.records.events),
            unit_impedances=tuple(self.records.impedances),
            places=places,
            segment_times=tuple(
                (s.start, min(s.end, self.clock.time))
                for s in self.protocol.segments
                if s.start < self.clock.time or s.start == 0.0
            ),
        )

    # ------------------------------------------------------------------ checkpoints

    def _fingerprint(self) -> str:
        """Which problem this is: its settings, its anatomy, the needles and the kernels."""
        problem, digest = self.problem, hashlib.sha256()
        settings = (
            asdict(problem.tissue),
            asdict(problem.vessels),
            asdict(problem.protocol),
            asdict(problem.damage),
            asdict(problem.solver),
        )
        digest.update(json.dumps(settings, sort_keys=True).encode())
        digest.update(repr((problem.anatomy.grid, problem.electrodes)).encode())
        digest.update(repr(problem.anatomy.structures).encode())
        fields: list[NDArray[Any] | None] = [problem.anatomy.labels, problem.exterior_mask]
        for lumen in problem.anatomy.lumens:
            digest.update(lumen.group.encode())
            if lumen.tree is not None:
                digest.update(lumen.tree.nodes.tobytes() + lumen.tree.radii.tobytes())
            fields += [lumen.signed_distance, lumen.radius]
        for field_ in fields:
            digest.update(b"none" if field_ is None else np.ascontiguousarray(field_).tobytes())
        digest.update(self.backend.kernel_digest.encode())
        return digest.hexdigest()

    def _fields(self) -> dict[str, Any]:
        treatment, potential = self.treatment, self.treatment.potential
        assert potential is not None
        fields = {
            "enthalpy": treatment.enthalpy,
            "temperature": treatment.temperature,
            "heat": treatment.heat,
            "sigma": potential.sigma,
            "conductivity": treatment.bioheat.conductivity,
            "perfusion": treatment.bioheat.perfusion,
            "enthalpy_before": treatment.workspace.first,
        }
        names = ("damage_integral", "thermal_dose", "alive", "dead", "highest_temperature")
        fields |= dict(zip(names, treatment.damage.arrays, strict=True))
        fields |= {f"potential_{t}": f for t, f in enumerate(potential.fields)}
        if potential.solved.earlier is not None:
            fields["earlier_potential"] = potential.solved.earlier
        return fields

    _PLAIN = (
        "worst_power_error",
        "worst_floating_current",
        "worst_field_error",
        "floating_current",
        "initial_impedance",
        "final_impedance",
        "next_record",
        "next_checkpoint",
        "n_steps",
        "solver_seconds",
        "delivered",
        "conductance_factor",
        "last_terminal",
        "unread_change",
        "power_scale",
        "last_scale",
        "_hottest",
        "power_terminal",
        "step_before",
    )

    def save(self, path: Path) -> None:
        """Write a checkpoint from which `restore` goes on to the same result."""
        potential = self.treatment.potential
        assert potential is not None
        arrays = {
            "admittance": self.admittance,
            "last_voltages": self.last_voltages,
            "heat_pattern": self.heat_pattern,
            "solved_pattern": self.solved_pattern,
            "latest": potential.latest,
            "field_voltages": potential.solved.voltages,
            "circuit": None if self.circuit is None else self.circuit.admittance,
            "electrode_circuit": None if self.circuit is None else self.circuit.electrode_admittance,
        }
        state = {
            "clock": asdict(self.clock),
            "ledger": asdict(self.ledger),
            "power_trend": asdict(self.power_trend),
            "records": self.records.state(),
            "segment_ends": sorted(self.protocol.ends.items()),
            "segment": None if self.segment is None else self.segment.number,
            "plain": {name: getattr(self, name) for name in self._PLAIN},
            "heat_power": self.heat_power,
            "pending": self._pending,
            "wall_heat": self.treatment.bioheat.wall_heat,
            "reading": None if self._reading is None else asdict(self._reading),
            "streams": [stream.state() for stream in self.treatment.open_vessels.streams],
            "generator": None if self.generator is None else self.generator.state(),
            "terminals": potential.terminals,
            "last_place": potential.solved.last_place,
            "all_rows": self.treatment.bioheat.all_rows,
            "boils": self.treatment.temperature is not self.treatment.enthalpy,
            "counts": [potential.solves, potential.iterations],
            "heat_counts": [self.treatment.bioheat.evaluations, self.treatment.bioheat.cell_updates],
            "far_field": self.treatment.far_field.state(),
            "arrays": {name: None if a is None else a.tolist() for name, a in arrays.items()},
        }
        self.treatment.far_field.show(self.treatment.enthalpy)
        checkpoints.save(path, _OnHost(self.treatment, self._fields()), state, self._fingerprint())

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint of the same problem.

        Raises
        ------
        InputError
            When the checkpoint is missing, damaged or of another problem.
        """
        fields, state = checkpoints.load(path, self._fingerprint())
        try:
            self._restore(fields, state)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path.name} is damaged ({error}); start the run anew") from error

    def _restore(self, fields: dict[str, NDArray[Any]], state: dict[str, Any]) -> None:
        treatment = self.treatment
        self.clock = Clock(**state["clock"])
        self.power_trend = LimitedSlope(**state["power_trend"])
        self.protocol.restore({int(number): float(end) for number, end in state["segment_ends"]})
        # the segment of the last step: at a segment's very end the next one begins with the next step
        segment = None if state["segment"] is None else self.protocol.segments[state["segment"]]
        last = segment if segment is not None else self.protocol.segments[-1]
        treatment.place(last.electrodes(self.problem.electrodes))
        self.standing = last.standing
        self._take_over(segment)
        potential = treatment.potential
        assert potential is not None
        potential.set_terminals(tuple(tuple(t) for t in state["terminals"]))
        potential.solved.last_place = state["last_place"]
        if "earlier_potential" in fields:
            potential.solved.earlier = self.backend.field(treatment.layout)
        if state["boils"]:
            treatment.temperature = treatment.bioheat.boiling_temperature
        for name, target in self._fields().items():
            values = self.backend.asarray(fields[name], "float32")
            treatment.layout.interior(target)[:] = values
        treatment.far_field.restore(state["far_field"])
        treatment.far_field.take(treatment.enthalpy)
        treatment.bioheat.all_rows = bool(state["all_rows"])
        arrays = {n: None if a is None else np.asarray(a, dtype=float) for n, a in state["arrays"].items()}
        if arrays["circuit"] is not None:
            # conductances of the moment of the last solve, without which no heat field can be made
            potential.restore_conductances()
            self.circuit = Circuit(arrays["circuit"], arrays["electrode_circuit"])
        self.admittance, self.heat_pattern = arrays["admittance"], arrays["heat_pattern"]
        self.solved_pattern = arrays["solved_pattern"]
        potential.restore_voltages(arrays["field_voltages"], arrays["latest"])
        voltages = arrays["last_voltages"]
        self.last_voltages = np.empty(0) if voltages is None else voltages
        for name in self._PLAIN:
            setattr(self, name, state["plain"][name])
        self.heat_power = tuple(state["heat_power"])
        self._pending = None if state["pending"] is None else tuple(state["pending"])
        treatment.bioheat.wall_heat = dict(state["wall_heat"])
        self._reading = None if state["reading"] is None else Reading(**state["reading"])
        self.ledger = Ledger(**state["ledger"])
        for stream, kept in zip(treatment.open_vessels.streams, state["streams"], strict=True):
            stream.restore(kept)
        self.records.restore(state["records"])
        if self.generator is not None and state["generator"] is not None:
            self.generator.restore(state["generator"])
        if self.heat_pattern is not None:
            scratch = self.backend.field(treatment.layout)  # the workspace holds what the outlook needs
            treatment.learn_needle_heat(self.heat_pattern, scratch)
        potential.solves, potential.iterations = state["counts"]
        treatment.bioheat.evaluations, treatment.bioheat.cell_updates = state["heat_counts"]


def peak_memory() -> int:
    """Largest memory this process has held so far [bytes]."""
    with suppress(OSError):  # Linux; what `getrusage` says there may be of the process that started this one
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else 1024 * peak)


def run(
    problem: Problem,
    backend: Backend,
    *,
    callbacks: Sequence[Callback] = (),
    checkpoint: Path | None = None,
    resume: bool = False,
) -> SimulationResult:
    """Simulate a whole treatment.

    Parameters
    ----------
    problem : what to simulate.
    backend : where, from `thermosim.backends.select`.
    callbacks : called with a `Progress` after every time step.
    checkpoint : file for checkpoints; needed for `resume`.
    resume : go on from the checkpoint.

    Raises
    ------
    InputError, NumericalError, Interrupted
        The last leaves a checkpoint if a file for it was given.
    """
    simulation = Simulation(problem, backend)
    if resume:
        if checkpoint is None:
            raise InputError("resume needs the file of the checkpoint")
        simulation.restore(checkpoint)
    return simulation.run(callbacks, checkpoint)
