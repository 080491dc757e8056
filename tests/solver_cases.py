"""Small problems that several tests of the solver share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from thermosim.anatomy.anatomy import Anatomy, Lumen, Structure
from thermosim.anatomy.grid import Grid, Vector
from thermosim.applicators.electrode import Electrode
from thermosim.backends.base import Backend, Layout
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
from thermosim.numerics.workspace import Workspace
from thermosim.physics.bioheat import Bioheat, ThermalLaw, ThermalWall
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


def reference_problem(case: Literal["S1", "N1"], spacing: float) -> Problem:
    """A sphere electrode in a sphere, or a needle in a cylinder, of 60 mm radius; `spacing` in metres.

    Cells whose centre lies beyond the radius are outside the body: at ground and at 37 °C.
    """
    half = 60e-3
    n = round(2 * half / spacing)
    anatomy = plain_anatomy((n, n, n), spacing)
    x, y, z = np.meshgrid(*(anatomy.grid.axis(a) for a in range(3)), indexing="ij", sparse=True)
    exterior: NDArray[np.bool_]
    if case == "S1":
        exterior, voltage, minutes = x**2 + y**2 + z**2 > half**2, 21.0, 5.0
        electrode = Electrode("sphere", (0.0, 0.0, 0.0), (0.0, 0.0, 0.1), 2e-3, 2e-3, kind="sphere")
    else:
        exterior, voltage, minutes = np.broadcast_to(x**2 + y**2 > half**2, (n, n, n)), 22.0, 12.0
        electrode = Electrode("needle", (0.0, 0.0, -15.75e-3), (0.0, 0.0, 0.1), 0.75e-3, 30.75e-3)
    tissue = TissueConfig(
        state="reference",
        conductivity_collapse_temperature=300.0,  # never reached: the references let σ rise without limit
        tissues={"liver": replace(REFERENCE_TISSUE)},
    )
    protocol = ProtocolConfig(
        generator=GeneratorConfig(voltage=voltage),
        segments=[SegmentConfig(duration_min=minutes)],
        cooling_after_min=0.0,
    )
    damage = DamageConfig(perfusion_shutdown="none")
    return Problem(
        anatomy, (electrode,), tissue, VesselsConfig(), protocol, damage, SolverConfig(), exterior
    )


class HeatBox:
    """A box of tissue with its bioheat equation and nothing else; temperatures as rises above 37 °C.

    Parameters
    ----------
    labels : (nx, ny, nz); 1 is tissue of `second_conductivity`, 2 is no tissue. None: all 0.
    boundary : rise of the box's faces [K].
    """

    def __init__(
        self,
        backend: Backend,
        shape: tuple[int, int, int],
        spacing: float,
        *,
        conductivity: float = 0.52,
        second_conductivity: float = 0.52,
        capacity: float = 3.8e6,
        perfusion: float = 0.0,
        latent: float = 0.0,
        slope: float = 0.0,
        metabolic: float = 0.0,
        boundary: float = 0.0,
        labels: NDArray[np.uint8] | None = None,
        walls: Sequence[ThermalWall] = (),
    ) -> None:
        self.backend, self.layout, self.spacing = backend, Layout(shape), spacing
        self.labels = np.zeros(shape, np.uint8) if labels is None else labels

        def table(*values: float) -> NDArray[np.float32]:
            return np.array(values, dtype=np.float32)

        self.law = ThermalLaw(
            capacity=table(capacity, capacity, 0.0),
            conductivity=table(conductivity, second_conductivity, 0.0),
            slope=table(slope, slope, 0.0),
            perfusion=table(perfusion, perfusion, 0.0),
            latent=table(latent, latent, 0.0),
            metabolic=table(metabolic, metabolic, 0.0),
            arterial=37.0,
            boundary=37.0 + boundary,
            boiling=99.0,
            boiling_width=1.0,
            reference=37.0,
            shutdown="none",
            shutdown_threshold=0.8,
        )
        field = backend.field(self.layout, 0, "uint8")
        self.layout.interior(field)[:] = backend.asarray(self.labels, "uint8")
        workspace = Workspace.allocate(backend, self.layout, boundary)
        self.bioheat = Bioheat(backend, self.layout, spacing, field, self.law, walls, workspace)
        self.bioheat.labels_changed()
        self.enthalpy = backend.field(self.layout, boundary)
        self.layout.interior(self.enthalpy)[:] = 0.0
        self.temperature = self.enthalpy
        self.heat = backend.field(self.layout)
        self.damage = backend.field(self.layout)

    @property
    def explicit_limit(self) -> float:
        """Longest stable explicit step [s]."""
        return 2.0 / float(np.max(self.bioheat.fastest_rates(self.labels)[0]))

    def points(self, center: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> list[NDArray[np.float64]]:
        """Coordinates of the cell centres from the box's lower corner, less `center` [m]."""
        axes = [(np.arange(n) + 0.5) * self.spacing - c for n, c in zip(self.layout.shape, center, strict=True)]
        return list(np.meshgrid(*axes, indexing="ij"))

    def set_rise(self, rise: NDArray[np.float64]) -> None:
        """Start from this temperature (nothing boils yet)."""
        self.layout.interior(self.enthalpy)[:] = self.backend.asarray(rise, "float32")
        self.temperature = self.enthalpy

    def set_heat(self, heat: NDArray[np.float64]) -> None:
        """Volumetric heat source [W/m³]."""
        self.layout.interior(self.heat)[:] = self.backend.asarray(heat, "float32")

    def advance(
        self, time_step: float, n_steps: int = 1, *, explicit_limit: float | None = None, boils: bool = False
    ) -> None:
        """Steps of `time_step` seconds."""
        limit = self.explicit_limit if explicit_limit is None else explicit_limit
        for _ in range(n_steps):
            self.bioheat.prepare(self.temperature, self.damage, 0.0)
            self.enthalpy, self.temperature, _ = self.bioheat.advance(
                self.enthalpy, self.temperature, self.heat, 1.0, time_step, limit, boils=boils
            )

    @property
    def rise(self) -> NDArray[np.float64]:
        """Temperature above 37 °C."""
        return np.array(self.backend.to_host(self.layout.interior(self.temperature)), dtype=np.float64)

    @property
    def enthalpy_rise(self) -> NDArray[np.float64]:
        """Enthalpy temperature above 37 °C."""
        return np.array(self.backend.to_host(self.layout.interior(self.enthalpy)), dtype=np.float64)
