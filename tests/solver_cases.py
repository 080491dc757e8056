"""Small problems that several tests of the solver share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import Anatomy, Lumen, Structure
from thermosim.anatomy.grid import Grid, Vector
from thermosim.applicators.electrode import Electrode
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
ORGAN = Structure(0, "liver", "liver", "organ")
PORTAL_VEIN = Structure(1, "portal vein", "blood", "vessel", "portal_vein")

REFERENCE_TISSUE = TissueProperties(
    density=1080.0,
    specific_heat_capacity=3600.0,
    thermal_conductivity=0.52,
    electrical_conductivity=0.2,
    electrical_conductivity_slope=0.015,
    perfusion_rate=0.0064,
)
"""Tissue of the independent reference solutions: nothing boils, no metabolism."""


def plain_anatomy(shape: tuple[int, int, int], spacing: float, center: Vector = (0.0, 0.0, 0.0)) -> Anatomy:
    """A box of nothing but liver."""
    grid = Grid.box(center, shape, spacing)
    return Anatomy(grid, np.zeros(shape, np.uint8), (ORGAN,), np.ones(shape, bool), {})


def vessel_anatomy(
    shape: tuple[int, int, int], spacing: float, place: float = 0.010, radius: float = 4e-3
) -> Anatomy:
    """Liver with one straight vessel along z through x = `place` [m], y = 0."""
    grid = Grid.box((0.0, 0.0, 0.0), shape, spacing)
    x, y = np.meshgrid(grid.axis(0) - place, grid.axis(1), indexing="ij")
    distance = np.broadcast_to((np.hypot(x, y) - radius)[:, :, None], shape).astype(np.float32)
    lumen = Lumen("portal_vein", distance, np.full(shape, radius, np.float32))
    labels = (distance < 0).astype(np.uint8)
    return Anatomy(grid, labels, (ORGAN, PORTAL_VEIN), np.ones(shape, bool), {}, (lumen,))


def needle(
    name: str = "needle",
    target: Vector = (0.0, 0.0, -0.010),
    direction: Vector = (0.0, 0.0, 1.0),
    active_length: float = 0.020,
    coolant: float | None = None,
) -> Electrode:
    """A 1.5 mm needle; lengths in metres."""
    entry = tuple(float(t + 0.1 * d) for t, d in zip(target, direction, strict=True))
    return Electrode(
        name,
        target,
        entry,  # type: ignore[arg-type]
        0.75e-3,
        active_length,
        coolant_temperature=coolant,
        coolant_heat_transfer=2000.0,
    )


def two_needles(apart: float = 0.016, coolant: float | None = None) -> tuple[Electrode, Electrode]:
    """Two parallel needles along z, side by side in x."""
    return (
        needle("left", (-0.5 * apart, 0.0, -0.010), coolant=coolant),
        needle("right", (0.5 * apart, 0.0, -0.010), coolant=coolant),
    )


def small_problem(
    *,
    anatomy: Anatomy | None = None,
    electrodes: tuple[Electrode, ...] | None = None,
    generator: GeneratorConfig | None = None,
    segments: list[SegmentConfig] | None = None,
    cooling: float = 0.0,
    liver: TissueProperties = LIVER,
    vessels: str = "isothermal",
    ground: str = "faces",
    solver: SolverConfig | None = None,
    damage: DamageConfig | None = None,
) -> Problem:
    """A needle or two in a box of 32³ cells of 2 mm, half a minute at 20 V unless told otherwise.

    `cooling` in seconds after the last segment.
    """
    return Problem(
        anatomy or plain_anatomy((32, 32, 32), 2e-3),
        electrodes or (needle(),),
        TissueConfig(state="test", tissues={"liver": liver, "blood": BLOOD}),
        VesselsConfig(model=vessels),
        ProtocolConfig(
            generator=generator or GeneratorConfig(voltage=20.0),
            segments=segments or [SegmentConfig(duration_min=0.5)],
            ground=ground,
            cooling_after_min=cooling / 60.0,
        ),
        damage or DamageConfig(),
        solver or SolverConfig(),
    )


ReferenceCase = Literal["S1", "S1c", "N1", "N3", "H1"]
"""Cases with an independent solution: sphere, sphere with constant σ, needle, needle at constant power
without perfusion, needle beside a vessel."""


def reference_problem(case: ReferenceCase, spacing: float) -> Problem:
    """A sphere electrode in a sphere, or a needle in a cylinder or a cube, of 60 mm; `spacing` in metres.

    Cells whose centre lies beyond the sphere's or the cylinder's radius are outside the body: at ground
    and at 37 °C.
    """
    half = 60e-3
    n = round(2 * half / spacing)
    anatomy = plain_anatomy((n, n, n), spacing)
    if case == "H1":
        anatomy = vessel_anatomy((n, n, n), spacing, place=12e-3, radius=3e-3)
    x, y, z = np.meshgrid(*(anatomy.grid.axis(a) for a in range(3)), indexing="ij", sparse=True)
    exterior: NDArray[np.bool_] | None = None
    if case in ("S1", "S1c"):
        exterior = x**2 + y**2 + z**2 > half**2
        electrode = Electrode("sphere", (0.0, 0.0, 0.0), (0.0, 0.0, 0.1), 2e-3, 2e-3, kind="sphere")
    else:
        electrode = Electrode("needle", (0.0, 0.0, -15.75e-3), (0.0, 0.0, 0.1), 0.75e-3, 30.75e-3)
        if case != "H1":
            exterior = np.broadcast_to(x**2 + y**2 > half**2, (n, n, n))
    voltage, minutes = {"S1": (21.0, 5.0), "S1c": (21.0, 5.0), "N3": (0.0, 10.0)}.get(case, (22.0, 12.0))
    generator = GeneratorConfig(voltage=voltage)
    if case == "N3":
        generator = GeneratorConfig(mode="constant_power", power=6.0)
    liver = replace(REFERENCE_TISSUE)
    if case == "S1c":
        liver.electrical_conductivity_slope = 0.0
    if case == "N3":
        liver.perfusion_rate = 0.0
    tissue = TissueConfig(
        state="reference",
        conductivity_collapse_temperature=300.0,  # never reached: the references let σ rise without limit
        tissues={"liver": liver, "blood": BLOOD},
    )
    protocol = ProtocolConfig(
        generator=generator,
        segments=[SegmentConfig(duration_min=minutes)],
        cooling_after_min=0.0,
    )
    vessels = VesselsConfig(model="convective", heat_transfer_coefficient=1500.0)
    damage = DamageConfig(perfusion_shutdown="none")
    return Problem(anatomy, (electrode,), tissue, vessels, protocol, damage, SolverConfig(), exterior)


# ---------------------------------------------------------------------------- treatments


def constant_voltage() -> Problem:
    return small_problem(segments=[SegmentConfig(duration_min=1.0)], cooling=20.0)


def constant_power() -> Problem:
    generator = GeneratorConfig(mode="constant_power", power=12.0)
    return small_problem(generator=generator, segments=[SegmentConfig(duration_min=1.0)], cooling=20.0)


def impedance_controlled() -> Problem:
    # the tissue at the needle boils within half a minute, and the generator pauses
    generator = GeneratorConfig(
        mode="impedance_controlled",
        power=45.0,
        power_ramp=10.0,
        impedance_rise=8.0,
        pause=10.0,
        baseline_time=5.0,
    )
    return small_problem(generator=generator, segments=[SegmentConfig(duration_min=1.5)], cooling=10.0)


def sequence() -> Problem:
    return small_problem(
        electrodes=two_needles(), segments=[SegmentConfig(duration_min=1.0, drive="sequence")], cooling=10.0
    )


def switching() -> Problem:
    return small_problem(
        electrodes=two_needles(),
        generator=GeneratorConfig(mode="constant_power", power=25.0),
        segments=[SegmentConfig(duration_min=1.0, drive="switching", dwell_time=7.0)],
        cooling=10.0,
    )


def bonded() -> Problem:
    return small_problem(electrodes=two_needles(), segments=[SegmentConfig(duration_min=1.0)])


def pull_back() -> Problem:
    segments = [SegmentConfig(duration_min=0.5), SegmentConfig(duration_min=0.5, pull_back_mm=9.0)]
    return small_problem(
        electrodes=(needle(target=(0.0007, 0.0004, -0.016), direction=(0.28, 0.0, 0.96)),),
        segments=segments,
        cooling=10.0,
    )


def cooled() -> Problem:
    return small_problem(
        electrodes=two_needles(coolant=10.0),
        generator=GeneratorConfig(voltage=30.0),
        segments=[SegmentConfig(duration_min=1.0)],
        cooling=20.0,
    )


def isothermal_vessel() -> Problem:
    return small_problem(
        anatomy=vessel_anatomy((32, 32, 32), 2e-3), segments=[SegmentConfig(duration_min=1.0)], cooling=10.0
    )


def convective_vessel() -> Problem:
    return replace(isothermal_vessel(), vessels=replace(isothermal_vessel().vessels, model="convective"))


def boiling() -> Problem:
    generator = GeneratorConfig(mode="constant_power", power=50.0)
    return small_problem(generator=generator, segments=[SegmentConfig(duration_min=1.0)], cooling=20.0)


SCENARIOS: dict[str, Callable[[], Problem]] = {
    f.__name__: f
    for f in (
        constant_voltage,
        constant_power,
        impedance_controlled,
        sequence,
        switching,
        bonded,
        pull_back,
        cooled,
        isothermal_vessel,
        convective_vessel,
        boiling,
    )
}
"""Whole treatments of about a minute: every mode of the generator, every kind of wall, boiling."""
