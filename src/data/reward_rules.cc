#include "mezzo/data/reward_rules.h"

#include <algorithm>
#include <cstdlib>

#include "mezzo/core/error.h"
#include "mezzo/core/utf8.h"
#include "mezzo/data/answer_scores.h"
#include "mezzo/data/unicode.h"
#include "mezzo/io/json_file.h"

namespace mezzo {

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_small(char c) { return c >= 'a' && c <= 'z'; }
bool is_capital(char c) { return c >= 'A' && c <= 'Z'; }

/// Whether a letter or digit of any script begins or ends a text.
bool begins_as_word(std::string_view text) {
  return !text.empty() && is_alphanumeric(first_code_point(text).value);
}
bool ends_as_word(std::string_view text) {
  return !text.empty() && is_alphanumeric(last_code_point(text).value);
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_white_space(first_code_point(text).value))
    text.remove_prefix(first_code_point(text).size);
  while (!text.empty() && is_white_space(last_code_point(text).value))
    text.remove_suffix(last_code_point(text).size);
  return text;
}

std::size_t digits_at(std::string_view text, std::size_t begin) {
  std::size_t end = begin;
  while (end < text.size() && is_digit(text[end])) ++end;
  return end - begin;
}

/// A number as it stands in a text.
struct Number {
  std::string whole, fraction;  ///< digits
  std::size_t end = 0;          ///< behind it
};

/// The number whose first digit, or dot before one, is at `begin`.
Number number_at(std::string_view text, std::size_t begin) {
  Number number;
  number.end = begin + digits_at(text, begin);
  number.whole = text.substr(begin, number.end - begin);
  if (!number.whole.empty() && number.whole.size() <= 3) {
    while (number.end < text.size() && text[number.end] == ',' && digits_at(text, number.end + 1) == 3) {
      number.whole += text.substr(number.end + 1, 3);
      number.end += 4;
    }
  }
  if (number.end < text.size() && text[number.end] == '.') {
    const std::size_t digits = digits_at(text, number.end + 1);
    number.fraction = text.substr(number.end + 1, digits);
    if (digits > 0) number.end += 1 + digits;
  }
  return number;
}

/// Whether a minus, ASCII's or U+2212, stands right before `begin`, and no letter or digit before that.
bool is_negative(std::string_view text, std::size_t begin) {
  constexpr std::string_view minus_sign = "\u2212";
  std::string_view before = text.substr(0, begin);
  if (before.ends_with('-')) before.remove_suffix(1);
  else if (before.ends_with(minus_sign)) before.remove_suffix(minus_sign.size());
  else return false;
  return !ends_as_word(before);
}

/// Without zeros that mean nothing.
std::string text_of(bool negative, Number number) {
  number.whole.erase(0, std::min(number.whole.find_first_not_of('0'), number.whole.size()));
  const std::size_t last = number.fraction.find_last_not_of('0');
  number.fraction.resize(last == std::string::npos ? 0 : last + 1);
  if (number.whole.empty()) number.whole = "0";
  std::string text = number.fraction.empty() ? number.whole : number.whole + '.' + number.fraction;
  return negative && text != "0" ? '-' + text : text;
}

/// The first letter in `text` from `begin` on that stands alone.
std::optional<char> lone_letter(std::string_view text, std::size_t begin) {
  for (std::size_t i = begin; i < text.size(); ++i) {
    const std::string_view behind = text.substr(i + 1);
    if (!is_capital(text[i]) || ends_as_word(text.substr(0, i)) || begins_as_word(behind)) continue;
    const bool goes_on = behind.starts_with('\'') || behind.starts_with("\u2019") ||
                         (behind.size() > 1 && behind[0] == ' ' && is_small(behind[1]));
    if (text[i] == 'I' && goes_on) continue;
    return text[i];
  }
  return std::nullopt;
}

}  // namespace

bool contains_answer(std::string_view text, std::span<const std::string> answers) {
  return std::ranges::any_of(
      answers, [&](const std::string& answer) { return text.find(trimmed(answer)) != text.npos; });
}

double pattern_reward(const Pattern& pattern, std::string_view text, std::span<const std::string> answers) {
  PatternSearch search(pattern, text);
  if (pattern.groups() == 0) return search.next() ? 1.0 : 0.0;
  std::optional<std::string_view> last;
  while (search.next()) last = search.group(1);
  if (!last) return 0.0;
  const auto is_last = [&](const std::string& answer) { return trimmed(answer) == trimmed(*last); };
  return std::ranges::any_of(answers, is_last) ? 1.0 : 0.0;
}

std::optional<std::string> last_number(std::string_view text) {
  std::optional<std::string> last;
  for (std::size_t i = 0; i < text.size(); ++i) {
    // A dot begins a number where nothing that it could belong to is before it.
    const std::string_view before = text.substr(0, i);
    const bool leading_dot =
        text[i] == '.' && digits_at(text, i + 1) > 0 && !before.ends_with('.') && !ends_as_word(before);
    if (!leading_dot && !is_digit(text[i])) continue;
    Number number = number_at(text, i);
    const bool negative = is_negative(text, i);
    i = number.end - 1;
    last = text_of(negative, std::move(number));
  }
  return last;
}

std::optional<char> choice_letter(std::string_view text) {
  const std::string lower = ascii_lower(text);
  constexpr std::string_view word = "answer";
  for (std::size_t at = lower.rfind(word); at != lower.npos; at = lower.rfind(word, at - 1)) {
    if (const auto letter = lone_letter(text, at + word.size())) return letter;
    if (at == 0) break;
  }
  return lone_letter(text, 0);
}

double length_reward(std::int64_t tokens, std::int64_t target, std::int64_t most) {
  const std::int64_t farthest = std::max(target, most - target);
  return 1.0 - static_cast<double>(std::abs(tokens - target)) / static_cast<double>(farthest);
}

BuiltInReward::BuiltInReward(const RewardConfig& config, std::int64_t max_new_tokens)
    : rule_(config.type.value()), target_(config.target), max_new_tokens_(max_new_tokens) {
  if (rule_ != RewardRule::regex) return;
  try {
    pattern_.emplace(config.pattern.value(), "data.task.reward.pattern");
  } catch (const InputError& error) {
    throw UsageError("{}", error.what());
  }
}

bool BuiltInReward::needs_answers() const {
  return rule_ != RewardRule::length && !(rule_ == RewardRule::regex && pattern_->groups() == 0);
}

void BuiltInReward::check(std::span<const std::string> answers, const std::string& where) const {
  for (const std::string& answer : answers) {
    const char* lacks = nullptr;
    if (rule_ == RewardRule::number && !last_number(answer)) lacks = "number";
    if (rule_ == RewardRule::choice && !choice_letter(answer)) lacks = "capital letter that stands alone";
    if (rule_ == RewardRule::contains && trimmed(answer).empty()) lacks = "text";
    if (lacks == nullptr) continue;
    throw InputError("{}: the right answer {} holds no {}, which data.task.reward {} looks for", where,
                     quote(answer), lacks, name_of(rule_));
  }
}

double BuiltInReward::of(const Completion& completion) const {
  const std::string& text = completion.text;
  const auto& answers = completion.answers;
  // Whether what `find` finds in the text is what it finds in an answer.
  const auto same = [&](const auto& find) {
    const auto found = find(text);
    return found && std::ranges::any_of(answers, [&](const auto& answer) { return find(answer) == found; });
  };
  switch (rule_) {
    case RewardRule::exact_match:
      return exact_match(text, answers) ? 1.0 : 0.0;
    case RewardRule::f1:
      return token_f1(text, answers);
    case RewardRule::contains:
      return contains_answer(text, answers) ? 1.0 : 0.0;
    case RewardRule::regex:
      return pattern_reward(*pattern_, text, answers);
    case RewardRule::number:
      return same(last_number) ? 1.0 : 0.0;
    case RewardRule::choice:
      return same(choice_letter) ? 1.0 : 0.0;
    case RewardRule::length:
      return length_reward(std::min(completion.tokens, max_new_tokens_), target_, max_new_tokens_);
  }
  throw Error("data.task.reward.type has the unknown value {}", static_cast<int>(rule_));
}

}  // namespace mezzo
