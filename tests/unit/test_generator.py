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


def make(
    config: GeneratorConfig, segment: SegmentConfig, n: int, active: list[int] | None = None
) -> Generator:
    """A generator for n needles, each a unit of its own."""
    return Generator(config, segment, "abcd"[:n], active)


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
    generator = make(GeneratorConfig(voltage=25.0), SegmentConfig(duration_min=1.0), 1)
    drive = generator.drive(0.0, resistor(100.0))
    assert drive.on
    assert drive.limit is None
    assert drive.voltages == pytest.approx([25.0], rel=ROUND_OFF)
    assert drive.currents == pytest.approx([0.25], rel=ROUND_OFF)
    assert drive.total_power == pytest.approx(6.25, rel=ROUND_OFF)
    assert drive.impedance == pytest.approx(100.0, rel=ROUND_OFF)


@pytest.mark.parametrize("mode", ["constant_voltage", "constant_power", "constant_current"])
def test_cables_take_their_share_of_voltage_and_power(mode: str) -> None:
    """A series resistance that leaves η: the generator sees Z/η and gives what it says at its clamps."""
    config = GeneratorConfig(mode=mode, voltage=40.0, power=20.0, current=0.4, coupling_efficiency=0.8)
    drive = make(config, SegmentConfig(duration_min=1.0), 1).drive(0.0, resistor(80.0))
    # into 100 Ω: 40 V are 0.4 A and 16 W; 20 W are 0.447 A
    current = math.sqrt(20.0 / 100.0) if mode == "constant_power" else 0.4
    assert drive.impedance == pytest.approx(100.0, rel=ROUND_OFF)
    assert drive.load_impedance == pytest.approx(80.0, rel=ROUND_OFF)
    assert drive.currents == pytest.approx([current], rel=ROUND_OFF)
    assert drive.voltages == pytest.approx([80.0 * current], rel=ROUND_OFF)
    assert drive.generator_power == pytest.approx(100.0 * current**2, rel=ROUND_OFF)
    assert drive.total_power == pytest.approx(80.0 * current**2, rel=ROUND_OFF)
    assert drive.electrode_powers.sum() == pytest.approx(drive.total_power, rel=ROUND_OFF)


def test_limits_hold_at_the_clamps() -> None:
    config = GeneratorConfig(voltage=90.0, maximum_voltage=50.0, coupling_efficiency=0.5)
    drive = make(config, SegmentConfig(duration_min=1.0), 1).drive(0.0, resistor(100.0))
    assert drive.limit == "maximum_voltage"
    assert drive.voltages == pytest.approx([25.0], rel=ROUND_OFF)
    silent = GeneratorConfig(voltage=20.0, maximum_impedance=150.0, coupling_efficiency=0.5)
    assert not make(silent, SegmentConfig(duration_min=1.0), 1).drive(0.0, resistor(100.0)).on


@given(st.floats(0.5, 150.0), st.floats(20.0, 300.0))
def test_constant_power_from_the_conductance(power: float, impedance: float) -> None:
    config = GeneratorConfig(
        mode="constant_power", power=power, maximum_voltage=1e3, maximum_current=1e3, maximum_power=200.0
    )
    drive = make(config, SegmentConfig(duration_min=1.0), 1).drive(0.0, resistor(impedance))
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
    generator = make(config, SegmentConfig(duration_min=1.0), 1)
    drive = generator.drive(0.0, resistor(100.0))  # 100 W in 100 Ω: 100 V and 1 A
    assert drive.limit == which
    assert drive.voltages[0] == pytest.approx(voltage, rel=ROUND_OFF)
    assert [e.kind for e in generator.events] == ["pulse", f"limit:{which}"]


def test_together_the_group_is_one_terminal_and_the_current_limit_holds_per_electrode() -> None:
    y = np.diag([0.02, 0.005, 0.01])
    groups = terminals_for("together", "abc", [0, 1])
    assert groups == ((0, 1), (2,))
    grouped = terminal_admittance(y, groups)
    assert grouped == pytest.approx(np.diag([0.025, 0.01]))
    shares = np.array([[0.02, 0.0], [0.005, 0.0], [0.0, 0.01]])
    config = GeneratorConfig(voltage=80.0, maximum_current=1.0)
    drive = make(config, SegmentConfig(duration_min=1.0), 3, [0, 1]).drive(0.0, Circuit(grouped, shares))
    # the better conductor of the two, 20 mS, reaches 1 A at 50 V
    assert drive.limit == "maximum_current"
    assert drive.voltages[0] == pytest.approx(50.0, rel=ROUND_OFF)
    assert drive.electrode_currents == pytest.approx([1.0, 0.25, 0.0], abs=ROUND_OFF)
    assert drive.electrode_voltages == pytest.approx([50.0, 50.0, 0.0], abs=ROUND_OFF)
    assert drive.electrode_powers.sum() == pytest.approx(drive.total_power, rel=ROUND_OFF)
    # without the shares the group's current is taken as shared equally
    equal = make(config, SegmentConfig(duration_min=1.0), 3, [0, 1]).drive(0.0, Circuit(grouped))
    assert equal.electrode_currents == pytest.approx([1.0, 1.0, 0.0], abs=ROUND_OFF)


def test_floating_terminals_carry_no_net_current_but_take_a_potential() -> None:
    circuit = three_needles()
    config = GeneratorConfig(mode="constant_power", power=20.0)
    drive = make(config, SegmentConfig(1.0, "sequence"), 3).drive(0.0, circuit)
    flows = circuit.admittance @ drive.voltages
    assert abs(flows[1:]).max() < ROUND_OFF
    assert flows[0] == pytest.approx(drive.currents[0], rel=ROUND_OFF)
    # by hand: two floating needles at V_f draw 1 mS (V − V_f) = 10 mS V_f, so V_f = V/11
    assert drive.voltages[1:] == pytest.approx(np.full(2, drive.voltages[0] / 11.0), rel=ROUND_OFF)
    assert drive.total_power == pytest.approx(20.0, rel=ROUND_OFF)


def test_sequence_gives_each_needle_an_equal_share() -> None:
    generator = make(GeneratorConfig(control_interval=1000.0), SegmentConfig(3.0, "sequence"), 4, [0, 2, 3])
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
    generator = make(pulsing(), SegmentConfig(duration_min=5.0), 1)
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
    generator = make(pulsing(minimum_power=30.0), SegmentConfig(duration_min=60.0), 1)
    generator.drive(0.0, resistor(100.0))
    generator.drive(20.0, resistor(200.0))
    assert generator.drive(35.0, resistor(100.0)).total_power == pytest.approx(30.0)
    limited = make(pulsing(maximum_power=50.0), SegmentConfig(duration_min=60.0), 1)
    for time in np.arange(0.0, 1000.0, 10.0):
        drive = limited.drive(float(time), resistor(100.0))
    assert drive.limit == "maximum_power"
    limited.drive(1000.0, resistor(200.0))
    # half of the 50 W delivered, not of the 140 W that the ramp would have reached
    assert limited.drive(1015.0, resistor(100.0)).total_power == pytest.approx(25.0)


def test_reading_twice_at_the_same_moment_changes_nothing() -> None:
    generator = make(pulsing(), SegmentConfig(duration_min=5.0), 1)
    for time, impedance in ((0.0, 100.0), (20.0, 130.0), (35.0, 90.0)):
        first = generator.drive(time, resistor(impedance))
        state = generator.state()
        assert generator.drive(time, resistor(impedance)).total_power == first.total_power
        assert generator.state() == state


def test_switching_moves_on_after_the_dwell_or_a_rise_and_lets_a_risen_needle_rest() -> None:
    segment = SegmentConfig(10.0, "switching", dwell_time=30.0, switch_impedance_rise=30.0)
    generator = make(GeneratorConfig(mode="constant_power", power=50.0, pause=40.0), segment, 3)
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
    generator = make(GeneratorConfig(), SegmentConfig(10.0, "switching", dwell_time=30.0), 1)
    assert generator.drive(0.0, resistor(100.0)).on
    assert generator.drive(30.0, resistor(100.0)).on


def test_pulsing_needles_that_switch_keep_their_own_power() -> None:
    segment = SegmentConfig(10.0, "switching", dwell_time=30.0, switch_impedance_rise=30.0)
    generator = make(pulsing(power_ramp=0.0), segment, 2)

    def circuit(first: float, second: float) -> Circuit:
        return Circuit(np.diag([1.0 / first, 1.0 / second]))

    generator.drive(0.0, circuit(100.0, 100.0))
    # the tighter rise of the two, 20 Ω, ends the turn of needle 0
    drive = generator.drive(10.0, circuit(121.0, 100.0))
    assert (drive.active_terminal, drive.total_power) == (1, pytest.approx(40.0))
    drive = generator.drive(40.0, circuit(100.0, 100.0))
    assert (drive.active_terminal, drive.total_power) == (0, pytest.approx(20.0))


def test_no_pause_begins_the_next_pulse_at_once() -> None:
    generator = make(pulsing(pause=0.0), SegmentConfig(duration_min=5.0), 1)
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

    whole = run(make(config, segment, 3), 0.0, 0, 240.0)
    first = make(config, segment, 3)
    head = run(first, 0.0, 0, 101.0)
    stored = json.loads(json.dumps(first.state()))
    second = make(config, segment, 3)
    second.restore(stored)
    time, number = head.pop()
    assert head + run(second, time, int(number), 240.0) == whole


def test_a_foreign_checkpoint_is_refused() -> None:
    one, three = (make(pulsing(), SegmentConfig(1.0, "sequence"), n) for n in (1, 3))
    with pytest.raises(InputError, match="does not fit"):
        three.restore(one.state())
    with pytest.raises(InputError, match="does not fit"):
        one.restore({"turn": 0})


def test_next_event_always_lies_ahead_and_never_beyond_the_segment() -> None:
    segment = SegmentConfig(2.0, "switching", dwell_time=7.0, switch_impedance_rise=10.0)
    generator = make(pulsing(control_interval=3.0), segment, 3)
    random = np.random.default_rng(5)
    time = 0.0
    while time < generator.duration:
        generator.drive(time, three_needles(tuple(random.uniform(50.0, 150.0, 3))))
        later = generator.next_event(time)
        assert time < later <= generator.duration
        time = later


def test_a_broken_circuit_is_an_error_by_name() -> None:
    generator = make(GeneratorConfig(), SegmentConfig(duration_min=1.0), 1)
    with pytest.raises(NumericalError, match="not finite"):
        generator.drive(0.0, Circuit(np.array([[math.nan]])))
    with pytest.raises(NumericalError, match="conductance"):
        generator.drive(0.0, Circuit(np.array([[0.0]])))
    with pytest.raises(InputError, match="terminals"):
        generator.drive(0.0, three_needles())
    with pytest.raises(InputError, match="at least one"):
        make(GeneratorConfig(), SegmentConfig(duration_min=1.0), 2, [])


# ---------------------------------------------------------------------------- units


def test_electrodes_of_one_unit_are_bonded_and_share_the_current_limit() -> None:
    units = ["cluster", "cluster", "cluster", "needle"]
    assert terminals_for("together", units, [0, 1, 2]) == ((0, 1, 2), (3,))
    assert terminals_for("sequence", units, [3]) == ((0, 1, 2), (3,))
    y = terminal_admittance(np.diag([0.01, 0.01, 0.01, 0.02]), ((0, 1, 2), (3,)))
    generator = Generator(
        GeneratorConfig(voltage=90.0, maximum_power=1e3), SegmentConfig(1.0, "sequence"), units
    )
    drive = generator.drive(0.0, Circuit(y))
    # 90 V into 30 mS are 2.7 A, more than the 2 A of one device, though each electrode carries a third
    assert drive.limit == "maximum_current"
    assert drive.currents == pytest.approx([2.0, 0.0], rel=ROUND_OFF)
    assert drive.electrode_currents[:3] == pytest.approx(np.full(3, 2.0 / 3.0), rel=ROUND_OFF)
    assert drive.driven == (0, 1, 2)


# ---------------------------------------------------------------------------- modes


def test_constant_current() -> None:
    generator = make(GeneratorConfig(mode="constant_current", current=0.5), SegmentConfig(1.0), 1)
    for impedance in (50.0, 100.0, 150.0):
        drive = generator.drive(0.0, resistor(impedance))
        assert drive.currents == pytest.approx([0.5], rel=ROUND_OFF)
        assert drive.voltages == pytest.approx([0.5 * impedance], rel=ROUND_OFF)
    assert generator.drive(1.0, resistor(400.0)).limit == "maximum_voltage"


def test_above_the_maximum_impedance_there_is_no_output_for_a_pause() -> None:
    config = GeneratorConfig(mode="constant_power", power=20.0, maximum_impedance=120.0, pause=15.0)
    generator = make(config, SegmentConfig(5.0), 1)
    assert generator.drive(0.0, resistor(100.0)).on
    assert generator.next_event(0.0) == 2.0  # it watches now
    assert generator.drive(2.0, resistor(119.9)).on
    assert not generator.drive(4.0, resistor(120.1)).on
    assert generator.next_event(4.0) == 19.0
    assert not generator.drive(19.0, resistor(121.0)).on  # still too high: it rests again
    assert generator.drive(34.0, resistor(90.0)).on
    assert [e.kind for e in generator.events].count("limit:maximum_impedance") == 2


def test_a_ceiling_without_a_pause_waits_for_the_next_reading() -> None:
    config = pulsing(impedance_ceiling=120.0, impedance_rise=500.0, pause=0.0)
    generator = make(config, SegmentConfig(5.0), 1)
    assert not generator.drive(0.0, resistor(130.0)).on
    assert generator.next_event(0.0) == config.control_interval


def test_only_a_short_pulse_weakens_the_next_one() -> None:
    generator = make(pulsing(power_ramp=0.0, short_pulse=10.0), SegmentConfig(5.0), 1)
    generator.drive(0.0, resistor(100.0))
    assert not generator.drive(12.0, resistor(130.0)).on
    assert generator.drive(27.0, resistor(100.0)).total_power == pytest.approx(40.0)
    assert not generator.drive(33.0, resistor(130.0)).on
    assert generator.drive(48.0, resistor(100.0)).total_power == pytest.approx(20.0)


def roll_off(**changes: float) -> GeneratorConfig:
    settings = {
        "power": 30.0,
        "power_ramp": 10.0,
        "impedance_rise": 30.0,
        "pause": 20.0,
        "power_reduction": 0.7,
    }
    return GeneratorConfig(mode="ramp_to_roll_off", **{**settings, **changes})  # type: ignore[arg-type]


def test_a_ramp_ends_with_its_last_roll_off() -> None:
    generator = make(roll_off(), SegmentConfig(15.0), 1)
    assert generator.drive(0.0, resistor(80.0)).total_power == pytest.approx(30.0)
    assert generator.drive(60.0, resistor(60.0)).total_power == pytest.approx(40.0)
    assert generator.drive(120.0, resistor(90.0)).total_power == pytest.approx(
        50.0
    )  # 30 Ω over 60 Ω, not more
    assert not generator.drive(126.0, resistor(90.1)).on
    # 70 % of the highest power delivered, now without a ramp
    assert generator.drive(146.0, resistor(70.0)).total_power == pytest.approx(35.0)
    assert generator.drive(206.0, resistor(70.0)).total_power == pytest.approx(35.0)
    assert not generator.finished
    assert not generator.drive(208.0, resistor(101.0)).on
    assert generator.finished
    assert generator.next_event(208.0) == generator.duration
    assert [e.kind for e in generator.events] == ["pulse", "rise", "pulse", "rise", "done"]


def test_power_that_limits_take_away_is_a_roll_off() -> None:
    generator = make(roll_off(impedance_rise=1e6, phases=1, maximum_voltage=50.0), SegmentConfig(15.0), 1)
    assert generator.drive(0.0, resistor(80.0)).on
    assert generator.drive(2.0, resistor(160.0)).on  # 15.6 W of 30.3: more than half
    assert not generator.drive(4.0, resistor(170.0)).on  # 14.7 W of 30.7
    assert generator.finished
    assert [e.kind for e in generator.events][-2:] == ["power_drop", "done"]


class Lump:
    """Tissue as one heat capacity that loses heat: dT/dt = a P − (T − 37)/τ."""

    def __init__(self, gain: float, loss: float) -> None:
        self.gain, self.loss, self.temperature = gain, loss, 37.0

    def step(self, power: float, seconds: float) -> None:
        for _ in range(100):
            change = self.gain * power - (self.temperature - 37.0) / self.loss
            self.temperature += change * seconds / 100


def heating(**changes: object) -> GeneratorConfig:
    return GeneratorConfig(
        **{
            "mode": "temperature_controlled",
            "power": 60.0,
            "target_temperature": 90.0,
            "hold_time": 60.0,
            **changes,
        }  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("gain", "loss"),  # all those that 60 W bring to the target; they need 0 to 53 W to stay there
    [(0.5, 20.0), (0.05, 20.0), (0.5, 200.0), (0.05, 200.0), (0.005, 200.0), (0.5, 1e6), (0.005, 1e6)],
)
def test_the_temperature_reaches_its_target_and_stays(gain: float, loss: float) -> None:
    lump, generator = Lump(gain, loss), make(heating(), SegmentConfig(60.0), 1)
    time, highest, powers = 0.0, 0.0, []
    while time < 3600.0:
        drive = generator.drive(time, resistor(100.0), [[lump.temperature]])
        if generator.finished:
            break
        powers.append(drive.total_power)
        later = generator.next_event(time)
        lump.step(drive.total_power, later - time)
        highest, time = max(highest, lump.temperature), later
    assert generator.finished
    assert highest < 92.0  # critically damped in the continuum; sampled every 2 s it passes by a little
    assert abs(lump.temperature - 90.0) < 2.0
    assert max(powers) <= 60.0
    events = {e.kind: e.time for e in generator.events}
    assert events["hold_end"] == pytest.approx(events["target_reached"] + 60.0)


def test_which_sensor_counts() -> None:
    for choice, reached in (("mean", False), ("highest", True), ("lowest", False)):
        generator = make(heating(controlled_sensor=choice), SegmentConfig(5.0), 2)
        generator.drive(0.0, Circuit(np.array([[0.02]])), [[91.0, 80.0], [60.0]])
        assert ("target_reached" in [e.kind for e in generator.events]) is reached
    with pytest.raises(InputError, match="needs the sensors"):
        make(heating(), SegmentConfig(5.0), 1).drive(0.0, resistor(100.0))


def test_a_held_needle_in_sequence_hands_over_early() -> None:
    generator = make(heating(hold_time=30.0), SegmentConfig(10.0, "sequence"), 2)
    y = Circuit(np.eye(2) * 0.01)
    assert generator.drive(0.0, y, [[90.0], [37.0]]).active_terminal == 0
    assert generator.next_event(28.0) == 30.0
    assert generator.drive(30.0, y, [[90.0], [37.0]]).active_terminal == 1
    assert not generator.finished
    generator.drive(32.0, y, [[90.0], [90.0]])
    generator.drive(62.0, y, [[90.0], [90.0]])
    assert generator.finished


# ---------------------------------------------------------------------------- pairs


def isolated() -> Circuit:
    """Four units joined to each other, none to a ground."""
    links = np.array([[0, 4, 2, 1], [4, 0, 3, 2], [2, 3, 0, 5], [1, 2, 5, 0]]) * 1e-3
    return Circuit(np.diag(links.sum(axis=1)) - links)


def test_a_pair_carries_one_current_and_the_others_float() -> None:
    circuit = isolated()
    segment = SegmentConfig(5.0, "bipolar", dwell_time=10.0, pairs=[["a", "c"], ["d", "b"]])
    generator = make(GeneratorConfig(mode="constant_power", power=12.0), segment, 4)
    for time, (one, other) in ((0.0, (0, 2)), (10.0, (3, 1)), (20.0, (0, 2))):
        drive = generator.drive(time, circuit)
        flows = circuit.admittance @ drive.voltages
        wanted = np.zeros(4)
        wanted[[one, other]] = [drive.currents[one], -drive.currents[one]]
        assert flows == pytest.approx(wanted, abs=1e-12)
        assert drive.total_power == pytest.approx(12.0, rel=ROUND_OFF)
        voltage = drive.voltages[one] - drive.voltages[other]
        assert drive.impedance == pytest.approx(voltage / drive.currents[one], rel=1e-9)
        assert (drive.active_terminal, drive.sink_terminal) == (one, other)
    lossy = GeneratorConfig(mode="constant_power", power=12.0, coupling_efficiency=0.5)
    behind = make(lossy, segment, 4).drive(0.0, circuit)
    before = make(GeneratorConfig(mode="constant_power", power=6.0), segment, 4).drive(0.0, circuit)
    assert behind.voltages == pytest.approx(before.voltages, rel=ROUND_OFF)
    assert behind.electrode_powers == pytest.approx(before.electrode_powers, rel=1e-9, abs=1e-12)
    assert (behind.load_impedance, behind.generator_power) == pytest.approx((before.impedance, 12.0))


def test_without_pairs_every_pair_takes_its_turn() -> None:
    segment = SegmentConfig(5.0, "bipolar", dwell_time=10.0)
    generator = make(GeneratorConfig(mode="constant_power", power=12.0), segment, 4, [0, 1, 3])
    seen = [generator.drive(10.0 * k, isolated()) for k in range(4)]
    assert [(d.active_terminal, d.sink_terminal) for d in seen] == [(0, 1), (0, 3), (1, 3), (0, 1)]


@pytest.mark.parametrize("mode", ["constant_current", "temperature_controlled", "ramp_to_roll_off"])
def test_a_checkpoint_of_the_other_modes_continues_bit_for_bit(mode: str) -> None:
    config = (
        roll_off(phases=4, pause=7.0) if mode == "ramp_to_roll_off" else heating(mode=mode, hold_time=70.0)
    )
    random = np.random.default_rng(4)
    readings = [(random.uniform(60.0, 120.0), random.uniform(60.0, 95.0)) for _ in range(400)]

    def run(generator: Generator, time: float, number: int, stop: float) -> list[tuple[float, ...]]:
        trace = []
        while time < stop:
            impedance, temperature = readings[number % 400]
            y = Circuit(np.eye(len(generator.terminals)) / impedance)
            drive = generator.drive(time, y, [[temperature], [temperature]])
            trace.append((time, number, *drive.voltages, drive.total_power))
            time, number = generator.next_event(time), number + 1
        return [*trace, (time, number)]

    segment = SegmentConfig(4.0, "sequence")
    whole = run(make(config, segment, 2), 0.0, 0, 240.0)
    first = make(config, segment, 2)
    head = run(first, 0.0, 0, 101.0)
    second = make(config, segment, 2)
    second.restore(json.loads(json.dumps(first.state())))
    time, number = head.pop()
    assert head + run(second, time, int(number), 240.0) == whole
    assert any(row[-1] > 0.0 for row in whole[:-1])
