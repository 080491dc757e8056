"""The treatment as a list of segments, one after another on the same tissue."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from thermosim.applicators.controllers import TIME_TOLERANCE
from thermosim.applicators.electrode import Electrode
from thermosim.applicators.generator import Generator
from thermosim.applicators.protocol_checks import (
    check_generator,
    check_ground,
    check_group,
    check_pairs,
    check_reach,
    check_segment,
)
from thermosim.config import ProtocolConfig, SegmentConfig
from thermosim.errors import InputError
from thermosim.units import MILLIMETRE, MINUTE


@dataclass(frozen=True)
class Segment:
    """One stretch of the treatment with fixed poses.

    Parameters
    ----------
    number : place in the protocol, from 0.
    start, end : [s] since the start of the treatment; the latest ones while it has not ended.
    active : indices of the electrodes it drives.
    pulled_back : how far all needles that stand in the tissue are behind their first pose [m].
    standing : indices of the electrodes that stand in the tissue, in order.
    turn : which of the positions of a serial plan, from 0.
    """

    number: int
    start: float
    end: float
    active: tuple[int, ...]
    pulled_back: float
    config: SegmentConfig
    standing: tuple[int, ...]
    turn: int = 0

    @property
    def duration(self) -> float:
        """Length of the segment [s]."""
        return self.end - self.start

    def electrodes(self, electrodes: Sequence[Electrode]) -> tuple[Electrode, ...]:
        """Those of all electrodes that stand in the tissue, at this segment's poses.

        They are pulled back together.
        """
        standing = tuple(electrodes[e] for e in self.standing)
        if self.pulled_back == 0.0:
            return standing
        return tuple(electrode.moved(self.pulled_back) for electrode in standing)

    @property
    def driven(self) -> tuple[int, ...]:
        """Places of the driven electrodes among those that stand in the tissue."""
        return tuple(self.standing.index(e) for e in self.active)


class Protocol:
    """Segments in order, then a phase without power while tissue cools and damage goes on.

    A segment may end before its time (`finish`): those after it, and the end of the treatment, then
    move forward. Until then their times are the latest possible ones.

    A serial plan moves needles from position to position. The layout holds one needle per position; each
    stands in the tissue only in its turn, and how far it is pulled back counts from its first pose
    (`serial`: every needle or every group in turn runs all segments, or each segment names who stands).

    Parameters
    ----------
    config : generator, segments and cooling.
    electrode_names : needles of the layout, in order.
    units : the unit of each (electrodes of one unit are bonded); None: each its own.
    devices : the device of each; None: its unit. A segment may name devices, units, and electrodes
        that are bonded to no other.

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
    >>> protocol.finish(0, 90.0)
    >>> [(s.start, s.end) for s in protocol.segments], protocol.duration
    ([(0.0, 90.0), (90.0, 150.0)], 210.0)
    """

    def __init__(
        self,
        config: ProtocolConfig,
        electrode_names: Sequence[str],
        units: Sequence[str] | None = None,
        devices: Sequence[str] | None = None,
    ) -> None:
        check_generator(config.generator)
        if not config.segments:
            raise InputError("protocol.segments is empty; a treatment needs at least one segment")
        if not (math.isfinite(config.cooling_after_min) and config.cooling_after_min >= 0.0):
            raise InputError(
                f"protocol.cooling_after_min={config.cooling_after_min:g} min must be 0 or more; set it to 0"
            )
        check_ground(config.ground, config.segments)
        self.config = config
        self.electrode_names = tuple(electrode_names)
        self.units = self.electrode_names if units is None else tuple(units)
        self.devices = self.units if devices is None else tuple(devices)
        self._members = self._names(self.devices)
        self._stretches = self._written_out()
        for _, number, segment, _ in self._stretches:
            check_segment(number, segment, config.generator, self._members)
            driven = list(dict.fromkeys(self.units[e] for e in self._active(segment)))
            check_pairs(number, segment, driven)
            check_reach(number, segment, config.generator, len(driven))
        self.ends: dict[int, float] = {}
        """When segments ended that ended before their time [s], by number."""
        self.segments = self._lay_out()

    @classmethod
    def of(cls, config: ProtocolConfig, electrodes: Sequence[Electrode]) -> Protocol:
        """The protocol of a layout's electrodes."""
        return cls(
            config,
            [e.name for e in electrodes],
            [e.unit for e in electrodes],
            [e.applicator or e.name for e in electrodes],
        )

    @property
    def cooling_start(self) -> float:
        """End of the last segment [s]."""
        return self.segments[-1].end

    @property
    def duration(self) -> float:
        """Whole simulated time [s]; an upper bound while a segment may still end early."""
        return self.cooling_start + self.config.cooling_after_min * MINUTE

    def _names(self, devices: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """The electrodes behind each name that a segment may use."""
        members: dict[str, tuple[int, ...]] = {}
        for names in (devices, self.units):
            for name in names:
                members[name] = tuple(e for e, other in enumerate(names) if other == name)
        for electrode, (name, unit) in enumerate(zip(self.electrode_names, self.units, strict=True)):
            if self.units.count(unit) == 1:
                members.setdefault(name, (electrode,))
        return members

    def _written_out(self) -> list[tuple[int, int, SegmentConfig, bool]]:
        """Turn, number in the configuration, segment with its needles, and whether a new turn begins."""
        config = self.config
        if config.serial == "groups":
            turns = [list(group) for group in config.groups]
            for number, group in enumerate(turns):
                check_group(number, group, self.devices)
        else:
            turns = [[name] for name in dict.fromkeys(self.devices)] if config.serial == "needles" else [[]]
        stretches: list[tuple[int, int, SegmentConfig, bool]] = []
        turn = -1
        for group in turns:
            for number, segment in enumerate(config.segments):
                own = replace(segment, needles=group) if group else segment
                begins = number == 0
                if config.serial == "segments" and number > 0:
                    begins = set(own.needles) != set(stretches[-1][2].needles)
                turn += begins
                stretches.append((turn, number, own, begins))
        return stretches

    @property
    def most_standing(self) -> int:
        """Electrodes that stand in the tissue at once, at most."""
        return max(len(segment.standing) for segment in self.segments)

    def _standing(self, active: tuple[int, ...]) -> tuple[int, ...]:
        """All electrodes of all devices, or in a serial plan of those of which a part is driven."""
        if self.config.serial == "none":
            return tuple(range(len(self.electrode_names)))
        present = {self.devices[e] for e in active}
        return tuple(e for e, device in enumerate(self.devices) if device in present)

    def _active(self, segment: SegmentConfig) -> tuple[int, ...]:
        if not segment.needles:
            return tuple(range(len(self.electrode_names)))
        return tuple(sorted(e for name in segment.needles for e in self._members[name]))

    def _lay_out(self) -> tuple[Segment, ...]:
        segments: list[Segment] = []
        start = pulled_back = 0.0
        for number, (turn, _, segment, begins) in enumerate(self._stretches):
            pulled_back = (0.0 if begins else pulled_back) + segment.pull_back_mm * MILLIMETRE
            end = self.ends.get(number, start + segment.duration_min * MINUTE)
            active = self._active(segment)
            standing = self._standing(active)
            segments.append(Segment(number, start, end, active, pulled_back, segment, standing, turn))
            start = end
        return tuple(segments)

    def finish(self, number: int, time: float) -> None:
        """Segment `number` ends at `time` [s], before its time."""
        self.ends[number] = time
        self.segments = self._lay_out()

    def restore(self, ends: Mapping[int, float]) -> None:
        """Take over `ends` of a checkpoint."""
        self.ends = dict(ends)
        self.segments = self._lay_out()

    def segment_at(self, time: float) -> Segment | None:
        """The segment that begins or runs at `time` [s]; None while the tissue cools and afterwards."""
        for segment in self.segments:
            if time < segment.end - TIME_TOLERANCE:
                return segment
        return None

    def generator(self, segment: Segment) -> Generator:
        """A generator at the start of `segment`; its times count from there."""
        units = [self.units[e] for e in segment.standing]
        return Generator(self.config.generator, segment.config, units, segment.driven)
