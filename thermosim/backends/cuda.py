"""Kernels as CUDA through CuPy: the only module that imports cupy."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermosim.backends.base import SOURCES, Array, Backend, Call, KernelSignature
from thermosim.backends.of_cases import MOST_CASES, OPTION, layout_of, packed, source_of_cases
from thermosim.errors import BackendError
from thermosim.resources import kernel_directory

CELL_BLOCK = (32, 4, 2)
ENTRY_BLOCK = 256
ROWS_PER_BLOCK = 8
LARGEST_JOINED_COPY = 1 << 24
"""Arrays of so many bytes in all are put together for one copy to the host; larger ones need no such help."""

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
        self._number = device
        self.use()
        properties = cupy.cuda.runtime.getDeviceProperties(device)
        label = properties["name"]
        self.device = f"{label.decode() if isinstance(label, bytes) else label}, CuPy {cupy.__version__}"
        # CuPy's cache key does not see included headers: the digest among the options does
        options = (*OPTIONS, f"-I{kernel_directory()}", f"-DTHERMOSIM_DIGEST=0x{self.kernel_digest[:8]}")
        self._modules = {
            source: cupy.RawModule(code=(kernel_directory() / f"{source}.cu").read_text(), options=options)
            for source in SOURCES
        }
        self._modules_of_cases = {
            source: cupy.RawModule(code=source_of_cases(source), options=(*options, OPTION))
            for source in SOURCES
        }
        self._functions: dict[str, Any] = {}

    def use(self) -> None:
        self._cupy.cuda.Device(self._number).use()

    def full(self, size: int, value: float, dtype: str) -> Array:
        return self._cupy.full(size, value, dtype=dtype)

    def empty(self, size: int, dtype: str) -> Array:
        return self._cupy.empty(size, dtype=dtype)

    def asarray(self, values: NDArray[Any], dtype: str) -> Array:
        return self._cupy.asarray(np.ascontiguousarray(values, dtype=dtype))

    def to_host(self, array: Array) -> NDArray[Any]:
        return np.asarray(self._cupy.asnumpy(array))

    def free_memory(self) -> int | None:
        kept = self._cupy.get_default_memory_pool().free_bytes()  # by CuPy, for the arrays to come
        return int(self._cupy.cuda.runtime.memGetInfo()[0]) + int(kept)

    def fetch(self, *arrays: Array) -> list[NDArray[np.float64]]:
        joined = self.to_host(self._cupy.concatenate([array.reshape(-1) for array in arrays]))
        ends = np.cumsum([array.size for array in arrays])[:-1]
        return [part.reshape(array.shape) for part, array in zip(np.split(joined, ends), arrays, strict=True)]

    def to_host_together(self, arrays: Sequence[Array]) -> list[NDArray[Any]]:
        if len(arrays) < 2 or sum(array.nbytes for array in arrays) > LARGEST_JOINED_COPY:
            return [self.to_host(array) for array in arrays]
        whole = self.to_host(self._cupy.concatenate([array.reshape(-1).view("uint8") for array in arrays]))
        parts = np.split(whole, np.cumsum([array.nbytes for array in arrays])[:-1])
        return [part.copy().view(a.dtype).reshape(a.shape) for part, a in zip(parts, arrays, strict=True)]

    def program(self, calls: Sequence[Call]) -> Callable[[], None]:
        return _Recorded(self._cupy, super().program(calls))

    def joined(self, programs: Sequence[Callable[[], None]]) -> Callable[[], None]:
        plain = [p.launches if isinstance(p, _Recorded) else p for p in programs]
        return _Recorded(self._cupy, super().joined(plain))

    def _launch(self, signature: KernelSignature, extent: tuple[int, ...], arguments: Sequence[Any]) -> None:
        blocks, threads = launch_shape(signature, extent)
        self._function(signature.name, self._modules[signature.source])(blocks, threads, tuple(arguments))

    def _function(self, name: str, module: Any) -> Any:
        function = self._functions.get(name)
        if function is None:
            function = self._functions[name] = module.get_function(name)
        return function

    def for_cases(self, signature: KernelSignature, arguments: tuple[Any, ...]) -> Any:
        return layout_of(signature).pack(*(a.data.ptr if a.ndim else a.item() for a in arguments))

    def launch_together(
        self, signature: KernelSignature, extents: Sequence[tuple[int, ...]], cases: Sequence[Any]
    ) -> None:
        function = self._function(f"{signature.name}_of_cases", self._modules_of_cases[signature.source])
        for first in range(0, len(cases), MOST_CASES):
            some = cases[first : first + MOST_CASES]
            shapes = [launch_shape(signature, extent) for extent in extents[first : first + MOST_CASES]]
            blocks = tuple(max(counts) for counts in zip(*(shape for shape, _ in shapes), strict=True))
            given = packed(signature, some)
            arguments: tuple[Any, ...] = (np.frombuffer(given, f"V{len(given)}"),)
            if signature.kind == "cell":
                arguments, blocks = (*arguments, np.uint32(blocks[2])), (*blocks[:2], blocks[2] * len(some))
            else:
                blocks = (blocks[0], len(some))
            function(blocks, shapes[0][1], arguments)
