#pragma once
// An encoded record of a data file.
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace mezzo {

/// One encoded record. A completion record has its completion as the only option, a generation record none.
struct Example {
  std::vector<std::int32_t> prompt;  ///< start token first, where the tokenizer has one; not empty
  std::vector<std::vector<std::int32_t>> options =
      {};                  ///< none empty; records of one task may differ in their number
  std::int32_t label = 0;  ///< index of the right option, which trains
  /// Of a chat, whose turns are one option: ranges [begin, end) of its tokens that the loss sees, in order,
  /// the first at 0 and the last up to its end. Empty: all.
  std::vector<std::pair<std::int32_t, std::int32_t>> counted{};
  std::vector<std::int32_t> also_right{};   ///< indices of options that are right answers too
  std::vector<std::int32_t> calibration{};  ///< the prompt behind which scores are calibrated; empty: none
  /// Of a completion: all right texts, the first being what trains. Of a generation the same, where its
  /// reward compares with them.
  std::vector<std::string> answers{};
  std::string record{};  ///< of a generation: the record as JSON on one line, computed fields included
};

}  // namespace mezzo
