#pragma once
// A generation task at work: completions of prompts, and what they are worth.
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "mezzo/core/config.h"
#include "mezzo/data/example.h"
#include "mezzo/data/reward.h"
#include "mezzo/model/description.h"
#include "mezzo/train/generator.h"
#include "mezzo/train/objective.h"

namespace mezzo {

/// The most sequences that a rank decodes at once for one probe.
inline constexpr std::int64_t most_slots = 1024;

class RewardedGeneration {
 public:
  /// `tokenizer` must outlive it. `ends`: the model's end tokens.
  RewardedGeneration(const Config& config, const Tokenizer& tokenizer, const Description& description,
                     std::vector<std::int32_t> ends);

  /// Starts the grader, without which nothing is graded. As make_grader().
  void start_grader(GraderSurroundings surroundings);
  Grader& grader() const;  ///< Error where there is none

  const GenerationRule& rule() const { return rule_; }
  const Tokenizer& tokenizer() const { return tokenizer_; }
  std::int64_t samples() const { return samples_; }
  std::uint64_t seed() const { return seed_; }
  std::int64_t max_positions() const { return max_positions_; }

 private:
  RewardConfig reward_;
  GenerationRule rule_;
  const Tokenizer& tokenizer_;
  std::int64_t samples_;
  std::uint64_t seed_;
  std::int64_t max_positions_;
  std::unique_ptr<Grader> grader_;
};

/// What a grader gets of a completion.
Completion completion_of(const Example& example, Generated&& written);

/// The rewards of what probes write: a slot's value is less their sum, its weight their number. A completion
/// whose logits were NaN, or that no reward could be had for, makes its slot bad. `generation` must outlive
/// it.
std::unique_ptr<Objective> make_generation(const RewardedGeneration& generation);

}  // namespace mezzo
