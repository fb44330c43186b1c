#include "mezzo/data/byte_pair_encoding.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "mezzo/core/error.h"

namespace mezzo {

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

BytePairEncoding::BytePairEncoding(const std::vector<Token>& tokens, const std::vector<Merge>& merges,
                                   bool ignore_merges, std::string where)
    : where_(std::move(where)), merges_(merges) {
  token_of_byte_.fill(-1);
  for (const Token& token : tokens) {
    if (token.bytes.size() == 1) token_of_byte_[static_cast<unsigned char>(token.bytes[0])] = token.id;
    if (ignore_merges) token_of_piece_.emplace(token.bytes, token.id);
  }
}

void BytePairEncoding::encode(std::string_view piece, Workspace& workspace,
                              std::vector<std::int32_t>& ids) const {
  if (piece.size() >= std::numeric_limits<std::uint32_t>::max()) {
    throw InputError("a piece of {} bytes cannot be encoded; at most 4 GiB less 2 bytes can", piece.size());
  }
  if (const auto whole = token_of_piece_.find(piece); whole != token_of_piece_.end()) {
    return ids.push_back(whole->second);
  }
  const auto count = static_cast<std::uint32_t>(piece.size());
  auto& symbols = workspace.symbols;
  auto& queue = workspace.queue;
  symbols.resize(count);
  queue.clear();

  const auto entry = [](std::uint32_t rank, std::uint32_t left) { return std::uint64_t{rank} << 32 | left; };
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto byte = static_cast<unsigned char>(piece[i]);
    symbols[i] = {token_of_byte_[byte], i == 0 ? 0 : i - 1, i + 1};
    if (symbols[i].id < 0) throw InputError("{} has no token for the byte 0x{:02X}", where_, byte);
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

}  // namespace mezzo
