#pragma once
// Memory and streams of the current card, for the backend and the GEMM bound.
#include <array>
#include <cstddef>
#include <string>

#include "cuda_check.h"
#include "mezzo/backend/buffer.h"

namespace mezzo {

std::string describe(const cudaDeviceProp& card);  ///< for people: name and size
/// `bytes` of the card's memory, contents undefined. DeviceError with what was asked for and what is free.
Buffer allocate_on_card(std::size_t bytes);
std::size_t free_on_card();
Stream make_stream();

/// The way of host memory to the card. A copy that the runtime makes may read its source after the call: from
/// page-locked memory always, from other memory where the card can read that by itself. Here the source is
/// copied to page-locked memory before the call returns, and goes to the card from there.
class Staging {
 public:
  Staging();
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  /// Enqueues a copy of `bytes` to the card's memory. `source` has been read on return.
  void copy(void* destination, const void* source, std::size_t bytes, cudaStream_t stream);

 private:
  static constexpr std::size_t slot_bytes = std::size_t{1} << 20;
  static constexpr std::size_t slots = 8;

  Buffer memory_;                  ///< page-locked, [slots, slot_bytes]
  std::array<Event, slots> sent_;  ///< behind the last copy from each slot
  std::size_t next_ = 0;
};

}  // namespace mezzo
