#include "mezzo/train/evaluator.h"

#include <algorithm>
#include <bit>

#include "mezzo/comm/together.h"
#include "mezzo/train/work.h"

namespace mezzo {

namespace {
// Fixed by nothing but speed and memory; changing them changes the order of the sums.
constexpr std::size_t chunk_examples = 128;
constexpr std::int64_t chunk_tokens = 8192;
constexpr std::size_t words_a_chunk = 4;  ///< loss sum, weight (both doubles' bits), correct, written
}  // namespace

std::vector<Metric> Evaluation::metrics() const {
  std::vector<Metric> all;
  if (accuracy) all.push_back({"eval_accuracy", *accuracy});
  all.push_back({"eval_loss", loss});
  return all;
}

std::vector<std::string> metrics_of(const Task& task) {
  Evaluation any;
  if (task.chooses()) any.accuracy = 0.0;
  std::vector<std::string> names;
  for (const Metric& metric : any.metrics()) names.emplace_back(metric.name);
  return names;
}

Evaluator::Evaluator(std::span<const Example> examples, const Task& task)
    : chooses_(task.chooses()), examples_(static_cast<std::int64_t>(examples.size())) {
  std::vector<const Example*> chunk;
  std::int64_t tokens = 0;
  const auto finish = [&] {
    if (chunk.empty()) return;
    chunks_.push_back(pack(chunk, task.loss_rule(), chooses_));
    largest_ = largest_of(largest_, shape_of(chunks_.back().packed));
    chunk.clear();
    tokens = 0;
  };
  for (const Example& example : examples) {
    const std::int64_t needed = packed_tokens(example, chooses_);
    if (chunk.size() == chunk_examples || tokens + needed > chunk_tokens) finish();
    chunk.push_back(&example);
    tokens += needed;
  }
  finish();
}

Evaluation Evaluator::run(ProbeRunner& runner, Exchange& exchange, Patience patience) const {
  StepUnits units{.probes = 1, .slice_tokens = {}, .paired = false};
  for (const LossBatch& chunk : chunks_) units.slice_tokens.push_back(chunk.packed.token_count());
  const WorkShare share = share_out(units, exchange.size())[static_cast<std::size_t>(exchange.rank())];
  std::vector<std::uint64_t> words(words_a_chunk * chunks_.size(), 0);
  const auto end = static_cast<std::size_t>(share.first + share.count);
  for (auto c = static_cast<std::size_t>(share.first); c < end; ++c) {
    runner.begin(chunks_[c].packed);
    const Probe unperturbed;
    const SliceLoss loss = loss_of(chunks_[c], runner.evaluate({&unperturbed, 1}, NoiseKind::gaussian));
    std::uint64_t* word = &words[words_a_chunk * c];
    word[0] = std::bit_cast<std::uint64_t>(loss.sum);
    word[1] = std::bit_cast<std::uint64_t>(loss.weight);
    word[2] = static_cast<std::uint64_t>(loss.correct);
    word[3] = 1;
  }
  require_complete(exchange, exchange.sum(words, patience));
  double sum = 0.0;
  double weight = 0.0;
  std::int64_t correct = 0;
  for (std::size_t c = 0; c < chunks_.size(); ++c) {
    const std::uint64_t* word = &words[words_a_chunk * c];
    if (word[3] != 1)
      throw CommError("evaluation: chunk {} was evaluated by {} ranks, expected one", c, word[3]);
    sum += std::bit_cast<double>(word[0]);
    weight += std::bit_cast<double>(word[1]);
    correct += static_cast<std::int64_t>(word[2]);
  }
  Evaluation result{.examples = examples_, .accuracy = std::nullopt, .loss = sum / weight};
  if (chooses_) result.accuracy = static_cast<double>(correct) / static_cast<double>(examples_);
  return result;
}

}  // namespace mezzo
