#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace mezzo {

/// Notices a rank that takes clearly longer for its work than the others for theirs.
class SpeedWatch {
 public:
  static constexpr std::size_t window = 20;  ///< steps
  static constexpr double clearly = 1.5;     ///< times the median rank

  struct SlowRank {
    int rank = 0;
    double factor = 0.0;  ///< times the median rank, in the middle one of the window's steps
  };

  /// One step: the seconds of each rank's work, and what the work was, in any unit (0: the rank had none).
  /// The slowest rank once a window has passed in which it was clearly slower; after that never again.
  std::optional<SlowRank> see(std::span<const double> seconds, std::span<const std::int64_t> loads);

 private:
  std::vector<std::vector<double>> factors_;  ///< [rank][steps of the window so far]
  bool noticed_ = false;
};

}  // namespace mezzo
