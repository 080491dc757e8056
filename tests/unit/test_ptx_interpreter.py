"""The PTX interpreter itself: results against NumPy, and every fault it is there to catch."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from ptx import (
    BarrierError,
    Checks,
    CompileError,
    MemoryFault,
    Module,
    RaceError,
    StepLimit,
    TrapError,
    UninitialisedRead,
    mark_initialised,
    mark_uninitialised,
)
from ptx.arithmetic import fma64

pytestmark = pytest.mark.usefixtures("nvrtc")

RACES, COLLECT = Checks(races=True, initialised=True), Checks(races="collect")
f4, i4 = np.float32, np.int32


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def kernel(source: str, *options: str, architecture: str = "compute_90") -> Any:
    """The only kernel of a source."""
    module = Module(source, options, architecture)
    (name,) = module.entries
    return module.kernel(name)


SAXPY = r"""extern "C" __global__ void saxpy(float* y, const float* x, float a, int n) {
  int i = blockIdx.x*blockDim.x + threadIdx.x; if (i < n) y[i] = fmaf(a, x[i], y[i]); }"""


# ---------------------------------------------------------------------------- results


@pytest.mark.parametrize("architecture", ["compute_80", "compute_100"])
def test_saxpy_and_its_traffic(architecture: str, rng: np.random.Generator) -> None:
    n = 10007
    x, y = rng.random(n, dtype="f4"), rng.random(n, dtype="f4")
    expected = (x.astype("f8") * f4(1.7) + y).astype("f4")
    seen = kernel(SAXPY, architecture=architecture)((40,), (256,), (y, x, f4(1.7), i4(n)))
    assert np.array_equal(y, expected)
    assert seen.global_load.bytes == 8 * n
    assert seen.unique_read + seen.unique_written == 12 * n
    assert seen.global_load.efficiency > 0.99
    assert seen.unique_sectors == 3 * -(-4 * n // 32)  # arrays begin with a sector


def test_sectors_of_strides_count_whole(rng: np.random.Generator) -> None:
    source = """extern "C" __global__ void strided(float* y, const float* x) {
      int i = blockIdx.x*blockDim.x + threadIdx.x; y[i] = x[8*i] + x[(8*i + 16) % 8192]; }"""
    x, y = rng.random(8192, dtype="f4"), np.zeros(1024, "f4")
    seen = kernel(source)((4,), (256,), (y, x))
    assert seen.unique_read == 4 * 1024  # one number of each sector, by two threads
    assert seen.unique_sectors == 1024 + 128
    assert seen.global_load.sectors == 2 * 1024


STENCIL = r"""
__device__ __forceinline__ float mean(float a, float b) { return 2.f*a*b/(a+b); }
extern "C" __global__ void stencil(const float* u, const unsigned char* label, const float* k, float* out,
                                   int nx, int ny, int nz, float c) {
  int x = blockIdx.x*blockDim.x+threadIdx.x, y = blockIdx.y*blockDim.y+threadIdx.y,
      z = blockIdx.z*blockDim.z+threadIdx.z;
  if (x >= nx || y >= ny || z >= nz) return;
  size_t sy = nx, sz = (size_t)nx*ny, i = x + y*sy + z*sz;
  float t = u[i], own = k[label[i]], f = 0.f;
  if (x > 0)    f += mean(own, k[label[i-1]])*(u[i-1]-t);
  if (x < nx-1) f += mean(own, k[label[i+1]])*(u[i+1]-t);
  if (y > 0)    f += mean(own, k[label[i-sy]])*(u[i-sy]-t);
  if (y < ny-1) f += mean(own, k[label[i+sy]])*(u[i+sy]-t);
  if (z > 0)    f += mean(own, k[label[i-sz]])*(u[i-sz]-t);
  if (z < nz-1) f += mean(own, k[label[i+sz]])*(u[i+sz]-t);
  out[i] = t + c*f; }"""


@pytest.mark.parametrize("n", [16, 21])
def test_a_stencil_with_divergent_edges(n: int, rng: np.random.Generator) -> None:
    table = np.linspace(0.5, 4, 8).astype("f4")
    u = rng.random((n, n, n), dtype="f4")
    label, out = rng.integers(0, 8, (n, n, n)).astype("u1"), np.empty((n, n, n), "f4")
    mark_uninitialised(out)
    grid = (-(-n // 32), -(-n // 4), -(-n // 2))
    seen = kernel(STENCIL)(
        grid, (32, 4, 2), (u, label, table, out, i4(n), i4(n), i4(n), f4(0.05)), checks=RACES
    )
    flow, k = np.zeros(u.shape), table.astype("f8")[label]
    for axis in range(3):
        low, high = np.s_[:-1], np.s_[1:]
        a, b = (tuple(s if d == axis else np.s_[:] for d in range(3)) for s in (low, high))
        through = 2 * k[a] * k[b] / (k[a] + k[b]) * (u[b].astype("f8") - u[a])
        flow[a] += through
        flow[b] -= through
    np.testing.assert_allclose(out, u + 0.05 * flow, rtol=3e-6, atol=1e-6)
    assert seen.unique_written == 4 * n**3
    assert seen.unique_read == 5 * n**3 + 32


TILED = r"""
#define BX 16
#define BY 8
extern "C" __global__ void tiled(const float* u, float* out, int nx, int ny, int nz) {
  __shared__ float s[BY+2][BX+2];
  int tx = threadIdx.x, ty = threadIdx.y, x = blockIdx.x*BX+tx, y = blockIdx.y*BY+ty;
  bool in = x < nx && y < ny;
  size_t sz = (size_t)nx*ny, i = (size_t)y*nx + x;
  float below = 0.f, cur = in ? u[i] : 0.f, above;
  for (int z = 0; z < nz; z++) {
    above = (in && z+1 < nz) ? u[i+sz] : 0.f;
    FIRST
    s[ty+1][tx+1] = cur;
    if (ty == 0)    s[0][tx+1]    = (y > 0 && x < nx) ? u[i-nx] : 0.f;
    if (ty == BY-1) s[BY+1][tx+1] = (y+1 < ny && x < nx) ? u[i+nx] : 0.f;
    if (tx == 0)    s[ty+1][0]    = (x > 0 && y < ny) ? u[i-1] : 0.f;
    if (tx == BX-1) s[ty+1][BX+1] = (x+1 < nx && y < ny) ? u[i+1] : 0.f;
    SECOND
    if (in) out[i] = s[ty+1][tx] + s[ty+1][tx+2] + s[ty][tx+1] + s[ty+2][tx+1] + below + above - 6.f*cur;
    below = cur; cur = above; i += sz; } }"""
SYNC = "__syncthreads();"


def run_tiled(first: str, second: str, checks: Checks) -> tuple[Any, Any, Any]:
    nz, ny, nx = 5, 19, 37
    u, out = np.random.default_rng(2).random((nz, ny, nx), dtype="f4"), np.zeros((nz, ny, nx), "f4")
    tiled = kernel(TILED.replace("FIRST", first).replace("SECOND", second))
    return u, out, tiled((3, 3), (16, 8), (u, out, i4(nx), i4(ny), i4(nz)), checks=checks)


def test_a_tile_in_shared_memory() -> None:
    u, out, seen = run_tiled(SYNC, SYNC, RACES)
    p = np.pad(u.astype("f8"), 1)
    c = p[1:-1, 1:-1, 1:-1]
    beside = sum(np.roll(p, d, a)[1:-1, 1:-1, 1:-1] for a in range(3) for d in (1, -1))
    np.testing.assert_allclose(out, beside - 6 * c, atol=3e-6)
    assert seen.races == []


@pytest.mark.parametrize("syncs", [("", SYNC), (SYNC, "")])
def test_a_missing_barrier_is_a_race_in_shared_memory(syncs: tuple[str, str]) -> None:
    with pytest.raises(RaceError, match="hazard on shared") as caught:
        run_tiled(*syncs, Checks(races=True))
    assert any(race["where"] == "shared" for race in caught.value.races)
    races = run_tiled(*syncs, COLLECT)[2].races
    assert not races[0]["between_blocks"]


SUM = r"""extern "C" __global__ void total(const float* x, double* out, int n) {
  extern __shared__ double s[]; double v = 0.0;
  for (int i = blockIdx.x*blockDim.x+threadIdx.x; i < n; i += gridDim.x*blockDim.x) v += x[i];
  for (int o = 16; o; o >>= 1) v += __shfl_down_sync(0xffffffffu, v, o);
  if ((threadIdx.x & 31) == 0) s[threadIdx.x >> 5] = v;
  __syncthreads();
  if (threadIdx.x < 32) { v = threadIdx.x < blockDim.x/32 ? s[threadIdx.x] : 0.0;
    for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
    if (threadIdx.x == 0) out[blockIdx.x] = v; } }"""


def test_a_sum_over_blocks_with_shuffles(rng: np.random.Generator) -> None:
    x, out = rng.random(9000, dtype="f4"), np.zeros(7)
    kernel(SUM)((7,), (256,), (x, out, i4(x.size)), shared_memory=64, checks=RACES)
    assert out.sum() == pytest.approx(x.astype("f8").sum(), rel=1e-14)
    with pytest.raises(MemoryFault, match="out-of-bounds 8-byte shared"):
        kernel(SUM)((7,), (256,), (x, out, i4(x.size)), shared_memory=56)


SWEEP = r"""extern "C" __global__ void sweep(float* u, const float* f, int n, int colour) {
  int x = 1+blockIdx.x*blockDim.x+threadIdx.x, y = 1+blockIdx.y*blockDim.y+threadIdx.y, z = 1+blockIdx.z;
  if (x >= n-1 || y >= n-1) return;
  COLOURED
  size_t i = x + (size_t)n*(y + (size_t)n*z), s = (size_t)n*n;
  u[i] = (u[i-1]+u[i+1]+u[i-n]+u[i+n]+u[i-s]+u[i+s] - f[i])*(1.f/6.f); }"""


def test_colours_of_gauss_seidel_do_not_race_and_plain_sweeps_do(rng: np.random.Generator) -> None:
    n = 14
    u, f = rng.random((n, n, n), dtype="f4"), rng.random((n, n, n), dtype="f4")
    expected, places = u.astype("f8"), np.indices((n, n, n))
    inner = np.all((places > 0) & (places < n - 1), axis=0)
    coloured = kernel(SWEEP.replace("COLOURED", "if (((x+y+z)&1) != colour) return;"))
    for colour in (0, 1):
        coloured((1, 4, n - 2), (32, 4), (u, f, i4(n), i4(colour)), checks=RACES)
        chosen = inner & (places.sum(axis=0) % 2 == colour)
        beside = sum(np.roll(expected, d, a) for a in range(3) for d in (1, -1))
        expected[chosen] = ((beside - f) / 6)[chosen]
    np.testing.assert_allclose(u, expected, rtol=3e-6, atol=1e-6)
    plain = kernel(SWEEP.replace("COLOURED", ""))
    with pytest.raises(RaceError) as caught:
        plain((1, 4, n - 2), (32, 4), (u, f, i4(n), i4(0)), checks=Checks(races=True))
    assert any(race["between_blocks"] for race in caught.value.races)


def test_threads_leave_a_loop_one_by_one(rng: np.random.Generator) -> None:
    source = r"""extern "C" __global__ void collatz(const unsigned* a, unsigned* steps, int n) {
      int i = blockIdx.x*blockDim.x+threadIdx.x; if (i >= n) return;
      unsigned long long v = a[i]; unsigned c = 0;
      while (v != 1) { if (v & 1) v = 3*v+1; else v >>= 1; c++; } steps[i] = c; }"""
    n = 300
    a, steps = rng.integers(1, 5000, n).astype("u4"), np.zeros(n, "u4")
    seen = kernel(source)((3,), (128,), (a, steps, i4(n)))
    for value, found in zip(a.tolist(), steps.tolist(), strict=True):
        count = 0
        while value != 1:
            value = 3 * value + 1 if value & 1 else value // 2
            count += 1
        assert found == count
    assert seen.divergence > 0.2


def test_votes_and_shuffles(rng: np.random.Generator) -> None:
    source = r"""extern "C" __global__ void warp(const int* a, unsigned* o, int n) {
      int i = blockIdx.x*blockDim.x+threadIdx.x; int v = a[i];
      o[i] = __ballot_sync(~0u, v > 0); o[n+i] = __shfl_up_sync(~0u, v, 3);
      o[2*n+i] = __shfl_sync(~0u, v, i*7, 8); o[3*n+i] = __any_sync(~0u, v > 90) + 2*__all_sync(~0u, v > -90);
      unsigned some = 0; if (v > 0) some = __shfl_down_sync(o[i], v, 1); o[4*n+i] = some; }"""
    n = 128
    a, o = rng.integers(-100, 100, n).astype("i4"), np.zeros((5, n), "u4")
    kernel(source)((2,), (64,), (a, o, i4(n)))
    rows, lane = a.reshape(-1, 32), np.arange(32)
    ballot = ((rows > 0).astype("u8") << lane.astype("u8")).sum(axis=1)
    assert np.array_equal(o[0].reshape(-1, 32), np.broadcast_to(ballot[:, None], (4, 32)))
    up = np.where(lane >= 3, np.roll(rows, 3, axis=1), rows)
    assert np.array_equal(o[1].view("i4").reshape(-1, 32), up)
    i = np.arange(n).reshape(-1, 32)
    segment = np.take_along_axis(rows, (lane & 24) | ((i * 7) & 7), axis=1)
    assert np.array_equal(o[2].view("i4").reshape(-1, 32), segment)
    voted = (rows > 90).any(axis=1) + 2 * (rows > -90).all(axis=1)
    assert np.array_equal(o[3].reshape(-1, 32), np.broadcast_to(voted[:, None], (4, 32)))
    for row, found in zip(rows, o[4].view("i4").reshape(-1, 32), strict=True):
        for k in range(31):
            if row[k] > 0 and row[k + 1] > 0:
                assert found[k] == row[k + 1]


def test_integers_are_exact(rng: np.random.Generator) -> None:
    source = r"""extern "C" __global__ void ops(const int* a, const int* b, long long* o, int n) {
      int i = blockIdx.x*blockDim.x+threadIdx.x; if (i >= n) return;
      int x = a[i], y = b[i]; unsigned ux = x, uy = y; int k = 0;
      long long X = (long long)((unsigned long long)(long long)x << 20) ^ y; unsigned long long UX = X;
    #define E(v) o[(size_t)(k++)*n + i] = (long long)(v)
      E((int)(ux+uy)); E((int)(ux*uy)); E(__mulhi(x,y)); E(__umulhi(ux,uy));
      E(__umul64hi(UX, (unsigned long long)x*uy));
      E(x/(y|1)); E(x%(y|1)); E(ux/(uy|1)); E(ux%(uy|1)); E(X/(y|1)); E(X%(y|1));
      E(x>>(y&31)); E(ux>>(uy&31)); E((int)(ux<<(y&31))); E(X>>(y&63)); E(UX>>(y&63));
      E(__clz(x)); E(__clzll(X));
      E(__popc(ux)); E(__popcll(UX)); E(min(x,y)); E(max(ux,uy)); E((int)(x < 0 ? 0u-ux : ux));
      E(__byte_perm(ux,uy,0x3715)); E(__funnelshift_l(ux,uy,x&31)); E(__funnelshift_r(ux,uy,y&31));
      E((short)x);
      E((unsigned char)y); E((x&y)|(~x&uy)); E(x^y^(x>>3)); E((signed char)(x>>8)); E(ux > uy);
      E((ux >> 5) & 0x3ff); }"""
    n = 300
    a, b = (rng.integers(-(2**31), 2**31, n).astype("i4") for _ in range(2))
    b[:100] = rng.integers(-5, 6, 100)
    a[0], b[1] = -(2**31), 0
    o = np.zeros((33, n), "i8")
    kernel(source)((3,), (128,), (a, b, o, i4(n)))

    def signed(value: int, bits: int) -> int:
        value &= (1 << bits) - 1
        return value - ((value >> (bits - 1)) << bits)

    def quotient(p: int, q: int) -> int:
        return abs(p) // abs(q) * (1 if (p < 0) == (q < 0) else -1)

    m32, m64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
    for i in range(n):
        x, y = int(a[i]), int(b[i])
        ux, uy, wide = x & m32, y & m32, signed((x << 20) ^ y, 64)
        uwide, y1, uy1, both = wide & m64, y | 1, (y & m32) | 1, ((y & m32) << 32) | (x & m32)
        parts = [(both >> 8 * k) & 255 for k in range(8)]
        permuted = sum(parts[(0x3715 >> 4 * k) & 7] << 8 * k for k in range(4))
        expected = [
            *(signed(x + y, 32), signed(x * y, 32), (x * y) >> 32, (ux * uy) >> 32),
            *((uwide * ((x * uy) & m64)) >> 64, signed(quotient(x, y1), 32), x - y1 * quotient(x, y1)),
            *(ux // uy1, ux % uy1, quotient(wide, y1), wide - y1 * quotient(wide, y1)),
            *(x >> (y & 31), ux >> (y & 31), signed(x << (y & 31), 32), wide >> (y & 63), uwide >> (y & 63)),
            *(32 - ux.bit_length(), 64 - uwide.bit_length(), ux.bit_count(), uwide.bit_count()),
            *(min(x, y), max(ux, uy), signed(abs(x), 32), permuted),
            *(((both << (x & 31)) >> 32) & m32, (both >> (y & 31)) & m32, signed(x, 16), y & 255),
            *((x & y & m32) | (~x & uy), signed(x ^ y ^ (x >> 3), 32), signed(x >> 8, 8), int(ux > uy)),
            (ux >> 5) & 0x3FF,
        ]
        for k, (found, value) in enumerate(zip(o[:, i].tolist(), expected, strict=True)):
            assert found == signed(value, 64), (k, x, y)


def test_floating_point_is_that_of_ieee(rng: np.random.Generator) -> None:
    source = r"""extern "C" __global__ void ops(const float* a, const float* b, float* o, const double* c,
                                                 double* d, int* k, int n) {
      int i = blockIdx.x*blockDim.x+threadIdx.x; if (i >= n) return;
      float x = a[i], y = b[i]; double p = c[i]; int m = 0;
    #define F(v) o[(size_t)(m++)*n+i] = (v)
      F(x/y); F(sqrtf(fabsf(x))); F(floorf(x)); F(ceilf(x));
      F(truncf(x)); F(rintf(x)); F(fminf(x,y)); F(fmaxf(x,y)); F((float)p); F(1.f/x);
      d[i] = p*p + x; d[n+i] = sqrt(fabs(p)); d[2*n+i] = fma(p, p, -p*p);
      k[i] = (int)(x*1e9f); k[n+i] = __float2int_rn(x); k[2*n+i] = x < y;
      k[3*n+i] = __float_as_int(x); k[4*n+i] = isnan(x*0.f/y); }"""
    n = 400
    a = (rng.standard_normal(n) * 10 ** rng.uniform(-2, 1, n)).astype("f4")
    b, c = rng.standard_normal(n).astype("f4"), rng.standard_normal(n) * 3
    b[0], b[1] = 0.0, np.nan
    o, d, k = np.zeros((10, n), "f4"), np.zeros((3, n)), np.zeros((5, n), "i4")
    kernel(source)((2,), (256,), (a, b, o, c, d, k, i4(n)))
    with np.errstate(all="ignore"):
        exact = [a / b, np.sqrt(abs(a)), np.floor(a), np.ceil(a), np.trunc(a), np.rint(a)]
        exact += [np.fmin(a, b), np.fmax(a, b), c.astype("f4"), f4(1) / a]
        for found, expected in zip(o, exact, strict=True):
            np.testing.assert_array_equal(found, expected)
    for i in range(0, n, 7):
        square = Fraction(c[i]) * Fraction(c[i])
        assert d[2, i] == float(square - Fraction(c[i] * c[i]))
        assert d[0, i] in (float(square + Fraction(float(a[i]))), c[i] * c[i] + a[i])
    np.testing.assert_array_equal(d[1], np.sqrt(abs(c)))
    np.testing.assert_array_equal(k[0], np.clip(np.trunc((a * f4(1e9)).astype("f8")), -(2**31), 2**31 - 1))
    np.testing.assert_array_equal(k[1], np.rint(a))
    np.testing.assert_array_equal(k[2], a < b)
    np.testing.assert_array_equal(k[3], a.view("i4"))
    np.testing.assert_array_equal(k[4], np.isin(np.arange(n), (0, 1)))


def test_fused_multiply_add_rounds_once(rng: np.random.Generator) -> None:
    n = 900
    a, b, c = (rng.standard_normal(n) * 2.0 ** rng.integers(-30, 30, n) for _ in range(3))
    c[:300] = -(a * b)[:300]
    c[300:500] = -(a * b)[300:500] * (1 + 2.0**-52)
    for x, y, z, found in zip(a, b, c, fma64(a, b, c), strict=True):
        assert found == float(Fraction(x) * Fraction(y) + Fraction(z))


def test_local_arrays_and_vector_loads(rng: np.random.Generator) -> None:
    source = r"""extern "C" __global__ void local(const float4* x, float* o) {
      float l[8]; int i = threadIdx.x;
      float4 v = x[i]; for (int k = 0; k < 8; k++) l[(k*3+i)&7] = k*v.x + v.w;
      for (int k = 0; k < 2; k++) o[2*i+k] = l[(i*5 + k) & 7]; }"""
    x, o = rng.random((64, 4), dtype="f4"), np.zeros((64, 2), "f4")
    seen = kernel(source)((1,), (64,), (x, o), checks=RACES)
    for i in range(64):
        held = np.zeros(8, "f4")
        for k in range(8):
            held[(k * 3 + i) & 7] = k * x[i, 0] + x[i, 3]
        np.testing.assert_allclose(o[i], held[[(5 * i) & 7, (5 * i + 1) & 7]], rtol=1e-6)
    assert seen.global_load.bytes == 1024


# ---------------------------------------------------------------------------- faults


def test_out_of_bounds_names_thread_and_offset() -> None:
    over = kernel(SAXPY.replace("if (i < n)", "if (i <= n)"))
    x, y, one = np.zeros(100, "f4"), np.zeros(100, "f4"), f4(1)
    with pytest.raises(MemoryFault, match=r"thread \(100,0,0\) of block \(0,0,0\).*byte offset 400"):
        over((1,), (128,), (y, x, one, i4(100)))
    with pytest.raises(MemoryFault, match="null pointer"):
        over((1,), (32,), (None, x, one, i4(10)))
    big = np.zeros(200, "f4")  # a view: what lies beside it in the same buffer is out of bounds
    with pytest.raises(MemoryFault, match="out-of-bounds"):
        over((1,), (128,), (big[50:150], big[:150], one, i4(150)))
    constant = np.zeros(200, "f4")
    constant.flags.writeable = False
    with pytest.raises(MemoryFault, match="store to read-only"):
        over((1,), (32,), (constant, x, one, i4(10)))


def test_a_misaligned_access_is_caught() -> None:
    source = r"""extern "C" __global__ void m(char* p, float* o) {
      o[threadIdx.x] = *(float*)(p + 1 + 4*threadIdx.x); }"""
    with pytest.raises(MemoryFault, match="misaligned 4-byte access at byte offset 1"):
        kernel(source)((1,), (32,), (np.zeros(400, "i1"), np.zeros(32, "f4")))


def test_races_between_blocks_are_caught(rng: np.random.Generator) -> None:
    source = r"""extern "C" __global__ void r(float* a, int n) {
      int i = blockIdx.x*blockDim.x+threadIdx.x; if (i < n-1) a[i] = a[i+1]*0.5f + 1.f; }"""
    seen = kernel(source)((4,), (128,), (rng.random(512, dtype="f4"), i4(512)), checks=COLLECT)
    assert any(race["between_blocks"] and race["kind"] in ("WAR", "RAW") for race in seen.races)
    source = 'extern "C" __global__ void w(int* a) { a[threadIdx.x] = blockIdx.x; }'
    seen = kernel(source)((4,), (32,), (np.zeros(32, "i4"),), checks=COLLECT)
    assert seen.races[0]["kind"] == "WAW"


def test_reading_what_nobody_wrote_is_caught() -> None:
    x, y, arguments = np.empty(64, "f4"), np.zeros(64, "f4"), (f4(1), i4(64))
    mark_uninitialised(x)
    saxpy = kernel(SAXPY)
    with pytest.raises(UninitialisedRead, match="argument 1"):
        saxpy((2,), (32,), (y, x, *arguments), checks=RACES)
    x[:] = 1
    mark_initialised(x)
    saxpy((2,), (32,), (y, x, *arguments), checks=RACES)
    source = r"""extern "C" __global__ void s(float* o) { __shared__ float t[64]; t[threadIdx.x] = 1.f;
      __syncthreads(); o[threadIdx.x] = t[threadIdx.x+1]; }"""
    with pytest.raises(UninitialisedRead, match="shared memory at byte offset 128"):
        kernel(source)((1,), (32,), (np.zeros(32, "f4"),), checks=RACES)


def test_divergent_barriers_are_caught() -> None:
    source = r"""extern "C" __global__ void b(float* o, int n) { if (threadIdx.x >= n) return;
      o[threadIdx.x] = 1.f; __syncthreads(); o[threadIdx.x] += o[(threadIdx.x+1) % n]; }"""
    with pytest.raises(BarrierError, match=r"divergent barrier.*has exited"):
        kernel(source)((1,), (64,), (np.zeros(64, "f4"), i4(40)))
    source = r"""extern "C" __global__ void b(float* o) {
      if (threadIdx.x & 32) { __syncthreads(); o[threadIdx.x] = 1.f; }
      else { o[0] = 3.f; __syncthreads(); o[threadIdx.x] = 2.f; } }"""
    with pytest.raises(BarrierError, match=r"divergent barrier.*waits at"):
        kernel(source)((1,), (64,), (np.zeros(64, "f4"),))


def test_bank_conflicts_and_sectors_are_counted(rng: np.random.Generator) -> None:
    source = r"""extern "C" __global__ void t(const float* a, float* b) { __shared__ float s[32][PAD];
      s[threadIdx.y][threadIdx.x] = a[threadIdx.y*32+threadIdx.x]; __syncthreads();
      b[threadIdx.y*32+threadIdx.x] = s[threadIdx.x][threadIdx.y]; }"""
    a, b = rng.random((32, 32), dtype="f4"), np.zeros((32, 32), "f4")
    seen = kernel(source.replace("PAD", "32"))((1,), (32, 32), (a, b))
    assert np.array_equal(b, a.T)
    assert (seen.shared_load.bank_conflicts, seen.shared_store.bank_conflicts) == (31 * 32, 0)
    assert kernel(source.replace("PAD", "33"))((1,), (32, 32), (a, b)).shared_load.bank_conflicts == 0
    source = 'extern "C" __global__ void t(const float* a, float* b) { int i = threadIdx.x; b[i] = a[8*i]; }'
    seen = kernel(source)((1,), (64,), (np.zeros(512, "f4"), np.zeros(64, "f4")))
    assert (seen.global_load.sectors, seen.global_load.efficiency) == (64, 0.125)


def test_wrong_launches_are_refused() -> None:
    source = r"""extern "C" __global__ void __launch_bounds__(128) e(float* o, int n) { int i = threadIdx.x;
      if (i >= n) return; float v = i; v += __shfl_xor_sync(0xffffffffu, v, 1); o[i] = v; }"""
    early, o = kernel(source), np.zeros(64, "f4")
    seen = early((1,), (64,), (o, i4(40)))
    assert seen.warnings == {"warp_mask_names_exited_threads": 1}
    assert np.array_equal(o[:40], np.arange(40) // 2 * 4 + 1)
    with pytest.raises(ValueError, match="launch_bounds"):
        early((1,), (256,), (o, i4(40)))
    with pytest.raises(ValueError, match="positive"):
        early((0,), (64,), (o, i4(40)))
    with pytest.raises(TypeError, match="takes 2"):
        early((1,), (64,), (o,))
    for wrong in (f4(40), np.int64(40), 40, o):
        with pytest.raises(TypeError, match="argument 1"):
            early((1,), (64,), (o, wrong))
    with pytest.raises(TypeError, match="argument 0"):
        early((1,), (64,), (np.float64(1.0), i4(40)))


def test_loops_without_end_traps_and_foreign_instructions() -> None:
    spin = 'extern "C" __global__ void s(int* f) { if (threadIdx.x == 0) while (*(volatile int*)f == 0); }'
    with pytest.raises(StepLimit, match="more than 500 steps"):
        kernel(spin)((1,), (32,), (np.zeros(1, "i4"),), checks=Checks(most_steps=500))
    trap = 'extern "C" __global__ void s(int* f) { if (f[threadIdx.x] == 7) __trap(); }'
    with pytest.raises(TrapError, match=r"thread \(5,0,0\)"):
        kernel(trap)((1,), (32,), (np.arange(2, 34).astype("i4"),))
    atomic = 'extern "C" __global__ void s(int* f) { if (f) atomicAdd(f, 1); }'
    with pytest.raises(NotImplementedError, match=r"not supported: .*(atom|red)\."):
        kernel(atomic)((1,), (32,), (np.zeros(1, "i4"),))
    with pytest.raises(CompileError, match="expected"):
        Module('extern "C" __global__ void f( {')
