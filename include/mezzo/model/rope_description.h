#pragma once
// Rotary positions (Su et al. 2021) of a decoder and how they are stretched to longer contexts.
#include <cstdint>
#include <vector>

#include "mezzo/backend/backend.h"

namespace mezzo {

/// rope_type of transformers' modeling_rope_utils. Its "default" and "dynamic" (NTK) are `none`: "dynamic"
/// stretches for sequences longer than max_position_embeddings alone, and none is served.
enum class RopeScaling : std::uint8_t {
  none,
  linear,   ///< positions divided by `factor` (Chen et al. 2023)
  llama3,   ///< long waves divided by `factor`, short ones kept
  yarn,     ///< the same by numbers of turns, and scaled tables (Peng et al. 2023)
  longrope  ///< each frequency divided by a factor of its own, and scaled tables (Ding et al. 2024)
};

struct RopeDescription {
  RopeStyle style = RopeStyle::half_split;
  std::int64_t dims = 0;  ///< of a head that turn; < head_dim: partial
  double theta = 10000.0;
  RopeScaling scaling = RopeScaling::none;
  double factor = 1.0;            ///< linear, llama3, yarn
  double low_freq_factor = 1.0;   ///< llama3
  double high_freq_factor = 4.0;  ///< llama3
  double beta_fast = 32.0;        ///< yarn: turns over the original context from which a wave is kept
  double beta_slow = 1.0;         ///< yarn: turns below which it is stretched whole
  bool truncate = true;           ///< yarn: the bounds between them are whole numbers
  double original_max_positions = 0.0;
  /// longrope: [dims / 2] each, for sequences of up to original_max_positions tokens and for longer ones.
  std::vector<double> short_factors, long_factors;
  double attention_factor = 1.0;  ///< of cosines and sines: yarn, longrope

  /// Whether sequences of more than original_max_positions tokens, up to `longest`, turn by other angles.
  bool turns_long_ones_apart(std::int64_t longest) const {
    return scaling == RopeScaling::longrope && static_cast<double>(longest) > original_max_positions;
  }

  bool operator==(const RopeDescription&) const = default;
};

}  // namespace mezzo
