#pragma once
// What the families share in reading config.json. A key that is null counts as absent, as in transformers.
#include <fmt/format.h>

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string_view>

#include "mezzo/io/json_cursor.h"
#include "mezzo/model/description.h"

namespace mezzo {

// Limits that keep every product of two sizes, and every table of layers, in range.
inline constexpr std::int64_t width_limit = std::int64_t{1} << 24;
inline constexpr std::int64_t layers_limit = 10'000;
inline constexpr std::int64_t experts_limit = 65'536;    ///< of a layer
inline constexpr std::int64_t index_limit = 0x7fffffff;  ///< tokens and positions are 32-bit

/// A size of a model: a whole number from 1 to `limit`.
inline std::int64_t read_size(const JsonCursor& value, std::int64_t limit) { return value.integer(1, limit); }
inline std::int64_t read_size_or(const JsonCursor& value, std::int64_t limit, std::int64_t otherwise) {
  return value.integer_or(1, limit, otherwise);
}

/// Heads of queries, keys and values alike that share `d.hidden`, which the key `hidden` says: sets heads,
/// kv_heads, head_dim and attention_scale, 1 / sqrt(head_dim).
void read_equal_heads(const JsonCursor& heads, std::string_view hidden, Description& d);

/// transformers' ACT2FN names.
Activation read_activation(const JsonCursor& name, std::string_view otherwise);

/// InputError unless the value is absent or this one, which leaves the maths as Mezzo does it.
void check_only(const JsonCursor& value, const nlohmann::json& served);

/// InputError when a class of `architectures`, or of the model's own code in `auto_map`, is none of
/// `classes`, transformers' names for this family.
void check_architecture(const JsonCursor& config, std::initializer_list<std::string_view> classes);

/// InputError for a key that some decoder of transformers has for maths of its own, unless it is one of
/// `served`, those that this family reads itself.
void refuse_other_maths(const JsonCursor& config, std::initializer_list<std::string_view> served = {});

/// The rotary part of a config: rope_theta beside rope_scaling, or (since transformers 5) rope_parameters
/// with both in it. InputError when two places say different things, for a key that is not read, and for one
/// that the rope_type does not have. `partial` is the family's share of a head that turns where nothing says
/// it; without, all of it does and may not be said otherwise. Sets all but style.
RopeDescription read_rope(const JsonCursor& config, std::int64_t max_positions, std::int64_t head_dim,
                          std::optional<double> partial = std::nullopt);

/// Ropes of the layers without a window and of those with one.
struct LayerRopes {
  RopeDescription full, window;
};

/// Gemma 3's rotary part: rope_theta, rope_scaling (of the layers without a window) and rope_local_base_freq,
/// or (since transformers 5) rope_parameters with a section for each type of layer.
LayerRopes read_layer_ropes(const JsonCursor& config, std::int64_t max_positions, std::int64_t head_dim);

}  // namespace mezzo
