"""One needle in random poses: what the grid makes of it should not depend on how it lies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from solver_cases import LIVER, plain_anatomy, small_problem

from thermosim.applicators.electrode import Electrode
from thermosim.backends.base import Backend
from thermosim.config import GeneratorConfig, SegmentConfig
from thermosim.outcome.ablation_zone import ablation_zone
from thermosim.simulation import run

RADIUS, ACTIVE = 0.735e-3, 20e-3
BOX = 72e-3
"""Edge of the box [m]: the zone ends 25 mm and more from its faces."""


@dataclass(frozen=True)
class Pose:
    """Direction from tip to handle, and where the middle of the bare metal lies [m]."""

    direction: NDArray[np.float64]
    middle: NDArray[np.float64]


def random_poses(n: int, spacing: float, seed: int) -> Iterator[Pose]:
    """Even over the sphere of directions and over a cell of shifts."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        direction = rng.normal(size=3)
        yield Pose(direction / np.linalg.norm(direction), rng.uniform(-0.5, 0.5, 3) * spacing)


def electrode(pose: Pose, coolant: float | None) -> Electrode:
    tip = pose.middle - 0.5 * ACTIVE * pose.direction
    entry = tip + 0.1 * pose.direction
    return Electrode(
        "needle",
        (float(tip[0]), float(tip[1]), float(tip[2])),
        (float(entry[0]), float(entry[1]), float(entry[2])),
        RADIUS,
        ACTIVE,
        coolant_temperature=coolant,
        coolant_heat_transfer=3000.0,
    )


def exact_resistance() -> float:
    """Of the needle alone in an endless body [Ω]: its own near field, solved on a mesh fitted to it."""
    pose = Pose(np.array([0.0, 0.0, 1.0]), np.zeros(3))
    sigma = LIVER.electrical_conductivity
    return 1.0 / (sigma * RADIUS * electrode(pose, None).geometry.near_field().current)


@dataclass(frozen=True)
class Treated:
    """Resistance at the start and the end [Ω], volume of the zone [ml]."""

    start: float
    end: float
    volume: float


def treat(
    pose: Pose,
    spacing: float,
    backend: Backend,
    generator: GeneratorConfig,
    *,
    seconds: float,
    coolant: float | None,
    box: float = BOX,
) -> Treated:
    """One needle in plain liver; the far field takes the place of a ground."""
    n = round(box / spacing)
    problem = small_problem(
        anatomy=plain_anatomy((n, n, n), spacing),
        electrodes=(electrode(pose, coolant),),
        generator=generator,
        segments=[SegmentConfig(duration_min=seconds / 60.0)],
        ground="far_field",
    )
    result = run(problem, backend)
    zone = ablation_zone(result, "arrhenius", problem.damage)
    return Treated(result.initial_impedance, result.final_impedance, 1e6 * zone.volume)
