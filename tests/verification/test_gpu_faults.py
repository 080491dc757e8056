"""Deliberate faults of kernels and launches, each of which the PTX interpreter must catch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ptx import Checks, MemoryFault, Module, RaceError, UninitialisedRead, mark_uninitialised, stand_in

from thermosim.backends import cuda
from thermosim.backends.base import Layout, kernel_signatures
from thermosim.backends.cpu import CpuBackend
from thermosim.backends.cuda import CudaBackend
from thermosim.numerics.leaks import Leaks
from thermosim.resources import kernel_directory

LAYOUT = Layout((5, 6, 40))
ALL = Checks(races=True, initialised=True)


@pytest.fixture
def backend(nvrtc: None) -> Iterator[CudaBackend]:
    with stand_in.installed() as watch:
        watch.checks = ALL
        yield CudaBackend(0)


def operator(backend: Any, layout: Layout = LAYOUT) -> tuple[Any, ...]:
    """r = −A x: fields x, gx, gy, gz of random values, links to walls, and r."""
    rng = np.random.default_rng(3)
    given = [backend.asarray(rng.random(layout.size), "float32") for _ in range(4)]
    leaks = Leaks(backend, layout, np.arange(0, layout.n_cells, 7))
    return (*given, *leaks.arrays, backend.field(layout))


def test_without_a_fault_all_is_quiet_and_right(backend: CudaBackend) -> None:
    cpu = CpuBackend(1)
    expected, found = operator(cpu), operator(backend)
    mark_uninitialised(found[-1])
    cpu.on_cells("minus_operator", LAYOUT, *expected)
    backend.on_cells("minus_operator", LAYOUT, *found)
    inside = LAYOUT.interior(expected[-1])
    np.testing.assert_allclose(backend.to_host(LAYOUT.interior(found[-1])), inside, rtol=0, atol=5e-6)


def test_a_field_without_its_last_ghosts_is_out_of_bounds(backend: CudaBackend) -> None:
    x, *rest = operator(backend)
    with pytest.raises(MemoryFault, match=r"kernel minus_operator.*out-of-bounds.*argument 6"):
        backend.on_cells("minus_operator", LAYOUT, x[: -LAYOUT.sx], *rest)


def test_strides_of_another_grid_are_out_of_bounds(backend: CudaBackend) -> None:
    with pytest.raises(MemoryFault, match="out-of-bounds"):
        backend.on_cells("minus_operator", Layout((6, 6, 40)), *operator(backend))


def test_a_list_that_names_no_cell_is_out_of_bounds(backend: CudaBackend) -> None:
    cell = backend.asarray(np.array([LAYOUT.origin, LAYOUT.size]), "int32")
    factor, sigma = backend.full(2, 1.0, "float32"), backend.field(LAYOUT, 1.0)
    with pytest.raises(MemoryFault, match=r"kernel wall_leak.*thread \(1,0,0\)"):
        backend.on_entries("wall_leak", 2, cell - LAYOUT.origin, cell, factor, sigma, backend.field(LAYOUT))


def test_too_few_blocks_leave_cells_unwritten(backend: CudaBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = operator(backend)
    mark_uninitialised(fields[-1])
    monkeypatch.setattr(cuda, "launch_shape", lambda *_: ((3,), (32, 8)))
    backend.on_cells("minus_operator", LAYOUT, *fields)
    monkeypatch.undo()
    with pytest.raises(UninitialisedRead, match="kernel dot"):
        backend.row_sums("dot", LAYOUT, 1, fields[-1], fields[-1])


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (((1, 2, 3), (32, 8, 2)), "exceeds its __launch_bounds__"),
        (((1, 2, 3), (32, 32, 2)), "too large"),
        (((1, 70000, 1), (32, 4, 2)), "too large"),
        (((0, 2, 3), (32, 4, 2)), "positive"),
    ],
)
def test_shapes_that_cuda_refuses(
    backend: CudaBackend, monkeypatch: pytest.MonkeyPatch, shape: Any, message: str
) -> None:
    monkeypatch.setattr(cuda, "launch_shape", lambda *_: shape)
    with pytest.raises(ValueError, match=message):
        backend.on_cells("minus_operator", LAYOUT, *operator(backend))


def test_warps_that_share_a_row_race_for_its_sum(
    backend: CudaBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    field = backend.asarray(np.random.default_rng(4).random(LAYOUT.size), "float32")
    # a block one thread too narrow: shuffles reach into the next row's lanes, two threads store each sum
    monkeypatch.setattr(cuda, "launch_shape", lambda *_: ((16,), (16, 8)))
    right = CpuBackend(1).row_sums("dot", LAYOUT, 1, *(backend.to_host(field),) * 2)[0]
    assert backend.row_sums("dot", LAYOUT, 1, field, field)[0] != pytest.approx(right, rel=1e-3)


def test_swapped_arguments_are_refused(backend: CudaBackend) -> None:
    fields, one = operator(backend), np.float32(1)
    with pytest.raises(TypeError, match="scale_add"):
        backend.on_cells("scale_add", LAYOUT, fields[0], one, one, fields[1])
    with pytest.raises(TypeError, match="search_direction"):
        backend.on_cells("search_direction", LAYOUT, fields[0], np.int32(1), fields[1])
    signature = backend._signatures["scale_add"]
    for wrong in ((fields[0], one, one, fields[1]), (np.float64(1), fields[0], one, fields[1])):
        with pytest.raises(TypeError, match="argument 6"):  # behind the backend's own check
            backend._launch(signature, LAYOUT.shape, (*LAYOUT.arguments, *wrong))
    host = CpuBackend(1).field(LAYOUT)
    with pytest.raises(TypeError, match=r"argument 7 is a numpy\.ndarray"):
        backend.on_cells("scale_add", LAYOUT, one, host, one, fields[1])


def test_neighbours_of_an_updated_field_race(nvrtc: None) -> None:
    source = (kernel_directory() / "multigrid.cu").read_text()
    place = "minus_A(p, sx, sy, x, gx, gy, gz, leak_at(leaks, p - row));"
    assert source.count(f"r[p] = {place}") == 1
    options = (*cuda.OPTIONS, f"-I{kernel_directory()}")
    kernel = Module(source.replace(f"r[p] = {place}", f"r[p] = x[p] + {place}"), options).kernel(
        "minus_operator"
    )
    fields = [a.view(np.ndarray) for a in operator(CpuBackend(1))]
    arguments = (*LAYOUT.arguments, *fields[:-1])
    shape = cuda.launch_shape(kernel_signatures()["minus_operator"], LAYOUT.shape)
    kernel(*shape, (*arguments, fields[-1]), checks=ALL)
    with pytest.raises(RaceError, match="hazard"):  # r = x: Jacobi in place
        kernel(*shape, (*arguments, fields[0]), checks=ALL)


def test_an_index_off_by_one_is_found_in_the_source(nvrtc: None) -> None:
    source = (kernel_directory() / "bioheat.cu").read_text()
    options = (*cuda.OPTIONS, f"-I{kernel_directory()}")
    right = "out[p] = table[label[p]];"
    assert right in source
    wrong = Module(source.replace(right, "out[p] = table[label[p] + 1];"), options).kernel("look_up")
    label, table = np.full(LAYOUT.size, 2, np.uint8), np.arange(3, dtype=np.float32)
    with pytest.raises(MemoryFault, match=r"source line \d+.*byte offset 12"):
        wrong((2, 2, 3), (32, 4, 2), (*LAYOUT.arguments, label, table, np.zeros(LAYOUT.size, np.float32)))


def test_without_a_gpu_the_gpu_tests_say_what_is_missing() -> None:
    if (reason := cuda.missing()) is None:
        pytest.skip("this machine has a GPU")
    folder = Path(__file__).resolve().parents[1] / "reference"  # of no matter: the session ends at its start
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "--gpu", str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, cwd=folder.parents[1]
    )
    assert done.returncode == 2
    assert reason in done.stdout + done.stderr
    assert "thermosim doctor" in done.stdout + done.stderr


# ---------------------------------------------------------------------------- recorded launches


def test_a_program_is_recorded_once_and_sees_what_its_arrays_hold(backend: CudaBackend) -> None:
    a, b = backend.field(LAYOUT, 1.0), backend.field(LAYOUT, 0.0)
    two, one = np.float32(2), np.float32(1)
    calls = [
        backend.call_on_cells("scale_add", LAYOUT, two, a, one, b),  # b += 2 a
        backend.call_on_cells("scale_add", LAYOUT, one, b, np.float32(0), a),  # a = b
    ]
    watch, program = stand_in.watch, backend.joined([backend.program(calls[:1]), backend.program(calls[1:])])
    expected_a, expected_b = 1.0, 0.0
    for run in range(4):
        program()
        expected_b += 2 * expected_a
        expected_a = expected_b
        assert backend.to_host(a)[LAYOUT.origin] == expected_a
        assert watch.replays == max(0, run)
    a[:] = np.float32(0.5)  # from outside, between two replays
    program()
    assert backend.to_host(a)[LAYOUT.origin] == expected_b + 1.0
    assert watch.launches == {"scale_add": 10}


def test_nothing_but_kernels_may_be_recorded(backend: CudaBackend) -> None:
    a, one = backend.field(LAYOUT, 1.0), np.float32(1)

    def waits() -> None:
        backend.on_cells("scale_add", LAYOUT, one, a, one, a)
        backend.row_sums("dot", LAYOUT, 1, a, a)

    program = backend.joined([waits])
    program()
    with pytest.raises(RuntimeError, match=r"cannot record|StreamCapture"):
        program()
    assert stand_in.watch.capturing is None


def test_all_numbers_are_fetched_in_one_wait(backend: CudaBackend) -> None:
    values = backend.asarray(np.arange(6.0), "float64")
    before = stand_in.watch.waits
    total, whole = backend.fetch(values.sum(), values.reshape(2, 3))
    assert stand_in.watch.waits == before + 1
    assert float(total) == 15.0
    np.testing.assert_array_equal(whole, np.arange(6.0).reshape(2, 3))
