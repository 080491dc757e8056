"""A small case that touches every kernel: cooled needle, vessel, boiling, perfusion shutdown, switching."""

from __future__ import annotations

import numpy as np

from thermosim.anatomy.anatomy import Anatomy, Lumen, Structure
from thermosim.anatomy.grid import Grid
from thermosim.applicators.electrode import Electrode
from thermosim.config import (
    DamageConfig,
    GeneratorConfig,
    ProtocolConfig,
    SegmentConfig,
    SolverConfig,
    TissueConfig,
    TissueProperties,
    VesselGroupConfig,
    VesselsConfig,
)
from thermosim.simulation import Problem

LIVER = TissueProperties(
    density=1079.0,
    specific_heat_capacity=3540.0,
    thermal_conductivity=0.52,
    thermal_conductivity_slope=0.001,
    electrical_conductivity=0.2,
    electrical_conductivity_slope=0.015,
    perfusion_rate=0.0155,
    metabolic_heat=1e4,
    water_fraction=0.71,
)
BLOOD = TissueProperties(
    density=1050.0,
    specific_heat_capacity=3617.0,
    thermal_conductivity=0.52,
    electrical_conductivity=0.7,
)


def small_case(minutes: float = 0.14) -> Problem:
    """24 × 22 × 27 cells of 3 mm, two needles that take turns, one convective vessel."""
    grid = Grid.box((0.0, 0.0, 0.0), (24, 22, 27), 3e-3)
    x, y, z = np.meshgrid(*(grid.axis(a) for a in range(3)), indexing="ij")
    radius = 3e-3
    distance = (np.hypot(x - 0.012, y - 0.3 * z) - radius).astype(np.float32)
    labels = np.where(distance < 0, 1, 0).astype(np.uint8)
    lumen = Lumen("portal_vein", distance, np.full(grid.shape, radius, np.float32))
    structures = (
        Structure(0, "liver", "liver", "organ"),
        Structure(1, "portal vein", "blood", "vessel", "portal_vein"),
    )
    anatomy = Anatomy(grid, labels, structures, np.ones(grid.shape, bool), {}, (lumen,))
    needles = tuple(
        Electrode(
            name,
            (place, -0.004, -0.014),
            (place + 0.01, -0.004, 0.08),
            0.75e-3,
            0.02,
            coolant_temperature=10.0,
            coolant_heat_transfer=2000.0,
        )
        for name, place in (("left", -0.01), ("right", 0.0))
    )
    return Problem(
        anatomy,
        needles,
        TissueConfig(state="test", tissues={"liver": LIVER, "blood": BLOOD}),
        VesselsConfig(groups={"portal_vein": VesselGroupConfig(model="convective")}),
        ProtocolConfig(
            generator=GeneratorConfig(mode="constant_power", power=60.0),
            segments=[SegmentConfig(duration_min=minutes, drive="switching", dwell_time=8.0)],
            cooling_after_min=0.04,
        ),
        DamageConfig(),
        SolverConfig(),
    )
