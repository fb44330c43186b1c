#pragma once
// How right answers are: texts against texts as SQuAD's evaluation scores them (Rajpurkar et al. 2016,
// arXiv:1606.05250), and classes against classes.
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mezzo {

// Texts are valid UTF-8.

/// In lower case, without ASCII punctuation, without the words a, an and the, with single spaces between
/// words and none around them.
std::string normalize_answer(std::string_view text);
/// Whether the prediction equals one of the right answers, all normalized.
bool exact_match(std::string_view prediction, std::span<const std::string> answers);
/// The largest F1 of the words that the prediction shares with a right answer, all normalized. Where either
/// has no words it is 1 if both have none, else 0.
double token_f1(std::string_view prediction, std::span<const std::string> answers);

/// What the answers to a classification come to, for one class.
struct ClassScores {
  std::int64_t examples = 0;   ///< that are of the class
  std::int64_t predicted = 0;  ///< that were taken for it
  std::int64_t correct = 0;    ///< both

  double precision() const;  ///< 0 where nothing was taken for the class
  double recall() const;     ///< 0 where nothing is of the class
  double f1() const;         ///< harmonic mean of both; 0 where `correct` is 0
  bool operator==(const ClassScores&) const = default;
};

/// Of each class; `labels` and `predictions` are classes [0, classes), example by example. A prediction of -1
/// is none.
std::vector<ClassScores> class_scores(std::span<const std::int32_t> labels,
                                      std::span<const std::int32_t> predictions, std::int64_t classes);
/// The mean F1 of the classes that are the label or the prediction of an example.
double macro_f1(std::span<const ClassScores> scores);

}  // namespace mezzo
