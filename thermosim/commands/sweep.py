"""The jobs of a sweep side by side: worker processes on the cores, or one for each GPU with its cases joined.

What a job leaves does not depend on its neighbours or on the number of threads: it is what the job leaves
when it is run by itself.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thermosim.build import Anatomies, Case, Result, lay_out_box
from thermosim.checks import GIGABYTE, free_memory
from thermosim.commands.application import STOPPED, Job, explain, say
from thermosim.commands.simulate import _run, saved, simulated
from thermosim.errors import BackendError, Interrupted, ThermosimError

if TYPE_CHECKING:
    from thermosim.backends import Backend


DEAD = "a worker of the sweep died, perhaps for want of memory; use a coarser grid, or more backend.threads"


@dataclass(frozen=True)
class Plan:
    """How jobs of one backend run: worker processes, threads of each (CPU), cases joined in each (GPU)."""

    workers: int
    threads: int
    together: int


@dataclass(frozen=True)
class _Task:
    number: int
    case: Case
    directory: Path
    label: str


@dataclass(frozen=True)
class _Ended:
    """A job that is over: its lines, or its exit code and why."""

    task: _Task
    lines: tuple[str, ...] = ()
    code: int = 0
    reason: str = ""


class _Shared:
    """The anatomy on the grid of the last case, for those that follow with the same; older ones are gone."""

    def __init__(self) -> None:
        self._key, self._anatomies = "", Anatomies()

    def of(self, case: Case) -> Anatomies:
        key = repr((case.config.anatomy, case.config.grid))
        if key != self._key:
            self._key, self._anatomies = key, Anatomies()
        return self._anatomies


def run_sweep(jobs: Sequence[tuple[Job, Case]]) -> dict[int, int]:
    """Run all jobs, each into its own directory; their exit codes by number.

    A job that fails says so in one line and stops no other. Ctrl-C ends those that run at their next step,
    with a checkpoint, and no other begins; those count as stopped.
    """
    waiting = [_Task(job.number, case, job.directory, job.label) for job, case in jobs]
    codes: dict[int, int] = {}
    kinds: dict[tuple[str, int, int], list[_Task]] = {}
    for task in waiting:
        backend = task.case.config.backend
        kinds.setdefault((backend.name, backend.threads, backend.device), []).append(task)
    try:
        for tasks in kinds.values():
            for ended in _run_all(tasks):
                codes[ended.task.number] = ended.code
                if ended.code:
                    print(f"thermosim: error: {ended.task.label}{ended.reason}", file=sys.stderr, flush=True)
                else:
                    say(iter(ended.lines), ended.task.label)
                with contextlib.suppress(OSError):
                    ended.task.directory.rmdir()  # only if nothing was written
    except KeyboardInterrupt:
        pass
    left = [task for task in waiting if task.number not in codes]
    if left:
        names = ", ".join(str(task.number) for task in left)
        print(f"thermosim: stopped; not begun: job {names}", file=sys.stderr, flush=True)
    for task in left:
        codes[task.number] = STOPPED
        with contextlib.suppress(OSError):
            task.directory.rmdir()
    return codes


def plan_of(cases: Sequence[Case]) -> Plan:
    """How to run cases of one backend.

    On the processor as many side by side as there are cores (over `backend.threads`, if it is given) and
    memory, each with its share of the threads; on GPUs a worker for each.
    """
    from thermosim.backends import n_devices, select
    from thermosim.batch import n_together
    from thermosim.simulation import estimate_memory

    backend = cases[0].config.backend
    device = select(backend.name, backend.threads, max(0, backend.device))
    if device.name == "cuda":
        workers = min(n_devices("cuda"), len(cases))
        return Plan(workers, 0, min(n_together(cases[0], 0, workers), -(-len(cases) // workers)))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(len(cases), max(1, cores // max(1, backend.threads)))
    grids = {repr(case.config.grid): case for case in cases}
    for case in grids.values():
        with contextlib.suppress(ThermosimError):  # it is refused when its turn comes
            limit = case.config.solver.memory_limit_gb
            available = free_memory() if limit is None else int(limit * GIGABYTE)
            if available is not None:
                workers = min(workers, max(1, available // estimate_memory(*lay_out_box(case))))
    return Plan(workers, backend.threads or max(1, cores // workers), 1)


def _run_all(tasks: Sequence[_Task]) -> Iterator[_Ended]:
    """Jobs of one backend, as they end."""
    from thermosim.backends import choice, select

    backend = tasks[0].case.config.backend
    try:
        plan = plan_of([task.case for task in tasks])
        if plan.workers == 1 and plan.together == 1:
            yield from _one_by_one(tasks)
            return
        here = select(backend.name, plan.threads, max(0, backend.device))
    except ThermosimError as error:
        code, reason = explain(error)
        yield from (_Ended(task, code=code, reason=reason) for task in tasks)
        return
    how = f"{plan.workers} at a time" if plan.workers > 1 else f"{plan.together} joined on one GPU"
    if plan.workers > 1 and plan.together > 1:
        how = f"{plan.together} joined on each of {plan.workers} GPUs"
    say(iter([f"{len(tasks)} jobs, {how}; {choice(backend.name, here)}"]))
    if plan.workers == 1:
        yield from _counted(tasks, _joined(tasks, here, plan.together, _Shared()))
        return
    yield from _counted(tasks, _in_workers(tasks, plan))


def _counted(tasks: Sequence[_Task], endings: Iterator[_Ended]) -> Iterator[_Ended]:
    """A bar that counts jobs, on a terminal only."""
    from tqdm import tqdm

    hidden = not tasks[0].case.config.output.progress or not sys.stderr.isatty()
    with tqdm(total=len(tasks), disable=hidden, desc="sweep", unit="job") as bar:
        for ended in endings:
            bar.clear()
            yield ended  # whose lines are printed now
            bar.update()


def _one_by_one(tasks: Sequence[_Task]) -> Iterator[_Ended]:
    """Here, each with all threads and a progress bar."""
    shared = _Shared()
    for task in tasks:
        try:
            anatomies = shared.of(task.case)
            _run(task.case, task.directory, label=task.label, turn=task.number, anatomies=anatomies)
        except Exception as error:
            code, reason = _explained(error)
            yield _Ended(task, code=code, reason=reason)
            if code == STOPPED:
                raise KeyboardInterrupt from None
        else:
            yield _Ended(task)


def _in_workers(tasks: Sequence[_Task], plan: Plan) -> Iterator[_Ended]:
    waiting = deque(
        tuple(tasks[first : first + plan.together]) for first in range(0, len(tasks), plan.together)
    )
    running: dict[Future[list[_Ended]], tuple[_Task, ...]] = {}
    context = multiprocessing.get_context("spawn")  # a fork would share OpenMP's threads
    ranks = context.SimpleQueue()
    for rank in range(plan.workers):
        ranks.put(rank)
    name = tasks[0].case.config.backend.name
    pool = ProcessPoolExecutor(plan.workers, context, _begin, (ranks, name, plan))
    stopped = False
    try:
        while waiting or running:
            try:
                while waiting and len(running) < plan.workers:  # none is handed over before its turn
                    lot = waiting.popleft()
                    running[pool.submit(_work, lot)] = lot
                done = wait(running, return_when=FIRST_COMPLETED).done
            except KeyboardInterrupt:
                if stopped:
                    raise
                stopped = True  # those that run stop by themselves, and say how to go on
                waiting.clear()
                continue
            for future in done:
                lot = running.pop(future)
                try:
                    yield from future.result()
                except BrokenProcessPool:
                    waiting.clear()
                    code, reason = explain(BackendError(DEAD))
                    yield from (_Ended(task, code=code, reason=reason) for task in lot)
        if stopped:
            raise KeyboardInterrupt
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


# ---------------------------------------------------------------------------- in a worker

_worker: dict[str, Any] = {}


def _begin(ranks: Any, name: str, plan: Plan) -> None:
    """Make a worker ready: its device for good, and what its cases share."""
    from thermosim.backends import n_devices, select

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # but for the time of a job
    rank = ranks.get()
    device = rank % n_devices(name) if name == "cuda" else 0
    _worker.update(backend=select(name, plan.threads, device), together=plan.together, shared=_Shared())


def _work(lot: Sequence[_Task]) -> list[_Ended]:
    """Run some jobs to their outputs."""
    found: list[_Ended] = []
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        found.extend(_joined(lot, _worker["backend"], _worker["together"], _worker["shared"]))
    except KeyboardInterrupt:
        pass  # the other half knows, and asks for no more
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return found


def _joined(tasks: Sequence[_Task], device: Backend, together: int, shared: _Shared) -> Iterator[_Ended]:
    """Simulate jobs, so many at a time on one device, and write the outputs of each as it ends."""
    from thermosim.backends.joined import Conductor

    def work(task: _Task, backend: Backend) -> Result:
        return simulated(task.case, task.directory, backend=backend, anatomies=shared.of(task.case))

    works = [partial(work, task) for task in tasks]
    if together == 1:
        for task, run in zip(tasks, works, strict=True):
            try:
                yield _Ended(task, tuple(saved(run(device), task.directory)))
            except Exception as error:
                code, reason = _explained(error)
                yield _Ended(task, code=code, reason=reason)
        return
    try:
        for number, result, failed in Conductor[Result](device).run(works, together):
            try:
                if failed is not None:
                    raise failed
                assert result is not None
                yield _Ended(tasks[number], tuple(saved(result, tasks[number].directory)))
            except Exception as error:
                code, reason = _explained(error)
                yield _Ended(tasks[number], code=code, reason=reason)
    except Interrupted:
        raise KeyboardInterrupt from None


def _explained(error: Exception) -> tuple[int, str]:
    if os.environ.get("THERMOSIM_DEBUG") == "1" and not isinstance(error, ThermosimError):
        raise error
    return explain(error)
