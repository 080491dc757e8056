"""Tiles change nothing: a program leaves bit for bit what its kernels leave one after the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from solver_cases import needle, plain_anatomy, small_problem

from thermosim.backends import cpu_program
from thermosim.backends.base import Backend, Call, Layout, kernel_signatures, row_starts
from thermosim.backends.cpu import CpuBackend
from thermosim.config import GeneratorConfig, SegmentConfig
from thermosim.numerics.leaks import Leaks
from thermosim.simulation import run

SHAPES = [(13, 17, 11), (8, 24, 9), (1, 30, 5), (16, 5, 6)]
TILES = [(1, 1), (2, 3), (3, 8), (64, 64)]


def tiled(monkeypatch: pytest.MonkeyPatch, planes: int, rows: int, length: int) -> None:
    monkeypatch.setattr(cpu_program, "CACHED_CELLS", 0)
    monkeypatch.setattr(cpu_program, "TILE_PLANES", planes)
    monkeypatch.setattr(cpu_program, "TILE_CELLS", rows * length)


def cycle_like(backend: Backend, layout: Layout, fields: dict[str, np.ndarray]) -> list[Call]:
    """What multigrid and heat do: points, neighbours, overwriting, lists, rows, and a coarser grid."""
    f, f32, call = fields, np.float32, backend.call_on_cells
    leaks = Leaks(backend, layout, np.flatnonzero(f["leak"]))
    leaks.set_all(f["leak"])
    links = (f["gx"], f["gy"], f["gz"], *leaks.arrays)
    coarse = Layout(tuple(-(-n // 2) for n in layout.shape))  # type: ignore[arg-type]
    cells = np.flatnonzero(np.arange(layout.n_cells) % 7 == 3)
    place = (np.int32(layout.sx), np.int32(layout.sy), np.int32(layout.origin))
    beside = (layout.memory_index(cells), np.linspace(0.5, 1.5, len(cells), dtype=f32))
    return [
        call("face_conductance", layout, f["k"], *links[:3]),
        *(call("face_conductance", layout.lower_ghosts(a), f["k"], *links[:3]) for a in range(3)),
        backend.call_on_entries("scale_faces", layout, row_starts(cells, layout.shape), *beside, f["gx"]),
        call("smooth_from_zero", layout, f32(0.7), f["b"], *links, f["y"]),
        call("smooth", layout, f32(0.2), f32(0.0), f32(0.8), f["b"], *links, f["y"], f["x"], f["x"]),
        call("smooth", layout, f32(0.2), f32(0.2), f32(0.8), f["b"], *links, f["x"], f["y"], f["y"]),
        call("residual", layout, f["b"], f["y"], *links, f["x"]),
        call("restrict_sum", coarse, *place, f["x"], f["coarse"], ratio=2),
        call("prolongate_add", coarse, *layout.arguments, f["coarse"], f["y"], ratio=2),
        call("smooth", layout, f32(0.2), f32(0.2), f32(0.8), f["b"], *links, f["y"], f["x"], f["x"]),
        call("dot", layout, f["b"], f["x"], f["rows"]),
        call("search_direction", layout, f["x"], f32(0.4), f["y"]),
    ]


def made(layout: Layout) -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    fields = {name: np.zeros(layout.size, np.float32) for name in ("gx", "gy", "gz", "x", "y", "b", "k")}
    for name in ("b", "k"):
        inside = layout.interior(fields[name])
        inside[:] = random.uniform(0.1, 1.0, inside.shape)
    # ends of some rows, the whole of others, none of the rest
    leak = random.uniform(0.1, 1.0, layout.shape).astype(np.float32)
    leak[1::3, :, 1:-1] = leak[2::3] = 0.0
    fields["leak"] = leak
    coarse = Layout(tuple(-(-n // 2) for n in layout.shape))  # type: ignore[arg-type]
    return {**fields, "coarse": np.zeros(coarse.size, np.float32), "rows": np.zeros(layout.n_rows)}


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("shape", SHAPES)
def test_tiles_change_nothing(
    shape: tuple[int, int, int], tile: tuple[int, int], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, backend = Layout(shape), CpuBackend(threads)
    wanted, found = made(layout), made(layout)
    plain: Callable[[], None] = Backend.program(backend, cycle_like(backend, layout, wanted))
    tiled(monkeypatch, *tile, shape[2])
    by_tiles = backend.program(cycle_like(backend, layout, found))
    for _ in range(2):
        plain()
        by_tiles()
    for name, values in wanted.items():
        assert np.array_equal(values, found[name]), name


@pytest.mark.parametrize("n", [3, 4, 5])
def test_lists_as_long_as_another_array(n: int) -> None:
    """The four coefficients of a stage are not one value per link, however many links there are."""
    layout, backend = Layout((8, 8, 8)), CpuBackend(1)
    cells = np.array([10, 100, 300, 400, 450])[:n]
    starts, where = row_starts(cells, layout.shape), layout.memory_index(cells)
    factor, wall = np.ones(n, np.float32), np.zeros(n, np.float32)
    T, k = backend.field(layout, 2.0), backend.field(layout, 1.0)
    schemes = backend.asarray(np.array([0.0, 0.0, 1.0, 0.0, 5.0, 6.0, 7.0, 8.0]), "float32")
    booked, scratch, u = np.zeros(n), backend.field(layout), backend.field(layout)
    stage, first = schemes[:4], np.int32(1)
    ledger = (np.zeros(n), booked, np.zeros(n))
    beside = (where, factor, wall, T, k)
    capacity = (backend.field(layout, 1.0), np.float32(1.0))
    backend.program(
        [
            backend.call_on_cells("scale_add", layout, np.float32(0), scratch, np.float32(0), scratch),
            backend.call_on_entries("book_walls", layout, starts, *beside, stage, first, *ledger),
            backend.call_on_entries(
                "add_walls", layout, starts, *beside, *capacity, stage, first, scratch, u
            ),
        ]
    )()
    assert booked.tolist() == [2.0] * n  # factor k (T − T_wall)
    assert u[where].tolist() == [-2.0] * n


def test_arrays_by_entry_are_read_from_the_source() -> None:
    signatures = kernel_signatures()
    assert signatures["add_walls"].by_entry == {"cell", "strength", "drive"}
    assert signatures["scale_faces"].by_entry == {"face", "factor"}
    assert not signatures["smooth"].by_entry


def test_a_treatment_by_tiles_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    case = small_problem(
        anatomy=plain_anatomy((15, 17, 13), 3e-3),
        electrodes=(needle(),),
        generator=GeneratorConfig(mode="constant_power", power=40.0),  # boils
        segments=[SegmentConfig(duration_min=1.0)],
    )
    whole = run(case, CpuBackend(2))
    tiled(monkeypatch, 2, 3, 13)
    by_tiles = run(case, CpuBackend(2))
    assert whole.highest_temperature.max() > 99.0
    for name in ("temperature", "damage_integral", "dead_fraction", "electric_potential"):
        assert np.array_equal(getattr(whole, name), getattr(by_tiles, name)), name
    assert whole.audit == by_tiles.audit


def test_who_waits_for_whom() -> None:
    backend, layout = CpuBackend(1), Layout((6, 6, 6))
    fields = made(layout)
    calls = cycle_like(backend, layout, fields)
    addresses = [[v.__array_interface__["data"][0] for v in call.arguments if v.ndim] for call in calls]
    lags = cpu_program.lags(calls, addresses)
    names = [call.signature.name for call in calls]
    assert lags[names.index("smooth_from_zero")] == lags[names.index("scale_faces")] + 1  # reads gx below
    first = names.index("smooth")
    assert lags[first] == lags[first - 1] + 1
    assert lags[names.index("restrict_sum")] == lags[names.index("residual")]  # a cell's own children
    assert lags[names.index("dot")] == lags[names.index("dot") - 1]


def test_every_kernel_that_reads_neighbours_says_so() -> None:
    for signature in kernel_signatures().values():
        assert signature.around <= {name for _, name in signature.parameters}
    around = {name for name, s in kernel_signatures().items() if s.around}
    assert around >= {"smooth", "residual", "first_stage", "next_stage", "face_conductance", "apply_and_dot"}
