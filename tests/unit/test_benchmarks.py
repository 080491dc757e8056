"""The benchmarks run, keep what they found, and count memory traffic as a reader of the kernels would.

No time is asserted anywhere: what a machine reaches is for `benchmarks/run.py` to print.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from thermosim.backends import select
from thermosim.backends.base import Layout, kernel_digest, kernel_signatures

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import launches as module  # type: ignore[import-not-found]

    return module


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All cases at the smallest size, as the command leaves them."""
    folder = tmp_path_factory.mktemp("benchmarks")
    words = ["--size", "16", "--repeats", "1", "--threads", "1", "--output", str(folder)]
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
    assert set(record["cases"]) == {
        "triad",
        "demo",
        "memory",
        "heat_step",
        "heat_step_boiling",
        "potential",
    }
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
    total = parts.pop("solver")
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
