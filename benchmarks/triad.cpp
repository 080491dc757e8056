// a = b + s c, as in McCalpin's STREAM: twelve bytes are counted per entry, two reads and a write.
extern "C" void triad(long n, int threads, float s, const float* b, const float* c, float* a) {
#pragma omp parallel for simd schedule(static) num_threads(threads)
  for (long i = 0; i < n; ++i) a[i] = b[i] + s * c[i];
}
