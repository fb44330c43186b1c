#pragma once
// What completions are worth by the rules that are built in. Pure functions.
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "mezzo/core/config.h"
#include "mezzo/data/pattern.h"
#include "mezzo/data/reward.h"

namespace mezzo {

// Texts are valid UTF-8.

/// Whether one of the answers stands in the text, as it is but for white space around the answer.
bool contains_answer(std::string_view text, std::span<const std::string> answers);

/// 1 where the pattern matches in the text, else 0. With a group in the pattern: 1 where what the first group
/// holds of the last match is one of the answers, white space around both aside. InputError for a pattern
/// that cannot be matched in this text.
double pattern_reward(const Pattern& pattern, std::string_view text, std::span<const std::string> answers);

/// The last number of a text in one form, such as "-1234.5" for "-1,234.50": commas between groups of three
/// digits are passed over, as are zeros and a dot without a meaning. A minus counts where no letter or digit
/// is before it. None where there is no digit.
std::optional<std::string> last_number(std::string_view text);

/// The letter of a multiple choice: the first of A to Z that stands alone, without a letter or digit beside
/// it, behind the last word "answer" that has one behind it, else in the whole text. An I that goes on like
/// the English word, with an apostrophe or with a blank and a small letter, is none.
std::optional<char> choice_letter(std::string_view text);

/// 1 for `target` tokens, falling linearly to 0 at the number in [0, most] that is farthest from it.
/// 0 <= target <= most, most >= 1.
double length_reward(std::int64_t tokens, std::int64_t target, std::int64_t most);

/// One of these rules with its parameters. Immutable: one may serve several threads.
class BuiltInReward {
 public:
  /// UsageError for a pattern that does not compile. `config` has a type.
  BuiltInReward(const RewardConfig& config, std::int64_t max_new_tokens);

  /// Whether it compares with right answers.
  bool needs_answers() const;
  /// InputError naming `where` for a right answer that no completion can be, such as one without a number.
  void check(std::span<const std::string> answers, const std::string& where) const;
  /// InputError where it cannot be had.
  double of(const Completion& completion) const;

 private:
  RewardRule rule_;
  std::optional<Pattern> pattern_;
  std::int64_t target_, max_new_tokens_;
};

}  // namespace mezzo
