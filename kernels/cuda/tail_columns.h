#pragma once
// Where the low-rank terms of a product lie behind the `in` columns of x and W (low_rank.h).
#include <cstdint>

#include "mezzo/core/ieee.h"

namespace mezzo::cuda {

struct TailColumns {
  std::int64_t ranks = 0;  ///< of all tails
  std::int64_t base = 0;   ///< columns of the two copies of s; 0 where there is no B to multiply them
  std::int64_t block = 0;  ///< columns a direction block
  std::int64_t direction_blocks = 0;

  MEZZO_HOST_DEVICE std::int64_t width() const { return base + direction_blocks * block; }
};

/// The inner step of the tensor cores: where a block must start for a row's bits not to depend on the others.
inline constexpr std::int64_t inner_step = 16;

/// The layout for that many ranks; `direction_blocks` may be 0.
inline TailColumns tail_columns(std::int64_t ranks, std::int64_t direction_blocks) {
  const auto whole_steps = [](std::int64_t count) {
    return (count + inner_step - 1) / inner_step * inner_step;
  };
  return {.ranks = ranks,
          .base = whole_steps(2 * ranks),
          .block = whole_steps(ranks),
          .direction_blocks = direction_blocks};
}

/// Ranks that a pass over x makes: 8 where that is all, else 16.
inline std::int64_t pass_of(std::int64_t ranks) { return ranks <= 8 ? 8 : 16; }

/// Ranks of the factors, padded to whole passes.
inline std::int64_t padded_ranks(std::int64_t ranks) {
  const std::int64_t pass = pass_of(ranks);
  return (ranks + pass - 1) / pass * pass;
}

/// Elements of the factors that project_*() read: A's high and low parts and Z_A of each direction block,
/// [2 + direction_blocks][padded ranks][in] bf16.
inline std::int64_t factor_elements(std::int64_t ranks, std::int64_t in, std::int64_t direction_blocks) {
  return (2 + direction_blocks) * padded_ranks(ranks) * in;
}

}  // namespace mezzo::cuda
