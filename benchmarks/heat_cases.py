"""The heat step by itself: cells per second against the bytes it moves, plain and with everything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from bandwidth import Bandwidth
from launches import LaunchProfile
from measure import Quantity, Report, Setting, seconds_of

from thermosim.anatomy.anatomy import Structure
from thermosim.backends.base import Array, Backend, Layout
from thermosim.build import load_case
from thermosim.config import DamageConfig
from thermosim.numerics.super_time_stepping import n_stages
from thermosim.numerics.workspace import Workspace
from thermosim.physics.bioheat import Bioheat, ThermalLaw
from thermosim.physics.damage import DamageModels, DamageState, shutdown_rate
from thermosim.tissue.properties import TissueTable


def heat_step(setting: Setting) -> Report:
    """RKL2 steps of three stages on twice the demo's edge, properties by label, nothing boils."""
    return _heat_step(setting, 2 * setting.size, peak_rise=50.0)


def heat_step_boiling(setting: Setting) -> Report:
    """The same with a ball of boiling tissue in the middle, half as wide as the box."""
    return _heat_step(setting, 2 * setting.size, peak_rise=400.0)


def heat_step_whole(setting: Setting) -> Report:
    """The boiling step with all that a run adds: k(T), perfusion shutdown, all models of death."""
    return _heat_step(setting, 2 * setting.size, peak_rise=400.0, whole=True)


@dataclass
class HeatStep:
    """A heat step ready to be taken again and again, and what it works on."""

    layout: Layout
    stages: int
    boiling_share: float
    state: list[Array]
    advance: Callable[[], None]


def heat_rate(backend: Backend, n: int, repeats: int) -> float:
    """Best rate of plain steps [cell-updates/s] on n³ cells."""
    ready = heat_ready(backend, n, 50.0)
    ready.advance()
    taken = min(seconds_of(backend, ready.state[0], ready.advance) for _ in range(4 * repeats))
    return ready.layout.n_cells * ready.stages / taken


def heat_ready(backend: Backend, n: int, peak_rise: float, whole: bool = False) -> HeatStep:
    """Liver, a tumour and a slab of other tissue on n³ cells, `peak_rise` kelvin warm in the middle."""
    layout = Layout((n, n, n))
    spacing = 1e-3
    damage_config = DamageConfig()
    law = replace(three_tissues(), death=shutdown_rate(damage_config))
    labels, bump = ball_and_slab(n)
    enthalpy, heat = backend.field(layout), backend.field(layout)
    rise = 2.0 + peak_rise * bump
    boiling = law.boiling - law.reference
    share = float(np.mean(rise > boiling))
    layout.interior(enthalpy)[:] = backend.asarray(rise, "float32")
    layout.interior(heat)[:] = backend.asarray(1e5 * bump, "float32")
    temperature = enthalpy  # one field serves as both until something boils
    if share > 0.0:
        temperature = backend.field(layout)
        mushy = boiling + (rise - boiling) * law.boiling_width / (law.boiling_width + float(law.latent[1]))
        layout.interior(temperature)[:] = backend.asarray(np.where(rise > boiling, mushy, rise), "float32")
        del mushy
    label_field = backend.field(layout, 0, "uint8")
    layout.interior(label_field)[:] = backend.asarray(labels, "uint8")
    del rise, labels, bump

    equation = Bioheat(
        backend, layout, spacing, label_field, law, [], Workspace.allocate(backend, layout, 0.0)
    )
    state = [enthalpy, temperature]
    death = DamageState.start(backend, layout, damage_config, law.reference) if whole else None
    models = DamageModels(backend, layout, label_field, damage_config, law)
    unhurt = backend.field(layout) if death is None else death.integral
    equation.prepare(enthalpy, temperature, unhurt, 0.0)
    warm = 1.08 * law.conductivity  # k at 100 °C
    rates = (12.0 * warm / spacing**2 + law.perfusion) * law.inverse_capacity
    limit = 2.0 / float(rates.max())
    step = 2.3 * limit
    stages = n_stages(step, limit)

    def advance() -> None:
        u, T, before = equation.advance(state[0], state[1], heat, 1.0, step, limit, share > 0.0)
        state[:] = [u, T]
        if death is not None:
            models.advance(death, before, T, step, share > 0.0)
            equation.prepare(u, T, death.integral, 0.0)

    return HeatStep(layout, stages, share, state, advance)


def _heat_step(setting: Setting, n: int, peak_rise: float, whole: bool = False) -> Report:
    backend = setting.backend
    ready = heat_ready(backend, n, peak_rise, whole)
    layout, stages, share, state, advance = (
        ready.layout,
        ready.stages,
        ready.boiling_share,
        ready.state,
        ready.advance,
    )
    with LaunchProfile(backend) as profile:
        for _ in range(max(1, setting.warm_up)):
            advance()
    moved = sum(k.bytes for k in profile.kernels.values())
    updates = layout.n_cells * stages
    needed = moved / (updates * max(1, setting.warm_up))
    meter = Bandwidth(backend)
    speeds, shares, triads = [], [], []
    for _ in range(4 * setting.repeats):
        around = [meter.triad()]
        rate = updates / seconds_of(backend, state[0], advance)
        around.append(meter.triad())
        speeds.append(rate)
        triads.append(float(np.mean(around)))
        shares.append(rate * needed / triads[-1])
    if not np.isfinite(backend.to_host(layout.interior(state[1]))).all():
        raise ArithmeticError("the heat step left a temperature that is not finite")
    return Report(
        [
            Quantity("cell-updates", "M/s", [1e-6 * r for r in speeds]),
            Quantity("needs", "B/update", [needed]),
            Quantity("moves", "GB/s", [1e-9 * needed * r for r in speeds]),
            Quantity("triad meanwhile", "GB/s", [1e-9 * t for t in triads]),
            Quantity("share of the triad", "%", [100 * s for s in shares], setting.target(">= 80")),
        ],
        {"cells": layout.n_cells, "stages": stages, "boiling_share": share, "kernels": profile.table()},
    )


def three_tissues() -> ThermalLaw:
    """Background, liver and tumour of the demo, no walls."""
    tissue = load_case("demo").config.tissue
    names = ("background", "liver", "tumor")
    table = TissueTable.build(tissue, [Structure(i, n, n, "background") for i, n in enumerate(names)])
    columns = {
        "capacity": table.heat_capacity,
        "conductivity": table.thermal_conductivity,
        "slope": table.thermal_conductivity_slope,
        "perfusion": table.perfusion_conductance,
        "latent": table.latent_temperature,
        "metabolic": table.metabolic_heat,
    }
    return ThermalLaw(
        **{name: values.astype(np.float32) for name, values in columns.items()},
        arterial=tissue.arterial_temperature,
        boundary=tissue.initial_temperature,
        boiling=tissue.vaporization_temperature,
        boiling_width=tissue.vaporization_width,
        reference=tissue.initial_temperature,
        shutdown="arrhenius",
        shutdown_threshold=0.8,
    )


def ball_and_slab(n: int) -> tuple[Array, Array]:
    """Labels: liver with a tumour of half the box's width and a slab of background; a bump of height 1."""
    axis = (np.arange(n, dtype=np.float32) + 0.5) / n - 0.5
    square = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2
    labels = np.ones((n, n, n), dtype=np.uint8)
    labels[square < 0.25**2] = 2
    labels[: n // 8] = 0
    return labels, np.exp(-32.0 * square)  # 400 K · bump reaches the boiling range at a quarter of n
