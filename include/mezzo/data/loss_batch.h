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

/// How log-probabilities become losses and answers. An option's score is the mean of its tokens'
/// log-probabilities, or their sum; less the score that it has behind the calibration's prompt where there is
/// one (Zhao et al. 2021, "Calibrate Before Use"; Holtzman et al. 2021, "Surface Form Competition").
struct LossRule {
  LossRule(TaskLoss which) : loss(which) {}  // NOLINT: a loss alone is a rule
  TaskLoss loss;
  bool length_normalized = true;
};

/// Whether a loss needs the scores of all options, not of the right one alone.
constexpr bool reads_all_options(TaskLoss loss) { return loss != TaskLoss::language_model; }

/// A slice packed for the model, with the targets whose answers make its loss.
struct LossBatch {
  struct Item {
    using Ranges = std::vector<std::pair<std::int32_t, std::int32_t>>;
    std::int32_t label = 0;                     ///< index into options
    Ranges options = {};                        ///< ranges of targets, one an option asked
    Ranges calibration = {};                    ///< the same options behind the calibration's prompt, or none
    std::vector<std::int32_t> also_right = {};  ///< further indices of right options
  };
  PackedBatch packed;
  std::vector<Item> items;  ///< one an example
  LossRule rule = TaskLoss::options;
};

/// Of examples with options, which a generation's are not. `all_options`: ask for every option
/// (reads_all_options(), and accuracies); else for the right one alone.
LossBatch pack(std::span<const Example* const> examples, LossRule rule, bool all_options);
/// The tokens that pack() makes of an example.
std::int64_t packed_tokens(const Example& example, bool all_options);

struct SliceLoss {
  double sum = 0.0;
  double weight = 0.0;       ///< examples, or tokens (`language_model`)
  std::int64_t correct = 0;  ///< examples whose option of the best score is a right one
};

/// The scores of an item's options. log_probabilities [Q]
std::vector<double> scores_of(const LossBatch::Item& item, const LossRule& rule,
                              std::span<const float> log_probabilities);

/// The option of the best score, of equal ones the first; -1 where it is NaN.
std::int32_t best_option(std::span<const double> scores);
/// Whether an option is a right one.
bool is_right(const LossBatch::Item& item, std::int32_t option);

/// log_probabilities [Q]; fp64 sums in the order of the examples.
///   options:        -log softmax(s)[label], s_o the score of option o
///   language_model: -sum of the right option's token log-probabilities
///   accuracy:       0 where an option of the best score is a right one, else 1; NaN where there is none
SliceLoss loss_of(const LossBatch& batch, std::span<const float> log_probabilities);

}  // namespace mezzo
