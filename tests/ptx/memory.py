"""Device memory: NumPy arrays at virtual addresses, with guard gaps, and what nobody has written yet."""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

UNSIGNED: dict[int, Any] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
MARKED: dict[int, Any] = {
    size: kind(0x0101010101010101 & (1 << 8 * size) - 1) for size, kind in UNSIGNED.items()
}
"""A one in each byte of an entry: how maps of touched or written bytes are read and set."""


def root_of(array: NDArray[Any]) -> NDArray[Any]:
    """The array that owns the memory of a view."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _host_bounds(array: NDArray[Any]) -> tuple[int, int]:
    if not array.size:
        return (int(array.__array_interface__["data"][0]),) * 2
    low, high = np.lib.array_utils.byte_bounds(array)
    return low, high


class _AddressSpace:
    """Virtual addresses of host buffers, 512-byte aligned, with gaps so wide that overruns are seen."""

    def __init__(self) -> None:
        self._next = 0x100000000000
        self._known: dict[tuple[int, int], tuple[int, Any]] = {}

    def address_of(self, owner: NDArray[Any]) -> int:
        low, high = _host_bounds(owner)
        known = self._known.get((low, high - low))
        if known is not None and known[1]() is owner:
            return known[0]
        address, size = self._next, high - low
        self._next += (size + max(size, 1 << 16) + 511) // 512 * 512
        self._known[low, size] = (address, weakref.ref(owner))
        return address


_ADDRESSES = _AddressSpace()
_UNWRITTEN: dict[int, tuple[Any, Bytes]] = {}


class Region:
    """A contiguous piece of device memory given to a launch.

    `low`: its virtual address; `bytes`: its memory; `written`: a map of bytes that have been written,
    None if all were; `read_map` and `write_map`: what the launch touches.
    """

    def __init__(self, array: NDArray[Any], argument: int) -> None:
        owner = root_of(array)
        owner_low = _host_bounds(owner)[0]
        host, end = _host_bounds(array)
        self.low = _ADDRESSES.address_of(owner) + host - owner_low
        self.size = end - host
        self.name = f"argument {argument} ({array.dtype}{list(array.shape)})"
        self.writable = bool(array.flags.writeable)
        self.owner, self.host = owner, host
        self.address = self.low + array.__array_interface__["data"][0] - host
        self._settle()

    def _settle(self) -> None:
        size, host = self.size, self.host
        self.bytes: Bytes = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(host))
        self.pad = self.low % 16
        self.written: Bytes | None = None
        kept = _UNWRITTEN.get(id(self.owner))
        if kept is not None and kept[0]() is self.owner:
            start = host - _host_bounds(self.owner)[0]
            self.written = kept[1][start : start + size]
        self._views: dict[tuple[str, Any], tuple[NDArray[Any], int]] = {}
        self.read_map: Bytes | None = None
        self.write_map: Bytes | None = None

    def join(self, other: Region) -> None:
        """Take in a view of the same buffer that overlaps this one and begins behind its start."""
        if other.name not in self.name:
            self.name += f" + {other.name}"
        self.size = max(self.size, other.low + other.size - self.low)
        self.writable = self.writable or other.writable
        self._settle()

    def count(self) -> None:
        """Begin to note which bytes are touched."""
        self.read_map, self.write_map = np.zeros(self.size, np.uint8), np.zeros(self.size, np.uint8)

    def view(self, dtype: Any, which: str = "bytes") -> tuple[NDArray[Any], int]:
        """Its memory, or a map of it, by entries of this type, and the bytes before the first of them."""
        key = (which, dtype)
        if key not in self._views:
            size = np.dtype(dtype).itemsize
            skip = (-self.pad) % size
            memory = getattr(self, which)[skip:]
            self._views[key] = (memory[: len(memory) // size * size].view(dtype), skip)
        return self._views[key]


def regions_of(arrays: list[tuple[int, NDArray[Any]]]) -> tuple[list[Region], dict[int, int]]:
    """Regions of all array arguments, overlapping views joined; and the address of each argument."""
    made = [Region(array, argument) for argument, array in arrays]
    addresses = {argument: region.address for (argument, _), region in zip(arrays, made, strict=True)}
    joined: list[Region] = []
    for region in sorted((r for r in made if r.size), key=lambda r: (r.low, r.low + r.size)):
        if joined and region.low < joined[-1].low + joined[-1].size:
            joined[-1].join(region)
        else:
            joined.append(region)
    return joined, addresses


def address_of(array: NDArray[Any]) -> int:
    """The virtual address of an array's first entry."""
    return Region(array, 0).address


def mark_uninitialised(array: NDArray[Any]) -> None:
    """Every byte counts as never written until a kernel stores it, or `mark_initialised`."""
    owner = root_of(array)
    low, high = _host_bounds(owner)
    kept = _UNWRITTEN.get(id(owner))
    if kept is None or kept[0]() is not owner:
        key = id(owner)
        kept = (weakref.ref(owner, lambda _: _UNWRITTEN.pop(key, None)), np.ones(high - low, np.uint8))
        _UNWRITTEN[key] = kept
    start, end = _host_bounds(array)
    kept[1][start - low : end - low] = 0


def mark_initialised(array: NDArray[Any]) -> None:
    """Every byte of the array counts as written."""
    owner = root_of(array)
    kept = _UNWRITTEN.get(id(owner))
    if kept is not None and kept[0]() is owner:
        low = _host_bounds(owner)[0]
        start, end = _host_bounds(array)
        kept[1][start - low : end - low] = 1


def anything_unwritten() -> bool:
    """Whether any array is kept track of."""
    return bool(_UNWRITTEN)
