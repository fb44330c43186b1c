#include "mezzo/data/stream.h"

#include <utility>

#include "mezzo/core/shuffle.h"

namespace mezzo {

namespace {
// The choice of examples is a shuffle of its own, apart from every epoch's.
constexpr std::uint64_t choice_epoch = ~std::uint64_t{0};
}  // namespace

ExampleStream::ExampleStream(std::vector<Example> examples, std::uint64_t data_seed, std::int64_t limit)
    : data_seed_(data_seed) {
  const auto count = examples.size();
  if (limit <= 0 || static_cast<std::size_t>(limit) >= count) {
    examples_ = std::move(examples);
    return;
  }
  const std::vector<std::uint32_t> order = shuffled_order(data_seed, choice_epoch, count);
  for (std::size_t i = 0; i < static_cast<std::size_t>(limit); ++i)
    examples_.push_back(std::move(examples[order[i]]));
}

std::vector<const Example*> ExampleStream::at(std::uint64_t first, std::int64_t count) const {
  const std::uint64_t n = examples_.size();
  std::vector<const Example*> batch;
  for (std::uint64_t i = first; i < first + static_cast<std::uint64_t>(count); ++i) {
    const std::uint64_t epoch = i / n;
    if (epoch != cached_epoch_ || order_.empty()) {
      order_ = shuffled_order(data_seed_, epoch, n);
      cached_epoch_ = epoch;
    }
    batch.push_back(&examples_[order_[i % n]]);
  }
  return batch;
}

}  // namespace mezzo
