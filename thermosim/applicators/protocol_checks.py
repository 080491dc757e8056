"""Refuses a generator or a segment that contradicts itself: the value, the limit, the remedy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from thermosim.applicators.controllers import RESPONSE_TIME
from thermosim.checks import DRIVES, MODES
from thermosim.config import GeneratorConfig, SegmentConfig
from thermosim.errors import InputError
from thermosim.units import MINUTE

ENDING_MODES = ("temperature_controlled", "ramp_to_roll_off")
"""Modes that follow one history from start to end, which may end a segment before its time."""

SENSORS = ("mean", "highest", "lowest")

KEY = "protocol.generator"


def check_generator(config: GeneratorConfig) -> None:
    """Refuse a generator that contradicts itself (InputError)."""
    if config.mode not in MODES:
        raise InputError(f"{KEY}.mode={config.mode!r} is not known; use one of {', '.join(MODES)}")
    for name in ("maximum_power", "maximum_voltage", "maximum_current", "control_interval"):
        check_number(f"{KEY}.{name}", getattr(config, name), positive=True)
    for name in ("voltage", "power", "current", "power_ramp", "pause", "minimum_power"):
        check_number(f"{KEY}.{name}", getattr(config, name))
    for name in ("maximum_impedance", "impedance_ceiling", "short_pulse"):
        value = getattr(config, name)
        if value is not None:
            check_number(f"{KEY}.{name}", value, positive=True)
    if config.mode == "constant_voltage":
        check_limit(f"{KEY}.voltage", config.voltage, config.maximum_voltage, "V")
    elif config.mode != "constant_current":
        check_limit(f"{KEY}.power", config.power, config.maximum_power, "W")
    if config.mode in ("impedance_controlled", "ramp_to_roll_off"):
        _check_impedance_mode(config)
    if config.mode == "temperature_controlled":
        _check_temperature_mode(config)


def _check_impedance_mode(config: GeneratorConfig) -> None:
    for name in ("impedance_rise", "baseline_time", "power_reduction"):
        check_number(f"{KEY}.{name}", getattr(config, name), positive=True)
    if config.power_reduction > 1.0:
        raise InputError(
            f"{KEY}.power_reduction={config.power_reduction:g} raises the power after a "
            "pause; use a factor of at most 1"
        )
    check_limit(f"{KEY}.minimum_power", config.minimum_power, config.maximum_power, "W")
    if config.power < config.minimum_power:
        raise InputError(
            f"{KEY}.power={config.power:g} W is below minimum_power="
            f"{config.minimum_power:g} W; raise the one or lower the other"
        )
    ceiling, most = config.impedance_ceiling, config.maximum_impedance
    if ceiling is not None and most is not None and ceiling > most:
        raise InputError(
            f"{KEY}.impedance_ceiling={ceiling:g} Ω lies above maximum_impedance={most:g} Ω, where the "
            "output is off already; lower it"
        )
    if config.phases < 1:
        raise InputError(f"{KEY}.phases={config.phases} must be 1 or more; raise it")
    if not 0.0 <= config.power_drop < 1.0:
        raise InputError(
            f"{KEY}.power_drop={config.power_drop:g} must be a share from 0 to below 1; change it"
        )


def _check_temperature_mode(config: GeneratorConfig) -> None:
    if config.controlled_sensor not in SENSORS:
        raise InputError(
            f"{KEY}.controlled_sensor={config.controlled_sensor!r} is not known; use one of "
            f"{', '.join(SENSORS)}"
        )
    if not math.isfinite(config.target_temperature):
        raise InputError(f"{KEY}.target_temperature={config.target_temperature:g} must be finite; change it")
    check_number(f"{KEY}.power", config.power, positive=True)
    slowest = 0.5 * RESPONSE_TIME
    if config.control_interval > slowest:
        raise InputError(
            f"{KEY}.control_interval={config.control_interval:g} s is too long to hold a temperature; use at "
            f"most {slowest:g} s"
        )


def check_segment(
    number: int, segment: SegmentConfig, limits: GeneratorConfig, members: Mapping[str, Sequence[int]]
) -> None:
    """Refuse a segment that cannot be run (InputError).

    `members`: the electrodes behind every name that a segment may drive.
    """
    key = f"protocol.segments[{number}]"
    check_number(f"{key}.duration_min", segment.duration_min, positive=True)
    check_number(f"{key}.pull_back_mm", segment.pull_back_mm)
    if segment.drive not in DRIVES:
        raise InputError(f"{key}.drive={segment.drive!r} is not known; use one of {', '.join(DRIVES)}")
    for name in segment.needles:
        if name not in members:
            raise InputError(f"{key}.needles: {name!r} is not in the layout; it has {', '.join(members)}")
    driven = [electrode for name in segment.needles for electrode in members[name]]
    if len(set(driven)) < len(driven):
        raise InputError(f"{key}.needles names a needle twice: {', '.join(segment.needles)}; name each once")
    if segment.drive in ("switching", "bipolar"):
        check_number(f"{key}.dwell_time", segment.dwell_time, positive=True)
        check_number(f"{key}.switch_impedance_rise", segment.switch_impedance_rise, positive=True)
        if segment.dwell_time > segment.duration_min * MINUTE:
            raise InputError(
                f"{key}.dwell_time={segment.dwell_time:g} s is longer than the segment of "
                f"{segment.duration_min:g} min; shorten it, or drive the needles together"
            )
        if limits.mode in ENDING_MODES:
            raise InputError(
                f"{key}.drive={segment.drive}: {KEY}.mode={limits.mode} follows one device from start to "
                "end and cannot switch; use together or sequence"
            )
    _check_values(key, segment, limits)


def _check_values(key: str, segment: SegmentConfig, limits: GeneratorConfig) -> None:
    """Values that override the generator's."""
    if segment.voltage is not None:
        check_number(f"{key}.voltage", segment.voltage)
        check_limit(f"{key}.voltage", segment.voltage, limits.maximum_voltage, "V")
    if segment.current is not None:
        check_number(f"{key}.current", segment.current)
    if segment.power is not None:
        check_number(f"{key}.power", segment.power, positive=limits.mode == "temperature_controlled")
        check_limit(f"{key}.power", segment.power, limits.maximum_power, "W")
        pulsing = limits.mode in ("impedance_controlled", "ramp_to_roll_off")
        if pulsing and segment.power < limits.minimum_power:
            raise InputError(
                f"{key}.power={segment.power:g} W is below {KEY}.minimum_power="
                f"{limits.minimum_power:g} W; raise the one or lower the other"
            )


def check_reach(number: int, segment: SegmentConfig, limits: GeneratorConfig, n_units: int) -> None:
    """Refuse what no tissue lets the generator do in a segment that drives `n_units` units."""
    key = f"protocol.segments[{number}]"
    at_once = n_units if segment.drive == "together" else 1
    if limits.mode == "constant_current":
        current = limits.current if segment.current is None else segment.current
        most = limits.maximum_current * at_once
        if current > most:
            name = f"{KEY}.current" if segment.current is None else f"{key}.current"
            raise InputError(
                f"{name}={current:g} A exceeds maximum_current={limits.maximum_current:g} A times the "
                f"{at_once} units driven at once; lower it"
            )
    elif limits.mode != "constant_voltage":
        power = limits.power if segment.power is None else segment.power
        most = limits.maximum_voltage * limits.maximum_current * at_once
        if power > most * (1.0 + 1e-9):
            name = f"{KEY}.power" if segment.power is None else f"{key}.power"
            raise InputError(
                f"{name}={power:g} W can never be reached with maximum_voltage={limits.maximum_voltage:g} V "
                f"and maximum_current={limits.maximum_current:g} A, which allow {most:g} W; lower it"
            )
    if limits.mode == "temperature_controlled":
        _check_hold(key, segment, limits, n_units)


def _check_hold(key: str, segment: SegmentConfig, limits: GeneratorConfig, n_units: int) -> None:
    hold = limits.hold_time if segment.hold_time is None else segment.hold_time
    if hold is None:
        return
    name = f"{KEY}.hold_time" if segment.hold_time is None else f"{key}.hold_time"
    check_number(name, hold, positive=True)
    share = segment.duration_min * MINUTE / (n_units if segment.drive == "sequence" else 1)
    if hold > share:
        raise InputError(
            f"{name}={hold:g} s is longer than the {share:g} s that {key} has for it; shorten it or raise "
            "duration_min"
        )


def check_ground(ground: str, segments: Sequence[SegmentConfig]) -> None:
    """Refuse bipolar drives with a ground, and the others without."""
    for number, segment in enumerate(segments):
        key = f"protocol.segments[{number}].drive={segment.drive}"
        if segment.drive == "bipolar" and ground != "none":
            raise InputError(
                f"{key} needs an isolated generator, but protocol.ground={ground!r}; set protocol.ground=none"
            )
        if segment.drive != "bipolar" and ground == "none":
            raise InputError(
                f"{key} has no way back for its current with protocol.ground=none; use drive: bipolar or "
                "ground: faces"
            )


def check_pairs(number: int, segment: SegmentConfig, units: Sequence[str]) -> None:
    """Refuse pairs that are none; `units` are those that the segment drives."""
    key = f"protocol.segments[{number}]"
    if segment.drive != "bipolar":
        if segment.pairs:
            raise InputError(f"{key}.pairs is for drive: bipolar, not {segment.drive}; remove it")
        return
    if len(units) < 2:
        raise InputError(
            f"{key}.drive=bipolar drives {', '.join(units)} alone; a pair needs two units (devices, or poles)"
        )
    seen = set()
    for pair in segment.pairs:
        if len(pair) != 2 or pair[0] == pair[1]:
            raise InputError(f"{key}.pairs: {list(pair)} must name two different units")
        for name in pair:
            if name not in units:
                raise InputError(
                    f"{key}.pairs: {name!r} is no unit that the segment drives; these are {', '.join(units)}"
                )
        if frozenset(pair) in seen:
            raise InputError(f"{key}.pairs names {' and '.join(pair)} twice; name each pair once")
        seen.add(frozenset(pair))


def check_group(number: int, group: Sequence[str], devices: Sequence[str]) -> None:
    """Refuse a group of a serial plan that names what is no device of the layout."""
    for name in group:
        if name not in devices:
            known = ", ".join(dict.fromkeys(devices))
            raise InputError(f"protocol.groups[{number}]: {name!r} is not in the layout; it has {known}")


def check_number(key: str, value: float, *, positive: bool = False) -> None:
    """Refuse a number that is not finite, negative, or 0 where it must be positive."""
    if not math.isfinite(value) or value < 0.0 or (positive and value == 0.0):
        wanted = "positive" if positive else "0 or more"
        raise InputError(f"{key}={value:g} must be {wanted}; change it")


def check_limit(key: str, value: float, limit: float, unit: str) -> None:
    """Refuse a setting above what the device can do."""
    if value > limit:
        raise InputError(
            f"{key}={value:g} {unit} exceeds the generator's limit of {limit:g} {unit}; lower it"
        )
