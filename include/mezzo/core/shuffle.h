#pragma once
// The order in which examples are seen: a pure function of (data seed, epoch).
#include <cstdint>
#include <vector>

namespace mezzo {

/// A uniformly random permutation of 0 .. n - 1: Fisher and Yates from the top down, place i = n - 1 .. 1
/// swapped with place below(i + 1) of WordStream(data_seed, epoch, Purpose::shuffle). `n` of 2^32 or more is
/// an Error.
std::vector<std::uint32_t> shuffled_order(std::uint64_t data_seed, std::uint64_t epoch, std::uint64_t n);

}  // namespace mezzo
