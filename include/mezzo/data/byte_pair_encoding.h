#pragma once
// Byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909) over bytes: a piece of text starts as one token
// a byte, and as long as two neighbours have a merge, the merge of lowest rank is carried out, the leftmost
// first.
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace mezzo {

/// Immutable: one may serve several threads, each with a Workspace of its own.
class BytePairEncoding {
 public:
  struct Token {
    std::string bytes;
    std::int32_t id;  ///< >= 0
  };
  struct Merge {
    std::int32_t left;
    std::int32_t right;
    std::int32_t result;
  };
  /// Memory that calls of encode() share.
  struct Workspace {
    struct Symbol {
      std::int32_t id;         ///< -1: merged into the symbol before it
      std::uint32_t previous;  ///< index of the symbol on the left; its own for the first
      std::uint32_t next;      ///< index of the symbol on the right; the count for the last
    };
    std::vector<Symbol> symbols;
    std::vector<std::uint64_t> queue;  ///< a heap of (rank << 32 | index of the left symbol), lowest first
    std::uint64_t steps = 0;           ///< entries taken from the queue, over all calls
  };

  /// `tokens`: bytes are unique, and so are ids. `merges` in the order of their ranks; of two for one pair
  /// the later one counts. With `ignore_merges` a piece that is a token is that token, whatever the merges
  /// say. `where` names the vocabulary in messages.
  BytePairEncoding(const std::vector<Token>& tokens, const std::vector<Merge>& merges, bool ignore_merges,
                   std::string where);

  /// Whether the byte has a token.
  bool knows(unsigned char byte) const { return token_of_byte_[byte] >= 0; }

  /// Appends the ids of `piece` to `ids`, in O(n log n) steps and 20 bytes a byte. InputError for a byte
  /// without a token and for 4 GiB or more.
  void encode(std::string_view piece, Workspace& workspace, std::vector<std::int32_t>& ids) const;

 private:
  /// Ranks and results by pair: open addressing, at most half full, since looking up pairs is what encoding
  /// does.
  class MergeTable {
   public:
    struct Entry {
      std::uint64_t pair = empty;
      std::uint32_t rank = 0;
      std::int32_t result = 0;
    };
    explicit MergeTable(const std::vector<Merge>& merges);
    /// Null when the pair has no merge.
    const Entry* find(std::int32_t left, std::int32_t right) const;

   private:
    static constexpr std::uint64_t empty = ~std::uint64_t{0};  // ids are not negative
    static std::uint64_t key(std::int32_t left, std::int32_t right);
    std::size_t slot_of(std::uint64_t pair) const;
    std::vector<Entry> entries_;
    int shift_ = 63;
  };

  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;  // no copy of a piece to look it up
  };

  std::string where_;
  std::array<std::int32_t, 256> token_of_byte_;  ///< -1: none
  std::unordered_map<std::string, std::int32_t, Hash, std::equal_to<>>
      token_of_piece_;  ///< with ignore_merges only
  MergeTable merges_;
};

}  // namespace mezzo
