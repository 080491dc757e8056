"""Backends: choosing one, compiling, memory layout, and the checks before a kernel is launched."""

from __future__ import annotations

import importlib.util
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from thermosim import doctor
from thermosim.backends import IN_TURN, choice, cpu, cuda, probe, select
from thermosim.backends.base import Layout, kernel_signatures, read_signatures
from thermosim.errors import BackendError, InputError
from thermosim.simulation import check_device_memory

LAYOUT = Layout((4, 3, 5))


# ---------------------------------------------------------------------------- choosing


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(BackendError, match=r"'metal'.*auto, cpu or cuda"):
        select("metal")


def test_auto_takes_the_gpu_only_where_there_is_one() -> None:
    assert select("auto", 1).name == ("cpu" if cuda.missing() else "cuda")


def test_cuda_without_cupy_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cupy" else find(name))
    with pytest.raises(BackendError, match=r"CuPy is not installed.*thermosim\[cuda13\].*backend=cpu"):
        select("cuda")
    assert select("auto", 1).name == "cpu"
    row = next(row for row in probe() if row["name"] == "cuda")
    assert row["works"] is False
    assert "thermosim[cuda12]" in str(row["detail"])


def test_a_cupy_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cupy.py").write_text("raise ImportError('libcuda.so.1 is not there')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    importlib.invalidate_caches()
    with pytest.raises(BackendError, match=r"libcuda\.so\.1 is not there"):
        select("cuda")


# ---------------------------------------------------------------------------- compiling


def test_no_compiler_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(BackendError, match=r"no C\+\+ compiler found; install one.*CXX"):
        select("cpu", 1)
    assert next(row for row in probe() if row["name"] == "cpu")["works"] is False


def executable(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_compiler_that_does_not_run_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", executable(tmp_path / "broken", "exit 3"))
    with pytest.raises(BackendError, match=r"broken does not run"):
        select("cpu", 1)


def test_a_failed_compilation_says_why_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = 'case "$*" in *--version*) echo old 1.0;; *) echo "x.h:3: error: no C++17" >&2; exit 1;; esac'
    monkeypatch.setenv("CXX", executable(tmp_path / "old", words))
    monkeypatch.setenv("THERMOSIM_CACHE", str(tmp_path / "cache"))
    with pytest.raises(BackendError, match=r"could not compile the kernels: x\.h:3: error: no C\+\+17"):
        select("cpu", 1)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_damaged_library_is_a_backend_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library = tmp_path / "kernels.so"
    library.write_bytes(b"\x7fELF nonsense")
    monkeypatch.setattr(cpu, "compile_kernels", lambda: library)
    with pytest.raises(BackendError, match="cannot be loaded"):
        select("cpu", 1)


def test_the_cache_is_used_and_its_key_sees_sources_flags_and_compiler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = cpu.compile_kernels()
    assert cpu.compile_kernels() == first
    changed_at = first.stat().st_mtime_ns
    cpu.compile_kernels()
    assert first.stat().st_mtime_ns == changed_at

    def name_with(attribute: str, value: object) -> str:
        # a compiler that stops the build once the name is known
        with monkeypatch.context() as patch:
            patch.setattr(cpu, attribute, value)
            patch.setattr(cpu.subprocess, "run", lambda *_, **__: pytest.fail("compiled"))
            with pytest.raises(pytest.fail.Exception):
                cpu.compile_kernels()
        return attribute

    cpu.compiler_version(cpu.compiler() or "")  # remembered, so that only a compilation calls the compiler
    name_with("FLAGS", (*cpu.FLAGS, "-DOTHER"))
    name_with("kernel_digest", lambda: "0" * 64)
    name_with("compiler_version", lambda _path: "another compiler")
    name_with("_processor_features", lambda: "another processor")


# ---------------------------------------------------------------------------- arrays


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 3, 5), (13, 9, 22), (2, 2, 8), (5, 6, 7)])
def test_the_layout_keeps_cells_apart(shape: tuple[int, int, int]) -> None:
    layout = Layout(shape)
    numbers = np.arange(layout.size)
    inside = layout.interior(numbers)
    i, j, k = np.indices(shape)
    assert np.array_equal(inside, layout.origin + i * layout.sx + j * layout.sy + k)
    cells = np.arange(layout.n_cells)
    assert np.array_equal(layout.memory_index(cells), inside.ravel())
    # every neighbour of every cell is in memory, and no neighbour beyond the box is a cell of it
    own = set(inside.ravel().tolist())
    for axis, step in enumerate((layout.sx, layout.sy, 1)):
        for end, direction in ((0, -1), (-1, 1)):
            ghosts = np.take(inside, end, axis) + direction * step
            assert ghosts.min() >= 0
            assert ghosts.max() < layout.size
            assert own.isdisjoint(ghosts.ravel().tolist())
    assert layout.sy % 8 == layout.origin % 8 == 0  # rows begin on a sector


def test_fields_come_filled_and_go_back() -> None:
    backend = select("cpu", 1)
    field = backend.field(LAYOUT, 2.5)
    assert field.shape == (LAYOUT.size,)
    assert field.dtype == np.float32
    assert np.all(backend.to_host(field) == 2.5)
    values = np.arange(3.0)
    copy = backend.asarray(values, "float32")
    copy[:] = 7.0
    assert values.tolist() == [0.0, 1.0, 2.0]


# ---------------------------------------------------------------------------- launching


def test_signatures_are_read_from_the_sources(tmp_path: Path) -> None:
    kinds = {name: s.kind for name, s in kernel_signatures().items()}
    assert kinds["scale_add"] == "cell"
    assert kinds["dot"] == "row"
    assert kinds["scale_faces"] == "entry"
    dot = kernel_signatures()["dot"]
    assert dot.parameters == (("float*", "a"), ("float*", "b"), ("double*", "rows"))
    assert dot.has_grid
    for source in ("electric_potential", "multigrid", "bioheat", "damage"):
        (tmp_path / f"{source}.cu").write_text("KERNEL idle(GRID_PARAMETERS, float a) {\n}\n")
    with pytest.raises(RuntimeError, match="idle has no loop"):
        read_signatures(tmp_path)


def test_arguments_are_checked_before_a_launch() -> None:
    backend = select("cpu", 1)
    a, out = backend.field(LAYOUT), backend.field(LAYOUT)
    one = np.float32(1.0)
    backend.on_cells("scale_add", LAYOUT, one, a, one, out)
    with pytest.raises(TypeError, match=r"scale_add, a: float expected, got float64"):
        backend.on_cells("scale_add", LAYOUT, np.float64(1.0), a, one, out)
    with pytest.raises(TypeError, match=r"scale_add, x: float\* expected, got float64"):
        backend.on_cells("scale_add", LAYOUT, one, a.astype("float64"), one, out)
    with pytest.raises(TypeError, match=r"scale_add, x: float\* expected, got 0-d"):
        backend.on_cells("scale_add", LAYOUT, one, one, one, out)
    with pytest.raises(TypeError, match=r"scale_add, b: float expected, got 1-d"):
        backend.on_cells("scale_add", LAYOUT, one, a, a, out)
    with pytest.raises(TypeError, match="takes 4 arguments, got 3"):
        backend.on_cells("scale_add", LAYOUT, one, a, out)
    with pytest.raises(TypeError, match="scale_faces runs per entry, not per cell"):
        backend.on_cells("scale_faces", LAYOUT, a)
    with pytest.raises(TypeError, match="dot runs per row, not per entry"):
        backend.on_entries("dot", 3, a, a)
    with pytest.raises(KeyError, match="no_such_kernel"):
        backend.on_cells("no_such_kernel", LAYOUT, a)


def test_an_empty_list_launches_nothing() -> None:
    backend = select("cpu", 1)
    before = backend.field(LAYOUT, 3.0)
    nothing = backend.full(1, 0.0, "int32"), backend.full(1, 5.0, "float32")
    backend.on_entries("scale_faces", 0, *nothing, before)
    assert np.all(before == 3.0)


def test_row_sums_have_one_order_whatever_the_threads() -> None:
    layout = Layout((60, 40, 37))  # more than 65536 cells: the loops run in parallel
    random = np.random.default_rng(1)
    values = random.uniform(-1.0, 1.0, layout.size)
    sums = set()
    for threads in (1, 2, 3):
        backend = select("cpu", threads)
        a = backend.asarray(values, "float32")
        sums.add(backend.row_sums("dot", layout, 1, a, a))
    assert len(sums) == 1


def test_each_backend_keeps_its_own_number_of_threads() -> None:
    assert select("cpu", 1).threads == 1  # type: ignore[attr-defined]
    assert "2 threads" in select("cpu", 2).device
    assert select("cpu", 0).threads >= 1  # type: ignore[attr-defined]


def test_a_backend_works_in_another_thread() -> None:
    # the interactive use: a run in a worker thread while the main thread draws
    backend = select("cpu", 1)
    found: list[float] = []

    def work() -> None:
        a = backend.field(LAYOUT, 2.0)
        found.append(backend.row_sums("dot", LAYOUT, 1, a, a)[0])

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert found == [4.0 * LAYOUT.n_cells]


# ---------------------------------------------------------------------------- CUDA launch shapes


@pytest.mark.parametrize("name", sorted(kernel_signatures()))
def test_cuda_blocks_cover_every_cell(name: str) -> None:
    signature = kernel_signatures()[name]
    extent = (1001,) if signature.kind == "entry" else (13, 9, 70)
    blocks, threads = cuda.launch_shape(signature, extent)
    total = [b * t for b, t in zip((*blocks, 1, 1), threads, strict=False)]
    assert np.prod(threads) <= 256  # the bound the kernels are compiled for
    if signature.kind == "cell":
        assert total[0] >= 70
        assert total[1] >= 9
        assert total[2] >= 13
    elif signature.kind == "row":
        assert threads[0] == 32  # one warp along a row: the sums are taken within it
        assert blocks[0] * threads[1] >= 13 * 9
    else:
        assert total[0] >= 1001


def test_auto_says_what_it_chose_and_why_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "missing", lambda: "no CUDA GPU or driver found")
    backend = select("auto", 1)
    assert choice("auto", backend) == f"backend cpu: {backend.device} (no GPU: no CUDA GPU or driver found)"
    assert choice("cpu", backend) == f"backend cpu: {backend.device}"


def test_jobs_take_the_gpus_in_turn(nvrtc: None) -> None:
    from ptx import stand_in

    with stand_in.installed():
        stand_in.runtime.count = 3
        chosen = []
        for job in range(5):
            backend = select("cuda", device=IN_TURN, turn=job)
            chosen.append(stand_in.runtime.current)
        assert chosen == [0, 1, 2, 0, 1]
        assert choice("auto", backend).startswith("backend cuda: PTX interpreter")
        with pytest.raises(BackendError, match=r"backend\.device=3, but this machine has 3"):
            select("cuda", device=3)


def test_a_grid_too_large_for_the_gpu_is_refused(nvrtc: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from ptx import stand_in

    with stand_in.installed():
        monkeypatch.setattr(stand_in.runtime, "memGetInfo", lambda: (2 << 30, 8 << 30))
        backend = select("cuda")
        check_device_memory(backend, (256, 256, 256), 3)  # 1.7 GB
        with pytest.raises(
            InputError, match=r"512 x 512 x 512.*on the GPU, 2\.15 GB are free there.*backend=cpu"
        ):
            check_device_memory(backend, (512, 512, 512), 3)
    check_device_memory(select("cpu", 1), (2048, 2048, 2048), 3)  # the host's memory is checked elsewhere


def test_doctor_lists_what_a_gpu_run_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    needs = dict(doctor._cuda_needs())
    assert "driver from nvidia.com" in str(needs["NVIDIA GPU and driver"])
    assert "thermosim[cuda12]" in str(needs["CuPy"])
    assert "make gpu-test" in str(needs["compute-sanitizer"])
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: object())
    needs = dict(doctor._cuda_needs())
    assert needs["NVIDIA GPU and driver"] is needs["CuPy"] is needs["compute-sanitizer"] is None
    assert "fits the driver" in str(needs["both together"])
