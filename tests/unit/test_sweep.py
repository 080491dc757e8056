"""Jobs of a sweep side by side leave what they leave alone, and one that fails stops no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from thermosim import cli
from thermosim.backends.cpu import CpuBackend
from thermosim.build import load_case
from thermosim.commands import sweep
from thermosim.commands.sweep import Plan, plan_of

WORDS = [
    "grid.spacing_mm=5",
    "grid.size_mm=[80,80,80]",
    "grid.center_mm=[0,0,0]",
    "anatomy=block",
    "anatomy.tumors=[{diameter_mm:20}]",
    "protocol=one_minute",
    "protocol.segments.0.duration_min=0.1",
    "protocol.cooling_after_min=0",
    "output=minimal",
    "backend=cpu",
]


def simulate(*words: str) -> int:
    return cli.main(["simulate", *WORDS, *words])


def fields(directory: Path) -> dict[str, Any]:
    found = {}
    with h5py.File(directory / "result.h5") as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
        )
    return found


def assert_same(one: Path, other: Path) -> None:
    """All fields and traces, bit for bit."""
    expected, found = fields(one), fields(other)
    assert set(expected) == set(found)
    assert any(values.ndim == 3 for values in expected.values() if isinstance(values, np.ndarray))
    for name, values in expected.items():
        if isinstance(values, np.ndarray) and values.dtype.kind == "f":
            assert np.array_equal(values, found[name], equal_nan=True), name
    assert {path.name for path in one.iterdir()} == {path.name for path in other.iterdir()}


@pytest.fixture
def two_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "plan_of", lambda cases: Plan(2, 1, 1))


def test_jobs_side_by_side_are_what_they_are_alone(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, two_workers: None
) -> None:
    code = simulate("-m", "layout.pattern_spacing_mm=18,190,24", f"output.directory={tmp_path / 'all'}")
    out, err = capfd.readouterr()
    assert code == 2
    (line,) = err.strip().splitlines()
    assert line.startswith("thermosim: error: job 1: ")
    assert "beyond the computing box" in line
    assert "3 jobs, 2 at a time; backend cpu" in out
    for job, spacing in ((0, 18), (2, 24)):
        assert f"job {job}: outputs: {tmp_path / 'all' / str(job)}" in out
        assert simulate(f"layout.pattern_spacing_mm={spacing}", f"output.directory={tmp_path / 'one'}") == 0
        assert_same(tmp_path / "one", tmp_path / "all" / str(job))
    assert not (tmp_path / "all" / "1").exists()  # nothing was written there


def test_a_job_that_fails_numerically_keeps_its_directory_and_the_worst_is_the_first(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, two_workers: None
) -> None:
    words = ("-m", "solver.maximum_iterations=1,200,-1", f"output.directory={tmp_path}")
    assert simulate(*words) == 3  # of the first job that failed
    _, err = capfd.readouterr()
    refused, failed = sorted(err.strip().splitlines(), key=lambda line: "job 0" in line)
    assert refused.startswith("thermosim: error: job 2: solver.maximum_iterations=-1")
    assert failed.startswith("thermosim: error: job 0: at 0.00 s: the potential did not converge")
    assert failed.endswith(f"what exists is kept in {tmp_path / '0'}")
    assert (tmp_path / "0" / "resume.yaml").exists()
    assert (tmp_path / "1" / "summary.json").exists()
    assert not (tmp_path / "2").exists()


def test_one_at_a_time_shares_the_anatomy_too(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "plan_of", lambda cases: Plan(1, 1, 1))
    seen = []
    monkeypatch.setattr(sweep, "_run", lambda case, directory, **given: seen.append(given["anatomies"]))
    assert simulate("-m", "protocol.generator.power=20,30", f"output.directory={tmp_path / 'a'}") == 0
    assert simulate("-m", "grid.spacing_mm=5,4", f"output.directory={tmp_path / 'b'}") == 0
    first, second, other, finer = seen
    assert first is second
    assert other is not finer


class Gpu(CpuBackend):
    """A device on which cases are joined."""

    joined = 0

    def launch_together(self, signature: Any, extents: Any, cases: Any) -> None:
        Gpu.joined = max(Gpu.joined, len(cases))
        super().launch_together(signature, extents, cases)


def test_jobs_joined_on_one_device_write_their_outputs(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "plan_of", lambda cases: Plan(1, 0, 2))
    monkeypatch.setattr("thermosim.backends.select", lambda *_: Gpu(1))
    words = ("-m", "layout.pattern_spacing_mm=18,20,190", f"output.directory={tmp_path}")
    assert simulate(*words) == 2
    out, err = capfd.readouterr()
    assert "3 jobs, 2 joined on one GPU" in out
    assert len(err.strip().splitlines()) == 1
    assert Gpu.joined == 2
    for job in ("0", "1"):
        assert (tmp_path / job / "summary.json").exists()
        assert not (tmp_path / job / "resume.yaml").exists()


def test_how_many_run_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    case = load_case("demo", WORDS)
    assert plan_of([case] * 20) == Plan(8, 1, 1)
    assert plan_of([case] * 3) == Plan(3, 2, 1)
    assert plan_of([case]) == Plan(1, 8, 1)
    assert plan_of([load_case("demo", [*WORDS, "backend.threads=4"])] * 20) == Plan(2, 4, 1)
    tight = load_case("demo", [*WORDS, "solver.memory_limit_gb=0.8"])
    assert plan_of([tight] * 20).workers == 3  # Python alone takes a quarter of a gigabyte


@pytest.mark.skipif(os.name != "posix", reason="process groups")
def test_ctrl_c_stops_all_jobs_and_says_how_to_go_on(tmp_path: Path) -> None:
    words = [*WORDS, "protocol.segments.0.duration_min=240", "protocol.generator.power=1,2,3,4"]
    script = (
        "import sys; from thermosim import cli; from thermosim.commands import sweep\n"
        "if __name__ == '__main__':\n"
        "    sweep.plan_of = lambda cases: sweep.Plan(2, 1, 1)\n"
        "    sys.exit(cli.main(sys.argv[1:]))\n"
    )
    file = tmp_path / "run.py"  # workers import the main module
    file.write_text(script)
    command = [sys.executable, str(file), "simulate", "-m", *words, f"output.directory={tmp_path / 'out'}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    begun = [tmp_path / "out" / job / "resume.yaml" for job in ("0", "1")]
    deadline = time.monotonic() + 120
    while not all(path.exists() for path in begun) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2.0)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    lines = [line for line in err.splitlines() if line.startswith("thermosim:")]
    assert len(lines) == 3, err
    for job in ("0", "1"):
        (line,) = [line for line in lines if f"job {job}: stopped" in line]
        assert f"resume={tmp_path / 'out' / job}" in line or "start it again" in line
    assert lines[-1] == "thermosim: stopped; not begun: job 2, 3"
    assert not (tmp_path / "out" / "2").exists()
