#include "mezzo/data/vocabulary.h"

#include <nlohmann/json.hpp>
#include <unordered_set>

#include "mezzo/core/error.h"
#include "mezzo/data/byte_fallback.h"
#include "mezzo/io/json_file.h"

namespace mezzo {

using Json = nlohmann::json;

Vocabulary Vocabulary::read(const JsonCursor& model) {
  const JsonCursor field = model["vocab"];
  const Json& value = field.value();
  Ids ids;
  ids.reserve(value.size());
  if (value.is_array() && !value.empty() && value.size() <= std::size_t{max_token_id} + 1) {
    for (std::size_t i = 0; i < value.size(); ++i) {
      const Json& entry = value[i];
      if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number()) {
        throw InputError("{}[{}] is no token; expected a text and its score", field.where(), i);
      }
      ids[entry[0].get_ref<const std::string&>()] = static_cast<std::int32_t>(i);
    }
    return {std::move(ids), field.where()};
  }
  if (!value.is_object() || value.empty()) field.fail("an object of tokens and their ids");
  std::unordered_set<std::int32_t> seen;
  for (const auto& [token, id] : value.get_ref<const Json::object_t&>()) {
    const auto entry = [&] { return fmt::format("{}, token {}:", field.where(), quote(token)); };
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() > std::uint64_t{max_token_id}) {
      throw InputError("{} the id is {}; expected one from 0 to {}", entry(), id.dump(), max_token_id);
    }
    if (!seen.insert(id.get<std::int32_t>()).second) {
      throw InputError("{} the id {} stands at another token too", entry(), id.dump());
    }
    ids.emplace(token, id.get<std::int32_t>());
  }
  return {std::move(ids), field.where()};
}

std::vector<std::optional<std::int32_t>> Vocabulary::fallback_ids() const {
  std::vector<std::optional<std::int32_t>> found(256);
  for (std::size_t byte = 0; byte < 256; ++byte)
    found[byte] = find(fallback_token(static_cast<unsigned char>(byte)));
  return found;
}

bool append_fallback(const std::vector<std::optional<std::int32_t>>& fallback_ids, std::string_view text,
                     std::vector<std::int32_t>& ids) {
  const std::size_t before = ids.size();
  for (const char byte : text) {
    const auto& id = fallback_ids[static_cast<unsigned char>(byte)];
    if (!id) {
      ids.resize(before);
      return false;
    }
    ids.push_back(*id);
  }
  return true;
}

}  // namespace mezzo
