"""What the compiled CUDA kernels ask of memory, counted by the PTX interpreter of `tests/ptx`.

Kernels run alone on fields of one value, in the shape of launch that the CUDA backend gives them. Which
parameters are fields and which are tables by label is read from the source.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from thermosim.backends.base import KernelSignature, Layout, kernel_signatures
from thermosim.physics.bioheat import EVERY_SIDE
from thermosim.resources import kernel_directory

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from ptx import Statistics, stand_in
from ptx.statistics import SECTOR

LAYOUT = Layout((16, 32, 128))
"""Rows of whole warps, as those of any grid whose edge is a multiple of 32, and few ghost cells."""

TWO_GRIDS = {"restrict_sum", "prolongate_add", "coarsen_links"}
"""Kernels that work on fields of two levels; theirs is the coarser."""


OF_ROWS = {"sum_parts", "max_parts"}
"""Kernels that work on what others leave per row: as good as lists."""


def is_table(signature: KernelSignature, parameter: str) -> bool:
    """Whether a parameter is a table by label: ``name[label[p]]``, or with the label in `l`."""
    text = (kernel_directory() / f"{signature.source}.cu").read_text()
    start = text.index(f"KERNEL {signature.name}(")
    body = text[start : text.index("\n}", start)]
    return re.search(rf"\b{parameter}\[(?:l|label\[p\])\]", body) is not None


def arguments_for(backend: Any, signature: KernelSignature, layout: Layout) -> tuple[Any, ...]:
    """Arguments of a kernel on a grid: fields of ones, labels 0, tables of ones, numbers ½."""
    other = Layout((2 * layout.shape[0], 2 * layout.shape[1], 2 * layout.shape[2]))
    found: list[Any] = []
    for c_type, name in signature.parameters:
        fine = signature.name in TWO_GRIDS and name.startswith("fine")
        place = dict(
            zip(("nx", "ny", "nz", "sx", "sy", "origin"), (int(v) for v in other.arguments), strict=True)
        )
        if name == "leak_rows":  # no row has links to walls
            found.append(backend.asarray(np.zeros(2 * layout.n_rows), "int32"))
        elif name == "leak":
            found.append(backend.full(4 * layout.sy, 0.0, "float32"))
        elif c_type == "unsigned char*":
            found.append(backend.field(layout, 0, "uint8"))
        elif c_type == "double*":
            found.append(backend.full(16 * layout.n_rows, 0.0, "float64"))
        elif c_type == "float*" and (is_table(signature, name) or name == "scheme"):
            found.append(backend.full(4, 1.0, "float32"))
        elif c_type == "float*":
            found.append(backend.field(other if fine else layout, 1.0))
        elif name == "sides":
            found.append(np.int32(EVERY_SIDE))
        elif c_type == "int":
            found.append(np.int32(place[name.removeprefix("fine_")] if name.startswith("fine_") else 1))
        else:
            found.append(np.float32(0.5))
    return tuple(found)


def traffic(kernels: Iterable[str], layout: Layout = LAYOUT, n_cases: int = 0) -> dict[str, Statistics]:
    """What one launch of each of these kernels on a grid asks of memory, or one over `n_cases` cases."""
    found: dict[str, Statistics] = {}
    with stand_in.installed() as watch:
        from thermosim.backends.cuda import CudaBackend

        def keep(kernel: Any, grid: Any, block: Any, arguments: Any, _checks: Any) -> Statistics:
            found[kernel.name] = kernel(grid, block, arguments)
            return found[kernel.name]

        backend = CudaBackend(0)
        watch.launch = keep
        for name in kernels:
            signature = kernel_signatures()[name]
            given = arguments_for(backend, signature, layout)
            whole = (*layout.arguments, *given)
            if n_cases:
                packed = backend.for_cases(signature, whole)
                backend.launch_together(signature, [layout.shape] * n_cases, [packed] * n_cases)
            else:
                backend._launch(signature, layout.shape, whole)
    return found


def moved(seen: Statistics, n_cells: int) -> tuple[float, float]:
    """Bytes per cell of the sectors that a launch moves, those with sums of rows and tables included.

    The first counts a sector once if the launch reads it, and once if it writes it, however many cells ask
    for it as their neighbours', as if the planes that are in use stay in the second cache. The second counts
    it once for each access of a warp, as without any cache.
    """
    every = seen.global_load.sectors + seen.global_store.sectors
    return SECTOR * seen.unique_sectors / n_cells, SECTOR * every / n_cells


def grid_kernels() -> list[str]:
    """Kernels that work on cells or rows of a grid."""
    return sorted(
        name for name, signature in kernel_signatures().items() if signature.has_grid and name not in OF_ROWS
    )
