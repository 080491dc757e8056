"""A made-up but plausible result of a run, in a second, for the tests of the report.

Not a simulation: temperatures are sums of Gaussians around three needles, cooled near a vein.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyvista as pv
from scipy.ndimage import distance_transform_edt, map_coordinates

from thermosim.anatomy.anatomy import Anatomy, Structure, TriangleSurface
from thermosim.anatomy.grid import Grid
from thermosim.applicators.electrode import Electrode
from thermosim.outcome.results import AblationZone, MarginStatistics, Outcome, StructureAtRisk, TumorMargin
from thermosim.report.generator_log import GeneratorLog
from thermosim.simulation import EnergyAudit, RunInfo, SimulationResult, Traces
from thermosim.simulation_result import Sensor, StreamResult, TreatmentEvent, UnitImpedance, VesselResult

CENTER = np.array([-0.055, -0.010, 0.120])
TUMOR_RADII = np.array([0.013, 0.012, 0.014])
NEEDLES = ("needle 1", "needle 2", "needle 3")


def _surface(mesh: pv.PolyData) -> TriangleSurface:
    mesh = mesh.triangulate()
    return TriangleSurface(np.asarray(mesh.points, float), np.asarray(mesh.regular_faces, np.int64))


def _level_surface(level: np.ndarray, grid: Grid) -> TriangleSurface:
    image = pv.ImageData(dimensions=grid.shape, spacing=grid.spacing, origin=grid.origin)
    image.point_data["level"] = level.ravel(order="F")
    found = image.contour([0.0], scalars="level")
    if found.n_points == 0:
        return TriangleSurface(np.zeros((0, 3)), np.zeros((0, 3), np.int64))
    return _surface(found)


def _volume(surface: TriangleSurface) -> float:
    a, b, c = (surface.points[surface.triangles[:, i]] for i in range(3))
    return abs(float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6))


def _statistics(margin: np.ndarray, areas: np.ndarray) -> MarginStatistics:
    order = np.argsort(margin)
    cumulated = np.cumsum(areas[order]) / areas.sum()
    percentiles = {
        p: float(margin[order][np.searchsorted(cumulated, p / 100)]) for p in (1, 5, 25, 50, 75, 95)
    }
    below = {mm: float(areas[margin < 1e-3 * mm].sum() / areas.sum()) for mm in (0, 5, 10)}
    return MarginStatistics(float(margin.min()), percentiles, below, float(areas.sum()))


def make_case(
    heat: float = 1.0, n_cells: int = 64, path: str = "/home/jane/patients/doe/liver.nii.gz"
) -> tuple[SimulationResult, Outcome, dict[str, TriangleSurface], dict[str, Any]]:
    """Result, outcome, display surfaces and resolved configuration; `heat` scales the zone's size."""
    spacing = 0.080 / n_cells
    grid = Grid.box(tuple(CENTER), (n_cells,) * 3, spacing)
    x = np.stack(np.meshgrid(*(grid.axis(d) for d in range(3)), indexing="ij"), axis=-1) - CENTER
    shaft = np.array([-0.6, -0.5, 0.3]) / np.linalg.norm([-0.6, -0.5, 0.3])
    across = np.cross(shaft, [0, 0, 1.0])
    across /= np.linalg.norm(across)
    up = np.cross(across, shaft)
    electrodes, rise = [], np.zeros(grid.shape)
    solid = np.zeros(grid.shape, bool)
    for index in range(3):
        angle = 2 * math.pi * index / 3
        tip = CENTER + 0.010 * (math.cos(angle) * across + math.sin(angle) * up) - 0.016 * shaft
        electrodes.append(
            Electrode(
                NEEDLES[index],
                tuple(tip),
                tuple(tip + 0.11 * shaft),
                0.735e-3,
                0.03,
                "needle",
                10.0,
                2e3,
            )
        )
        arm = x + CENTER - tip
        along = arm @ shaft
        beyond = np.maximum(np.maximum(-along, along - 0.03), 0)
        radial = np.linalg.norm(arm - along[..., None] * shaft, axis=-1)
        rise += 62 * np.exp(-(radial**2 + beyond**2) / (2 * (0.0085 * heat) ** 2))
        solid |= (radial < 0.735e-3) & (along > 0)
    vein_axis = np.array([0.017, 0.002, 0.0])
    vein = np.linalg.norm((x - vein_axis)[..., :2], axis=-1) < 0.0042
    portal = np.linalg.norm((x - [0, 0.022, -0.012])[..., 1:], axis=-1) < 0.0035
    stomach = np.linalg.norm(x - [0.04, -0.03, 0.02], axis=-1) < 0.016
    tumor_field = 1 - np.linalg.norm(x / TUMOR_RADII, axis=-1)
    labels = np.ones(grid.shape, np.uint8)
    labels[tumor_field > 0] = 2
    labels[vein], labels[portal], labels[stomach] = 3, 4, 5
    to_vessel = distance_transform_edt(~(vein | portal)) * spacing
    rise *= 1 - np.exp(-((to_vessel / 0.006) ** 1.0))
    highest = (37 + np.minimum(rise, 64 + 4 * np.tanh((rise - 64) / 20))).astype(np.float32)
    final = (37 + 0.7 * (highest - 37)).astype(np.float32)
    damage = np.exp((highest - 54) / 3.0).astype(np.float32)
    dose = (240 * np.exp((highest - 52) / 2.0)).clip(0, 1e9).astype(np.float32)
    dead = (1 / (1 + np.exp(-(highest - 55) / 2))).astype(np.float32)
    structures = (
        Structure(0, "outside", "fat", "background"),
        Structure(1, "liver", "liver", "organ"),
        Structure(2, "tumor", "tumor", "tumor"),
        Structure(3, "hepatic_vein", "blood", "vessel", "hepatic_vein"),
        Structure(4, "portal_vein", "blood", "vessel", "portal_vein"),
        Structure(5, "stomach", "stomach", "risk"),
    )
    tumor_surface = _level_surface(tumor_field, grid)
    anatomy = Anatomy(
        grid, labels, structures, labels != 5, {"tumor": tumor_surface}, notes=("read from " + path,)
    )
    levels = {
        "arrhenius": (np.log(damage), "Arrhenius damage integral Ω ≥ 1"),
        "arrhenius_99": (np.log(damage / 4.6), "Arrhenius damage integral Ω ≥ 4.6"),
        "cem43": (np.log(dose / 240), "thermal dose of at least 240 min at 43 °C"),
        "three_state": (dead - 0.8, "dead fraction of at least 0.8"),
        "isotherm_50": (highest - 50, "highest temperature of at least 50 °C"),
        "isotherm_60": (highest - 60, "highest temperature of at least 60 °C"),
    }
    zones = {}
    for name, (level, description) in levels.items():
        surface = _level_surface(level, grid)
        extent = np.sort(np.ptp(surface.points, axis=0)) if len(surface.points) else np.zeros(3)
        zones[name] = AblationZone(
            name,
            description,
            _volume(surface),
            extent[2],
            extent[1],
            extent[0],
            0.83,
            surface,
            False,
            {e.name: 0.004 + 0.001 * i for i, e in enumerate(electrodes)},
        )
    inside = highest >= 54
    distance = spacing * np.where(
        inside, distance_transform_edt(inside) - 0.5, 0.5 - distance_transform_edt(~inside)
    )
    margin = map_coordinates(distance, grid.indices(tumor_surface.points).T, order=1)
    corners = tumor_surface.points[tumor_surface.triangles]
    triangle = 0.5 * np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    areas = np.bincount(tumor_surface.triangles.ravel(), np.repeat(triangle / 3, 3))
    near = tumor_surface.points[:, 2] > CENTER[2] + 0.0125
    tumor_mask = labels == 2
    residual = float((tumor_mask & ~inside).sum()) * grid.cell_volume
    volume = _volume(tumor_surface)
    tumor = TumorMargin(
        "tumor",
        volume,
        tumor_surface,
        margin,
        near,
        _statistics(margin, areas),
        _statistics(margin[~near], areas[~near]),
        tumor_surface.points[margin.argmin()],
        {5: 0.91, 6: 0.87, 10: 0.55},
        residual,
        1 - residual / (tumor_mask.sum() * grid.cell_volume),
    )
    caution = "0.9 ml of the ablation zone lie outside the liver"
    stomach = StructureAtRisk("stomach", 39.4, 0.3, 0.001, 0.0)
    outcome = Outcome("arrhenius", zones, (tumor,), (stomach,), (caution,), (caution,))
    audit = EnergyAudit(36000.0, 21000.0, 9000.0, 4100.0, 1500.0, 400.0, 12.0, 3.4e-4)
    run = RunInfo(
        "cpu", "Example processor, g++ 12", "abc123", 12.5, 512 * n_cells**3, 512, 20, 140, 800_000_000
    )
    result = SimulationResult(
        anatomy=anatomy,
        electrodes=tuple(electrodes),
        temperature=final,
        highest_temperature=highest,
        damage_integral=damage,
        thermal_dose=dose,
        dead_fraction=dead,
        volumetric_heat_source=(rise * 1e5).astype(np.float32),
        electric_potential=(rise / 3).astype(np.float32),
        solid_mask=solid,
        traces=_traces(),
        audit=audit,
        run=run,
        initial_impedance=62.0,
        final_impedance=91.0,
        admittance_matrix=np.diag([0.012, 0.011, 0.012]) - 0.002,
        power_relative_error=2e-13,
        treatment_time=720.0,
        vessels=_vessels(),
        units=NEEDLES,
        sensors=tuple(Sensor(name, name) for name in NEEDLES),
        events=(
            TreatmentEvent(0.0, "pulse", " + ".join(NEEDLES), 45.0),
            TreatmentEvent(300.0, "limit:maximum_voltage", " + ".join(NEEDLES), 100.0),
        ),
        unit_impedances=tuple(UnitImpedance(name, 0, 186.0, 273.0) for name in NEEDLES),
        segment_times=((0.0, 720.0),),
    )

    def beside(*offset: float) -> np.ndarray:
        return CENTER + np.array(offset)

    liver = pv.ParametricEllipsoid(0.09, 0.07, 0.065, u_res=60, v_res=60, w_res=60).translate(
        (-0.035, 0.0, 0.105)
    )
    lines = {
        "hepatic_vein": [beside(0.021, 0.007, -0.03), beside(0.017, 0.002, 0), beside(0.017, 0.002, 0.03)],
        "portal_vein": [beside(-0.03, 0.022, -0.012), beside(0, 0.022, -0.012), beside(0.05, 0.025, -0.02)],
    }
    surfaces = {"liver": _surface(liver.extract_surface(algorithm=None).clean()), "tumor": tumor_surface}
    for name, path_points in lines.items():
        tube = pv.Spline(np.array(path_points), 60).tube(radius=0.004, n_sides=20)
        surfaces[name] = _surface(tube.extract_surface(algorithm=None))
    return result, outcome, surfaces, _config(path)


def _vessels() -> tuple[VesselResult, ...]:
    ends = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.02], [0.0, 0.0, 0.04]])
    stream = StreamResult(
        120.0,
        2120.0,
        3e-5,
        np.array([0.0, 5.0]),
        np.array([37.0, 37.6]),
        ends[:-1],
        ends[1:],
        np.full(2, 3e-3),
        np.full(2, 1.4e-5),
        np.array([37.1, 37.5]),
        np.array([37.2, 37.9]),
    )
    return (
        VesselResult("portal_vein", "advective", 1.4e-5, (800.0, 1000.0, 1500.0), 37.0, 2000.0, stream),
        VesselResult("hepatic_vein", "isothermal", None, None, 37.0, 2100.0),
    )


def _traces() -> Traces:
    time = np.arange(0, 785.0, 5.0)
    on = time < 720
    power = np.where(on, 45 + 10 * np.sin(time / 60), 0.0)
    share = np.array([0.34, 0.32, 0.34])
    impedance = np.where(on, 62 - 8 * np.exp(-(((time - 200) / 150) ** 2)) + 29 * (time / 720) ** 3, np.nan)
    voltage = np.sqrt(np.where(on, power * np.nan_to_num(impedance), 0.0))
    each = power[:, None] * share
    return Traces(
        time,
        np.repeat(voltage[:, None], 3, axis=1),
        np.divide(each, voltage[:, None], out=np.zeros_like(each), where=voltage[:, None] > 0),
        each,
        impedance,
        power,
        37 + 66 * (1 - np.exp(-time / 90)) - np.where(on, 0, (time - 720) * 0.4),
        33e-6 * (1 - np.exp(-time / 300)) ** 2,
        np.cumsum(power) * 5,
        np.repeat(voltage[:, None], 3, axis=1),
        np.divide(each, voltage[:, None], out=np.zeros_like(each), where=voltage[:, None] > 0),
        each,
        np.where(on[:, None], impedance[:, None] / share, np.nan),
        37 + 30 * (1 - np.exp(-time[:, None] / 90)) * share,
        power,
    )


def make_log() -> GeneratorLog:
    """What a real generator may have logged of the case."""
    time = np.arange(1.0, 700.0, 3.0)
    return GeneratorLog(
        time, {"power_w": 44 + 10 * np.sin(time / 60), "temperature_c": np.full(len(time), 45.0)}
    )


def _config(path: str) -> dict[str, Any]:
    return {
        "title": "case",
        "anatomy": {
            "kind": "label_map",
            "path": path,
            "segments": {"1": {"tissue": "liver", "role": "organ"}},
        },
        "tissue": {
            "state": "in_vivo_human",
            "initial_temperature": 37.0,
            "conductivity_law": "linear",
            "conductivity_collapse_factor": 0.01,
            "tissues": {"liver": {"density": 1079.0, "source": "doi:10.1000/example, W/(m K)"}},
        },
        "vessels": {"model": "isothermal", "minimum_diameter_mm": 3.0, "groups": {}},
        "applicators": {"name": "straight_cooled_30mm", "kind": "needle"},
        "protocol": {
            "ground": "faces",
            "cooling_after_min": 1.0,
            "generator": {"mode": "constant_power", "power": 45.0, "voltage": 25.0},
            "segments": [{"duration_min": 12.0, "drive": "together"}],
        },
        "damage": {"criterion": "arrhenius", "cem43_threshold": 240.0, "perfusion_shutdown": "arrhenius"},
        "solver": {"potential_tolerance": 1e-6, "maximum_time_step": 2.0},
        "output": {"directory": "/home/jane/results/run1"},
        "resume": None,
    }
