"""Compiles every kernel with NVRTC for real architectures, without a GPU or driver.

`python -m thermosim.backends.nvrtc --check` is what continuous integration runs: it fails on a
kernel that does not compile or spills registers, and prints registers and spills per kernel.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from typing import Any

from thermosim.backends.base import SOURCES, kernel_signatures
from thermosim.backends.cuda import OPTIONS
from thermosim.errors import BackendError
from thermosim.resources import kernel_directory

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")

_FUNCTION = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")


@dataclass(frozen=True)
class KernelReport:
    """What the assembler says of one kernel on one architecture."""

    kernel: str
    architecture: str
    registers: int
    spill_bytes: int


def compile_source(source: str, architecture: str) -> tuple[bytes, str]:
    """The cubin of one source file and the assembler's report.

    Raises
    ------
    BackendError
        When NVRTC is not installed or the source does not compile.
    """
    try:
        from cuda.bindings import nvrtc
    except ImportError as error:
        raise BackendError(
            "NVRTC is not installed; pip install 'thermosim[test]' (nvidia-cuda-nvrtc and cuda-bindings)"
        ) from error

    def checked(answer: tuple[Any, ...]) -> Any:
        if answer[0] != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise BackendError(f"NVRTC: {answer[0].name} in {source}.cu for {architecture}")
        return answer[1] if len(answer) > 1 else None

    folder = kernel_directory()
    text = (folder / f"{source}.cu").read_bytes()
    program = checked(nvrtc.nvrtcCreateProgram(text, f"{source}.cu".encode(), 0, [], []))
    options = [*OPTIONS, f"-I{folder}", f"--gpu-architecture={architecture}", "--ptxas-options=--verbose"]
    outcome = nvrtc.nvrtcCompileProgram(program, len(options), [o.encode() for o in options])
    log = b" " * checked(nvrtc.nvrtcGetProgramLogSize(program))
    checked(nvrtc.nvrtcGetProgramLog(program, log))
    report = log.rstrip(b"\0 ").decode(errors="replace")
    if outcome[0] != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise BackendError(f"{source}.cu does not compile for {architecture}:\n{report}")
    cubin = b" " * checked(nvrtc.nvrtcGetCUBINSize(program))
    checked(nvrtc.nvrtcGetCUBIN(program, cubin))
    return cubin, report


def read_report(text: str) -> list[KernelReport]:
    """Registers and spills per kernel from the assembler's messages."""
    reports: list[KernelReport] = []
    name, architecture, spilled = "", "", 0
    for line in text.splitlines():
        if found := _FUNCTION.search(line):
            name, architecture, spilled = found.group(1), found.group(2), 0
        elif found := _SPILLS.search(line):
            spilled = int(found.group(2)) + int(found.group(3))
        elif (found := _REGISTERS.search(line)) and name:
            reports.append(KernelReport(name, architecture, int(found.group(1)), spilled))
            name = ""
    return reports


def check(architectures: tuple[str, ...] = ARCHITECTURES) -> list[KernelReport]:
    """Compile all kernels; every one must be there and none may spill."""
    reports: list[KernelReport] = []
    for architecture in architectures:
        for source in SOURCES:
            cubin, text = compile_source(source, architecture)
            if not cubin.startswith(b"\x7fELF"):
                raise BackendError(f"{source}.cu for {architecture}: NVRTC gave no cubin")
            reports += read_report(text)
        found = {r.kernel for r in reports if r.architecture == architecture}
        absent = sorted(set(kernel_signatures()) - found)
        if absent:
            raise BackendError(f"{architecture}: no report for {', '.join(absent)}")
    spilling = [r for r in reports if r.spill_bytes]
    if spilling:
        worst = max(spilling, key=lambda r: r.spill_bytes)
        raise BackendError(f"{worst.kernel} spills {worst.spill_bytes} bytes on {worst.architecture}")
    return reports


def main(arguments: list[str] | None = None) -> int:
    """Print registers per kernel and architecture."""
    parser = argparse.ArgumentParser(prog="python -m thermosim.backends.nvrtc", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compile for all architectures")
    parser.add_argument("--architectures", nargs="+", default=list(ARCHITECTURES))
    chosen = parser.parse_args(arguments)
    try:
        reports = check(tuple(chosen.architectures))
    except BackendError as error:
        print(f"thermosim: error: {error}", file=sys.stderr)
        return error.exit_code
    names = sorted({r.kernel for r in reports})
    table = {(r.kernel, r.architecture): r.registers for r in reports}
    print(f"{'kernel':26s}" + "".join(f"{a:>8s}" for a in chosen.architectures) + "   (registers; no spills)")
    for name in names:
        print(f"{name:26s}" + "".join(f"{table[name, a]:8d}" for a in chosen.architectures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
