"""What the compiled CUDA kernels need and how they ask for memory; the model that predicts their times."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ptx import Statistics

from thermosim.backends.base import Layout, kernel_signatures
from thermosim.backends.nvrtc import KernelReport, compile_source, read_report, refuse_local_memory
from thermosim.errors import BackendError

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

HOT = (
    *("first_stage", "next_stage", "advance_damage", "prepare_step", "face_conductance"),
    *("smooth", "smooth_from_zero", "residual", "minus_operator"),
    *("restrict_sum", "prolongate_add"),
    *("apply_and_dot", "step_and_norm", "search_direction", "dot"),
)
"""Kernels of the heat step, the death of tissue, multigrid and conjugate gradients."""


@pytest.fixture(scope="module")
def tools() -> Iterator[tuple[ModuleType, ModuleType]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import kernel_report
        import kernel_traffic  # type: ignore[import-not-found]

        yield kernel_traffic, kernel_report


@pytest.fixture(scope="module")
def traffic(nvrtc: None, tools: tuple[ModuleType, ModuleType]) -> dict[str, Statistics]:
    found: dict[str, Statistics] = tools[0].traffic(tools[0].grid_kernels())
    return found


@pytest.mark.parametrize("kernel", HOT)
def test_hot_kernels_use_the_sectors_they_move(kernel: str, traffic: dict[str, Statistics]) -> None:
    assert traffic[kernel].global_efficiency >= 0.85


def test_coarse_links_leave_unused_what_lies_between_them(traffic: dict[str, Statistics]) -> None:
    # 48 bytes read and 12 written per coarse cell; of gz every second number is needed, in every sector
    assert traffic["coarsen_links"].global_efficiency == pytest.approx(60 / 76, abs=1e-3)


@pytest.mark.parametrize("kernel", HOT)
def test_hot_kernels_move_little_more_than_the_method_needs(
    kernel: str, tools: tuple[ModuleType, ModuleType], traffic: dict[str, Statistics]
) -> None:
    once, every = tools[0].moved(traffic[kernel], tools[0].LAYOUT.n_cells)
    # ghost planes of fields that are read at neighbours: 16 + 2 planes of 32 + 2 rows; seen 0.93 to 1.17
    assert once <= 1.3 * tools[1].kernel_bytes(kernel, traffic)
    assert once <= every + 1e-9


def test_launches_over_cases_use_the_sectors_they_move(
    nvrtc: None, tools: tuple[ModuleType, ModuleType], traffic: dict[str, Statistics]
) -> None:
    joined = tools[0].traffic(HOT, n_cases=3)
    for kernel in HOT:
        plain, cases = traffic[kernel], joined[f"{kernel}_of_cases"]
        assert cases.global_efficiency == pytest.approx(plain.global_efficiency, abs=1e-6), kernel


def test_rows_off_the_sectors_would_be_seen(
    nvrtc: None, tools: tuple[ModuleType, ModuleType], traffic: dict[str, Statistics]
) -> None:
    class Shifted(Layout):
        """Rows that begin one cell after a sector does."""

        @property
        def origin(self) -> int:  # type: ignore[override]
            return super().origin + 1

    worse = tools[0].traffic(["scale_add"], Shifted((6, 8, 64)))["scale_add"]
    # a warp's 128 bytes then lie in five sectors instead of four
    assert worse.global_efficiency == pytest.approx(0.8, abs=0.01)
    assert traffic["scale_add"].global_efficiency == 1.0


def test_every_byte_counted_from_the_source_is_asked_for(
    tools: tuple[ModuleType, ModuleType], traffic: dict[str, Statistics]
) -> None:
    cells = tools[0].LAYOUT.n_cells
    for name, seen in traffic.items():
        counted = tools[1].kernel_bytes(name, traffic)
        touched = (seen.unique_read + seen.unique_written) / cells
        # ghost cells, sums of rows and tables come on top of the fields; prepare_step reads k, which it
        # writes everywhere, in rows on the border alone
        assert 0.9 * counted <= touched < counted + 3.0, name


# ---------------------------------------------------------------------------- registers


REGISTER_COUNT = 0x2F  # EIATTR_REGCOUNT


def registers_in_elf(cubin: bytes) -> dict[str, int]:
    """Registers of each kernel as the section .nv.info of a cubin has them: (symbol, count) pairs."""
    start, size, count, names = struct.unpack_from("<Q10xHHH", cubin, 0x28)
    headers = [struct.unpack_from("<IIQQQQIIQQ", cubin, start + size * k) for k in range(count)]

    def text(offset: int) -> str:
        return cubin[offset : cubin.index(b"\0", offset)].decode()

    sections = {text(headers[names][4] + h[0]): cubin[h[4] : h[4] + h[5]] for h in headers}
    symbols, strings = sections[".symtab"], sections[".strtab"]
    info, at, found = sections[".nv.info"], 0, {}
    while at < len(info):
        form, attribute, value = struct.unpack_from("<BBH", info, at)
        at += 4
        if form == 4:  # `value` bytes follow
            if attribute == REGISTER_COUNT:
                symbol, registers = struct.unpack_from("<II", info, at)
                (name,) = struct.unpack_from("<I", symbols, 24 * symbol)
                found[strings[name : strings.index(b"\0", name)].decode()] = registers
            at += value
    return found


def test_the_assemblers_figures_are_those_of_the_binary(nvrtc: None) -> None:
    cubin, text = compile_source("damage", "sm_90")
    reports = {r.kernel: r.registers for r in read_report(text)}
    assert set(reports) == {n for n, s in kernel_signatures().items() if s.source == "damage"}
    assert registers_in_elf(cubin) == reports


def test_a_spill_is_read_and_refused() -> None:
    text = """ptxas info    : Compiling entry function 'f' for 'sm_90'
ptxas         .     96 bytes stack frame, 40 bytes spill stores, 44 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 96 bytes cumulative stack size, 2048 bytes smem"""
    (report,) = read_report(text)
    assert report == KernelReport("f", "sm_90", 255, 84, 96, 2048)
    with pytest.raises(BackendError, match=r"f spills 84 bytes on sm_90 \(stack of 96 bytes\)"):
        refuse_local_memory([KernelReport("g", "sm_90", 32, 0), report])
    refuse_local_memory([KernelReport("g", "sm_90", 32, 0)])


@pytest.mark.parametrize(
    ("registers", "share"), [(32, 1.0), (33, 0.75), (40, 0.75), (48, 0.625), (255, 0.125)]
)
def test_occupancy_is_that_of_nvidias_table(registers: int, share: float) -> None:
    assert KernelReport("f", "sm_90", registers, 0).occupancy == share


# ---------------------------------------------------------------------------- the model


def test_predicted_times_are_bytes_launches_and_waits(tools: tuple[Any, Any]) -> None:
    report = tools[1]
    counts = report.Counts(1000, 30, 8e9, 10, 4e9, 5, 1.0)
    expected = 8e9 / (report.SHARE * 2e12) + 30 * report.LAUNCH + 5 * report.WAIT
    assert counts.seconds(2e12) == pytest.approx(expected)
    fine = counts.refined()
    assert (fine.cells, fine.launches, fine.heat_launches) == (8000, 40, 20)
    assert fine.bytes == pytest.approx(8 * (4e9 + 2 * 4e9))  # all else, and twice as many stages


def test_joined_cases_are_counted_together(tools: tuple[Any, Any]) -> None:
    report = tools[1]
    coarse = dict.fromkeys(("restrict_sum", "prolongate_add", "coarsen_links"), 64.0)
    one, three = (report.count_joined(24, n, coarse) for n in (1, 3))
    assert three.cells == 3 * one.cells == 3 * 24**3
    assert 2.0 < three.bytes / one.bytes < 4.0  # cases differ
    assert three.launches < 2.2 * one.launches
    assert three.waits < 2.2 * one.waits
