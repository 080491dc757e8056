"""Many cases at once: anatomy laid on the grid once, cases spread over processor cores or GPUs.

On the processor each case runs on one thread (`backend.threads`) in a worker process; small cases keep every
core busy that way, without waiting for each other in every loop. A few small cases are not worth the start of
workers and run here, one after another with all threads. Each GPU gets a process pinned to it, in
which several cases share launches and waits (`backends/joined.py`), though each chooses its own time steps.
What a case returns does not depend on its neighbours or on the number of threads: it is bit for bit what
`simulate` returns.
"""

from __future__ import annotations

import math
import multiprocessing
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from thermosim.anatomy.anatomy import Anatomy, TriangleSurface
from thermosim.build import Anatomies, Case, Result, build_problem, lay_out
from thermosim.errors import BackendError, InputError, Interrupted, ThermosimError
from thermosim.interrupts import held_back, let_through, note
from thermosim.outcome.criteria import CRITERIA
from thermosim.resources import available_cores

if TYPE_CHECKING:
    from thermosim.backends.base import Backend
    from thermosim.outcome.results import Outcome
    from thermosim.simulation import Problem, SimulationResult

Kept = TypeVar("Kept")

Keep = Callable[["SimulationResult", "Outcome"], Kept]
"""What to keep of a case, computed beside it; a function of a module, so that workers can find it."""

QUEUED = 2
"""Cases made ready for each worker: the one it runs, and the next."""


@dataclass(frozen=True)
class Finished(Generic[Kept]):
    """One case of a batch that is done: its number, and what was kept or why it failed."""

    number: int
    kept: Kept | None
    error: ThermosimError | None
    anatomy: Anatomy | None = None


def simulate_batch(cases: Sequence[Case], *, workers: int = 0, together: int = 0) -> list[Result]:
    """Simulate many cases side by side; results in the order of the cases.

    Cases that differ in needles, tissue values or generator but share anatomy and grid share the work of
    laying it on the grid: give them the same `grid.size_mm` and `grid.center_mm`. Every result holds all
    its fields; `run_batch` keeps less.

    Parameters
    ----------
    cases : from `load_case`.
    workers : processes; 0: as many as cores (over `backend.threads`) or GPUs.
    together : cases that share launches on a GPU; 0: as many as fit, 16 at most.

    Raises
    ------
    ThermosimError
        The error of the first case that fails.
    """
    anatomies = Anatomies()
    surfaces: dict[int, dict[str, TriangleSurface]] = {}
    found: dict[int, Result] = {}
    for one in run_batch(cases, keep=_everything, workers=workers, together=together, anatomies=anatomies):
        if one.error is not None:
            raise one.error
        assert one.kept is not None
        run, outcome = one.kept
        source = anatomies.source(cases[one.number].config.anatomy)
        if id(source) not in surfaces:
            surfaces[id(source)] = source.display_surfaces()
        assert one.anatomy is not None
        whole = replace(run, anatomy=one.anatomy)
        found[one.number] = Result(cases[one.number], whole, outcome, surfaces[id(source)])
    return [found[number] for number in range(len(cases))]


def _everything(run: SimulationResult, outcome: Outcome) -> tuple[SimulationResult, Outcome]:
    return replace(run, anatomy=ELSEWHERE), outcome


ELSEWHERE: Any = None
"""Stands for an anatomy that the other side has already."""


def run_batch(
    cases: Iterable[Case],
    *,
    keep: Keep[Kept],
    workers: int = 0,
    together: int = 0,
    criteria: Sequence[str] = CRITERIA,
    anatomies: Anatomies | None = None,
) -> Iterator[Finished[Kept]]:
    """Simulate cases side by side, and yield each as it ends, in any order.

    A case that is refused or fails numerically is yielded with its error; the others go on. How many run
    together is told from the size of the first case that is not refused: the cases are taken to be alike.

    Parameters
    ----------
    cases : may be made while others run.
    keep : what is kept of each.
    workers : processes; 0: as many as cores (over `backend.threads`) or GPUs.
    together : cases that share launches on a GPU; 0: as many as fit, 16 at most.
    criteria : whose zones are computed beside the chosen one's.
    anatomies : shared with other batches of the same patient.

    Raises
    ------
    InputError, BackendError
        For a number of workers, or of cases together, that makes no sense or does not fit into memory; when a
        worker cannot begin or dies.
    """
    anatomies = anatomies or Anatomies()
    waiting = enumerate(cases)
    for first in waiting:
        try:
            lay_out(first[1], anatomies)
            break
        except ThermosimError as error:
            yield Finished(first[0], None, error)
    else:
        return
    backend = first[1].config.backend
    count = n_workers(first[1], workers, len(cases) if isinstance(cases, Sized) else None)
    each = n_together(first[1], together, count)
    jobs = _jobs(first, waiting, anatomies)
    if count == 1:
        from thermosim.backends import select

        here = select(backend.name, backend.threads, backend.device)
        yield from _run_here(here, jobs, each, partial(_run, keep=keep, criteria=criteria))
        return
    setting = (backend.name, max(1, backend.threads), backend.device)
    context = multiprocessing.get_context("spawn")  # a fork would share OpenMP's threads
    ranks = context.SimpleQueue()
    for rank in range(count):
        ranks.put(rank)
    pool = ProcessPoolExecutor(count, context, _begin, (ranks, setting, keep, tuple(criteria)))
    running: dict[Future[list[_Answer[Kept]]], list[_Job]] = {}
    more = True
    try:
        while more or running:
            while more and len(running) < QUEUED * count:
                lot: list[_Job] = []
                while more and len(lot) < each:
                    job_or_end = next(jobs, None)
                    if job_or_end is None:
                        more = False
                    elif isinstance(job_or_end, Finished):
                        yield job_or_end
                    else:
                        lot.append(job_or_end)
                if lot:
                    with held_back():
                        sent = pool.submit(_work, [(job.problem, job.token, job.packed) for job in lot], each)
                    running[sent] = lot
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                for job, (kept, failed) in zip(running.pop(future), future.result(), strict=True):
                    yield Finished(job.number, kept, failed, job.anatomy)
    except BrokenProcessPool as error:
        raise BackendError(
            "a worker of the batch died: for want of memory (use fewer workers or a coarser grid), or as "
            'the script that asks for the batch does so outside of if __name__ == "__main__":'
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


LEAST_CASES, SMALL_CELLS = 3, 500_000
"""A worker takes seconds to start: of cases of at most so many cells it should have so many to run."""


def most_workers(n_cases: int, n_cells: int) -> int:
    """Workers on the processor that have enough to do with so many cases of this size."""
    return n_cases if n_cells > SMALL_CELLS else max(1, n_cases // LEAST_CASES)


def n_workers(case: Case, wanted: int, n_cases: int | None = None) -> int:
    """Processes for a batch of `n_cases` (if that is known) like this one.

    Raises
    ------
    InputError
        When so many are not to be had, or not at this size.
    """
    from thermosim.backends import n_devices, select
    from thermosim.checks import check_memory
    from thermosim.simulation import estimate_memory

    backend = case.config.backend
    if wanted < 0:
        raise InputError(f"workers={wanted} must be 0 (as many as fit) or more")
    device = select(backend.name, max(1, backend.threads), backend.device)
    cores = available_cores()
    most = n_devices("cuda") if device.name == "cuda" else max(1, cores // max(1, backend.threads))
    count = wanted or most
    if device.name == "cpu":
        from thermosim.build import lay_out_box

        shape, n_electrodes = lay_out_box(case)
        if n_cases is not None and not wanted:
            count = min(count, most_workers(n_cases, math.prod(shape)))
        check_memory(count * estimate_memory(shape, n_electrodes), shape, case.config.solver.memory_limit_gb)
    return count


def n_together(case: Case, wanted: int, workers: int) -> int:
    """Cases like this one that share launches in each of so many workers; 1 on the processor.

    Raises
    ------
    InputError
        When so many do not fit into the memory of a GPU.
    """
    from thermosim.backends import select
    from thermosim.build import lay_out_box
    from thermosim.simulation import device_memory

    backend = case.config.backend
    if wanted < 0:
        raise InputError(f"together={wanted} must be 0 (as many as fit) or more")
    device = select(backend.name, max(1, backend.threads), backend.device)
    free = memory_of_worker(device, workers)
    if free is None:
        return 1
    each = device_memory(*lay_out_box(case))
    if wanted * each > free:
        raise InputError(
            f"together={wanted}: these cases need about {1e-9 * wanted * each:.3g} GB on the GPU, "
            f"{1e-9 * free:.3g} GB are free there; use together={max(1, free // each)} or a coarser grid"
        )
    return wanted or as_many_as_fit(each, free)


def memory_of_worker(device: Backend, workers: int) -> int | None:
    """Bytes that each of so many workers may fill on its GPU; None on the processor."""
    from thermosim.backends import n_devices

    free = device.free_memory()
    return None if free is None else free // -(-workers // n_devices(device.name))


def as_many_as_fit(each: int, free: int) -> int:
    """Cases that share launches, where each takes so many bytes of those that are free."""
    from thermosim.backends.of_cases import MOST_CASES

    return max(1, min(free // each, MOST_CASES))


# ---------------------------------------------------------------------------- here


@dataclass(frozen=True)
class _Job:
    """A problem ready to be run; `packed`: its anatomy for workers, the same bytes for all that share it."""

    number: int
    problem: Problem
    anatomy: Anatomy
    token: int
    packed: bytes


def _jobs(
    first: tuple[int, Case], others: Iterator[tuple[int, Case]], anatomies: Anatomies
) -> Iterator[_Job | Finished[Any]]:
    """Problems of all cases; a case that is refused is finished already."""
    packed: dict[tuple[Any, ...], tuple[int, bytes]] = {}
    case: tuple[int, Case] | None = first
    while case is not None:
        try:
            problem, _ = build_problem(case[1], anatomies)
        except ThermosimError as error:
            yield Finished(case[0], None, error)
        else:
            anatomy = problem.anatomy
            # cases of one grid have these in common; `anatomies` keeps them, so that no other gets their ids
            key = (id(anatomy.labels), id(anatomy.lumens), anatomy.notes)
            if key not in packed:
                packed[key] = (len(packed), pickle.dumps(anatomy, protocol=pickle.HIGHEST_PROTOCOL))
            yield _Job(case[0], replace(problem, anatomy=ELSEWHERE), anatomy, *packed[key])
        case = next(others, None)


def _run_here(
    device: Backend,
    jobs: Iterator[_Job | Finished[Any]],
    together: int,
    work: Callable[[Problem, Backend], Kept],
) -> Iterator[Finished[Kept]]:
    """All jobs in this process, as they end."""
    from thermosim.backends.joined import Conductor

    taken: list[_Job] = []
    refused: list[Finished[Any]] = []

    def tasks() -> Iterator[Callable[[Backend], Kept]]:
        for job in jobs:
            if isinstance(job, Finished):
                refused.append(job)
            else:
                taken.append(job)
                yield partial(work, replace(job.problem, anatomy=job.anatomy))

    if together > 1:
        for number, kept, error in Conductor[Kept](device).run(tasks(), together):
            while refused:
                yield refused.pop(0)
            yield Finished(taken[number].number, kept, _of_a_case(error), taken[number].anatomy)
    else:
        for number, task in enumerate(tasks()):
            while refused:
                yield refused.pop(0)
            kept, failed = _tried(partial(task, device))
            yield Finished(taken[number].number, kept, failed, taken[number].anatomy)
    yield from refused


_Answer = tuple[Kept | None, ThermosimError | None]


def _tried(work: Callable[[], Kept]) -> _Answer[Kept]:
    """What a case gives, or why it fails; only what stops the whole batch is raised."""
    try:
        return work(), None
    except Exception as error:
        return None, _of_a_case(error)


def _of_a_case(error: Exception | None) -> ThermosimError | None:
    if error is None or (isinstance(error, ThermosimError) and not isinstance(error, Interrupted)):
        return error
    raise error


# ---------------------------------------------------------------------------- in a worker

_worker: dict[str, Any] = {}
_unpacked: dict[int, Anatomy] = {}


def _begin(ranks: Any, setting: tuple[str, int, int], keep: Any, criteria: tuple[str, ...]) -> None:
    """Make a worker ready: its device for good, what to keep of each case."""
    from thermosim.backends import n_devices, select

    stopped = [False]
    note(stopped)  # a run sees it at its next step, and no other begins
    let_through()
    _worker.update(stopped=stopped, keep=keep, criteria=criteria)
    name, threads, _ = setting
    try:
        rank = ranks.get()
        backend = select(name, threads, rank % n_devices(name) if name == "cuda" else 0)
    except Exception as error:  # raised here it would be lost with the worker
        _worker["error"] = error
    else:
        backend.interrupted = stopped
        _worker["backend"] = backend


def _work(lot: list[tuple[Problem, int, bytes]], together: int) -> list[_Answer[Any]]:
    """Run some cases; an anatomy, made by this program's other half, is unpacked once."""
    if _worker["stopped"][0]:
        raise Interrupted("stopped")
    if "error" in _worker:
        raise _worker["error"]
    work = partial(_run, keep=_worker["keep"], criteria=_worker["criteria"])
    tasks = [partial(work, _whole(*job)) for job in lot]
    if together == 1:
        return [_tried(partial(task, _worker["backend"])) for task in tasks]
    from thermosim.backends.joined import Conductor

    conductor = Conductor[Any](_worker["backend"], _worker["stopped"])
    found: dict[int, _Answer[Any]] = {}
    for number, kept, error in conductor.run(tasks, together):
        found[number] = kept, _of_a_case(error)
    return [found[number] for number in range(len(lot))]


def _whole(problem: Problem, token: int, packed: bytes) -> Problem:
    if token not in _unpacked:
        _unpacked.clear()
        _unpacked[token] = pickle.loads(packed)
    return replace(problem, anatomy=_unpacked[token])


def _run(problem: Problem, backend: Backend, keep: Keep[Kept], criteria: Sequence[str]) -> Kept:
    from thermosim import simulation
    from thermosim.outcome.assess import assess

    run = simulation.run(problem, backend)
    return keep(run, assess(run, problem.damage, criteria))
