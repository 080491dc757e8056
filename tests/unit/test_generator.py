"""The generator's modes, limits, turns and checkpoints, against impedances given by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermosim.applicators.circuit import Circuit, terminal_admittance, terminals_for, unit_voltages
from thermosim.applicators.generator import Generator
from thermosim.config import GeneratorConfig, SegmentConfig
from thermosim.errors import InputError, NumericalError

ROUND_OFF = 1e-12  # a handful of operations in double precision


def resistor(impedance: float) -> Circuit:
    """One terminal with this impedance to the ground."""
    return Circuit(np.array([[1.0 / impedance]]))


def three_needles(impedances: tuple[float, float, float] = (100.0, 100.0, 100.0)) -> Circuit:
    """Three needles coupled to each other by 1 mS."""
    coupling = 1e-3
    y = np.full((3, 3), -coupling)
    y[np.diag_indices(3)] = [1.0 / z + 2.0 * coupling for z in impedances]
    return Circuit(y)


def floating_impedance(circuit: Circuit, active: int) -> float:
    return 1.0 / unit_voltages(circuit.admittance, active)[1]


def test_constant_voltage_and_what_follows_from_it() -> None:
    generator = Generator(GeneratorConfig(voltage=25.0), SegmentConfig(duration_min=1.0), 1)
    drive = generator.drive(0.0, resistor(100.0))
    assert drive.on
    assert drive.limit is None
    assert drive.voltages == pytest.approx([25.0], rel=ROUND_OFF)
    assert drive.currents == pytest.approx([0.25], rel=ROUND_OFF)
    assert drive.total_power == pytest.approx(6.25, rel=ROUND_OFF)
    assert drive.impedance == pytest.approx(100.0, rel=ROUND_OFF)


@given(st.floats(0.5, 150.0), st.floats(20.0, 300.0))
def test_constant_power_from_the_conductance(power: float, impedance: float) -> None:
    config = GeneratorConfig(
        mode="constant_power", power=power, maximum_voltage=1e3, maximum_current=1e3, maximum_power=200.0
    )
    drive = Generator(config, SegmentConfig(duration_min=1.0), 1).drive(0.0, resistor(impedance))
    assert drive.total_power == pytest.approx(power, rel=ROUND_OFF)
    assert drive.voltages[0] == pytest.approx(math.sqrt(power * impedance), rel=ROUND_OFF)


@pytest.mark.parametrize(
    ("limits", "which", "voltage"),
    [
        ({"maximum_power": 50.0}, "maximum_power", math.sqrt(50.0 * 100.0)),
        ({"maximum_voltage": 60.0}, "maximum_voltage", 60.0),
        ({"maximum_current": 0.5}, "maximum_current", 50.0),
        ({"maximum_power": 50.0, "maximum_voltage": 60.0, "maximum_current": 0.5}, "maximum_current", 50.0),
    ],
)
def test_the_tightest_limit_holds_and_is_named(limits: dict[str, float], which: str, voltage: float) -> None:
    config = GeneratorConfig(mode="constant_power", power=100.0, **limits)
    generator = Generator(config, SegmentConfig(duration_min=1.0), 1)
    drive = generator.drive(0.0, resistor(100.0))  # 100 W in 100 Ω: 100 V and 1 A
    assert drive.limit == which
    assert drive.voltages[0] == pytest.approx(voltage, rel=ROUND_OFF)
    assert [e.kind for e in generator.events] == ["pulse", f"limit:{which}"]


def test_together_the_group_is_one_terminal_and_the_current_limit_holds_per_electrode() -> None:
    y = np.diag([0.02, 0.005, 0.01])
    groups = terminals_for("together", 3, [0, 1])
    assert groups == ((0, 1), (2,))
    grouped = terminal_admittance(y, groups)
    assert grouped == pytest.approx(np.diag([0.025, 0.01]))
    shares = np.array([[0.02, 0.0], [0.005, 0.0], [0.0, 0.01]])
    config = GeneratorConfig(voltage=80.0, maximum_current=1.0)
    drive = Generator(config, SegmentConfig(duration_min=1.0), 3, [0, 1]).drive(0.0, Circuit(grouped, shares))
    # the better conductor of the two, 20 mS, reaches 1 A at 50 V
    assert drive.limit == "maximum_current"
    assert drive.voltages[0] == pytest.approx(50.0, rel=ROUND_OFF)
    assert drive.electrode_currents == pytest.approx([1.0, 0.25, 0.0], abs=ROUND_OFF)
    assert drive.electrode_voltages == pytest.approx([50.0, 50.0, 0.0], abs=ROUND_OFF)
    assert drive.electrode_powers.sum() == pytest.approx(drive.total_power, rel=ROUND_OFF)
    # without the shares the group's current is taken as shared equally
    equal = Generator(config, SegmentConfig(duration_min=1.0), 3, [0, 1]).drive(0.0, Circuit(grouped))
    assert equal.electrode_currents == pytest.approx([1.0, 1.0, 0.0], abs=ROUND_OFF)


def test_floating_terminals_carry_no_net_current_but_take_a_potential() -> None:
    circuit = three_needles()
    config = GeneratorConfig(mode="constant_power", power=20.0)
    drive = Generator(config, SegmentConfig(1.0, "sequence"), 3).drive(0.0, circuit)
    flows = circuit.admittance @ drive.voltages
    assert abs(flows[1:]).max() < ROUND_OFF
    assert flows[0] == pytest.approx(drive.currents[0], rel=ROUND_OFF)
    # by hand: two floating needles at V_f draw 1 mS (V − V_f) = 10 mS V_f, so V_f = V/11
    assert drive.voltages[1:] == pytest.approx(np.full(2, drive.voltages[0] / 11.0), rel=ROUND_OFF)
    assert drive.total_power == pytest.approx(20.0, rel=ROUND_OFF)


def test_sequence_gives_each_needle_an_equal_share() -> None:
    generator = Generator(
        GeneratorConfig(control_interval=1000.0), SegmentConfig(3.0, "sequence"), 4, [0, 2, 3]
    )
    y = Circuit(np.eye(4) * 0.01)
    active, time = [], 0.0
    while time < generator.duration:
        active.append((time, generator.drive(time, y).active_terminal))
        time = generator.next_event(time)
    assert active == [(0.0, 0), (60.0, 2), (120.0, 3)]
    assert time == 180.0


def pulsing(**changes: float) -> GeneratorConfig:
    settings = {
        "power": 40.0,
        "power_ramp": 6.0,
        "impedance_rise": 20.0,
        "baseline_time": 10.0,
        "pause": 15.0,
        "power_reduction": 0.5,
        "minimum_power": 5.0,
        "control_interval": 1.0,
    }
    return GeneratorConfig(mode="impedance_controlled", **{**settings, **changes})


def test_pulse_ramps_pauses_on_a_rise_and_goes_on_lower() -> None:
    generator = Generator(pulsing(), SegmentConfig(duration_min=5.0), 1)
    assert generator.drive(0.0, resistor(100.0)).total_power == pytest.approx(40.0)
    assert generator.drive(5.0, resistor(80.0)).total_power == pytest.approx(40.5)
    # a lower impedance after the baseline's time leaves the baseline at 80 Ω
    assert generator.drive(30.0, resistor(70.0)).total_power == pytest.approx(43.0)
    assert generator.drive(60.0, resistor(100.0)).on  # exactly 20 Ω over it: not yet
    assert not generator.drive(61.0, resistor(100.1)).on
    assert math.isnan(generator.drive(70.0, resistor(60.0)).impedance)
    assert generator.next_event(61.0) == 76.0
    after = generator.drive(76.0, resistor(90.0))
    # at 61 s the ramp had reached 46.1 W; half of it starts the next pulse, with a new baseline
    assert after.total_power == pytest.approx(23.05)
    assert generator.drive(80.0, resistor(109.0)).on
    assert not generator.drive(81.0, resistor(110.1)).on
    assert [e.kind for e in generator.events] == ["pulse", "rise", "pulse", "rise"]


def test_power_never_falls_below_the_minimum_nor_winds_up_behind_a_limit() -> None:
    generator = Generator(pulsing(minimum_power=30.0), SegmentConfig(duration_min=60.0), 1)
    generator.drive(0.0, resistor(100.0))
    generator.drive(20.0, resistor(200.0))
    assert generator.drive(35.0, resistor(100.0)).total_power == pytest.approx(30.0)
    limited = Generator(pulsing(maximum_power=50.0), SegmentConfig(duration_min=60.0), 1)
    for time in np.arange(0.0, 1000.0, 10.0):
        drive = limited.drive(float(time), resistor(100.0))
    assert drive.limit == "maximum_power"
    limited.drive(1000.0, resistor(200.0))
    # half of the 50 W delivered, not of the 140 W that the ramp would have reached
    assert limited.drive(1015.0, resistor(100.0)).total_power == pytest.approx(25.0)


def test_reading_twice_at_the_same_moment_changes_nothing() -> None:
    generator = Generator(pulsing(), SegmentConfig(duration_min=5.0), 1)
    for time, impedance in ((0.0, 100.0), (20.0, 130.0), (35.0, 90.0)):
        first = generator.drive(time, resistor(impedance))
        state = generator.state()
        assert generator.drive(time, resistor(impedance)).total_power == first.total_power
        assert generator.state() == state


def test_switching_moves_on_after_the_dwell_or_a_rise_and_lets_a_risen_needle_rest() -> None:
    segment = SegmentConfig(10.0, "switching", dwell_time=30.0, switch_impedance_rise=30.0)
    generator = Generator(GeneratorConfig(mode="constant_power", power=50.0, pause=40.0), segment, 3)
    calm = three_needles()
    assert generator.drive(0.0, calm).active_terminal == 0
    assert generator.next_event(29.5) == 30.0
    assert generator.drive(30.0, calm).active_terminal == 1
    risen = three_needles((100.0, 400.0, 100.0))
    assert floating_impedance(risen, 1) > floating_impedance(calm, 1) + 30.0
    assert generator.drive(35.0, risen).active_terminal == 2  # at once
    assert generator.drive(65.0, calm).active_terminal == 0
    # needle 1 rests until 75 s; at 72 s needle 0 rises too, so needle 2 is next
    assert generator.drive(72.0, three_needles((900.0, 100.0, 100.0))).active_terminal == 2
    # now needle 2 rises while 0 and 1 rest: all off until needle 1 is ready
    assert not generator.drive(73.0, three_needles((100.0, 100.0, 900.0))).on
    assert generator.next_event(73.0) == 75.0
    assert generator.drive(75.0, calm).active_terminal == 1
    assert [e.terminal for e in generator.events if e.kind == "rise"] == [1, 0, 2]


def test_a_single_needle_switching_takes_the_next_turn_itself() -> None:
    generator = Generator(GeneratorConfig(), SegmentConfig(10.0, "switching", dwell_time=30.0), 1)
    assert generator.drive(0.0, resistor(100.0)).on
    assert generator.drive(30.0, resistor(100.0)).on


def test_pulsing_needles_that_switch_keep_their_own_power() -> None:
    segment = SegmentConfig(10.0, "switching", dwell_time=30.0, switch_impedance_rise=30.0)
    generator = Generator(pulsing(power_ramp=0.0), segment, 2)

    def circuit(first: float, second: float) -> Circuit:
        return Circuit(np.diag([1.0 / first, 1.0 / second]))

    generator.drive(0.0, circuit(100.0, 100.0))
    # the tighter rise of the two, 20 Ω, ends the turn of needle 0
    drive = generator.drive(10.0, circuit(121.0, 100.0))
    assert (drive.active_terminal, drive.total_power) == (1, pytest.approx(40.0))
    drive = generator.drive(40.0, circuit(100.0, 100.0))
    assert (drive.active_terminal, drive.total_power) == (0, pytest.approx(20.0))


def test_no_pause_begins_the_next_pulse_at_once() -> None:
    generator = Generator(pulsing(pause=0.0), SegmentConfig(duration_min=5.0), 1)
    generator.drive(0.0, resistor(100.0))
    drive = generator.drive(10.0, resistor(150.0))
    assert drive.on
    assert drive.total_power == pytest.approx(20.5)  # half of the 41 W reached


@pytest.mark.parametrize("drive_mode", ["together", "sequence", "switching"])
@pytest.mark.parametrize("mode", ["constant_voltage", "constant_power", "impedance_controlled"])
def test_a_checkpoint_continues_bit_for_bit(drive_mode: str, mode: str) -> None:
    config = pulsing(power_ramp=7.3, pause=11.0)
    config.mode = mode
    segment = SegmentConfig(4.0, drive_mode, dwell_time=17.0, switch_impedance_rise=25.0)
    random = np.random.default_rng(3)
    readings = [three_needles(tuple(random.uniform(60.0, 220.0, 3))) for _ in range(400)]

    def circuit(number: int, generator: Generator) -> Circuit:
        return Circuit(terminal_admittance(readings[number % 400].admittance, generator.terminals))

    def run(generator: Generator, time: float, number: int, stop: float) -> list[tuple[float, ...]]:
        trace = []
        while time < stop:
            drive = generator.drive(time, circuit(number, generator))
            trace.append((time, number, *drive.voltages, drive.total_power))
            time, number = generator.next_event(time), number + 1
        return [*trace, (time, number)]

    whole = run(Generator(config, segment, 3), 0.0, 0, 240.0)
    first = Generator(config, segment, 3)
    head = run(first, 0.0, 0, 101.0)
    stored = json.loads(json.dumps(first.state()))
    second = Generator(config, segment, 3)
    second.restore(stored)
    time, number = head.pop()
    assert head + run(second, time, int(number), 240.0) == whole


def test_a_foreign_checkpoint_is_refused() -> None:
    one, three = (Generator(pulsing(), SegmentConfig(1.0, "sequence"), n) for n in (1, 3))
    with pytest.raises(InputError, match="does not fit"):
        three.restore(one.state())
    with pytest.raises(InputError, match="does not fit"):
        one.restore({"turn": 0})


def test_next_event_always_lies_ahead_and_never_beyond_the_segment() -> None:
    segment = SegmentConfig(2.0, "switching", dwell_time=7.0, switch_impedance_rise=10.0)
    generator = Generator(pulsing(control_interval=3.0), segment, 3)
    random = np.random.default_rng(5)
    time = 0.0
    while time < generator.duration:
        generator.drive(time, three_needles(tuple(random.uniform(50.0, 150.0, 3))))
        later = generator.next_event(time)
        assert time < later <= generator.duration
        time = later


def test_a_broken_circuit_is_an_error_by_name() -> None:
    generator = Generator(GeneratorConfig(), SegmentConfig(duration_min=1.0), 1)
    with pytest.raises(NumericalError, match="not finite"):
        generator.drive(0.0, Circuit(np.array([[math.nan]])))
    with pytest.raises(NumericalError, match="conductance"):
        generator.drive(0.0, Circuit(np.array([[0.0]])))
    with pytest.raises(InputError, match="terminals"):
        generator.drive(0.0, three_needles())
    with pytest.raises(InputError, match="at least one"):
        Generator(GeneratorConfig(), SegmentConfig(duration_min=1.0), 2, [])
