"""Whole small runs: energy, circuits, symmetry, failures, and independence of threads."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from solver_cases import (
    LIVER,
    SCENARIOS,
    boiling,
    constant_voltage,
    needle,
    plain_anatomy,
    pull_back,
    small_problem,
    two_needles,
    vessel_anatomy,
)

from thermosim.applicators.electrode import Electrode
from thermosim.backends import select
from thermosim.callbacks import Progress
from thermosim.config import DamageConfig, GeneratorConfig, SegmentConfig, SolverConfig
from thermosim.errors import Interrupted, NumericalError
from thermosim.simulation import Problem, Simulation, SimulationResult, run

Real = NDArray[np.float64]

# ---------------------------------------------------------------------------- energy


@pytest.fixture(scope="module")
def powers() -> dict[str, float]:
    """Power [W] of the last step that had any, by scenario."""
    return {}


@pytest.fixture(scope="module")
def results(powers: dict[str, float]) -> dict[str, SimulationResult]:
    backend = select("cpu")
    found = {}
    for name, problem in SCENARIOS.items():

        def remember(progress: Progress, name: str = name) -> None:
            powers[name] = progress.power or powers[name]

        found[name] = run(problem(), backend, callbacks=[remember])
    return found


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_joule_is_found_again(name: str, results: dict[str, SimulationResult]) -> None:
    audit = results[name].audit
    # walls are booked by the scheme itself, perfusion and faces by the trapezoidal rule over steps of up
    # to 10 s: of second order. Seen: up to 7e-4
    assert audit.relative_error < 1e-3
    found = audit.stored + audit.perfusion + audit.vessels + audit.cooled_needles + audit.faces
    given = audit.electrical + audit.metabolic
    assert abs(given - found) == pytest.approx(audit.relative_error * given, rel=1e-6, abs=1e-6)
    assert audit.electrical > 100.0
    assert audit.perfusion > 0.0


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_audit_closes_with_the_time_step(name: str) -> None:
    problem = replace(SCENARIOS[name](), solver=SolverConfig(maximum_time_step=1.0))
    # a tenth of the longest step, and round-off
    assert run(problem, select("cpu")).audit.relative_error < 1e-4


@pytest.mark.parametrize("name", SCENARIOS)
def test_heat_is_the_electrical_power(
    name: str, results: dict[str, SimulationResult], powers: dict[str, float]
) -> None:
    result = results[name]
    # Σ q h³ against Σ V I of the same solve: float32 fields and a residual of 1e-6; seen 2e-6
    assert result.power_relative_error < 1e-5
    power = result.traces.power.sum(axis=1)
    assert result.traces.total_power == pytest.approx(power, rel=1e-4, abs=1e-9)
    products = (result.traces.voltage * result.traces.current).sum(axis=1)
    assert result.traces.total_power == pytest.approx(products, rel=1e-4, abs=1e-9)
    # the field that heats is scaled to what the generator gives: only float32 is left
    q = float(result.volumetric_heat_source.sum(dtype=float)) * result.anatomy.grid.cell_volume
    assert q == pytest.approx(powers[name], rel=1e-5)


@pytest.mark.parametrize("name", SCENARIOS)
def test_runs_are_complete_and_sane(name: str, results: dict[str, SimulationResult]) -> None:
    result = results[name]
    assert result.completed
    assert result.traces.time[-1] == pytest.approx(result.treatment_time)
    assert np.all(np.diff(result.traces.time) >= 0.0)  # the end of a segment is read twice: before, after
    assert np.all(np.diff(result.traces.electrical_energy) >= 0.0)
    assert np.all(np.diff(result.traces.ablated_volume) >= 0.0)  # the dead stay dead
    fields = (result.temperature, result.damage_integral, result.thermal_dose, result.dead_fraction)
    assert all(np.all(np.isfinite(f)) for f in fields)
    tissue = ~result.solid_mask
    assert np.all(result.highest_temperature[tissue] >= result.temperature[tissue] - 1e-4)
    assert np.all((result.dead_fraction >= 0.0) & (result.dead_fraction <= 1.0))


def test_the_scenarios_are_what_they_claim(results: dict[str, SimulationResult]) -> None:
    for name in ("boiling", "impedance_controlled"):
        assert results[name].traces.hottest_temperature.max() > 99.5
    assert results["constant_voltage"].traces.hottest_temperature.max() < 95.0
    pulses = results["impedance_controlled"].traces.total_power > 0.0
    in_time = results["impedance_controlled"].traces.time < 89.0
    assert np.count_nonzero(~pulses[in_time]) >= 2  # at least one pause, read twice
    assert pulses[in_time][-1] or np.any(np.diff(pulses[in_time].astype(int)) > 0)  # and power after it
    assert results["cooled"].audit.cooled_needles > 50.0
    for name in ("isothermal_vessel", "convective_vessel"):
        assert results[name].audit.vessels > 10.0
    # a film keeps heat out of the blood
    assert results["convective_vessel"].audit.vessels < results["isothermal_vessel"].audit.vessels
    for name in ("sequence", "switching"):
        power = results[name].traces.power
        # one needle at a time: the other one floats and hands on what it takes in
        driven = power[power.sum(axis=1) > 0.0]
        assert np.all(np.abs(driven).min(axis=1) < 1e-4 * driven.max(axis=1))
        assert set(np.argmax(driven, axis=1)) == {0, 1}
    together = results["bonded"].traces.voltage
    assert np.array_equal(together[:, 0], together[:, 1])
    constant = results["constant_power"].traces.total_power
    assert constant[constant > 0.0] == pytest.approx(12.0, rel=1e-9)


def test_power_follows_the_voltage_squared() -> None:
    # before anything warms up: the same resistance, four times the power
    backend = select("cpu", 1)
    segments = [SegmentConfig(duration_min=0.02)]
    low = run(small_problem(generator=GeneratorConfig(voltage=10.0), segments=segments), backend)
    high = run(small_problem(generator=GeneratorConfig(voltage=20.0), segments=segments), backend)
    assert high.traces.total_power[0] == pytest.approx(4.0 * low.traces.total_power[0], rel=1e-6)
    assert high.initial_impedance == pytest.approx(low.initial_impedance, rel=1e-7)
    assert high.initial_impedance == pytest.approx(1.0 / high.admittance_matrix[0, 0], rel=1e-9)


def test_a_pull_back_leaves_the_heat_in_the_tissue(results: dict[str, SimulationResult]) -> None:
    # what the deep position killed stays dead after the needle has gone
    deep = run(
        small_problem(electrodes=pull_back().electrodes, segments=pull_back().protocol.segments[:1]),
        select("cpu"),
    )
    both = results["pull_back"]
    tissue = ~deep.solid_mask & ~both.solid_mask
    assert np.all(both.damage_integral[tissue] >= deep.damage_integral[tissue])
    assert both.electrodes[0].target_point != deep.electrodes[0].target_point


# ---------------------------------------------------------------------------- symmetry


def mirrored(point: tuple[float, float, float], axis: int) -> tuple[float, float, float]:
    values = list(point)
    values[axis] = -values[axis]
    return values[0], values[1], values[2]


def skew_needle() -> Electrode:
    return needle("skew", (0.0031, -0.0017, -0.0092), (0.36, 0.48, 0.8), 0.016, coolant=10.0)


def skew_problem(electrode: Electrode) -> Problem:
    return small_problem(
        anatomy=plain_anatomy((24, 24, 24), 2.5e-3),
        electrodes=(electrode,),
        generator=GeneratorConfig(mode="constant_power", power=30.0),
        segments=[SegmentConfig(duration_min=0.7)],
        cooling=10.0,
        solver=SolverConfig(active_box=False),  # a window begins and ends at multiples of eight cells along z
    )


def check_same(one: SimulationResult, other: SimulationResult, turn: object) -> None:
    """Fields of `other`, turned by `turn`, are those of `one`."""
    assert callable(turn)
    assert np.array_equal(turn(other.solid_mask), one.solid_mask)
    # sums in another order, 1e-7 each, grow over the steps; boiling and the adaptive steps let it grow most
    assert np.abs(turn(other.temperature) - one.temperature).max() < 0.02
    assert (
        np.abs(turn(other.electric_potential) - one.electric_potential).max()
        < 1e-3 * np.abs(one.electric_potential).max()
    )
    edge = np.abs(np.log(np.maximum(one.damage_integral, 1e-9))) < 3.0
    ratio = turn(other.damage_integral)[edge] / one.damage_integral[edge]
    assert np.abs(np.log(ratio)).max() < 0.01
    assert other.initial_impedance == pytest.approx(one.initial_impedance, rel=1e-5)
    assert other.audit.electrical == pytest.approx(one.audit.electrical, rel=1e-4)


@pytest.fixture(scope="module")
def skew() -> SimulationResult:
    return run(skew_problem(skew_needle()), select("cpu"))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirrored_needle_gives_mirrored_fields(axis: int, skew: SimulationResult) -> None:
    e = skew_needle()
    mirror = replace(
        e, target_point=mirrored(e.target_point, axis), entry_point=mirrored(e.entry_point, axis)
    )
    other = run(skew_problem(mirror), select("cpu"))
    check_same(skew, other, lambda field: np.flip(field, axis))


def test_exchanged_axes_give_turned_fields(skew: SimulationResult) -> None:
    def turned(p: tuple[float, float, float]) -> tuple[float, float, float]:
        return p[1], p[2], p[0]

    e = skew_needle()
    other = run(
        skew_problem(replace(e, target_point=turned(e.target_point), entry_point=turned(e.entry_point))),
        select("cpu"),
    )
    check_same(skew, other, lambda field: np.moveaxis(field, (0, 1, 2), (1, 2, 0)))


def test_a_shifted_box_changes_nothing(skew: SimulationResult) -> None:
    # the same case elsewhere in the patient: half a metre away
    away = np.array([0.45, -0.3, 1.2])
    e = skew_needle()
    problem = skew_problem(
        replace(
            e,
            target_point=tuple(np.add(e.target_point, away)),
            entry_point=tuple(np.add(e.entry_point, away)),
        )
    )
    moved = replace(problem, anatomy=plain_anatomy((24, 24, 24), 2.5e-3, tuple(away)))
    check_same(skew, run(moved, select("cpu")), lambda field: field)


# ---------------------------------------------------------------------------- threads, callbacks


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    # 48³ cells: above the size at which loops are shared out
    problem = small_problem(
        anatomy=vessel_anatomy((48, 48, 48), 1.5e-3),
        electrodes=two_needles(coolant=10.0),
        segments=[SegmentConfig(duration_min=0.25, drive="switching", dwell_time=5.0)],
        generator=GeneratorConfig(mode="constant_power", power=50.0),
    )
    one, two = run(problem, select("cpu", 1)), run(problem, select("cpu", 2))
    for name in (
        "temperature",
        "highest_temperature",
        "damage_integral",
        "thermal_dose",
        "dead_fraction",
        "electric_potential",
        "volumetric_heat_source",
    ):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name
    assert one.audit == two.audit
    for name in one.traces.__dataclass_fields__:
        assert np.array_equal(getattr(one.traces, name), getattr(two.traces, name), equal_nan=True), name


def test_callbacks_are_told_how_far_the_run_is() -> None:
    told: list[Progress] = []
    result = run(
        small_problem(segments=[SegmentConfig(duration_min=0.2)], cooling=4.0),
        select("cpu", 1),
        callbacks=[told.append],
    )
    assert len(told) == result.run.time_steps
    times = [p.time for p in told]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(16.0)
    assert {p.duration for p in told} == {16.0}
    assert told[0].power > 0.0
    assert told[-1].power == 0.0
    assert told[-1].cell_updates_per_second > 0.0


def test_readings_come_as_often_as_asked() -> None:
    problem = small_problem(
        segments=[SegmentConfig(duration_min=1.0)], solver=SolverConfig(report_interval=2.0)
    )
    traces = run(problem, select("cpu", 1)).traces
    assert np.all(np.diff(traces.time)[:-1] >= 2.0 - 1e-9)
    # a reading waits for the end of a time step, which may be as long as 5 s
    assert np.diff(traces.time).max() < 2.0 + 5.0


def test_an_interrupt_without_a_checkpoint_just_stops() -> None:
    def stop(progress: Progress) -> None:
        if progress.time > 5.0:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match=r"stopped at \d+\.\d s"):
        run(small_problem(), select("cpu", 1), callbacks=[stop])
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_interrupt_stops_at_once() -> None:
    def stop(_progress: Progress) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(small_problem(), select("cpu", 1), callbacks=[stop])


# ---------------------------------------------------------------------------- failures


def test_a_field_that_is_no_number_stops_the_run_and_says_where_and_when() -> None:
    problem = small_problem()
    simulation = Simulation(problem, select("cpu", 1))

    def spoil(progress: Progress) -> None:
        if progress.time > 10.0:
            simulation.treatment.layout.interior(simulation.treatment.temperature)[20, 11, 7] = np.nan

    # cell (20, 11, 7) of 32³ cells of 2 mm around the origin
    with pytest.raises(
        NumericalError, match=r"not finite at 1\d\.\d\d s near \(9\.0, -9\.0, -17\.0\) mm LPS"
    ):
        simulation.run([spoil])


def test_a_heat_source_that_is_no_number_is_noticed() -> None:
    simulation = Simulation(small_problem(), select("cpu", 1))

    def spoil(progress: Progress) -> None:
        if progress.time > 10.0:
            simulation.treatment.heat[:] = np.inf

    with pytest.raises(NumericalError, match="finite"):
        simulation.run([spoil])


def test_a_potential_that_does_not_converge_says_when() -> None:
    problem = small_problem(solver=SolverConfig(maximum_iterations=1))
    with pytest.raises(
        NumericalError, match=r"at 0\.00 s: the potential did not converge.*maximum_iterations"
    ):
        run(problem, select("cpu", 1))


# ---------------------------------------------------------------------------- models behave


def test_perfusion_that_stops_with_death_lets_the_zone_grow() -> None:
    results = {}
    for shutdown in ("none", "viability", "arrhenius"):
        problem = small_problem(
            anatomy=plain_anatomy((24, 24, 24), 2.5e-3),
            segments=[SegmentConfig(duration_min=6.0)],
            generator=GeneratorConfig(voltage=28.0),
            damage=DamageConfig(perfusion_shutdown=shutdown),
        )
        results[shutdown] = run(problem, select("cpu"))
    carried = {name: result.audit.perfusion for name, result in results.items()}
    volume = {name: float(result.traces.ablated_volume[-1]) for name, result in results.items()}
    # three states count only a few cells dead by then, Arrhenius hundreds
    assert carried["arrhenius"] < 0.8 * carried["none"]
    assert carried["viability"] < carried["none"]
    assert volume["arrhenius"] > 1.5 * volume["none"]


def test_smaller_time_steps_change_little() -> None:
    coarse = run(constant_voltage(), select("cpu"))
    fine = run(
        replace(constant_voltage(), solver=SolverConfig(maximum_time_step=1.0, maximum_temperature_rise=0.5)),
        select("cpu"),
    )
    assert fine.run.time_steps > 3 * coarse.run.time_steps
    # what the default tolerances (4 K per step) are worth: tenths of a kelvin at a needle of 70 °C
    assert np.abs(fine.temperature - coarse.temperature).max() < 0.5
    edge = np.abs(np.log(np.maximum(fine.damage_integral, 1e-9))) < 2.0
    ratio = coarse.damage_integral[edge] / fine.damage_integral[edge]
    assert np.abs(np.log(ratio)).max() < 0.15
    assert coarse.final_impedance == pytest.approx(fine.final_impedance, rel=0.01)


def test_boiling_tissue_settles() -> None:
    # a cell that dries out loses its heat: with σ a step late it swings from wet to dry and back
    coarse = run(boiling(), select("cpu"))
    fine = run(
        replace(boiling(), solver=SolverConfig(maximum_time_step=0.1, maximum_temperature_rise=1.0)),
        select("cpu"),
    )
    assert fine.run.time_steps > 8 * coarse.run.time_steps
    # the energy of a roll-off within steps of a second: seen 3.6 %; 7 % if boiling cells follow σ(T) at once
    assert coarse.audit.electrical == pytest.approx(fine.audit.electrical, rel=0.055)
    # dead share: seen 32 % more than with short steps; 98 % more if they follow at once
    dead = [float(r.dead_fraction[~r.solid_mask].sum(dtype=float)) for r in (coarse, fine)]
    assert dead[0] == pytest.approx(dead[1], rel=0.6)


@pytest.mark.parametrize("name", ["sequence", "switching"])
def test_floating_needles_carry_no_current(name: str, results: dict[str, SimulationResult]) -> None:
    run_info = results[name].run
    assert 0.0 < run_info.floating_current <= 1e-3  # what a drive is solved to
    assert run_info.potential_error <= 2e-3  # a tenth of solver.resolve_tolerance
    assert run_info.potential_residual < 1e-2
    # one field, not two, for a drive: three iterations and one to correct the floating one's voltage
    assert run_info.potential_iterations < 3.5 * run_info.potential_solves


def test_unheated_tissue_stays_as_it_is() -> None:
    # no power to speak of, metabolism off: nothing may drift in float32 over many steps
    problem = small_problem(
        liver=replace(LIVER, metabolic_heat=0.0),
        generator=GeneratorConfig(voltage=1e-3),
        segments=[SegmentConfig(duration_min=5.0)],
    )
    result = run(problem, select("cpu", 1))
    assert np.abs(result.temperature - 37.0).max() < 1e-4
