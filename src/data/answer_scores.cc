#include "mezzo/data/answer_scores.h"

#include <algorithm>
#include <map>

#include "mezzo/core/utf8.h"
#include "mezzo/data/unicode.h"

namespace mezzo {

namespace {

bool is_ascii_punctuation(char32_t c) {
  return (c >= 0x21 && c <= 0x2F) || (c >= 0x3A && c <= 0x40) || (c >= 0x5B && c <= 0x60) ||
         (c >= 0x7B && c <= 0x7E);
}

bool is_space(char32_t c) { return is_white_space(c) || (c >= 0x1C && c <= 0x1F); }

/// The text without the words a, an and the: runs of letters and digits, whatever stands around them.
std::string without_articles(std::string_view text) {
  std::string out;
  std::string word;
  const auto end_word = [&] {
    const bool is_article = word == "a" || word == "an" || word == "the";
    out += is_article ? " " : word;
    word.clear();
  };
  while (!text.empty()) {
    const CodePoint point = first_code_point(text);
    const std::string_view character = text.substr(0, point.size);
    if (is_alphanumeric(point.value)) {
      word += character;
    } else {
      end_word();
      out += character;
    }
    text.remove_prefix(point.size);
  }
  end_word();
  return out;
}

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words(1);
  while (!text.empty()) {
    const CodePoint point = first_code_point(text);
    if (!is_space(point.value)) words.back() += text.substr(0, point.size);
    else if (!words.back().empty()) words.emplace_back();
    text.remove_prefix(point.size);
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

std::vector<std::string> normalized_words(std::string_view text) {
  std::string plain;
  const std::string lower = lower_case(text);
  for (const char c : lower) {
    if (!is_ascii_punctuation(static_cast<unsigned char>(c))) plain += c;
  }
  return words_of(without_articles(plain));
}

double f1_of(const std::vector<std::string>& prediction, const std::vector<std::string>& answer) {
  if (prediction.empty() || answer.empty()) return prediction.empty() && answer.empty() ? 1.0 : 0.0;
  std::map<std::string_view, std::int64_t> left;
  for (const std::string& word : answer) ++left[word];
  std::int64_t shared = 0;
  for (const std::string& word : prediction) shared += left[word]-- > 0 ? 1 : 0;
  return 2.0 * static_cast<double>(shared) / static_cast<double>(prediction.size() + answer.size());
}

double ratio(std::int64_t part, std::int64_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

std::string normalize_answer(std::string_view text) {
  std::string out;
  for (const std::string& word : normalized_words(text)) out += (out.empty() ? "" : " ") + word;
  return out;
}

bool exact_match(std::string_view prediction, std::span<const std::string> answers) {
  const std::string normalized = normalize_answer(prediction);
  return std::ranges::any_of(
      answers, [&](const std::string& answer) { return normalize_answer(answer) == normalized; });
}

double token_f1(std::string_view prediction, std::span<const std::string> answers) {
  const std::vector<std::string> words = normalized_words(prediction);
  double best = 0.0;
  for (const std::string& answer : answers) best = std::max(best, f1_of(words, normalized_words(answer)));
  return best;
}

double ClassScores::precision() const { return ratio(correct, predicted); }
double ClassScores::recall() const { return ratio(correct, examples); }
double ClassScores::f1() const { return ratio(2 * correct, examples + predicted); }

std::vector<ClassScores> class_scores(std::span<const std::int32_t> labels,
                                      std::span<const std::int32_t> predictions, std::int64_t classes) {
  std::vector<ClassScores> scores(static_cast<std::size_t>(classes));
  for (std::size_t i = 0; i < labels.size(); ++i) {
    ++scores[static_cast<std::size_t>(labels[i])].examples;
    if (predictions[i] < 0) continue;
    ClassScores& predicted = scores[static_cast<std::size_t>(predictions[i])];
    ++predicted.predicted;
    if (labels[i] == predictions[i]) ++predicted.correct;
  }
  return scores;
}

double macro_f1(std::span<const ClassScores> scores) {
  double sum = 0.0;
  std::int64_t seen = 0;
  for (const ClassScores& one : scores) {
    if (one.examples + one.predicted == 0) continue;
    sum += one.f1();
    ++seen;
  }
  return seen == 0 ? 0.0 : sum / static_cast<double>(seen);
}

}  // namespace mezzo
