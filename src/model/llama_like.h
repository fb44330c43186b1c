#pragma once
// What LLaMA and the families made after it say alike in config.json: one form of layer, { norm, q|k|v,
// attention, o } { norm, gate|up, MLP, down }, with RMS norms and rotary positions, under the same names of
// keys and of modules.
#include <optional>

#include "mezzo/io/json_cursor.h"
#include "mezzo/model/description.h"

namespace mezzo {

/// What transformers' class of the family's config takes for keys that config.json does not have.
struct LlamaLikeDefaults {
  std::int64_t max_positions = 2048;
  std::int64_t kv_heads = 0;  ///< 0: as many as heads
  std::int64_t head_dim = 0;  ///< 0: hidden / heads
  /// Share of a head that turns, for a family that may have a part; else all of it does.
  std::optional<double> partial_rotary = {};
  bool rope_by_layer_type = false;  ///< layers with the window have a rope of their own, as Gemma 3's
};

/// All that the form says, without biases.
Description describe_llama_like(const JsonCursor& config, const LlamaLikeDefaults& defaults);

/// The rule of a layer with `experts` experts, of which num_experts_per_tok take a row.
RoutingRule read_routing(const JsonCursor& config, std::int64_t experts, std::int64_t chosen_otherwise,
                         bool renormalised);

/// A token has one row in the tables of all rotations (rope.h). Where longrope turns long sequences apart and
/// another rotation does not, the model takes sequences with the short factors alone.
void cut_to_short_factors(Description& description);

/// layer_types, where config.json has them: which layers are without the window.
void read_layer_types(const JsonCursor& config, Description& description);

}  // namespace mezzo
