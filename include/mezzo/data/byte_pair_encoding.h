#pragma once
// Byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909) over characters: a piece of text starts as one
// token a character, and as long as two neighbours have a merge, the merge of lowest rank is carried out, the
// leftmost first. Byte-level models get each byte as a character (byte_level.h).
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "mezzo/data/vocabulary.h"

namespace mezzo {

/// Immutable: one may serve several threads, each with a Workspace of its own.
class BytePairEncoding {
 public:
  struct Merge {
    std::int32_t left;
    std::int32_t right;
    std::int32_t result;
  };
  struct Options {
    bool ignore_merges = false;  ///< a piece that is a token is that token, whatever the merges say
    bool byte_fallback = false;  ///< characters without a token become <0x..> tokens
    std::optional<std::int32_t> unknown{};  ///< for characters that have no token then
    bool fuse_unknown = false;              ///< one for several in a row
    std::string continuing_prefix{};        ///< of tokens that do not start a piece
    std::string end_suffix{};               ///< of tokens that end a piece
  };
  /// Memory that calls of encode() share.
  struct Workspace {
    struct Symbol {
      std::int32_t id;         ///< -1: merged into the symbol before it
      std::uint32_t previous;  ///< index of the symbol on the left; its own for the first
      std::uint32_t next;      ///< index of the symbol on the right; the count for the last
    };
    std::vector<std::int32_t> characters;  ///< the tokens that a piece starts as
    std::vector<Symbol> symbols;
    std::vector<std::uint64_t> queue;  ///< a heap of (rank << 32 | index of the left symbol), lowest first
    std::uint64_t steps = 0;           ///< entries taken from the queue, over all calls
  };

  /// `merges` in the order of their ranks; of two for one pair the later one counts.
  BytePairEncoding(Vocabulary vocabulary, const std::vector<Merge>& merges, Options options);
  /// The `model` of a tokenizer.json, whose vocabulary is read. InputError for what is not served.
  static BytePairEncoding read(const JsonCursor& model, Vocabulary vocabulary);

  /// Appends the ids of `piece` (valid UTF-8) to `ids`, in O(n log n) steps and some 24 bytes a character.
  /// InputError for a character that nothing stands for, and for 4 GiB or more.
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

  std::optional<std::int32_t> token_of(std::string_view character, char32_t value, bool is_first,
                                       bool is_last) const;
  void start(std::string_view piece, std::vector<std::int32_t>& characters) const;

  Vocabulary vocabulary_;
  Options options_;
  bool has_affixes_;
  std::vector<std::optional<std::int32_t>> low_characters_;  ///< tokens of the first characters of Unicode
  std::vector<std::optional<std::int32_t>> fallback_ids_;
  MergeTable merges_;
};

}  // namespace mezzo
