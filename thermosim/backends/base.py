"""What every backend offers: padded fields, kernels by name, and reductions."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from thermosim.resources import kernel_directory

Array = Any
"""A flat, padded array of the backend: numpy.ndarray or cupy.ndarray."""

SOURCES = ("electric_potential", "multigrid", "bioheat", "damage", "arrays")

_ROW_ALIGNMENT = 8  # cells: a row starts on a 32-byte sector

LONGEST_PART, USUAL_PART = 1024, 256
"""Values that one warp reduces: so many if that is all, else parts of so many."""


@dataclass(frozen=True)
class Layout:
    """Where cell (i, j, k) of a padded field lies: ``origin + i * sx + j * sy + k``.

    A ring of ghost cells surrounds the box. Rows along z are padded to a multiple of eight cells;
    the ghost before a row is the last cell of the row before it.
    """

    shape: tuple[int, int, int]

    @cached_property
    def sy(self) -> int:
        return -(-(self.shape[2] + 1) // _ROW_ALIGNMENT) * _ROW_ALIGNMENT

    @cached_property
    def sx(self) -> int:
        return (self.shape[1] + 2) * self.sy

    @cached_property
    def origin(self) -> int:
        return _ROW_ALIGNMENT + self.sx + self.sy

    @cached_property
    def size(self) -> int:
        """Length of a padded field."""
        return _ROW_ALIGNMENT + (self.shape[0] + 2) * self.sx + _ROW_ALIGNMENT

    @cached_property
    def arguments(self) -> tuple[np.int32, ...]:
        """The kernel parameters GRID_PARAMETERS."""
        return tuple(np.int32(v) for v in (*self.shape, self.sx, self.sy, self.origin))

    @property
    def n_rows(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def n_cells(self) -> int:
        return self.n_rows * self.shape[2]

    def interior(self, field: Array) -> Array:
        """The cells of the box as a view of shape (nx, ny, nz)."""
        nx, ny, nz = self.shape
        planes = field[_ROW_ALIGNMENT : _ROW_ALIGNMENT + (nx + 2) * self.sx]
        return planes.reshape(nx + 2, ny + 2, self.sy)[1:-1, 1:-1, :nz]

    def part(self, lower: tuple[int, int, int], upper: tuple[int, int, int]) -> Layout:
        """The cells from `lower` up to but not including `upper`, as a box of its own in the same fields."""
        steps = (self.sx, self.sy, 1)
        origin = self.origin + sum(step * start for step, start in zip(steps, lower, strict=True))
        shape = (upper[0] - lower[0], upper[1] - lower[1], upper[2] - lower[2])
        return _Part(shape, self.sx, self.sy, origin)

    def lower_ghosts(self, axis: int) -> Layout:
        """The ghost cells beside the first layer along `axis`, as a box of their own."""
        lower, upper = [0, 0, 0], list(self.shape)
        lower[axis], upper[axis] = -1, 0
        return self.part((lower[0], lower[1], lower[2]), (upper[0], upper[1], upper[2]))

    def memory_index(self, cells: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """Indices in memory of cells numbered ``(i * ny + j) * nz + k``."""
        _, ny, nz = self.shape
        i, rest = np.divmod(np.asarray(cells, dtype=np.int64), ny * nz)
        j, k = np.divmod(rest, nz)
        return np.asarray(self.origin + i * self.sx + j * self.sy + k, dtype=np.int32)


class _Part(Layout):
    """Some cells of another layout's fields."""

    def __init__(self, shape: tuple[int, int, int], sx: int, sy: int, origin: int) -> None:
        super().__init__(shape)
        self.__dict__.update(sx=sx, sy=sy, origin=origin)  # where cached_property looks first


def row_starts(cells: NDArray[np.integer[Any]], shape: tuple[int, int, int]) -> NDArray[np.int32]:
    """First entry of each row, and the end, of sorted cells numbered ``(i * ny + j) * nz + k``."""
    rows = np.arange(shape[0] * shape[1] + 1, dtype=np.int64) * shape[2]
    return np.searchsorted(np.asarray(cells, dtype=np.int64), rows).astype(np.int32)


KernelKind = Literal["cell", "entry", "row"]


@dataclass(frozen=True)
class KernelSignature:
    """Name, kind and parameter types of a kernel, as read from its source."""

    name: str
    source: str
    kind: KernelKind
    parameters: tuple[tuple[str, str], ...]  # (C type, name) after GRID_PARAMETERS
    has_grid: bool
    around: frozenset[str] = frozenset()  # parameters that are read at neighbours, too
    constant: frozenset[str] = frozenset()  # arrays that are only read
    several_values: bool = False  # leaves more than one number per row
    by_entry: frozenset[str] = frozenset()  # of a kernel on a list: arrays of one value per entry

    @cached_property
    def expected(self) -> tuple[tuple[np.dtype[Any], bool], ...]:
        """Type of each parameter, and whether it is an array."""
        return tuple((_DTYPES[c_type], c_type.endswith("*")) for c_type, _ in self.parameters)


@dataclass(frozen=True)
class Call:
    """A kernel with its arguments, to be run as part of a program.

    `arguments` are all of them, those of the grid or the number of entries included. `starts`: of a kernel
    on a list, the first entry of each row of cells and of the end. `box`: planes and rows of the grid it
    runs on, which is `ratio` times coarser than the program's.
    """

    signature: KernelSignature
    extent: tuple[int, ...]
    arguments: tuple[Any, ...]
    box: tuple[int, int]
    ratio: int = 1
    starts: NDArray[np.int32] | None = None


_KERNEL = re.compile(r"^KERNEL (\w+)\((.*?)\)\s*\{", re.DOTALL | re.MULTILINE)
_DTYPES: dict[str, np.dtype[Any]] = {
    "float*": np.dtype("float32"),
    "double*": np.dtype("float64"),
    "int*": np.dtype("int32"),
    "unsigned char*": np.dtype("uint8"),
    "float": np.dtype("float32"),
    "int": np.dtype("int32"),
}


def read_signatures(directory: Path) -> dict[str, KernelSignature]:
    """Every kernel in the sources, by name."""
    signatures: dict[str, KernelSignature] = {}
    for source in SOURCES:
        text = (directory / f"{source}.cu").read_text()
        for match in _KERNEL.finditer(text):
            name, declared = match.group(1), [p.strip() for p in match.group(2).split(",")]
            loop = re.compile(r"for_each_(cell|entry|row)").search(text, match.end())
            if loop is None:
                raise RuntimeError(f"kernel {name} has no loop")
            has_grid = declared[0] == "GRID_PARAMETERS"
            parameters, around, constant = [], set(), set()
            for parameter in declared[1:] if has_grid else declared:
                words = parameter.split()
                if "AROUND" in words:
                    around.add(words[-1])
                if "const" in words:
                    constant.add(words[-1])
                c_type = " ".join(word for word in words[:-1] if word not in ("const", "AROUND"))
                parameters.append((c_type, words[-1]))
            kind: KernelKind = loop.group(1)  # type: ignore[assignment]
            body = text[match.end() : text.index("\n}", match.end())]
            signatures[name] = KernelSignature(
                name,
                source,
                kind,
                tuple(parameters),
                has_grid,
                frozenset(around),
                frozenset(constant),
                "rows + n" in body,
                frozenset(re.findall(r"\b(\w+)\[e\b", body)) if kind == "entry" else frozenset(),
            )
    return signatures


@lru_cache(maxsize=1)
def kernel_signatures() -> dict[str, KernelSignature]:
    """Every shipped kernel, by name."""
    return read_signatures(kernel_directory())


@lru_cache(maxsize=1)
def kernel_digest() -> str:
    """SHA-256 over all kernel sources: part of the cache key and of a result's provenance."""
    digest = hashlib.sha256()
    for path in sorted(kernel_directory().iterdir()):
        if path.suffix in {".cu", ".h"}:
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


class Backend(ABC):
    """A device with its arrays and compiled kernels."""

    name: str
    device: str
    prefers_whole_rows = False
    """Whether a part of a grid is better cut out with its rows along z left whole."""
    threads = 0
    """Threads of the host that may work for its cases; 0: what a case chooses."""
    interrupted: list[bool] | None = None
    """Set by Ctrl-C, where not the run itself but somebody else listens to it."""

    def __init__(self) -> None:
        self.kernel_digest = kernel_digest()
        self._signatures = kernel_signatures()
        self._row_buffers: dict[int, Array] = {}

    # ---- arrays

    @abstractmethod
    def full(self, size: int, value: float, dtype: str) -> Array:
        """A new flat array."""

    def empty(self, size: int, dtype: str) -> Array:
        """A new flat array, to be filled."""
        return self.full(size, 0, dtype)

    @abstractmethod
    def asarray(self, values: NDArray[Any], dtype: str) -> Array:
        """A copy of host values on the device."""

    @abstractmethod
    def to_host(self, array: Array) -> NDArray[Any]:
        """A copy (or the array itself) in host memory."""

    def free_memory(self) -> int | None:
        """Bytes free on a device with memory of its own; None where fields lie in the host's."""
        return None

    def fetch(self, *arrays: Array) -> list[NDArray[np.float64]]:
        """Copies of float64 arrays or numbers in host memory, for which the host waits once."""
        return [np.asarray(self.to_host(array), dtype=np.float64) for array in arrays]

    def to_host_together(self, arrays: Sequence[Array]) -> list[NDArray[Any]]:
        """Each as `to_host`, for which the host waits once."""
        return [self.to_host(array) for array in arrays]

    def field(self, layout: Layout, value: float = 0.0, dtype: str = "float32") -> Array:
        """A padded field filled with `value`, ghost cells included."""
        return self.full(layout.size, value, dtype)

    # ---- entries of arrays, in the order of the kernels around them

    def take(self, field: Array, index: Array) -> Array:
        """Entries ``field[index]`` of a float32 field."""
        out = self.empty(index.size, "float32")
        self.on_entries("take", index.size, index, field, out)
        return out

    def put(self, target: Array, index: Array, values: Array) -> None:
        """``target[index] = values``, float32; no entry twice."""
        self.on_entries("put", index.size, index, values, target)

    def write(self, target: Array, values: NDArray[Any]) -> None:
        """Host values into the first entries of a float32 array."""
        self.on_entries("copy_entries", values.size, self.asarray(values, "float32"), target)

    def sums(self, rows: Array) -> Array:
        """Sum of each row of float64 in a fixed order, (n_values, n) to (n_values,)."""
        return self._reduced("sum_parts", rows)

    def maxima(self, rows: Array) -> Array:
        """Maximum of each row of float64, (n_values, n) to (n_values,)."""
        return self._reduced("max_parts", rows)

    def _reduced(self, kernel: str, rows: Array) -> Array:
        n_values, n = rows.shape
        while True:
            length = n if n <= LONGEST_PART else USUAL_PART
            parts = _Part((n_values, -(-n // length), length), sx=n, sy=length, origin=0)
            out = self.empty(parts.n_rows, "float64")
            self.on_cells(kernel, parts, rows.reshape(-1), out)
            if parts.shape[1] == 1:
                return out
            rows, n = out, parts.shape[1]

    # ---- kernels

    @abstractmethod
    def _launch(self, signature: KernelSignature, extent: tuple[int, ...], arguments: Sequence[Any]) -> None:
        """Run a kernel over a grid (nx, ny, nz) or a list (n,) of entries."""

    # ---- cases that share launches: see `thermosim.backends.joined`

    def use(self) -> None:  # noqa: B027 -- only a GPU belongs to a thread
        """Make the device that of the calling thread."""

    def meet(self, place: str) -> None:  # noqa: B027 -- one alone waits for nobody
        """A place of the program where cases that run joined wait for each other; nothing to one alone."""

    def for_cases(self, signature: KernelSignature, arguments: tuple[Any, ...]) -> Any:
        """Arguments of a kernel in the form that `launch_together` takes."""
        return self._ready(arguments)

    def launch_together(
        self, signature: KernelSignature, extents: Sequence[tuple[int, ...]], cases: Sequence[Any]
    ) -> None:
        """Run a kernel for several cases, each with its own extent and arguments from `for_cases`."""
        for extent, arguments in zip(extents, cases, strict=True):
            self._launch(signature, extent, arguments)

    # ---- launches

    def on_cells(self, name: str, layout: Layout, *arguments: Any) -> None:
        """Run a kernel on every cell of the box (by cells, or by rows if it leaves no sums)."""
        kind = self._signatures[name].kind
        signature = self._checked(name, "row" if kind == "row" else "cell", arguments)
        self._launch(signature, layout.shape, (*layout.arguments, *arguments))

    def bound_to_cells(self, name: str, layout: Layout, *arguments: Any) -> Callable[[], None]:
        """`on_cells` with its arguments, checked and made ready once, to be called many times.

        Sees what the arrays hold when it is called; they must not be freed or exchanged meanwhile.
        """
        kind = self._signatures[name].kind
        signature = self._checked(name, "row" if kind == "row" else "cell", arguments)
        ready = self._ready((*layout.arguments, *arguments))
        return lambda: self._launch(signature, layout.shape, ready)

    def _ready(self, arguments: tuple[Any, ...]) -> Sequence[Any]:
        """Arguments in the form that `_launch` takes fastest."""
        return arguments

    # ---- programs: kernels that follow each other with nothing to decide in between

    def call_on_cells(self, name: str, layout: Layout, *arguments: Any, ratio: int = 1) -> Call:
        """`on_cells` as part of a program; `ratio` 2: on a grid twice as coarse as the program's."""
        kind = self._signatures[name].kind
        signature = self._checked(name, "row" if kind == "row" else "cell", arguments)
        return Call(signature, layout.shape, (*layout.arguments, *arguments), layout.shape[:2], ratio)

    def call_on_entries(self, name: str, layout: Layout, starts: NDArray[np.int32], *arguments: Any) -> Call:
        """`on_entries` as part of a program; `starts`: the first entry of each row of cells, and the end."""
        n = int(starts[-1])
        signature = self._checked(name, "entry", (np.int32(n), *arguments))
        return Call(signature, (n,), (np.int32(n), *arguments), layout.shape[:2], 1, starts)

    def program(self, calls: Sequence[Call]) -> Callable[[], None]:
        """The calls in order, made ready to be run many times.

        Sees what the arrays hold when it is run; they must not be freed or exchanged meanwhile.
        """
        ready = [(c.signature, c.extent, self._ready(c.arguments)) for c in calls if 0 not in c.extent]

        def run() -> None:
            for signature, extent, arguments in ready:
                self._launch(signature, extent, arguments)

        return run

    def joined(self, programs: Sequence[Callable[[], None]]) -> Callable[[], None]:
        """Programs that always run in this order, as one."""

        def run() -> None:
            for program in programs:
                program()

        return run

    def on_entries(self, name: str, n: int, *arguments: Any) -> None:
        """Run a kernel on the entries of a list."""
        if n > 0:
            signature = self._checked(name, "entry", (np.int32(n), *arguments))
            self._launch(signature, (n,), (np.int32(n), *arguments))

    def on_rows(self, name: str, layout: Layout, n_values: int, *arguments: Any) -> Array:
        """Run a kernel that leaves `n_values` doubles per row of cells; shape (n_values, n_rows)."""
        size = n_values * layout.n_rows
        if size not in self._row_buffers:
            self._row_buffers[size] = self.full(size, 0.0, "float64")
        rows = self._row_buffers[size]
        signature = self._checked(name, "row", (*arguments, rows))
        self._launch(signature, layout.shape, (*layout.arguments, *arguments, rows))
        return rows.reshape(n_values, layout.n_rows)

    def row_sums(self, name: str, layout: Layout, n_values: int, *arguments: Any) -> tuple[float, ...]:
        """As `on_rows`, summed over the rows in a fixed order."""
        (sums,) = self.fetch(self.sums(self.on_rows(name, layout, n_values, *arguments)))
        return tuple(float(v) for v in sums)

    def _checked(self, name: str, kind: KernelKind, arguments: Sequence[Any]) -> KernelSignature:
        signature = self._signatures[name]
        if signature.kind != kind:
            raise TypeError(f"kernel {name} runs per {signature.kind}, not per {kind}")
        if len(arguments) != len(signature.parameters):
            raise TypeError(
                f"kernel {name} takes {len(signature.parameters)} arguments, got {len(arguments)}"
            )
        for place, ((dtype, is_array), value) in enumerate(zip(signature.expected, arguments, strict=True)):
            if value.dtype != dtype:
                c_type, parameter = signature.parameters[place]
                raise TypeError(f"kernel {name}, {parameter}: {c_type} expected, got {value.dtype}")
            if is_array != (value.ndim > 0):
                c_type, parameter = signature.parameters[place]
                raise TypeError(f"kernel {name}, {parameter}: {c_type} expected, got {value.ndim}-d")
        return signature
