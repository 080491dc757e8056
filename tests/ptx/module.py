"""CUDA C++ compiled by NVRTC to PTX, and its kernels ready to be called on NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptx.errors import CompileError, RaceError
from ptx.launch import Launch
from ptx.memory import regions_of
from ptx.program import DTYPES, Program, canonical
from ptx.statistics import Statistics
from ptx.text import WIDTH, Entry, Variable, parse_module
from ptx.threads import Checks, Shape

SHARED_GAP = 1024
"""Bytes between variables in shared memory: overruns are seen, banks stay as they are."""
MOST_SHARED = 227 * 1024
DEFAULT_CHECKS = Checks()


def compile_ptx(source: str, options: Sequence[str] = (), architecture: str = "compute_90") -> str:
    """PTX of CUDA C++, with the lines of the source.

    Raises
    ------
    CompileError
        With NVRTC's messages.
    """
    from cuda.bindings import nvrtc

    def checked(answer: tuple[Any, ...]) -> Any:
        if answer[0] != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise CompileError(f"NVRTC: {answer[0].name}")
        return answer[1] if len(answer) > 1 else None

    words = [*options, f"--gpu-architecture={architecture}", "--generate-line-info"]
    program = checked(nvrtc.nvrtcCreateProgram(source.encode(), b"kernel.cu", 0, [], []))
    outcome = nvrtc.nvrtcCompileProgram(program, len(words), [word.encode() for word in words])
    log = b" " * checked(nvrtc.nvrtcGetProgramLogSize(program))
    checked(nvrtc.nvrtcGetProgramLog(program, log))
    if outcome[0] != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise CompileError(f"NVRTC: {log.rstrip(chr(0).encode() + b' ').decode(errors='replace')}")
    text = b" " * checked(nvrtc.nvrtcGetPTXSize(program))
    checked(nvrtc.nvrtcGetPTX(program, text))
    checked(nvrtc.nvrtcDestroyProgram(program))
    return text.rstrip(b"\0").decode()


class Module:
    """The kernels of one source.

    module = Module(source, ("-std=c++17",))
    statistics = module.kernel("step")(grid, block, (out, inp, np.float32(0.1), np.int32(n)))
    """

    def __init__(self, source: str, options: Sequence[str] = (), architecture: str = "compute_90") -> None:
        self.entries, self.variables = parse_module(compile_ptx(source, options, architecture))
        self._kernels: dict[str, Kernel] = {}

    def kernel(self, name: str) -> Kernel:
        """The kernel of this name; `KeyError` if there is none."""
        if name not in self._kernels:
            self._kernels[name] = Kernel(self.entries[name], self.variables)
        return self._kernels[name]


@dataclass(frozen=True)
class ByValue:
    """A struct given by value: its bytes, and the arrays that addresses in it point to."""

    bytes: bytes
    arrays: tuple[Any, ...] = ()


class Kernel:
    """One kernel, called with grid, block and arguments: arrays, which it changes in place, and scalars.

    Scalars must be of the size and kind of their parameters, because CuPy passes the bytes as they are.
    """

    def __init__(self, entry: Entry, variables: dict[str, Variable]) -> None:
        self.entry, self.name = entry, entry.name
        self._n_bytes = _place(entry.parameters)
        local = [v for v in entry.variables.values() if v.space == "local"]
        self.local_size = _place(local)
        symbols = {v.name: v.offset for v in local}
        text = " ".join(getattr(item, "text", "") for item in entry.body)
        shared = [v for v in (*entry.variables.values(), *variables.values()) if v.space == "shared"]
        shared = [v for v in shared if v.name in text]
        self.shared_size, self._shared = 0, []
        for number, variable in enumerate(v for v in shared if not v.is_extern):
            self.shared_size = -(-self.shared_size // variable.alignment) * variable.alignment
            low = symbols[variable.name] = self.shared_size + SHARED_GAP * number
            self._shared.append((low, low + variable.size))
            self.shared_size += variable.size
        self._dynamic = -(-self.shared_size // 16) * 16 + SHARED_GAP * len(self._shared)
        symbols |= {v.name: self._dynamic for v in shared if v.is_extern}
        self.program = Program(entry, symbols)
        self.granules = {space: self._granule(space) for space in ("global", "shared")}

    def _granule(self, space: str) -> int:
        """Bytes of the narrowest access to this kind of memory."""
        widths = [
            WIDTH[part]
            for instruction in self.program.sites
            if instruction.op[0] in ("ld", "st") and space in instruction.op
            for part in instruction.op[1:]
            if part in WIDTH
        ]
        return min([4, *widths])

    def __call__(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[Any],
        shared_memory: int = 0,
        checks: Checks = DEFAULT_CHECKS,
    ) -> Statistics:
        """Run it to its end.

        Raises
        ------
        PtxError
            What the kernel does that a GPU would not forgive.
        TypeError, ValueError
            For arguments or a shape of launch that CUDA or CuPy would refuse, or take for something else.
        """
        blocks, threads = self._shape(grid, block)
        if self.shared_size + shared_memory > MOST_SHARED:
            raise ValueError(
                f"{self.shared_size + shared_memory} bytes of shared memory, {MOST_SHARED} are there"
            )
        regions, parameters = self._pack(arguments)
        shared = [*self._shared]
        if shared_memory:
            shared.append((self._dynamic, self._dynamic + shared_memory))
        launch = Launch(self, blocks, threads, checks, parameters, regions, shared)
        statistics = launch.run()
        if launch.races and checks.races != "collect":
            first = "\n  ".join(race["text"] for race in launch.races[:10])
            raise RaceError(f"kernel {self.name}: {len(launch.races)} hazard(s):\n  {first}", launch.races)
        return statistics

    def _shape(self, grid: Sequence[int], block: Sequence[int]) -> tuple[Shape, Shape]:
        blocks, threads = _three(grid), _three(block)
        size = threads[0] * threads[1] * threads[2]
        if min(blocks) < 1 or min(threads) < 1:
            raise ValueError(f"grid {blocks} and block {threads} must be positive")
        if size > 1024 or threads[2] > 64:
            raise ValueError(f"a block of {threads} threads is too large")
        if blocks[1] > 65535 or blocks[2] > 65535 or blocks[0] > 2**31 - 1:
            raise ValueError(f"a grid of {blocks} blocks is too large")
        required, most = self.entry.required_threads, self.entry.most_threads
        if required and _three(required) != threads:
            raise ValueError(f"kernel {self.name} requires blocks of {required}, got {threads}")
        if most and size > int(np.prod(most)):
            raise ValueError(f"kernel {self.name}: a block of {threads} exceeds its __launch_bounds__ {most}")
        return blocks, threads

    def _pack(self, arguments: Sequence[Any]) -> tuple[list[Any], bytes]:
        parameters = self.entry.parameters
        if len(arguments) != len(parameters):
            raise TypeError(f"kernel {self.name} takes {len(parameters)} arguments, got {len(arguments)}")
        arrays: list[Any] = []
        inside: list[Any] = []
        for number, (parameter, value) in enumerate(zip(parameters, arguments, strict=True)):
            if isinstance(value, np.ndarray):
                if WIDTH[parameter.type] != 8 or parameter.type == "f64":
                    what = f"is an array, the parameter is .{parameter.type}"
                    raise TypeError(f"kernel {self.name}: argument {number} {what}")
                arrays.append((number, value))
            elif isinstance(value, ByValue):
                inside += [(number, array) for array in value.arrays]
        regions, _ = regions_of([*arrays, *inside])
        addresses = regions_of(arrays)[1]
        packed = bytearray(self._n_bytes)
        for number, (parameter, value) in enumerate(zip(parameters, arguments, strict=True)):
            if number in addresses:
                raw = addresses[number].to_bytes(8, "little")
            elif value is None:
                raw = bytes(8)
            elif isinstance(value, ByValue):
                raw = value.bytes
                if len(raw) != parameter.size:
                    raise TypeError(
                        f"kernel {self.name}: argument {number} has {len(raw)} bytes, the parameter "
                        f"{parameter.size}"
                    )
            else:
                raw = self._scalar(value, parameter.type, number)
            packed[parameter.offset : parameter.offset + len(raw)] = raw
        return regions, bytes(packed)

    def _scalar(self, value: Any, type_: str, number: int) -> bytes:
        dtype = np.dtype(DTYPES[canonical(type_)])
        given = np.asarray(value)
        same_kind = type_[0] == "b" or (given.dtype.kind == "f") == (dtype.kind == "f")
        if not isinstance(value, np.generic) or given.dtype.itemsize != dtype.itemsize or not same_kind:
            raise TypeError(
                f"kernel {self.name}: argument {number} is {type(value).__name__}, the parameter .{type_}: "
                "CuPy passes the raw bytes, which would be wrong on a GPU; give a NumPy scalar of its type"
            )
        return given.tobytes()


def _place(variables: list[Variable]) -> int:
    """Give each variable its offset; returns the bytes of all."""
    end = 0
    for variable in variables:
        variable.offset = -(-end // variable.alignment) * variable.alignment
        end = variable.offset + variable.size
    return end


def _three(shape: Sequence[int]) -> Shape:
    sizes = [int(n) for n in shape] + [1] * (3 - len(shape))
    return sizes[0], sizes[1], sizes[2]
