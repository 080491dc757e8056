"""One launch: threads run in lockstep, block of instructions by block, always the earliest one first."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptx.accesses import Accesses
from ptx.errors import BarrierError, StepLimit, TrapError
from ptx.program import LEAVE
from ptx.statistics import Statistics, statistics_of
from ptx.text import Instruction
from ptx.threads import Chosen, source_line

u4, i4 = np.uint32, np.int32

Waiting = tuple[int, NDArray[np.int64], Any]
"""Threads at a barrier: its block of instructions, which threads, number of the barrier."""


class Launch(Accesses):
    """Runs the blocks of a grid, a batch at a time, and watches them."""

    def run(self) -> Statistics:
        """Run all blocks."""
        self.block_runs = np.zeros((len(self.program.blocks), 2), np.int64)  # threads, warps
        n_blocks = self.grid[0] * self.grid[1] * self.grid[2]
        at_once = max(1, self.checks.batch_threads // self.block_size)
        with np.errstate(all="ignore"):
            for first in range(0, n_blocks, at_once):
                self.set_batch(first, min(at_once, n_blocks - first))
                self._run_batch()
        return statistics_of(self)

    def set_batch(self, first_block: int, n_blocks: int) -> None:
        super().set_batch(first_block, n_blocks)
        self.registers: list[Any] = list(self.program.defaults)
        self.alive = np.ones(self.n, bool)
        self.n_alive = self.n
        self.block_epoch, self.warp_epoch = np.zeros(n_blocks, i4), np.zeros(self.n_warps, i4)
        self._alive_lanes: NDArray[np.uint32] | None = None
        self._ready: dict[int, Chosen] = {0: None}
        self._waiting: list[Waiting] = []

    def scatter(self, slot: int, value: Any, idx: NDArray[np.int64], n: int) -> None:
        """Give some threads a new value of a register."""
        if value.ndim == 0 and n == self.n_alive:
            self.registers[slot] = value
            return
        held = self.registers[slot]
        if held.ndim == 0:
            whole = n == self.n_alive and value.ndim
            held = np.empty(self.n, value.dtype) if whole else np.full(self.n, held)
            self.registers[slot] = held
        elif not held.flags.writeable:
            held = self.registers[slot] = held.copy()
        held[idx] = value

    # ------------------------------------------------------------------ scheduling

    def _merge(self, number: int, idx: Chosen) -> None:
        """Let threads go on at this block of instructions."""
        if number not in self._ready:
            self._ready[number] = None if idx is not None and len(idx) == self.n else idx
            return
        both = np.zeros(self.n, bool)
        for some in (self._ready[number], idx):
            both[slice(None) if some is None else some] = True
        merged = np.flatnonzero(both)
        self._ready[number] = None if len(merged) == self.n else merged

    def _leave(self, idx: Chosen) -> None:
        self.alive[slice(None) if idx is None else idx] = False
        self.n_alive -= self.n if idx is None else len(idx)
        self._alive_lanes = None

    def _go(self, target: int, idx: Chosen) -> None:
        if target == self.program.exit:
            self._leave(idx)
        else:
            self._merge(target, idx)

    def _run_batch(self) -> None:
        steps = 0
        while self._ready or self._waiting:
            if not self._ready:
                self._release(final=True)
                continue
            number, idx = self._next(steps)
            if number < 0:
                continue
            block = self.program.blocks[number]
            steps += 1
            if steps > self.checks.most_steps:
                raise StepLimit(
                    f"kernel {self.kernel.name}: more than {self.checks.most_steps} steps in one batch "
                    f'(endless loop, or waiting for another block?) at "{block.instructions[0].text}"'
                )
            n = self.n if idx is None else len(idx)
            work = block.full if idx is None else block.part
            assert work is not None
            result = work(self, self.registers, idx, n)
            if self.checks.statistics:
                self.block_runs[number] += (n, self.count_warps(idx))
            end = block.end
            if end is None:
                self._merge(number + 1, idx)
            elif end.op[0] == "bra" or end.op[0] in LEAVE:
                self._branch(number, block.successors[0], end.guard is not None, result, idx, n)
            elif end.op[0] == "trap":
                self._leave(idx)
            elif idx is None and result.ndim == 0:  # all threads of all blocks
                self.block_epoch += 1
                self._merge(number + 1, None)
            else:
                self._waiting.append((number, self.chosen(idx), result))

    def _next(self, steps: int) -> tuple[int, Chosen]:
        """The earliest block of instructions whose threads can run; −1: look again."""
        order = sorted(self._ready)
        if len(order) > 1 and steps % 512 == 511:  # let those behind a spinning loop go on, too
            order = order[1:] + order[:1]
        for number in order:
            idx, meeting = self._ready[number], self.program.blocks[number].meeting
            if meeting is None or idx is None:
                return number, self._ready.pop(number)
            here = self._all_here(meeting, idx)
            if here is None:
                return number, self._ready.pop(number)
            if here.any():
                self._ready.pop(number)
                if not here.all():
                    self._ready[number] = idx[~here]
                return number, idx[here]
        n_waiting = len(self._waiting)
        if n_waiting:
            self._release(final=False)
            if len(self._waiting) != n_waiting:
                return -1, None
        stuck = self.program.blocks[order[0]].meeting
        assert stuck is not None
        raise BarrierError(
            f"{self.where(stuck.site, self._ready[order[0]], 0)}: deadlock, threads that the warp's mask "
            "names never arrive"
        )

    def _branch(self, number: int, target: int, guarded: bool, taken: Any, idx: Chosen, n: int) -> None:
        if not guarded:
            self._go(target, idx)
            return
        count = (n if taken else 0) if taken.ndim == 0 else int(np.count_nonzero(taken))
        if count in (0, n):
            self._go(target if count else number + 1, idx)
            return
        yes, no = np.flatnonzero(taken), np.flatnonzero(~taken)
        self._go(target, yes if idx is None else idx[yes])
        self._merge(number + 1, no if idx is None else idx[no])

    def trap(self, site: int, idx: Chosen) -> None:
        """The kernel stops itself."""
        raise TrapError(f"{self.where(site, idx, 0)}: trap")

    # ------------------------------------------------------------------ barriers

    def _release(self, final: bool) -> None:
        """Let blocks go on all of whose threads wait at one barrier; `final`: nobody else can come."""
        size = self.block_size
        at, barrier = np.full(self.n, -1, i4), np.full(self.n, -1, np.int64)
        for number, idx, which in self._waiting:
            at[idx], barrier[idx] = number, which
        at, barrier = at.reshape(-1, size), barrier.reshape(-1, size)
        waits = at.max(axis=1) >= 0
        complete = waits & (at.min(axis=1) == at.max(axis=1)) & (barrier.min(axis=1) == barrier.max(axis=1))
        if final and (waits & ~complete).any():
            self._fault_barrier(at, int(np.flatnonzero(waits & ~complete)[0]))
        if not complete.any():
            if final:
                number, idx, _ = self._waiting[0]
                end = self.program.blocks[number].end
                assert end is not None
                raise BarrierError(f"{self.where(end.site, idx, 0)}: deadlock at a barrier")
            return
        self.block_epoch[complete] += 1
        waiting, self._waiting = self._waiting, []
        for number, idx, which in waiting:
            go = complete[self.slot[idx]]
            if go.any():
                self._merge(number + 1, idx[go])
            if not go.all():
                rest = which if which.ndim == 0 else which[~go]
                self._waiting.append((number, idx[~go], rest))

    def _fault_barrier(self, at: NDArray[np.int32], slot: int) -> None:
        """Some threads of a block wait, others have left or wait elsewhere."""
        row = at[slot]
        here = int(np.flatnonzero(row == row.max())[0])
        other = int(np.flatnonzero(row != row.max())[0]) if (row != row.max()).any() else here
        end = self.program.blocks[int(row[here])].end
        assert end is not None
        what = "has exited"
        if row[other] >= 0:
            there = self.program.blocks[int(row[other])].end
            assert there is not None
            what = f'waits at "{there.text}"{source_line(there)}'
        first = slot * self.block_size
        raise BarrierError(
            f"{self.where(end.site, None, first + here)}: divergent barrier: this thread waits, but "
            f"{self.name_of(first + other)} {what}"
        )

    # ------------------------------------------------------------------ warps

    def _all_here(self, meeting: Instruction, idx: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """Whose warp is complete, by the mask of the instruction; None: all."""
        operand = meeting.operands[-1]
        mask: Any
        if operand[0] == "i":
            mask = u4(operand[1] & 0xFFFFFFFF)
        else:
            mask = self.registers[self.program.slot[operand[1]]].view(u4)
            mask = mask[idx] if mask.ndim else mask
        if self._alive_lanes is None:
            self._alive_lanes = self.lane_bits(np.flatnonzero(self.alive))
        warp = self.warp[idx]
        missing = mask & self._alive_lanes[warp] & ~self.lane_bits(idx)[warp]
        if missing.any():
            return np.asarray(missing == 0)
        if self.block_size % 32 == 0 and ((mask & ~self._alive_lanes[warp]) != 0).any():
            self.warn("warp_mask_names_exited_threads")
        return None

    def shuffle(self, mode: str, a: Any, b: Any, c: Any, idx: Chosen, n: int) -> tuple[Any, Any]:
        """Values of other lanes, and whether there was one."""
        me = self.chosen(idx)
        lane = self.lane[me].astype(i4)
        step, segment, limit = ((v & u4(31)).astype(i4) for v in (b, c >> u4(8), c))
        last = (lane & segment) | (limit & ~segment)
        if mode == "up":
            source, exists = lane - step, lane - step >= last
        elif mode == "down":
            source, exists = lane + step, lane + step <= last
        else:
            source = lane ^ step if mode == "bfly" else (lane & segment) | (step & ~segment)
            exists = source <= last
        exists = np.broadcast_to(exists, (n,))
        place = self.first_of_warp[me] + np.where(exists, source, lane)
        a = np.full(n, a) if a.ndim == 0 else a
        if idx is None and self.block_size % 32 == 0:
            return a[place], exists
        # inactive lanes: undefined on hardware; the thread's own value here, and counted
        values, active = np.zeros(self.n + 32, a.dtype), np.zeros(self.n + 32, bool)
        values[me], active[me] = a, True
        good = active[place] & (place < (self.slot[me] + 1) * self.block_size)
        if not good.all():
            self.warn("shuffle_from_inactive_lane", int((~good).sum()))
        return values[np.where(good, place, me)], exists

    def vote(self, mode: str, p: Any, idx: Chosen, n: int) -> Any:
        """What the predicates of a warp's threads say together."""
        me = self.chosen(idx)
        warp = self.warp[me]
        yes = self.lane_bits(me[np.broadcast_to(p, (n,))])[warp]
        if mode == "ballot":
            return yes
        all_of_them = self.lane_bits(me)[warp]
        agreed = {"any": yes != 0, "all": yes == all_of_them, "uni": (yes == all_of_them) | (yes == 0)}
        return agreed[mode]

    def synchronise_warp(self, idx: Chosen) -> None:
        """`__syncwarp`: orders the memory of a warp's threads."""
        self.warp_epoch[slice(None) if idx is None else np.unique(self.warp[idx])] += 1
