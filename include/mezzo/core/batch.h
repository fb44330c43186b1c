#pragma once
// What the data layer hands to the model: sequences packed without padding, and what a loss reads of them.
#include <cstdint>
#include <vector>

namespace mezzo {

/// Several sequences packed one after another: T tokens, S sequences, R loss rows, Q targets in those rows.
/// All probes see the same tokens, or each its own (what it generated) in sequences of the same lengths.
struct PackedBatch {
  /// How many probes have tokens and target tokens of their own, one probe's behind the other's; 0: all share
  /// one. The rest of the batch is the same for all, but for what a step of decoding has.
  std::int64_t probes = 0;
  std::vector<std::int32_t> tokens;     ///< [T], or [probes][T]
  std::vector<std::int32_t> positions;  ///< [T] place in its own sequence, from 0; of decoding [probes][T]
  std::vector<std::int32_t> offsets;    ///< [S + 1] sequence s is tokens [offsets[s], offsets[s + 1])
  std::vector<std::int32_t> loss_rows;  ///< [R] ascending rows whose next-token distribution is read
  /// Target j asks for log p(target_tokens[j] | row loss_rows[target_rows[j]]).
  std::vector<std::int32_t> target_rows;    ///< [Q] index into loss_rows
  std::vector<std::int32_t> target_tokens;  ///< [Q], or [probes][Q], token ids

  // ---- of generation; all empty where there is none. In place of target tokens, next tokens are chosen.
  /// [T] the row of the cache's prompts that a token's keys and values go to. Of decoding [probes][T], the
  /// row of its slot; -1: the slot is idle, and what is computed for it means nothing.
  std::vector<std::int32_t> cache_rows{};
  /// [probes][T] of decoding alone: the prompt behind whose rows [begin, begin + length) of the cache the row
  /// goes on.
  std::vector<std::int32_t> prompt_begins{}, prompt_lengths{};
  std::vector<std::int32_t> draw_keys{};    ///< [Q][2] of target j the words of draw_key(), low first
  std::vector<std::int32_t> draw_places{};  ///< [Q] which new token of its completion target j is, from 0

  /// Whether row t is one token more of the sequence in slot t of the cache; else rows are whole sequences.
  /// `offsets` then are those of blocks of rows, of which each is apart: Backend::keep_apart().
  bool decodes() const { return !prompt_begins.empty(); }
  std::int64_t copies() const { return probes > 0 ? probes : 1; }
  std::int64_t token_count() const { return static_cast<std::int64_t>(tokens.size()) / copies(); }
};

/// The sizes of a cache of keys and values.
struct CacheShape {
  std::int64_t prompt_rows = 0;  ///< tokens of prompts
  std::int64_t slots = 0;        ///< sequences that a probe writes at once
  std::int64_t new_tokens = 0;   ///< that a sequence goes on with at most

  bool operator==(const CacheShape&) const = default;
  explicit operator bool() const { return slots > 0; }
};
CacheShape largest_of(const CacheShape& a, const CacheShape& b);

/// The sizes that decide how much memory a forward needs.
struct BatchShape {
  std::int64_t tokens = 0;     ///< T
  std::int64_t sequences = 0;  ///< S
  std::int64_t loss_rows = 0;  ///< R
  std::int64_t targets = 0;    ///< Q
  std::int64_t longest = 0;    ///< tokens of the longest sequence
  bool mixed = false;          ///< a maximum over shapes of which some leave rows unread
  /// Where the sequences are prompts of a generation; `longest` then counts the new tokens, too.
  CacheShape cache = {};

  /// Whether the last layer keeps the rows that are read apart from the others, which takes more memory.
  bool has_rows_without_loss() const { return mixed || loss_rows < tokens; }
};

BatchShape shape_of(const PackedBatch& batch);
/// A shape for whose forward the memory suffices for both: the elementwise maximum.
BatchShape largest_of(const BatchShape& a, const BatchShape& b);

}  // namespace mezzo
