#include "mezzo/core/shuffle.h"

#include <numeric>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/core/word_stream.h"

namespace mezzo {

std::vector<std::uint32_t> shuffled_order(std::uint64_t data_seed, std::uint64_t epoch, std::uint64_t n) {
  if (n > UINT32_MAX) throw Error("cannot shuffle {} examples: expected fewer than 2^32", n);
  std::vector<std::uint32_t> order(n);
  std::iota(order.begin(), order.end(), 0u);
  WordStream words(data_seed, epoch, Purpose::shuffle);
  for (std::uint64_t i = n; i-- > 1;) {
    std::swap(order[i], order[words.below(static_cast<std::uint32_t>(i + 1))]);
  }
  return order;
}

}  // namespace mezzo
