#pragma once
// What attention makes of q.k, shared by the reference and the cpu kernels.
#include <algorithm>
#include <cstdint>

namespace mezzo {

/// score = cap(scale q.k), cap(s) = soft_cap tanh(s / soft_cap) (Gemma Team 2024); of the last `window` keys
/// of a query, its own included (Beltagy et al. 2020).
struct Scoring {
  float scale = 1.0f;
  std::int64_t window = 0;  ///< 0: all keys
  float soft_cap = 0.0f;    ///< 0: none

  /// The first key that the query at `place` sees.
  std::int64_t first_key(std::int64_t place) const {
    return window == 0 ? 0 : std::max<std::int64_t>(place - window + 1, 0);
  }
};

}  // namespace mezzo
