"""The bioheat equation alone, for tests that want to set the temperature themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from thermosim.backends.base import Backend, Layout
from thermosim.numerics.workspace import Workspace
from thermosim.physics.bioheat import Bioheat, ThermalLaw
from thermosim.physics.wall_links import ThermalWall


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
        plain, _, rates = self.bioheat.fastest_rates(self.labels)
        return 2.0 / float(np.max(rates, initial=plain))

    def points(self, center: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> list[NDArray[np.float64]]:
        """Coordinates of the cell centres from the box's lower corner, less `center` [m]."""
        axes = [
            (np.arange(n) + 0.5) * self.spacing - c for n, c in zip(self.layout.shape, center, strict=True)
        ]
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
            self.bioheat.prepare(self.enthalpy, self.temperature, self.damage, 0.0)
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
