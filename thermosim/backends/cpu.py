"""Kernels as C++ with OpenMP: compiled at first use, cached, called through ctypes."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermosim.backends import cpu_program
from thermosim.backends.base import (
    SOURCES,
    Array,
    Backend,
    Call,
    KernelSignature,
    kernel_digest,
    kernel_signatures,
)
from thermosim.errors import BackendError
from thermosim.resources import available_cores, cache_directory, kernel_directory

FLAGS = (
    "-x",
    "c++",
    "-std=c++17",
    "-O3",
    "-march=native",
    "-fopenmp",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-fPIC",
    "-shared",
)
"""No -ffast-math: a NaN must stay a NaN, and sums must have one order."""

_INSTALL_HINT = "install one (Debian/Ubuntu: apt install g++; macOS: brew install gcc) or set CXX"


def compiler() -> str | None:
    """The C++ compiler: the environment's CXX, else g++ or clang++."""
    for candidate in (os.environ.get("CXX"), "g++", "clang++", "c++"):
        if candidate and (found := shutil.which(candidate)):
            return found
    return None


def missing() -> str | None:
    """What keeps this backend from working, or None."""
    if compiler() is None:
        return f"no C++ compiler found; {_INSTALL_HINT}"
    return None


@lru_cache(maxsize=1)
def processor() -> str:
    """The processor in words."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@lru_cache(maxsize=1)
def _processor_features() -> str:
    """What -march=native depends on."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    return "".join(sorted({line for line in text.splitlines() if line.startswith(("flags", "model"))}))


@lru_cache(maxsize=4)
def compiler_version(path: str) -> str:
    """First line of the compiler's --version."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise BackendError(f"the C++ compiler {path} does not run ({error}); {_INSTALL_HINT}") from error
    return done.stdout.splitlines()[0]


def compile_kernels() -> Path:
    """The shared library of all kernels, compiled if it is not in the cache yet."""
    path = compiler()
    if path is None:
        raise BackendError(f"no C++ compiler found; {_INSTALL_HINT}")
    programs = cpu_program.run_functions(kernel_signatures().values())
    key = "\n".join([kernel_digest(), programs, *FLAGS, compiler_version(path), _processor_features()])
    library = cache_directory() / f"kernels-{hashlib.sha256(key.encode()).hexdigest()[:20]}.so"
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        unit = Path(scratch) / "all.cpp"
        unit.write_text("".join(f'#include "{name}.cu"\n' for name in SOURCES) + programs)
        made = Path(scratch) / library.name
        command = [path, *FLAGS, f"-I{kernel_directory()}", str(unit), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode != 0:
            lines = (done.stderr or done.stdout).strip().splitlines()
            reason = next((line for line in lines if "error" in line), lines[0] if lines else "no message")
            raise BackendError(f"{path} could not compile the kernels: {reason}")
        os.replace(made, library)
    return library


def _plain(arguments: Sequence[Any]) -> tuple[Any, ...]:
    """Addresses of arrays, values of scalars."""
    return tuple([cpu_program.address(a) if a.ndim else a.item() for a in arguments])


PAGE, STAGGERS = 4096, 16
"""Fields begin at one of so many places within a page [bytes]."""


class _ReadyArguments(tuple[Any, ...]):
    """Arguments of a kernel beside what is handed to the foreign function; keeps the arrays alive."""

    plain: tuple[Any, ...]

    def __new__(cls, arguments: tuple[Any, ...]) -> _ReadyArguments:
        made = super().__new__(cls, arguments)
        made.plain = _plain(arguments)
        return made


class CpuBackend(Backend):
    """NumPy arrays and compiled C++ kernels on `threads` OpenMP threads (0: all cores)."""

    name = "cpu"
    prefers_whole_rows = True  # memory is fetched ahead along them: half a row takes as long as a whole one

    def __init__(self, threads: int = 0) -> None:
        super().__init__()
        # waiting threads soon give up their core: other processes may need it
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")
        try:
            self._library = ctypes.CDLL(str(compile_kernels()))
        except OSError as error:
            raise BackendError(f"the compiled kernels cannot be loaded: {error}") from error
        self.threads = threads or available_cores()
        self._library.omp_set_num_threads(self.threads)
        cpu_program.declare(self._library)
        self._allocations = 0
        self._functions: dict[str, Any] = {}
        many = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        self.device = f"{processor()}, {many}, {compiler_version(compiler() or '')}"

    def full(self, size: int, value: float, dtype: str) -> Array:
        # pages apart by whole multiples would put cell p of all fields into one set of the first cache
        kind = np.dtype(dtype)
        # pages of zeros are no memory before somebody writes there
        room = (np.empty if value else np.zeros)(size * kind.itemsize + 2 * PAGE, dtype=np.uint8)
        place = -int(room.__array_interface__["data"][0]) % PAGE + self._allocations % STAGGERS * (
            PAGE // STAGGERS
        )
        self._allocations += 1
        array = room[place : place + size * kind.itemsize].view(kind)
        if value:
            array[:] = value
        return array

    def asarray(self, values: NDArray[Any], dtype: str) -> Array:
        return np.array(values, dtype=dtype, order="C")

    def to_host(self, array: Array) -> NDArray[Any]:
        return np.asarray(array)

    def take(self, field: Array, index: Array) -> Array:
        return field[index]

    def put(self, target: Array, index: Array, values: Array) -> None:
        target[index] = values

    def write(self, target: Array, values: NDArray[Any]) -> None:
        target[: values.size] = values

    def sums(self, rows: Array) -> Array:
        return rows.sum(axis=1)

    def maxima(self, rows: Array) -> Array:
        return rows.max(axis=1)

    def _ready(self, arguments: tuple[Any, ...]) -> Sequence[Any]:
        return _ReadyArguments(arguments)

    def program(self, calls: Sequence[Call]) -> Callable[[], None]:
        calls = [call for call in calls if 0 not in call.extent]
        return cpu_program.CpuProgram(self._library, calls, self.threads)

    def _launch(self, signature: KernelSignature, extent: tuple[int, ...], arguments: Sequence[Any]) -> None:
        function = self._functions.get(signature.name)
        if function is None:
            function = self._functions[signature.name] = getattr(self._library, signature.name)
            function.restype = None
            scalars = {"float": ctypes.c_float, "int": ctypes.c_int}
            types: list[Any] = [ctypes.c_int] * (6 if signature.has_grid else 0)
            types += [scalars.get(c_type, ctypes.c_void_p) for c_type, _ in signature.parameters]
            function.argtypes = types
        # called through the foreign-function interface, so the interpreter lock is released
        if isinstance(arguments, _ReadyArguments):
            function(*arguments.plain)
        else:
            function(*_plain(arguments))
