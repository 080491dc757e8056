"""The named cases. Each returns quantities and details; the caller gives each a process of its own."""

from __future__ import annotations

from collections.abc import Callable

from bandwidth import Bandwidth
from batch_cases import batch
from heat_cases import heat_step, heat_step_boiling, heat_step_whole
from measure import Quantity, Report, Setting
from peer_cases import ablation_peers, heat_peers, potential_peers
from potential_cases import potential, potential_large, warm_resolve
from scaling_cases import growth, threads
from study_cases import studies
from treatment_cases import demo, memory, spacing, start


def triad(setting: Setting) -> Report:
    """Memory bandwidth: STREAM triad, and an in-place kernel of thermosim."""
    meter = Bandwidth(setting.backend)
    samples = [(meter.triad(), meter.in_place()) for _ in range(4 * setting.repeats)]
    return Report(
        [
            Quantity("triad", "GB/s", [1e-9 * t for t, _ in samples]),
            Quantity("out = a x + b out", "GB/s", [1e-9 * s for _, s in samples]),
        ]
    )


CASES: dict[str, Callable[[Setting], Report]] = {
    "triad": triad,
    "demo": demo,
    "memory": memory,
    "heat_step": heat_step,
    "heat_step_boiling": heat_step_boiling,
    "heat_step_whole": heat_step_whole,
    "potential": potential,
    "potential_large": potential_large,
    "warm_resolve": warm_resolve,
    "start": start,
    "spacing": spacing,
    "studies": studies,
    "batch": batch,
    "threads": threads,
    "growth": growth,
}

PEERS: dict[str, Callable[[Setting], Report]] = {
    "heat_peers": heat_peers,
    "potential_peers": potential_peers,
    "ablation_peers": ablation_peers,
}
"""Cases that run only if peers are asked for."""
