"""The treatment as a list of segments, one after another on the same tissue."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from thermosim.applicators.electrode import Electrode
from thermosim.applicators.generator import TIME_TOLERANCE, Generator
from thermosim.config import GeneratorConfig, ProtocolConfig, SegmentConfig
from thermosim.errors import InputError
from thermosim.units import MILLIMETRE, MINUTE

MODES = ("constant_voltage", "constant_power", "impedance_controlled")
DRIVES = ("together", "sequence", "switching")


@dataclass(frozen=True)
class Segment:
    """One stretch of the treatment with fixed poses.

    Parameters
    ----------
    number : place in the protocol, from 0.
    start, end : [s] since the start of the treatment.
    active : indices of the electrodes it drives.
    pulled_back : how far all needles stand behind their first pose [m].
    """

    number: int
    start: float
    end: float
    active: tuple[int, ...]
    pulled_back: float
    config: SegmentConfig

    @property
    def duration(self) -> float:
        """Length of the segment [s]."""
        return self.end - self.start

    def electrodes(self, electrodes: Sequence[Electrode]) -> tuple[Electrode, ...]:
        """The electrodes at this segment's poses: all are pulled back together."""
        if self.pulled_back == 0.0:
            return tuple(electrodes)
        return tuple(electrode.moved(self.pulled_back) for electrode in electrodes)


class Protocol:
    """Segments in order, then a phase without power while tissue cools and damage goes on.

    Parameters
    ----------
    config : generator, segments and cooling.
    electrode_names : needles of the layout, in order.

    Raises
    ------
    InputError
        For a duration that is not positive, an unknown needle, drive or mode, or limits that
        contradict each other.

    Examples
    --------
    >>> config = ProtocolConfig(segments=[SegmentConfig(duration_min=2.0), SegmentConfig(1.0, "sequence")])
    >>> protocol = Protocol(config, ["left", "right"])
    >>> [(s.start, s.end) for s in protocol.segments], protocol.duration
    ([(0.0, 120.0), (120.0, 180.0)], 240.0)
    """

    def __init__(self, config: ProtocolConfig, electrode_names: Sequence[str]) -> None:
        check_generator(config.generator)
        if not config.segments:
            raise InputError("protocol.segments is empty; a treatment needs at least one segment")
        if not (math.isfinite(config.cooling_after_min) and config.cooling_after_min >= 0.0):
            raise InputError(
                f"protocol.cooling_after_min={config.cooling_after_min:g} min must be 0 or more; set it to 0"
            )
        self.config = config
        self.electrode_names = tuple(electrode_names)
        self.segments = self._lay_out()
        self.cooling_start = self.segments[-1].end
        """End of the last segment [s]."""
        self.duration = self.cooling_start + config.cooling_after_min * MINUTE
        """Whole simulated time [s]."""

    def _lay_out(self) -> tuple[Segment, ...]:
        segments: list[Segment] = []
        start = pulled_back = 0.0
        for number, segment in enumerate(self.config.segments):
            check_segment(number, segment, self.config.generator, self.electrode_names)
            pulled_back += segment.pull_back_mm * MILLIMETRE
            chosen = segment.needles or self.electrode_names
            active = tuple(e for e, name in enumerate(self.electrode_names) if name in chosen)
            end = start + segment.duration_min * MINUTE
            segments.append(Segment(number, start, end, active, pulled_back, segment))
            start = end
        return tuple(segments)

    def segment_at(self, time: float) -> Segment | None:
        """The segment that begins or runs at `time` [s]; None while the tissue cools and afterwards."""
        for segment in self.segments:
            if time < segment.end - TIME_TOLERANCE:
                return segment
        return None

    def generator(self, segment: Segment) -> Generator:
        """A generator at the start of `segment`; its times count from there."""
        return Generator(self.config.generator, segment.config, len(self.electrode_names), segment.active)


def check_generator(config: GeneratorConfig) -> None:
    """Refuse a generator that contradicts itself (InputError)."""
    if config.mode not in MODES:
        raise InputError(
            f"protocol.generator.mode={config.mode!r} is not known; use one of {', '.join(MODES)}"
        )
    for name in ("maximum_power", "maximum_voltage", "maximum_current", "control_interval"):
        _check_number(f"protocol.generator.{name}", getattr(config, name), positive=True)
    for name in ("voltage", "power", "power_ramp", "pause", "minimum_power"):
        _check_number(f"protocol.generator.{name}", getattr(config, name))
    if config.mode == "constant_voltage":
        _check_limit("protocol.generator.voltage", config.voltage, config.maximum_voltage, "V")
        return
    _check_limit("protocol.generator.power", config.power, config.maximum_power, "W")
    if config.mode == "impedance_controlled":
        for name in ("impedance_rise", "baseline_time", "power_reduction"):
            _check_number(f"protocol.generator.{name}", getattr(config, name), positive=True)
        if config.power_reduction > 1.0:
            raise InputError(
                f"protocol.generator.power_reduction={config.power_reduction:g} raises the power after a "
                "pause; use a factor of at most 1"
            )
        _check_limit("protocol.generator.minimum_power", config.minimum_power, config.maximum_power, "W")
        if config.power < config.minimum_power:
            raise InputError(
                f"protocol.generator.power={config.power:g} W is below minimum_power="
                f"{config.minimum_power:g} W; raise the one or lower the other"
            )


def check_segment(number: int, segment: SegmentConfig, limits: GeneratorConfig, names: Sequence[str]) -> None:
    """Refuse a segment that cannot be run (InputError)."""
    key = f"protocol.segments[{number}]"
    _check_number(f"{key}.duration_min", segment.duration_min, positive=True)
    _check_number(f"{key}.pull_back_mm", segment.pull_back_mm)
    if segment.drive not in DRIVES:
        raise InputError(f"{key}.drive={segment.drive!r} is not known; use one of {', '.join(DRIVES)}")
    unknown = [name for name in segment.needles if name not in names]
    if unknown:
        raise InputError(f"{key}.needles: {unknown[0]!r} is not in the layout; it has {', '.join(names)}")
    if len(set(segment.needles)) < len(segment.needles):
        raise InputError(f"{key}.needles names a needle twice: {', '.join(segment.needles)}; name each once")
    if segment.drive == "switching":
        _check_number(f"{key}.dwell_time", segment.dwell_time, positive=True)
        _check_number(f"{key}.switch_impedance_rise", segment.switch_impedance_rise, positive=True)
    if segment.voltage is not None:
        _check_number(f"{key}.voltage", segment.voltage)
        _check_limit(f"{key}.voltage", segment.voltage, limits.maximum_voltage, "V")
    if segment.power is not None:
        _check_number(f"{key}.power", segment.power)
        _check_limit(f"{key}.power", segment.power, limits.maximum_power, "W")
        if limits.mode == "impedance_controlled" and segment.power < limits.minimum_power:
            raise InputError(
                f"{key}.power={segment.power:g} W is below protocol.generator.minimum_power="
                f"{limits.minimum_power:g} W; raise the one or lower the other"
            )


def _check_number(key: str, value: float, *, positive: bool = False) -> None:
    if not math.isfinite(value) or value < 0.0 or (positive and value == 0.0):
        wanted = "positive" if positive else "0 or more"
        raise InputError(f"{key}={value:g} must be {wanted}; change it")


def _check_limit(key: str, value: float, limit: float, unit: str) -> None:
    if value > limit:
        raise InputError(
            f"{key}={value:g} {unit} exceeds the generator's limit of {limit:g} {unit}; lower it"
        )
