"""The ways of the needles, from the skin to their tips, and the places they burn at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import AnatomySource
from thermosim.anatomy.bodies import Body, Stretch, merged
from thermosim.applicators.electrode import Electrode
from thermosim.applicators.protocol import Protocol, Segment
from thermosim.config_check import RulesConfig
from thermosim.units import MINUTE

Point = NDArray[np.float64]

BEYOND_ENTRY = 0.4
"""The skin is looked for so far from the tip [m]."""

CAPSULE_GAP = 1e-3
"""Stretches of liver, tumour and the vessels in them that lie at most so far apart [m] are one: meshes of
neighbours do not meet exactly."""


@dataclass(frozen=True)
class NeedlePath:
    """The way of one needle (of a cluster, each) at its deepest place.

    `start`: where it passes the skin, or the given entry point where there is no skin; `skin`: that place,
    None without skin; `entry`: the given point; `pieces`: shaft and tines as (from, to, radius) [m].
    """

    name: str
    device: str
    tip: Point
    entry: Point
    start: Point
    skin: Point | None
    pieces: tuple[tuple[Point, Point, float], ...]

    @property
    def length(self) -> float:
        """From the start to the tip [m]."""
        return float(np.linalg.norm(self.tip - self.start))

    def at(self, place: float) -> Point:
        """A point of the way, `place` [m] after its start."""
        return np.asarray(self.start + place * (self.tip - self.start) / max(self.length, 1e-12))


@dataclass(frozen=True)
class Place:
    """One device where it burns: `name` for people, `electrodes` there, `segments` it is driven in."""

    name: str
    device: str
    electrodes: tuple[Electrode, ...]
    segments: tuple[Segment, ...]
    pulled_back: float

    @property
    def lines(self) -> list[Point]:
        """Centre lines of its bare metal, each (n, 3) [m, LPS]."""
        return [line for electrode in self.electrodes for line in electrode.metal_lines]


@dataclass(frozen=True)
class Plan:
    """All that the rules look at."""

    source: AnatomySource
    bodies: tuple[Body, ...]
    electrodes: tuple[Electrode, ...]
    protocol: Protocol
    entries_are_given: bool
    rules: RulesConfig

    def with_role(self, *roles: str) -> list[Body]:
        return [body for body in self.bodies if body.structure.role in roles]

    @cached_property
    def skin(self) -> Body | None:
        """The structure that is the whole body."""
        for body in self.bodies:
            if body.structure.role in ("background", "risk") and named(body.structure.name, self.rules.skin):
                return body
        return None

    @cached_property
    def paths(self) -> tuple[NeedlePath, ...]:
        """One for each needle; the two poles of a bipolar one share theirs."""
        paths = {}
        for electrode in self.electrodes:
            name = (electrode.applicator or electrode.name) if electrode.pole else electrode.name
            if name not in paths:
                paths[name] = self._path(name, electrode)
        return tuple(paths.values())

    def _path(self, name: str, electrode: Electrode) -> NeedlePath:
        tip, entry = np.asarray(electrode.target_point), np.asarray(electrode.entry_point)
        skin = self._skin_passage(tip, entry, electrode)
        start = entry if skin is None else skin
        pieces = [(start, tip, electrode.radius)]
        for wire in electrode.wires:
            points = np.asarray(wire, dtype=np.float64)
            pieces += [(a, b, electrode.wire_radius) for a, b in pairwise(points)]
        return NeedlePath(name, electrode.applicator or name, tip, entry, start, skin, tuple(pieces))

    def _skin_passage(self, tip: Point, entry: Point, electrode: Electrode) -> Point | None:
        """Where the needle passes the skin: of several such places the one nearest to a given entry point."""
        if self.skin is None:
            return None
        end = tip + BEYOND_ENTRY * electrode.direction
        exits = [s.end for s in self.skin.stretches(tip, end) if s.end < BEYOND_ENTRY - 1e-9]
        if not exits:
            return None
        given = float(np.linalg.norm(entry - tip))
        place = min(exits, key=lambda x: abs(x - given)) if self.entries_are_given else exits[0]
        return np.asarray(tip + place * electrode.direction)

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Each device at each place where it is driven, in order of time."""
        found: dict[tuple[str, float], tuple[tuple[Electrode, ...], list[Segment]]] = {}
        for segment in self.protocol.segments:
            standing = dict(zip(segment.standing, segment.electrodes(self.electrodes), strict=True))
            for device in dict.fromkeys(self.protocol.devices[e] for e in segment.active):
                own = tuple(standing[e] for e in segment.standing if self.protocol.devices[e] == device)
                key = (device, round(segment.pulled_back, 9))
                found.setdefault(key, (own, []))[1].append(segment)
        return tuple(
            Place(_place_name(device, pulled), device, electrodes, tuple(segments), pulled)
            for (device, pulled), (electrodes, segments) in found.items()
        )

    @cached_property
    def neighbours(self) -> list[tuple[str, str, tuple[Electrode, ...], tuple[Electrode, ...]]]:
        """Pairs of devices that stand in the tissue at once, with their electrodes then."""
        pairs: dict[tuple[str, str, float], tuple[tuple[Electrode, ...], tuple[Electrode, ...]]] = {}
        for segment in self.protocol.segments:
            standing = list(zip(segment.standing, segment.electrodes(self.electrodes), strict=True))
            parts: dict[str, list[Electrode]] = {}
            for e, electrode in standing:
                parts.setdefault(self.protocol.devices[e], []).append(electrode)
            names = list(parts)
            for i, one in enumerate(names):
                for other in names[i + 1 :]:
                    key = (one, other, segment.pulled_back)
                    pairs.setdefault(key, (tuple(parts[one]), tuple(parts[other])))
        return [(one, other, *ends) for (one, other, _), ends in pairs.items()]

    def liver(self, start: Point, end: Point) -> list[Stretch]:
        """Stretches of a line inside the capsule: liver, tumours, and what lies between them."""
        inside = [s for body in self.with_role("organ", "tumor") for s in body.stretches(start, end)]
        return merged(inside, CAPSULE_GAP)

    def minutes(self, place: Place) -> float:
        """For how long a device is driven at a place [min]; in sequence it has its share."""
        total = 0.0
        for segment in place.segments:
            driven = len(dict.fromkeys(self.protocol.devices[e] for e in segment.active))
            total += segment.duration / MINUTE / (driven if segment.config.drive == "sequence" else 1)
        return total


def named(name: str, patterns: Sequence[str]) -> bool:
    """Whether a structure's name is one of some patterns; case, spaces and underscores do not matter."""
    plain = name.lower().replace(" ", "_").replace("-", "_")
    return any(fnmatchcase(plain, pattern.lower().replace(" ", "_")) for pattern in patterns)


def _place_name(device: str, pulled_back: float) -> str:
    return device if pulled_back == 0 else f"{device}, pulled back {1e3 * pulled_back:g} mm"
