#pragma once
// What programs that time kernels share: checked calls, arrays in device memory, a hash for random data.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace mezzo {

inline void must(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  std::printf("%s: %s\n", what, cudaGetErrorString(status));
  std::exit(1);
}

/// An array in device memory.
template <typename T>
struct Array {
  T* data = nullptr;
  std::size_t size = 0;

  explicit Array(std::size_t n) : size(n) {
    must(cudaMalloc(&data, std::max<std::size_t>(n, 1) * sizeof(T)), "malloc");
  }
  explicit Array(const std::vector<T>& from) : Array(from.size()) {
    must(cudaMemcpy(data, from.data(), size * sizeof(T), cudaMemcpyHostToDevice), "copy");
  }
  Array(Array&& from) : data(from.data), size(from.size) { from.data = nullptr; }
  ~Array() { cudaFree(data); }
  std::vector<T> read() const {
    std::vector<T> to(size);
    must(cudaMemcpy(to.data(), data, size * sizeof(T), cudaMemcpyDeviceToHost), "copy back");
    return to;
  }
};

inline __host__ __device__ std::uint64_t mix(std::uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

/// Median of `repeats` calls behind two that do not count, in ms.
template <typename Call>
double time_of(int repeats, Call call) {
  cudaEvent_t begin, end;
  must(cudaEventCreate(&begin), "event");
  must(cudaEventCreate(&end), "event");
  std::vector<double> times;
  for (int i = 0; i < repeats + 2; ++i) {
    must(cudaEventRecord(begin), "record");
    call();
    must(cudaEventRecord(end), "record");
    must(cudaEventSynchronize(end), "wait");
    float ms = 0.0f;
    must(cudaEventElapsedTime(&ms, begin, end), "elapsed");
    if (i >= 2) times.push_back(ms);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

}  // namespace mezzo
