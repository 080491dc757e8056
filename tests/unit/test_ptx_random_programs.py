"""Random divergent programs: the PTX interpreter against the host's C compiler."""

from __future__ import annotations

import ctypes
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from ptx import Module

COMPILER = shutil.which("gcc") or shutil.which("cc") or shutil.which("clang")
N = 300


class Writer:
    """Writes statements over unsigned a–e, floats f and g, and an array t of eight."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.n_loops = 0

    def number(self, depth: int = 0) -> str:
        """An unsigned expression."""
        r, kind = self.random, self.random.randrange(14 if depth < 3 else 4)
        if kind < 3:
            return r.choice("abcde")
        if kind == 3:
            return f"{r.choice([0, 1, 2, 3, 7, 31, 255, 0x80000000, 0xFFFFFFFF, r.randrange(2**32)])}u"
        x, y = self.number(depth + 1), self.number(depth + 1)
        if kind < 9:
            return f"({x} {r.choice('+-*^&|')} {y})"
        return (
            f"({x} {r.choice(['<<', '>>'])} ({y} & 31u))",
            f"({x} {r.choice('/%')} ({y} | 1u))",
            f"(u32)((i32)({x} >> 2) {r.choice('+-')} (i32)(({y} >> 2) | 1u) / 3)",
            f"(u32)(((u64){x} * {y}) >> {r.randrange(64)})",
            f"({self.condition(depth + 1)} ? {x} : t[{y} & 7u])",
        )[kind - 9]

    def condition(self, depth: int = 0) -> str:
        """A comparison."""
        r, kind = self.random, self.random.randrange(4)
        x, y = self.number(depth + 1), self.number(depth + 1)
        sign = r.choice(["<", ">", "==", "!=", "<=", ">="])
        return (
            f"({x} {sign} {y})",
            f"((i32){x} < (i32){y})",
            f"(({x} & {r.choice([1, 3, 5, 8])}u) == 0u)",
            f"(f {r.choice(['<', '>', '<=', '>='])} g)",
        )[kind]

    def real(self) -> str:
        """A floating-point expression."""
        r, kind = self.random, self.random.randrange(5)
        if kind < 3:
            return f"{r.choice('fg')} {r.choice('+-*/')} {r.choice(['f', 'g', '1.5f', '0.3f'])}"
        return f"(float)({self.number(2)} & 0xffffu)" if kind == 3 else "(f < 100.f ? f : 0.5f)"

    def block(self, depth: int, most: int, in_loop: bool = False) -> str:
        """Statements."""
        r, lines = self.random, []
        for _ in range(r.randrange(1, most + 1)):
            kind = r.randrange(10)
            if kind < 4 or depth > 3:
                lines.append(f"{r.choice('abcde')} = {self.number()};")
            elif kind == 4:
                lines.append(f"t[{self.number(1)} & 7u] = {self.number()};")
            elif kind == 5:
                lines.append(f"{r.choice('fg')} = {self.real()};")
            elif kind < 8:
                one, other = self.block(depth + 1, 3, in_loop), self.block(depth + 1, 3, in_loop)
                lines.append(f"if {self.condition()} {{ {one} }} else {{ {other} }}")
            elif kind == 8 and self.n_loops < 4:
                self.n_loops += 1
                k, inside = f"k{self.n_loops}", self.block(depth + 1, 3, True)
                lines.append(
                    f"for (u32 {k} = 0; {k} < ({self.number(1)} & 7u); {k}++) {{ e += {k}; {inside} }}"
                )
            elif in_loop:
                lines.append(f"if {self.condition()} {r.choice(['break', 'continue'])};")
        return " ".join(lines)


def program(seed: int) -> str:
    """C and CUDA C++ alike, but for FN."""
    writer = Writer(seed)
    body = (
        f"{writer.block(0, 9)} if {writer.condition()} {{ r[0] = a; r[1] = b; return; }} {writer.block(0, 6)}"
    )
    return f"""typedef unsigned u32; typedef int i32; typedef unsigned long long u64;
FN void body(u32 a, u32 b, u32* r) {{
  u32 c = a*3u, d = b^a, e = 1u, t[8]; float f = (float)(a & 1023u)*0.25f, g = (float)(b & 255u);
  for (u32 i = 0; i < 8u; i++) t[i] = a + i*b;
  {body}
  u32 s = 0; for (u32 i = 0; i < 8u; i++) s = s*31u + t[i];
  r[0] = a; r[1] = b; r[2] = c; r[3] = d; r[4] = e; r[5] = s;
  union {{ float f; u32 u; }} x, y; x.f = f; y.f = g; r[6] = f != f ? 1u : x.u; r[7] = g != g ? 1u : y.u; }}
"""


@pytest.mark.usefixtures("nvrtc")
@pytest.mark.skipif(COMPILER is None, reason="no C compiler on this machine")
@pytest.mark.parametrize("seed", range(4))
def test_a_random_program_gives_what_the_host_gives(seed: int, tmp_path: Path) -> None:
    source, random_numbers = program(seed), np.random.default_rng(seed)
    a, b = (random_numbers.integers(0, 2**32, N, dtype="u8").astype("u4") for _ in range(2))
    a[::3] &= 255
    b[::5] &= 15
    found, expected = np.zeros((N, 8), "u4"), np.zeros((N, 8), "u4")
    entry = "const u32* a, const u32* b, u32* o, int n"
    on_gpu = (
        f'extern "C" __global__ void k({entry}) {{ int i = blockIdx.x*blockDim.x+threadIdx.x; '
        "if (i < n) body(a[i], b[i], o+8*i); }"
    )
    on_host = f"void k({entry}) {{ for (int i = 0; i < n; i++) body(a[i], b[i], o+8*i); }}"
    module = Module(source.replace("FN", "__device__ __forceinline__") + on_gpu, ("--fmad=false",))
    module.kernel("k")((3,), (128,), (a, b, found, np.int32(N)))
    (tmp_path / "host.c").write_text(source.replace("FN", "static") + on_host)
    library = tmp_path / "host.so"
    flags = ["-O1", "-w", "-ffp-contract=off", "-fno-strict-aliasing", "-shared", "-fPIC"]
    subprocess.run(
        [str(COMPILER), *flags, "-o", str(library), str(tmp_path / "host.c")], check=True, timeout=120
    )
    pointers = [x.ctypes.data_as(ctypes.c_void_p) for x in (a, b, expected)]
    ctypes.CDLL(str(library)).k(*pointers, ctypes.c_int(N))
    np.testing.assert_array_equal(found, expected)
