// The rotary part of config.json.
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config_reader.h"

namespace mezzo {
namespace {

/// The places at which a config may say one thing, in the order in which they are read.
using Places = std::vector<JsonCursor>;

/// The number that all places agree on which have one; `otherwise` when none has.
double agreed_number(const Places& places, double otherwise) {
  const JsonCursor* first = nullptr;
  for (const JsonCursor& place : places) {
    if (place.is_unset()) continue;
    if (first == nullptr) first = &place;
    if (place.positive() != first->positive())
      place.fail(fmt::format("{}, which {} says", first->value().dump(), first->path()));
  }
  return first == nullptr ? otherwise : first->positive();
}

/// What a rope_type is and which keys it has, beside the type's, rope_theta and partial_rotary_factor.
struct RopeType {
  std::string_view name;
  RopeScaling scaling;
  std::vector<std::string_view> keys;
};

const std::vector<RopeType>& rope_types() {
  static const std::vector<RopeType> types{
      {"default", RopeScaling::none, {}},
      {"linear", RopeScaling::linear, {"factor"}},
      // Up to max_position_embeddings the same as default, and longer sequences are not served.
      {"dynamic", RopeScaling::none, {"factor", "original_max_position_embeddings"}},
      {"llama3",
       RopeScaling::llama3,
       {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}},
      {"yarn",
       RopeScaling::yarn,
       {"factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale",
        "mscale_all_dim", "truncate"}},
      {"longrope",
       RopeScaling::longrope,
       {"factor", "original_max_position_embeddings", "attention_factor", "short_factor", "long_factor"}},
  };
  return types;
}

/// The type stands under a name of before and one of after transformers 4.43, or both. "su" is what longrope
/// was called at first.
const RopeType& read_type(const JsonCursor& section) {
  const JsonCursor now = section["rope_type"];
  const JsonCursor before = section["type"];
  if (!now.is_unset() && !before.is_unset() && now.text() != before.text())
    before.fail(fmt::format("\"{}\", which {} says", now.text(), now.path()));
  const JsonCursor& type = now.is_unset() ? before : now;
  const std::string name = type.text_or("default");
  std::vector<std::string_view> names;
  for (const RopeType& each : rope_types()) {
    if (each.name == (name == "su" ? "longrope" : name)) return each;
    names.push_back(each.name);
  }
  type.refuse(fmt::format("{}", fmt::join(names, ", ")));
}

void check_keys_of(const JsonCursor& section, const RopeType& type) {
  if (type.name == "default") check_only(section["factor"], 1.0);
  for (const RopeType& other : rope_types()) {
    for (const std::string_view key : other.keys) {
      if (key == "factor" || std::ranges::find(type.keys, key) != type.keys.end()) continue;
      if (const JsonCursor value = section[key]; !value.is_unset())
        value.fail(fmt::format("none of it with the rope_type {}, which does not have it", type.name));
    }
  }
}

void read_llama3(const JsonCursor& section, RopeDescription& rope) {
  rope.factor = section["factor"].positive();
  rope.low_freq_factor = section["low_freq_factor"].positive();
  const JsonCursor high = section["high_freq_factor"];
  rope.high_freq_factor = high.positive();
  if (rope.high_freq_factor <= rope.low_freq_factor)
    high.fail(fmt::format("more than low_freq_factor, {}", rope.low_freq_factor));
}

void read_yarn(const JsonCursor& section, std::int64_t max_positions, RopeDescription& rope) {
  rope.factor =
      section["factor"].positive_or(static_cast<double>(max_positions) / rope.original_max_positions);
  rope.beta_fast = section["beta_fast"].positive_or(32.0);
  rope.beta_slow = section["beta_slow"].positive_or(1.0);
  if (rope.beta_fast < rope.beta_slow)
    section["beta_fast"].fail(fmt::format("no less than beta_slow, {}", rope.beta_slow));
  rope.truncate = section["truncate"].boolean_or(true);
  const auto scale = [&](double by) {
    return rope.factor <= 1.0 ? 1.0 : 0.1 * by * std::log(rope.factor) + 1.0;
  };
  const JsonCursor all = section["mscale_all_dim"];
  const bool both = !section["mscale"].is_unset() && !all.is_unset();
  const double otherwise = both ? scale(section["mscale"].positive()) / scale(all.positive()) : scale(1.0);
  rope.attention_factor = section["attention_factor"].positive_or(otherwise);
}

std::vector<double> read_factors(const JsonCursor& list, std::int64_t pairs) {
  std::vector<double> factors;
  for (const JsonCursor& factor : list.elements()) factors.push_back(factor.positive());
  if (std::ssize(factors) != pairs) list.fail(fmt::format("{} numbers, one for each pair", pairs));
  return factors;
}

void read_longrope(const JsonCursor& section, std::int64_t max_positions, RopeDescription& rope) {
  rope.short_factors = read_factors(section["short_factor"], rope.dims / 2);
  rope.long_factors = read_factors(section["long_factor"], rope.dims / 2);
  const double original = rope.original_max_positions;
  if (original <= 1.0) section["original_max_position_embeddings"].fail("more than 1");
  const double factor = section["factor"].positive_or(static_cast<double>(max_positions) / original);
  rope.attention_factor = section["attention_factor"].positive_or(
      factor <= 1.0 ? 1.0 : std::sqrt(1.0 + std::log(factor) / std::log(original)));
}

/// Where a theta stands beside the section, and what it is where none does.
struct ThetaKey {
  const char* key = "rope_theta";
  double otherwise = 10000.0;
};

/// One of the two sections, or (without a cursor) none.
RopeDescription read_section(const JsonCursor& config, const std::optional<JsonCursor>& section,
                             std::int64_t max_positions, std::int64_t head_dim, std::optional<double> partial,
                             const ThetaKey& theta = {}) {
  RopeDescription rope;
  Places thetas{config[theta.key]};
  Places shares{config["partial_rotary_factor"]};
  if (section) thetas.push_back((*section)["rope_theta"]);
  if (section) shares.push_back((*section)["partial_rotary_factor"]);
  rope.theta = agreed_number(thetas, theta.otherwise);
  if (!partial) {
    for (const JsonCursor& share : shares) check_only(share, 1.0);
  }
  const double share = agreed_number(shares, partial.value_or(1.0));
  rope.dims = static_cast<std::int64_t>(static_cast<double>(head_dim) * share);
  if (rope.dims > head_dim || rope.dims < 2 || rope.dims % 2 != 0)
    shares.back().fail(fmt::format("a share of a head's {} elements that is even", head_dim));
  if (!section) return rope;

  section->check_keys({"rope_type", "type", "rope_theta", "partial_rotary_factor", "factor",
                       "low_freq_factor", "high_freq_factor", "original_max_position_embeddings",
                       "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate",
                       "short_factor", "long_factor"});
  const RopeType& type = read_type(*section);
  check_keys_of(*section, type);
  rope.scaling = type.scaling;
  if (type.name == "linear") rope.factor = (*section)["factor"].positive();
  if (type.name == "dynamic") (*section)["factor"].positive();
  if (rope.scaling == RopeScaling::none || rope.scaling == RopeScaling::linear) return rope;
  // transformers falls back to the context's length.
  rope.original_max_positions = agreed_number(
      {config["original_max_position_embeddings"], (*section)["original_max_position_embeddings"]},
      static_cast<double>(max_positions));
  if (rope.scaling == RopeScaling::llama3) read_llama3(*section, rope);
  if (rope.scaling == RopeScaling::yarn) read_yarn(*section, max_positions, rope);
  if (rope.scaling == RopeScaling::longrope) read_longrope(*section, max_positions, rope);
  return rope;
}

/// A section with anything in it.
std::optional<JsonCursor> find_section(const JsonCursor& config, const char* key) {
  const JsonCursor section = config[key];
  if (section.is_unset() || (section.is_object() && section.value().empty())) return std::nullopt;
  return section;
}

}  // namespace

RopeDescription read_rope(const JsonCursor& config, std::int64_t max_positions, std::int64_t head_dim,
                          std::optional<double> partial) {
  const auto old_form = find_section(config, "rope_scaling");
  const auto new_form = find_section(config, "rope_parameters");
  const auto read = [&](const std::optional<JsonCursor>& section) {
    return read_section(config, section, max_positions, head_dim, partial);
  };
  const RopeDescription rope = read(new_form ? new_form : old_form);
  if (old_form && new_form && rope != read(old_form))
    old_form->fail("the same as rope_parameters, which says otherwise");
  return rope;
}

LayerRopes read_layer_ropes(const JsonCursor& config, std::int64_t max_positions, std::int64_t head_dim) {
  const auto old_form = find_section(config, "rope_scaling");
  const auto new_form = find_section(config, "rope_parameters");
  if (old_form && new_form) old_form->fail("none of it beside rope_parameters");
  std::optional<JsonCursor> full = old_form;
  std::optional<JsonCursor> window;
  if (new_form) {
    new_form->check_keys({"full_attention", "sliding_attention"});
    full = find_section(*new_form, "full_attention");
    window = find_section(*new_form, "sliding_attention");
  }
  const auto read = [&](const std::optional<JsonCursor>& section, const ThetaKey& theta) {
    return read_section(config, section, max_positions, head_dim, std::nullopt, theta);
  };
  return {.full = read(full, {.key = "rope_theta", .otherwise = 1e6}),
          .window = read(window, {.key = "rope_local_base_freq", .otherwise = 1e4})};
}

}  // namespace mezzo
