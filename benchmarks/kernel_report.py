"""What the CUDA kernels need and ask for, and the time that a model predicts for them: docs/performance.md.

python benchmarks/kernel_report.py                 rewrites the section from the kernels and the kept counts
python benchmarks/kernel_report.py --count 64 128  counts the launches of the demo anew (some minutes)

No GPU is needed, and no time in that section is measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from kernel_traffic import LAYOUT, TWO_GRIDS, grid_kernels, moved, traffic
from launches import bytes_per_cell

from thermosim.backends.base import Backend, Call, KernelSignature, kernel_digest, kernel_signatures
from thermosim.backends.cpu import CpuBackend
from thermosim.backends.nvrtc import ARCHITECTURES, check
from thermosim.backends.of_cases import MOST_CASES

HERE = Path(__file__).resolve().parent
COUNTS = HERE / "launch_counts.json"
DOCUMENT = HERE.parent / "docs" / "performance.md"
BEGIN, END = "<!-- gpu: written by benchmarks/kernel_report.py -->", "<!-- end of gpu -->"

BANDWIDTH = {"A100": 2.039e12, "H100": 3.35e12, "H200": 4.8e12, "B200": 8e12, "RTX 4090": 1.008e12}
"""Of the memory [B/s], by NVIDIA's data sheets (A100 of 80 GB, H100 and H200: SXM)."""

SHARE = 0.8
"""Of that bandwidth, which a kernel is assumed to reach. Streaming kernels reach about 0.9 of it."""

LAUNCH = 2.5e-6
"""What a launch is assumed to cost beside its traffic [s]: start, ramp and tail; in a graph, too."""

WAIT = 20e-6
"""What it is assumed to cost when the host waits for numbers, until the next kernel runs [s]."""

JOINED = f"{MOST_CASES} cases of 64"
"""Key of the counts of joined cases."""

LIST_BYTES = 64.0
"""Of an entry of a list beside walls and needles, all its gathers included; lists are short."""


PLANE_BYTES = 16.0
"""Of a cell of one plane of ghost cells: conductances of the faces there."""


@dataclass(frozen=True)
class Counts:
    """What a treatment launches, the bytes that its launches have to move, and how often the host waits.

    `host_seconds`: processor time of Python outside kernels, fitting of links to needles included.
    """

    cells: int
    launches: int
    bytes: float
    heat_launches: int
    heat_bytes: float
    waits: int
    host_seconds: float

    def seconds(self, bandwidth: float) -> float:
        """Predicted time on the device, and of waits, without what Python does itself."""
        return self.bytes / (SHARE * bandwidth) + LAUNCH * self.launches + WAIT * self.waits

    def refined(self) -> Counts:
        """At half the spacing: eight times the cells, twice as many stages; all else as often."""
        return replace(
            self,
            cells=8 * self.cells,
            launches=self.launches + self.heat_launches,
            bytes=8.0 * (self.bytes + self.heat_bytes),
            heat_launches=2 * self.heat_launches,
            heat_bytes=16.0 * self.heat_bytes,
        )


class CountingBackend(CpuBackend):
    """Launches kernel by kernel, as a GPU does, and counts."""

    take, put, write, sums, maxima = (
        *(Backend.take, Backend.put, Backend.write),
        *(Backend.sums, Backend.maxima),
    )

    def __init__(self, coarse_bytes: dict[str, float], threads: int = 0) -> None:
        super().__init__(threads)
        self.coarse_bytes = coarse_bytes
        self.stages = {"first_stage", "next_stage", "add_walls", "book_walls", "temperature_of"}
        self._each: dict[tuple[str, tuple[int, ...], int], float] = {}
        self.n_launches = self.n_heat = self.n_waits = 0
        self.n_bytes = self.n_heat_bytes = self.kernel_seconds = 0.0

    def program(self, calls: Sequence[Call]) -> Callable[[], None]:
        return Backend.program(self, calls)

    def fetch(self, *arrays: Any) -> Any:
        self.n_waits += 1
        return super().fetch(*arrays)

    def _launch(self, signature: KernelSignature, extent: tuple[int, ...], arguments: Sequence[Any]) -> None:
        self.launch_together(signature, [extent], [arguments])

    def launch_together(
        self, signature: KernelSignature, extents: Sequence[tuple[int, ...]], cases: Sequence[Any]
    ) -> None:
        begun = time.thread_time()
        n, moved = -(-len(cases) // MOST_CASES), 0.0
        for extent, arguments in zip(extents, cases, strict=True):
            super()._launch(signature, extent, arguments)
            moved += self._moved(signature, extent, arguments)
        self.n_launches += n
        self.n_bytes += moved
        if signature.name in self.stages:
            self.n_heat += n
            self.n_heat_bytes += moved
        self.kernel_seconds += time.thread_time() - begun

    def counts(self, cells: int, waits: int, seconds: float) -> Counts:
        """What was counted; `seconds` of the processor in all."""
        return Counts(
            cells,
            self.n_launches,
            self.n_bytes,
            self.n_heat,
            self.n_heat_bytes,
            waits,
            seconds - self.kernel_seconds,
        )

    def _moved(self, signature: KernelSignature, extent: tuple[int, ...], arguments: Sequence[Any]) -> float:
        if not signature.has_grid:
            return LIST_BYTES * extent[0]
        key = (signature.name, extent, len({id(a) for a in arguments}))  # an array given twice is moved once
        if key not in self._each:
            each = bytes_per_cell(signature, extent, arguments)
            self._each[key] = self.coarse_bytes.get(signature.name, PLANE_BYTES) if each is None else each
        return self._each[key] * extent[0] * extent[1] * extent[2]


def count(size: int, coarse_bytes: dict[str, float]) -> Counts:
    """Run the demo with `size` cells an edge on the processor, and count."""
    from problems import demo_problem

    from thermosim.simulation import Simulation

    backend = CountingBackend(coarse_bytes)
    simulation = Simulation(demo_problem(size), backend)
    begun = time.thread_time()
    simulation.run()
    seconds = time.thread_time() - begun
    return backend.counts(size**3, backend.n_waits, seconds)


def count_joined(size: int, n: int, coarse_bytes: dict[str, float]) -> Counts:
    """Run so many perturbed cases of the demo joined, on one thread, and count: figures of all together."""
    from problems import BOX_MM, perturbed_cases

    from thermosim.backends.joined import Conductor
    from thermosim.build import Anatomies, build_problem, load_case
    from thermosim.simulation import SimulationResult, run

    anatomies = Anatomies()
    plan = load_case("demo", [f"grid.spacing_mm={BOX_MM / size}"])
    problems = [build_problem(case, anatomies)[0] for case in perturbed_cases(plan, n, anatomies)]
    backend = CountingBackend(coarse_bytes, threads=1)
    conductor = Conductor[SimulationResult](backend)
    begun = time.process_time()
    for _, _, error in conductor.run([partial(run, problem) for problem in problems], n):
        if error is not None:
            raise error
    return backend.counts(n * size**3, conductor.n_waits, time.process_time() - begun)


def kernel_table() -> str:
    """Every kernel: registers, bytes per cell, sector efficiency and predicted time per launch at 256³."""
    reports = {(r.kernel, r.architecture): r for r in check()}
    names = sorted(kernel_signatures())
    seen = traffic(grid_kernels())
    devices = list(BANDWIDTH)
    lines = [
        "| kernel | registers "
        + ", ".join(ARCHITECTURES)
        + " | B/cell | sectors used | moved, least = 1 | without a cache | "
        + " | ".join(f"{device} [µs]" for device in devices)
        + " |",
        "| --- |" + " --- |" * (5 + len(devices)),
    ]
    for name in names:
        registers = ", ".join(str(reports[name, architecture].registers) for architecture in ARCHITECTURES)
        if name in seen:
            each = kernel_bytes(name, seen)
            cells = 128**3 if name in TWO_GRIDS else 256**3
            times = [LAUNCH + each * cells / (SHARE * BANDWIDTH[d]) for d in devices]
            figures = [f"{each:.0f}", f"{100 * seen[name].global_efficiency:.0f} %"]
            figures += [f"{b / each:.2f}" for b in moved(seen[name], LAYOUT.n_cells)]
            figures += [f"{1e6 * t:.0f}" for t in times]
        else:
            figures = ["list", "–", "–", "–"] + [f"{1e6 * LAUNCH:.1f}"] * len(devices)
        lines.append(f"| `{name}` | {registers} | " + " | ".join(figures) + " |")
    return "\n".join(lines)


def kernel_bytes(name: str, seen: dict[str, Any]) -> float:
    """Bytes per cell that a kernel on a grid has to move; per coarse cell where it works on two grids."""
    from kernel_traffic import arguments_for

    signature = kernel_signatures()[name]
    if name in TWO_GRIDS:
        return float(seen[name].unique_read + seen[name].unique_written) / LAYOUT.n_cells
    arguments = (*LAYOUT.arguments, *arguments_for(CpuBackend(1), signature, LAYOUT))
    counted = bytes_per_cell(signature, LAYOUT.shape, arguments)
    assert counted is not None
    return counted


def treatment_table(counts: dict[str, Counts]) -> str:
    """Whole treatments: launches, bytes, waits, and predicted seconds."""
    devices = list(BANDWIDTH)
    lines = [
        "| 12 min, three needles | launches | GB moved | waits | "
        + " | ".join(f"{device} [s]" for device in devices)
        + " |",
        "| --- |" + " --- |" * (5 + len(devices)),
    ]
    rows = [("2 mm, 64³", counts["64"], 1.0), ("1 mm, 128³", counts["128"], 1.0)]
    rows += [("0.5 mm, 256³ (scaled from 1 mm)", counts["128"].refined(), 1.0)]
    rows += [("1,000 cases of 2 mm, one after another", counts["64"], 1000.0)]
    rows += [(f"1,000 cases of 2 mm, {MOST_CASES} joined", counts[JOINED], 1000 / MOST_CASES)]
    for name, of, times in rows:
        numbers = (times * of.launches, times * of.bytes / 1e9, times * of.waits)
        figures = [f"{number:,.0f}" for number in numbers]
        figures += [f"{times * of.seconds(BANDWIDTH[device]):.3g}" for device in devices]
        lines.append(f"| {name} | " + " | ".join(figures) + " |")
    return "\n".join(lines)


def section(kept: dict[str, Any]) -> str:
    """The text between the markers."""
    counts = {size: Counts(**values) for size, values in kept["counts"].items()}
    stale = "" if kept["kernel_digest"] == kernel_digest() else " The kernels have changed since."
    host = ", ".join(f"{c.host_seconds:.2g} s at {size}³" for size, c in counts.items() if size != JOINED)
    each = counts[JOINED].host_seconds / MOST_CASES
    grid = " × ".join(str(n) for n in LAYOUT.shape)
    terabytes = ", ".join(f"{device} {bandwidth / 1e12:.3g}" for device, bandwidth in BANDWIDTH.items())
    return f"""{BEGIN}

**Measured on a GPU: none at hand.** All times here are predicted by a model of bandwidth and launches: bytes
over {100 * SHARE:.0f} % of the data sheet's bandwidth ({terabytes} TB/s),
{1e6 * LAUNCH:.1f} µs for each launch, {1e6 * WAIT:.0f} µs each time that the host waits.

No kernel spills registers or uses a stack (`python -m thermosim.backends.nvrtc --check`). B/cell: each field
once if it is read and once if it is written, at 256³: the least that the method needs; per coarse cell, of
128³, for `coarsen_links`, `prolongate_add` and `restrict_sum`. The PTX interpreter counts the 32-byte
sectors of global memory on a grid of {grid} cells. Sectors used: bytes asked for over those of the
sectors, access by access. Moved: bytes of the sectors over the least. There a sector counts once if the
launch reads it and once if it writes it: what neighbours in other rows and planes ask for again comes from
the second cache (three planes of 256² cells of eight fields are 6.3 MB, an A100 has 40 MB); ghost cells,
tables and sums of rows count; `prepare_step` reads k in rows on the border alone. Without a cache: the same
with every access of every warp, those to rows that all share included.

{kernel_table()}

Launches and bytes of the demo were counted on the processor, kernel by kernel.{stale} Steps and V-cycles are
replayed as CUDA graphs.

{treatment_table(counts)}

Python and the fitting of links beside the needles come on top, and on a GPU they are what takes longest:
{host} of processor time, counted with a launch by itself of
every kernel, which graphs save.

Joined cases (`backends/joined.py`) were counted, too: {MOST_CASES} perturbed ones of 2 mm, each with its own
time steps. They save launches and waits and no Python, which took {each:.2g} s of one core for each of them,
fitting and handing over included: that is what a case of a batch on a GPU takes then, unless several workers
share the GPU.

{END}"""


def main(words: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", nargs=2, type=int, metavar="CELLS", help="count the demo's launches anew")
    options = parser.parse_args(words)
    if options.count:
        seen = traffic(TWO_GRIDS)
        coarse = {name: kernel_bytes(name, seen) for name in TWO_GRIDS}
        counts = {str(size): asdict(count(size, coarse)) for size in options.count}
        counts[JOINED] = asdict(count_joined(64, MOST_CASES, coarse))
        COUNTS.write_text(json.dumps({"kernel_digest": kernel_digest(), "counts": counts}, indent=1) + "\n")
    if not COUNTS.is_file():
        print("kernel_report: error: no counts kept; run it with --count 64 128", file=sys.stderr)
        return 2
    text = DOCUMENT.read_text()
    if BEGIN not in text or END not in text:
        print(f"kernel_report: error: {DOCUMENT.name} has no place for the section", file=sys.stderr)
        return 2
    before, rest = text.split(BEGIN)
    DOCUMENT.write_text(before + section(json.loads(COUNTS.read_text())) + rest.split(END)[1])
    print(f"written: {DOCUMENT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
