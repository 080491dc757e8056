"""Whole treatments against independent solutions of the same equations by other methods.

The references are a one-dimensional solution (sphere, S1) and an axisymmetric finite-element one
(needle, N1), both converged to far below the tolerances here. The tolerances are what a grid of 1 mm is
meant to reach: 0.3 mm in the zone's edge, less than a third of a cell and a tenth of the 5 to 10 mm
margin that is judged by it; 1 °C; 2 % in resistance. Seen on that grid: 0.06 mm, 0.4 °C, 0.9 %.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator
from solver_cases import reference_problem

from thermosim.backends import select
from thermosim.simulation import SimulationResult, run

SPACING = 1e-3
EDGE = 0.3e-3  # [m]
DEGREES = 1.0
RESISTANCE = 0.02


@pytest.fixture(scope="module")
def sphere() -> SimulationResult:
    return run(reference_problem("S1", SPACING), select("cpu"))


@pytest.fixture(scope="module")
def needle() -> SimulationResult:
    return run(reference_problem("N1", SPACING), select("cpu"))


def reference(folder: Path, case: str) -> dict[str, Any]:
    return dict(json.loads((folder / f"{case}.json").read_text()))


def between_cells(result: SimulationResult, field: NDArray[np.floating]) -> RegularGridInterpolator:
    """Trilinear interpolation between cell centres."""
    grid = result.anatomy.grid
    return RegularGridInterpolator([grid.axis(a) for a in range(3)], field.astype(float))


def temperature_at(result: SimulationResult, points: NDArray[np.float64]) -> float:
    return float(between_cells(result, result.temperature)(points).mean())


def ring(radius: float, height: float) -> NDArray[np.float64]:
    """Points [m] around the axis: the reference is axisymmetric, the grid is not."""
    angle = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), np.full(24, height)], axis=-1)


def shell(radius: float) -> NDArray[np.float64]:
    """Points [m] spread evenly over a sphere (golden spiral)."""
    n = 60
    height = (np.arange(n) + 0.5) * 2.0 / n - 1.0
    angle = np.arange(n) * np.pi * (3.0 - np.sqrt(5.0))
    across = np.sqrt(1.0 - height**2)
    return radius * np.stack([across * np.cos(angle), across * np.sin(angle), height], axis=-1)


def edge_along(result: SimulationResult, start: NDArray[np.float64], direction: NDArray[np.float64]) -> float:
    """Distance from `start` [m] at which ln Ω falls through 0, finer than the cells."""
    steps = np.arange(0.0, 25e-3, 0.1e-3)
    log = np.log(np.maximum(result.damage_integral, 1e-12))
    values = between_cells(result, log)(start + steps[:, None] * direction)
    last = int(np.flatnonzero(values >= 0.0)[-1])
    return float(steps[last] + 0.1e-3 * values[last] / (values[last] - values[last + 1]))


def zone_volume(result: SimulationResult) -> float:
    """Volume of Ω ≥ 1 [ml]: a cell at the edge counts by where ln Ω = 0 cuts it, to first order."""
    log = np.log(np.maximum(result.damage_integral.astype(float), 1e-12))
    slope = np.sqrt(sum(g**2 for g in np.gradient(log)))
    share = np.clip(0.5 + log / np.maximum(slope, 1e-9), 0.0, 1.0)
    return float(share[~result.solid_mask].sum()) * SPACING**3 * 1e6


def resistance_trace(result: SimulationResult) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    on = np.isfinite(result.traces.impedance)
    return result.traces.time[on], result.traces.impedance[on]


def check_resistance(result: SimulationResult, expected: dict[str, Any]) -> None:
    known = expected["quantities"]
    assert result.initial_impedance == pytest.approx(known["R_initial_ohm"], rel=RESISTANCE)
    assert result.final_impedance == pytest.approx(known["R_final_ohm"], rel=RESISTANCE)
    series = expected["series"]
    time, resistance = resistance_trace(result)
    wanted = np.interp(time, series["t_s"], series["R_ohm"])
    assert resistance == pytest.approx(wanted, rel=RESISTANCE)
    assert resistance.size > 30  # a reading at least every 10 s


# ---------------------------------------------------------------------------- sphere in a sphere


def test_sphere_resistance(sphere: SimulationResult, reference_dir: Path) -> None:
    check_resistance(sphere, reference(reference_dir, "S1"))


@pytest.mark.parametrize("millimetres", [4, 5, 7.5, 10, 12, 15, 20, 30])
def test_sphere_temperature(sphere: SimulationResult, reference_dir: Path, millimetres: float) -> None:
    # from 2 mm beyond the surface on: closer, the linear interpolation between cells of the 1/r⁴ heat
    # errs by more than the solver
    wanted = reference(reference_dir, "S1")["quantities"][f"T_r{millimetres}mm_t300_C"]
    assert temperature_at(sphere, shell(1e-3 * millimetres)) == pytest.approx(wanted, abs=DEGREES)


def test_sphere_zone(sphere: SimulationResult, reference_dir: Path) -> None:
    known = reference(reference_dir, "S1")["quantities"]
    for direction in shell(1.0)[::6]:
        radius = edge_along(sphere, np.zeros(3) + 2.5e-3 * direction, direction) + 2.5e-3
        assert radius == pytest.approx(1e-3 * known["zone_radius_mm"], abs=EDGE)
    # 0.3 mm on a radius of 7.8 mm are 11.5 % of the volume
    assert zone_volume(sphere) == pytest.approx(known["zone_volume_ml"], rel=3 * EDGE / 7.8e-3)


# ---------------------------------------------------------------------------- needle in a cylinder


def test_needle_resistance(needle: SimulationResult, reference_dir: Path) -> None:
    check_resistance(needle, reference(reference_dir, "N1"))


def test_needle_temperature(needle: SimulationResult, reference_dir: Path) -> None:
    expected = reference(reference_dir, "N1")
    probes = expected["probe_coordinates_mm(r,z)"]
    far = {name: place for name, place in probes.items() if place[0] >= 2.0 or place[1] <= -17.7}
    assert len(far) >= 16
    errors = {
        name: temperature_at(needle, ring(1e-3 * r, 1e-3 * z)) - expected["quantities"][f"T_{name}_t720_C"]
        for name, (r, z) in far.items()
    }
    assert {name: error for name, error in errors.items() if abs(error) > DEGREES} == {}


def test_needle_zone(needle: SimulationResult, reference_dir: Path) -> None:
    known = reference(reference_dir, "N1")["quantities"]
    sideways = [
        edge_along(needle, np.array([2e-3 * c, 2e-3 * s, 0.0]), np.array([c, s, 0.0])) + 2e-3
        for c, s in ((1.0, 0.0), (0.0, -1.0), (np.sqrt(0.5), np.sqrt(0.5)), (-0.6, 0.8))
    ]
    assert sideways == pytest.approx([1e-3 * known["zone_mid_radius_t720_mm"]] * 4, abs=EDGE)
    tip = edge_along(needle, np.array([0.0, 0.0, -17.5e-3]), np.array([0.0, 0.0, -1.0])) + 17.5e-3
    assert tip == pytest.approx(-1e-3 * known["zone_z_min_t720_mm"], abs=EDGE)
    # 0.3 mm all around 9.8 mm by 22 mm are 8 % of the volume
    assert zone_volume(needle) == pytest.approx(known["zone_volume_t720_ml"], rel=0.08)


@pytest.mark.parametrize("case", ["sphere", "needle"])
def test_energy_is_found_again(case: str, request: pytest.FixtureRequest) -> None:
    result: SimulationResult = request.getfixturevalue(case)
    # the trapezoidal rule of perfusion over steps of up to 5 s; seen: 6e-5
    assert result.audit.relative_error < 2e-4
    # float32 fields, sums of some 10⁶ cells; seen: 1.5e-6
    assert result.power_relative_error < 1e-5
