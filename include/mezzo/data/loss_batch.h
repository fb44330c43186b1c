#pragma once
// Examples packed for the model, and how log-probabilities become a loss.
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "mezzo/core/batch.h"
#include "mezzo/core/config.h"
#include "mezzo/data/example.h"

namespace mezzo {

/// A slice packed for the model, with the targets whose answers make its loss.
struct LossBatch {
  struct Item {
    std::int32_t label = 0;                                      ///< index into options
    std::vector<std::pair<std::int32_t, std::int32_t>> options;  ///< ranges of targets, one an option asked
  };
  PackedBatch packed;
  std::vector<Item> items;  ///< one an example
  TaskLoss loss = TaskLoss::options;
};

/// `all_options`: ask for every option (the `options` loss and accuracy need them); else for the right one
/// alone.
LossBatch pack(std::span<const Example* const> examples, TaskLoss loss, bool all_options);
/// The tokens that pack() makes of an example.
std::int64_t packed_tokens(const Example& example, bool all_options);

struct SliceLoss {
  double sum = 0.0;
  double weight = 0.0;       ///< examples (`options`) or tokens (`language_model`)
  std::int64_t correct = 0;  ///< examples whose best option by mean token log-probability is the right one
};

/// log_probabilities [Q]; fp64 sums in the order of the examples.
///   options:        -log softmax(m)[label], m_o = mean token log-probability of option o
///   language_model: -sum of the right option's token log-probabilities
SliceLoss loss_of(const LossBatch& batch, std::span<const float> log_probabilities);

}  // namespace mezzo
