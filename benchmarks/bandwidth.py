"""How fast this machine moves memory, with the threads, compiler and flags of the kernels."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import seconds_of

from thermosim.backends.base import Backend, Layout
from thermosim.backends.cpu import FLAGS, CpuBackend, compiler, compiler_version
from thermosim.resources import cache_directory

ENTRIES = 2**25
"""Floats per array: 128 MiB each, far beyond any last-level cache."""

BYTES_PER_ENTRY = 12
"""Two floats read and one written; what a cache reads before it writes is not counted."""

SOURCE = Path(__file__).with_name("triad.cpp")


def compile_triad() -> ctypes.CDLL:
    """The triad with the compiler and flags of the kernels, compiled if it is not in the cache yet."""
    path = compiler()
    if path is None:
        raise SystemExit("benchmarks: error: no C++ compiler was found; install g++ or clang++")
    key = "\n".join([SOURCE.read_text(), *FLAGS, compiler_version(path)])
    library = cache_directory() / f"triad-{hashlib.sha256(key.encode()).hexdigest()[:20]}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
            made = Path(scratch) / library.name
            subprocess.run([path, *FLAGS, str(SOURCE), "-o", str(made)], check=True)
            os.replace(made, library)
    return ctypes.CDLL(str(library))


class Bandwidth:
    """Samples of the memory bandwidth [byte/s], to be taken beside the samples of a kernel.

    `triad` is STREAM's a = b + s c over three arrays. `in_place` is out = a x + b out by a kernel of
    thermosim, which runs on every device; no cache has to read a line before it is overwritten, so it
    is the faster one. On a GPU both are the same measurement.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        if isinstance(backend, CpuBackend):
            self._library = compile_triad()
            self._a, self._b, self._c = (np.full(ENTRIES, v, np.float32) for v in (0.0, 1.0, 2.0))
        self._layout = Layout((ENTRIES // 2**16, 2**8, 2**8))
        self._x, self._out = backend.field(self._layout, 1.0), backend.field(self._layout, 2.0)
        self.triad()  # warm: pages are there, threads are awake
        self.in_place()

    def triad(self) -> float:
        if not isinstance(self.backend, CpuBackend):
            return self.in_place()
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (self._b, self._c, self._a)]
        arguments = (ctypes.c_long(ENTRIES), ctypes.c_int(self.backend.threads), ctypes.c_float(0.5))
        begun = time.perf_counter()
        self._library.triad(*arguments, *pointers)
        return BYTES_PER_ENTRY * ENTRIES / (time.perf_counter() - begun)

    def in_place(self) -> float:
        def work() -> None:
            half = np.float32(0.5)
            self.backend.on_cells("scale_add", self._layout, half, self._x, half, self._out)

        return BYTES_PER_ENTRY * self._layout.n_cells / seconds_of(self.backend, self._out, work)
