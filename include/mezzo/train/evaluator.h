#pragma once
#include <cstdint>
#include <optional>
#include <span>

#include "mezzo/comm/exchange.h"
#include "mezzo/data/task.h"
#include "mezzo/train/probe_runner.h"

namespace mezzo {

struct Evaluation {
  std::int64_t examples = 0;
  std::optional<double> accuracy;  ///< of classification tasks
  double loss = 0.0;               ///< sum of losses / sum of weights
};

/// Evaluates examples without perturbation. They are cut into chunks by their order and lengths alone; ranks
/// share the chunks by their tokens, and sums are taken in the order of the chunks, so that the result has
/// the same bits on any number of ranks.
class Evaluator {
 public:
  /// `examples` must outlive the evaluator.
  Evaluator(std::span<const Example> examples, const Task& task);

  BatchShape largest() const { return largest_; }
  Evaluation run(ProbeRunner& runner, Exchange& exchange, Patience patience) const;

 private:
  bool classifies_;
  std::int64_t examples_;
  std::vector<LossBatch> chunks_;
  BatchShape largest_;
};

}  // namespace mezzo
