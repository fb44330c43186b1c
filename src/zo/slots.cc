#include "mezzo/zo/slots.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>

#include "mezzo/core/error.h"

namespace mezzo {

SlotTable::SlotTable(std::int64_t probes, std::int64_t slices, int ranks)
    : probes_(probes),
      slices_(slices),
      ranks_(ranks),
      words_(static_cast<std::size_t>(words_of(probes, slices, ranks))) {}

void SlotTable::clear() { std::fill(words_.begin(), words_.end(), 0); }

void SlotTable::set(std::int64_t probe, std::int64_t slice, std::uint64_t seed, double loss_sum,
                    double weight) {
  std::uint64_t* slot = &words_[static_cast<std::size_t>(4 * (probe * slices_ + slice))];
  slot[0] = seed;
  slot[1] = std::bit_cast<std::uint64_t>(loss_sum);
  slot[2] = std::bit_cast<std::uint64_t>(weight);
  slot[3] = static_cast<std::uint64_t>(std::isfinite(loss_sum) ? SlotStatus::good : SlotStatus::not_finite);
}

bool SlotTable::stop_requested() const {
  for (int rank = 0; rank < ranks_; ++rank) {
    if (words_[control(rank)] != 0) return true;
  }
  return false;
}

void SlotTable::check_hashes(std::int64_t step) const {
  const std::uint64_t expected = words_[control(0) + 1];
  std::string differing;
  for (int rank = 1; rank < ranks_; ++rank) {
    if (words_[control(rank) + 1] != expected) {
      differing += (differing.empty() ? "" : ", ") + std::to_string(rank);
    }
  }
  if (!differing.empty()) {
    throw CommError("before step {}: the trainables of rank {} differ from rank 0's", step, differing);
  }
}

std::vector<ProbeLoss> SlotTable::losses(std::span<const Probe> probes, std::int64_t step) const {
  std::vector<ProbeLoss> losses(probes.size());
  for (std::size_t p = 0; p < probes.size(); ++p) {
    for (std::int64_t slice = 0; slice < slices_; ++slice) {
      const std::uint64_t* slot =
          &words_[4 * (p * static_cast<std::size_t>(slices_) + static_cast<std::size_t>(slice))];
      const auto status = static_cast<SlotStatus>(slot[3]);
      if (status == SlotStatus::absent) {
        throw CommError("step {}: no rank evaluated probe {}, slice {}", step, p, slice);
      }
      if ((status != SlotStatus::good && status != SlotStatus::not_finite) || slot[0] != probes[p].seed) {
        throw CommError(
            "step {}: probe {}, slice {} has seed {:016x} and status {}, expected seed {:016x}: "
            "a rank is out of step",
            step, p, slice, slot[0], slot[3], probes[p].seed);
      }
      losses[p].slices.push_back(
          {.sum = std::bit_cast<double>(slot[1]), .weight = std::bit_cast<double>(slot[2])});
      losses[p].sum += losses[p].slices.back().sum;
      losses[p].weight += losses[p].slices.back().weight;
      losses[p].good = losses[p].good && status == SlotStatus::good;
    }
  }
  return losses;
}

std::vector<double> SlotTable::work_seconds() const {
  std::vector<double> seconds;
  for (int rank = 0; rank < ranks_; ++rank)
    seconds.push_back(std::bit_cast<double>(words_[control(rank) + 2]));
  return seconds;
}

}  // namespace mezzo
