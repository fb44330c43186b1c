#pragma once
// Which modules an adapter's config selects where a list of names does not say it: a regular expression,
// exclusions, layers under a name of their own. As PEFT's check_target_module_exists does it.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mezzo/io/json_cursor.h"

namespace mezzo {

/// A regular expression of Python's re over names of modules. Immutable.
class ModulePattern {
 public:
  /// InputError naming `where` for what does not compile.
  ModulePattern(std::string_view source, const std::string& where);

  /// re.fullmatch
  bool matches_whole(std::string_view name) const;
  /// re.match(...).group(1), or nothing
  std::optional<std::string> first_group_at_start(std::string_view name) const;

 private:
  struct Compiled;
  std::shared_ptr<const Compiled> whole_;
  std::shared_ptr<const Compiled> start_;
};

class ModuleSelection {
 public:
  /// Of adapter_config.json as a whole, whose target_modules, exclude_modules, layers_to_transform and
  /// layers_pattern it reads.
  explicit ModuleSelection(const JsonCursor& config);

  /// Whether a list of names, or all-linear, and numbers of layers say it all.
  bool is_plain() const {
    return !targets_ && !excluded_ && excluded_names_.empty() && layer_patterns_.empty();
  }
  // What says it all where the selection is plain:
  bool all_linear() const { return all_linear_; }
  const std::vector<std::string>& names() const { return names_; }
  const std::vector<std::int64_t>& layers() const { return layers_; }  ///< none: all

  bool selects(const std::string& module) const;

 private:
  bool in_layers(const std::string& module) const;

  bool all_linear_ = false;
  std::vector<std::string> names_;
  std::optional<ModulePattern> targets_;  ///< instead of names
  std::optional<ModulePattern> excluded_;
  std::vector<std::string> excluded_names_;
  std::vector<std::int64_t> layers_;
  std::vector<ModulePattern> layer_patterns_;
};

}  // namespace mezzo
