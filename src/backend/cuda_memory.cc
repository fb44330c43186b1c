#include "cuda_memory.h"

#include <algorithm>
#include <cstring>

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

Staging::Staging() {
  void* data = nullptr;
  MEZZO_CUDA(cudaMallocHost(&data, slots * slot_bytes));
  memory_ = Buffer(data, slots * slot_bytes,
                   [](void* released, std::size_t) { static_cast<void>(cudaFreeHost(released)); });
  for (Event& event : sent_) {
    cudaEvent_t created = nullptr;
    MEZZO_CUDA(cudaEventCreateWithFlags(&created, cudaEventDisableTiming));
    event.reset(created);
  }
}

Staging::~Staging() {
  for (const Event& event : sent_) static_cast<void>(cudaEventSynchronize(event.get()));
}

void Staging::copy(void* destination, const void* source, std::size_t bytes, cudaStream_t stream) {
  for (std::size_t begin = 0; begin < bytes; begin += slot_bytes) {
    const std::size_t count = std::min(slot_bytes, bytes - begin);
    const Event& sent = sent_[next_];
    std::byte* const slot = static_cast<std::byte*>(memory_.data()) + next_ * slot_bytes;
    next_ = (next_ + 1) % slots;
    MEZZO_CUDA(cudaEventSynchronize(sent.get()));  // returns at once for an event that was never recorded
    std::memcpy(slot, static_cast<const std::byte*>(source) + begin, count);
    MEZZO_CUDA(cudaMemcpyAsync(static_cast<std::byte*>(destination) + begin, slot, count,
                               cudaMemcpyHostToDevice, stream));
    MEZZO_CUDA(cudaEventRecord(sent.get(), stream));
  }
}

}  // namespace mezzo
