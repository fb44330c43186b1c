#pragma once
// The texts of tokens and their ids.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "mezzo/io/json_cursor.h"

namespace mezzo {

/// Far above any model's; tables are as long as the largest id.
inline constexpr std::int32_t max_token_id = (1 << 24) - 1;

/// Texts and ids are unique.
class Vocabulary {
 public:
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;  // no copy of a text to look it up
  };
  using Ids = std::unordered_map<std::string, std::int32_t, Hash, std::equal_to<>>;

  /// `where` names the vocabulary in messages.
  Vocabulary(Ids ids, std::string where) : ids_(std::move(ids)), where_(std::move(where)) {}
  /// The `model` of a tokenizer.json: its `vocab` is an object of ids by text, or a list of pairs of a text
  /// and a score, whose ids are their places. InputError for anything else, and for an id that two texts
  /// have. Of a text that stands twice in a list the last place counts.
  static Vocabulary read(const JsonCursor& model);

  std::optional<std::int32_t> find(std::string_view text) const {
    const auto found = ids_.find(text);
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }
  const Ids& ids() const { return ids_; }
  const std::string& where() const { return where_; }
  /// The ids of <0x00> ... <0xFF>; nothing where one is not there.
  std::vector<std::optional<std::int32_t>> fallback_ids() const;

 private:
  Ids ids_;
  std::string where_;
};

/// Appends the ids of the bytes of `text`, unless one of them has none.
bool append_fallback(const std::vector<std::optional<std::int32_t>>& fallback_ids, std::string_view text,
                     std::vector<std::int32_t>& ids);

}  // namespace mezzo
