#pragma once
// The unigram language model (Kudo 2018, arXiv:1804.10959): of all ways to write a piece as tokens, the one
// with the largest sum of log-probabilities, found by Viterbi's algorithm.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "mezzo/data/vocabulary.h"

namespace mezzo {

/// Immutable: one may serve several threads, each with a Workspace of its own.
class Unigram {
 public:
  struct Workspace {
    struct Node {
      double score;
      std::size_t start;  ///< of the last token on the best path to here
      std::int32_t id;    ///< of that token; -1: no path yet
    };
    std::vector<Node> nodes;  ///< by byte offset
    std::vector<std::size_t> ends;
  };

  /// The `model` of a tokenizer.json, whose vocabulary is read. InputError for what is not served.
  static Unigram read(const JsonCursor& model, Vocabulary vocabulary);

  /// Appends the ids of `piece` (valid UTF-8) to `ids`: time grows with its length times the longest token's.
  /// A character without a token counts as the unknown token with the lowest score of all less 10; several in
  /// a row are one, or their bytes' tokens where there are such. InputError where nothing stands for it.
  void encode(std::string_view piece, Workspace& workspace, std::vector<std::int32_t>& ids) const;

 private:
  Unigram(Vocabulary vocabulary, std::vector<double> scores, std::optional<std::int32_t> unknown,
          bool byte_fallback);
  void append(std::string_view text, std::vector<std::int32_t>& ids) const;

  Vocabulary vocabulary_;
  std::vector<double> scores_;  ///< by id
  double unknown_score_;
  std::optional<std::int32_t> unknown_;
  std::vector<std::optional<std::int32_t>> fallback_ids_;   ///< empty: no fallback
  std::vector<std::int32_t> trie_ids_{-1};                  ///< by node: the token that ends there, or -1
  std::unordered_map<std::uint64_t, std::uint32_t> edges_;  ///< (node << 8 | byte) to the next node
};

}  // namespace mezzo
