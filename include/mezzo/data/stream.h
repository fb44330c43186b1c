#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "mezzo/data/task.h"

namespace mezzo {

/// The endless stream of training examples: example i is order(i div n)[i mod n], order(epoch) a shuffle by
/// (data seed, epoch). A pure function of (data seed, i), so that any rank at any time sees the same batch.
class ExampleStream {
 public:
  /// Keeps the first `limit` examples (0: all) of a shuffle by data seed.
  ExampleStream(std::vector<Example> examples, std::uint64_t data_seed, std::int64_t limit);

  std::int64_t size() const { return static_cast<std::int64_t>(examples_.size()); }
  std::span<const Example> examples() const { return examples_; }
  /// Examples [first, first + count) of the stream.
  std::vector<const Example*> at(std::uint64_t first, std::int64_t count) const;

 private:
  std::vector<Example> examples_;
  std::uint64_t data_seed_;
  mutable std::uint64_t cached_epoch_ = ~std::uint64_t{0};  ///< order_ belongs to it; a cache, not state
  mutable std::vector<std::uint32_t> order_;
};

}  // namespace mezzo
