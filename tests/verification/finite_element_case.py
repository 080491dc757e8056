"""Two cooled needles, two tissues and one vessel: the same case for the program and for finite elements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator
from verification.finite_element_mesh import HexMesh, Rod, Tube, box_with_rods, joined, spread
from verification.finite_element_solver import Film, FiniteElements, Materials, Probe, zone_volume

from thermosim.anatomy.anatomy import Anatomy, Lumen, Structure
from thermosim.anatomy.grid import Grid
from thermosim.applicators.electrode import Electrode
from thermosim.backends.base import Backend
from thermosim.config import (
    DamageConfig,
    GeneratorConfig,
    ProtocolConfig,
    SegmentConfig,
    SolverConfig,
    TissueConfig,
    TissueProperties,
    VesselsConfig,
)
from thermosim.outcome.ablation_zone import ablation_zone
from thermosim.simulation import Problem, run

Array = NDArray[np.float64]
Field = Callable[[Array], Array]

HALF_BOX = np.array([28e-3, 22e-3, 30e-3])
NEEDLES_X, RADIUS, TIP, ACTIVE = (-8.3e-3, 5.6e-3), 0.75e-3, -10.35e-3, 20e-3
VESSEL_X, VESSEL_RADIUS = 15.2e-3, 3e-3
TUMOR_LOW, TUMOR_HIGH = np.array([-20e-3, -12e-3, -16e-3]), np.array([0.0, 12e-3, 6e-3])
"""One needle stands in the tumour and leaves it below its shaft's end; the other one stands in liver."""

SHAFT_END_CELL = 0.2e-3
VOLTAGE, DURATION = 29.0, 300.0
COOLANT, COOLANT_TRANSFER = 10.0, 2000.0
VESSEL_TRANSFER = 1000.0

LIVER = TissueProperties(
    density=1079.0,
    specific_heat_capacity=3540.0,
    thermal_conductivity=0.52,
    thermal_conductivity_slope=0.001,
    electrical_conductivity=0.2,
    electrical_conductivity_slope=0.015,
    perfusion_rate=0.0064,
)
TUMOR = TissueProperties(
    density=1045.0,
    specific_heat_capacity=3760.0,
    thermal_conductivity=0.57,
    thermal_conductivity_slope=0.001,
    electrical_conductivity=0.26,
    electrical_conductivity_slope=0.015,
    perfusion_rate=0.0040,
)
BLOOD = TissueProperties(
    density=1050.0,
    specific_heat_capacity=3617.0,
    thermal_conductivity=0.52,
    electrical_conductivity=0.7,
)
"""Plain values of the field's usual size; what matters is that both codes get the same."""


@dataclass(frozen=True)
class Variant:
    """What is varied: k of the tumour, vessel's wall, cooling of the needles."""

    tumor: TissueProperties = field(default_factory=lambda: TUMOR)
    vessel_transfer: float | None = VESSEL_TRANSFER  # None: wall at blood temperature
    coolant_transfer: float = COOLANT_TRANSFER  # 0: not cooled
    duration: float = DURATION
    voltage: float = VOLTAGE


COOLED = Variant()
"""Cooled needles, and a film on the vessel's wall."""
UNCOOLED = Variant(vessel_transfer=None, coolant_transfer=0.0, voltage=17.0)
"""Needles without coolant, the vessel's wall at blood temperature."""


def problem(spacing: float, variant: Variant) -> Problem:
    """The case for the program; `spacing` divides 2 mm, so the tumour's faces lie between cells."""
    v = variant
    shape = tuple(int(n) for n in np.rint(2 * HALF_BOX / spacing))
    grid = Grid.box((0.0, 0.0, 0.0), shape, spacing)  # type: ignore[arg-type]
    x, y, z = np.meshgrid(*(grid.axis(a) for a in range(3)), indexing="ij", sparse=True)
    distance = np.broadcast_to(np.hypot(x - VESSEL_X, y) - VESSEL_RADIUS, shape).astype(np.float32)
    is_tumor = np.ones(shape, dtype=bool)
    for axis, low, high in zip((x, y, z), TUMOR_LOW, TUMOR_HIGH, strict=True):
        is_tumor &= (axis > low) & (axis < high)
    labels = is_tumor.astype(np.uint8)
    labels[distance < 0] = 2
    structures = (
        Structure(0, "liver", "liver", "organ"),
        Structure(1, "tumor", "tumor", "tumor"),
        Structure(2, "portal vein", "blood", "vessel", "portal_vein"),
    )
    lumen = Lumen("portal_vein", distance, np.full(shape, VESSEL_RADIUS, np.float32))
    anatomy = Anatomy(grid, labels, structures, np.ones(shape, bool), {}, (lumen,))
    electrodes = tuple(
        Electrode(
            f"needle {n}",
            (x_needle, 0.0, TIP),
            (x_needle, 0.0, 0.1),
            RADIUS,
            ACTIVE,
            coolant_temperature=COOLANT if v.coolant_transfer else None,
            coolant_heat_transfer=v.coolant_transfer,
        )
        for n, x_needle in enumerate(NEEDLES_X)
    )
    return Problem(
        anatomy,
        electrodes,
        TissueConfig(state="test", tissues={"liver": LIVER, "tumor": v.tumor, "blood": BLOOD}),
        VesselsConfig(
            model="isothermal" if v.vessel_transfer is None else "convective",
            heat_transfer_coefficient=v.vessel_transfer or VESSEL_TRANSFER,
        ),
        ProtocolConfig(
            generator=GeneratorConfig(voltage=v.voltage, maximum_current=20.0, maximum_power=1000.0),
            segments=[SegmentConfig(duration_min=v.duration / 60.0)],
            cooling_after_min=0.0,
        ),
        DamageConfig(),
        SolverConfig(report_interval=10.0),
    )


def mesh(fineness: float) -> HexMesh:
    """Half the box; cells grow smaller as 1 / fineness."""
    f = fineness
    prism = 4e-3
    tube = (4.5e-3, 4e-3)
    a, b = NEEDLES_X
    c = VESSEL_X
    hx, hy, hz = HALF_BOX

    def even(start: float, stop: float, cell: float) -> Array:
        return np.linspace(start, stop, max(1, round(f * (stop - start) / cell)) + 1)

    def away(start: float, stop: float, first: float) -> Array:
        return spread(start, stop, first / f, 0.45 / f, 6e-3 / f)

    x = joined(
        -away(20e-3, hx, 4e-3)[::-1],
        -away(-(a - prism), 20e-3, 2e-3)[::-1],
        even(a - prism, a + prism, 2e-3),
        even(a + prism, 0.0, 2.2e-3),
        even(0.0, b - prism, 2e-3),
        even(b - prism, b + prism, 2e-3),
        even(b + prism, c - tube[0], 1.2e-3),
        even(c - tube[0], c + tube[0], 2.2e-3),
        away(c + tube[0], hx, 3e-3),
    )
    y = joined(even(0.0, prism, 2e-3), away(prism, 12e-3, 2e-3), away(12e-3, hy, 3.5e-3))
    center, end = TIP + RADIUS, TIP + ACTIVE
    tight = SHAFT_END_CELL
    z = joined(
        -away(16e-3, hz, 3e-3)[::-1],
        even(-16e-3, center - prism, 2.7e-3),
        even(center - prism, center, 2e-3),
        spread(center, TUMOR_HIGH[2], 0.6e-3 / f, 0.7 / f, 3e-3 / f, both=True),
        end + TUMOR_HIGH[2] - spread(TUMOR_HIGH[2], end, tight / f, 1.0 / f, 1.6e-3 / f)[::-1],
        spread(end, hz, tight / f, 1.0 / f, 6e-3 / f),
    )
    rods = [Rod(n, RADIUS, TIP, prism) for n in NEEDLES_X]
    return box_with_rods(x, y, z, rods, Tube(c, VESSEL_RADIUS, tube), layers=max(3, round(6 * f)))


def finite_elements(fineness: float, variant: Variant) -> FiniteElements:
    """The case for finite elements."""
    v = variant
    made = mesh(fineness)
    m = made.mesh
    corners = m.p[:, m.t[:8]]
    middle = corners.mean(axis=1)
    is_tumor = np.all((middle.T > TUMOR_LOW) & (middle.T < TUMOR_HIGH), axis=1)
    kind = np.where(made.is_blood, 2, np.where(is_tumor, 1, 0))
    tissues = (LIVER, v.tumor, BLOOD)

    def by_kind(value: list[float]) -> Array:
        return np.repeat(np.array(value)[kind][:, None], 27, axis=1)

    materials = Materials(
        sigma=by_kind([t.electrical_conductivity for t in tissues]),
        sigma_slope=by_kind([t.electrical_conductivity_slope for t in tissues]),
        k=by_kind([t.thermal_conductivity for t in tissues]),
        k_slope=by_kind([t.thermal_conductivity_slope for t in tissues]),
        capacity=by_kind([t.density * t.specific_heat_capacity for t in tissues]),
        perfusion=by_kind([t.perfusion_rate * 1050.0 * 3617.0 for t in tissues]),
    )
    # facets: all four corners on the surface
    points = m.p[:, m.facets]  # (3, 4, n)

    def on(distance: Array) -> NDArray[np.int64]:
        return np.flatnonzero(np.all(np.abs(distance) < 1e-7, axis=0))

    outside = np.unique(
        np.concatenate(
            [on(np.abs(points[axis]) - HALF_BOX[axis]) for axis in (0, 2)] + [on(points[1] - HALF_BOX[1])]
        )
    )
    metal = []
    for x in NEEDLES_X:
        below = np.minimum(points[2] - (TIP + RADIUS), 0.0)
        away = np.sqrt((points[0] - x) ** 2 + points[1] ** 2 + below**2) - RADIUS
        bare = np.all(points[2] < TIP + ACTIVE + 1e-8, axis=0)
        metal.append(np.intersect1d(on(away), np.flatnonzero(bare)))
    wall = on(np.hypot(points[0] - VESSEL_X, points[1]) - VESSEL_RADIUS)
    films = []
    if v.coolant_transfer:
        films += [Film(facets, v.coolant_transfer, COOLANT) for facets in metal]
    # a wall at blood temperature is a film that passes anything: 10⁷ W/(m² K) are 0.05 µm of tissue
    films.append(Film(wall, v.vessel_transfer or 1e7, 37.0))
    return FiniteElements(m, made.is_blood, materials, metal, outside, films)


def schedule(duration: float, step: float) -> Array:
    """Times of potential solves: dense at first, while σ changes fast."""
    early = np.array([0.0, 2, 4, 8, 12, 16, 20, 28, 36, 44, 52, 60])
    late = np.arange(80.0, duration + 1.0, 20.0)
    return np.rint(np.concatenate([early[early <= duration], late]) / step) * step


def probes() -> dict[str, Array]:
    """Points [m] at least 2 mm from metal and wall, in both tissues, between needles, at tips and shafts."""
    a, b = NEEDLES_X
    millimetres = {
        "tumour, 3 mm beside needle 0": (1e3 * a - 3.75, 0.0, 0.0),
        "tumour, 3 mm in front of needle 0": (1e3 * a, 3.75, 0.0),
        "tumour, 6 mm aside": (1e3 * a - 4.0, -5.0, -3.0),
        "tumour, 10 mm from needle 0": (1e3 * a - 8.0, 6.0, 0.0),
        "below tip 0, 3 mm": (1e3 * a, 0.0, 1e3 * TIP - 3.0),
        "tumour's far side, above its face": (1e3 * a - 3.0, 1.0, 8.0),
        "middle between needles": (-1.35, 0.0, 0.0),
        "liver, between needles, lower": (1.5, 2.0, -6.0),
        "liver, 3 mm in front of needle 1": (1e3 * b, 3.75, 0.0),
        "liver, 7 mm in front of needle 1": (1e3 * b, -7.0, 2.0),
        "below tip 1, 4 mm": (1e3 * b, 0.5, 1e3 * TIP - 4.0),
        "beside shaft 1, 4 mm above its end": (1e3 * b + 2.5, 1.5, 1e3 * (TIP + ACTIVE) + 4.0),
        "between needle 1 and vessel": (1e3 * b + 4.0, 0.0, 0.0),
        "beside the vessel, 2 mm": (1e3 * VESSEL_X - 3.0, 4.2, 0.0),
    }
    return {name: 1e-3 * np.array(place) for name, place in millimetres.items()}


def rays() -> dict[str, tuple[Array, Array]]:
    """Start and direction along which the zone's edge is sought."""
    a, b = NEEDLES_X
    s = np.sqrt(0.5)
    found = {
        "tumour, −x": ((a - 2e-3, 0, 0), (-1, 0, 0)),
        "tumour, +y": ((a, 2e-3, 0), (0, 1, 0)),
        "tumour, −x+y": ((a - 1.5e-3, 1.5e-3, 0), (-s, s, 0)),
        "below tip 0": ((a, 0, TIP - 1.5e-3), (0, 0, -1)),
        "liver, +y": ((b, 2e-3, 0), (0, 1, 0)),
        "liver, towards the vessel": ((b + 2e-3, 0, 0), (1, 0, 0)),
        "liver, beside the vessel": ((b + 1.5e-3, 1.5e-3, 0), (s, s, 0)),
        "below tip 1": ((b, 0, TIP - 1.5e-3), (0, 0, -1)),
        "between the needles, +y": ((-1.35e-3, 0, 0), (0, 1, 0)),
    }
    return {name: (np.array(start, float), np.array(way, float)) for name, (start, way) in found.items()}


@dataclass(frozen=True)
class Findings:
    """What is compared: one code's answer to a case.

    `resistance` [Ω] over `time` [s]; `share`: of the current, through needle 0 at the start and the end;
    `temperatures` [°C] at `probes`; `edges` [mm] along `rays`; `volume` of the zone [ml].
    """

    time: Array
    resistance: Array
    share: tuple[float, float]
    temperatures: dict[str, float]
    edges: dict[str, float]
    volume: float
    seconds: float


STEPS = np.arange(0.0, 16e-3, 0.1e-3)


def _findings(temperature: Field, log_damage: Field, **others: Any) -> Findings:
    values = temperature(np.array(list(probes().values())))
    edges = {}
    for name, (start, way) in rays().items():
        level = log_damage(start + STEPS[:, None] * way)
        dead = np.flatnonzero(level >= 0.0)
        if len(dead) == 0:
            edges[name] = float("nan")  # nothing died there
            continue
        last = int(dead[-1])
        beyond = level[last] / (level[last] - level[last + 1])
        edges[name] = 1e3 * float(STEPS[last] + 0.1e-3 * beyond)
    return Findings(temperatures=dict(zip(probes(), values, strict=True)), edges=edges, **others)


def _metal_in_zone(probe: Probe, log_damage: Array) -> float:
    """Volume [m³] of metal with dead tissue around it: the program counts it as part of the zone."""
    cell = 0.1e-3
    height = np.arange(TIP + 0.5 * cell, HALF_BOX[2], cell)
    radius = np.sqrt(RADIUS**2 - np.minimum(height - TIP - RADIUS, 0.0) ** 2)
    total = 0.0
    for x in NEEDLES_X:
        for angle in (0.25, 1.25, 1.9, 2.9):  # [rad], in the half of the box that is meshed
            out = radius + 0.02e-3
            points = np.stack([x + out * np.cos(angle), out * np.sin(angle), height], axis=1)
            dead = probe(log_damage, points) >= 0.0
            total += 0.25 * np.pi * cell * float((radius**2 * dead).sum())
    return total


def by_finite_elements(fineness: float, variant: Variant, step: float = 5.0) -> Findings:
    """Solve with finite elements; `step` [s]."""
    begun = perf_counter()
    solver = finite_elements(fineness, variant)
    history = solver.run(variant.voltage, variant.duration, step, schedule(variant.duration, step))
    probe = Probe(solver.thermal)
    share = np.array(history.currents)[:, 0] * np.array(history.resistance)
    tissue = zone_volume(solver.thermal, history.log_damage)
    return _findings(
        partial(probe, history.temperature),
        partial(probe, history.log_damage),
        time=np.array(history.time),
        resistance=np.array(history.resistance),
        share=(float(share[0]), float(share[-1])),
        volume=1e6 * (tissue + _metal_in_zone(probe, history.log_damage)),
        seconds=perf_counter() - begun,
    )


def by_program(
    spacing: float, variant: Variant, backend: Backend, resolve_tolerance: float | None = None
) -> Findings:
    """Solve with the program itself; with its own tolerances unless told otherwise."""
    begun = perf_counter()
    case = problem(spacing, variant)
    if resolve_tolerance is not None:
        case = replace(case, solver=replace(case.solver, resolve_tolerance=resolve_tolerance))
    result = run(case, backend)
    axes = [result.anatomy.grid.axis(a) for a in range(3)]
    log = np.log(np.maximum(result.damage_integral.astype(float), 1e-12))
    temperature = RegularGridInterpolator(axes, result.temperature.astype(float))
    on = np.isfinite(result.traces.impedance)
    share = result.traces.current[on, 0] / result.traces.current[on].sum(axis=1)
    zone = ablation_zone(result, "arrhenius", case.damage)
    return _findings(
        temperature,
        RegularGridInterpolator(axes, log),
        time=result.traces.time[on],
        resistance=result.traces.impedance[on],
        share=(float(share[0]), float(share[-1])),
        volume=1e6 * zone.volume,
        seconds=perf_counter() - begun,
    )
