"""Loads and stores, every one checked for bounds and alignment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptx.errors import MemoryFault, UninitialisedRead
from ptx.memory import MARKED, UNSIGNED, Bytes, Region
from ptx.races import RaceDetector, Shadow, bits_of
from ptx.statistics import count_global, count_shared
from ptx.threads import Checks, Chosen, Shape

u8, i8 = np.uint64, np.int64
NEVER_WRITTEN = 0xFF
"""What memory holds that nobody wrote: a NaN, or −1, never zero by luck."""

Segment = tuple[Region, Any, Any]
"""A region, which of the threads touch it (None: all), and their offsets in it."""


class Accesses(RaceDetector):
    """A batch of threads with the memory they see.

    `shared_variables`: first byte and end of each variable in shared memory; between them are gaps.
    """

    def __init__(
        self,
        kernel: Any,
        grid: Shape,
        block: Shape,
        checks: Checks,
        parameters: bytes,
        regions: list[Region],
        shared_variables: list[tuple[int, int]],
    ) -> None:
        super().__init__(kernel, grid, block, checks)
        self.regions = regions
        self._lows = np.array([r.low for r in regions], u8)
        self._ends = np.array([r.low + r.size for r in regions], u8)
        self._parameters = np.frombuffer(parameters + bytes(-len(parameters) % 8), np.uint8)
        self._n_parameter_bytes = len(parameters)
        self._shared_variables = shared_variables
        self.shared_stride = max(16, -(-max((end for _, end in shared_variables), default=0) // 16) * 16)
        self._local_size = kernel.local_size
        self._local_stride = max(16, -(-kernel.local_size // 16) * 16)
        self._last: list[Region | None] = [None] * len(self.program.sites)
        self.counts = np.zeros((len(self.program.sites), 4), i8)
        self._granule = kernel.granules
        self._shadows: dict[int, Shadow] = {}
        self.start_races()
        if checks.statistics:
            for region in regions:
                region.count()

    def set_batch(self, first_block: int, n_blocks: int) -> None:
        super().set_batch(first_block, n_blocks)
        n_shared = n_blocks * self.shared_stride
        self._shared = np.full(n_shared + 16, NEVER_WRITTEN, np.uint8)
        self._shared_written = np.zeros(n_shared + 16, np.uint8)
        self._shared_shadow = (
            Shadow(n_shared // self._granule["shared"] + 8) if self.checks.races else Shadow(0)
        )
        self._local: Bytes = np.full(
            self.n * self._local_stride if self._local_size else 16, NEVER_WRITTEN, np.uint8
        )

    # ------------------------------------------------------------------ global memory

    def _segments(
        self, site: int, base: Any, offset: int, size: int, idx: Chosen, is_write: bool
    ) -> list[Segment]:
        """Where an access goes; nearly always one region, the same as before."""
        region = self._last[site]
        if region is None:
            first = (int(base if base.ndim == 0 else base[0]) + offset) & 0xFFFFFFFFFFFFFFFF
            k = int(np.searchsorted(self._lows, u8(first), "right")) - 1
            region = self._last[site] = self.regions[k] if k >= 0 else None
        if region is not None:
            place = base - u8((region.low - offset) & 0xFFFFFFFFFFFFFFFF)
            if int(place.max()) <= region.size - size:
                self._check_alignment(site, region, place, size, idx, None)
                self._check_writable(site, region, idx, 0, is_write)
                return [(region, None, place.view(i8)[()])]
        return self._many_segments(site, base, offset, size, idx, is_write)

    def _many_segments(
        self, site: int, base: Any, offset: int, size: int, idx: Chosen, is_write: bool
    ) -> list[Segment]:
        self._last[site] = None
        address = np.atleast_1d(base) + u8(offset & 0xFFFFFFFFFFFFFFFF)
        k = np.searchsorted(self._lows, address, "right").astype(i8) - 1
        bad = (k < 0) | (address + u8(size) > self._ends[np.maximum(k, 0)]) if self.regions else k < 0
        if bad.any():
            p = int(np.flatnonzero(bad)[0])
            self._fault_global(site, idx, p, int(address[p]), size)
        found: list[Segment] = []
        for number in np.unique(k):
            region, which = self.regions[int(number)], np.flatnonzero(k == number)
            place = address[which] - u8(region.low)
            self._check_alignment(site, region, place, size, idx, which)
            self._check_writable(site, region, idx, int(which[0]), is_write)
            if base.ndim == 0:
                return [(region, None, place.view(i8)[0])]
            found.append((region, which, place.view(i8)))
        return found

    def _check_alignment(
        self, site: int, region: Region, place: Any, size: int, idx: Chosen, which: NDArray[np.int64] | None
    ) -> None:
        together = place if place.ndim == 0 else np.bitwise_or.reduce(place)
        if region.pad % size == 0 and not int(together) & (size - 1):
            return
        off = (place + u8(region.pad)) & u8(size - 1)
        if np.any(off):
            p = int(np.flatnonzero(np.atleast_1d(off))[0])
            thread = self.where(site, idx, p if which is None else int(which[p]))
            raise MemoryFault(
                f"{thread}: misaligned {size}-byte access at byte offset {int(np.atleast_1d(place)[p])} "
                f"of {region.name}"
            )

    def _check_writable(self, site: int, region: Region, idx: Chosen, p: int, is_write: bool) -> None:
        if is_write and not region.writable:
            raise MemoryFault(f"{self.where(site, idx, p)}: store to read-only {region.name}")

    def _fault_global(self, site: int, idx: Chosen, p: int, address: int, size: int) -> None:
        if address < 4096:
            what = "null pointer"
        elif not self.regions:
            what = "no allocation"
        else:
            near = min(self.regions, key=lambda r: max(r.low - address, address + size - (r.low + r.size), 0))
            what = f"nearest is {near.name} of {near.size} bytes, byte offset {address - near.low}"
        raise MemoryFault(
            f"{self.where(site, idx, p)}: out-of-bounds {size}-byte access at 0x{address:x} ({what})"
        )

    def load_global(
        self, site: int, base: Any, offset: int, dtype: Any, parts: int, idx: Chosen, n: int, strong: bool
    ) -> Sequence[Any]:
        """`parts` values of this type for each thread, from neighbouring places."""
        size = np.dtype(dtype).itemsize
        segments = self._segments(site, base, offset, size * parts, idx, False)
        if segments[0][1] is None:
            return self._load_from(site, segments[0], dtype, size, parts, idx, n, strong)
        values = [np.empty(n, dtype) for _ in range(parts)]
        for segment in segments:
            which = segment[1]
            mine = which if idx is None else idx[which]
            for value, part in zip(
                values,
                self._load_from(site, segment, dtype, size, parts, mine, len(which), strong),
                strict=True,
            ):
                value[which] = part
        return values

    def _load_from(
        self,
        site: int,
        segment: Segment,
        dtype: Any,
        size: int,
        parts: int,
        idx: Chosen,
        n: int,
        strong: bool,
    ) -> Sequence[Any]:
        region, _, place = segment
        memory, skip = region.view(dtype)
        entry = (place - skip) >> (size.bit_length() - 1)
        if self.checks.statistics:
            count_global(self.counts[site], self, region, place, size * parts, idx, n)
            touched = region.view(UNSIGNED[size], "read_map")[0]
            for k in range(parts):
                touched[entry + k] = MARKED[size]
        if self.checks.initialised and region.written is not None:
            written = region.view(UNSIGNED[size], "written")[0]
            for k in range(parts):
                self._check_written(written[entry + k] == MARKED[size], site, idx, region.name, place)
        if self.checks.races and region.writable:
            self.see_read(
                self._shadow(region),
                place,
                size * parts,
                self._granule["global"],
                site,
                idx,
                n,
                strong,
                region.name,
            )
        return [memory[entry + k] for k in range(parts)]

    def _check_written(self, good: Any, site: int, idx: Chosen, name: str, place: Any) -> None:
        if not np.all(good):
            p = int(np.flatnonzero(~np.atleast_1d(good))[0])
            raise UninitialisedRead(
                f"{self.where(site, idx, p)}: read of uninitialised {name} "
                f"at byte offset {int(np.atleast_1d(place)[p])}"
            )

    def _shadow(self, region: Region) -> Shadow:
        if region.low not in self._shadows:
            self._shadows[region.low] = Shadow(region.size // self._granule["global"] + 8)
        return self._shadows[region.low]

    def store_global(
        self,
        site: int,
        base: Any,
        offset: int,
        dtype: Any,
        values: tuple[Any, ...],
        idx: Chosen,
        n: int,
        strong: bool,
    ) -> None:
        """Store the values of each thread at neighbouring places."""
        size, parts = np.dtype(dtype).itemsize, len(values)
        for region, which, place in self._segments(site, base, offset, size * parts, idx, True):
            mine, some, count = idx, values, n
            if which is not None:
                mine = which if idx is None else idx[which]
                some, count = tuple(v if v.ndim == 0 else v[which] for v in values), len(which)
            memory, skip = region.view(dtype)
            entry = (place - skip) >> (size.bit_length() - 1)
            if self.checks.statistics:
                count_global(self.counts[site], self, region, place, size * parts, mine, count)
            for name in ("write_map", "written"):
                if getattr(region, name) is not None:
                    marks = region.view(UNSIGNED[size], name)[0]
                    for k in range(parts):
                        marks[entry + k] = MARKED[size]
            shadow = self._shadow(region) if self.checks.races else None
            self._store(
                memory,
                entry,
                some,
                shadow,
                place,
                size,
                self._granule["global"],
                site,
                mine,
                count,
                strong,
                region.name,
            )

    def _store(
        self,
        memory: NDArray[Any],
        entry: Any,
        values: tuple[Any, ...],
        shadow: Shadow | None,
        place: Any,
        size: int,
        granule: int,
        site: int,
        idx: Chosen,
        n: int,
        strong: bool,
        name: str,
    ) -> None:
        entries = np.broadcast_to(entry, (n,))
        if shadow is not None:
            changes = self._differ(memory, entries, values)
            self.see_write(shadow, place, size * len(values), granule, site, idx, n, strong, name, changes)
        for k, value in enumerate(values):
            memory[entry + k] = value[-1] if np.ndim(entry) == 0 and value.ndim else value
        if shadow is not None and not strong:
            lost = self._differ(memory, entries, values)
            if lost.any():
                self.see_lost_write(shadow, place, granule, site, idx, lost, name)

    def _differ(self, memory: NDArray[Any], entries: Any, values: tuple[Any, ...]) -> NDArray[np.bool_]:
        found = np.zeros(len(entries), bool)
        for k, value in enumerate(values):
            found |= bits_of(memory[entries + k]) != bits_of(value)
        return found

    # ------------------------------------------------------------------ shared, local and parameter memory

    def _shared_place(self, site: int, base: Any, offset: int, size: int, idx: Chosen, n: int) -> Any:
        """Offsets in the batch's shared memory, after the checks."""
        place = base.astype(i8) + offset
        inside = np.zeros(np.shape(place), bool)
        for low, end in self._shared_variables:
            inside |= (place >= low) & (place + size <= end)
        self._check_place(inside, place, size, site, idx, "shared", self.shared_stride)
        if self.checks.statistics:
            count_shared(self.counts[site], self, place, size, idx, n)
        slot = self.slot if idx is None else self.slot[idx]
        return place + slot * self.shared_stride

    def _check_place(
        self, inside: Any, place: Any, size: int, site: int, idx: Chosen, space: str, whole: int
    ) -> None:
        if not np.all(inside):
            p = int(np.flatnonzero(~np.atleast_1d(inside))[0])
            raise MemoryFault(
                f"{self.where(site, idx, p)}: out-of-bounds {size}-byte {space} access "
                f"at offset {int(np.atleast_1d(place)[p])} (of {whole} bytes)"
            )
        off = place & (size - 1)
        if np.any(off):
            p = int(np.flatnonzero(np.atleast_1d(off))[0])
            raise MemoryFault(
                f"{self.where(site, idx, p)}: misaligned {size}-byte {space} access "
                f"at offset {int(np.atleast_1d(place)[p])}"
            )

    def load_shared(
        self, site: int, base: Any, offset: int, dtype: Any, parts: int, idx: Chosen, n: int, strong: bool
    ) -> Sequence[Any]:
        """As `load_global`, from the block's shared memory."""
        size = np.dtype(dtype).itemsize
        place = self._shared_place(site, base, offset, size * parts, idx, n)
        entry = place // size
        if self.checks.initialised:
            written = _by(self._shared_written, UNSIGNED[size])
            for k in range(parts):
                good = written[entry + k] == MARKED[size]
                self._check_written(good, site, idx, "shared memory", place % self.shared_stride)
        if self.checks.races:
            self.see_read(
                self._shared_shadow,
                place,
                size * parts,
                self._granule["shared"],
                site,
                idx,
                n,
                strong,
                "shared",
            )
        return [_by(self._shared, dtype)[entry + k] for k in range(parts)]

    def store_shared(
        self,
        site: int,
        base: Any,
        offset: int,
        dtype: Any,
        values: tuple[Any, ...],
        idx: Chosen,
        n: int,
        strong: bool,
    ) -> None:
        """As `store_global`, to the block's shared memory."""
        size, parts = np.dtype(dtype).itemsize, len(values)
        place = self._shared_place(site, base, offset, size * parts, idx, n)
        entry = place // size
        for k in range(parts):
            _by(self._shared_written, UNSIGNED[size])[entry + k] = MARKED[size]
        shadow = self._shared_shadow if self.checks.races else None
        granule, memory = self._granule["shared"], _by(self._shared, dtype)
        self._store(memory, entry, values, shadow, place, size, granule, site, idx, n, strong, "shared")

    def _local_place(self, site: int, base: Any, offset: int, size: int, idx: Chosen) -> Any:
        place = base.astype(i8) + offset
        inside = (place >= 0) & (place + size <= self._local_size)
        self._check_place(inside, place, size, site, idx, "local", self._local_size)
        return place + self.chosen(idx) * self._local_stride

    def load_local(
        self, site: int, base: Any, offset: int, dtype: Any, parts: int, idx: Chosen, _n: int, _strong: bool
    ) -> Sequence[Any]:
        """As `load_global`, from the thread's own memory."""
        size = np.dtype(dtype).itemsize
        entry = self._local_place(site, base, offset, size * parts, idx) // size
        return [_by(self._local, dtype)[entry + k] for k in range(parts)]

    def store_local(
        self,
        site: int,
        base: Any,
        offset: int,
        dtype: Any,
        values: tuple[Any, ...],
        idx: Chosen,
        _n: int,
        _strong: bool,
    ) -> None:
        """As `store_global`, to the thread's own memory."""
        size = np.dtype(dtype).itemsize
        entry = self._local_place(site, base, offset, size * len(values), idx) // size
        for k, value in enumerate(values):
            _by(self._local, dtype)[entry + k] = value

    def load_param(
        self, site: int, base: Any, offset: int, dtype: Any, parts: int, idx: Chosen, _n: int, _strong: bool
    ) -> Sequence[Any]:
        """Parameters of the kernel."""
        size = np.dtype(dtype).itemsize
        if base.ndim == 0 and parts == 1:  # nearly always
            at = int(base) + offset
            if 0 <= at <= self._n_parameter_bytes - size and at % size == 0:
                return (_by(self._parameters, dtype)[at // size],)
        place = base.astype(i8) + offset
        inside = (place >= 0) & (place + size * parts <= self._n_parameter_bytes)
        self._check_place(inside, place, size, site, idx, "parameter", self._n_parameter_bytes)
        return [_by(self._parameters, dtype)[place // size + k] for k in range(parts)]


def _by(memory: Bytes, dtype: Any) -> NDArray[Any]:
    """Bytes as entries of this type."""
    return memory[: len(memory) // 8 * 8].view(dtype)
