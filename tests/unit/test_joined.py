"""Cases that share launches return what they return alone, whatever the others do."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from gpu_path import GpuPath

from thermosim.backends.base import SOURCES, Backend, KernelSignature, Layout, kernel_signatures
from thermosim.backends.cpu import CpuBackend
from thermosim.backends.joined import CaseArray, CaseBackend, Conductor, run_queues
from thermosim.backends.of_cases import MOST_CASES, OPTION, layout_of, packed, source_of_cases
from thermosim.batch import n_together, run_batch
from thermosim.build import Anatomies, Case, build_problem, load_case
from thermosim.errors import InputError, Interrupted, NumericalError
from thermosim.simulation import Problem, run
from thermosim.simulation_result import SimulationResult

WORDS = [
    "grid.spacing_mm=5",
    "grid.size_mm=[80,80,80]",
    "grid.center_mm=[0,0,0]",
    "anatomy=block",
    "anatomy.tumors=[{diameter_mm:20}]",
    "protocol=one_minute",
    "protocol.segments.0.duration_min=0.15",
    "protocol.cooling_after_min=0.05",
    "solver.report_interval=3",
]
DIFFERENT = (
    ["layout.pattern_spacing_mm=20"],
    ["layout.pattern_spacing_mm=24", "tissue.tissues.liver.perfusion_rate=0.005"],
    ["protocol.generator.power=25", "solver.maximum_time_step=1.2", "solver.resolve_tolerance=0.005"],
)
FIELDS = (
    *("temperature", "highest_temperature", "damage_integral", "thermal_dose", "dead_fraction"),
    *("volumetric_heat_source", "electric_potential"),
)


def case(*words: str) -> Case:
    return load_case("demo", [*WORDS, *words])


def problems() -> list[Problem]:
    anatomies = Anatomies()
    return [build_problem(case(*words), anatomies)[0] for words in DIFFERENT]


def assert_equal(one: SimulationResult, other: SimulationResult) -> None:
    for name in FIELDS:
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    for name in ("time", "power", "impedance", "hottest_temperature"):
        assert np.array_equal(getattr(one.traces, name), getattr(other.traces, name), equal_nan=True), name
    assert one.audit == other.audit
    assert one.run.time_steps == other.run.time_steps


class KernelByKernel(CpuBackend):
    """Launches on the processor as on a GPU: what follows rows and lists is kernels, too. Counts."""

    take, put, write, sums, maxima = (
        *(Backend.take, Backend.put, Backend.write),
        *(Backend.sums, Backend.maxima),
    )
    program = Backend.program

    def __init__(self) -> None:
        super().__init__(1)
        self.n_launches = self.n_waits = 0

    def _launch(self, signature: KernelSignature, extent: tuple[int, ...], arguments: Sequence[Any]) -> None:
        self.n_launches += 1
        super()._launch(signature, extent, arguments)

    def launch_together(
        self, signature: KernelSignature, extents: Sequence[tuple[int, ...]], cases: Sequence[Any]
    ) -> None:
        before = self.n_launches
        super().launch_together(signature, extents, cases)
        self.n_launches = before + 1

    def fetch(self, *arrays: Any) -> Any:
        self.n_waits += 1
        return super().fetch(*arrays)


def joined(device: Backend, tasks: Sequence[Callable[[Backend], Any]], at_once: int) -> dict[int, Any]:
    found = {}
    for number, result, error in Conductor[Any](device).run(tasks, at_once):
        found[number] = result if error is None else error
    return found


# ---------------------------------------------------------------------------- simulations


def test_cases_are_bit_for_bit_what_they_are_alone_in_far_fewer_launches() -> None:
    alone, launches, waits = [], [], []
    for problem in problems():
        device = KernelByKernel()
        alone.append(run(problem, device))
        launches.append(device.n_launches)
        waits.append(device.n_waits)
    assert len({(r.run.time_steps, r.run.potential_iterations) for r in alone}) == 3  # they differ in steps
    device = KernelByKernel()
    conductor = Conductor[SimulationResult](device)
    for number, result, error in conductor.run([partial(run, p) for p in problems()], 3):
        assert error is None
        assert result is not None
        assert_equal(result, alone[number])
    # a third and a bit: what one case does and another does not is launched for itself
    assert device.n_launches < 0.55 * sum(launches)
    assert conductor.n_waits < 0.6 * sum(waits)


def test_more_cases_than_go_together_and_one_that_fails() -> None:
    good = problems()
    bad = replace(good[1], solver=replace(good[1].solver, maximum_iterations=1))
    found = joined(KernelByKernel(), [partial(run, p) for p in (good[0], bad, good[2])], 2)
    assert isinstance(found[1], NumericalError)
    for number in (0, 2):
        assert_equal(found[number], run(good[number], KernelByKernel()))


# ---------------------------------------------------------------------------- the queue


def started(device: Backend) -> CaseBackend:
    """The backend of a case that is parked never: its queue is run at once."""

    def park() -> None:
        run_queues(device, [case.queue])
        case.queue.clear()
        case.answer = device.to_host_together(case.wanted or [])
        case.wanted = None

    case = CaseBackend(device, park)
    return case


LAYOUT = Layout((4, 5, 6))


def plain(array: Any) -> Any:
    """NumPy's view of an array of the stand-in's."""
    return np.ndarray.view(array, np.ndarray)


def fill(case: CaseBackend, field: Any, value: float) -> None:
    ones = case.field(LAYOUT, 1.0)
    case.on_cells("scale_add", LAYOUT, np.float32(value), ones, np.float32(0), field)


def test_whatever_touches_an_array_waits_for_what_is_queued() -> None:
    case = started(KernelByKernel())
    field = case.field(LAYOUT)
    where = case.asarray(LAYOUT.memory_index(np.arange(3)), "int32")
    fill(case, field, 2.0)
    assert len(case.queue) == 1
    view = LAYOUT.interior(field)  # a view needs nothing of what is in it
    assert len(case.queue) == 1
    assert isinstance(view, CaseArray)
    view[:] = 3.0  # behind the launch, not before it
    assert not case.queue
    assert np.all(case.to_host(LAYOUT.interior(field)) == 3.0)
    fill(case, field, 4.0)
    assert np.all(case.to_host(field[where]) == 4.0)
    fill(case, field, 5.0)
    field[where] = np.float32(7.0)
    fill(case, field, 6.0)
    assert np.all(case.to_host(view) == 6.0)
    for wrong in (lambda: field + field, lambda: np.float32(2) * field, lambda: np.sum(field)):
        with pytest.raises((TypeError, AttributeError)):
            wrong()
    for key in (3, [1, 2], np.arange(3)):
        with pytest.raises(TypeError, match="indexed by slices"):
            field[key]
    with pytest.raises(ValueError, match="contiguous"):
        view.reshape(-1)
    with pytest.raises(TypeError, match="float\\* expected, got int32"):
        case.on_cells("scale_add", LAYOUT, np.float32(1), where, np.float32(0), field)


class Noted(KernelByKernel):
    """Names of what is launched, and for how many cases."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[tuple[str, int]] = []

    def launch_together(self, signature: Any, extents: Any, cases: Any) -> None:
        self.noted.append((signature.name, len(cases)))
        super().launch_together(signature, extents, cases)


def test_cases_wait_for_those_who_have_more_to_do_first() -> None:
    device = Noted()
    cases = [started(device) for _ in range(3)]
    ends = []
    for number, case in enumerate(cases):
        field, other = case.field(LAYOUT, 1.0), case.field(LAYOUT)
        for _ in range(3 - number):  # stages
            case.on_cells("scale_add", LAYOUT, np.float32(1), field, np.float32(1), other)
        case.on_cells("search_direction", LAYOUT, other, np.float32(0), field)
        ends.append(field)
    run_queues(device, [case.queue for case in cases])
    assert device.noted == [("scale_add", 3), ("scale_add", 2), ("scale_add", 1), ("search_direction", 3)]
    for case, number, end in zip(cases, (3, 2, 1), ends, strict=True):
        case.queue.clear()
        assert case.to_host(LAYOUT.interior(end)).max() == number


# ---------------------------------------------------------------------------- the conductor


def asks(value: float, times: int, backend: Backend) -> float:
    array = backend.full(1, value, "float64")
    return sum(float(backend.fetch(array)[0][0]) for _ in range(times))


def test_results_by_number_and_errors_of_any_kind() -> None:
    def defect(_backend: Backend) -> float:
        raise KeyError("defect")

    tasks = [partial(asks, 1.0, 5), defect, partial(asks, 2.0, 1), partial(asks, 3.0, 2)]
    device = KernelByKernel()
    conductor = Conductor[float](device)
    found = list(conductor.run(tasks, 2))
    assert {number: result for number, result, _ in found} == {0: 5.0, 1: None, 2: 2.0, 3: 6.0}
    assert [type(error) for number, _, error in found if number == 1] == [KeyError]
    assert conductor.n_waits == 5  # what 2 and 3 wait for comes with what 0 waits for
    assert list(conductor.run([], 2)) == []


def test_those_who_meet_go_on_in_the_largest_group() -> None:
    order: list[str] = []

    def walks(name: str, places: Sequence[str], backend: Backend) -> None:
        for place in places:
            backend.meet(place)
            order.append(f"{name} {place}")

    tasks = [partial(walks, "a", "hhp"), partial(walks, "b", "php"), partial(walks, "c", "hhhp")]
    joined(KernelByKernel(), tasks, 3)
    # b waits at p until a is there, too; c comes last
    assert order == ["a h", "c h", "a h", "c h", "a p", "b p", "b h", "c h", "b p", "c p"]


def test_ctrl_c_stops_all_and_leaves_no_thread() -> None:
    before = threading.active_count()

    def stopped(backend: Backend) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        asks(1.0, 3, backend)

    with pytest.raises(Interrupted, match="stopped"):
        joined(KernelByKernel(), [partial(asks, 1.0, 3), stopped], 2)
    assert threading.active_count() == before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_breaks_off_a_case_that_runs_and_leaves_no_thread() -> None:
    before = threading.active_count()

    def stopped(backend: Backend) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)  # the conductor gives up meanwhile
        try:
            asks(1.0, 3, backend)
        finally:
            backend.meet("on the way out")

    with pytest.raises(KeyboardInterrupt):
        joined(KernelByKernel(), [partial(asks, 1.0, 3), stopped], 2)
    assert threading.active_count() == before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_case_takes_over_what_its_device_prefers() -> None:
    device = KernelByKernel()
    for whole in (True, False):
        device.prefers_whole_rows, device.threads = whole, 3
        case = started(device)
        assert (case.prefers_whole_rows, case.threads) == (whole, 3)


def test_one_who_listens_no_more_leaves_no_thread() -> None:
    before = threading.active_count()
    results = Conductor[float](KernelByKernel()).run([partial(asks, 1.0, n) for n in (1, 9, 9)], 3)
    assert next(results)[0] == 0
    assert threading.active_count() == before + 2
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


# ---------------------------------------------------------------------------- the batch


class WithMemory(KernelByKernel):
    """A device with memory of its own."""

    free = 10**9

    def free_memory(self) -> int:
        return self.free


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> WithMemory:
    made = WithMemory()
    monkeypatch.setattr("thermosim.backends.select", lambda *_: made)
    monkeypatch.setattr("thermosim.batch.n_workers", lambda *_: 1)
    return made


def hottest(result: Any, _outcome: Any) -> float:
    return float(result.temperature.max())


def test_a_batch_on_a_device_with_memory_is_joined(
    device: WithMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [case(*words) for words in DIFFERENT]
    outside = replace(cases[0].config, layout=replace(cases[0].config.layout, pattern_spacing_mm=400.0))
    cases.insert(1, Case(outside, cases[0].settings))
    sizes: list[int] = []
    together = KernelByKernel.launch_together

    def noted(self: Any, signature: Any, extents: Any, of_cases: Any) -> None:
        sizes.append(len(of_cases))
        together(self, signature, extents, of_cases)

    monkeypatch.setattr(KernelByKernel, "launch_together", noted)
    found = {one.number: one for one in run_batch(cases, keep=hottest, criteria=())}
    assert isinstance(found[1].error, InputError)
    assert max(sizes) == 3
    alone = [float(run(problem, KernelByKernel()).temperature.max()) for problem in problems()]
    assert [found[number].kept for number in (0, 2, 3)] == alone


def test_the_first_case_that_is_not_refused_tells_how_many_go_together(
    device: WithMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Case] = []

    def noted(first: Case, wanted: int, workers: int) -> int:
        seen.append(first)
        return 1

    monkeypatch.setattr("thermosim.batch.n_together", noted)
    monkeypatch.setattr("thermosim.batch._run", lambda *_, **__: 1.0)
    refused, good = case("grid.spacing_mm=20"), case()
    found = list(run_batch([refused, refused, good, refused], keep=hottest, criteria=()))
    assert seen == [good]
    assert sorted((one.number, one.error is None) for one in found) == [
        *[(0, False), (1, False), (2, True), (3, False)]
    ]
    assert all(one.error is not None for one in run_batch([refused], keep=hottest))


def test_how_many_go_together_is_chosen_from_memory(device: WithMemory) -> None:
    assert n_together(case(), 0, 1) == MOST_CASES
    device.free = 3_000_000  # 4,096 cells of some hundred bytes
    assert 1 <= n_together(case(), 0, 1) < MOST_CASES
    with pytest.raises(InputError, match=r"together=16: .* 0.003 GB are free there; use together="):
        n_together(case(), 16, 1)
    with pytest.raises(InputError, match="together=-1"):
        n_together(case(), -1, 1)
    device.free = 10
    assert n_together(case(), 0, 1) == 1


def test_on_the_processor_each_worker_runs_one_at_a_time() -> None:
    assert n_together(case("backend=cpu"), 5, 2) == 1


# ---------------------------------------------------------------------------- CUDA code


def test_arguments_of_all_cases_fit_into_a_launch() -> None:
    for signature in kernel_signatures().values():
        assert len(packed(signature, [])) <= 4096 - 8, signature.name
        assert layout_of(signature).size % 8 == 0


def float_operations(ptx: str) -> dict[str, Counter[str]]:
    operation = re.compile(r"\b((?:mul|add|sub|fma|div|neg|ex2|sqrt|max|min|rcp)\.[\w.]*f(?:32|64))\b")
    return {
        entry[1]: Counter(operation.findall(entry[2]))
        for entry in re.finditer(r"\.entry (\w+)\((.*?)\n\}", ptx, re.DOTALL)
    }


def test_launches_over_cases_do_the_arithmetic_of_plain_ones(nvrtc: None) -> None:
    """The compiler contracts the same products and sums, or a case would differ from itself alone."""
    from ptx.module import compile_ptx

    from thermosim.backends.cuda import OPTIONS
    from thermosim.resources import kernel_directory

    options = (*OPTIONS, f"-I{kernel_directory()}")
    for source in SOURCES:
        plain = float_operations(compile_ptx((kernel_directory() / f"{source}.cu").read_text(), options))
        cases = float_operations(compile_ptx(source_of_cases(source), (*options, OPTION)))
        assert {f"{name}_of_cases": found for name, found in plain.items()} == cases


@pytest.fixture
def guarded(gpu_path: GpuPath, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails where an array is touched while a launch that it belongs to is queued."""
    if gpu_path.watch is None:
        yield
        return
    made: list[CaseBackend] = []
    begin = CaseBackend.__init__

    def noted(self: CaseBackend, *arguments: Any) -> None:
        begin(self, *arguments)
        made.append(self)

    def touched(array: Any) -> None:
        for backend in made:
            for launch in backend.queue:
                for other in launch.arguments:
                    if isinstance(other, CaseArray) and np.may_share_memory(plain(array), plain(other.raw)):
                        raise AssertionError(f"touched while {launch.signature.name} is queued")

    monkeypatch.setattr(CaseBackend, "__init__", noted)
    monkeypatch.setattr(gpu_path.watch, "touched", touched)
    yield


@pytest.mark.gpu
def test_an_array_that_is_touched_too_early_is_seen(gpu_path: GpuPath, guarded: None) -> None:
    if gpu_path.watch is None:
        pytest.skip("only the stand-in for CuPy sees it")
    case = CaseBackend(gpu_path.backend, lambda: None)
    field = case.field(LAYOUT)
    fill(case, field, 2.0)
    for touch in (lambda: field.raw.sum(), lambda: field.raw[3:9].get(), lambda: field.raw * 2):
        with pytest.raises(AssertionError, match="touched while scale_add is queued"):
            touch()
    with pytest.raises(AssertionError, match="touched while scale_add is queued"):
        LAYOUT.interior(field.raw)[:] = 0.0


@pytest.mark.gpu
def test_cases_on_a_gpu_are_what_they_are_alone(gpu_path: GpuPath, guarded: None) -> None:
    watch, alone, counts = gpu_path.watch, [], []

    def seen() -> tuple[int, int]:
        return (0, 0) if watch is None else (sum(watch.launches.values()), watch.waits)

    for problem in problems():
        before = seen()
        alone.append(run(problem, gpu_path.backend))
        counts.append(np.subtract(seen(), before))
    before = seen()
    found = joined(gpu_path.backend, [partial(run, problem) for problem in problems()], 3)
    for number, result in enumerate(alone):
        assert_equal(found[number], result)
    if watch is not None:
        launches, waits = np.subtract(seen(), before) / np.sum(counts, axis=0)
        assert launches < 0.55
        assert waits < 0.6


@pytest.mark.gpu
def test_cases_may_differ_in_grid_and_list(gpu_path: GpuPath) -> None:
    """One launch covers the largest; what lies beyond a smaller one stays as it is."""
    shapes, lists = [(3, 4, 40), (9, 5, 33), (4, 9, 64)], [1, 700, 256]
    random = np.random.default_rng(3)

    def sums(shape: tuple[int, int, int], n: int, backend: Backend) -> list[Any]:
        layout = Layout(shape)
        x, out = (random_field(layout, backend) for _ in range(2))
        backend.on_cells("scale_add", layout, np.float32(2), x, np.float32(1), out)
        total = backend.row_sums("dot", layout, 1, x, out)
        index = backend.asarray(np.arange(n) % layout.size, "int32")
        return [total, *(backend.to_host(a) for a in (backend.take(out, index), out))]

    def random_field(layout: Layout, backend: Backend) -> Any:
        return backend.asarray(random.normal(size=layout.size), "float32")

    wanted = [sums(shape, n, gpu_path.backend) for shape, n in zip(shapes, lists, strict=True)]
    random = np.random.default_rng(3)
    before = dict(gpu_path.watch.launches) if gpu_path.watch else {}
    tasks = [partial(sums, shape, n) for shape, n in zip(shapes, lists, strict=True)]
    found = joined(gpu_path.backend, tasks, 3)
    for number, values in enumerate(wanted):
        assert values[0] == found[number][0]
        for one, other in zip(values[1:], found[number][1:], strict=True):
            assert np.array_equal(one, other)
    if gpu_path.watch is not None:
        after = gpu_path.watch.launches
        assert after["take_of_cases"] - before.get("take_of_cases", 0) == 1


@pytest.mark.gpu
def test_more_cases_than_a_launch_holds_make_two(gpu_path: GpuPath) -> None:
    tasks = [partial(asks_for_a_sum, float(value)) for value in range(MOST_CASES + 3)]
    assert joined(gpu_path.backend, tasks, len(tasks)) == {n: 4.0 * n for n in range(MOST_CASES + 3)}


def asks_for_a_sum(value: float, backend: Backend) -> float:
    rows = backend.full(4, value, "float64")
    return float(backend.fetch(backend.sums(rows.reshape(1, 4)))[0][0])
