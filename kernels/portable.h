// One source for every device: the same kernels compile as CUDA (NVRTC) and as C++ with OpenMP.
//
// A kernel is declared `KERNEL name(...)` and does its work in one call of
//   for_each_cell(grid, [=](Index p) INLINE {...})           one cell of the grid, p its index in memory
//   for_each_entry(n, [=](int e) {...})            one entry of a list
//   for_each_row(grid, [=](Index row, int index) INLINE {   one row of cells along z, with
//       FOR_EACH_IN_ROW(p, clauses) {...}                   its cells and
//       store(out + index, row_sum(x)); })                  sums or maxima over them
//
// Fields are padded by one ring of ghost cells. Cell (i, j, k) lies at
//   origin + i * sx + j * sy + k;
// kernels on cells do not change what ghost cells hold, unless they are launched on those themselves.
#pragma once

// Marks a parameter of a kernel that is read at the neighbours of a cell, too: what runs slab by slab
// (cpu_program.h) has to wait for them.
#define AROUND

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)

#define DEVICE __device__ __forceinline__
#define INLINE

using Index = int;

#ifdef THERMOSIM_OF_CASES

// Kernels are functions here, called by launches over several cases that backends/of_cases.py writes. Blocks
// of one case are `first_plane` planes behind those of its grid; rows and entries have their case in blockIdx.y.
#define KERNEL static DEVICE void
#define GRID_PARAMETERS int first_plane, int nx, int ny, int nz, int sx, int sy, int origin
#define GRID Grid{nx, ny, nz, sx, sy, origin, first_plane}

struct Grid {
  int nx, ny, nz, sx, sy, origin, first_plane;
};

DEVICE int plane_of(const Grid& grid) { return grid.first_plane + threadIdx.z; }

#else

#define KERNEL extern "C" __global__ void __launch_bounds__(256)
#define GRID_PARAMETERS int nx, int ny, int nz, int sx, int sy, int origin
#define GRID Grid{nx, ny, nz, sx, sy, origin}

struct Grid {
  int nx, ny, nz, sx, sy, origin;
};

DEVICE int plane_of(const Grid&) { return blockIdx.z * blockDim.z + threadIdx.z; }

#endif

template <class Body>
DEVICE void for_each_cell(Grid grid, Body body) {
  const int k = blockIdx.x * blockDim.x + threadIdx.x;
  const int j = blockIdx.y * blockDim.y + threadIdx.y;
  const int i = plane_of(grid);
  if (i < grid.nx && j < grid.ny && k < grid.nz) body(grid.origin + i * grid.sx + j * grid.sy + k);
}

template <class Body>
DEVICE void for_each_cell_ijk(Grid grid, Body body) {
  const int k = blockIdx.x * blockDim.x + threadIdx.x;
  const int j = blockIdx.y * blockDim.y + threadIdx.y;
  const int i = plane_of(grid);
  if (i < grid.nx && j < grid.ny && k < grid.nz)
    body(grid.origin + i * grid.sx + j * grid.sy + k, i, j, k);
}

template <class Body>
DEVICE void for_each_entry(int n, Body body) {
  const int e = blockIdx.x * blockDim.x + threadIdx.x;
  if (e < n) body(e);
}

// One warp (threadIdx.x) per row; rows are spread over threadIdx.y and blockIdx.x.
template <class Body>
DEVICE void for_each_row(Grid grid, Body body) {
  const int index = blockIdx.x * blockDim.y + threadIdx.y;
  if (index < grid.nx * grid.ny)
    body(grid.origin + (index / grid.ny) * grid.sx + (index % grid.ny) * grid.sy, index);
}

#define FOR_EACH_IN_ROW(p, clauses) for (int p = row + threadIdx.x; p < row + nz; p += 32)

template <class Real>
DEVICE Real row_sum(Real value) {
  for (int lane = 16; lane > 0; lane /= 2) value += __shfl_down_sync(0xffffffffu, value, lane);
  return value;
}

template <class Real>
DEVICE Real row_max(Real value) {
  for (int lane = 16; lane > 0; lane /= 2) {
    const Real other = __shfl_down_sync(0xffffffffu, value, lane);
    value = other > value ? other : value;
  }
  return value;
}

// Whether it holds anywhere in the row.
DEVICE bool row_any(bool condition) { return __any_sync(0xffffffffu, condition); }

// Between accesses to one cell by different lanes of a row, which sums and votes do not order.
DEVICE void row_barrier() { __syncwarp(); }

template <class Real>
DEVICE void store(double* where, Real value) {
  if (threadIdx.x == 0) *where = value;
}

DEVICE float float_from_bits(int bits) { return __int_as_float(bits); }

using Pair = float2;

// Cells p and p + 1, p even: one access, so that the lanes of a warp ask for whole sectors.
DEVICE Pair pair_at(const float* field, Index p) { return *(const Pair*)(field + p); }
DEVICE void store_pair(float* field, Index p, float x, float y) { *(Pair*)(field + p) = Pair{x, y}; }

#else  // C++ with OpenMP

#include <cmath>

#define KERNEL extern "C" void
#define GRID_PARAMETERS int nx, int ny, int nz, int sx, int sy, int origin
#define GRID Grid{nx, ny, nz, sx, sy, origin}
#define DEVICE static inline __attribute__((always_inline))
#define INLINE __attribute__((always_inline))  // or captured pointers are loaded in every iteration
#define THERMOSIM_PRAGMA(text) _Pragma(#text)

using Index = long;  // of pointer size: with int, compilers fall back to gathers

struct Grid {
  int nx, ny, nz, sx, sy, origin;
  // below this a second thread costs more than it saves
  bool is_large() const { return (long)nx * ny * nz > 65536; }
};

// Set in threads that share out the work themselves (cpu_program.h): kernels then run in one of them.
static thread_local bool works_alone = false;

// Every thread works with its own copies of the grid and the body: compilers then keep what the body
// has captured in registers instead of loading it from shared memory in every iteration.

template <class Body>
DEVICE void for_rows(Grid shared_grid, Body shared_body) {
  if (works_alone || !shared_grid.is_large()) {
    const Grid grid = shared_grid;
    const Body body = shared_body;
    for (int i = 0; i < grid.nx; ++i)
      for (int j = 0; j < grid.ny; ++j)
        body(grid.origin + (Index)i * grid.sx + (Index)j * grid.sy, i, j);
    return;
  }
#pragma omp parallel
  {
    const Grid grid = shared_grid;
    const Body body = shared_body;
#pragma omp for collapse(2) schedule(static) nowait
    for (int i = 0; i < grid.nx; ++i)
      for (int j = 0; j < grid.ny; ++j)
        body(grid.origin + (Index)i * grid.sx + (Index)j * grid.sy, i, j);
  }
}

template <class Body>
DEVICE void for_each_row(Grid grid, Body body) {
  const int ny = grid.ny;
  for_rows(grid, [=](Index row, int i, int j) INLINE { body(row, i * ny + j); });
}

template <class Body>
DEVICE void for_each_cell_ijk(Grid grid, Body body) {
  const int nz = grid.nz;
  for_rows(grid, [=](Index row, int i, int j) INLINE {
    const Index end = row + nz;
#pragma omp simd
    for (Index p = row; p < end; ++p) body(p, i, j, (int)(p - row));
  });
}

template <class Body>
DEVICE void for_each_cell(Grid grid, Body body) {
  for_each_cell_ijk(grid, [=](Index p, int, int, int) INLINE { body(p); });
}

template <class Body>
DEVICE void for_each_entry(int n, Body shared_body) {
  if (works_alone || n <= 65536) {
    const Body body = shared_body;
    for (int e = 0; e < n; ++e) body(e);
    return;
  }
#pragma omp parallel
  {
    const Body body = shared_body;
#pragma omp for schedule(static) nowait
    for (int e = 0; e < n; ++e) body(e);
  }
}

#define FOR_EACH_IN_ROW(p, clauses) \
  THERMOSIM_PRAGMA(omp simd clauses) for (Index p = row; p < row + nz; ++p)

template <class Real>
DEVICE Real row_sum(Real value) { return value; }
template <class Real>
DEVICE Real row_max(Real value) { return value; }
DEVICE bool row_any(bool condition) { return condition; }
DEVICE void row_barrier() {}
template <class Real>
DEVICE void store(double* where, Real value) { *where = value; }

DEVICE float float_from_bits(int bits) { return __builtin_bit_cast(float, bits); }

struct Pair {
  float x, y;
};
DEVICE Pair pair_at(const float* field, Index p) { return {field[p], field[p + 1]}; }
DEVICE void store_pair(float* field, Index p, float x, float y) {
  field[p] = x;
  field[p + 1] = y;
}

#endif

DEVICE float smaller(float a, float b) { return a < b ? a : b; }
DEVICE float larger(float a, float b) { return a > b ? a : b; }
