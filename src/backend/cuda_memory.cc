#include "cuda_memory.h"

#include <algorithm>

namespace mezzo {

std::string describe(const cudaDeviceProp& card) {
  return fmt::format("{}, {:.0f} GiB", card.name, static_cast<double>(card.totalGlobalMem) / (1u << 30));
}

Buffer allocate_on_card(std::size_t bytes) {
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, std::max<std::size_t>(bytes, 1));
  if (status == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());  // this error is reported here and must not show in the next call
    int device = 0;
    cudaDeviceProp card{};
    MEZZO_CUDA(cudaGetDevice(&device));
    MEZZO_CUDA(cudaGetDeviceProperties(&card, device));
    throw DeviceError("{}: {} bytes of memory could not be allocated, {} are free", describe(card), bytes,
                      free_on_card());
  }
  MEZZO_CUDA(status);
  return Buffer(data, bytes, [](void* released, std::size_t) { static_cast<void>(cudaFree(released)); });
}

std::size_t free_on_card() {
  std::size_t available = 0;
  std::size_t total = 0;
  MEZZO_CUDA(cudaMemGetInfo(&available, &total));
  return available;
}

Stream make_stream() {
  cudaStream_t stream = nullptr;
  MEZZO_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return Stream(stream);
}

}  // namespace mezzo
