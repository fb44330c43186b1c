#pragma once
// What `mezzo sweep` runs: overrides of several values each, and every combination of these.
#include <span>
#include <string>
#include <vector>

namespace mezzo {

/// A key and one of its values, as YAML.
struct SweepValue {
  std::string key;
  std::string value;
  bool operator==(const SweepValue&) const = default;
};

/// One run of a sweep.
struct SweepMember {
  std::vector<SweepValue> values;  ///< one a swept key, in the order of the command line
  /// The name of its folder: key=value,key=value by the keys' last parts (whole, where two share that) in
  /// bytewise order, so that it does not depend on the order of the command line. At most 200 bytes of ASCII;
  /// what had to be replaced or left out is stood for by a hash of it.
  std::string name;
};

struct SweepGrid {
  std::vector<std::string> fixed;    ///< overrides of one value, which all runs share
  std::vector<std::string> keys;     ///< those with several
  std::vector<SweepMember> members;  ///< the last key's values change fastest

  /// The overrides of a member's config.
  std::vector<std::string> overrides_of(const SweepMember& member) const;
};

/// Overrides of the form a.b=value or a.b=value,value,... Commas within YAML's quotes, brackets and braces
/// belong to a value. UsageError where a value is missing, written twice or not closed, where no key has
/// several, and where there are more than 10 000 combinations. What a key may be is left to load_config().
SweepGrid expand_grid(std::span<const std::string> overrides);

}  // namespace mezzo
