"""Where the needles stood during a treatment, for pictures and tables."""

from __future__ import annotations

from thermosim.applicators.electrode import Electrode
from thermosim.simulation import SimulationResult


def poses(result: SimulationResult) -> list[tuple[Electrode, ...]]:
    """The places that needles left before their last ones, in order of time; then `result.electrodes`."""
    last = set(result.electrodes)
    earlier = [tuple(e for e in standing if e not in last) for standing in result.places]
    return [*(stand for stand in dict.fromkeys(earlier) if stand), result.electrodes]


def first_places(result: SimulationResult) -> tuple[Electrode, ...]:
    """Each electrode where it stood first."""
    first: dict[str, Electrode] = {}
    for standing in result.places:
        for electrode in standing:
            first.setdefault(electrode.name, electrode)
    return tuple(first.get(electrode.name, electrode) for electrode in result.electrodes)
