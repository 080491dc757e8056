"""A stand-in for CuPy on a machine without a GPU: its arrays are NumPy's, its kernels run in `ptx`.

Only what thermosim asks of CuPy is here; anything else is an AttributeError. It is as strict as CuPy:
arrays of NumPy and CuPy do not mix, a reduction gives an array and no number, and what makes the host
wait is counted. While a stream is captured, launches are recorded and not run, and whatever a GPU does
not allow then is an error.
"""

from __future__ import annotations

import sys
import types
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ptx.memory import address_of, anything_unwritten, mark_initialised
from ptx.module import ByValue, Kernel, Module
from ptx.statistics import Statistics
from ptx.threads import Checks

__version__ = "14.0.0"
Launcher = Callable[[Kernel, Any, Any, Sequence[Any], Checks], Statistics]


def plain_launch(
    kernel: Kernel, grid: Any, block: Any, arguments: Sequence[Any], checks: Checks
) -> Statistics:
    """Run a kernel as it is."""
    return kernel(grid, block, arguments, checks=checks)


def _anything(_array: Any) -> None:
    """Arrays may be touched at any time."""


@dataclass
class Observations:
    """What is watched: how launches are made, how often the host waited, what was launched.

    `touched` is told of every array that is read or written without a launch.
    """

    checks: Checks = field(default_factory=lambda: Checks(statistics=False))
    launch: Launcher = plain_launch
    waits: int = 0
    launches: dict[str, int] = field(default_factory=dict)
    replays: int = 0
    capturing: list[Callable[[], None]] | None = None
    touched: Callable[[Any], None] = _anything

    def wait(self) -> None:
        """The host waits for the device."""
        if self.capturing is not None:
            raise RuntimeError("cudaErrorStreamCaptureUnsupported: the host waits while a stream is captured")
        self.waits += 1


watch = Observations()


class ndarray(np.ndarray):
    """An array on the device."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        _refuse_capture(f"numpy.{ufunc.__name__}")
        targets = () if out is None else out
        for value in (*inputs, *targets):
            if isinstance(value, np.ndarray) and not isinstance(value, ndarray):
                raise TypeError(f"Unsupported type {type(value)}")
            if isinstance(value, ndarray):
                watch.touched(value)
        if out is not None:
            options["out"] = tuple(_plain(v) for v in targets)
        result = getattr(ufunc, method)(*(_plain(v) for v in inputs), **options)
        if out is not None:
            mark_initialised(targets[0])
            return targets[0]
        return _wrap(result)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, np.ndarray):
            watch.touched(self)
        return _wrap(np.ndarray.__getitem__(self, key))

    def __setitem__(self, key: Any, value: Any) -> None:
        _refuse_capture("assignment")
        if isinstance(value, np.ndarray) and not isinstance(value, ndarray) and value.ndim:
            raise TypeError(f"Unsupported type {type(value)}")
        watch.touched(self)
        np.ndarray.__setitem__(self, key, value)
        if anything_unwritten():
            mark_initialised(self)

    def _number(self, kind: Callable[[Any], Any]) -> Any:
        watch.wait()
        return kind(_plain(self).item())

    def __float__(self) -> float:
        return float(self._number(float))

    def __int__(self) -> int:
        return int(self._number(int))

    def __bool__(self) -> bool:
        return bool(self._number(bool))

    def item(self, *_: Any) -> Any:
        return self._number(lambda value: value)

    @property
    def data(self) -> _Pointer:  # type: ignore[override]
        return _Pointer(self)

    def tolist(self) -> Any:
        return self.get().tolist()

    def get(self) -> Any:
        """A copy in host memory."""
        watch.touched(self)
        watch.wait()
        return np.array(_plain(self), copy=True)

    def sum(self, *arguments: Any, **options: Any) -> Any:
        _refuse_capture("sum")
        watch.touched(self)
        return _wrap(_plain(self).sum(*arguments, **options))

    def max(self, *arguments: Any, **options: Any) -> Any:
        _refuse_capture("max")
        watch.touched(self)
        return _wrap(_plain(self).max(*arguments, **options))

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    __array_function__ = None


def _plain(value: Any) -> Any:
    return value.view(np.ndarray) if isinstance(value, ndarray) else value


def _wrap(value: Any) -> Any:
    return np.ndarray.view(np.asanyarray(value) if not isinstance(value, ndarray) else value, ndarray)


_pointed: dict[int, _Views] = {}
"""Arrays whose address has been asked for: what an address in a struct points to."""


class _Pointer:
    """Device memory of an array."""

    def __init__(self, array: ndarray) -> None:
        self._array = array

    @property
    def ptr(self) -> int:
        address = address_of(_plain(self._array))
        _pointed.setdefault(address, _Views()).add(self._array)
        return address


class _Views:
    """Arrays that are still alive."""

    def __init__(self) -> None:
        self._kept: dict[int, weakref.ref[ndarray]] = {}

    def add(self, array: ndarray) -> None:
        key = id(array)
        self._kept[key] = weakref.ref(array, lambda _: self._kept.pop(key, None))

    def alive(self) -> list[ndarray]:
        return [array for array in (ref() for ref in list(self._kept.values())) if array is not None]


def _by_value(value: Any) -> Any:
    """A struct with the arrays that it knows the addresses of; freed ones are not among them."""
    if not isinstance(value, np.ndarray) or value.dtype.kind != "V":
        return value
    raw = value.tobytes()
    words = np.frombuffer(raw[: len(raw) // 8 * 8], np.uint64)
    known = [_pointed[int(word)] for word in words if int(word) in _pointed]
    return ByValue(raw, tuple(_plain(array) for views in known for array in views.alive()))


def _refuse_capture(what: str) -> None:
    if watch.capturing is not None:
        raise RuntimeError(f"the stand-in cannot record {what}; only kernels may be captured")


def full(shape: Any, value: Any, dtype: Any) -> ndarray:
    _refuse_capture("an allocation")
    return _wrap(np.full(shape, value, dtype))


def empty(shape: Any, dtype: Any) -> ndarray:
    return full(shape, 0, dtype)


def asarray(values: Any, dtype: Any = None) -> ndarray:
    _refuse_capture("a copy from the host")
    return values if isinstance(values, ndarray) else _wrap(np.array(values, dtype=dtype))


def asnumpy(array: Any) -> Any:
    return array.get() if isinstance(array, ndarray) else np.asarray(array)


def stack(arrays: Sequence[Any]) -> ndarray:
    _refuse_capture("stack")
    return _wrap(np.stack([_plain(a) for a in arrays]))


def concatenate(arrays: Sequence[Any]) -> ndarray:
    _refuse_capture("concatenate")
    return _wrap(np.concatenate([_plain(a) for a in arrays]))


class RawModule:
    """Source compiled at first use."""

    def __init__(self, *, code: str, options: Sequence[str] = ()) -> None:
        self._code, self._options = code, tuple(options)
        self._module: Module | None = None

    def get_function(self, name: str) -> _Function:
        if self._module is None:
            _refuse_capture("a compilation")
            self._module = Module(self._code, self._options)
        return _Function(self._module.kernel(name))


class _Function:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def __call__(self, grid: Any, block: Any, args: Sequence[Any]) -> None:
        for number, value in enumerate(args):
            by_value = isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind == "V"
            if isinstance(value, np.ndarray) and not isinstance(value, ndarray) and not by_value:
                raise TypeError(
                    f"kernel {self._kernel.name}: argument {number} is a numpy.ndarray (Unsupported type)"
                )
        plain = tuple(_plain(value) if isinstance(value, ndarray) else _by_value(value) for value in args)

        def run() -> None:
            watch.launches[self._kernel.name] = watch.launches.get(self._kernel.name, 0) + 1
            watch.launch(self._kernel, grid, block, plain, watch.checks)

        if watch.capturing is not None:
            watch.capturing.append(run)
        else:
            run()


class Graph:
    """Recorded launches."""

    def __init__(self, launches: list[Callable[[], None]]) -> None:
        self._launches = launches

    def launch(self, stream: Any = None) -> None:
        if watch.capturing is not None:
            raise RuntimeError("the stand-in cannot capture a graph in a graph")
        watch.replays += 1
        for run in self._launches:
            run()


class Stream:
    """A queue of work; the stand-in has only one, and can record."""

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        self._entered = False

    def __enter__(self) -> Stream:
        self._entered = True
        return self

    def __exit__(self, *_: Any) -> None:
        self._entered = False

    def begin_capture(self) -> None:
        if not self._entered:
            raise RuntimeError("launches go to the current stream, and this one is not")
        if watch.capturing is not None:
            raise RuntimeError("the stream is captured already")
        watch.capturing = []

    def end_capture(self) -> Graph:
        launches = watch.capturing
        if launches is None:
            raise RuntimeError("the stream is not captured")
        watch.capturing = None
        return Graph(launches)

    def synchronize(self) -> None:
        watch.wait()


class _Pool:
    """CuPy's pool of memory, which keeps nothing here."""

    def free_bytes(self) -> int:
        return 0


def get_default_memory_pool() -> _Pool:
    return _Pool()


class Device:
    """The one GPU there is not."""

    def __init__(self, number: int = 0) -> None:
        if number not in range(runtime.getDeviceCount()):
            raise RuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self.id = number

    def use(self) -> None:
        runtime.current = self.id


class _Runtime(types.ModuleType):
    count, current = 1, 0

    def getDeviceCount(self) -> int:
        return self.count

    def getDeviceProperties(self, _number: int) -> dict[str, Any]:
        return {"name": b"PTX interpreter (no GPU)", "totalGlobalMem": 80 << 30}

    def memGetInfo(self) -> tuple[int, int]:
        return 64 << 30, 80 << 30


runtime = _Runtime("cupy.cuda.runtime")
cuda = types.ModuleType("cupy.cuda")
cuda.__dict__.update(
    Device=Device, Stream=Stream, Graph=Graph, runtime=runtime, is_available=lambda: True, __path__=[]
)


@contextmanager
def installed() -> Iterator[Observations]:
    """`import cupy` gives this module while the block runs, and what it sees starts afresh."""
    kept = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "cupy"}
    for name in kept:
        del sys.modules[name]
    me = sys.modules[__name__]
    sys.modules["cupy"], sys.modules["cupy.cuda"], sys.modules["cupy.cuda.runtime"] = me, cuda, runtime
    watch.__init__()  # type: ignore[misc]
    runtime.count, runtime.current = 1, 0
    try:
        yield watch
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "cupy"]:
            del sys.modules[name]
        sys.modules.update(kept)
