"""RKL2: its coefficients alone, and the compiled stages against the same scheme in double precision."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from heat_box import HeatBox
from numpy.typing import NDArray
from reference import pennes

from thermosim.backends import select
from thermosim.numerics.link_factors import LinkFactors
from thermosim.numerics.super_time_stepping import SAFETY, n_stages, stages
from thermosim.physics.wall_links import ThermalWall

Field = NDArray[np.float64]


def rkl2(start: Field, time_step: float, s: int, rate: Callable[[Field], Field]) -> Field:
    """One step of `s` stages, as Meyer, Balsara & Aslam 2014, eq. 16, write it."""
    first = rate(start)
    before, two_before = start, start
    for number, stage in enumerate(stages(s)):
        if number == 0:
            now = start + stage.mu_tilde * time_step * first
        else:
            now = (
                stage.mu * before
                + stage.nu * two_before
                + (1.0 - stage.mu - stage.nu) * start
                + stage.mu_tilde * time_step * rate(before)
                + stage.gamma_tilde * time_step * first
            )
        two_before, before = before, now
    return before


def amplification(s: int, z: Field) -> Field:
    """R_s(z) of y' = λ y with z = λ τ."""
    return rkl2(np.ones_like(z), 1.0, s, lambda y: z * y)


@pytest.mark.parametrize("s", [2, 3, 4, 7, 12, 25, 40])
def test_a_step_is_stable_over_its_whole_reach(s: int) -> None:
    reach = 0.5 * (s * s + s - 2)  # (s² + s − 2)/4 explicit steps, each of z = −2
    z = -np.linspace(0.0, reach, 4001)
    # R is a Legendre polynomial with a slope of order s² at the end: round-off times that
    assert np.max(np.abs(amplification(s, z))) <= 1.0 + 1e-12 * s * s
    assert np.abs(amplification(s, np.array([-1.05 * reach - 1.0])))[0] > 1.0


@pytest.mark.parametrize("s", [2, 3, 6, 15, 33])
def test_a_step_is_of_second_order(s: int) -> None:
    z = np.array([-0.04, -0.02])
    error = amplification(s, z) - np.exp(z)
    # halving z divides the local error C z³ by 8; the next term changes that by less than z
    assert np.log2(error[0] / error[1]) == pytest.approx(3.0, abs=0.05)


@pytest.mark.parametrize("ratio", [0.01, 0.9, 1.0, 3.7, 10.0, 84.0, 500.0])
def test_the_fewest_stages_that_are_stable(ratio: float) -> None:
    s = n_stages(ratio, 1.0)
    assert s >= 2
    assert SAFETY * (s * s + s - 2) / 4.0 >= ratio * (1.0 - 1e-12)
    assert s == 2 or SAFETY * ((s - 1) ** 2 + s - 3) / 4.0 < ratio


def test_a_nonlinear_problem_is_of_second_order_in_time() -> None:
    # heat flow with k = 1 + T/2 in a bar: what is frozen over a step in the simulator is not here
    n = 20
    start = np.sin(np.pi * (np.arange(n) + 0.5) / n)

    def rate(T: Field) -> Field:
        padded = np.concatenate([[-T[0]], T, [-T[-1]]])
        k = 1.0 + 0.25 * (padded[1:] + padded[:-1])
        return np.asarray(np.diff(k * np.diff(padded)) * n * n)

    # 12 stages at every step: fewer for shorter steps would change the error's constant, not its order
    def end(n_steps: int) -> Field:
        T = start.copy()
        for _ in range(n_steps):
            T = rkl2(T, 0.05 / n_steps, 12, rate)
        return T

    exact = end(640)
    errors = [float(np.abs(end(m) - exact).max()) for m in (10, 20, 40)]
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx([2.0, 2.0], abs=0.15)


def some_walls(shape: tuple[int, int, int]) -> LinkFactors:
    """A few solid cells, changed faces and wall links, two of them on one cell."""
    number = np.arange(np.prod(shape)).reshape(shape)
    solid = number[2:4, 3, 4:9].ravel()
    faces = [number[4, 3, 5], number[5, 3, 5], number[4, 4, 6]]
    wall = [number[4, 3, 6], number[4, 3, 7], number[1, 3, 6]]
    return LinkFactors(
        solid,
        np.array(faces, np.int64),
        np.array([0, 2, 1], np.int8),
        np.array([0.4, 1.8, 0.0]),
        np.array([*wall, wall[0]], np.int64),
        np.array([0, 0, 1, 1], np.int32),
        np.array([1.3, 2.0, 0.7, 0.5]),
        np.ones(4),
    )


@pytest.mark.parametrize("with_walls", [False, True])
@pytest.mark.parametrize("explicit_steps", [0.8, 6.0, 40.0])
def test_the_compiled_step_is_that_of_the_oracle(explicit_steps: float, with_walls: bool) -> None:
    shape, h, capacity, W = (9, 7, 13), 2e-3, 3.8e6, 3e4
    random = np.random.default_rng(5)
    links = some_walls(shape)
    labels = random.integers(0, 2, shape).astype(np.uint8)
    walls = [ThermalWall("test", links, [10.0, 60.0])] if with_walls else []
    if with_walls:
        labels.ravel()[links.solid_cells] = 2
    k = np.array([0.6, 0.3, 0.0])[labels]
    box = HeatBox(
        select("cpu", 1),
        shape,
        h,
        conductivity=0.6,
        second_conductivity=0.3,
        capacity=capacity,
        perfusion=W,
        boundary=-5.0,
        labels=labels,
        walls=walls,
    )
    rise, heat = random.uniform(0.0, 40.0, shape), random.uniform(0.0, 2e6, shape)
    box.set_rise(rise)
    box.set_heat(heat)
    limit = box.explicit_limit
    box.advance(explicit_steps * limit, explicit_limit=limit)
    given = ((links, (10.0 - 37.0, 60.0 - 37.0)),) if with_walls else ()

    def rate(T: Field) -> Field:
        heating = pennes.net_heating(
            T, h, k, perfusion=W, arterial=0.0, source=heat, boundary=-5.0, walls=given
        )
        return np.asarray(heating / capacity)

    wanted = rkl2(rise, explicit_steps * limit, n_stages(explicit_steps * limit, limit), rate)
    # float32 over up to 13 stages of increments to temperatures of some 40 K: 1e-6 relative
    assert np.abs(box.rise - wanted).max() < 1e-4
