// Host only: runs a list of kernels tile by tile, so that a tile is still in the second cache when the next
// kernel works on it. The x-planes of a tile move on as a front, tiles follow each other along y; every
// thread has its own part of the rows, and the wedges between the parts are done at the end, so that nobody
// waits. `lag` keeps a call so many planes, and rows, behind the front that all it needs is there, and that
// nobody still needs what it overwrites; backends/cpu_program.py chooses it.
#pragma once
#include <omp.h>

#include <vector>

union Argument {
  void* pointer;
  float real;
  int integer;
};

struct Box {
  int i0, i1, j0, j1;  // planes and rows of the call's own grid
};

struct Call {
  void (*run)(const Call& call, const Box& box);
  const Argument* arguments;
  const int* starts;  // kernels on lists: the first entry of each row, and of the end
  int planes, rows, lag;
  int ratio;  // 2: works on a grid twice as coarse

  // How many of its own `all` planes or rows lie before place `fine` of the program's `total`.
  int before(long fine, int total, int all) const {
    if (fine >= total) return all;
    const long own = fine > 0 ? fine / ratio : 0;
    return own < all ? (int)own : all;
  }
};

struct Program {
  const Call* calls;
  int n, planes, rows;
  int width, height;  // planes and rows of a tile

  // All calls on rows from[c] to upto[c], tile by tile.
  void sweep(const int* from, const int* upto) const {
    std::vector<int> begun(from, from + n), ends(n), done(n);
    bool last_tile = false;
    int lowest = rows;
    for (int c = 0; c < n; ++c)
      if (from[c] < upto[c] && calls[c].ratio * from[c] < lowest) lowest = calls[c].ratio * from[c];
    for (long top = (long)lowest + height; !last_tile; top += height) {
      last_tile = true;
      for (int c = 0; c < n; ++c) {
        const int end = calls[c].before(top - calls[c].lag, rows, calls[c].rows);
        ends[c] = end < upto[c] ? end : upto[c];
        if (ends[c] < begun[c]) ends[c] = begun[c];
        last_tile = last_tile && ends[c] >= upto[c];
        done[c] = 0;
      }
      bool finished = false;
      for (long front = width; !finished; front += width) {
        finished = true;
        for (int c = 0; c < n; ++c) {
          const int end = calls[c].before(front - calls[c].lag, planes, calls[c].planes);
          if (end > done[c] && ends[c] > begun[c])
            calls[c].run(calls[c], Box{done[c], end, begun[c], ends[c]});
          if (end > done[c]) done[c] = end;
          finished = finished && done[c] == calls[c].planes;
        }
      }
      begun = ends;
    }
  }
};

extern "C" void run_program(const Call* calls, int n, int planes, int rows, int width, int height,
                            int threads) {
  const Program program{calls, n, planes, rows, width, height};
  if (threads < 1) threads = 1;
  std::vector<int> from(n * (threads + 1)), upto(n * (threads + 1));
  for (int t = 0; t < threads; ++t) {
    const int border = (int)((long)rows * t / threads), next = (int)((long)rows * (t + 1) / threads);
    for (int c = 0; c < n; ++c) {
      const Call& call = calls[c];
      const int first = t == 0 ? 0 : (border + call.lag + call.ratio - 1) / call.ratio;
      from[t * n + c] = first < call.rows ? first : call.rows;
      const int end = t == threads - 1 ? call.rows : call.before(next - call.lag, rows + 1, call.rows);
      upto[t * n + c] = end > from[t * n + c] ? end : from[t * n + c];
    }
  }
#pragma omp parallel num_threads(threads)
  {
    works_alone = true;
    program.sweep(&from[omp_get_thread_num() * n], &upto[omp_get_thread_num() * n]);
#pragma omp barrier
#pragma omp for schedule(static)
    for (int t = 0; t < threads - 1; ++t) program.sweep(&upto[t * n], &from[(t + 1) * n]);
    works_alone = false;
  }
}
