#pragma once
// What a step takes on any number of ranks, from parts that were measured on one. The model is explained in
// docs/distributed.md. Times are seconds.
#include <cstdint>
#include <span>
#include <vector>

#include "mezzo/train/planner.h"

namespace mezzo {

/// Parts of a step on one rank, as `mezzo profile` measures them.
struct StepParts {
  struct Forward {
    std::int64_t probes = 0;
    double seconds = 0.0;
  };
  std::int64_t tokens = 0;        ///< of the slice that `begin` and `forwards` were measured on
  double begin = 0.0;             ///< packing the slice, and what its probes share
  std::vector<Forward> forwards;  ///< ascending by probes, not empty; with the losses made of its results
  double update = 0.0;
  double hash = 0.0;  ///< of the trainables, every train.hash_steps steps
  double host = 0.0;  ///< the rest of a step: seeds, examples, the estimate

  /// A slice's beginning, in proportion to its tokens.
  double begin_seconds(std::int64_t slice_tokens) const;
  /// Linear between the measured forwards, and beyond them as between the nearest two; a slice of other
  /// length counts by its rows.
  double forward_seconds(std::int64_t probes, std::int64_t slice_tokens) const;
  /// A rank's forwards, each slice begun once.
  double work_seconds(const StepUnits& units, std::span<const WorkItem> items) const;
};

/// An exchange of all ranks that arrive together: fixed + (ranks - 1) * (per_rank + per_rank_word * words).
/// Of the star over MPI the parts come from tests/benchmarks/exchange_latency.
struct ExchangeTime {
  double fixed = 0.0;
  double per_rank = 0.0;
  double per_rank_word = 0.0;

  double seconds(int ranks, std::int64_t words) const;
};

}  // namespace mezzo
