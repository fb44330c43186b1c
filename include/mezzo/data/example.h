#pragma once
// An encoded line of a data file.
#include <cstdint>
#include <utility>
#include <vector>

namespace mezzo {

/// One encoded line. A completion record has its completion as the only option.
struct Example {
  std::vector<std::int32_t> prompt;  ///< start token first, where the tokenizer has one; not empty
  std::vector<std::vector<std::int32_t>> options;  ///< none empty
  std::int32_t label = 0;                          ///< index of the right option
  /// Of a chat, whose turns are one option: ranges [begin, end) of its tokens that the loss sees, in order,
  /// the first at 0 and the last up to its end. Empty: all.
  std::vector<std::pair<std::int32_t, std::int32_t>> counted{};
};

}  // namespace mezzo
