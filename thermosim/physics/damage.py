"""Death of tissue: Arrhenius, CEM43 and three states, side by side in one pass."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from thermosim.backends.base import Array, Backend, Layout
from thermosim.config import DamageConfig
from thermosim.physics.bioheat import NOTHING_DIES, ThermalLaw
from thermosim.units import GAS_CONSTANT


@dataclass
class DamageState:
    """Padded fields: Ω [-], CEM43 [min], alive and dead fraction [-], highest temperature [°C]."""

    integral: Array
    dose: Array
    alive: Array
    dead: Array
    highest_temperature: Array

    @classmethod
    def start(
        cls, backend: Backend, layout: Layout, config: DamageConfig, initial_temperature: float
    ) -> DamageState:
        """Unharmed tissue."""
        return cls(
            backend.field(layout),
            backend.field(layout),
            backend.field(layout, config.three_state_initial_alive),
            backend.field(layout),
            backend.field(layout, initial_temperature),
        )

    @property
    def arrays(self) -> tuple[Array, Array, Array, Array, Array]:
        return self.integral, self.dose, self.alive, self.dead, self.highest_temperature


def shutdown_rate(config: DamageConfig) -> tuple[float, float, float]:
    """Constants of the rate at which what stops perfusion grows, for `ThermalLaw.death`.

    Ω by ln A − E/(R T); the dead fraction by ln k_f0 + T/T_k, to be multiplied by (1 − A)(1 − A − D).
    """
    if config.perfusion_shutdown == "arrhenius":
        return math.log(config.frequency_factor), config.activation_energy / GAS_CONSTANT, 0.0
    if config.perfusion_shutdown == "viability":
        return math.log(config.three_state_forward), 0.0, 1.0 / config.three_state_scale
    return NOTHING_DIES


class DamageModels:
    """Advances all models over a time step, given the enthalpy before and the temperature after it."""

    def __init__(
        self, backend: Backend, layout: Layout, labels: Array, config: DamageConfig, law: ThermalLaw
    ) -> None:
        self.backend, self.layout, self.labels = backend, layout, labels
        self._latent = backend.asarray(law.latent, "float32")
        self._constants = tuple(
            np.float32(v)
            for v in (
                # ln A, because A = 7.39e39 overflows float32
                math.log(config.frequency_factor),
                config.activation_energy / GAS_CONSTANT,
                config.three_state_forward,
                1.0 / config.three_state_scale,
                config.three_state_backward,
            )
        )
        self._boil = (np.float32(law.boiling - law.reference), np.float32(law.boiling_width))
        self._reference = np.float32(law.reference)

    def advance(
        self,
        state: DamageState,
        enthalpy_before: Array,
        temperature: Array,
        time_step: float,
        boils: bool = True,
        box: Layout | None = None,
    ) -> float:
        """Integrate over one step of `time_step` seconds; returns the largest |ΔT| [K] of a cell in it.

        `boils`: whether enthalpy and temperature may differ. Changes above the boiling range do not count.
        `box`: the cells, if not all.
        """
        changes = self.advance_and_go_on(state, enthalpy_before, temperature, time_step, boils, box)
        return float(self.backend.fetch(changes)[0][0])

    def advance_and_go_on(
        self,
        state: DamageState,
        enthalpy_before: Array,
        temperature: Array,
        time_step: float,
        boils: bool = True,
        box: Layout | None = None,
    ) -> Array:
        """`advance` without waiting for the device, where the largest |ΔT| stays: an array of one entry."""
        rows = self.backend.on_rows(
            "advance_damage",
            self.layout if box is None else box,
            1,
            enthalpy_before,
            temperature,
            self._reference,
            self.labels,
            self._latent,
            *self._boil,
            np.int32(boils),
            np.float32(time_step),
            *self._constants,
            *state.arrays,
        )
        return self.backend.maxima(rows)

    def dead_cells(
        self, field: Array, conductivity: Array, threshold: float, box: Layout | None = None
    ) -> int:
        """How many tissue cells have reached `threshold`, of those in `box`, if not of all."""
        box = self.layout if box is None else box
        return int(self.backend.row_sums("count_dead", box, 1, field, conductivity, np.float32(threshold))[0])
