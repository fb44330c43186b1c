#pragma once
// What the data layer hands to the model: sequences packed without padding, and what a loss reads of them.
#include <cstdint>
#include <vector>

namespace mezzo {

/// Several sequences packed one after another. All probes of a step see the same batch.
/// T tokens, S sequences, R rows that a loss reads, Q questions asked of those rows.
struct PackedBatch {
  std::vector<std::int32_t> tokens;     ///< [T]
  std::vector<std::int32_t> positions;  ///< [T] place in its own sequence, from 0
  std::vector<std::int32_t> offsets;    ///< [S + 1] sequence s is tokens [offsets[s], offsets[s + 1])
  std::vector<std::int32_t> reads;      ///< [R] ascending rows whose next-token distribution is read
  /// Question j asks for log p(question_tokens[j] | row reads[question_reads[j]]).
  std::vector<std::int32_t> question_reads;   ///< [Q] index into reads
  std::vector<std::int32_t> question_tokens;  ///< [Q] token ids

  std::int64_t token_count() const { return static_cast<std::int64_t>(tokens.size()); }
};

/// The sizes that decide how much memory a forward needs.
struct BatchShape {
  std::int64_t tokens = 0;     ///< T
  std::int64_t sequences = 0;  ///< S
  std::int64_t reads = 0;      ///< R
  std::int64_t questions = 0;  ///< Q
  std::int64_t longest = 0;    ///< tokens of the longest sequence
  bool mixed = false;          ///< a maximum over shapes of which some leave rows unread

  /// Whether the last layer keeps the rows that are read apart from the others, which takes more memory.
  bool leaves_rows_unread() const { return mixed || reads < tokens; }
};

BatchShape shape_of(const PackedBatch& batch);
/// A shape for whose forward the memory suffices for both: the elementwise maximum.
BatchShape largest_of(const BatchShape& a, const BatchShape& b);

}  // namespace mezzo
