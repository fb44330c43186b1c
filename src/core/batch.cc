#include "mezzo/core/batch.h"

#include <algorithm>

namespace mezzo {

BatchShape shape_of(const PackedBatch& batch) {
  BatchShape shape{.tokens = batch.token_count(),
                   .sequences = static_cast<std::int64_t>(batch.offsets.size()) - 1,
                   .reads = static_cast<std::int64_t>(batch.reads.size()),
                   .questions = static_cast<std::int64_t>(batch.question_tokens.size())};
  for (std::int64_t s = 0; s < shape.sequences; ++s) {
    shape.longest = std::max<std::int64_t>(shape.longest, batch.offsets[s + 1] - batch.offsets[s]);
  }
  return shape;
}

BatchShape largest_of(const BatchShape& a, const BatchShape& b) {
  return {.tokens = std::max(a.tokens, b.tokens),
          .sequences = std::max(a.sequences, b.sequences),
          .reads = std::max(a.reads, b.reads),
          .questions = std::max(a.questions, b.questions),
          .longest = std::max(a.longest, b.longest),
          .mixed = a.leaves_rows_unread() || b.leaves_rows_unread()};
}

}  // namespace mezzo
