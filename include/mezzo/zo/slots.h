#pragma once
// Slots: the results of (probe, slice) as 64-bit words, so that an integer sum over ranks with one writer a
// word keeps every bit (NaN and -0 included) whatever the order of the reduction.
#include <bit>
#include <cstdint>
#include <span>
#include <vector>

#include "mezzo/backend/probes.h"
#include "mezzo/zo/estimator.h"

namespace mezzo {

/// Words of one step: the slots, then a few words of control (one writer each as well).
class SlotTable {
 public:
  SlotTable(std::int64_t probes, std::int64_t slices, int ranks);
  static std::int64_t words_of(std::int64_t probes, std::int64_t slices, int ranks) {
    return 4 * probes * slices + 3 * ranks;
  }

  void clear();
  void set(std::int64_t probe, std::int64_t slice, std::uint64_t seed, double loss_sum, double weight);
  /// Asks every rank to stop after this step.
  void set_stop(int rank) { words_[control(rank)] = 1; }
  /// This rank's hash of the trainables before the step.
  void set_hash(int rank, std::uint64_t hash) { words_[control(rank) + 1] = hash; }
  /// What this rank's evaluations took. Times decide nothing that bits depend on.
  void set_work_seconds(int rank, double seconds) {
    words_[control(rank) + 2] = std::bit_cast<std::uint64_t>(seconds);
  }

  std::span<std::uint64_t> words() { return words_; }

  // After the exchange:
  bool stop_requested() const;
  /// CommError naming the ranks whose hash differs from rank 0's.
  void check_hashes(std::int64_t step) const;
  /// Losses of each probe, slices added in order in fp64. CommError when a slot is missing, was written
  /// twice, or carries another seed than its probe: a rank is out of step.
  std::vector<ProbeLoss> losses(std::span<const Probe> probes, std::int64_t step) const;
  std::vector<double> work_seconds() const;  ///< of each rank

 private:
  /// The first control word of a rank.
  std::size_t control(int rank) const { return static_cast<std::size_t>(words_of(probes_, slices_, rank)); }

  std::int64_t probes_;
  std::int64_t slices_;
  int ranks_;
  std::vector<std::uint64_t>
      words_;  ///< [probes][slices][seed, loss sum, weight, status], [ranks][stop, hash, seconds]
};

/// Frozen: slots travel between processes. 0 is what an untouched word sums to.
enum class SlotStatus : std::uint64_t { absent = 0, good = 1, not_finite = 2 };

}  // namespace mezzo
