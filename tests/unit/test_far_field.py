"""Heat and death followed step by step only around the needles: against the whole grid and closed forms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from gpu_path import GpuPath
from gpu_path import gpu_path as gpu_path
from scipy.integrate import solve_ivp
from solver_cases import (
    LIVER,
    SCENARIOS,
    needle,
    plain_anatomy,
    small_problem,
    two_needles,
    vessel_anatomy,
)

from thermosim.backends import cpu_program, select
from thermosim.backends.cpu import CpuBackend
from thermosim.config import GeneratorConfig, SegmentConfig, SolverConfig
from thermosim.numerics.window import Window
from thermosim.physics import far_field
from thermosim.simulation import Problem, Simulation, SimulationResult, run
from thermosim.treatment import Treatment

PULSES = [(0.7, 3.0), (0.0, 8.0), (1.3, 0.5), (1.1, 12.0), (0.0, 4.5), (0.4, 20.0)]
"""Power, as multiple of the heat field, and seconds of it."""


def treated(problem: Problem | None = None) -> Treatment:
    """Tissue of 32³ cells with the needles in place."""
    treatment = Treatment(problem or small_problem(), select("cpu"))
    treatment.place(treatment.problem.electrodes)
    return treatment


def with_heat(treatment: Treatment, largest: float) -> np.ndarray:
    random = np.random.default_rng(2)
    heat = random.uniform(0.0, largest, treatment.layout.shape).astype(np.float32)
    treatment.layout.interior(treatment.heat)[:] = heat
    return heat


def beyond(treatment: Treatment) -> np.ndarray:
    """Mask of the cells beyond the window."""
    mask = np.ones(treatment.layout.shape, dtype=bool)
    mask[tuple(slice(a, b) for a, b in zip(treatment.window.lower, treatment.window.upper, strict=True))] = (
        False
    )
    return mask


def test_pulses_beyond_the_window_against_the_equation_integrated() -> None:
    treatment = treated()
    far, law, largest = treatment.far_field, treatment.thermal_law, 3e5
    heat = with_heat(treatment, largest)
    for power, seconds in PULSES:
        far.pass_time(power, seconds)
    carried = far.bring_up_to_date(treatment.enthalpy, treatment.heat)
    rise = treatment.host(treatment.enthalpy)
    mask = beyond(treatment) & ~treatment.solid_mask
    # the equation of one cell, and of what blood carries away there
    capacity, W, metabolic = (float(v[0]) for v in (law.capacity, law.perfusion, law.metabolic))
    state = np.zeros(4)  # u and ∫ W u dt without heat, and with the largest
    for power, seconds in PULSES:

        def change(_t: float, y: np.ndarray, power: float = power) -> list[float]:
            slopes = [(q * power + metabolic - W * u) / capacity for q, u in ((0.0, y[0]), (largest, y[2]))]
            return [slopes[0], W * y[0], slopes[1], W * y[2]]

        state = solve_ivp(change, (0.0, seconds), state, rtol=1e-10, atol=1e-12).y[:, -1]
    assert W * sum(s for _, s in PULSES) / capacity > 0.5  # blood matters
    wanted = state[0] + heat[mask] / largest * (state[2] - state[0])
    assert wanted.max() > 1.0
    assert np.abs(rise[mask] - wanted).max() < 1e-6 * wanted.max()
    assert not rise[~mask].any()
    all_of_it = (state[1] + heat[mask].astype(float) / largest * (state[3] - state[1])).sum()
    # u of 2 K is rounded to 1e-7 K, but 25 000 such errors cancel
    assert carried == pytest.approx(treatment.spacing**3 * all_of_it, rel=1e-6)
    # nothing is left to do, and death went on at the temperature halfway
    assert far.bring_up_to_date(treatment.enthalpy, treatment.heat) == 0.0
    highest = treatment.host(treatment.damage.highest_temperature)
    assert np.abs(highest[mask] - (37.0 + np.maximum(rise[mask], 0.0))).max() < 1e-5
    dose = treatment.host(treatment.damage.dose)[mask]
    expected = sum(s for _, s in PULSES) / 60.0 * 0.25 ** (43.0 - 37.0 - 0.5 * rise[mask])
    assert np.allclose(dose, expected, rtol=1e-4)


def test_how_often_it_was_looked_at_makes_no_difference() -> None:
    often, once = treated(), treated()
    carried = [0.0, 0.0]
    for place, treatment in enumerate((often, once)):
        with_heat(treatment, 2e5)
        for power, seconds in PULSES:
            treatment.far_field.pass_time(power, seconds)
            if treatment is often:
                carried[place] += treatment.far_field.bring_up_to_date(treatment.enthalpy, treatment.heat)
        carried[place] += treatment.far_field.bring_up_to_date(treatment.enthalpy, treatment.heat)
    a, b = (t.host(t.enthalpy) for t in (often, once))
    assert b.max() > 0.9
    assert np.abs(a - b).max() < 1e-6
    assert carried[0] == pytest.approx(carried[1], rel=1e-5)


def test_links_over_the_rim_lead_to_the_tissue_of_mid_step() -> None:
    treatment = treated()
    far, bioheat = treatment.far_field, treatment.bioheat
    with_heat(treatment, 3e5)
    far.pass_time(0.8, 15.0)
    far.lead_rim(treatment.heat, 1.2, 4.0)
    assert bioheat._rim is not None
    given, linked = (np.array(t) for t in (bioheat._rim.wall.temperature, bioheat._rim.lists.temperatures))
    far.pass_time(1.2, 2.0)
    far.bring_up_to_date(treatment.enthalpy, treatment.heat)
    wanted = treatment.enthalpy[bioheat._rim.beyond]
    assert wanted.max() > 0.5
    assert np.abs(given - wanted).max() < 1e-6
    assert np.array_equal(given, linked)


# ---------------------------------------------------------------------------- against the whole grid


def both(
    problem: Problem, whole_rows: bool = False
) -> tuple[SimulationResult, SimulationResult, list[Window]]:
    """The run with a window, that on the whole grid, and the windows there were."""
    windows: list[Window] = []
    backend = CpuBackend()
    backend.prefers_whole_rows = whole_rows
    simulation = Simulation(problem, backend)
    result = simulation.run([lambda _progress: windows.append(simulation.treatment.window)])
    whole = run(replace(problem, solver=replace(problem.solver, active_box=False)), select("cpu"))
    return result, whole, windows


def serial() -> Problem:
    """Two needles of which one is pulled back, one after the other: the window follows."""
    return small_problem(
        anatomy=plain_anatomy((40, 32, 40), 2e-3),
        electrodes=(needle("a", (-0.022, 0.0, -0.026)),),
        segments=[
            SegmentConfig(0.5),
            SegmentConfig(0.5, pull_back_mm=20.0),
            SegmentConfig(0.5, pull_back_mm=14.0),
        ],
        cooling=20.0,
    )


CASES: dict[str, Callable[[], Problem]] = {
    **{
        name: SCENARIOS[name]
        for name in (
            "cooled",
            "impedance_controlled",
            "sequence",
            "boiling",
            "pull_back",
            "convective_vessel",
        )
    },
    "serial": serial,
}


@pytest.mark.parametrize("case", CASES)
def test_a_window_changes_little(case: str) -> None:
    problem = CASES[case]()
    found, whole, windows = both(problem)
    assert all(window.layout.n_cells < 0.8 * window.grid.n_cells for window in windows)
    assert found.run.cell_updates < 0.7 * whole.run.cell_updates
    assert found.run.time_steps == whole.run.time_steps
    difference = np.abs(found.temperature - whole.temperature)
    hot = whole.highest_temperature > 45.0
    assert hot.any()
    assert difference[hot].max() < 0.05
    assert difference.max() < 1.0  # beyond the rim, where nothing dies
    dead = [float(np.count_nonzero(r.damage_integral > 1.0)) for r in (found, whole)]
    assert dead[0] == pytest.approx(dead[1], rel=2e-3, abs=1.0)
    for audit in (found.audit, whole.audit):
        assert audit.relative_error < 1e-3
    assert found.final_impedance == pytest.approx(whole.final_impedance, rel=1e-3)
    # heat that has passed the rim counts as carried away, though some of it is stored there for a while
    assert found.audit.perfusion == pytest.approx(whole.audit.perfusion, rel=0.1)


def test_cells_that_metal_leaves_beyond_the_window_keep_what_they_are_given() -> None:
    """A needle is withdrawn and another put elsewhere: the track takes its neighbours' temperature."""
    backend = CpuBackend(1)
    backend.prefers_whole_rows = False
    electrodes = (needle("a", (0.001, 0.001, -0.05)), needle("b", (0.013, 0.001, -0.05)))
    problem = small_problem(anatomy=plain_anatomy((32, 32, 64), 2e-3), electrodes=electrodes)
    treatment = Treatment(problem, backend)
    treatment.place(electrodes[:1])
    treatment.layout.interior(treatment.heat)[:] = 3e5
    treatment.far_field.pass_time(1.0, 20.0)
    treatment.far_field.bring_up_to_date(treatment.enthalpy, treatment.heat)
    before = treatment.solid_mask
    treatment.place(electrodes[1:])
    track = before & ~treatment.solid_mask & beyond(treatment)
    given = treatment.host(treatment.enthalpy)[track]
    treatment.far_field.pass_time(0.0, 1e-3)
    treatment.far_field.bring_up_to_date(treatment.enthalpy, treatment.heat)
    assert track.sum() > 10
    assert given.min() > 1.0
    assert treatment.host(treatment.enthalpy)[track] == pytest.approx(given, rel=1e-3)


@pytest.mark.parametrize("whole_rows", [False, True])
def test_the_window_grows_where_heat_comes_near(whole_rows: bool) -> None:
    problem = small_problem(
        anatomy=plain_anatomy((48, 32, 48), 2e-3),
        generator=GeneratorConfig(voltage=30.0),
        segments=[SegmentConfig(5.0)],
        liver=replace(LIVER, perfusion_rate=0.002),
    )
    found, whole, windows = both(problem, whole_rows)
    first, last = windows[0].layout.n_cells, windows[-1].layout.n_cells
    assert last > 1.3 * first
    assert all((window.layout.shape[2] == window.grid.shape[2]) == whole_rows for window in windows)
    assert all(after.joined(before) == after for before, after in pairwise(windows))
    # beside the needle it boils, and round-off decides when a cell is dry
    hot = (whole.highest_temperature > 45.0) & (whole.highest_temperature < 95.0)
    assert np.abs(found.highest_temperature - whole.highest_temperature)[hot].max() < 0.05
    assert found.audit.relative_error < 1e-3


def test_too_warm_tissue_beyond_widens_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(far_field, "WARMEST", 0.05)
    _, _, windows = both(small_problem())
    assert windows[-1].is_whole
    assert not windows[0].is_whole


def test_blood_that_warms_along_its_way_meets_the_window_only() -> None:
    base = SCENARIOS["isothermal_vessel"]()
    problem = replace(base, vessels=replace(base.vessels, model="convective"))
    found, whole, _ = both(problem)
    heat = [result.audit.vessels for result in (found, whole)]
    assert heat[0] == pytest.approx(heat[1], rel=0.1)


def warm_blood() -> Problem:
    base = SCENARIOS["isothermal_vessel"]()
    return replace(base, vessels=replace(base.vessels, blood_temperature=38.0))


def warm_arteries() -> Problem:
    base = small_problem()
    return replace(base, tissue=replace(base.tissue, arterial_temperature=36.0))


def cold_faces() -> Problem:
    base = small_problem()
    return replace(base, tissue=replace(base.tissue, boundary_temperature=30.0))


def in_a_bath() -> Problem:
    base = small_problem()
    mask = np.zeros(base.anatomy.labels.shape, dtype=bool)
    mask[0] = True
    return replace(base, exterior_mask=mask)


def switched_off() -> Problem:
    return small_problem(solver=SolverConfig(active_box=False))


@pytest.mark.parametrize("case", [warm_blood, warm_arteries, cold_faces, in_a_bath, switched_off])
def test_where_something_else_heats_or_cools_the_whole_grid_is_followed(case: Callable[[], Problem]) -> None:
    assert treated(case()).window.is_whole


def test_without_perfusion_the_temperature_of_arteries_does_not_matter() -> None:
    base = small_problem(liver=replace(LIVER, perfusion_rate=0.0))
    tissue = replace(base.tissue, initial_temperature=22.0, arterial_temperature=37.0)
    assert not treated(replace(base, tissue=tissue)).window.is_whole


# ---------------------------------------------------------------------------- devices


def test_a_window_by_tiles_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = SCENARIOS["cooled"]()
    plain = run(problem, CpuBackend(2))
    monkeypatch.setattr(cpu_program, "CACHED_CELLS", 0)
    monkeypatch.setattr(cpu_program, "TILE_PLANES", 2)
    monkeypatch.setattr(cpu_program, "TILE_CELLS", 100)
    tiled = run(problem, CpuBackend(2))
    for name in ("temperature", "damage_integral", "electric_potential"):
        assert np.array_equal(getattr(plain, name), getattr(tiled, name)), name
    assert plain.audit == tiled.audit


@pytest.mark.gpu
def test_a_window_on_a_gpu(gpu_path: GpuPath) -> None:
    problem = small_problem(
        anatomy=vessel_anatomy((22, 20, 33), 3e-3),
        electrodes=two_needles(coolant=10.0),
        generator=GeneratorConfig(mode="constant_power", power=60.0),
        segments=[SegmentConfig(0.15)],
        cooling=2.0,
    )
    processor = CpuBackend(1)
    processor.prefers_whole_rows = False  # the same window on both
    cpu = run(problem, processor)
    gpu = run(problem, gpu_path.backend)
    assert cpu.run.cell_updates == gpu.run.cell_updates
    assert gpu_path.launches["advance_without_conduction"] > 0
    assert gpu_path.launches["temperature_beyond"] > 0
    for name in ("temperature", "damage_integral", "electric_potential"):
        expected, found = getattr(cpu, name), getattr(gpu, name)
        # as in tests/verification/test_gpu_path.py
        assert np.abs(found - expected).max() < 2e-5 * np.abs(expected).max(), name
    assert gpu.audit.relative_error < 1e-3
