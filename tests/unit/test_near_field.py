"""The near field of one electrode: laws it must obey, and a cache that cannot lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from thermosim.errors import InputError
from thermosim.numerics import near_field
from thermosim.numerics.near_field import NeedleField, SphereField, needle_field
from thermosim.numerics.needle import Needle

ASPECT = 41.0  # active length / radius of the reference needle N1


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("THERMOSIM_CACHE", str(tmp_path))
    near_field._needle_field.cache_clear()
    yield tmp_path
    near_field._needle_field.cache_clear()


def outward_current(
    field: NeedleField | SphereField, axial_range: tuple[float, float], radius: float
) -> float:
    """Flux through a closed cylinder around the metal, the shaft's cross-section left out."""
    nodes, weights = np.polynomial.legendre.leggauss(400)
    low, high = axial_range
    z, wz = 0.5 * (high - low) * nodes + 0.5 * (high + low), 0.5 * (high - low) * weights
    side = field.flux(z, np.full_like(z, radius))[1] @ wz * 2 * np.pi * radius
    r, wr = 0.5 * radius * (nodes + 1), 0.5 * radius * weights
    top = 2 * np.pi * (field.flux(np.full_like(r, high), r)[0] * r) @ wr
    bottom = -2 * np.pi * (field.flux(np.full_like(r, low), r)[0] * r) @ wr
    return float(side + top + bottom)


@pytest.mark.parametrize(("low", "high", "radius"), [(-4.0, 47.0, 3.0), (-20.0, 60.0, 15.0)])
def test_current_through_any_closed_surface_is_the_same(low: float, high: float, radius: float) -> None:
    field = needle_field(ASPECT)
    # interpolation of tabulated fluxes, cells up to 7 % of the distance: 0.3 %
    assert outward_current(field, (low, high), radius) == pytest.approx(field.current, rel=3e-3)


def test_sphere_closed_form() -> None:
    field = SphereField()
    assert outward_current(field, (-3.0, 5.0), 4.0) == pytest.approx(4 * np.pi, rel=1e-9)  # smooth integrand
    assert field.potential(np.array([0.0]), np.array([4.0]))[0] == 0.25


def test_flux_is_minus_the_gradient_of_the_potential() -> None:
    field = needle_field(ASPECT)
    axial = np.array([-6.0, -2.0, 0.0, 10.0, 20.0, 35.0, 44.0, 55.0])
    radial = np.array([2.0, 1.0, 3.0, 2.0, 6.0, 4.0, 5.0, 8.0])
    step = 0.4  # wider than the table's cells, or the slope of single bilinear cells is what is seen
    along = -(field.potential(axial + step, radial) - field.potential(axial - step, radial)) / (2 * step)
    outward = -(field.potential(axial, radial + step) - field.potential(axial, radial - step)) / (2 * step)
    size = np.hypot(along, outward)
    flux = field.flux(axial, radial)
    # the chord over 0.8 radii differs from the slope by up to (0.4 / d)² / 3
    assert np.hypot(flux[0] - along, flux[1] - outward) / size == pytest.approx(0.0, abs=0.04)


def test_far_away_a_needle_is_a_point_source() -> None:
    field = needle_field(ASPECT)
    distance = 400.0
    center = 0.5 * (ASPECT - 2)
    potential = field.potential(np.array([center]), np.array([distance]))[0]
    # the insulated shaft and the line's quadrupole are of order (length / distance)² and 1 / distance
    assert potential * 4 * np.pi * distance / field.current == pytest.approx(1.0, abs=0.01)


def test_twice_as_fine_a_mesh_gives_the_same_current(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coarse = needle_field(ASPECT).current
    for name in ("FINEST_CELL", "GROWTH", "LARGEST_LOGARITHMIC_CELL", "LARGEST_ARC_CELL", "CAP_CELL"):
        monkeypatch.setattr(near_field, name, 0.5 * getattr(near_field, name))
    near_field._needle_field.cache_clear()
    # seen: 1e-4, an order below the error that the fitted links leave
    assert needle_field(ASPECT).current == pytest.approx(coarse, rel=3e-4)


def test_potential_is_bounded_and_falls_from_the_metal() -> None:
    field = needle_field(10.0)
    radial = np.geomspace(1.0, 100.0, 50)
    potential = field.potential(np.full(50, 4.0), radial)
    assert potential[0] == pytest.approx(1.0, abs=1e-12)  # the wall's node is the metal itself
    assert np.all(np.diff(potential) < 0)
    assert np.all(potential > 0)


def test_solid_carries_no_flux() -> None:
    along, outward = needle_field(10.0).flux(np.array([3.0, 20.0, -0.3]), np.array([0.5, 0.9, 0.2]))
    assert not along.any()
    assert not outward.any()


def test_solution_is_remembered_on_disk(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = needle_field(12.0).current
    assert len(list(empty_cache.glob("near_field_*.npy"))) == 1
    near_field._needle_field.cache_clear()
    monkeypatch.setattr("scipy.sparse.linalg.splu", None)  # a second solve would fail
    assert needle_field(12.0).current == first
    assert not list(empty_cache.glob("*.part"))


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "other numbers", "not a number"])
def test_damaged_cache_is_solved_again(empty_cache: Path, damage: str) -> None:
    right = needle_field(12.0).current
    (path,) = empty_cache.glob("near_field_*.npy")
    content = path.read_bytes()
    array = np.load(path, allow_pickle=False)
    if damage == "truncated":
        path.write_bytes(content[:-100])
    elif damage == "garbage":
        path.write_bytes(b"\x93NUMPY\x01\x00" + bytes(range(256)) * 10)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        array[20, 30] = np.nan if damage == "not a number" else array[20, 30] + 1e-3
        np.save(path, array)
    near_field._needle_field.cache_clear()
    assert needle_field(12.0).current == right
    assert path.read_bytes() == content


@pytest.mark.parametrize("aspect", [2.0, 0.0, -3.0, np.nan, np.inf, 1e5])
def test_impossible_shapes_are_refused(aspect: float) -> None:
    with pytest.raises(InputError, match="active length / radius"):
        needle_field(aspect)


def test_needle_refuses_bad_geometry() -> None:
    with pytest.raises(InputError, match="exceed the diameter"):
        Needle((0.0, 0.0, 0.0), (0.0, 0.0, 1.0), 1e-3, 1.5e-3)
    with pytest.raises(InputError, match="direction has length 0"):
        Needle((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 1e-3, 10e-3)
    with pytest.raises(InputError, match="radius"):
        Needle((0.0, 0.0, 0.0), (0.0, 0.0, 1.0), -1e-3, 10e-3)


def test_wall_flux_adds_up_to_the_current() -> None:
    field = needle_field(ASPECT)
    arc = np.linspace(-np.pi / 2, ASPECT - 1.0, 4001)
    middle = 0.5 * (arc[1:] + arc[:-1])
    ring = 2 * np.pi * np.where(middle < 0, np.cos(np.minimum(middle, 0.0)), 1.0) * np.diff(arc)
    # a narrow window resolves all but the junction's singularity
    assert field.wall_flux(middle, 0.01) @ ring == pytest.approx(field.current, rel=5e-3)
