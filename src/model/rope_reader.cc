// The rotary part of config.json.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
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

/// "default" or "llama3"; the type stands under a name of before and one of after transformers 4.43, or both.
std::string read_type(const JsonCursor& section) {
  const JsonCursor now = section["rope_type"];
  const JsonCursor before = section["type"];
  if (!now.is_unset() && !before.is_unset() && now.text() != before.text())
    before.fail(fmt::format("\"{}\", which {} says", now.text(), now.path()));
  const JsonCursor& type = now.is_unset() ? before : now;
  const std::string name = type.text_or("default");
  if (name != "default" && name != "llama3") type.refuse("default or llama3");
  return name;
}

/// One of the two sections, or (without a cursor) none.
RopeDescription read_section(const JsonCursor& config, const std::optional<JsonCursor>& section,
                             std::int64_t max_positions) {
  RopeDescription rope;
  Places thetas{config["rope_theta"]};
  if (section) thetas.push_back((*section)["rope_theta"]);
  rope.theta = agreed_number(thetas, rope.theta);
  if (!section) return rope;

  section->check_keys({"rope_type", "type", "rope_theta", "partial_rotary_factor", "factor",
                       "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"});
  check_only((*section)["partial_rotary_factor"], 1.0);
  if (read_type(*section) == "default") {
    check_only((*section)["factor"], 1.0);
    for (const char* key : {"low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}) {
      if (const JsonCursor value = (*section)[key]; !value.is_unset())
        value.fail("none of it with the rope_type default, which does not stretch the positions");
    }
    return rope;
  }
  rope.llama3_scaling = true;
  rope.factor = (*section)["factor"].positive();
  rope.low_freq_factor = (*section)["low_freq_factor"].positive();
  const JsonCursor high = (*section)["high_freq_factor"];
  rope.high_freq_factor = high.positive();
  if (rope.high_freq_factor <= rope.low_freq_factor)
    high.fail(fmt::format("more than low_freq_factor, {}", rope.low_freq_factor));
  // transformers falls back to the context's length.
  rope.original_max_positions = agreed_number(
      {config["original_max_position_embeddings"], (*section)["original_max_position_embeddings"]},
      static_cast<double>(max_positions));
  return rope;
}

/// A section with anything in it.
std::optional<JsonCursor> find_section(const JsonCursor& config, const char* key) {
  const JsonCursor section = config[key];
  if (section.is_unset() || (section.is_object() && section.value().empty())) return std::nullopt;
  return section;
}

}  // namespace

RopeDescription read_rope(const JsonCursor& config, std::int64_t max_positions) {
  check_only(config["partial_rotary_factor"], 1.0);
  const auto old_form = find_section(config, "rope_scaling");
  const auto new_form = find_section(config, "rope_parameters");
  const RopeDescription rope = read_section(config, new_form ? new_form : old_form, max_positions);
  if (old_form && new_form && rope != read_section(config, old_form, max_positions))
    old_form->fail("the same as rope_parameters, which says otherwise");
  return rope;
}

}  // namespace mezzo
