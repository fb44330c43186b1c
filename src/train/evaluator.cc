#include "mezzo/train/evaluator.h"

#include <algorithm>
#include <bit>
#include <nlohmann/json.hpp>

#include "mezzo/comm/together.h"
#include "mezzo/core/error.h"
#include "mezzo/train/answers.h"
#include "mezzo/train/work.h"

namespace mezzo {

namespace {
// Fixed by nothing but speed and memory; changing them changes the order of the sums.
constexpr std::size_t chunk_examples = 128;
constexpr std::int64_t chunk_tokens = 8192;

/// Examples are cut into chunks by their order and lengths alone; ranks share the chunks by their tokens, and
/// sums are taken in the order of the chunks.
class LikelihoodEvaluator final : public Evaluator {
 public:
  LikelihoodEvaluator(std::span<const Example> examples, const Task& task);

  BatchShape largest() const override { return largest_; }
  Evaluation run(ProbeRunner& runner, Exchange& exchange, Patience patience) const override;

 private:
  /// What the ranks sum: of each chunk its losses, then the scores of all options of all examples.
  struct Words;
  void evaluate(std::size_t chunk, ProbeRunner& runner, Words& words) const;
  Evaluation summary(const Words& words) const;
  void add_answers(Evaluation& evaluation, const Words& words) const;

  bool chooses_;
  std::int64_t classes_;  // of a classification, else 0
  std::int64_t examples_;
  std::vector<LossBatch> chunks_;
  std::vector<std::size_t> first_scores_;  // [chunks + 1], where the scores of a chunk begin among all
  BatchShape largest_;
};

/// Words with one writer each, so that their sums over ranks are what was written.
struct LikelihoodEvaluator::Words {
  static constexpr std::size_t a_chunk = 3;  ///< loss sum, weight (both doubles' bits), written

  Words(std::size_t chunks, std::size_t scores)
      : first_score(a_chunk * chunks), all(first_score + scores, 0) {}

  void set(std::size_t chunk, const SliceLoss& loss) {
    all[a_chunk * chunk] = std::bit_cast<std::uint64_t>(loss.sum);
    all[a_chunk * chunk + 1] = std::bit_cast<std::uint64_t>(loss.weight);
    all[a_chunk * chunk + 2] = 1;
  }
  double loss_sum(std::size_t chunk) const { return std::bit_cast<double>(all[a_chunk * chunk]); }
  double weight(std::size_t chunk) const { return std::bit_cast<double>(all[a_chunk * chunk + 1]); }
  std::uint64_t writers(std::size_t chunk) const { return all[a_chunk * chunk + 2]; }
  std::uint64_t& score(std::size_t i) { return all[first_score + i]; }
  double score(std::size_t i) const { return std::bit_cast<double>(all[first_score + i]); }

  std::size_t first_score;
  std::vector<std::uint64_t> all;
};

LikelihoodEvaluator::LikelihoodEvaluator(std::span<const Example> examples, const Task& task)
    : chooses_(task.chooses()),
      classes_(static_cast<std::int64_t>(task.labels().size())),
      examples_(static_cast<std::int64_t>(examples.size())),
      first_scores_{0} {
  std::vector<const Example*> chunk;
  std::int64_t tokens = 0;
  const auto finish = [&] {
    if (chunk.empty()) return;
    chunks_.push_back(pack(chunk, task.loss_rule(), chooses_));
    largest_ = largest_of(largest_, shape_of(chunks_.back().packed));
    std::size_t scores = 0;
    for (const LossBatch::Item& item : chunks_.back().items) scores += chooses_ ? item.options.size() : 0;
    first_scores_.push_back(first_scores_.back() + scores);
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

Evaluation LikelihoodEvaluator::run(ProbeRunner& runner, Exchange& exchange, Patience patience) const {
  StepUnits units{.probes = 1, .slice_tokens = {}, .paired = false};
  for (const LossBatch& chunk : chunks_) units.slice_tokens.push_back(chunk.packed.token_count());
  const WorkShare share = share_out(units, exchange.size())[static_cast<std::size_t>(exchange.rank())];
  Words words(chunks_.size(), first_scores_.back());
  const auto end = static_cast<std::size_t>(share.first + share.count);
  for (auto c = static_cast<std::size_t>(share.first); c < end; ++c) evaluate(c, runner, words);
  require_complete(exchange, exchange.sum(words.all, patience));
  return summary(words);
}

void LikelihoodEvaluator::evaluate(std::size_t chunk, ProbeRunner& runner, Words& words) const {
  const LossBatch& batch = chunks_[chunk];
  runner.begin(batch.packed);
  const Probe unperturbed;
  const std::span<const float> log_probabilities = runner.evaluate({&unperturbed, 1}, NoiseKind::gaussian);
  words.set(chunk, loss_of(batch, log_probabilities));
  if (!chooses_) return;
  std::size_t place = first_scores_[chunk];
  for (const LossBatch::Item& item : batch.items) {
    for (const double score : scores_of(item, batch.rule, log_probabilities))
      words.score(place++) = std::bit_cast<std::uint64_t>(score);
  }
}

Evaluation LikelihoodEvaluator::summary(const Words& words) const {
  double sum = 0.0;
  double weight = 0.0;
  for (std::size_t c = 0; c < chunks_.size(); ++c) {
    if (words.writers(c) != 1)
      throw CommError("evaluation: chunk {} was evaluated by {} ranks, expected one", c, words.writers(c));
    sum += words.loss_sum(c);
    weight += words.weight(c);
  }
  Evaluation result{.examples = examples_, .accuracy = {}, .f1 = {}, .loss = sum / weight};
  if (chooses_) add_answers(result, words);
  return result;
}

void LikelihoodEvaluator::add_answers(Evaluation& evaluation, const Words& words) const {
  std::vector<std::int32_t> labels;
  std::vector<std::int32_t> predictions;
  std::int64_t correct = 0;
  std::size_t place = 0;
  for (const LossBatch& chunk : chunks_) {
    for (const LossBatch::Item& item : chunk.items) {
      std::vector<double>& scores = evaluation.scores.emplace_back();
      for (std::size_t o = 0; o < item.options.size(); ++o) scores.push_back(words.score(place++));
      labels.push_back(item.label);
      predictions.push_back(best_option(scores));
      if (is_right(item, predictions.back())) ++correct;
    }
  }
  evaluation.accuracy = static_cast<double>(correct) / static_cast<double>(examples_);
  if (classes_ == 0) return;
  evaluation.classes = class_scores(labels, predictions, classes_);
  evaluation.f1 = macro_f1(evaluation.classes);
}

/// Ranks share the examples by their number.
class GenerationEvaluator final : public Evaluator {
 public:
  GenerationEvaluator(std::span<const Example> examples, const RewardedGeneration& generation)
      : examples_(examples), generation_(generation), rule_(generation.rule()) {
    rule_.sampling = {};
  }

  BatchShape largest() const override {
    return shape_of(requests_of(examples_, {.begin = 0, .end = examples_.size()}), rows_of(examples_), rule_,
                    generation_.max_positions());
  }
  Evaluation run(ProbeRunner& runner, Exchange& exchange, Patience patience) const override;

 private:
  /// As JSON: text, tokens, reward or null.
  nlohmann::json write(ProbeRunner& runner, RankPart part) const;

  std::span<const Example> examples_;
  const RewardedGeneration& generation_;
  GenerationRule rule_;
};

nlohmann::json GenerationEvaluator::write(ProbeRunner& runner, RankPart part) const {
  const Generator generator(runner, generation_.tokenizer(), rule_, generation_.max_positions());
  std::vector<Generated> written =
      write_unperturbed(generator, requests_of(examples_, part), rows_of(examples_));
  nlohmann::json all = nlohmann::json::array();
  Grader& grader = generation_.grader();
  std::vector<bool> finite;
  for (std::size_t i = 0; i < written.size(); ++i) {
    finite.push_back(written[i].finite);
    all.push_back({{"text", written[i].text}, {"tokens", written[i].tokens.size()}});
    grader.submit(completion_of(examples_[part.begin + i], std::move(written[i])));
  }
  const std::vector<Grade> grades = grader.finish();
  for (std::size_t i = 0; i < grades.size(); ++i)
    all[i]["reward"] =
        grades[i].good && finite[i] ? nlohmann::json(grades[i].reward) : nlohmann::json(nullptr);
  return all;
}

Evaluation GenerationEvaluator::run(ProbeRunner& runner, Exchange& exchange, Patience patience) const {
  nlohmann::json mine;
  together(exchange, patience, [&] { mine = write(runner, part_of(examples_.size(), exchange)); });
  Evaluation result{.examples = std::ssize(examples_), .accuracy = {}, .f1 = {}};
  double rewards = 0.0, right = 0.0, graded = 0.0;
  for (const std::string& of_rank : agree(exchange, mine.dump(), patience)) {
    const nlohmann::json all = nlohmann::json::parse(of_rank);
    for (const nlohmann::json& one : all) {
      const Example& example = examples_[result.completions.size()];
      GradedCompletion& completion = result.completions.emplace_back();
      completion.prompt = generation_.tokenizer().decode(example.prompt);
      completion.text = one["text"].get<std::string>();
      completion.tokens = one["tokens"].get<std::int64_t>();
      if (one["reward"].is_null()) continue;
      completion.reward = one["reward"].get<double>();
      rewards += *completion.reward;
      right += *completion.reward >= 1.0 ? 1.0 : 0.0;
      graded += 1.0;
    }
  }
  result.reward = rewards / graded;
  result.accuracy = right / static_cast<double>(result.examples);
  result.loss = -*result.reward;
  return result;
}

}  // namespace

std::vector<Metric> Evaluation::metrics() const {
  std::vector<Metric> all;
  if (reward) all.push_back({"eval_reward", *reward});
  if (accuracy) all.push_back({"eval_accuracy", *accuracy});
  if (f1) all.push_back({"eval_f1", *f1});
  all.push_back({"eval_loss", loss});
  return all;
}

std::vector<std::string> metrics_of(const Task& task) {
  Evaluation any;
  if (task.chooses() || task.generates()) any.accuracy = 0.0;
  if (task.generates()) any.reward = 0.0;
  if (task.classifies()) any.f1 = 0.0;
  std::vector<std::string> names;
  for (const Metric& metric : any.metrics()) names.emplace_back(metric.name);
  return names;
}

std::unique_ptr<Evaluator> make_evaluator(std::span<const Example> examples, const Task& task,
                                          const RewardedGeneration* generation) {
  if (generation != nullptr) return std::make_unique<GenerationEvaluator>(examples, *generation);
  return std::make_unique<LikelihoodEvaluator>(examples, task);
}

}  // namespace mezzo
