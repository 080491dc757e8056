"""Errors on resolutions that double: potential and heat in space, the heat step and death in time."""

from __future__ import annotations

from functools import partial

import numpy as np
from heat_box import HeatBox
from numpy.typing import NDArray
from reference import analytic, damage
from verification.closed_forms import CAPACITY, K, exposed

from thermosim.backends.base import Array, Backend, Layout
from thermosim.config import DamageConfig
from thermosim.numerics.multigrid import Links, MultigridSolver
from thermosim.numerics.workspace import Workspace

LENGTH = 48e-3
"""Edge of the heated box [m]."""


def orders(errors: list[float]) -> NDArray[np.float64]:
    """Observed orders of errors on resolutions that double."""
    return np.asarray(np.log2(np.divide(errors[:-1], errors[1:])))


def heat_error(backend: Backend, n: int) -> float:
    """Root mean square error [K] of a decaying sine of 50 K in a box of 48 mm with n cells a side."""
    lengths, modes = (LENGTH,) * 3, (1, 2, 1)
    box = HeatBox(backend, (n, n, n), LENGTH / n)
    points = tuple(box.points())
    time = 1.0 / analytic.decay_rate(modes, lengths, K, CAPACITY, 0.0)
    box.set_rise(50.0 * analytic.sine_decay(points, 0.0, modes, lengths, K, CAPACITY, 0.0))
    box.advance(time / 64, 64)  # λ Δt = 1/64: the error in time is a hundredth of the smallest in space
    exact = 50.0 * analytic.sine_decay(points, time, modes, lengths, K, CAPACITY, 0.0)
    return float(np.sqrt(np.mean((box.rise - exact) ** 2)))


def potential_error(backend: Backend, n: int) -> float:
    """RMS error of φ = Π sin with a σ that varies smoothly by a factor 3, zero on all faces."""
    layout, h = Layout((n, n, n)), 1.0 / n
    centers = (np.arange(n) + 0.5) * h
    x, y, z = np.meshgrid(centers, centers, centers, indexing="ij")

    def sigma(a: Array, b: Array, c: Array) -> Array:
        return 1.0 + 0.5 * np.sin(2.0 * a + b) + 0.2 * c

    phi = np.sin(np.pi * x) * np.sin(np.pi * y) * np.sin(2 * np.pi * z)
    gradient = (
        np.pi * np.cos(np.pi * x) * np.sin(np.pi * y) * np.sin(2 * np.pi * z),
        np.pi * np.sin(np.pi * x) * np.cos(np.pi * y) * np.sin(2 * np.pi * z),
        2 * np.pi * np.sin(np.pi * x) * np.sin(np.pi * y) * np.cos(2 * np.pi * z),
    )
    slope = (np.cos(2.0 * x + y), 0.5 * np.cos(2.0 * x + y), 0.2)
    source = 6.0 * np.pi**2 * sigma(x, y, z) * phi - sum(s * g for s, g in zip(slope, gradient, strict=True))

    links = Links.empty(backend, layout)
    field = backend.field(layout)
    layout.interior(field)[:] = sigma(x, y, z)
    backend.on_cells("face_conductance", layout, field, links.gx, links.gy, links.gz)
    leak = np.zeros(layout.shape)
    for axis in range(3):
        for end in (0, -1):
            at: list[slice | int] = [slice(None)] * 3
            at[axis] = end
            leak[tuple(at)] += 2.0 * sigma(x, y, z)[tuple(at)]
    space = Workspace.allocate(backend, layout, 0.0)
    solver = MultigridSolver(backend, links, space, np.flatnonzero(leak))
    links.leaks.set_all(leak)
    solver.coarsen()
    right = backend.field(layout)
    layout.interior(right)[:] = source * h**2

    def add(values: Array, target: Array) -> None:
        target += values

    solution = backend.field(layout)
    solver.solve(solution, partial(add, right), 1e-6, 40)
    return float(np.sqrt(np.mean((layout.interior(solution).astype(float) - phi) ** 2)))


def heat_error_in_time(backend: Backend, cells: int, n_steps: int) -> float:
    """Largest error [K] after two time constants of a sine of 50 K, in time alone.

    A discrete sine is an exact mode: its rate of decay on this grid is known. The number of stages is held
    at 9: it would fall with the step and change the error's constant.
    """
    h, modes, lengths = LENGTH / cells, (1, 1, 1), (LENGTH,) * 3
    rate = 3.0 * K / CAPACITY * 4.0 / h**2 * np.sin(0.5 * np.pi / cells) ** 2
    duration = 2.0 / rate
    box = HeatBox(backend, (cells,) * 3, h)
    start = 50.0 * analytic.sine_decay(tuple(box.points()), 0.0, modes, lengths, K, CAPACITY, 0.0)
    box.set_rise(start)
    step = duration / n_steps
    if step / 20.0 >= box.explicit_limit:
        raise ValueError(f"9 stages are not stable in {n_steps} steps")
    box.advance(step, n_steps, explicit_limit=step / 20.0)
    return float(np.abs(box.rise - start * np.exp(-rate * duration)).max())


def death_errors(backend: Backend, n_steps: int) -> dict[str, float]:
    """Relative errors of Ω, CEM43 and the dead share after a minute that rises by 26 K and falls again."""
    config, duration = DamageConfig(), 60.0

    def history(time: float) -> float:
        return float(37.0 + 26.0 * np.sin(np.pi * time / duration))

    wanted = damage.integrate(history, duration, config)
    times = np.linspace(0.0, duration, n_steps + 1)
    seen = exposed(backend, np.array([history(t) for t in times]), duration / n_steps, config)
    names = {"integral": "damage_integral", "dose": "thermal_dose", "dead": "dead_fraction"}
    return {name: abs(seen[name] / wanted[known] - 1.0) for name, known in names.items()}
