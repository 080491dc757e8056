"""Kernels as CUDA through CuPy: the only module that imports cupy."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermosim.backends.base import SOURCES, Array, Backend, Call, KernelSignature
from thermosim.errors import BackendError
from thermosim.resources import kernel_directory

CELL_BLOCK = (32, 4, 2)
ENTRY_BLOCK = 256
ROWS_PER_BLOCK = 8
OPTIONS = ("-std=c++17", "--fmad=true")
"""No --use_fast_math: a NaN must stay a NaN, and both devices use the same arithmetic."""


def missing() -> str | None:
    """What keeps this backend from working, or None."""
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed (pip install 'thermosim[cuda13]' or 'thermosim[cuda12]')"
    try:
        import cupy
    except ImportError as error:
        return f"CuPy cannot be imported ({error})"
    if not cupy.cuda.is_available():
        return "no CUDA GPU or driver found (nvidia-smi should list one)"
    return None


def n_devices() -> int:
    """How many GPUs this machine has."""
    import cupy

    return int(cupy.cuda.runtime.getDeviceCount())


def launch_shape(
    signature: KernelSignature, extent: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Blocks and threads that cover a grid (nx, ny, nz) or a list (n,)."""
    if signature.kind == "cell":
        counts = (extent[2], extent[1], extent[0])
        return tuple(-(-n // b) for n, b in zip(counts, CELL_BLOCK, strict=True)), CELL_BLOCK
    if signature.kind == "row":
        return (-(-extent[0] * extent[1] // ROWS_PER_BLOCK),), (32, ROWS_PER_BLOCK)
    return (-(-extent[0] // ENTRY_BLOCK),), (ENTRY_BLOCK,)


class _Recorded:
    """Launches that are recorded as a CUDA graph and replayed: one call of the host for all of them.

    The first run launches one by one, because kernels are compiled and loaded then, which nothing may be
    while a stream is recorded; so does a program that runs only once. The second run records (what is
    recorded does not run) and replays. Addresses and scalars are those of the recording: what differs from
    run to run, such as the coefficients of stages, lies in arrays. The launches keep their arrays alive.
    """

    def __init__(self, cupy: Any, launches: Callable[[], None]) -> None:
        self.launches = launches
        self._cupy = cupy
        self._has_run = False
        self._graph: Any = None

    def __call__(self) -> None:
        if not self._has_run:
            self.launches()
            self._has_run = True
            return
        if self._graph is None:
            stream = self._cupy.cuda.Stream(non_blocking=True)  # the default one cannot be recorded
            with stream:
                stream.begin_capture()
                try:
                    self.launches()
                except BaseException:
                    stream.end_capture()  # half a recording is none
                    raise
                self._graph = stream.end_capture()
        self._graph.launch()


class CudaBackend(Backend):
    """CuPy arrays and kernels compiled by NVRTC for the GPU at hand."""

    name = "cuda"

    def __init__(self, device: int = 0) -> None:
        super().__init__()
        import cupy

        self._cupy = cupy
        count = n_devices()
        if not 0 <= device < count:
            raise BackendError(f"backend.device={device}, but this machine has {count} GPU(s)")
        cupy.cuda.Device(device).use()
        properties = cupy.cuda.runtime.getDeviceProperties(device)
        label = properties["name"]
        self.device = f"{label.decode() if isinstance(label, bytes) else label}, CuPy {cupy.__version__}"
        # CuPy's cache key does not see included headers: the digest among the options does
        options = (*OPTIONS, f"-I{kernel_directory()}", f"-DTHERMOSIM_DIGEST=0x{self.kernel_digest[:8]}")
        self._modules = {
            source: cupy.RawModule(code=(kernel_directory() / f"{source}.cu").read_text(), options=options)
            for source in SOURCES
        }
        self._functions: dict[str, Any] = {}

    def full(self, size: int, value: float, dtype: str) -> Array:
        return self._cupy.full(size, value, dtype=dtype)

    def empty(self, size: int, dtype: str) -> Array:
        return self._cupy.empty(size, dtype=dtype)

    def asarray(self, values: NDArray[Any], dtype: str) -> Array:
        return self._cupy.asarray(np.ascontiguousarray(values, dtype=dtype))

    def to_host(self, array: Array) -> NDArray[Any]:
        return np.asarray(self._cupy.asnumpy(array))

    def free_memory(self) -> int | None:
        return int(self._cupy.cuda.runtime.memGetInfo()[0])

    def fetch(self, *arrays: Array) -> list[NDArray[np.float64]]:
        joined = self.to_host(self._cupy.concatenate([array.reshape(-1) for array in arrays]))
        ends = np.cumsum([array.size for array in arrays])[:-1]
        return [part.reshape(array.shape) for part, array in zip(np.split(joined, ends), arrays, strict=True)]

    def program(self, calls: Sequence[Call]) -> Callable[[], None]:
        return _Recorded(self._cupy, super().program(calls))

    def joined(self, programs: Sequence[Callable[[], None]]) -> Callable[[], None]:
        plain = [p.launches if isinstance(p, _Recorded) else p for p in programs]
        return _Recorded(self._cupy, super().joined(plain))

    def _launch(self, signature: KernelSignature, extent: tuple[int, ...], arguments: Sequence[Any]) -> None:
        function = self._functions.get(signature.name)
        if function is None:
            function = self._modules[signature.source].get_function(signature.name)
            self._functions[signature.name] = function
        blocks, threads = launch_shape(signature, extent)
        function(blocks, threads, tuple(arguments))
