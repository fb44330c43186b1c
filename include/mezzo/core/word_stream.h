#pragma once
// A sequence of random words, for host code that does not know beforehand how many it needs (shuffles,
// sampling).
#include <cstdint>

#include "mezzo/core/philox.h"

namespace mezzo {

/// The words of Philox with key = seed and counter = (block, index low, index high, purpose), block = 0, 1,
/// ..., the four of a block in order. Ends (begins anew) after 2^34 words.
class WordStream {
 public:
  WordStream(std::uint64_t seed, std::uint64_t index, Purpose purpose)
      : key_(philox_key(seed)),
        counter_{{0, static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                  static_cast<std::uint32_t>(purpose)}} {}

  std::uint32_t next() {
    if (used_ == 4) {
      words_ = philox4x32_10(counter_, key_);
      ++counter_.word[0];
      used_ = 0;
    }
    return words_.word[used_++];
  }

  /// Uniform on 0 .. bound - 1, without bias; bound >= 1. The high half of word * bound, where the words that
  /// would make some results likelier are drawn again (Lemire 2019, arXiv:1805.10941).
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

}  // namespace mezzo
