#include "mezzo/core/batch.h"

#include <algorithm>

namespace mezzo {

BatchShape shape_of(const PackedBatch& batch) {
  BatchShape shape{.tokens = batch.token_count(),
                   .sequences = static_cast<std::int64_t>(batch.offsets.size()) - 1,
                   .loss_rows = static_cast<std::int64_t>(batch.loss_rows.size()),
                   .targets = static_cast<std::int64_t>(batch.target_rows.size())};
  for (std::int64_t s = 0; s < shape.sequences; ++s) {
    shape.longest = std::max<std::int64_t>(shape.longest, batch.offsets[s + 1] - batch.offsets[s]);
  }
  return shape;
}

CacheShape largest_of(const CacheShape& a, const CacheShape& b) {
  return {.prompt_rows = std::max(a.prompt_rows, b.prompt_rows),
          .slots = std::max(a.slots, b.slots),
          .new_tokens = std::max(a.new_tokens, b.new_tokens)};
}

BatchShape largest_of(const BatchShape& a, const BatchShape& b) {
  return {.tokens = std::max(a.tokens, b.tokens),
          .sequences = std::max(a.sequences, b.sequences),
          .loss_rows = std::max(a.loss_rows, b.loss_rows),
          .targets = std::max(a.targets, b.targets),
          .longest = std::max(a.longest, b.longest),
          .mixed = a.has_rows_without_loss() || b.has_rows_without_loss(),
          .cache = largest_of(a.cache, b.cache)};
}

}  // namespace mezzo
