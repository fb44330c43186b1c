#pragma once
// Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as
// easy as 1, 2, 3" (SC 2011): four random words as a pure function of a 128-bit counter and a 64-bit key. All
// of Mezzo's randomness comes from here. cuRAND's curand_Philox4x32_10 gives the same words.
#include <cstdint>

#include "mezzo/core/ieee.h"

namespace mezzo {

/// What random words are for: the last word of the counter, so that no two uses ever share words. The numbers
/// are frozen: changing one changes every run.
enum class Purpose : std::uint32_t {
  noise = 0,
  initial = 1,
  direction_seed = 2,
  shuffle = 3,
  sampling = 4,
  data_file = 5,
  outer_rows = 6,  ///< U of noise U V^T
  outer_columns = 7,
  rounding = 8  ///< of masters in bf16
};

/// A counter, or the random words it gives.
struct PhiloxWords {
  std::uint32_t word[4];
};

struct PhiloxKey {
  std::uint32_t low;
  std::uint32_t high;
};

MEZZO_HOST_DEVICE inline PhiloxKey philox_key(std::uint64_t seed) {
  return {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)};
}

/// The counter of a block of random words that belongs to a tensor.
MEZZO_HOST_DEVICE inline PhiloxWords philox_counter(std::uint64_t block, std::uint32_t tensor,
                                                    Purpose purpose) {
  return {{static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32), tensor,
           static_cast<std::uint32_t>(purpose)}};
}

MEZZO_HOST_DEVICE inline PhiloxWords philox4x32_10(PhiloxWords counter, PhiloxKey key) {
  std::uint32_t x0 = counter.word[0], x1 = counter.word[1], x2 = counter.word[2], x3 = counter.word[3];
  std::uint32_t k0 = key.low, k1 = key.high;
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * x0;
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * x2;
    x0 = static_cast<std::uint32_t>(p1 >> 32) ^ x1 ^ k0;
    x1 = static_cast<std::uint32_t>(p1);
    x2 = static_cast<std::uint32_t>(p0 >> 32) ^ x3 ^ k1;
    x3 = static_cast<std::uint32_t>(p0);
    k0 += 0x9E3779B9u;  // golden ratio
    k1 += 0xBB67AE85u;  // sqrt(3) - 1
  }
  return {{x0, x1, x2, x3}};
}

/// Seed of direction `k` of a step.
MEZZO_HOST_DEVICE inline std::uint64_t direction_seed(std::uint64_t run_seed, std::uint64_t step,
                                                      std::uint32_t k) {
  const PhiloxWords words =
      philox4x32_10(philox_counter(step, k, Purpose::direction_seed), philox_key(run_seed));
  return words.word[0] | std::uint64_t{words.word[1]} << 32;
}

}  // namespace mezzo
