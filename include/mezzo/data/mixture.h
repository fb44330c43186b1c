#pragma once
// Which of several files each position of the stream of examples is from.
#include <cstdint>
#include <vector>

namespace mezzo {

/// A pure function of (weights, data seed, position). Of each block of `block` positions a file has
/// block weight / (sum of weights) of them, rounded by largest remainders; a shuffle by (data seed, block)
/// says which. So any position is found without those before it, and over whole blocks each file's part is
/// exact.
class Mixture {
 public:
  /// `weights`: > 0, one a file. A file whose part rounds to nothing gets one position a block.
  Mixture(const std::vector<double>& weights, std::uint64_t data_seed);

  struct Draw {
    std::size_t file;
    std::uint64_t index;  ///< how many positions before this one are this file's
  };
  Draw at(std::uint64_t position) const;
  /// Positions a block that are file `file`'s.
  std::uint32_t share(std::size_t file) const { return shares_[file]; }

  static constexpr std::uint32_t block = 1u << 16;

 private:
  std::vector<std::uint32_t> shares_;
  std::uint64_t seed_;
  struct Place {
    std::uint32_t file;
    std::uint32_t before;  ///< of the same file in the block
  };
  mutable std::uint64_t cached_block_ = ~std::uint64_t{0};  ///< places_ belong to it; a cache, not state
  mutable std::vector<Place> places_;
};

/// The seed of the k-th shuffle that data files need besides that of a run's one file: 0 is the mixture's, 1
/// + f file f's own.
std::uint64_t data_file_seed(std::uint64_t data_seed, std::uint64_t k);

}  // namespace mezzo
