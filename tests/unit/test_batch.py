"""Cases side by side return what they return alone, and one that fails stops nobody."""

from __future__ import annotations

import gc
import os
import queue
import signal
from dataclasses import replace

import numpy as np
import pytest

import thermosim
from thermosim import batch
from thermosim.backends.cpu import CpuBackend
from thermosim.batch import n_workers, run_batch, simulate_batch
from thermosim.build import Anatomies, Case, build_problem, load_case, simulate
from thermosim.errors import BackendError, InputError, Interrupted
from thermosim.physics import vessel_walls

WORDS = [
    "grid.spacing_mm=4",
    "grid.size_mm=[96,96,96]",
    "grid.center_mm=[0,0,0]",
    "anatomy=block",
    "anatomy.tumors=[{diameter_mm:20}]",
    "protocol=one_minute",
    "protocol.cooling_after_min=0",
    "backend=cpu",
    "backend.threads=1",
    "solver.report_interval=20",
]
DIFFERENT = (
    ["layout.pattern_spacing_mm=20"],
    ["layout.pattern_spacing_mm=24", "tissue.tissues.liver.perfusion_rate=0.005"],
    ["protocol.generator.power=25", "tissue.tissues.tumor.electrical_conductivity=0.4"],
)
FIELDS = (
    "temperature",
    "highest_temperature",
    "damage_integral",
    "thermal_dose",
    "dead_fraction",
    "volumetric_heat_source",
    "electric_potential",
)


def case(*words: str) -> Case:
    return load_case("demo", [*WORDS, *words])


def hottest(run, outcome) -> float:  # type: ignore[no-untyped-def]
    """Kept of a case; workers find it by its name."""
    return float(run.highest_temperature.max())


@pytest.fixture(scope="module")
def side_by_side() -> list[thermosim.Result]:
    return simulate_batch([case(*words) for words in DIFFERENT], workers=2)


def test_each_case_is_bit_for_bit_what_it_is_alone(side_by_side: list[thermosim.Result]) -> None:
    for words, found in zip(DIFFERENT, side_by_side, strict=True):
        alone = simulate(case(*words))
        for name in FIELDS:
            one, other = getattr(found.simulation, name), getattr(alone.simulation, name)
            assert np.array_equal(one, other), (words, name)
        assert found.simulation.anatomy.labels.shape == alone.simulation.anatomy.labels.shape
        assert np.array_equal(found.simulation.traces.power, alone.simulation.traces.power)
        assert found.outcome.tumors[0].all_around == alone.outcome.tumors[0].all_around
        volumes = {name: zone.volume for name, zone in found.outcome.zones.items()}
        assert volumes == {name: zone.volume for name, zone in alone.outcome.zones.items()}
    assert len({float(r.simulation.temperature.max()) for r in side_by_side}) == len(DIFFERENT)


def test_cases_of_one_grid_share_its_anatomy(side_by_side: list[thermosim.Result]) -> None:
    first, second, third = (result.simulation.anatomy for result in side_by_side)
    assert first is second is third
    anatomies = Anatomies()
    one, _ = build_problem(case(), anatomies)
    finer, _ = build_problem(case("grid.spacing_mm=3"), anatomies)
    assert finer.anatomy is not one.anatomy
    assert build_problem(case("vessels=ignored"), anatomies)[0].anatomy is one.anatomy


def test_a_case_that_is_refused_or_fails_stops_nobody_else() -> None:
    good = case()
    outside = replace(good.config, layout=replace(good.config.layout, pattern_spacing_mm=400.0))
    broken = replace(good.config, solver=replace(good.config.solver, maximum_iterations=1))
    cases = [Case(config, good.settings) for config in (outside, good.config, broken)]
    found = {one.number: one for one in run_batch(cases, keep=hottest, workers=1)}
    assert isinstance(found[0].error, thermosim.InputError)
    assert "beyond the computing box" in str(found[0].error)
    assert found[1].error is None
    assert found[1].kept is not None
    assert found[1].kept > 40.0
    assert isinstance(found[2].error, thermosim.NumericalError)
    with pytest.raises(thermosim.InputError, match="beyond the computing box"):
        simulate_batch(cases, workers=1)


def test_workers_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="workers=-1"):
        n_workers(case(), -1)
    with pytest.raises(InputError, match="GB"):
        n_workers(case("solver.memory_limit_gb=1"), 1000)
    assert n_workers(case(), 3) == 3
    assert simulate_batch([], workers=2) == []


def test_a_worker_of_the_batch_that_cannot_begin_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object) -> None:
        raise BackendError("no device today")

    monkeypatch.setattr("thermosim.backends.select", nothing)
    monkeypatch.setattr(batch, "_worker", {})
    before = signal.getsignal(signal.SIGINT)
    ranks: queue.SimpleQueue[int] = queue.SimpleQueue()
    ranks.put(0)
    try:
        batch._begin(ranks, ("cpu", 1, 0), hottest, ())
        with pytest.raises(BackendError, match="no device today"):
            batch._work([], 1)
        os.kill(os.getpid(), signal.SIGINT)  # noted, and no other case begins
        with pytest.raises(Interrupted):
            batch._work([], 1)
    finally:
        signal.signal(signal.SIGINT, before)


def test_zones_are_measured_on_the_threads_of_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def assess(*_: object, threads: int) -> None:
        seen.append(threads)

    monkeypatch.setattr("thermosim.outcome.assess.assess", assess)
    monkeypatch.setattr("thermosim.simulation.run", lambda *_, **__: None)
    simulate(case("backend.threads=0"), backend=CpuBackend(1))
    simulate(case("backend.threads=2"))
    assert seen == [1, 2]


def test_walls_of_a_lumen_are_fitted_once_and_forgotten_with_it() -> None:
    tube = "anatomy.tubes=[{diameter_mm:6,start_mm:[30,0,-48],end_mm:[30,0,48]}]"
    case_ = case(tube)
    anatomy = build_problem(case_)[0].anatomy
    (lumen,) = anatomy.lumens
    links = vessel_walls._wall_links(anatomy.grid, lumen)
    assert len(links.wall_cells) > 0
    assert vessel_walls._wall_links(anatomy.grid, lumen) is links
    other = replace(lumen, signed_distance=lumen.signed_distance + np.float32(1e-3))
    assert len(vessel_walls._wall_links(anatomy.grid, other).solid_cells) < len(links.solid_cells)
    key = id(other)
    assert key in vessel_walls._fits
    del other
    gc.collect()
    assert key not in vessel_walls._fits
