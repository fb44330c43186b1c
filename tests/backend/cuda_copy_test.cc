// What is copied to a card has been read when the call returns: the caller's memory may change or go.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "mezzo/backend/devices.h"

namespace mezzo::test {
namespace {

// Page-locked memory is what the runtime reads after the call, on every card: as it does with any memory
// where the card can read that by itself.
TEST(CudaCopies, SourceMayChangeOnReturn) {
  std::string reason;
  if (!cuda_available(&reason)) GTEST_SKIP() << reason;
  const std::unique_ptr<Backend> cuda = make_backend({.device = DeviceKind::cuda, .fp32 = true});
  // Shorter than one piece of the way to the card, and longer than all of them.
  for (const std::int64_t count : {std::int64_t{1000}, (std::int64_t{3} << 20) + 7}) {
    const auto size = static_cast<std::size_t>(count);
    void* memory = nullptr;
    ASSERT_EQ(cudaMallocHost(&memory, size * sizeof(float)), cudaSuccess);
    auto* const source = static_cast<float*>(memory);
    for (std::size_t i = 0; i < size; ++i) source[i] = static_cast<float>(i);

    // Work of some milliseconds stands before the copy.
    constexpr std::int64_t busy = std::int64_t{1} << 28;
    const Buffer noise = cuda->allocate(static_cast<std::size_t>(busy) * sizeof(float));
    const Buffer room = cuda->allocate(size * sizeof(float));
    const View destination = dense(room.data(), DType::f32, 1, count);
    for (std::uint64_t seed = 1; seed <= 4; ++seed)
      cuda->fill_normal(dense(noise.data(), DType::f32, 1, busy), seed, 1.0f);
    cuda->load(destination, DType::f32, source, false);
    std::fill(source, source + count, -1.0f);

    std::vector<float> arrived(size);
    cuda->read(arrived, destination, 1);
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < size; ++i) wrong += arrived[i] != static_cast<float>(i) ? 1 : 0;
    EXPECT_EQ(wrong, 0u) << "of " << size;
    ASSERT_EQ(cudaFreeHost(memory), cudaSuccess);
  }
}

}  // namespace
}  // namespace mezzo::test
