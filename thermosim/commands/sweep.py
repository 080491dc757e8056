"""The jobs of a sweep side by side: worker processes on the cores, or one for each GPU with its cases joined.

What a job leaves does not depend on its neighbours or on the number of threads: it is what the job leaves
when it is run by itself.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thermosim.build import Anatomies, Case, Result, lay_out_box, way_on
from thermosim.checks import GIGABYTE, free_memory
from thermosim.commands.application import STOPPED, Job, explain, say
from thermosim.commands.simulate import _run, saved, simulated
from thermosim.errors import BackendError, Interrupted, ThermosimError
from thermosim.interrupts import at_once, held_back, let_through, note, noted
from thermosim.resources import available_cores

if TYPE_CHECKING:
    from thermosim.backends import Backend


DEAD = "a worker of the sweep died, perhaps for want of memory; use a coarser grid, or more backend.threads"


@dataclass(frozen=True)
class Plan:
    """How jobs of one backend run: worker processes, threads of each, cases joined in each (GPU)."""

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
    with a checkpoint, and no other begins; those count as stopped. A second one breaks off what runs.
    """
    waiting = [_Task(job.number, case, job.directory, job.label) for job, case in jobs]
    codes: dict[int, int] = {}
    kinds: dict[tuple[str, int, int], list[_Task]] = {}
    for task in waiting:
        backend = task.case.config.backend
        kinds.setdefault((backend.name, backend.threads, backend.device), []).append(task)
    stopped = [False]
    with contextlib.suppress(KeyboardInterrupt), noted(stopped, breaks=False):
        for tasks in kinds.values():
            if stopped[0]:
                break
            for ended in _run_all(tasks, stopped):
                with noted(stopped, breaks=False):  # whatever runs joined in this process would have
                    codes[ended.task.number] = ended.code
                    _tell(ended)
    left = [task for task in waiting if task.number not in codes]
    if left:
        names = ", ".join(str(task.number) for task in left)
        print(f"thermosim: stopped; not begun: job {names}", file=sys.stderr, flush=True)
    for task in left:
        codes[task.number] = STOPPED
        with contextlib.suppress(OSError):
            task.directory.rmdir()
    return codes


def _tell(ended: _Ended) -> None:
    if ended.code:
        print(f"thermosim: error: {ended.task.label}{ended.reason}", file=sys.stderr, flush=True)
    else:
        say(iter(ended.lines), ended.task.label)
    with contextlib.suppress(OSError):
        ended.task.directory.rmdir()  # only if nothing was written


def plan_of(cases: Sequence[Case]) -> Plan:
    """How to run cases of one backend.

    On the processor as many side by side as there are cores (over `backend.threads`, if it is given) and
    memory, and as have enough to do, each with its share of the threads; on GPUs a worker for each, with as
    many cases as fit if all are as large as the largest. A case that is refused has no size: it says so when
    its turn comes.
    """
    from thermosim.backends import n_devices, select
    from thermosim.batch import as_many_as_fit, memory_of_worker, most_workers
    from thermosim.simulation import device_memory, estimate_memory

    backend = cases[0].config.backend
    device = select(backend.name, backend.threads, max(0, backend.device))
    cores = available_cores()
    if device.name == "cuda":
        workers = min(n_devices("cuda"), len(cases))
        largest = max((device_memory(*box) for _, box in _boxes(cases)), default=0)
        free = memory_of_worker(device, workers)
        together = as_many_as_fit(largest, free) if largest and free is not None else 1
        threads = backend.threads or max(1, cores // workers)
        return Plan(workers, threads, min(together, -(-len(cases) // workers)))
    boxes = list(_boxes(cases))
    largest = max((math.prod(shape) for _, (shape, _) in boxes), default=0)
    workers = min(most_workers(len(cases), largest), max(1, cores // max(1, backend.threads)))
    for case, box in boxes:
        limit = case.config.solver.memory_limit_gb
        available = free_memory() if limit is None else int(limit * GIGABYTE)
        if available is not None:
            workers = min(workers, max(1, available // estimate_memory(*box)))
    return Plan(workers, backend.threads or max(1, cores // workers), 1)


def _boxes(cases: Sequence[Case]) -> Iterator[tuple[Case, tuple[tuple[int, int, int], int]]]:
    """Cases of different size that can be laid out, with cells and electrodes of each."""
    shared, known = _Shared(), set()
    for case in cases:
        config = case.config
        limit = config.solver.memory_limit_gb
        key = repr((config.grid, config.anatomy, config.layout, config.applicators, limit))
        if key not in known:
            with contextlib.suppress(ThermosimError):
                box = lay_out_box(case, shared.of(case))
                known.add(key)
                yield case, box


def _run_all(tasks: Sequence[_Task], stopped: list[bool]) -> Iterator[_Ended]:
    """Jobs of one backend, as they end."""
    from thermosim.backends import choice, select

    backend = tasks[0].case.config.backend
    try:
        plan = plan_of([task.case for task in tasks])
        if plan.workers == 1 and plan.together == 1:
            yield from _one_by_one(tasks, stopped)
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
        yield from _counted(tasks, _joined(tasks, here, plan.together, _Shared(), stopped))
        return
    yield from _counted(tasks, _in_workers(tasks, plan, stopped))


def _counted(tasks: Sequence[_Task], endings: Iterator[_Ended]) -> Iterator[_Ended]:
    """A bar that counts jobs, on a terminal only."""
    from tqdm import tqdm

    hidden = not tasks[0].case.config.output.progress or not sys.stderr.isatty()
    with tqdm(total=len(tasks), disable=hidden, desc="sweep", unit="job") as bar:
        for ended in endings:
            bar.clear()
            yield ended  # whose lines are printed now
            bar.update()


def _one_by_one(tasks: Sequence[_Task], stopped: list[bool]) -> Iterator[_Ended]:
    """Here, each with all threads and a progress bar."""
    shared = _Shared()
    for task in tasks:
        if stopped[0]:
            return
        anatomies = shared.of(task.case)
        ended = _Ended(task)
        try:
            with at_once():
                _run(task.case, task.directory, label=task.label, turn=task.number, anatomies=anatomies)
        except KeyboardInterrupt:
            ended = _stopped(task)
        except Exception as error:
            code, reason = _explained(error)
            ended = _Ended(task, code=code, reason=reason)
        stopped[0] |= ended.code == STOPPED
        yield ended


def _stopped(task: _Task) -> _Ended:
    return _Ended(task, code=STOPPED, reason=f"stopped; {way_on(task.directory)}")


def _in_workers(tasks: Sequence[_Task], plan: Plan, stopped: list[bool]) -> Iterator[_Ended]:
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
    code, reason = explain(BackendError(DEAD))
    dead = False
    try:
        while True:
            while waiting and len(running) < plan.workers and not (dead or stopped[0]):
                try:  # none is handed over before its turn
                    with held_back():
                        running[pool.submit(_work, waiting[0])] = waiting[0]
                    waiting.popleft()
                except BrokenProcessPool:
                    dead = True
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                lot = running.pop(future)
                try:
                    yield from future.result()
                except BrokenProcessPool:
                    dead = True
                    for task in lot:
                        how = f"{reason}; {way_on(task.directory)}"
                        yield _stopped(task) if stopped[0] else _Ended(task, code=code, reason=how)
        if not stopped[0]:
            for lot in waiting:
                yield from (_Ended(task, code=code, reason=f"not begun: {reason}") for task in lot)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


# ---------------------------------------------------------------------------- in a worker

_worker: dict[str, Any] = {}


def _begin(ranks: Any, name: str, plan: Plan) -> None:
    """Make a worker ready: its device for good, and what its cases share."""
    from thermosim.backends import n_devices, select

    stopped = [False]
    note(stopped)
    let_through()
    _worker.update(stopped=stopped, together=plan.together, shared=_Shared())
    try:
        rank = ranks.get()
        backend = select(name, plan.threads, rank % n_devices(name) if name == "cuda" else 0)
    except Exception as error:  # raised here it would be lost with the worker
        _worker["error"] = error
    else:
        backend.threads, backend.interrupted = plan.threads, stopped
        _worker["backend"] = backend


def _work(lot: Sequence[_Task]) -> list[_Ended]:
    """Run some jobs to their outputs; those that are not begun are left out."""
    if _worker["stopped"][0]:
        return []
    if "error" in _worker:
        code, reason = _explained(_worker["error"])
        return [_Ended(task, code=code, reason=reason) for task in lot]
    found: list[_Ended] = []
    with contextlib.suppress(KeyboardInterrupt), noted(_worker["stopped"]):  # a second one breaks off
        found.extend(
            _joined(lot, _worker["backend"], _worker["together"], _worker["shared"], _worker["stopped"])
        )
    return found


def _joined(
    tasks: Sequence[_Task], device: Backend, together: int, shared: _Shared, stopped: list[bool]
) -> Iterator[_Ended]:
    """Simulate jobs, so many at a time on one device, and write the outputs of each as it ends."""
    from thermosim.backends.joined import Conductor

    begun: dict[int, _Task] = {}

    def work(task: _Task, backend: Backend) -> Result:
        begun[task.number] = task
        return simulated(task.case, task.directory, backend=backend, anatomies=shared.of(task.case))

    works = [partial(work, task) for task in tasks]
    endings = (
        _alone(works, device) if together == 1 else Conductor[Result](device, stopped).run(works, together)
    )
    try:
        for number, result, failed in endings:
            task = tasks[number]
            try:
                if failed is not None:
                    raise failed
                assert result is not None
                ended = _Ended(task, tuple(saved(result, task.directory)))
            except Exception as error:
                code, reason = _explained(error)
                ended = _Ended(task, code=code, reason=reason)
            del begun[task.number]
            yield ended
    except Interrupted:
        pass  # none of those that are left has begun
    except KeyboardInterrupt:
        yield from map(_stopped, begun.values())


def _alone(
    works: Sequence[Callable[[Backend], Result]], device: Backend
) -> Iterator[tuple[int, Result | None, Exception | None]]:
    """As a conductor's run, one after another."""
    for number, work in enumerate(works):
        try:
            found = work(device)
        except Exception as error:
            yield number, None, error
        else:
            yield number, found, None


def _explained(error: Exception) -> tuple[int, str]:
    if os.environ.get("THERMOSIM_DEBUG") == "1" and not isinstance(error, ThermosimError):
        raise error
    return explain(error)
