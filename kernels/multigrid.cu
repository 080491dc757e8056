// Multigrid-preconditioned conjugate gradients for the seven-point matrix of electric_potential.cu:
// (A x)_p = Σ_faces g (x_p − x_q) + leak_p x_p.
#include "portable.h"

// Links to walls, leak_p, of the cells of one row. Few rows have any but at their ends, so that they are kept
// apart from the fields: `leak_rows` says for each row (i, j), numbered i ny + j, where in `leak` its cells
// begin and where a pair of numbers lies that comes on top at its two ends. `leak` begins with three rows
// for all to share: zeros, and zeros but for a 1 at the lower and at the upper end. Products with them take
// a processor less time than to ask which cell is an end.
struct Leak {
  const float *row, *lower_end, *upper_end;
  float lower, upper;
};

DEVICE Leak leak_of_row(const float* leak, const int* leak_rows, Index index, int nz) {
  const Index length = (nz + 7) / 8 * 8;
  const float* ends = leak + leak_rows[2 * index + 1];
  return {leak + leak_rows[2 * index], leak + length, leak + 2 * length, ends[0], ends[1]};
}

DEVICE float leak_at(const Leak& leak, Index k) {
  return leak.row[k] + leak.lower_end[k] * leak.lower + leak.upper_end[k] * leak.upper;
}

// Σ g (x_q − x_p) − leak x_p
DEVICE float minus_A(Index p, int sx, int sy, const float* x, const float* gx, const float* gy,
                     const float* gz, float leak) {
  const float c = x[p];
  return gx[p] * (x[p + sx] - c) + gx[p - sx] * (x[p - sx] - c) + gy[p] * (x[p + sy] - c) +
         gy[p - sy] * (x[p - sy] - c) + gz[p] * (x[p + 1] - c) + gz[p - 1] * (x[p - 1] - c) -
         leak * c;
}

DEVICE float inverse_diagonal(Index p, int sx, int sy, const float* gx, const float* gy,
                              const float* gz, float leak) {
  const float d = gx[p] + gx[p - sx] + gy[p] + gy[p - sy] + gz[p] + gz[p - 1] + leak;
  return d > 0.0f ? 1.0f / d : 0.0f;
}

// One step of Chebyshev's iteration on D⁻¹A, D the diagonal:
//   out = x + inertia (x − before) + step D⁻¹ (b − A x);
// `out` may take the place of `before`; `carry` is `inertia`, or 0 where `before` stands for zero. Cells
// without links get 0.
KERNEL smooth(GRID_PARAMETERS, float inertia, float carry, float step, const float* b,
              const float* AROUND gx, const float* AROUND gy, const float* AROUND gz,
              const float* leak, const int* leak_rows, const float* AROUND x, const float* before, float* out) {
  for_each_row(GRID, [=](Index row, int index) INLINE {
    const Leak leaks = leak_of_row(leak, leak_rows, index, nz);
    FOR_EACH_IN_ROW(p, ) {
      const float own = leak_at(leaks, p - row);
      const float r = b[p] + minus_A(p, sx, sy, x, gx, gy, gz, own);
      const float inverse = inverse_diagonal(p, sx, sy, gx, gy, gz, own);
      const float last = carry == 0.0f ? 0.0f : carry * before[p];
      const float next = (1.0f + inertia) * x[p] - last + step * inverse * r;
      out[p] = inverse > 0.0f ? next : 0.0f;
    }
  });
}

// Its first step from x = 0: out = step D⁻¹ b.
KERNEL smooth_from_zero(GRID_PARAMETERS, float step, const float* b, const float* AROUND gx,
                        const float* AROUND gy, const float* AROUND gz, const float* leak,
                        const int* leak_rows, float* out) {
  for_each_row(GRID, [=](Index row, int index) INLINE {
    const Leak leaks = leak_of_row(leak, leak_rows, index, nz);
    FOR_EACH_IN_ROW(p, )
    out[p] = step * b[p] * inverse_diagonal(p, sx, sy, gx, gy, gz, leak_at(leaks, p - row));
  });
}

// r = b − A x
KERNEL residual(GRID_PARAMETERS, const float* b, const float* AROUND x, const float* AROUND gx, const float* AROUND gy,
                const float* AROUND gz, const float* leak, const int* leak_rows, float* r) {
  for_each_row(GRID, [=](Index row, int index) INLINE {
    const Leak leaks = leak_of_row(leak, leak_rows, index, nz);
    FOR_EACH_IN_ROW(p, )
    r[p] = b[p] + minus_A(p, sx, sy, x, gx, gy, gz, leak_at(leaks, p - row));
  });
}

// r = −A x
KERNEL minus_operator(GRID_PARAMETERS, const float* AROUND x, const float* AROUND gx, const float* AROUND gy,
                      const float* AROUND gz, const float* leak, const int* leak_rows, float* r) {
  for_each_row(GRID, [=](Index row, int index) INLINE {
    const Leak leaks = leak_of_row(leak, leak_rows, index, nz);
    FOR_EACH_IN_ROW(p, )
    r[p] = minus_A(p, sx, sy, x, gx, gy, gz, leak_at(leaks, p - row));
  });
}

// Coarse right-hand side: sum over the eight children. `fine_*` describe the finer level; its rows begin at
// even places in memory.
KERNEL restrict_sum(GRID_PARAMETERS, int fine_sx, int fine_sy, int fine_origin, const float* fine,
                    float* coarse) {
  for_each_row(GRID, [=](Index row, int index) INLINE {
    const float* children =
        fine + fine_origin + 2 * ((Index)(index / ny) * fine_sx + (Index)(index % ny) * fine_sy);
    FOR_EACH_IN_ROW(p, ) {
      const Index k = 2 * (p - row);
      const Pair a = pair_at(children, k), b = pair_at(children, k + fine_sy);
      const Pair c = pair_at(children, k + fine_sx), d = pair_at(children, k + fine_sx + fine_sy);
      coarse[p] = a.x + a.y + b.x + b.y + c.x + c.y + d.x + d.y;
    }
  });
}

// fine += coarse: each child gets its parent's value, the transpose of the sum over children. `fine_*`
// describe the finer level; children that it has not are ghost cells and stay as they are.
KERNEL prolongate_add(GRID_PARAMETERS, int fine_nx, int fine_ny, int fine_nz, int fine_sx,
                      int fine_sy, int fine_origin, const float* coarse, float* fine) {
  for_each_row(GRID, [=](Index row, int index) INLINE {
    const int i = 2 * (index / ny), j = 2 * (index % ny);
    for (int a = 0; a < 2; ++a)
      for (int b = 0; b < 2; ++b)
        if (i + a < fine_nx && j + b < fine_ny) {
          float* children = fine + fine_origin + (Index)(i + a) * fine_sx + (Index)(j + b) * fine_sy;
          FOR_EACH_IN_ROW(p, ) {
            const Index k = 2 * (p - row);
            const Pair old = pair_at(children, k);
            store_pair(children, k, old.x + coarse[p],
                       old.y + (k + 1 < fine_nz ? coarse[p] : 0.0f));
          }
        }
  });
}

// Links of the coarser level: half the sum of the four fine faces behind each coarse face.
KERNEL coarsen_links(GRID_PARAMETERS, int fine_sx, int fine_sy, int fine_origin,
                     const float* fine_gx, const float* fine_gy, const float* fine_gz, float* gx,
                     float* gy, float* gz) {
  for_each_row(GRID, [=](Index row, int index) INLINE {
    const Index first =
        fine_origin + 2 * ((Index)(index / ny) * fine_sx + (Index)(index % ny) * fine_sy);
    const int X = fine_sx, Y = fine_sy;
    FOR_EACH_IN_ROW(p, ) {
      const Index f = first + 2 * (p - row);
      const Pair x = pair_at(fine_gx, f + X), x_next = pair_at(fine_gx, f + X + Y);
      gx[p] = 0.5f * (x.x + x.y + x_next.x + x_next.y);
      const Pair y = pair_at(fine_gy, f + Y), y_next = pair_at(fine_gy, f + Y + X);
      gy[p] = 0.5f * (y.x + y.y + y_next.x + y_next.y);
      gz[p] = 0.5f * (pair_at(fine_gz, f).y + pair_at(fine_gz, f + X).y +
                      pair_at(fine_gz, f + Y).y + pair_at(fine_gz, f + X + Y).y);
    }
  });
}

// And of its links to walls, the sum over the eight children of each cell: one entry for each row (i, j) of
// the coarser level, of which only what `leak_rows` has room for is made.
KERNEL coarsen_leaks(int n, int ny, int nz, int fine_nx, int fine_ny, int fine_nz,
                     const float* fine_leak, const int* fine_leak_rows, const int* leak_rows,
                     float* leak) {
  for_each_entry(n, [=](int e) INLINE {
    const int cells = leak_rows[2 * e], ends = leak_rows[2 * e + 1];
    if (cells == 0 && ends == 0) return;
    // of a row without cells of its own, the first and the last alone
    for (int k = 0; k < nz; k += cells > 0 || nz == 1 ? 1 : nz - 1) {
      float total = 0.0f;
      for (int child = 0; child < 4; ++child) {
        const int i = 2 * (e / ny) + child / 2, j = 2 * (e % ny) + child % 2;
        if (i >= fine_nx || j >= fine_ny) continue;
        const Leak fine = leak_of_row(fine_leak, fine_leak_rows, i * fine_ny + j, fine_nz);
        total += leak_at(fine, 2 * k);
        if (2 * k + 1 < fine_nz) total += leak_at(fine, 2 * k + 1);
      }
      leak[cells > 0 ? cells + k : k == 0 ? ends : ends + 1] = total;
    }
  });
}

// Conjugate gradients: d = z + beta d
KERNEL search_direction(GRID_PARAMETERS, const float* z, float beta, float* d) {
  for_each_cell(GRID, [=](Index p) INLINE { d[p] = z[p] + (beta == 0.0f ? 0.0f : beta * d[p]); });
}

// Ad = A d with row sums of d · A d
KERNEL apply_and_dot(GRID_PARAMETERS, const float* AROUND d, const float* AROUND gx, const float* AROUND gy,
                     const float* AROUND gz, const float* leak, const int* leak_rows, float* Ad,
                     double* rows) {
  for_each_row(GRID, [=](Index row, int index) INLINE {
    const Leak leaks = leak_of_row(leak, leak_rows, index, nz);
    float total = 0.0f;
    FOR_EACH_IN_ROW(p, reduction(+ : total)) {
      const float value = -minus_A(p, sx, sy, d, gx, gy, gz, leak_at(leaks, p - row));
      Ad[p] = value;
      total += d[p] * value;
    }
    store(rows + index, row_sum(total));
  });
}

// x += alpha d, r −= alpha Ad with row sums of r · r
KERNEL step_and_norm(GRID_PARAMETERS, float alpha, const float* d, const float* Ad, float* x,
                     float* r, double* rows) {
  for_each_row(GRID, [=](Index row, int index) INLINE {
    float total = 0.0f;
    FOR_EACH_IN_ROW(p, reduction(+ : total)) {
      x[p] += alpha * d[p];
      const float value = r[p] - alpha * Ad[p];
      r[p] = value;
      total += value * value;
    }
    store(rows + index, row_sum(total));
  });
}

// Row sums of a · b
KERNEL dot(GRID_PARAMETERS, const float* a, const float* b, double* rows) {
  for_each_row(GRID, [=](Index row, int index) INLINE {
    float total = 0.0f;
    FOR_EACH_IN_ROW(p, reduction(+ : total)) total += a[p] * b[p];
    store(rows + index, row_sum(total));
  });
}
