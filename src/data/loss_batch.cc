#include "mezzo/data/loss_batch.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace mezzo {

LossBatch pack(std::span<const Example* const> examples, TaskLoss loss, bool all_options) {
  LossBatch batch{.packed = {}, .items = {}, .loss = loss};
  PackedBatch& packed = batch.packed;
  packed.offsets.push_back(0);

  // Indices of the tokens of an option that the loss sees.
  const auto counted = [](const Example& example, const std::vector<std::int32_t>& option) {
    std::vector<std::int32_t> indices;
    const auto add = [&](std::int32_t begin, std::int32_t end) {
      for (std::int32_t i = begin; i < end; ++i) indices.push_back(i);
    };
    for (const auto& [begin, end] : example.counted) add(begin, end);
    if (example.counted.empty()) add(0, static_cast<std::int32_t>(option.size()));
    return indices;
  };
  // One sequence: the prompt and all of `option` but its last token. Reads the rows that predict what counts.
  const auto add_sequence = [&](const Example& example, const std::vector<std::int32_t>& option) {
    const auto first = static_cast<std::int32_t>(packed.tokens.size());
    packed.tokens.insert(packed.tokens.end(), example.prompt.begin(), example.prompt.end());
    packed.tokens.insert(packed.tokens.end(), option.begin(), option.end() - 1);
    const auto end = static_cast<std::int32_t>(packed.tokens.size());
    for (std::int32_t t = first; t < end; ++t) packed.positions.push_back(t - first);
    packed.offsets.push_back(end);
    const auto first_loss_row = static_cast<std::int32_t>(packed.loss_rows.size());
    const std::int32_t first_row = first + static_cast<std::int32_t>(example.prompt.size()) - 1;
    for (const std::int32_t i : counted(example, option)) packed.loss_rows.push_back(first_row + i);
    return first_loss_row;
  };

  for (const Example* example : examples) {
    LossBatch::Item item;
    std::vector<const std::vector<std::int32_t>*> asked;
    if (all_options) {
      for (const auto& option : example->options) asked.push_back(&option);
      item.label = example->label;
    } else {
      asked.push_back(&example->options[static_cast<std::size_t>(example->label)]);
    }
    // Options of one token share one sequence, the prompt; it is also the beginning of every longer option's.
    std::int32_t prompt_loss_row = -1;
    std::vector<std::int32_t> first_loss_rows(asked.size(), -1);
    for (std::size_t o = 0; o < asked.size(); ++o) {
      if (asked[o]->size() == 1) continue;
      first_loss_rows[o] = add_sequence(*example, *asked[o]);
      if (prompt_loss_row < 0) prompt_loss_row = first_loss_rows[o];
    }
    if (prompt_loss_row < 0) prompt_loss_row = add_sequence(*example, *asked[0]);
    for (std::size_t o = 0; o < asked.size(); ++o) {
      const auto begin = static_cast<std::int32_t>(packed.target_tokens.size());
      const std::int32_t first_loss_row = asked[o]->size() == 1 ? prompt_loss_row : first_loss_rows[o];
      std::int32_t loss_row = first_loss_row;
      for (const std::int32_t i : counted(*example, *asked[o])) {
        packed.target_rows.push_back(loss_row++);
        packed.target_tokens.push_back((*asked[o])[static_cast<std::size_t>(i)]);
      }
      item.options.emplace_back(begin, static_cast<std::int32_t>(packed.target_tokens.size()));
    }
    batch.items.push_back(std::move(item));
  }
  return batch;
}

std::int64_t packed_tokens(const Example& example, bool all_options) {
  std::int64_t tokens = 0;
  const auto add = [&](const std::vector<std::int32_t>& option) {
    if (option.size() > 1) tokens += static_cast<std::int64_t>(example.prompt.size() + option.size()) - 1;
  };
  if (all_options) {
    std::ranges::for_each(example.options, add);
  } else {
    add(example.options[static_cast<std::size_t>(example.label)]);
  }
  return tokens > 0 ? tokens : static_cast<std::int64_t>(example.prompt.size());
}

SliceLoss loss_of(const LossBatch& batch, std::span<const float> log_probabilities) {
  SliceLoss result;
  for (const LossBatch::Item& item : batch.items) {
    std::vector<double> sums;
    std::vector<double> means;
    for (const auto& [begin, end] : item.options) {
      double sum = 0.0;
      for (std::int32_t q = begin; q < end; ++q)
        sum += static_cast<double>(log_probabilities[static_cast<std::size_t>(q)]);
      sums.push_back(sum);
      means.push_back(sum / static_cast<double>(end - begin));
    }
    const auto label = static_cast<std::size_t>(item.label);
    // A NaN anywhere is no best option; the sums below carry it on.
    if (std::max_element(means.begin(), means.end()) - means.begin() == static_cast<std::ptrdiff_t>(label) &&
        !std::isnan(means[label])) {
      ++result.correct;
    }
    if (batch.loss == TaskLoss::options) {
      double largest = -std::numeric_limits<double>::infinity();
      for (const double mean : means) largest = std::max(largest, mean);
      double total = 0.0;
      for (const double mean : means) total += std::exp(mean - largest);
      result.sum += largest + std::log(total) - means[label];
      result.weight += 1.0;
    } else {
      result.sum -= sums[label];
      result.weight += static_cast<double>(item.options[label].second - item.options[label].first);
    }
  }
  return result;
}

}  // namespace mezzo
