"""Observed orders: second in space for heat and potential, second in time for the whole heat step."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from heat_box import HeatBox
from numpy.typing import NDArray
from reference import analytic, damage

from thermosim.backends import select
from thermosim.backends.base import Array, Layout
from thermosim.config import DamageConfig
from thermosim.numerics.multigrid import Links, MultigridSolver
from thermosim.numerics.workspace import Workspace
from thermosim.physics.bioheat import ThermalLaw
from thermosim.physics.damage import DamageModels, DamageState

K, CAPACITY, LENGTH = 0.52, 3.8e6, 48e-3


def orders(errors: list[float]) -> NDArray[np.float64]:
    """Observed orders of errors on resolutions that double."""
    return np.asarray(np.log2(np.divide(errors[:-1], errors[1:])))


# ---------------------------------------------------------------------------- space


def sine_error(n: int) -> float:
    lengths, modes = (LENGTH,) * 3, (1, 2, 1)
    box = HeatBox(select("cpu", 1), (n, n, n), LENGTH / n)
    points = tuple(box.points())
    time = 1.0 / analytic.decay_rate(modes, lengths, K, CAPACITY, 0.0)
    box.set_rise(50.0 * analytic.sine_decay(points, 0.0, modes, lengths, K, CAPACITY, 0.0))
    box.advance(time / 64, 64)  # λ Δt = 1/64: the error in time is a hundredth of the smallest in space
    exact = 50.0 * analytic.sine_decay(points, time, modes, lengths, K, CAPACITY, 0.0)
    return float(np.sqrt(np.mean((box.rise - exact) ** 2)))


def test_heat_is_of_second_order_in_space() -> None:
    observed = orders([sine_error(n) for n in (8, 16, 32)])
    # the next term of the error is (n π h/L)²/30 of the first: 0.02 in the order between 8 and 16
    assert observed == pytest.approx([2.0, 2.0], abs=0.1)


def manufactured_error(n: int) -> float:
    """φ = Π sin with a conductivity that varies smoothly by a factor 3, zero on all faces."""
    backend, layout, h = select("cpu", 1), Layout((n, n, n)), 1.0 / n
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
    leak = layout.interior(links.leak)
    for axis in range(3):
        for end in (0, -1):
            at: list[slice | int] = [slice(None)] * 3
            at[axis] = end
            leak[tuple(at)] += 2.0 * sigma(x, y, z)[tuple(at)]
    solver = MultigridSolver(backend, links, Workspace.allocate(backend, layout, 0.0))
    solver.coarsen()
    right = backend.field(layout)
    layout.interior(right)[:] = source * h**2

    def add(values: Array, target: Array) -> None:
        target += values

    solution = backend.field(layout)
    solver.solve(solution, partial(add, right), 1e-6, 40)
    return float(np.sqrt(np.mean((layout.interior(solution).astype(float) - phi) ** 2)))


def test_the_potential_is_of_second_order_in_space() -> None:
    observed = orders([manufactured_error(n) for n in (8, 16, 32, 64)])
    # half-cell links at the faces and harmonic means of σ: both of second order
    assert observed == pytest.approx([2.0] * 3, abs=0.15)


# ---------------------------------------------------------------------------- time


@pytest.mark.parametrize("cells", [7, 10])
def test_heat_is_of_second_order_in_time(cells: int) -> None:
    # a discrete sine is an exact mode: its rate of decay on this grid is known, and time alone errs.
    # The number of stages is held at 9: it would fall with the step and change the error's constant.
    h, modes, lengths = LENGTH / cells, (1, 1, 1), (LENGTH,) * 3
    rate = 3.0 * K / CAPACITY * 4.0 / h**2 * np.sin(0.5 * np.pi / cells) ** 2
    duration = 2.0 / rate
    errors = []
    for n_steps in (4, 8, 16):
        box = HeatBox(select("cpu", 1), (cells,) * 3, h)
        start = 50.0 * analytic.sine_decay(tuple(box.points()), 0.0, modes, lengths, K, CAPACITY, 0.0)
        box.set_rise(start)
        step = duration / n_steps
        assert step / 20.0 < box.explicit_limit  # 9 stages are stable
        box.advance(step, n_steps, explicit_limit=step / 20.0)
        errors.append(float(np.abs(box.rise - start * np.exp(-rate * duration)).max()))
    # λ Δt = 1/2 at first: the next power of it shows in the order
    assert orders(errors) == pytest.approx([2.0, 2.0], abs=0.25)


def test_death_is_of_second_order_in_time() -> None:
    config, duration = DamageConfig(), 60.0

    def history(time: float) -> float:
        return float(37.0 + 26.0 * np.sin(np.pi * time / duration))

    wanted = damage.integrate(history, duration, config)
    layout, backend = Layout((1, 1, 3)), select("cpu", 1)
    one, none = np.ones(1, np.float32), np.zeros(1, np.float32)
    law = ThermalLaw(one, one, none, none, none, none, 37.0, 37.0, 99.0, 1.0, 37.0, "none", 0.8)
    models = DamageModels(backend, layout, backend.field(layout, 0, "uint8"), config, law)
    errors: dict[str, list[float]] = {"integral": [], "dose": [], "dead": []}
    names = {"integral": "damage_integral", "dose": "thermal_dose", "dead": "dead_fraction"}
    for n_steps in (15, 30, 60):
        state, step = DamageState.start(backend, layout, config, 37.0), duration / n_steps
        for number in range(n_steps):
            before, after = (backend.field(layout, history(t * step) - 37.0) for t in (number, number + 1))
            models.advance(state, before, after, step)
        for name, seen in errors.items():
            seen.append(abs(float(layout.interior(getattr(state, name))[0, 0, 0]) - wanted[names[name]]))
    for name, seen in errors.items():
        assert orders(seen) == pytest.approx([2.0, 2.0], abs=0.25), name
