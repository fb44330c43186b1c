#pragma once
// What the data layer hands to the model: sequences packed without padding, and what a loss reads of them.
#include <cstdint>
#include <vector>

namespace mezzo {

/// Several sequences packed one after another: T tokens, S sequences, R loss rows, Q targets in those rows.
/// All probes see the same tokens, or each its own (what it generated) in sequences of the same lengths.
struct PackedBatch {
  /// How many probes have tokens and target tokens of their own, one probe's behind the other's; 0: all share
  /// one. The rest of the batch is the same for all.
  std::int64_t probes = 0;
  std::vector<std::int32_t> tokens;     ///< [T], or [probes][T]
  std::vector<std::int32_t> positions;  ///< [T] place in its own sequence, from 0
  std::vector<std::int32_t> offsets;    ///< [S + 1] sequence s is tokens [offsets[s], offsets[s + 1])
  std::vector<std::int32_t> loss_rows;  ///< [R] ascending rows whose next-token distribution is read
  /// Target j asks for log p(target_tokens[j] | row loss_rows[target_rows[j]]).
  std::vector<std::int32_t> target_rows;    ///< [Q] index into loss_rows
  std::vector<std::int32_t> target_tokens;  ///< [Q], or [probes][Q], token ids

  std::int64_t copies() const { return probes > 0 ? probes : 1; }
  std::int64_t token_count() const { return static_cast<std::int64_t>(tokens.size()) / copies(); }
};

/// The sizes that decide how much memory a forward needs.
struct BatchShape {
  std::int64_t tokens = 0;     ///< T
  std::int64_t sequences = 0;  ///< S
  std::int64_t loss_rows = 0;  ///< R
  std::int64_t targets = 0;    ///< Q
  std::int64_t longest = 0;    ///< tokens of the longest sequence
  bool mixed = false;          ///< a maximum over shapes of which some leave rows unread

  /// Whether the last layer keeps the rows that are read apart from the others, which takes more memory.
  bool has_rows_without_loss() const { return mixed || loss_rows < tokens; }
};

BatchShape shape_of(const PackedBatch& batch);
/// A shape for whose forward the memory suffices for both: the elementwise maximum.
BatchShape largest_of(const BatchShape& a, const BatchShape& b);

}  // namespace mezzo
