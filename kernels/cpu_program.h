// Host only: runs a list of kernels slab by slab of x-planes, so that a slab is still in the cache when
// the next kernel works on it. `lag` keeps a call so many planes behind the front that all it needs is
// there, and that nobody still needs what it overwrites; backends/cpu_program.py chooses it.
#pragma once

union Argument {
  void* pointer;
  float real;
  int integer;
};

struct Call {
  void (*run)(const Call& call, int first_plane, int last_plane);
  const Argument* arguments;
  const int* starts;         // kernels on lists: the first entry of each plane, and of the end
  unsigned long long lists;  // bit a: argument a is such a list
  int planes, lag;
  int ratio;  // 2: works on planes of a grid twice as coarse
  int unused;

  // Pointer `a`, of a kernel on lists moved to the first entry of the slab.
  template <class Value>
  Value* entries(int a, int first_plane) const {
    Value* start = (Value*)arguments[a].pointer;
    return (lists >> a) & 1 ? start + starts[first_plane] : start;
  }
};

extern "C" void run_program(const Call* calls, int n, int planes, int width, int* done) {
  for (int c = 0; c < n; ++c) done[c] = 0;
  bool finished = false;
  for (long front = width; !finished; front += width) {
    finished = true;
    for (int c = 0; c < n; ++c) {
      const Call& call = calls[c];
      const long ready = front - call.lag;
      int last = ready >= planes ? call.planes : (int)((ready > 0 ? ready : 0) / call.ratio);
      if (last > call.planes) last = call.planes;
      if (last > done[c]) {
        call.run(call, done[c], last);
        done[c] = last;
      }
      finished = finished && done[c] == call.planes;
    }
  }
}
