// Entries of arrays moved and summed, without arithmetic of any model.
#include "portable.h"

// out[e] = field[index[e]]
KERNEL take(int n, const int* index, const float* field, float* out) {
  for_each_entry(n, [=](int e) INLINE { out[e] = field[index[e]]; });
}

// target[index[e]] = values[e]
KERNEL put(int n, const int* index, const float* values, float* target) {
  for_each_entry(n, [=](int e) INLINE { target[index[e]] = values[e]; });
}

// target[e] = values[e]
KERNEL copy_entries(int n, const float* values, float* target) {
  for_each_entry(n, [=](int e) INLINE { target[e] = values[e]; });
}

// `nx` numbers are the sums of `sx` values each: sums of parts of `nz` (= sy) values, `ny` of them.
KERNEL sum_parts(GRID_PARAMETERS, const double* values, double* parts) {
  for_each_row(GRID, [=](Index row, int index) INLINE {
    const Index end = (Index)(index / ny + 1) * sx;
    double total = 0.0;
    FOR_EACH_IN_ROW(p, reduction(+ : total)) total += p < end ? values[p] : 0.0;
    store(parts + index, row_sum(total));
  });
}

// The same with maxima.
KERNEL max_parts(GRID_PARAMETERS, const double* values, double* parts) {
  for_each_row(GRID, [=](Index row, int index) INLINE {
    const Index end = (Index)(index / ny + 1) * sx;
    double largest = -1.0e300;
    FOR_EACH_IN_ROW(p, reduction(max : largest)) {
      const double value = p < end ? values[p] : largest;
      largest = value > largest ? value : largest;
    }
    store(parts + index, row_max(largest));
  });
}
