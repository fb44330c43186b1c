#include "mezzo/data/reward.h"

#include <utility>

#include "grader_program.h"
#include "mezzo/core/error.h"
#include "mezzo/data/reward_rules.h"
#include "mezzo/io/files.h"

namespace mezzo {

std::string_view name_of(FinishReason reason) {
  switch (reason) {
    case FinishReason::stop:
      return "stop";
    case FinishReason::length:
      return "length";
  }
  throw Error("a completion has the unknown finish reason {}", static_cast<int>(reason));
}

namespace {

/// Grades as completions come: no rule takes long.
class RuleGrader final : public Grader {
 public:
  RuleGrader(const RewardConfig& config, const GraderSurroundings& surroundings)
      : reward_(config, surroundings.max_new_tokens), on_error_(config.on_error), warn_(surroundings.warn) {}

  void submit(Completion completion) override {
    try {
      grades_.push_back({.good = true, .reward = reward_.of(completion), .metrics = {}});
    } catch (const InputError& error) {
      if (on_error_ == OnRewardError::stop) throw;
      grades_.push_back({.good = false, .reward = 0, .metrics = {}});
      if (bad_++ == 0) problem_ = error.what();
    }
  }

  std::vector<Grade> finish() override {
    if (bad_ > 0 && warn_) {
      warn_(
          fmt::format("{} of {} completions have no reward; the first: {}", bad_, grades_.size(), problem_));
    }
    bad_ = 0;
    return std::exchange(grades_, {});
  }

 private:
  BuiltInReward reward_;
  OnRewardError on_error_;
  std::function<void(const std::string&)> warn_;
  std::vector<Grade> grades_;
  std::size_t bad_ = 0;
  std::string problem_;  ///< of the first bad one
};

}  // namespace

std::string grader_log_name(int rank, std::int64_t worker) {
  return fmt::format("grader-rank{}-worker{}.log", rank, worker);
}

bool is_grader_log(std::string_view name) {
  const std::size_t dash = name.rfind('-');
  return dash != name.npos && number_in_name(name.substr(0, dash), "grader-rank", "") &&
         number_in_name(name.substr(dash), "-worker", ".log");
}

std::unique_ptr<Grader> make_grader(const RewardConfig& config, const GraderSurroundings& surroundings) {
  if (config.command.empty()) return std::make_unique<RuleGrader>(config, surroundings);
  return std::make_unique<GraderProgram>(config, surroundings);
}

}  // namespace mezzo
