"""Simulation results made of formulas, for tests of the outcome."""

from __future__ import annotations

import numpy as np

from thermosim.anatomy.anatomy import Anatomy, Lumen, Structure, TriangleSurface
from thermosim.anatomy.grid import Grid
from thermosim.applicators.electrode import Electrode
from thermosim.outcome.level_set import LevelSet
from thermosim.outcome.surface import extract_surface
from thermosim.simulation import EnergyAudit, RunInfo, SimulationResult, Traces

STRUCTURES = (
    Structure(0, "background", "fat", "background"),
    Structure(1, "liver", "liver", "organ"),
    Structure(2, "tumor", "tumor", "tumor"),
    Structure(3, "portal vein", "blood", "vessel", "portal_vein"),
    Structure(4, "gallbladder", "bile", "risk"),
)


def sphere_surface(radius, center=(0.0, 0.0, 0.0), n=48):
    """A finely triangulated sphere [m] whose vertices lie exactly on it."""
    grid = Grid.box(center, (n, n, n), 2.6 * radius / n)
    mesh = extract_surface(LevelSet(grid, sphere_level(grid, radius, center)))
    away = mesh.points - np.asarray(center)
    points = np.asarray(center) + radius * away / np.linalg.norm(away, axis=1)[:, None]
    return TriangleSurface(points, mesh.triangles)


def cell_points(grid):
    """Centres of all cells (nx, ny, nz, 3) [m]."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)
    return grid.points(index)


def sphere_level(grid, radius, center=(0.0, 0.0, 0.0)):
    """radius − distance from the centre [m], positive inside."""
    away = np.linalg.norm(cell_points(grid) - np.asarray(center), axis=-1)
    return (radius - away).astype(np.float32)


def synthetic_result(
    grid,
    zone_level,
    *,
    tumors=None,
    liver_mask=None,
    labels=None,
    lumens=(),
    solid_mask=None,
    electrodes=(),
    slope=1.0,
):
    """A result whose Arrhenius zone is where `zone_level` [m] is positive.

    Per millimetre of `zone_level`, ln Ω and ln dose change by `slope`, the highest temperature by
    1 K around 60 °C, and alive tissue falls by the factor exp(−slope).
    """
    depth = 1e3 * zone_level.astype(np.float64)
    temperature = (60.0 + depth).astype(np.float32)
    if tumors is None:
        tumors = {"tumor": sphere_surface(0.008)}
    shape = grid.shape
    anatomy = Anatomy(
        grid,
        np.ones(shape, dtype=np.uint8) if labels is None else labels,
        STRUCTURES,
        np.ones(shape, dtype=bool) if liver_mask is None else liver_mask,
        tumors,
        tuple(Lumen(group, distance.astype(np.float32), distance * 0) for group, distance in lumens),
    )
    none = np.zeros(0)
    return SimulationResult(
        anatomy=anatomy,
        electrodes=tuple(electrodes),
        temperature=temperature,
        highest_temperature=temperature,
        damage_integral=np.exp(np.clip(slope * depth, -80, 80)).astype(np.float32),
        thermal_dose=(240.0 * np.exp(np.clip(slope * depth, -60, 60))).astype(np.float32),
        dead_fraction=(1.0 - np.exp(np.clip(-slope * depth, None, np.log(5.0))) * 0.2).astype(np.float32),
        volumetric_heat_source=np.zeros(shape, np.float32),
        electric_potential=np.zeros(shape, np.float32),
        solid_mask=np.zeros(shape, dtype=bool) if solid_mask is None else solid_mask,
        traces=Traces(*(none for _ in range(9))),
        audit=EnergyAudit(*(0.0 for _ in range(8))),
        run=RunInfo("cpu", "none", "", 0.0, 0, 0, 0, 0, 0),
        initial_impedance=100.0,
        final_impedance=120.0,
        admittance_matrix=np.zeros((1, 1)),
        power_relative_error=0.0,
        treatment_time=0.0,
    )


def needle(target=(0.0, 0.0, 0.0), entry=(0.0, 0.0, 0.08), radius=0.00075, active=0.03):
    """A straight needle [m]."""
    return Electrode("needle", target, entry, radius, active)
