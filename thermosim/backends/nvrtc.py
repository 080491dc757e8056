"""Compiles every kernel with NVRTC for real architectures, without a GPU or driver.

`python -m thermosim.backends.nvrtc --check` is what continuous integration runs: it fails on a kernel that
does not compile, spills registers or needs a stack, and prints what each needs.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from itertools import product
from typing import Any

from thermosim.backends.base import SOURCES, kernel_signatures
from thermosim.backends.cuda import OPTIONS
from thermosim.backends.of_cases import OPTION, source_of_cases
from thermosim.errors import BackendError
from thermosim.resources import kernel_directory

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")

_FUNCTION = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True)
class KernelReport:
    """What the assembler says of one kernel on one architecture.

    Per thread `registers`, and bytes of local memory: `stack_bytes` in all, `spill_bytes` that are stored and
    loaded because registers were too few. `shared_bytes` per block.
    """

    kernel: str
    architecture: str
    registers: int
    spill_bytes: int
    stack_bytes: int = 0
    shared_bytes: int = 0

    @property
    def occupancy(self) -> float:
        """Share of a multiprocessor's 2048 threads that fit with blocks of 256 (65,536 registers)."""
        per_warp = -(-32 * self.registers // 256) * 256  # handed out in units of 256
        warps = min(64, 65536 // per_warp)
        return (warps // 8 * 8) / 64


def compile_source(source: str, architecture: str, of_cases: bool = False) -> tuple[bytes, str]:
    """The cubin of one source file, or of its launches over cases, and the assembler's report.

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
    text = source_of_cases(source) if of_cases else (folder / f"{source}.cu").read_text()
    program = checked(nvrtc.nvrtcCreateProgram(text.encode(), f"{source}.cu".encode(), 0, [], []))
    options = [*OPTIONS, f"-I{folder}", f"--gpu-architecture={architecture}", "--ptxas-options=--verbose"]
    options += [OPTION] if of_cases else []
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
    """What each kernel needs, from the assembler's messages."""
    reports: list[KernelReport] = []
    name, architecture, stack, spilled = "", "", 0, 0
    for line in text.splitlines():
        if found := _FUNCTION.search(line):
            name, architecture, stack, spilled = found.group(1), found.group(2), 0, 0
        elif found := _SPILLS.search(line):
            stack, spilled = int(found.group(1)), int(found.group(2)) + int(found.group(3))
        elif (found := _REGISTERS.search(line)) and name:
            shared = _SHARED.search(line)
            n_shared = int(shared.group(1)) if shared else 0
            reports.append(KernelReport(name, architecture, int(found.group(1)), spilled, stack, n_shared))
            name = ""
    return reports


def check(architectures: tuple[str, ...] = ARCHITECTURES) -> list[KernelReport]:
    """Compile all kernels; every one must be there, and none may spill or need a stack."""
    reports: list[KernelReport] = []
    for architecture in architectures:
        for source, of_cases in product(SOURCES, (False, True)):
            cubin, text = compile_source(source, architecture, of_cases)
            if not cubin.startswith(b"\x7fELF"):
                raise BackendError(f"{source}.cu for {architecture}: NVRTC gave no cubin")
            reports += read_report(text)
        found = {r.kernel for r in reports if r.architecture == architecture}
        names = [name + end for name in kernel_signatures() for end in ("", "_of_cases")]
        absent = sorted(set(names) - found)
        if absent:
            raise BackendError(f"{architecture}: no report for {', '.join(absent)}")
    refuse_local_memory(reports)
    return reports


def refuse_local_memory(reports: list[KernelReport]) -> None:
    """Raise `BackendError` for the worst kernel that keeps anything in local memory."""
    worst = max(reports, key=lambda r: (r.spill_bytes, r.stack_bytes))
    if worst.spill_bytes or worst.stack_bytes:
        raise BackendError(
            f"{worst.kernel} spills {worst.spill_bytes} bytes on {worst.architecture} "
            f"(stack of {worst.stack_bytes} bytes): give it fewer live values, or smaller blocks"
        )


def main(arguments: list[str] | None = None) -> int:
    """Print what each kernel needs on each architecture."""
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
    table = {(r.kernel, r.architecture): r for r in reports}
    print("registers per thread, bytes spilled, bytes of shared memory, share of the threads that fit")
    print(f"{'kernel':33s}" + "".join(f"{a:>20s}" for a in chosen.architectures))
    for name in names:
        cells = (table[name, a] for a in chosen.architectures)
        texts = (
            f"{r.registers} {r.spill_bytes:3d} {r.shared_bytes:4d} {100 * r.occupancy:4.0f} %" for r in cells
        )
        print(f"{name:33s}" + "".join(f"{text:>20s}" for text in texts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
