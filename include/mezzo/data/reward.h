#pragma once
// What completions are worth.
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "mezzo/core/config.h"

namespace mezzo {

/// Why a completion ends: with an end token or a stop text; or at generation.max_new_tokens or the model's
/// last position.
enum class FinishReason { stop, length };
std::string_view name_of(FinishReason reason);

/// What a model wrote behind a prompt.
struct Completion {
  std::string record = {};                ///< Example::record
  std::vector<std::string> answers = {};  ///< Example::answers
  std::string text = {};                  ///< valid UTF-8, without the end token or the stop text
  std::int64_t tokens = 0;                ///< of the text and, where there is one, the end token
  FinishReason finish = FinishReason::stop;
};

/// What a completion is worth.
struct Grade {
  bool good = true;                            ///< false: no reward could be had
  double reward = 0;                           ///< finite
  std::map<std::string, double> metrics = {};  ///< further numbers, finite, that the reward's program gave
  bool operator==(const Grade&) const = default;
};

/// Turns completions into rewards. Not for several threads at once.
class Grader {
 public:
  virtual ~Grader() = default;
  /// Takes a completion and returns soon: a program works on it while the caller goes on.
  virtual void submit(Completion completion) = 0;
  /// Waits for the grades of all completions submitted since the last finish(), in their order. Where no
  /// reward could be had and data.task.reward.on_error is stop, an Error that says why; the grader is of no
  /// use then but to be destroyed.
  virtual std::vector<Grade> finish() = 0;
};

/// Where a grader works.
struct GraderSurroundings {
  std::int64_t max_new_tokens = 1;     ///< generation.max_new_tokens
  int rank = 0;                        ///< part of the names of logs
  std::string log_folder = {};         ///< for what a program says on standard error; "": nowhere
  std::string working_directory = {};  ///< of a program; "": this process's
  /// Gets a line to be shown. Called by submit() and finish() alone; may be empty.
  std::function<void(const std::string&)> warn = {};
};

/// The name of the log of a program's process, and whether a name is one.
std::string grader_log_name(int rank, std::int64_t worker);
bool is_grader_log(std::string_view name);

/// The grader that a config names: a rule, or a program, which is started here. UsageError for a pattern that
/// does not compile, Error for a program that cannot be started.
std::unique_ptr<Grader> make_grader(const RewardConfig& config, const GraderSurroundings& surroundings);

}  // namespace mezzo
