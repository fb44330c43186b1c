#include "mezzo/data/mixture.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "mezzo/core/error.h"
#include "mezzo/core/shuffle.h"
#include "mezzo/core/word_stream.h"

namespace mezzo {

std::uint64_t data_file_seed(std::uint64_t data_seed, std::uint64_t k) {
  WordStream words(data_seed, k, Purpose::data_file);
  const std::uint64_t low = words.next();
  return low | std::uint64_t{words.next()} << 32;
}

Mixture::Mixture(const std::vector<double>& weights, std::uint64_t data_seed)
    : seed_(data_file_seed(data_seed, 0)) {
  if (weights.empty() || weights.size() > block / 2)
    throw Error("a mixture of {} files, expected 1 to {}", weights.size(), block / 2);
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<double> remainders;
  std::int64_t left = block;
  for (const double weight : weights) {
    const double exact = weight / sum * block;
    shares_.push_back(std::max(1u, static_cast<std::uint32_t>(exact)));
    remainders.push_back(exact - std::floor(exact));
    left -= shares_.back();
  }
  std::vector<std::size_t> order(weights.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order,
                           [&](std::size_t a, std::size_t b) { return remainders[a] > remainders[b]; });
  for (std::size_t i = 0; left > 0; i = (i + 1) % order.size(), --left) ++shares_[order[i]];
  // What small files were given is taken from the largest.
  for (; left < 0; ++left) --*std::ranges::max_element(shares_);
}

Mixture::Draw Mixture::at(std::uint64_t position) const {
  if (shares_.size() == 1) return {0, position};
  const std::uint64_t index = position / block;
  if (index != cached_block_ || places_.empty()) {
    const std::vector<std::uint32_t> order = shuffled_order(seed_, index, block);
    places_.assign(block, {});
    std::vector<std::uint32_t> ends(shares_.size());
    std::partial_sum(shares_.begin(), shares_.end(), ends.begin());
    std::vector<std::uint32_t> seen(shares_.size());
    for (std::uint32_t i = 0; i < block; ++i) {
      const auto file = static_cast<std::uint32_t>(std::ranges::upper_bound(ends, order[i]) - ends.begin());
      places_[i] = {file, seen[file]++};
    }
    cached_block_ = index;
  }
  const Place place = places_[position % block];
  return {place.file, index * shares_[place.file] + place.before};
}

}  // namespace mezzo
