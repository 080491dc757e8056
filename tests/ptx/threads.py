"""The threads of a launch: where they stand in their blocks, and how messages name them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptx.text import Instruction

if TYPE_CHECKING:
    from ptx.module import Kernel

u4, i4, i8 = np.uint32, np.int32, np.int64
Shape = tuple[int, int, int]
Chosen = NDArray[np.int64] | None
"""Which threads of a batch; None: all of them."""


@dataclass(frozen=True)
class Checks:
    """What a launch looks for, and how far.

    `races`: conflicting accesses that nothing orders, True raises, "collect" lists them. `initialised`:
    reads of what nobody wrote. `statistics`: bytes, sectors and instructions. Bounds, alignment and
    barriers are always checked. `batch_threads`: so many threads run at a time; `most_steps` ends loops.
    """

    races: bool | str = False
    initialised: bool = False
    statistics: bool = True
    batch_threads: int = 1 << 15
    most_steps: int = 5_000_000


@dataclass(frozen=True)
class _Places:
    """Coordinates of the threads of some blocks; slot: which block of the batch."""

    coordinates: dict[str, Any]
    lane: NDArray[np.uint32]
    slot: NDArray[np.int64]
    warp: NDArray[np.int64]
    first_of_warp: NDArray[np.int64]


@lru_cache(maxsize=16)
def _places(block: Shape, n_blocks: int) -> _Places:
    bx, by, bz = block
    size = bx * by * bz
    warps = -(-size // 32)
    t = np.arange(size, dtype=u4)
    coordinates = {
        "tid.x": np.tile(t % u4(bx), n_blocks),
        "tid.y": np.tile(t // u4(bx) % u4(by), n_blocks) if by > 1 else u4(0),
        "tid.z": np.tile(t // u4(bx * by), n_blocks) if bz > 1 else u4(0),
    }
    slot = np.repeat(np.arange(n_blocks, dtype=i8), size)
    of_block = np.tile((t // u4(32)).astype(i8), n_blocks)
    made = _Places(
        coordinates,
        np.tile(t % u4(32), n_blocks),
        slot,
        slot * warps + of_block,
        slot * size + of_block * 32,
    )
    for array in (*coordinates.values(), made.lane, slot, made.warp, made.first_of_warp):
        if array.ndim:
            array.flags.writeable = False
    return made


class Threads:
    """A batch of blocks of one launch."""

    def __init__(self, kernel: Kernel, grid: Shape, block: Shape, checks: Checks) -> None:
        self.kernel, self.program, self.grid, self.block, self.checks = (
            kernel,
            kernel.program,
            grid,
            block,
            checks,
        )
        self.block_size = block[0] * block[1] * block[2]
        self.warps_per_block = -(-self.block_size // 32)
        self.warnings: dict[str, int] = {}
        self.first_block = self.n = self.n_warps = 0

    def set_batch(self, first_block: int, n_blocks: int) -> None:
        """Take these blocks, in the order of their indices."""
        self.first_block = first_block
        self.n = n_blocks * self.block_size
        self.n_warps = n_blocks * self.warps_per_block
        places = _places(self.block, n_blocks)
        self.lane, self.slot, self.warp = places.lane, places.slot, places.warp
        self.first_of_warp = places.first_of_warp
        linear = first_block + np.arange(n_blocks, dtype=i8)
        gx, gy, _ = self.grid
        self._special: dict[str, Any] = dict(places.coordinates)
        indices = (linear % gx, linear // gx % gy, linear // (gx * gy))
        for axis, index, size, count in zip("xyz", indices, self.block, self.grid, strict=True):
            same = bool((index == index[0]).all())
            self._special[f"ctaid.{axis}"] = (
                u4(index[0]) if same else np.repeat(index.astype(u4), self.block_size)
            )
            self._special[f"ntid.{axis}"] = u4(size)
            self._special[f"nctaid.{axis}"] = u4(count)
        self._special["laneid"] = self.lane

    def special(self, name: str, idx: Chosen) -> Any:
        """A special register."""
        if name not in self._special:
            raise NotImplementedError(f"special register %{name}")
        value = self._special[name]
        return value[idx] if idx is not None and value.ndim else value

    def chosen(self, idx: Chosen) -> NDArray[np.int64]:
        """The threads as a list."""
        return np.arange(self.n) if idx is None else idx

    def count_warps(self, idx: Chosen) -> int:
        """How many warps take part."""
        if idx is None:
            return self.n_warps
        warp = self.warp[idx]
        return 1 + int(np.count_nonzero(warp[1:] != warp[:-1]))

    def lane_bits(self, idx: Chosen) -> NDArray[np.uint32]:
        """For each warp the mask of lanes among these threads."""
        which: Any = slice(None) if idx is None else idx
        bits = np.ldexp(1.0, self.lane[which].astype(i4))
        counted = np.bincount(self.warp[which], weights=bits, minlength=self.n_warps)
        return counted.astype(np.uint64).astype(u4)

    def warn(self, key: str, count: int = 1) -> None:
        """Count something that is legal, but may be a mistake."""
        self.warnings[key] = self.warnings.get(key, 0) + count

    # ------------------------------------------------------------------ names for messages

    def name_of(self, thread: int, first_block: int | None = None) -> str:
        """``thread (x,y,z) of block (x,y,z)`` for a place in the batch."""
        block, t = divmod(int(thread), self.block_size)
        block += self.first_block if first_block is None else first_block
        (bx, by, _), (gx, gy, _) = self.block, self.grid
        return (
            f"thread ({t % bx},{t // bx % by},{t // (bx * by)}) "
            f"of block ({block % gx},{block // gx % gy},{block // (gx * gy)})"
        )

    def where(self, site: int, idx: Chosen, position: int) -> str:
        """Kernel, instruction, source line and thread."""
        thread = position if idx is None else int(idx[position])
        instruction = self.program.sites[site]
        what = f'"{instruction.text}"{source_line(instruction)}'
        return f"kernel {self.kernel.name}, {what}, {self.name_of(thread)}"


def source_line(instruction: Instruction) -> str:
    """``(source line N)``, if it is known."""
    return f" (source line {instruction.line})" if instruction.line else ""
