"""The benchmarks run, keep what they found, and count memory traffic as a reader of the kernels would.

No time is asserted anywhere: what a machine reaches is for `benchmarks/run.py` to print.
"""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from thermosim import cli
from thermosim.backends import select
from thermosim.backends.base import Layout, kernel_digest, kernel_signatures

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a module of the benchmarks by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def launches(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("launches")


NAMES = (
    "triad",
    "demo",
    "memory",
    "heat_step",
    "heat_step_boiling",
    "heat_step_whole",
    "potential",
    "potential_large",
)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Most cases at the smallest size, as the command leaves them."""
    folder = tmp_path_factory.mktemp("benchmarks")
    words = [*NAMES, "size=16", "--repeats", "1", "--threads", "1", "--output", str(folder)]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "run.py"), *words],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = folder.iterdir()
    assert str(path) in done.stdout
    return dict(json.loads(path.read_text()))


def test_every_case_leaves_finite_figures(record: dict[str, Any]) -> None:
    assert set(record["cases"]) == set(NAMES)
    for case in record["cases"].values():
        assert case["quantities"]
        for quantity in case["quantities"]:
            assert quantity["minimum"] <= quantity["median"] <= quantity["maximum"]
            assert all(math.isfinite(sample) for sample in quantity["samples"])
            assert quantity["target"] is None  # targets hold for the full size only


def test_the_record_says_where_it_comes_from(record: dict[str, Any]) -> None:
    about = record["provenance"]
    assert about["kernel_digest"] == kernel_digest()
    for key in ("date", "commit", "processor", "threads", "compiler", "flags", "versions"):
        assert about[key], key


def test_the_demo_was_computed_and_not_only_timed(record: dict[str, Any]) -> None:
    details = record["cases"]["demo"]["details"]
    assert details["cells"] == 16**3
    assert details["ablated_volume_ml"] > 1.0  # three needles for 12 min kill something at any spacing
    # 8 mm cells are far too coarse to be right, but every joule must be found: the audit closes to the
    # trapezoidal rule over steps of at most 5 s, well within 1 % for perfusion and faces
    assert details["energy_audit_relative_error"] < 0.01
    quantities = record["cases"]["demo"]["quantities"]
    parts = {q["name"].strip(): q["median"] for q in quantities if q["unit"] == "s"}
    total, outcome = parts.pop("solver"), parts.pop("zones and margins")
    assert parts.pop("solver and outcome") == pytest.approx(total + outcome)
    assert sum(parts.values()) == pytest.approx(total, rel=0.05)  # kernels outside the loop are few


def test_a_ball_boils_in_one_case_only(record: dict[str, Any]) -> None:
    calm, boiling = record["cases"]["heat_step"], record["cases"]["heat_step_boiling"]
    assert calm["details"]["boiling_share"] == 0.0
    # the ball in which 2 K + 400 K exp(-32 r²) exceeds 62 K, the rise from 37 to 99 °C; 10 %, because
    # its edge is counted on 32³ cells
    radius = math.sqrt(math.log(400.0 / 60.0) / 32.0)
    assert boiling["details"]["boiling_share"] == pytest.approx(4.0 / 3.0 * math.pi * radius**3, rel=0.1)


def test_a_warm_solve_starts_where_a_run_would_solve_again(record: dict[str, Any]) -> None:
    details = record["cases"]["potential"]["details"]
    assert details["drift_estimate"] == pytest.approx(0.02, rel=0.01)  # solver.resolve_tolerance
    assert 0 < details["iterations_warm"] < details["iterations_cold"]
    # asked for 1e-6; float32 fields keep the true residual within a few times of that
    assert max(details["true_residual_cold"], details["true_residual_warm"]) < 5e-6


def test_bytes_are_those_a_reader_counts(launches: ModuleType) -> None:
    backend, layout = select("cpu", 1), Layout((8, 8, 8))
    signature = kernel_signatures()["scale_add"]
    x, out = backend.field(layout), backend.field(layout)
    half = np.float32(0.5)
    arguments = (*layout.arguments, half, x, half, out)
    # x read, out read and written: three floats
    assert launches.bytes_per_cell(signature, layout.shape, arguments) == 12.0
    # one field for both is read once and written once
    assert launches.bytes_per_cell(signature, layout.shape, (*layout.arguments, half, x, half, x)) == 8.0
    # a field of another grid is not counted by the cells of this one
    other = backend.field(Layout((16, 16, 16)))
    assert launches.bytes_per_cell(signature, layout.shape, (*layout.arguments, half, other, half, x)) is None


def test_a_field_of_a_program_counts_once(launches: ModuleType) -> None:
    backend, layout = select("cpu", 1), Layout((8, 8, 8))
    x, out, last = (backend.field(layout) for _ in range(3))
    half = np.float32(0.5)
    first = backend.call_on_cells("scale_add", layout, half, x, half, out)
    second = backend.call_on_cells("scale_add", layout, half, out, half, last)
    # x, out and last read, out and last written; what the second reads of `out` is in the cache
    assert launches.program_bytes_per_cell([first, second], layout.shape) == 20.0


def test_access_is_read_from_the_source(launches: ModuleType) -> None:
    access = launches.accesses("damage", "advance_damage")
    assert (access["T"].reads, access["T"].writes) == (True, False)
    assert (access["omega"].reads, access["omega"].writes) == (True, True)  # omega[p] += ...
    access = launches.accesses("electric_potential", "face_conductance")
    assert (access["gx"].reads, access["gx"].writes) == (False, True)  # gx[p] = ...
    for name, signature in kernel_signatures().items():
        pointers = {parameter for kind, parameter in signature.parameters if kind.endswith("*")}
        assert set(launches.accesses(signature.source, name)) == pointers


@pytest.mark.parametrize(("words", "message"), [(["nothing"], "'nothing'"), (["--size", "17"], "even")])
def test_mistakes_are_refused(words: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "run.py"), *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert message in done.stderr


def test_the_subcommand_hands_its_words_on(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--help"]) == 0
    assert "potential_peers" in capfd.readouterr().out
    assert cli.main(["bench", "demo", "size=17"]) == 2
    assert "even" in capfd.readouterr().err


@pytest.mark.parametrize(
    "name", ["NumPy", "SciPy sparse matrix", "Numba", "Devito", "C++ with AVX2 by hand, by label"]
)
def test_peers_take_the_same_heat_step(name: str, benchmark: Callable[[str], ModuleType]) -> None:
    steps = benchmark("peers.heat_step")
    if name.startswith("C++") and "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no AVX2")
    found = steps.measure(name, 16, 1)
    if "missing" in found:
        pytest.skip(found["missing"])
    assert found["largest_error_kelvin"] < steps.TOLERANCE
    assert min(found["rates"]) > 0.0


def test_peers_solve_the_matrix_of_thermosim(benchmark: Callable[[str], ModuleType]) -> None:
    cases, peer = benchmark("potential_cases"), benchmark("peers.potential")
    treatment, equation = cases.prepared(benchmark("problems").demo_problem(16), select("cpu", 1))
    cases.cold_solve(treatment, equation, 1e-6)
    matrix, b, active = peer.assemble(cases.as_arrays(equation))
    assert abs(matrix - matrix.T).max() == 0.0
    ours = treatment.host(equation.fields[0]).astype(float).ravel()[active]
    assert peer.true_residual(matrix, b, ours) < 5e-6  # float32 fields, asked for 1e-6
    theirs, _ = peer.scipy_cg(matrix, b, 1e-8)
    assert np.max(np.abs(ours - theirs)) < 1e-4  # of 1 V


def test_a_peer_that_is_missing_or_fails_is_a_row_that_says_so(
    benchmark: Callable[[str], ModuleType],
) -> None:
    peers = benchmark("peers")
    assert peers.version("no_such_package_anywhere") is None
    found = peers.in_own_process(math.sqrt, 1, "text")
    assert found["missing"].startswith("failed: TypeError")


def test_each_change_of_the_study_changes_something(benchmark: Callable[[str], ModuleType]) -> None:
    study, problems = benchmark("study_cases"), benchmark("problems")
    wanted = ("as it is", "potential at every step", "every solve from zero")
    wanted = (*wanted, "forward Euler, no super-time-stepping")
    rows = {}
    for variant in study.VARIANTS:
        if variant.name in wanted:
            problem = problems.shortened(problems.demo_problem(16, variant.overrides), 0.5)
            rows[variant.name] = study.row_of(problem, select("cpu", 1), variant)
    default, *_, euler = (rows[name] for name in wanted)
    assert euler["heat_evaluations"] == euler["time_steps"]
    assert default["heat_evaluations"] >= 2 * default["time_steps"]
    cold, often = rows["every solve from zero"], rows["potential at every step"]
    assert cold["potential_iterations"] > default["potential_iterations"]
    assert often["potential_solves"] > default["potential_solves"]
    # 8 mm cells say nothing about truth, but no algorithm may change what is computed by much
    assert max(row["highest_temperature"] for row in rows.values()) == pytest.approx(
        min(row["highest_temperature"] for row in rows.values()), abs=1.0
    )


def test_the_document_shows_its_record(benchmark: Callable[[str], ModuleType]) -> None:
    assert benchmark("report").main(["--check"]) == 0


def test_tables_and_pictures_come_from_a_record(
    record: dict[str, Any], benchmark: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    report, plots = benchmark("report"), benchmark("plots")
    joined = report.merged([record])
    text = report.filled(report.DOCUMENT.read_text(), joined)
    triad = next(q for q in record["cases"]["triad"]["quantities"] if q["name"] == "triad")
    assert f"{triad['median']:.3g} GB/s" in text
    assert "`advance_damage`" in text or "`next_stage`" in text
    # targets hold at full size only: a small run meets none
    assert report.figures_table(joined).count("unmeasured") == len(benchmark("targets").FIGURES)
    rows = [
        {
            "edge": 16,
            "cells": 16**3,
            "heat_rate": 1e8,
            "cold_seconds": 0.1,
            "iterations": 9,
            "bytes_per_cell": None,
        },
        {
            "edge": 32,
            "cells": 32**3,
            "heat_rate": 2e8,
            "cold_seconds": 0.2,
            "iterations": 9,
            "bytes_per_cell": 90.0,
        },
    ]
    grown = {"growth": {"quantities": [], "details": {"rows": rows}}}
    assert plots.draw(grown, tmp_path) == ["performance_growth.png"]
    assert (tmp_path / "performance_growth.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="run the benchmark again"):
        report.merged([{"format": "thermosim-benchmark/1"}])


def test_figures_are_ratios_to_their_targets(benchmark: Callable[[str], ModuleType]) -> None:
    figures = benchmark("targets")
    rows = [
        {"peer": "thermosim", "seconds": 4.0},
        {
            "peer": "Numba + Jacobi-PCG",
            "seconds": 60.0,
            "tolerance": 1e-4,
            "extrapolated": False,
            "zone_volume_ml": 51.0,
        },
        {
            "peer": "Numba + PyAMG",
            "seconds": 200.0,
            "tolerance": 1e-6,
            "extrapolated": True,
            "simulated_seconds": 60.0,
            "zone_volume_ml": None,
        },
    ]
    found = {
        figure.name: finding
        for figure, finding in figures.findings(
            {"ablation_peers": {"quantities": [], "details": {"rows": rows}}}
        )
    }
    fast = found["against Numba and warm matrix-free Jacobi-PCG at 1e-4"]
    slow = found["against Numba and PyAMG at 1e-6"]
    assert (fast.ratio, fast.met) == (60.0 / 4.0 / 12.0, True)
    assert "zone 51.0 ml" in fast.value
    assert (slow.ratio, slow.met) == (200.0 / 4.0 / 100.0, False)
    assert "scaled up from 60 s" in slow.value
    assert sum(finding is not None for finding in found.values()) == 2
