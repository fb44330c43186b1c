#include "mezzo/data/loss_batch.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace mezzo {

namespace {

using Ids = std::vector<std::int32_t>;

/// Indices of the tokens of an option that the loss sees.
Ids counted_in(const Example& example, const Ids& option) {
  Ids indices;
  const auto add = [&](std::int32_t begin, std::int32_t end) {
    for (std::int32_t i = begin; i < end; ++i) indices.push_back(i);
  };
  for (const auto& [begin, end] : example.counted) add(begin, end);
  if (example.counted.empty()) add(0, static_cast<std::int32_t>(option.size()));
  return indices;
}

/// Adds sequences and targets to a batch.
class Packer {
 public:
  explicit Packer(PackedBatch& packed) : packed_(packed) { packed_.offsets.push_back(0); }

  /// The options behind one prompt: their ranges of targets. Options of one token share one sequence, the
  /// prompt; it is also the beginning of every longer option's.
  LossBatch::Item::Ranges add(const Example& example, const Ids& prompt,
                              std::span<const Ids* const> options) {
    std::int32_t prompt_loss_row = -1;
    std::vector<std::int32_t> first_loss_rows(options.size(), -1);
    for (std::size_t o = 0; o < options.size(); ++o) {
      if (options[o]->size() == 1) continue;
      first_loss_rows[o] = add_sequence(example, prompt, *options[o]);
      if (prompt_loss_row < 0) prompt_loss_row = first_loss_rows[o];
    }
    if (prompt_loss_row < 0) prompt_loss_row = add_sequence(example, prompt, *options[0]);
    LossBatch::Item::Ranges ranges;
    for (std::size_t o = 0; o < options.size(); ++o) {
      const auto begin = static_cast<std::int32_t>(packed_.target_tokens.size());
      std::int32_t loss_row = options[o]->size() == 1 ? prompt_loss_row : first_loss_rows[o];
      for (const std::int32_t i : counted_in(example, *options[o])) {
        packed_.target_rows.push_back(loss_row++);
        packed_.target_tokens.push_back((*options[o])[static_cast<std::size_t>(i)]);
      }
      ranges.emplace_back(begin, static_cast<std::int32_t>(packed_.target_tokens.size()));
    }
    return ranges;
  }

 private:
  /// One sequence: the prompt and all of `option` but its last token. Reads the rows that predict what
  /// counts; the first of them.
  std::int32_t add_sequence(const Example& example, const Ids& prompt, const Ids& option) {
    const auto first = static_cast<std::int32_t>(packed_.tokens.size());
    packed_.tokens.insert(packed_.tokens.end(), prompt.begin(), prompt.end());
    packed_.tokens.insert(packed_.tokens.end(), option.begin(), option.end() - 1);
    const auto end = static_cast<std::int32_t>(packed_.tokens.size());
    for (std::int32_t t = first; t < end; ++t) packed_.positions.push_back(t - first);
    packed_.offsets.push_back(end);
    const auto first_loss_row = static_cast<std::int32_t>(packed_.loss_rows.size());
    const std::int32_t first_row = first + static_cast<std::int32_t>(prompt.size()) - 1;
    for (const std::int32_t i : counted_in(example, option)) packed_.loss_rows.push_back(first_row + i);
    return first_loss_row;
  }

  PackedBatch& packed_;
};

}  // namespace

LossBatch pack(std::span<const Example* const> examples, LossRule rule, bool all_options) {
  LossBatch batch{.packed = {}, .items = {}, .rule = rule};
  Packer packer(batch.packed);
  for (const Example* example : examples) {
    LossBatch::Item item;
    std::vector<const Ids*> asked;
    if (all_options) {
      for (const Ids& option : example->options) asked.push_back(&option);
      item.label = example->label;
      item.also_right = example->also_right;
    } else {
      asked.push_back(&example->options[static_cast<std::size_t>(example->label)]);
    }
    item.options = packer.add(*example, example->prompt, asked);
    if (all_options && !example->calibration.empty())
      item.calibration = packer.add(*example, example->calibration, asked);
    batch.items.push_back(std::move(item));
  }
  return batch;
}

std::int64_t packed_tokens(const Example& example, bool all_options) {
  const auto behind = [&](const Ids& prompt) {
    std::int64_t tokens = 0;
    const auto add = [&](const Ids& option) {
      if (option.size() > 1) tokens += static_cast<std::int64_t>(prompt.size() + option.size()) - 1;
    };
    if (all_options) {
      std::ranges::for_each(example.options, add);
    } else {
      add(example.options[static_cast<std::size_t>(example.label)]);
    }
    return tokens > 0 ? tokens : static_cast<std::int64_t>(prompt.size());
  };
  const bool calibrated = all_options && !example.calibration.empty();
  return behind(example.prompt) + (calibrated ? behind(example.calibration) : 0);
}

namespace {

double sum_over(std::pair<std::int32_t, std::int32_t> range, std::span<const float> log_probabilities) {
  double sum = 0.0;
  for (std::int32_t q = range.first; q < range.second; ++q)
    sum += static_cast<double>(log_probabilities[static_cast<std::size_t>(q)]);
  return sum;
}

}  // namespace

std::vector<double> scores_of(const LossBatch::Item& item, const LossRule& rule,
                              std::span<const float> log_probabilities) {
  const auto score = [&](std::pair<std::int32_t, std::int32_t> range) {
    const double sum = sum_over(range, log_probabilities);
    return rule.length_normalized ? sum / static_cast<double>(range.second - range.first) : sum;
  };
  std::vector<double> scores;
  for (const auto& range : item.options) scores.push_back(score(range));
  for (std::size_t o = 0; o < item.calibration.size(); ++o) scores[o] -= score(item.calibration[o]);
  return scores;
}

std::int32_t best_option(std::span<const double> scores) {
  const auto best = std::ranges::max_element(scores);
  return std::isnan(*best) ? -1 : static_cast<std::int32_t>(best - scores.begin());
}

bool is_right(const LossBatch::Item& item, std::int32_t option) {
  return option == item.label || std::ranges::find(item.also_right, option) != item.also_right.end();
}

SliceLoss loss_of(const LossBatch& batch, std::span<const float> log_probabilities) {
  SliceLoss result;
  for (const LossBatch::Item& item : batch.items) {
    const std::vector<double> scores = scores_of(item, batch.rule, log_probabilities);
    const auto label = static_cast<std::size_t>(item.label);
    const std::int32_t best = best_option(scores);
    const bool right = is_right(item, best);
    if (right) ++result.correct;
    if (batch.rule.loss == TaskLoss::options) {
      double largest = -std::numeric_limits<double>::infinity();
      for (const double score : scores) largest = std::max(largest, score);
      double total = 0.0;
      for (const double score : scores) total += std::exp(score - largest);
      result.sum += largest + std::log(total) - scores[label];
      result.weight += 1.0;
    } else if (batch.rule.loss == TaskLoss::accuracy) {
      result.sum += best < 0 ? std::numeric_limits<double>::quiet_NaN() : (right ? 0.0 : 1.0);
      result.weight += 1.0;
    } else {
      result.sum -= sum_over(item.options[label], log_probabilities);
      result.weight += static_cast<double>(item.options[label].second - item.options[label].first);
    }
  }
  return result;
}

}  // namespace mezzo
