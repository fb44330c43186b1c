#include "mezzo/data/byte_pair_encoding.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/core/utf8.h"
#include "mezzo/data/unicode.h"
#include "mezzo/io/json_file.h"

namespace mezzo {
namespace {

using Json = nlohmann::json;

constexpr char32_t low_limit = 0x180;  // above the byte-level alphabet

/// The merges as ids. They are written as ["a", "b"], or as "a b" in files of before 2024.
std::vector<BytePairEncoding::Merge> read_merges(const JsonCursor& model, const Vocabulary& vocabulary,
                                                 const std::string& prefix) {
  const JsonCursor field = model["merges"];
  if (!field.value().is_array()) field.fail("a list of pairs of tokens");
  std::vector<BytePairEncoding::Merge> merges;
  merges.reserve(field.value().size());
  for (std::size_t i = 0; i < field.value().size(); ++i) {
    const Json& entry = field.value()[i];
    const auto fail = [&](std::string_view what) { throw InputError("{}[{}] {}", field.where(), i, what); };
    std::string left, right;
    if (entry.is_string()) {
      const auto& text = entry.get_ref<const std::string&>();
      if (text.starts_with("#version")) continue;  // the first line of a merges.txt
      const std::size_t space = text.find(' ');
      if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
        fail(fmt::format("is {}; expected two tokens with one space between them", quote(text)));
      }
      left = text.substr(0, space);
      right = text.substr(space + 1);
    } else if (entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string()) {
      left = entry[0].get_ref<const std::string&>();
      right = entry[1].get_ref<const std::string&>();
    } else {
      fail("is no merge; expected [\"a\", \"b\"] or \"a b\"");
    }
    const auto id = [&](const std::string& token) {
      const auto found = vocabulary.find(token);
      if (!found) fail(fmt::format("needs the token {}, which is not in model.vocab", quote(token)));
      return *found;
    };
    // The right one is written with the prefix that it has behind others.
    const std::size_t hidden = right.size() < prefix.size() ? 0 : prefix.size();
    merges.push_back({id(left), id(right), id(left + right.substr(hidden))});
  }
  return merges;
}

}  // namespace

BytePairEncoding::MergeTable::MergeTable(const std::vector<Merge>& merges) {
  const std::size_t capacity = std::bit_ceil(2 * merges.size() + 2);
  shift_ = 64 - std::countr_zero(capacity);
  entries_.resize(capacity);
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const std::uint64_t pair = key(merges[rank].left, merges[rank].right);
    entries_[slot_of(pair)] = {pair, static_cast<std::uint32_t>(rank), merges[rank].result};
  }
}

std::uint64_t BytePairEncoding::MergeTable::key(std::int32_t left, std::int32_t right) {
  return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
}

/// The slot that holds `pair`, or the empty one where it would stand.
std::size_t BytePairEncoding::MergeTable::slot_of(std::uint64_t pair) const {
  std::size_t slot = (pair * 0x9E3779B97F4A7C15) >> shift_;  // Fibonacci hashing
  while (entries_[slot].pair != pair && entries_[slot].pair != empty)
    slot = (slot + 1) & (entries_.size() - 1);
  return slot;
}

const BytePairEncoding::MergeTable::Entry* BytePairEncoding::MergeTable::find(std::int32_t left,
                                                                              std::int32_t right) const {
  const Entry& entry = entries_[slot_of(key(left, right))];
  return entry.pair == empty ? nullptr : &entry;
}

BytePairEncoding::BytePairEncoding(Vocabulary vocabulary, const std::vector<Merge>& merges, Options options)
    : vocabulary_(std::move(vocabulary)),
      options_(std::move(options)),
      has_affixes_(!options_.continuing_prefix.empty() || !options_.end_suffix.empty()),
      low_characters_(low_limit),
      merges_(merges) {
  for (char32_t c = 0; c < low_limit; ++c) {
    std::string text;
    append_utf8(text, c);
    low_characters_[c] = vocabulary_.find(text);
  }
  if (options_.byte_fallback) fallback_ids_ = vocabulary_.fallback_ids();
}

std::optional<std::int32_t> BytePairEncoding::token_of(std::string_view character, char32_t value,
                                                       bool is_first, bool is_last) const {
  if (!has_affixes_) return value < low_limit ? low_characters_[value] : vocabulary_.find(character);
  std::string text(character);
  if (!is_first) text.insert(0, options_.continuing_prefix);
  if (is_last) text += options_.end_suffix;
  return vocabulary_.find(text);
}

/// The tokens of a piece's characters, before any merge.
void BytePairEncoding::start(std::string_view piece, std::vector<std::int32_t>& characters) const {
  characters.clear();
  // Hugging Face writes the unknown token when a known character or the end follows, and bytes in between
  // come before it.
  bool is_pending = false;
  const auto flush = [&] {
    if (std::exchange(is_pending, false)) characters.push_back(*options_.unknown);
  };
  for (std::size_t at = 0; at < piece.size();) {
    const CodePoint c = first_code_point(piece.substr(at));
    const std::string_view character = piece.substr(at, c.size);
    const bool is_first = at == 0;
    at += c.size;
    if (const auto id = token_of(character, c.value, is_first, at == piece.size())) {
      flush();
      characters.push_back(*id);
      continue;
    }
    if (options_.byte_fallback && append_fallback(fallback_ids_, character, characters)) continue;
    if (!options_.unknown) {
      throw InputError("{} has no token for the character {} (U+{:04X}), and there is no unknown token",
                       vocabulary_.where(), quote(character), static_cast<std::uint32_t>(c.value));
    }
    if (!options_.fuse_unknown) flush();
    is_pending = true;
  }
  flush();
}

void BytePairEncoding::encode(std::string_view piece, Workspace& workspace,
                              std::vector<std::int32_t>& ids) const {
  if (piece.size() >= std::numeric_limits<std::uint32_t>::max()) {
    throw InputError("a piece of {} bytes cannot be encoded; at most 4 GiB less 2 bytes can", piece.size());
  }
  if (options_.ignore_merges) {
    if (const auto whole = vocabulary_.find(piece)) return ids.push_back(*whole);
  }
  auto& symbols = workspace.symbols;
  auto& queue = workspace.queue;
  start(piece, workspace.characters);
  const auto count = static_cast<std::uint32_t>(workspace.characters.size());
  symbols.resize(count);
  queue.clear();

  const auto entry = [](std::uint32_t rank, std::uint32_t left) { return std::uint64_t{rank} << 32 | left; };
  for (std::uint32_t i = 0; i < count; ++i) {
    symbols[i] = {workspace.characters[i], i == 0 ? 0 : i - 1, i + 1};
    if (i == 0) continue;
    if (const auto* merge = merges_.find(symbols[i - 1].id, symbols[i].id))
      queue.push_back(entry(merge->rank, i - 1));
  }
  std::make_heap(queue.begin(), queue.end(), std::greater<>());

  const auto push = [&](std::uint32_t left, std::uint32_t right) {
    if (const auto* merge = merges_.find(symbols[left].id, symbols[right].id)) {
      queue.push_back(entry(merge->rank, left));
      std::push_heap(queue.begin(), queue.end(), std::greater<>());
    }
  };
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), std::greater<>());
    const std::uint64_t lowest = queue.back();
    queue.pop_back();
    ++workspace.steps;

    // The neighbours may have changed since: a symbol only ever grows, so that another pair has another rank.
    const auto left = static_cast<std::uint32_t>(lowest);
    if (symbols[left].id < 0 || symbols[left].next == count) continue;
    const std::uint32_t right = symbols[left].next;
    const auto* merge = merges_.find(symbols[left].id, symbols[right].id);
    if (merge == nullptr || merge->rank != lowest >> 32) continue;

    symbols[left].id = merge->result;
    symbols[left].next = symbols[right].next;
    symbols[right].id = -1;
    if (symbols[left].next != count) {
      symbols[symbols[left].next].previous = left;
      push(left, symbols[left].next);
    }
    if (left != 0) push(symbols[left].previous, left);
  }
  for (std::uint32_t i = 0; i < count; i = symbols[i].next) ids.push_back(symbols[i].id);
}

BytePairEncoding BytePairEncoding::read(const JsonCursor& model, Vocabulary vocabulary) {
  if (const JsonCursor dropout = model["dropout"]; !dropout.is_unset() && dropout.value() != 0)
    dropout.refuse("null");
  Options options{.ignore_merges = model["ignore_merges"].boolean_or(false),
                  .byte_fallback = model["byte_fallback"].boolean_or(false),
                  .unknown = vocabulary.find(model["unk_token"].text_or("")),
                  .fuse_unknown = model["fuse_unk"].boolean_or(false),
                  .continuing_prefix = model["continuing_subword_prefix"].text_or(""),
                  .end_suffix = model["end_of_word_suffix"].text_or("")};
  const std::vector<Merge> merges = read_merges(model, vocabulary, options.continuing_prefix);
  return {std::move(vocabulary), merges, std::move(options)};
}

}  // namespace mezzo
