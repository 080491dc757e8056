"""Several cases on one device, whose kernels run as joined launches.

Each case runs in a thread of its own with a backend of its own, and only one of them at a time, so that
nothing depends on chance. What a case launches is queued. When it needs a value on the host it parks; once
every case is parked, the heads of their queues are walked: the same kernel of several cases becomes one
launch over them (`Backend.launch_together`), and where cases differ, by one more iteration or stage, the
others wait, like threads of a warp. Then one copy to the host answers all, and they go on. A case knows
nothing of the others, and what it computes is bit for bit what it computes alone.

Cases fall out of step: each solves its potential when it has to. At places that a simulation names
(`Backend.meet`) the conductor lets the largest group of cases go on, and the others wait until they are that.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from thermosim.backends.base import Array, Backend, KernelSignature
from thermosim.errors import Interrupted
from thermosim.interrupts import noted

T = TypeVar("T")


class CaseArray:
    """An array of one case: kernels take it, and whatever else touches its memory waits for what is queued.

    It has only what needs no such care (its type, views of it), and reading and writing of entries, before
    which the case's queue is run. Arithmetic is an error.
    """

    __slots__ = ("__weakref__", "case", "raw")
    __array_ufunc__ = None  # NumPy leaves it alone

    def __init__(self, raw: Array, case: CaseBackend) -> None:
        self.raw, self.case = raw, case

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.raw.dtype  # type: ignore[no-any-return]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.raw.shape  # type: ignore[no-any-return]

    @property
    def ndim(self) -> int:
        return self.raw.ndim  # type: ignore[no-any-return]

    @property
    def size(self) -> int:
        return self.raw.size  # type: ignore[no-any-return]

    def reshape(self, *shape: Any) -> CaseArray:
        """The same memory in another shape; an error where that would need a copy."""
        whole = self.raw.flags.c_contiguous
        if not whole:
            raise ValueError("only a contiguous array of a joined case may change its shape")
        return CaseArray(self.raw.reshape(*shape), self.case)

    def __getitem__(self, key: Any) -> CaseArray:
        parts = key if isinstance(key, tuple) else (key,)
        if all(isinstance(part, slice) for part in parts):
            return CaseArray(self.raw[key], self.case)
        if not isinstance(key, CaseArray):
            raise TypeError(f"an array of a joined case is indexed by slices or by its own kind, not {key!r}")
        self.case.settle()
        return CaseArray(self.raw[key.raw], self.case)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.case.settle()
        self.raw[key.raw if isinstance(key, CaseArray) else key] = raw(value)


def raw(value: Any) -> Any:
    """The device's own array behind one of a case; anything else as it is."""
    return value.raw if isinstance(value, CaseArray) else value


class _Ready(tuple[Any, ...]):
    """Arguments of a kernel, and once they are known the form in which the device takes them."""

    packed: Any = None


@dataclass(frozen=True)
class _Launch:
    """A queued launch; its arguments keep their arrays alive."""

    signature: KernelSignature
    extent: tuple[int, ...]
    arguments: _Ready


class CaseBackend(Backend):
    """The backend of one case among several on a device: queues what it launches."""

    def __init__(self, on: Backend, park: Callable[[], None]) -> None:
        super().__init__()
        self.name, self.device, self._on, self._park = on.name, on.device, on, park
        self.threads, self.prefers_whole_rows = on.threads, on.prefers_whole_rows
        self.queue: list[_Launch] = []
        self.wanted: list[Array] | None = None  # what the case waits for; empty: only that its queue is run
        self.answer: list[NDArray[Any]] = []
        self.place: str | None = None  # where it waits for others

    # ---- arrays

    def full(self, size: int, value: float, dtype: str) -> CaseArray:
        return CaseArray(self._on.full(size, value, dtype), self)

    def empty(self, size: int, dtype: str) -> CaseArray:
        return CaseArray(self._on.empty(size, dtype), self)

    def asarray(self, values: NDArray[Any], dtype: str) -> CaseArray:
        return CaseArray(self._on.asarray(values, dtype), self)

    def to_host(self, array: Array) -> NDArray[Any]:
        return self._ask([array])[0]

    def fetch(self, *arrays: Array) -> list[NDArray[np.float64]]:
        return [np.asarray(values, dtype=np.float64) for values in self._ask(arrays)]

    def free_memory(self) -> int | None:
        return self._on.free_memory()

    def _ask(self, arrays: Sequence[Array]) -> list[NDArray[Any]]:
        self.wanted = [raw(array) for array in arrays]
        self._park()
        answer, self.answer = self.answer, []
        return answer

    def settle(self) -> None:
        """Wait until what is queued has been launched."""
        if self.queue:
            self._ask([])

    def meet(self, place: str) -> None:
        self.place = place
        self._park()

    # ---- kernels

    def _ready(self, arguments: tuple[Any, ...]) -> Sequence[Any]:
        return _Ready(arguments)

    def _launch(self, signature: KernelSignature, extent: tuple[int, ...], arguments: Sequence[Any]) -> None:
        ready = arguments if isinstance(arguments, _Ready) else _Ready(arguments)
        if ready.packed is None:
            ready.packed = self._on.for_cases(signature, tuple(raw(a) for a in ready))
        self.queue.append(_Launch(signature, extent, ready))


def run_queues(device: Backend, queues: Iterable[Sequence[_Launch]]) -> None:
    """Launch all that is queued, each queue in its order, what is the same in several of them at once.

    Grids and lists of any sizes are joined: a launch covers the largest, and blocks beyond a smaller one end
    at once. Of the heads that one goes first which the fewest other queues still have before them: they would
    miss it.
    """
    left = [deque(queue) for queue in queues if queue]
    ahead = [Counter(launch.signature.name for launch in queue) for queue in left]
    while left:
        heads: dict[str, list[int]] = {}
        for number, queue in enumerate(left):
            heads.setdefault(queue[0].signature.name, []).append(number)
        name = next(iter(heads))
        if len(heads) > 1:
            name = min(heads, key=lambda k: sum(of[k] > 0 for of in ahead) - len(heads[k]))
        group = [left[number].popleft() for number in heads[name]]
        for number in heads[name]:
            ahead[number][name] -= 1
        packed = [launch.arguments.packed for launch in group]
        device.launch_together(group[0].signature, [launch.extent for launch in group], packed)
        if not all(left):
            ahead = [of for of, queue in zip(ahead, left, strict=True) if queue]
            left = [queue for queue in left if queue]


# ---------------------------------------------------------------------------- the conductor


class _Leave(BaseException):
    """Unwinds a case that is not to go on."""


class _Case(Generic[T]):
    """A task in its own thread, which runs only while the conductor waits for it."""

    def __init__(self, number: int, task: Callable[[Backend], T], conductor: Conductor[T]) -> None:
        self.number, self._task, self._conductor = number, task, conductor
        self.backend = CaseBackend(conductor.device, self._park)
        self.backend.interrupted = conductor.interrupted
        self.result: T | None = None
        self.error: BaseException | None = None
        self.has_ended = False
        self.leaves: BaseException | None = None  # raised where it is parked
        # What is put is counted, not lost or refused, wherever Ctrl-C breaks the conductor off.
        self._go: SimpleQueue[None] = SimpleQueue()
        self._back: SimpleQueue[None] = SimpleQueue()
        self._thread = threading.Thread(target=self._body, name=f"case {number}", daemon=True)
        self._thread.start()

    def resume(self) -> None:
        """Let it run until it parks or ends."""
        self._go.put(None)
        self._back.get()
        if self.has_ended:
            self._thread.join()

    def leave(self) -> None:
        """Unwind it, parked or running: it may park once more on its way, or have done so unseen."""
        self.leaves = _Leave()
        while not self.has_ended:
            self.resume()
        self._thread.join()

    def _park(self) -> None:
        self._back.put(None)
        self._go.get()
        if self.leaves is not None:
            raise self.leaves

    def _body(self) -> None:
        self._go.get()
        try:
            if self.leaves is None:
                self._conductor.device.use()
                self.result = self._task(self.backend)
        except BaseException as error:
            self.error = error
        self.backend.queue.clear()  # of a case that failed
        self.has_ended = True
        self._back.put(None)


class Conductor(Generic[T]):
    """Runs tasks on one device so that their launches are joined.

    `n_waits`: how often the host waited for the device so far. `interrupted`: set by Ctrl-C, here or by
    somebody who gives the flag that he sets.
    """

    def __init__(self, device: Backend, interrupted: list[bool] | None = None) -> None:
        self.device = device
        self.n_waits = 0
        self.interrupted = [False] if interrupted is None else interrupted

    def run(
        self, tasks: Iterable[Callable[[Backend], T]], at_once: int
    ) -> Iterator[tuple[int, T | None, Exception | None]]:
        """Number, result and error of each task as it ends.

        Parameters
        ----------
        tasks : each is given its backend; made while others wait.
        at_once : so many run together.

        Raises
        ------
        Interrupted
            After Ctrl-C, which tasks see (`Backend.interrupted`): no other begins, and those that run end.
        KeyboardInterrupt
            After a second one, once those that ran are unwound.
        """
        waiting, live = enumerate(tasks), []  # type: ignore[var-annotated]
        more = True
        with noted(self.interrupted):
            try:
                while True:
                    while more and len(live) < at_once and not self.interrupted[0]:
                        following = next(waiting, None)
                        if following is None:
                            more = False
                        else:
                            case = _Case(*following, self)
                            live.append(case)
                            case.resume()
                    ended, live = [c for c in live if c.has_ended], [c for c in live if not c.has_ended]
                    for case in ended:
                        if case.error is not None and not isinstance(case.error, Exception):
                            raise case.error
                        yield case.number, case.result, case.error
                    if live and not ended:
                        self._step(live)
                    elif not live and self.interrupted[0]:
                        raise Interrupted("stopped")
                    elif not live and not more:
                        return
            finally:
                with noted(self.interrupted, breaks=False):
                    for case in live:
                        case.leave()

    def _step(self, live: Sequence[_Case[T]]) -> None:
        """Answer those who wait for values; if nobody does, the largest group of those who meet goes on."""
        asking = [case for case in live if case.backend.wanted is not None]
        if not asking:
            places = Counter(case.backend.place for case in live)
            place = places.most_common(1)[0][0]  # of equal groups that of the earliest case
            for case in [c for c in live if c.backend.place == place]:
                case.backend.place = None
                case.resume()
            return
        run_queues(self.device, [case.backend.queue for case in asking])
        for case in asking:
            case.backend.queue.clear()
        arrays = [array for case in asking for array in case.backend.wanted or ()]
        found = iter(self.device.to_host_together(arrays))
        self.n_waits += bool(arrays)
        for case in asking:
            case.backend.answer = [next(found) for _ in case.backend.wanted or ()]
            case.backend.wanted = None
        for case in asking:
            case.resume()
