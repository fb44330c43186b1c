#include "mezzo/core/shuffle.h"

#include <numeric>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/core/philox.h"

namespace mezzo {
namespace {

/// The stream of words that one epoch's shuffle draws from.
class WordStream {
 public:
  WordStream(std::uint64_t seed, std::uint64_t epoch)
      : key_(philox_key(seed)),
        counter_{{0, static_cast<std::uint32_t>(epoch), static_cast<std::uint32_t>(epoch >> 32),
                  static_cast<std::uint32_t>(Purpose::shuffle)}} {}

  std::uint32_t next() {
    if (used_ == 4) {
      words_ = philox4x32_10(counter_, key_);
      ++counter_.word[0];
      used_ = 0;
    }
    return words_.word[used_++];
  }

  /// Uniform on 0 .. bound - 1: the high half of word * bound; the words that would favour some results are
  /// redrawn.
  std::uint32_t below(std::uint32_t bound) {
    std::uint64_t product = std::uint64_t{next()} * bound;
    if (static_cast<std::uint32_t>(product) < bound) {
      const std::uint32_t threshold = (0u - bound) % bound;  // 2^32 mod bound
      while (static_cast<std::uint32_t>(product) < threshold) product = std::uint64_t{next()} * bound;
    }
    return static_cast<std::uint32_t>(product >> 32);
  }

 private:
  PhiloxKey key_;
  PhiloxWords counter_;
  PhiloxWords words_{};
  int used_ = 4;
};

}  // namespace

std::vector<std::uint32_t> shuffled_order(std::uint64_t data_seed, std::uint64_t epoch, std::uint64_t n) {
  if (n > UINT32_MAX) throw Error("cannot shuffle {} examples: expected fewer than 2^32", n);
  std::vector<std::uint32_t> order(n);
  std::iota(order.begin(), order.end(), 0u);
  WordStream words(data_seed, epoch);
  for (std::uint64_t i = n; i-- > 1;)
    std::swap(order[i], order[words.below(static_cast<std::uint32_t>(i + 1))]);
  return order;
}

}  // namespace mezzo
