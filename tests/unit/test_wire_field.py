"""Line charges of thin wires: closed forms they must meet, and laws any field obeys."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from thermosim.errors import InputError
from thermosim.numerics.near_field import needle_field
from thermosim.numerics.wire_field import WireField, pieces, wire_field

RADIUS = 0.3e-3
Line = tuple[tuple[float, float, float], ...]


def straight(length: float, edge: float = 1e-3) -> Line:
    return tuple((0.0, 0.0, float(z)) for z in np.linspace(0.0, length, round(length / edge) + 1))


def circle(radius: float, n_edges: int = 120) -> Line:
    turn = 2 * np.pi * np.arange(n_edges + 1) / n_edges
    return tuple((float(radius * np.cos(a)), float(radius * np.sin(a)), 0.0) for a in turn)


def test_ring_against_its_capacitance() -> None:
    """A thin torus: I/σ = 4 π² R / ln(8 R / a), exact up to (a/R)²."""
    ring = 15e-3
    field = wire_field((circle(ring),), (RADIUS,))
    # (a/R)² is 4e-4; the polygon and pieces of uniform charge: seen 0.03 %
    assert field.current == pytest.approx(4 * np.pi**2 * ring / np.log(8 * ring / RADIUS), rel=1e-3)


def test_tapered_wire_against_the_prolate_spheroid() -> None:
    """R = ln((l + c)/(l - c)) / (8 π σ c), half-length l, focal half-length c."""
    half, waist = 20e-3, 0.3e-3
    focal = np.sqrt(half**2 - waist**2)
    z = focal * np.sin(np.linspace(-np.pi / 2, np.pi / 2, 81))  # finer towards the ends
    nodes = np.stack([0 * z, 0 * z, z], axis=1)
    middle = 0.5 * (z[1:] + z[:-1])
    field = WireField(nodes, waist * np.sqrt(1 - (middle / half) ** 2))
    exact = 8 * np.pi * focal / np.log((half + focal) / (half - focal))
    # its exact density is uniform: what is left is the collocation point on a chord; seen 1e-4
    assert field.current == pytest.approx(exact, rel=1e-3)
    assert field.density[10:-10] == pytest.approx(field.density[40], rel=0.01)


def test_straight_wire_against_the_needles_mesh() -> None:
    length = 30e-3
    field = wire_field((straight(length),), (RADIUS,))
    needle = needle_field(length / RADIUS)
    # the needle has a shaft behind it and a round tip: each worth a radius in a hundred; seen 0.4 %
    assert field.current == pytest.approx(needle.current * RADIUS, rel=0.01)


def test_current_through_a_sphere_around_it_is_the_sum_of_the_charges() -> None:
    field = wire_field((circle(10e-3), straight(12e-3)), (RADIUS, 2 * RADIUS))
    nodes, weights = np.polynomial.legendre.leggauss(24)
    turn = 2 * np.pi * np.arange(48) / 48
    sine = np.sqrt(1 - nodes**2)
    normal = np.stack(
        [np.outer(sine, np.cos(turn)), np.outer(sine, np.sin(turn)), np.outer(nodes, np.ones(48))], axis=-1
    ).reshape(-1, 3)
    radius = 30e-3
    points = np.array([0.0, 0.0, 3e-3]) + radius * normal
    through = sum(field.flux(points, np.full(len(points), k)) * normal[:, k] for k in range(3))
    total = np.repeat(weights, 48) @ through * 2 * np.pi / 48 * radius**2
    assert total == pytest.approx(field.current, rel=1e-9)  # Gauss's law; the quadrature is exact here


def test_flux_is_minus_the_gradient() -> None:
    field = wire_field((circle(10e-3), straight(12e-3)), (RADIUS, RADIUS))
    points = np.random.default_rng(1).uniform(-15e-3, 15e-3, (200, 3))
    step = 1e-6
    for axis in range(3):
        shift = step * np.eye(3)[axis]
        slope = (field.potential(points - shift) - field.potential(points + shift)) / (2 * step)
        flux = field.flux(points, np.full(len(points), axis))
        # central differences: (step / distance)² of a field that is singular 0.1 mm away at worst
        assert flux == pytest.approx(slope, rel=1e-3, abs=1e-3 * np.abs(slope).max())


def surface(line: Line, shares: NDArray[np.float64]) -> NDArray[np.float64]:
    points = np.asarray(line)
    along = points[1:] - points[:-1]
    at = points[:-1] + shares[:, None] * along
    outward = np.cross(along, np.random.default_rng(2).normal(size=along.shape))
    return at + RADIUS * outward / np.linalg.norm(outward, axis=1)[:, None]


def test_metal_is_at_potential_one() -> None:
    line = circle(15e-3, 90)
    field = wire_field((line,), (RADIUS,))
    # a charge on the axis of a bent wire leaves its inside higher than its outside, by a/(2 R) = 1 %
    value = field.potential(surface(line, np.random.default_rng(0).uniform(size=90)))
    assert value == pytest.approx(1.0, abs=0.015)


def test_wires_side_by_side_shade_each_other() -> None:
    one = wire_field((straight(20e-3),), (RADIUS,)).current
    shifted = tuple((x + 2e-3, y, z) for x, y, z in straight(20e-3))
    two = wire_field((straight(20e-3), shifted), (RADIUS, RADIUS)).current
    assert one < two < 1.5 * one


def test_free_ends_get_shorter_pieces() -> None:
    nodes, radius = pieces((straight(30e-3, 30e-3), straight(10e-3, 10e-3)), (RADIUS, RADIUS))
    length = np.linalg.norm(np.diff(nodes, axis=0), axis=1)
    assert (radius == 0).sum() == 1  # where the first wire ends and the second begins
    assert length[radius > 0].sum() == pytest.approx(40e-3, rel=1e-12)
    nodes, _ = pieces((straight(30e-3),), (RADIUS,))
    length = np.linalg.norm(np.diff(nodes, axis=0), axis=1)
    assert length[[0, -1]] == pytest.approx(0.5e-3)  # edges of 1 mm, wanted are 2 radii: halves
    assert length[len(length) // 2] == pytest.approx(1e-3)


def test_too_many_pieces_are_refused() -> None:
    with pytest.raises(InputError, match=r"cut into .* pieces"):
        wire_field((straight(2.0),), (RADIUS,))
