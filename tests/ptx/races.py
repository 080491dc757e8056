"""Accesses that conflict and that no barrier orders.

For each granule of memory the last write and the readers since are kept: thread, epoch of its block's
barrier and of its warp's. Two accesses are ordered if the same thread makes both, if a barrier of their
block lies between them, or a `__syncwarp` of their warp. Pairs that are both volatile are no conflict,
nor are writes that change nothing. Fences and flags are not modelled.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptx.memory import UNSIGNED
from ptx.threads import Chosen, Threads, source_line

i4, i8 = np.int32, np.int64
NOBODY, SAME_WARP, SAME_BLOCK, OTHER_BLOCK = 0, 1, 2, 3
"""Who else has read a granule, at most, beside the reader remembered."""


class Shadow:
    """What is known of each granule: last writer and readers, with epochs, strength and instruction."""

    def __init__(self, n: int) -> None:
        self.writer, self.reader = np.full(n, -1, i8), np.full(n, -1, i8)
        self.write_block, self.write_warp = np.zeros(n, i4), np.zeros(n, i4)
        self.read_block, self.read_warp = np.zeros(n, i4), np.zeros(n, i4)
        self.write_strong, self.read_strong = np.zeros(n, bool), np.zeros(n, bool)
        self.write_site, self.read_site = np.zeros(n, i4), np.zeros(n, i4)
        self.others = np.zeros(n, np.uint8)


def bits_of(values: Any) -> Any:
    """Floating-point numbers as integers, so that NaNs compare."""
    return values.view(UNSIGNED[values.dtype.itemsize])


class RaceDetector(Threads):
    """Threads whose accesses are compared."""

    races: list[dict[str, Any]]
    block_epoch: NDArray[np.int32]
    warp_epoch: NDArray[np.int32]
    shared_stride: int

    def start_races(self) -> None:
        """Forget what was found."""
        self.races, self._seen = [], {}  # type: ignore[var-annotated]

    def _now(self, idx: Chosen) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Number of each thread in the launch, and the epochs of its block and warp."""
        me = self.chosen(idx)
        thread = me + self.first_block * self.block_size
        return thread, self.block_epoch[self.slot[me]], self.warp_epoch[self.warp[me]]

    def _block_of(self, thread: NDArray[Any]) -> NDArray[Any]:
        return thread // self.block_size

    def _warp_of(self, thread: NDArray[Any]) -> NDArray[Any]:
        return self._block_of(thread) * self.warps_per_block + (thread % self.block_size) // 32

    def _unordered(
        self, before: tuple[NDArray[Any], NDArray[Any], NDArray[Any]], now: tuple[NDArray[Any], ...]
    ) -> NDArray[np.bool_]:
        """Whether an earlier access (thread, block epoch, warp epoch) is not ordered before this one."""
        same_block = self._block_of(before[0]) == self._block_of(now[0])
        same_warp = self._warp_of(before[0]) == self._warp_of(now[0])
        ordered = (same_block & (before[1] < now[1])) | (same_warp & (before[2] < now[2]))
        return (before[0] != now[0]) & ~ordered

    def _distance(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.uint8]:
        apart = np.where(self._block_of(a) == self._block_of(b), SAME_BLOCK, OTHER_BLOCK)
        near = np.where(self._warp_of(a) == self._warp_of(b), SAME_WARP, apart)
        return np.where(a == b, NOBODY, near).astype(np.uint8)

    def see_read(
        self,
        shadow: Shadow,
        offset: Any,
        size: int,
        granule: int,
        site: int,
        idx: Chosen,
        n: int,
        strong: bool,
        name: str,
    ) -> None:
        """Compare a read with earlier writes, and remember it."""
        now = self._now(idx)
        thread, block, warp = now
        for g in _granules(offset, size, granule, n):
            writer = shadow.writer[g]
            hit = (writer >= 0) & self._unordered((writer, shadow.write_block[g], shadow.write_warp[g]), now)
            if strong:
                hit &= ~shadow.write_strong[g]
            if hit.any():
                self._report_all("RAW", name, g, granule, shadow.write_site, site, writer, thread, hit)
            reader = shadow.reader[g]
            past = (self._block_of(reader) == self._block_of(thread)) & (shadow.read_block[g] < block)
            stale = (reader < 0) | (past & (shadow.others[g] < OTHER_BLOCK))
            beside = np.where(stale, NOBODY, self._distance(reader, thread)).astype(np.uint8)
            shadow.others[g[stale]] = NOBODY
            shadow.read_strong[g[stale]] = True
            shadow.reader[g] = np.where(shadow.others[g] == OTHER_BLOCK, reader, thread)
            beside_now = self._distance(shadow.reader[g], thread)
            np.maximum.at(shadow.others, g, np.maximum(beside, beside_now))
            shadow.read_block[g], shadow.read_warp[g], shadow.read_site[g] = block, warp, site
            if not strong:
                shadow.read_strong[g] = False

    def see_write(
        self,
        shadow: Shadow,
        offset: Any,
        size: int,
        granule: int,
        site: int,
        idx: Chosen,
        n: int,
        strong: bool,
        name: str,
        changes: NDArray[np.bool_],
    ) -> None:
        """Compare a write with earlier writes and reads, and remember it. `changes`: it alters the value."""
        now = self._now(idx)
        thread, block, warp = now
        for g in _granules(offset, size, granule, n):
            writer = shadow.writer[g]
            hit = (writer >= 0) & self._unordered((writer, shadow.write_block[g], shadow.write_warp[g]), now)
            hit &= changes
            if strong:
                hit &= ~shadow.write_strong[g]
            if hit.any():
                self._report_all("WAW", name, g, granule, shadow.write_site, site, writer, thread, hit)
            reader, others = shadow.reader[g], shadow.others[g]
            same_block = self._block_of(reader) == self._block_of(thread)
            same_warp = self._warp_of(reader) == self._warp_of(thread)
            ordered = same_block & (shadow.read_block[g] < block) & (others < OTHER_BLOCK)
            far = (others == OTHER_BLOCK) | ~same_block | (others == SAME_BLOCK) | ~same_warp
            near = (shadow.read_warp[g] >= warp) & ((others == SAME_WARP) | (reader != thread))
            hit = (reader >= 0) & ~ordered & (far | near)
            if strong:
                hit &= ~shadow.read_strong[g]
            if hit.any():
                self._report_all("WAR", name, g, granule, shadow.read_site, site, reader, thread, hit)
            shadow.writer[g], shadow.write_block[g], shadow.write_warp[g] = thread, block, warp
            shadow.write_strong[g], shadow.write_site[g] = strong, site

    def see_lost_write(
        self,
        shadow: Shadow,
        offset: Any,
        granule: int,
        site: int,
        idx: Chosen,
        lost: NDArray[np.bool_],
        name: str,
    ) -> None:
        """Threads of one instruction wrote different values to one place."""
        p = int(np.flatnonzero(lost)[0])
        g = int(np.atleast_1d(offset)[p if np.ndim(offset) else 0]) // granule
        thread = self.first_block * self.block_size + int(self.chosen(idx)[p])
        self._report("WAW", name, g * granule, site, site, thread, int(shadow.writer[g]))

    def _report_all(
        self,
        kind: str,
        name: str,
        granules: NDArray[Any],
        granule: int,
        sites: NDArray[Any],
        site: int,
        first: NDArray[Any],
        second: NDArray[Any],
        hit: NDArray[np.bool_],
    ) -> None:
        far = self._block_of(first) != self._block_of(second)
        for some in (hit & far, hit & ~far):
            if some.any():
                p = int(np.flatnonzero(some)[0])
                g, count = granules[p], int(np.count_nonzero(some))
                self._report(
                    kind, name, int(g) * granule, int(sites[g]), site, int(first[p]), int(second[p]), count
                )

    def _report(
        self,
        kind: str,
        name: str,
        offset: int,
        site_1: int,
        site_2: int,
        first: int,
        second: int,
        count: int = 1,
    ) -> None:
        between_blocks = first // self.block_size != second // self.block_size
        key = (kind, name, site_1, site_2, between_blocks)
        if key in self._seen:
            self._seen[key]["count"] += count
            return
        if name == "shared":
            offset %= self.shared_stride
        a, b = self.program.sites[site_1], self.program.sites[site_2]
        text = (
            f'{kind} hazard on {name} at byte offset {offset}: "{a.text}"{source_line(a)} by '
            f'{self.name_of(first, 0)}, then "{b.text}"{source_line(b)} by {self.name_of(second, 0)}'
        )
        race = {"kind": kind, "where": name, "count": count, "between_blocks": between_blocks, "text": text}
        self._seen[key] = race
        self.races.append(race)


def _granules(offset: Any, size: int, granule: int, n: int) -> Iterator[NDArray[np.int64]]:
    """Granules that each thread touches, one after another."""
    offset = np.broadcast_to(offset, (n,))
    for k in range(max(1, size // granule)):
        yield (offset + k * granule) // granule
