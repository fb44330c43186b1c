#include "module_selection.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "config_reader.h"
#include "mezzo/core/error.h"
#include "mezzo/io/json_file.h"
#include "mezzo/io/oniguruma.h"
#include "mezzo/model/lora.h"

namespace mezzo {
namespace {

using oniguruma::begin_of;
using oniguruma::end_of;
using oniguruma::message_of;

/// Where PEFT finds a layer's number when layers_pattern does not say: the first in the name. An expert's
/// number comes behind it.
constexpr std::string_view any_layers = R"(.*?\.[^.]*\.(\d+)\.)";

bool is_listed(const std::string& module, const std::vector<std::string>& names) {
  return std::ranges::any_of(names, [&](const std::string& name) { return is_targeted(module, name); });
}

/// A text or a list of texts.
std::vector<std::string> read_texts(const JsonCursor& value) {
  if (value.is_unset()) return {};
  if (value.is_text()) return {value.text()};
  std::vector<std::string> texts;
  for (const JsonCursor& element : value.elements()) texts.push_back(element.text());
  return texts;
}

/// Layers of layers_to_transform: one number or a list of them; none where it is unset.
std::vector<std::int64_t> read_layers(const JsonCursor& value) {
  if (value.is_unset()) return {};
  if (!value.is_list()) return {value.integer(0, layers_limit - 1)};
  std::vector<std::int64_t> layers;
  for (const JsonCursor& layer : value.elements()) layers.push_back(layer.integer(0, layers_limit - 1));
  return layers;
}

}  // namespace

// ---- ModulePattern ------------------------------------------------------------------------------------

struct ModulePattern::Compiled {
  Compiled(const std::string& source, std::string place) : where(std::move(place)) {
    oniguruma::initialize();
    OnigErrorInfo info{};
    const int status = onig_new(&regex, begin_of(source), end_of(source), ONIG_OPTION_NONE,
                                ONIG_ENCODING_UTF8, ONIG_SYNTAX_PYTHON, &info);
    if (status != ONIG_NORMAL)
      throw InputError("{} is no regular expression that can be read: {}", where, message_of(status, &info));
  }
  Compiled(const Compiled&) = delete;
  Compiled& operator=(const Compiled&) = delete;
  ~Compiled() { onig_free(regex); }

  /// Matches from the beginning of `name`; the end of group `group`, or nothing.
  std::optional<std::string> match(std::string_view name, int group) const {
    const std::unique_ptr<OnigRegion, oniguruma::FreeRegion> region(oniguruma::checked(onig_region_new()));
    const std::unique_ptr<OnigMatchParam, oniguruma::FreeMatchParam> limits(
        oniguruma::checked(onig_new_match_param()));
    // Names are short: a pattern that takes more steps is one that would take for ever.
    onig_set_retry_limit_in_match_of_match_param(limits.get(), 1'000'000);
    const int status = onig_match_with_param(regex, begin_of(name), end_of(name), begin_of(name),
                                             region.get(), ONIG_OPTION_NONE, limits.get());
    if (status == ONIG_MISMATCH) return std::nullopt;
    if (status < 0)
      throw InputError("{} cannot be matched with {}: {}", where, quote(name), message_of(status));
    if (group >= region->num_regs || region->beg[group] < 0) return std::nullopt;
    return std::string(name.substr(static_cast<std::size_t>(region->beg[group]),
                                   static_cast<std::size_t>(region->end[group] - region->beg[group])));
  }

  std::string where;
  OnigRegex regex = nullptr;
};

ModulePattern::ModulePattern(std::string_view source, const std::string& where)
    // Compiled by itself first: "a)(b" would become a pattern inside the group.
    : start_(std::make_shared<const Compiled>(std::string(source), where)) {
  whole_ = std::make_shared<const Compiled>(fmt::format("(?:{})(?![\\s\\S])", source), where);
}

bool ModulePattern::matches_whole(std::string_view name) const { return whole_->match(name, 0).has_value(); }

std::optional<std::string> ModulePattern::first_group_at_start(std::string_view name) const {
  return start_->match(name, 1);
}

// ---- ModuleSelection ----------------------------------------------------------------------------------

ModuleSelection::ModuleSelection(const JsonCursor& config) {
  const JsonCursor targets = config["target_modules"];
  const JsonCursor layers = config["layers_to_transform"];
  const JsonCursor excluded = config["exclude_modules"];
  layers_ = read_layers(layers);
  if (targets.value() == "all-linear") {
    all_linear_ = true;
  } else if (targets.is_text()) {
    targets_.emplace(targets.text(), targets.where());
    if (!layers_.empty()) layers.refuse("null beside a regular expression in target_modules");
  } else if (targets.is_list() && !targets.value().empty()) {
    names_ = read_texts(targets);
  } else {
    targets.fail("a list of names, or a text");
  }
  if (excluded.is_text()) excluded_.emplace(excluded.text(), excluded.where());
  else excluded_names_ = read_texts(excluded);

  const JsonCursor pattern = config["layers_pattern"];
  for (const std::string& name : read_texts(pattern)) {
    if (layers_.empty()) pattern.refuse("null without layers_to_transform");
    layer_patterns_.emplace_back(fmt::format(R"((?:^|.*?\.){}\.(\d+)\.)", name), pattern.where());
  }
}

bool ModuleSelection::in_layers(const std::string& module) const {
  if (layers_.empty()) return true;
  const auto layer_of = [&]() -> std::optional<std::string> {
    static const ModulePattern anywhere(any_layers, "layers_to_transform");
    if (layer_patterns_.empty()) return anywhere.first_group_at_start(module);
    for (const ModulePattern& pattern : layer_patterns_)
      if (auto number = pattern.first_group_at_start(module)) return number;
    return std::nullopt;
  };
  const std::optional<std::string> digits = layer_of();
  std::int64_t layer = -1;
  if (!digits || std::from_chars(digits->data(), digits->data() + digits->size(), layer).ec != std::errc())
    return false;
  return std::ranges::find(layers_, layer) != layers_.end();
}

bool ModuleSelection::selects(const std::string& module) const {
  if (is_listed(module, excluded_names_) || (excluded_ && excluded_->matches_whole(module))) return false;
  if (targets_) return targets_->matches_whole(module);
  if (std::ranges::find(names_, module) != names_.end()) return true;  // a whole name is taken in any layer
  return (all_linear_ || is_listed(module, names_)) && in_layers(module);
}

}  // namespace mezzo
