"""The plain heterogeneous heat step by other means: no latent heat, no shutdown, no death.

One explicit Euler step of ρc ∂T/∂t = ∇·(k∇T) + W (T_a − T) + q on arrays of k, 1/ρc, W and q, the k of a
face the mean of its two cells, faces of the box held. Float32; 24 bytes of fields per cell and step: T, k,
1/ρc, W, q read, the new T written. All peers compute the same numbers, which is checked.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peers import REMEDY, version

Field = NDArray[np.float32]

BYTES_PER_UPDATE = 24
SPACING, TIME_STEP, ARTERIAL = 1e-3, 0.5, 0.0
CHECKED_EDGE, CHECKED_STEPS = 24, 4
TOLERANCE = 1e-3
"""Largest difference from double precision [K] after the checked steps, of rises up to 50 K."""


@dataclass
class Fields:
    """Cells of a box: temperature over 37 °C and properties; `inverse` is Δt/ρc."""

    T: Field
    k: Field
    inverse: Field
    W: Field
    q: Field


def fields(n: int) -> Fields:
    """Liver with a warm tumour in the middle and a slab of other tissue."""
    axis = (np.arange(n, dtype=np.float32) + 0.5) / n - 0.5
    square = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2
    label = np.ones((n, n, n), dtype=np.uint8)
    label[square < 0.0625] = 2
    label[: n // 8] = 0
    bump = np.exp(-32.0 * square).astype(np.float32)

    def table(*values: float) -> Field:
        return np.array(values, dtype=np.float32)[label]

    capacity = table(3.54e6, 3.82e6, 3.82e6)
    return Fields(
        50.0 * bump,
        table(0.45, 0.52, 0.55),
        np.float32(TIME_STEP) / capacity,
        table(6.6e3, 5.9e4, 5.9e4),
        np.float32(1e5) * bump,
    )


Stepper = Callable[[int], None]
"""Takes so many steps."""


def double_precision(f: Fields, n_steps: int) -> NDArray[np.float64]:
    """The answer."""
    T, k, inverse, W, q = (a.astype(float) for a in (f.T, f.k, f.inverse, f.W, f.q))
    c = (slice(1, -1),) * 3
    for _ in range(n_steps):
        flow = np.zeros_like(T[c])
        for axis in range(3):
            for ends in (slice(2, None), slice(None, -2)):
                o = list(c)
                o[axis] = ends
                at = tuple(o)
                flow += 0.5 * (k[at] + k[c]) * (T[at] - T[c])
        T[c] = T[c] + inverse[c] * (flow / SPACING**2 + W[c] * (ARTERIAL - T[c]) + q[c])
    return T


def numpy_stepper(f: Fields) -> tuple[Stepper, Callable[[], Field]]:
    """Slabs that stay in the cache, and no temporaries but three of a slab's size."""
    state = [f.T.copy(), f.T.copy()]
    depth = max(1, 2**17 // (f.T.shape[1] * f.T.shape[2]))
    scale = np.float32(0.5 / SPACING**2)

    def step(n_steps: int) -> None:
        for _ in range(n_steps):
            T, new = state
            for begin in range(1, T.shape[0] - 1, depth):
                end = min(begin + depth, T.shape[0] - 1)
                c = (slice(begin, end), slice(1, -1), slice(1, -1))
                flow, a, b = np.zeros_like(T[c]), np.empty_like(T[c]), np.empty_like(T[c])
                for axis in range(3):
                    for shift in (1, -1):
                        o = list(c)
                        o[axis] = slice(c[axis].start + shift, (c[axis].stop or 0) + shift or None)
                        at = tuple(o)
                        np.subtract(T[at], T[c], out=a)
                        np.add(f.k[at], f.k[c], out=b)
                        a *= b
                        flow += a
                flow *= scale
                np.subtract(np.float32(ARTERIAL), T[c], out=a)
                a *= f.W[c]
                flow += a
                flow += f.q[c]
                flow *= f.inverse[c]
                np.add(T[c], flow, out=new[c])
            state.reverse()

    return step, lambda: state[0]


def scipy_stepper(f: Fields) -> tuple[Stepper, Callable[[], Field]]:
    """The step as one sparse matrix in diagonal storage, and a vector."""
    from scipy import sparse

    n = f.T.shape[0]
    inner = np.zeros(f.T.shape, dtype=bool)
    inner[1:-1, 1:-1, 1:-1] = True
    scale = np.float32(0.5 / SPACING**2)
    strides = (n * n, n, 1)
    offsets, diagonals = [0], [np.zeros(f.T.size, dtype=np.float32)]
    for axis, stride in enumerate(strides):
        for sign in (1, -1):
            link = np.where(inner, f.inverse * scale * (f.k + np.roll(f.k, -sign, axis)), np.float32(0))
            diagonals[0] -= link.ravel()
            # a diagonal is stored by columns: the entry of row p lies at p + offset
            diagonals.append(np.roll(link.ravel(), sign * stride))
            offsets.append(sign * stride)
    diagonals[0] -= np.where(inner, f.inverse * f.W, np.float32(0)).ravel()
    diagonals[0] += np.float32(1)
    matrix = sparse.dia_array((np.stack(diagonals), offsets), shape=(f.T.size, f.T.size))
    vector = np.where(inner, f.inverse * (f.W * np.float32(ARTERIAL) + f.q), np.float32(0)).ravel()
    state = [f.T.ravel().copy()]

    def step(n_steps: int) -> None:
        for _ in range(n_steps):
            new = matrix @ state[0]
            new += vector
            state[0] = new

    return step, lambda: state[0].reshape(f.T.shape)


def numba_stepper(f: Fields) -> tuple[Stepper, Callable[[], Field]]:
    """A parallel loop over planes, fast mathematics."""
    import numba

    scale, arterial = np.float32(0.5 / SPACING**2), np.float32(ARTERIAL)

    @numba.njit(parallel=True, fastmath=True)  # type: ignore[untyped-decorator]
    def advance(T: Field, k: Field, inverse: Field, W: Field, q: Field, new: Field) -> None:
        nx, ny, nz = T.shape
        for i in numba.prange(1, nx - 1):
            for j in range(1, ny - 1):
                for m in range(1, nz - 1):
                    t, c = T[i, j, m], k[i, j, m]
                    flow = (
                        (k[i + 1, j, m] + c) * (T[i + 1, j, m] - t)
                        + (k[i - 1, j, m] + c) * (T[i - 1, j, m] - t)
                        + (k[i, j + 1, m] + c) * (T[i, j + 1, m] - t)
                        + (k[i, j - 1, m] + c) * (T[i, j - 1, m] - t)
                        + (k[i, j, m + 1] + c) * (T[i, j, m + 1] - t)
                        + (k[i, j, m - 1] + c) * (T[i, j, m - 1] - t)
                    )
                    new[i, j, m] = t + inverse[i, j, m] * (
                        scale * flow + W[i, j, m] * (arterial - t) + q[i, j, m]
                    )

    state = [f.T.copy(), f.T.copy()]

    def step(n_steps: int) -> None:
        for _ in range(n_steps):
            advance(state[0], f.k, f.inverse, f.W, f.q, state[1])
            state.reverse()

    return step, lambda: state[0]


def devito_stepper(f: Fields) -> tuple[Stepper, Callable[[], Field]]:
    """The equation in symbols; Devito makes blocked C with OpenMP of it."""
    import os

    os.environ.setdefault("DEVITO_LOGGING", "ERROR")
    from devito import Eq, Function, Grid, Operator, TimeFunction, configuration

    configuration["language"] = "openmp"
    shape = f.T.shape
    grid = Grid(shape=shape, extent=tuple(SPACING * (n - 1) for n in shape), dtype=np.float32)
    T = TimeFunction(name="T", grid=grid, time_order=1, space_order=2)
    given = {"k": f.k, "inverse": f.inverse, "W": f.W, "q": f.q}
    functions = {name: Function(name=name, grid=grid, space_order=2) for name in given}
    for name, values in given.items():
        functions[name].data[:] = values
    T.data[:] = f.T
    k = functions["k"]
    flow: Any = 0
    for dimension in grid.dimensions:
        h = dimension.spacing
        for sign in (1, -1):
            beside = {dimension: dimension + sign * h}
            flow += (k.subs(beside) + k) * (T.subs(beside) - T)
    right = T + functions["inverse"] * (
        0.5 / SPACING**2 * flow + functions["W"] * (ARTERIAL - T) + functions["q"]
    )
    operator = Operator(Eq(T.forward, right, subdomain=grid.interior))
    taken = [0]

    def step(n_steps: int) -> None:
        # the buffer of the last step is the first of the next call
        operator.apply(time_m=taken[0], time_M=taken[0] + n_steps - 1)
        taken[0] += n_steps

    return step, lambda: np.asarray(T.data[taken[0] % 2])


HAND_WRITTEN = """
#include <immintrin.h>
// tables of eight labels live in a register each: a lookup is one permutation, no gather
static inline __m256 look(__m256 table, const unsigned char* label) {
  const __m128i bytes = _mm_loadl_epi64((const __m128i*)label);
  return _mm256_permutevar8x32_ps(table, _mm256_cvtepu8_epi32(bytes));
}
extern "C" void step(int nx, int ny, int nz, int threads, float scale, float arterial, const float* T,
                     const unsigned char* label, const float* k_of, const float* inverse_of,
                     const float* W_of, const float* q, float* out) {
  const long sy = nz, sx = (long)ny * nz;
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
  for (int i = 1; i < nx - 1; ++i)
    for (int j = 1; j < ny - 1; ++j) {
      const __m256 k = _mm256_loadu_ps(k_of), W = _mm256_loadu_ps(W_of);
      const __m256 inverse = _mm256_loadu_ps(inverse_of);
      const long row = i * sx + j * sy, last = row + nz - 1;
      for (long p = row + 1; p < last; p += 8) {
        if (p + 8 > last) p = last - 8;  // the last eight again: rows need not be whole eights
        const __m256 t = _mm256_loadu_ps(T + p), c = look(k, label + p);
        __m256 flow = _mm256_setzero_ps();
        const long beside[6] = {sx, -sx, sy, -sy, 1, -1};
        for (int s = 0; s < 6; ++s) {
          const __m256 both = _mm256_add_ps(look(k, label + p + beside[s]), c);
          flow = _mm256_fmadd_ps(both, _mm256_sub_ps(_mm256_loadu_ps(T + p + beside[s]), t), flow);
        }
        const __m256 cold = _mm256_sub_ps(_mm256_set1_ps(arterial), t);
        __m256 rate = _mm256_fmadd_ps(look(W, label + p), cold, _mm256_loadu_ps(q + p));
        rate = _mm256_fmadd_ps(_mm256_set1_ps(scale), flow, rate);
        _mm256_storeu_ps(out + p, _mm256_fmadd_ps(look(inverse, label + p), rate, t));
      }
    }
}
"""


def cpp_stepper(f: Fields) -> tuple[Stepper, Callable[[], Field]]:
    """AVX2 and OpenMP by hand, properties looked up by label in registers: 13 bytes per cell and step."""
    import ctypes
    import subprocess
    import tempfile
    from pathlib import Path

    from thermosim.backends.cpu import FLAGS, compiler

    path = compiler()
    if path is None:
        raise RuntimeError("no C++ compiler")
    with tempfile.TemporaryDirectory() as folder:
        unit, library = Path(folder) / "step.cpp", Path(folder) / "step.so"
        unit.write_text(HAND_WRITTEN)
        subprocess.run([path, *FLAGS, str(unit), "-o", str(library)], check=True)
        function = ctypes.CDLL(str(library)).step
    keys, label = np.unique(f.k, return_inverse=True)
    labels = np.ascontiguousarray(label.reshape(f.T.shape).astype(np.uint8))
    tables = [np.zeros(8, dtype=np.float32) for _ in range(3)]
    for number in range(len(keys)):
        place = tuple(np.argwhere(labels == number)[0])
        for table, values in zip(tables, (f.k, f.inverse, f.W), strict=True):
            table[number] = values[place]
    state = [f.T.copy(), f.T.copy()]
    integers = [ctypes.c_int(n) for n in f.T.shape] + [ctypes.c_int(_threads())]
    scalars = [ctypes.c_float(0.5 / SPACING**2), ctypes.c_float(ARTERIAL)]

    def pointer(array: NDArray[Any]) -> Any:
        return ctypes.c_void_p(array.ctypes.data)

    def step(n_steps: int) -> None:
        for _ in range(n_steps):
            arrays = (state[0], labels, *tables, f.q, state[1])
            function(*integers, *scalars, *(pointer(a) for a in arrays))
            state.reverse()

    return step, lambda: state[0]


def _threads() -> int:
    import os

    return int(os.environ.get("OMP_NUM_THREADS", "1"))


@dataclass(frozen=True)
class Peer:
    """A way to take the step: the package it needs, steps per sample and bytes of fields per cell."""

    package: str
    stepper: Callable[[Fields], tuple[Stepper, Callable[[], Field]]]
    n_steps: int
    bytes: int = BYTES_PER_UPDATE


PEERS = {
    "NumPy": Peer("numpy", numpy_stepper, 1),
    "SciPy sparse matrix": Peer("scipy", scipy_stepper, 1, 40),
    "Numba": Peer("numba", numba_stepper, 5),
    "Devito": Peer("devito", devito_stepper, 5),
    "C++ with AVX2 by hand, by label": Peer("thermosim", cpp_stepper, 5, 13),
}


def measure(name: str, n: int, repeats: int) -> dict[str, Any]:
    """Median cell-updates per second of one peer on n³ cells, after a check on few cells."""
    peer = PEERS[name]
    found = version(peer.package)
    if found is None:
        return {"missing": f"{peer.package} is not installed; {REMEDY}"}
    small = fields(CHECKED_EDGE)
    step, state = peer.stepper(small)
    step(CHECKED_STEPS)
    error = float(np.max(np.abs(state() - double_precision(small, CHECKED_STEPS))))
    if not error < TOLERANCE:
        raise ArithmeticError(f"{name} is off by {error:.1e} K")
    step, state = peer.stepper(fields(n))
    step(peer.n_steps)  # compiles, touches its memory
    rates = []
    for _ in range(repeats):
        begun = time.perf_counter()
        step(peer.n_steps)
        rates.append((n - 2) ** 3 * peer.n_steps / (time.perf_counter() - begun))
    return {"version": found, "rates": rates, "bytes": peer.bytes, "largest_error_kelvin": error}
