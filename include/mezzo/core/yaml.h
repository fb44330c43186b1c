#pragma once
// The part of YAML 1.2 that a config may use, as a tree that keeps what a document object model loses: the
// line of every node, whether a scalar was quoted, the order of keys. Anchors, aliases, merge keys, tags,
// repeated keys and several documents are refused.
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace mezzo::yaml {

inline constexpr std::size_t max_bytes = std::size_t{1} << 20;  ///< longest text that is read
inline constexpr std::size_t max_depth = 32;                    ///< deepest nesting of maps and lists

/// Where a node was written: the name of its source and a line counted from 1, or 0 when lines mean nothing
/// there.
struct Place {
  std::shared_ptr<const std::string> source;
  int line = 0;
  std::string text() const;  ///< "config.yaml:12"
};

/// One node and all that is below it.
struct Node {
  enum class Kind { null, plain, quoted, list, map };

  Kind kind = Kind::null;
  std::string text;         ///< of a plain or quoted scalar
  std::vector<Node> keys;   ///< of a map: scalars, no two with the same text, in the order written
  std::vector<Node> items;  ///< of a list its items; of a map the values, items[i] belonging to keys[i]
  Place place;

  bool is_scalar() const { return kind == Kind::plain || kind == Kind::quoted; }
  Node* find(std::string_view key);  ///< a map's value of that key, or nullptr
  /// Sets or adds a map's value of that key.
  void set(std::string key, Node value);
};

/// Parses `text`, a whole document; an empty one is a null node. Errors (UsageError) name `source` and,
/// unless `number_lines` is false, the line.
Node parse(std::string_view text, const std::string& source, bool number_lines = true);

/// `text` as a YAML scalar on one line that reads back as the same string: plain where that is safe in every
/// YAML version, else in double quotes.
std::string scalar(std::string_view text);

/// `text` (UTF-8 or not) for a message: control characters and what is not UTF-8 escaped, shortened when
/// long.
std::string printable(std::string_view text);

}  // namespace mezzo::yaml
