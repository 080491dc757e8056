"""Jobs of a sweep side by side leave what they leave alone, and one that fails stops no other."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from thermosim import cli
from thermosim.backends.cpu import CpuBackend
from thermosim.build import load_case
from thermosim.commands import sweep
from thermosim.commands.application import Job
from thermosim.commands.sweep import Plan, plan_of
from thermosim.errors import BackendError
from thermosim.simulation import device_memory

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
    assert plan_of([case] * 24) == Plan(8, 1, 1)
    assert plan_of([case] * 9) == Plan(3, 2, 1)
    assert plan_of([case] * 5) == Plan(1, 8, 1)  # small cases: workers take longer to start
    assert plan_of([case]) == Plan(1, 8, 1)
    assert plan_of([load_case("demo", [*WORDS, "backend.threads=4"])] * 20) == Plan(2, 4, 1)
    tight = load_case("demo", [*WORDS, "solver.memory_limit_gb=0.8"])
    assert plan_of([tight] * 20).workers == 3  # Python alone takes a quarter of a gigabyte


def test_on_a_gpu_the_largest_case_that_is_not_refused_tells_how_many_are_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = Gpu(1)
    device.name = "cuda"
    free = [10**12]
    monkeypatch.setattr(device, "free_memory", lambda: free[0])
    monkeypatch.setattr("thermosim.backends.select", lambda *_: device)
    monkeypatch.setattr("thermosim.backends.n_devices", lambda _: 2)
    coarse, fine = load_case("demo", WORDS), load_case("demo", [*WORDS, "grid.spacing_mm=2.5"])
    refused = load_case("demo", [*WORDS, "grid.spacing_mm=20"])  # too few cells
    assert plan_of([refused] * 6).together == 1
    assert (plan_of([coarse] * 6).workers, plan_of([coarse] * 6).together) == (2, 3)
    few = plan_of([coarse] * 100).together
    assert few == plan_of([refused, *[coarse] * 99]).together == 16
    box = ((32, 32, 32), 1)
    free[0] = 4 * device_memory(*box)
    assert plan_of([fine] * 100).together < plan_of([coarse] * 100).together
    assert plan_of([refused, coarse, fine] * 30).together == plan_of([fine] * 100).together


def jobs(directory: Path, n: int) -> list[tuple[Job, Any]]:
    case = load_case("demo", WORDS)
    made = []
    for number in range(n):
        path = directory / str(number)
        path.mkdir()
        settings: Any = None
        made.append((Job(settings, path, f"job {number}: ", True, number), case))
    return made


class Dies:
    """A pool whose worker dies with the first job, and which takes no second."""

    def __init__(self, *_: Any) -> None:
        self.n = 0

    def submit(self, *_: Any) -> Future[Any]:
        self.n += 1
        if self.n > 1:
            raise BrokenProcessPool
        future: Future[Any] = Future()
        future.set_exception(BrokenProcessPool())
        return future

    def shutdown(self, **_: Any) -> None:
        pass


def test_jobs_that_wait_when_a_worker_dies_fail_as_not_begun(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, two_workers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "ProcessPoolExecutor", Dies)
    assert sweep.run_sweep(jobs(tmp_path, 3)) == {0: 2, 1: 2, 2: 2}
    lines = capfd.readouterr().err.strip().splitlines()
    assert "job 0: a worker of the sweep died" in lines[0]
    assert lines[0].endswith("there is no checkpoint yet, start it again")
    for number in (1, 2):
        assert f"job {number}: not begun: a worker of the sweep died" in lines[number]


def test_a_worker_that_cannot_begin_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: Any) -> Any:
        raise BackendError("no device today")

    monkeypatch.setattr("thermosim.backends.select", nothing)
    monkeypatch.setattr(sweep, "_worker", {})
    before = signal.getsignal(signal.SIGINT)
    ranks: queue.SimpleQueue[int] = queue.SimpleQueue()
    ranks.put(0)
    try:
        sweep._begin(ranks, "cpu", Plan(2, 1, 1))
    finally:
        signal.signal(signal.SIGINT, before)
    lot = [sweep._Task(job.number, case, job.directory, job.label) for job, case in jobs(tmp_path, 1)]
    (ended,) = sweep._work(lot)
    assert (ended.code, ended.reason) == (2, "no device today")
    sweep._worker["stopped"][0] = True
    assert sweep._work(lot) == []


def test_ctrl_c_while_an_ending_is_told_loses_no_other(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endings(tasks: Any, _stopped: list[bool]) -> Any:
        for task in tasks[:2]:
            yield sweep._Ended(task, code=130, reason="stopped; go on")

    tell = sweep._tell

    def interrupted(ended: Any) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        tell(ended)

    monkeypatch.setattr(sweep, "_run_all", endings)
    monkeypatch.setattr(sweep, "_tell", interrupted)
    assert sweep.run_sweep(jobs(tmp_path, 3)) == {0: 130, 1: 130, 2: 130}
    err = capfd.readouterr().err
    assert "job 0: stopped; go on" in err
    assert "job 1: stopped; go on" in err
    assert "not begun: job 2" in err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


SCRIPT = (
    "import sys; from thermosim import cli; from thermosim.commands import sweep\n"
    "if __name__ == '__main__':\n"
    "    sweep.plan_of = lambda cases: sweep.Plan(2, 1, 1)\n"
    "    sys.exit(cli.main(sys.argv[1:]))\n"
)


@pytest.mark.skipif(os.name != "posix", reason="process groups")
@pytest.mark.parametrize("delay", [0.05, 0.6])
def test_ctrl_c_while_workers_start_begins_nothing(tmp_path: Path, delay: float) -> None:
    words = [*WORDS, "protocol.segments.0.duration_min=240", "protocol.generator.power=1,2,3"]
    file = tmp_path / "run.py"
    file.write_text(SCRIPT)
    command = [sys.executable, str(file), "simulate", "-m", *words, f"output.directory={tmp_path / 'out'}"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert any("2 at a time" in line for line in process.stdout)
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "died" not in err
    assert "not begun: job" in err.splitlines()[-1]


@pytest.mark.skipif(os.name != "posix", reason="process groups")
def test_ctrl_c_stops_all_jobs_and_says_how_to_go_on(tmp_path: Path) -> None:
    words = [*WORDS, "protocol.segments.0.duration_min=240", "solver.maximum_time_step=0.3"]
    words += ["protocol.generator.power=1,2,3,4"]
    file = tmp_path / "run.py"  # workers import the main module
    file.write_text(SCRIPT)
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
