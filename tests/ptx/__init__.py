"""Kernels compiled for a GPU, run without one, and watched.

NVRTC compiles CUDA C++ to PTX (no driver needed); each basic block becomes a NumPy function, which runs
for all threads of a batch of blocks at once, the earliest block of instructions first, the others masked.
Checked are bounds and alignment of every access, barriers that not all threads reach, and, if asked,
reads of what nobody wrote and races; bytes and 32-byte sectors are counted. It says nothing about time,
knows no caches, and one legal order of threads is run: a clean run is no proof.

Not supported, and refused by name when executed: calls, generic addresses, atomics, textures, matrix
and asynchronous instructions, constant and global variables, half precision, directed rounding.
"""

from ptx.errors import (
    BarrierError,
    CompileError,
    MemoryFault,
    PtxError,
    RaceError,
    StepLimit,
    TrapError,
    UninitialisedRead,
)
from ptx.memory import mark_initialised, mark_uninitialised
from ptx.module import Kernel, Module, compile_ptx
from ptx.statistics import Statistics, Traffic
from ptx.threads import Checks

__all__ = [
    "BarrierError",
    "Checks",
    "CompileError",
    "Kernel",
    "MemoryFault",
    "Module",
    "PtxError",
    "RaceError",
    "Statistics",
    "StepLimit",
    "Traffic",
    "TrapError",
    "UninitialisedRead",
    "compile_ptx",
    "mark_initialised",
    "mark_uninitialised",
]
