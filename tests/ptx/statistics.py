"""What a launch moved: requests, bytes and 32-byte sectors of each instruction, and of the whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ptx.launch import Launch
    from ptx.memory import Region
    from ptx.threads import Chosen, Threads

SECTOR = 32
REQUESTS, BYTES, SECTORS, IDEAL = range(4)


@dataclass
class Traffic:
    """Loads or stores in one space: warps' requests, bytes asked for, and what serves them.

    `sectors`: 32-byte pieces of global memory, or, in shared memory, passes over its banks; `ideal` is
    how many passes it would be without conflicts. `used`: bytes of the sectors that somebody asked for; of an
    instruction whose threads ask for the same bytes no more than its sectors hold.
    """

    requests: int = 0
    bytes: int = 0
    used: int = 0
    sectors: int = 0
    ideal: int = 0

    @property
    def efficiency(self) -> float:
        """Bytes asked for over bytes moved."""
        return self.bytes / (SECTOR * self.sectors) if self.sectors else 1.0

    @property
    def bank_conflicts(self) -> int:
        """Passes over the banks of shared memory beyond the least."""
        return self.sectors - self.ideal

    def add(self, counts: NDArray[np.int64]) -> None:
        self.requests += int(counts[REQUESTS])
        self.bytes += int(counts[BYTES])
        self.used += min(int(counts[BYTES]), SECTOR * int(counts[SECTORS]))
        self.sectors += int(counts[SECTORS])
        self.ideal += int(counts[IDEAL])


@dataclass
class Statistics:
    """What a launch did; all counts are 0 unless `Checks.statistics`.

    `unique_read`, `unique_written`: bytes of global memory touched at least once; `unique_sectors`: 32-byte
    pieces of it that are read, and those that are written, each counted once. `thread_instructions`,
    `warp_instructions`: of PTX, not of the machine. `warnings`: legal, but worth a look.
    """

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    thread_instructions: int
    warp_instructions: int
    divergence: float
    warnings: dict[str, int]
    races: list[dict[str, Any]]
    unique_read: int = 0
    unique_written: int = 0
    unique_sectors: int = 0
    traffic: dict[str, Traffic] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Traffic:
        """`global_load`, `global_store`, `shared_load`, `shared_store`."""
        if name in ("global_load", "global_store", "shared_load", "shared_store"):
            return self.traffic.get(name, Traffic())
        raise AttributeError(name)

    @property
    def global_efficiency(self) -> float:
        """Bytes used over those of the sectors moved, loads and stores of global memory together."""
        parts = (self.global_load, self.global_store)
        sectors = sum(part.sectors for part in parts)
        return sum(part.used for part in parts) / (SECTOR * sectors) if sectors else 1.0


def count_global(
    counts: NDArray[np.int64], threads: Threads, region: Region, offset: Any, size: int, idx: Chosen, n: int
) -> None:
    """Book an access of `size` bytes a thread at these offsets of a region."""
    if np.ndim(offset) == 0:
        warps = threads.count_warps(idx)
        counts += (warps, n * size, warps, warps)
        return
    sector = (offset + (region.low & (SECTOR - 1))) >> 5
    if idx is None and threads.block_size % 32 == 0:
        rows = sector.reshape(-1, 32)
        steps = rows[:, 1:] - rows[:, :-1]
        warps = len(rows)
        if int(steps.min()) < 0:
            rows = np.sort(rows, axis=1)
            steps = rows[:, 1:] - rows[:, :-1]
        sectors = warps + int(np.count_nonzero(steps))
    else:
        warp = threads.warp if idx is None else threads.warp[idx]
        key = np.sort(warp * (1 << 40) + sector)
        sectors = 1 + int(np.count_nonzero(key[1:] != key[:-1]))
        warps = 1 + int(np.count_nonzero(warp[1:] != warp[:-1]))
    counts += (warps, n * size, sectors, -(-n * size // SECTOR))


def count_shared(
    counts: NDArray[np.int64], threads: Threads, offset: Any, size: int, idx: Chosen, n: int
) -> None:
    """Book an access to shared memory: passes over its 32 banks of four bytes."""
    warps = threads.count_warps(idx)
    if np.ndim(offset) == 0:
        counts += (warps, n * size, warps, warps)
        return
    lanes_at_once = 32 if size <= 4 else 16 if size == 8 else 8
    me = threads.chosen(idx)
    group = threads.warp[me] * (32 // lanes_at_once) + (threads.lane[me] // np.uint32(lanes_at_once)).astype(
        int
    )
    _, group = np.unique(group, return_inverse=True)
    n_groups = int(group.max()) + 1
    words = [group * (1 << 30) + (offset >> 2) + k for k in range(max(1, size // 4))]
    key = np.unique(np.concatenate(words))
    bank = (key >> 30) * 32 + (key & 31)
    passes = np.bincount(bank, minlength=32 * n_groups).reshape(n_groups, 32).max(axis=1)
    counts += (warps, n * size, int(passes.sum()), n_groups)


def statistics_of(launch: Launch) -> Statistics:
    """The sums over a finished launch."""
    program, runs = launch.program, launch.block_runs
    lengths = np.array([block.n_instructions for block in program.blocks])
    of_threads, of_warps = (int((runs[:, k] * lengths).sum()) for k in (0, 1))
    slots = min(32, launch.block_size)
    made = Statistics(
        launch.kernel.name,
        launch.grid,
        launch.block,
        of_threads,
        of_warps,
        1.0 - of_threads / (slots * of_warps) if of_warps else 0.0,
        dict(launch.warnings),
        launch.races,
    )
    if launch.checks.statistics:
        for instruction in program.sites:
            counts = launch.counts[instruction.site]
            if counts[REQUESTS]:
                space = next(part for part in instruction.op[1:] if part in ("global", "shared"))
                kind = f"{space}_{'load' if instruction.op[0] == 'ld' else 'store'}"
                made.traffic.setdefault(kind, Traffic()).add(counts)
        for region in launch.regions:
            made.unique_read += int(np.count_nonzero(region.read_map))
            made.unique_written += int(np.count_nonzero(region.write_map))
            for touched in (region.read_map, region.write_map):
                starts = (np.flatnonzero(touched) + (region.low & (SECTOR - 1))) // SECTOR
                made.unique_sectors += len(np.unique(starts))
    return made
