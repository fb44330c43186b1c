#include "mezzo/data/charsmap.h"

#include <cstring>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/core/utf8.h"
#include "mezzo/data/unicode.h"

namespace mezzo {
namespace {

constexpr std::size_t cluster_limit = 6;  // bytes; Hugging Face looks up shorter clusters as a whole

std::string decode_base64(std::string_view text, const std::string& where) {
  const auto value = [](char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
  };
  while (text.ends_with('=')) text.remove_suffix(1);
  std::string bytes;
  bytes.reserve(text.size() * 3 / 4);
  std::uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const int six = value(c);
    if (six < 0) throw InputError("{} is not in base64 code", where);
    bits = bits << 6 | static_cast<std::uint32_t>(six);
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes += static_cast<char>(bits >> count & 0xFF);
    }
  }
  return bytes;
}

// A unit of the double array (Yata et al., darts-clone).
bool has_leaf(std::uint32_t unit) { return (unit >> 8 & 1) == 1; }
std::uint32_t value_of(std::uint32_t unit) { return unit & 0x7FFFFFFFu; }
std::uint32_t label_of(std::uint32_t unit) { return unit & 0x800000FFu; }
std::uint32_t offset_of(std::uint32_t unit) { return unit >> 10 << ((unit & 0x200u) >> 6); }

}  // namespace

CharsMap::CharsMap(std::string_view base64, std::string where) : where_(std::move(where)) {
  const std::string blob = decode_base64(base64, where_);
  std::uint32_t trie_bytes = 0;
  if (blob.size() < sizeof trie_bytes) throw InputError("{} has {} bytes and no trie", where_, blob.size());
  std::memcpy(&trie_bytes, blob.data(), sizeof trie_bytes);
  if (trie_bytes % 4 != 0 || trie_bytes == 0 || trie_bytes > blob.size() - sizeof trie_bytes) {
    throw InputError("{}: the trie has {} bytes; expected a multiple of 4 up to {}", where_, trie_bytes,
                     blob.size() - sizeof trie_bytes);
  }
  trie_.resize(trie_bytes / 4);
  std::memcpy(trie_.data(), blob.data() + sizeof trie_bytes, trie_bytes);
  texts_ = blob.substr(sizeof trie_bytes + trie_bytes);
  if (const auto bad = find_invalid_utf8(texts_)) {
    throw InputError("{}: the texts are not valid UTF-8 at byte {}", where_, *bad);
  }
}

std::uint32_t CharsMap::unit(std::size_t at) const {
  if (at >= trie_.size()) throw InputError("{}: the trie is damaged", where_);
  return trie_[at];
}

std::optional<std::string_view> CharsMap::find(std::string_view text) const {
  std::size_t node = offset_of(unit(0));
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte == 0) break;
    node ^= byte;
    const std::uint32_t here = unit(node);
    if (label_of(here) != byte) break;
    node ^= offset_of(here);
    if (!has_leaf(here)) continue;
    const std::size_t begin = value_of(unit(node));
    if (begin > texts_.size() || (begin < texts_.size() && continues_character(texts_[begin]))) {
      throw InputError("{}: the trie is damaged", where_);
    }
    const std::string_view rest = std::string_view(texts_).substr(begin);
    return rest.substr(0, rest.find('\0'));
  }
  return std::nullopt;
}

std::string CharsMap::normalize(std::string_view text) const {
  std::string normal;
  while (!text.empty()) {
    std::string_view cluster = text.substr(0, first_grapheme(text));
    text.remove_prefix(cluster.size());
    if (cluster.size() < cluster_limit) {
      if (const auto whole = find(cluster)) {
        normal += *whole;
        continue;
      }
    }
    while (!cluster.empty()) {
      const std::string_view character = cluster.substr(0, first_code_point(cluster).size);
      normal += find(character).value_or(character);
      cluster.remove_prefix(character.size());
    }
  }
  return normal;
}

}  // namespace mezzo
