#pragma once
// Single values of a config: from YAML to a type and back. Each type of value has
//   range()       the type and its range in words,
//   parse(value)  the typed value, or a UsageError that names the place, the key, what was found and
//   expected, text(value)   YAML on one line that parses back to the same value.
// A row of the table (config_table.h) joins one of these types with a member of Config.
#include <fmt/format.h>

#include <array>
#include <charconv>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "mezzo/core/config.h"
#include "mezzo/core/error.h"
#include "mezzo/core/yaml.h"

namespace mezzo::config {

// ---- words of enumerations ------------------------------------------------------------------------------

template <typename E>
struct Word {
  E value;
  std::string_view name;
};
inline constexpr std::array task_types = {
    Word{TaskType::classification, "classification"}, Word{TaskType::multiple_choice, "multiple_choice"},
    Word{TaskType::completion, "completion"}, Word{TaskType::chat, "chat"},
    Word{TaskType::generation, "generation"}};
inline constexpr std::array task_losses = {Word{TaskLoss::options, "options"},
                                           Word{TaskLoss::language_model, "language_model"},
                                           Word{TaskLoss::accuracy, "accuracy"}};
inline constexpr std::array completion_formats = {
    Word{CompletionFormat::prompt_completion, "prompt_completion"}, Word{CompletionFormat::alpaca, "alpaca"}};
inline constexpr std::array overlong_words = {Word{Overlong::truncate, "truncate"},
                                              Word{Overlong::skip, "skip"}, Word{Overlong::error, "error"}};
inline constexpr std::array reward_rules = {Word{RewardRule::exact_match, "exact_match"},
                                            Word{RewardRule::f1, "f1"},
                                            Word{RewardRule::contains, "contains"},
                                            Word{RewardRule::regex, "regex"},
                                            Word{RewardRule::number, "number"},
                                            Word{RewardRule::choice, "choice"},
                                            Word{RewardRule::length, "length"}};
inline constexpr std::array reward_errors = {Word{OnRewardError::drop, "drop"},
                                             Word{OnRewardError::stop, "stop"}};
inline constexpr std::array data_formats = {
    Word{DataFormat::automatic, "auto"}, Word{DataFormat::jsonl, "jsonl"},
    Word{DataFormat::json, "json"},      Word{DataFormat::csv, "csv"},
    Word{DataFormat::tsv, "tsv"},        Word{DataFormat::parquet, "parquet"}};
inline constexpr std::array estimators = {Word{EstimatorKind::two_sided, "two_sided"},
                                          Word{EstimatorKind::one_sided, "one_sided"}};
inline constexpr std::array space_types = {
    Word{SpaceType::lora, "lora"}, Word{SpaceType::low_rank, "low_rank"}, Word{SpaceType::dense, "dense"},
    Word{SpaceType::vectors, "vectors"}};
inline constexpr std::array master_types = {Word{MasterType::fp32, "fp32"}, Word{MasterType::bf16, "bf16"}};
inline constexpr std::array normalizations = {
    Word{Normalization::none, "none"}, Word{Normalization::zscore, "zscore"}, Word{Normalization::std, "std"},
    Word{Normalization::ranks, "ranks"}};
inline constexpr std::array noise_kinds = {Word{NoiseKind::gaussian, "gaussian"},
                                           Word{NoiseKind::rademacher, "rademacher"}};
inline constexpr std::array optimizer_types = {
    Word{OptimizerType::sgd, "sgd"}, Word{OptimizerType::momentum, "momentum"},
    Word{OptimizerType::sign, "sign"}, Word{OptimizerType::adam, "adam"}};
inline constexpr std::array second_moments = {Word{SecondMoment::full, "full"},
                                              Word{SecondMoment::scalar, "scalar"}};
inline constexpr std::array lr_schedulers = {Word{LrScheduler::constant, "constant"},
                                             Word{LrScheduler::linear, "linear"},
                                             Word{LrScheduler::cosine, "cosine"}};
inline constexpr std::array devices = {Word{Device::automatic, "auto"}, Word{Device::cpu, "cpu"},
                                       Word{Device::cuda, "cuda"}, Word{Device::reference, "reference"}};
inline constexpr std::array precisions = {Word{Precision::automatic, "auto"}, Word{Precision::fp32, "fp32"},
                                          Word{Precision::bf16, "bf16"}};

// ---- a value to be read ---------------------------------------------------------------------------------

/// Whether a node is a text: quoted, or plain and neither a number nor a truth value in YAML 1.2.
bool is_text(const yaml::Node& node);
/// What a node holds, for a message.
std::string found(const yaml::Node& node);
/// What to add to a message where a text was expected.
const char* text_hint(const yaml::Node& node);

/// The items, each as `format` writes it, in a list's or a map's brackets.
template <typename Items, typename Format>
std::string list_text(const Items& items, const char* brackets, Format format) {
  std::string text(1, brackets[0]);
  for (const auto& item : items) text += (text.size() == 1 ? "" : ", ") + format(item);
  return text + brackets[1];
}

/// A node that is to be read as the value of a key.
struct Value {
  const yaml::Node& node;
  const KeyInfo& key;

  /// PLACE: KEY: `problem` (default: ...). `where` is the node itself, or one below it.
  [[noreturn]] void fail(const yaml::Node& where, const std::string& problem) const;
  /// The same, with "expected RANGE, found NODE" as the problem.
  [[noreturn]] void fail(const std::string& hint = "") const;
  Value with(const yaml::Node& other) const { return {other, key}; }
};

/// Digits, without what YAML 1.1 and 1.2 read differently (010), in octal, hexadecimal or with separators.
/// A UsageError for anything else.
std::string_view whole_digits(const Value& value);

// ---- types of values ------------------------------------------------------------------------------------

template <typename Int>
struct Whole {
  Int min;
  Int max;

  std::string range() const { return fmt::format("a whole number from {} to {}", min, max); }
  std::string text(Int value) const { return fmt::format("{}", value); }
  Int parse(const Value& value) const {
    const std::string_view digits = whole_digits(value);
    Int number{};
    const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (result.ec != std::errc{} || number < min || number > max) value.fail();
    return number;
  }
};

enum class Lowest { above_zero, zero };

struct Number {
  Lowest lowest = Lowest::above_zero;
  double max = std::numeric_limits<float>::max();
  bool rounded_to_fp32 = true;  ///< by the arithmetic that uses it

  std::string range() const;
  std::string text(double value) const;
  double parse(const Value& value) const;
};

/// One word of an enumeration.
template <typename Words>
struct Choice {
  const Words& words;
  using E = std::remove_cvref_t<decltype(words[0].value)>;

  std::string range() const {
    std::string text;
    for (std::size_t i = 0; i < words.size(); ++i) {
      text += i == 0 ? "" : i + 1 == words.size() ? " or " : ", ";
      text += fmt::format("`{}`", words[i].name);
    }
    return text;
  }
  std::string text(E value) const { return std::string(name_of(value)); }
  E parse(const Value& value) const {
    std::vector<std::string> names;
    for (const auto& word : words) {
      if (value.node.is_scalar() && value.node.text == word.name) return word.value;
      names.emplace_back(word.name);
    }
    const std::string near = value.node.is_scalar() ? nearest(value.node.text, names) : "";
    value.fail(near.empty() ? "" : fmt::format("; did you mean `{}`?", near));
  }
};

struct Text {
  std::string what;
  bool may_be_empty = false;

  std::string range() const { return what; }
  std::string text(const std::string& value) const { return yaml::scalar(value); }
  std::string parse(const Value& value) const;
};

/// A list of texts, none of them empty; null stands for an empty one.
struct TextsType {
  std::string what;

  std::string range() const { return what; }
  std::string text(const std::vector<std::string>& value) const;
  std::vector<std::string> parse(const Value& value) const;
};

struct Flag {
  std::string range() const { return "true or false"; }
  std::string text(bool value) const { return value ? "true" : "false"; }
  bool parse(const Value& value) const;
};

/// A path, made absolute from the working directory.
struct Path {
  std::string what;

  std::string range() const { return what; }
  std::string text(const std::string& value) const { return yaml::scalar(value); }
  std::string parse(const Value& value) const;
};

/// A model or an adapter: a path, or its name on the Hub where the Hub's cache holds it (hub_cache.h).
struct ModelPath {
  std::string what;

  std::string range() const { return what; }
  std::string text(const std::string& value) const { return yaml::scalar(value); }
  std::string parse(const Value& value) const;
};

/// A value or a word that stands for none of it.
template <typename Inner>
struct Optional {
  std::string none;  ///< null or auto
  Inner inner;
  using Result = std::optional<decltype(inner.parse(std::declval<Value>()))>;

  std::string range() const {
    return none == "null" ? inner.range() : fmt::format("`{}` or {}", none, inner.range());
  }
  std::string text(const Result& value) const { return value ? inner.text(*value) : none; }
  Result parse(const Value& value) const {
    const bool is_none = none == "null" ? value.node.kind == yaml::Node::Kind::null
                                        : value.node.is_scalar() && value.node.text == none;
    return is_none ? Result() : Result(inner.parse(value));
  }
};

/// A number between 0 and 1, both excluded.
struct Fraction {
  std::string range() const { return "a number above 0 and below 1"; }
  std::string text(double value) const { return Number{}.text(value); }
  double parse(const Value& value) const;
};

/// A number above 0 and at most 1.
struct Share {
  std::string range() const { return "a number above 0 and at most 1"; }
  std::string text(double value) const { return Number{}.text(value); }
  double parse(const Value& value) const { return Number{Lowest::above_zero, 1, false}.parse(value); }
};

/// What a moving average keeps of itself at a step.
struct Momentum {
  std::string range() const { return "a number >= 0 and below 1"; }
  std::string text(double value) const { return Number{}.text(value); }
  double parse(const Value& value) const;
};

/// Adam's two.
struct BetasType {
  Momentum one;

  std::string range() const { return "a list of two numbers >= 0 and below 1"; }
  std::string text(const std::pair<double, double>& value) const;
  std::pair<double, double> parse(const Value& value) const;
};

struct TrainFilesType {
  Path path{"the path of a data file"};
  Number weight{Lowest::above_zero, 1e9, false};

  std::string range() const;
  std::string text(const std::vector<TrainFile>& value) const;
  std::vector<TrainFile> parse(const Value& value) const;
};

struct VerbalizersType {
  std::string range() const;
  std::string text(const std::vector<Verbalizer>& value) const;
  std::vector<Verbalizer> parse(const Value& value) const;
};

struct OptionsType {
  std::string range() const;
  std::string text(const TaskOptions& value) const;
  TaskOptions parse(const Value& value) const;
};

struct ComputedFieldsType {
  std::string range() const;
  std::string text(const std::vector<ComputedField>& value) const;
  std::vector<ComputedField> parse(const Value& value) const;
};

struct TargetModulesType {
  std::string range() const;
  std::string text(const TargetModules& value) const;
  TargetModules parse(const Value& value) const;
};

struct LayersType {
  Whole<std::int64_t> layer{0, std::numeric_limits<std::int32_t>::max()};

  std::string range() const;
  std::string text(const std::vector<std::int64_t>& value) const;
  std::vector<std::int64_t> parse(const Value& value) const;
};

struct ResumeType {
  Path path{"the path of a snapshot"};

  std::string range() const;
  std::string text(const ResumeFrom& value) const;
  ResumeFrom parse(const Value& value) const;
};

}  // namespace mezzo::config
