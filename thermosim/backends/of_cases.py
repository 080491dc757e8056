"""Kernels launched once for several cases: the launches' CUDA source, and how their arguments lie in memory.

Written from the kernels' signatures, so that no kernel is written twice. A launch takes the arguments of all
its cases as one parameter by value: nothing has to be copied to the device first, and they lie in the
constant bank as those of a plain launch do. Cases may differ in their grids and in the lengths of their
lists: the launch covers the largest, and blocks beyond a case's own end do nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache

from thermosim.backends.base import KernelSignature, kernel_signatures
from thermosim.resources import kernel_directory

MOST_CASES = 16
"""Cases of one launch: their arguments have to fit into 4,096 bytes, the most that every driver takes."""

BLOCKS_AT_ONCE = {"advance_without_conduction": 4}
"""Blocks that a multiprocessor has to hold: with four a thread gets 64 registers, where the assembler for
sm_100 would rather take 32 and spill."""

OPTION = "-DTHERMOSIM_OF_CASES"

_GRID = tuple(("int", name) for name in ("nx", "ny", "nz", "sx", "sy", "origin"))
_FORMATS = {"int": "i", "float": "f"}


def parameters(signature: KernelSignature) -> tuple[tuple[str, str], ...]:
    """(C type, name) of all arguments of a kernel."""
    return (*(_GRID if signature.has_grid else ()), *signature.parameters)


@lru_cache(maxsize=256)
def layout_of(signature: KernelSignature) -> struct.Struct:
    """One case's arguments as C lays them out."""
    types = [c_type for c_type, _ in parameters(signature)]
    return struct.Struct("".join(_FORMATS.get(c_type, "P") for c_type in types) + "0P")


@lru_cache(maxsize=8)
def source_of_cases(source: str) -> str:
    """A source file of kernels, and after it a launch over cases for each of them, ``<name>_of_cases``."""
    parts = [(kernel_directory() / f"{source}.cu").read_text()]
    parts += [_launch(s) for s in kernel_signatures().values() if s.source == source]
    return "\n".join(parts)


def _launch(signature: KernelSignature) -> str:
    name, given = signature.name, parameters(signature)
    constant = {p for c_type, p in given if c_type.endswith("*") and p in signature.constant}
    fields = "".join(f"  {'const ' if p in constant else ''}{c_type} {p};\n" for c_type, p in given)
    arguments = [f"a.{p}" for _, p in given]
    which = "blockIdx.y"
    if signature.kind == "cell":
        which = "blockIdx.z / planes"
    if signature.has_grid:
        arguments.insert(0, "(blockIdx.z % planes) * blockDim.z" if signature.kind == "cell" else "0")
    bounds = f"256, {BLOCKS_AT_ONCE[name]}" if name in BLOCKS_AT_ONCE else "256"
    planes = ", unsigned planes" if signature.kind == "cell" else ""
    return f"""
struct {name}_arguments {{
{fields}}};
struct {name}_arguments_of_all {{
  {name}_arguments of[{MOST_CASES}];
}};
extern "C" __global__ void __launch_bounds__({bounds})
{name}_of_cases(const __grid_constant__ {name}_arguments_of_all cases{planes}) {{
  const {name}_arguments& a = cases.of[{which}];
  {name}({", ".join(arguments)});
}}
"""


def packed(signature: KernelSignature, cases: Sequence[bytes]) -> bytes:
    """The parameter of a launch: the arguments of up to MOST_CASES cases, the rest zero."""
    return b"".join(cases).ljust(MOST_CASES * layout_of(signature).size, b"\0")
