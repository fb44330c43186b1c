#include "mezzo/core/config.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <limits>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/core/yaml.h"

namespace mezzo {
namespace {

using yaml::Node;

// ---- words of enumerations ------------------------------------------------------------------------------

template <typename E>
struct Word {
  E value;
  std::string_view name;
};
constexpr std::array task_types = {Word{TaskType::classification, "classification"},
                                   Word{TaskType::completion, "completion"}};
constexpr std::array task_losses = {Word{TaskLoss::options, "options"},
                                    Word{TaskLoss::language_model, "language_model"}};
constexpr std::array estimators = {Word{EstimatorKind::two_sided, "two_sided"},
                                   Word{EstimatorKind::one_sided, "one_sided"}};
constexpr std::array noise_kinds = {Word{NoiseKind::gaussian, "gaussian"},
                                    Word{NoiseKind::rademacher, "rademacher"}};
constexpr std::array optimizer_types = {Word{OptimizerType::sgd, "sgd"}};
constexpr std::array lr_schedulers = {Word{LrScheduler::constant, "constant"},
                                      Word{LrScheduler::linear, "linear"},
                                      Word{LrScheduler::cosine, "cosine"}};
constexpr std::array devices = {Word{Device::automatic, "auto"}, Word{Device::cpu, "cpu"},
                                Word{Device::cuda, "cuda"}, Word{Device::reference, "reference"}};
constexpr std::array precisions = {Word{Precision::automatic, "auto"}, Word{Precision::fp32, "fp32"},
                                   Word{Precision::bf16, "bf16"}};

template <typename Words, typename E>
std::string_view find_name(const Words& words, E value) {
  for (const auto& word : words) {
    if (word.value == value) return word.name;
  }
  throw Error("an enumeration of the config holds {}, which has no name", static_cast<int>(value));
}

// ---- scalars of the YAML 1.2 core schema ----------------------------------------------------------------

bool is_digits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// A decimal number: [-+]? ( .[0-9]+ | [0-9]+ ( .[0-9]* )? ) ( [eE] [-+]? [0-9]+ )?
bool is_decimal(std::string_view text) {
  const auto skip_sign = [&] {
    if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  };
  const auto skip_digits = [&] {
    const std::size_t count = std::min(text.find_first_not_of("0123456789"), text.size());
    text.remove_prefix(count);
    return count;
  };
  skip_sign();
  std::size_t digits = skip_digits();
  if (!text.empty() && text[0] == '.') {
    text.remove_prefix(1);
    digits += skip_digits();
  }
  if (digits == 0) return false;
  if (text.empty()) return true;
  if (text[0] != 'e' && text[0] != 'E') return false;
  text.remove_prefix(1);
  skip_sign();
  return is_digits(text);
}

// What YAML reads as a number or a truth value when it is not quoted.
bool is_number_or_truth(std::string_view text) {
  constexpr std::array<std::string_view, 6> truths = {"true", "True", "TRUE", "false", "False", "FALSE"};
  if (std::find(truths.begin(), truths.end(), text) != truths.end() || is_decimal(text)) return true;
  if (text.starts_with("0x"))
    return text.find_first_not_of("0123456789abcdefABCDEF", 2) == text.npos && text.size() > 2;
  if (text.starts_with("0o")) return text.find_first_not_of("01234567", 2) == text.npos && text.size() > 2;
  if (text.starts_with('-') || text.starts_with('+')) text.remove_prefix(1);
  constexpr std::array<std::string_view, 6> special = {".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN"};
  return std::find(special.begin(), special.end(), text) != special.end();
}

bool is_text(const Node& node) {
  return node.kind == Node::Kind::quoted ||
         (node.kind == Node::Kind::plain && !is_number_or_truth(node.text));
}

std::string found(const Node& node) {
  switch (node.kind) {
    case Node::Kind::null:
      return "null";
    case Node::Kind::plain:
      return yaml::printable(node.text);
    case Node::Kind::quoted:
      return "the text \"" + yaml::printable(node.text) + "\"";
    case Node::Kind::list:
      return "a list";
    case Node::Kind::map:
      return "a map";
  }
  throw Error("a node of the config has the unknown kind {}", static_cast<int>(node.kind));
}

// ---- types of values ------------------------------------------------------------------------------------

// Each has: range(), the type and range in words; parse(value), a typed value or an error; text(value), YAML.

// A node that is to be read as the value of a key.
struct Value {
  const Node& node;
  const KeyInfo& key;

  [[noreturn]] void fail(const Node& where, const std::string& problem) const {
    const bool required = key.default_value.starts_with("required");
    throw UsageError("{}: {}: {} ({}{})", where.place.text(), key.name, problem,
                     required ? "" : "default: ", key.default_value);
  }
  [[noreturn]] void fail(const std::string& hint = "") const {
    fail(node, fmt::format("expected {}, found {}{}", key.range, found(node), hint));
  }
  Value with(const Node& other) const { return {other, key}; }
};

const char* text_hint(const Node& node) {
  if (node.kind == Node::Kind::plain) return "; quote it if that text is meant";
  if (node.kind == Node::Kind::list || node.kind == Node::Kind::map)
    return "; quote a text that starts with { or [";
  return "";
}

const char* number_hint(const Node& node) {
  return node.kind == Node::Kind::quoted && is_decimal(node.text) ? "; write the number without quotes" : "";
}

template <typename Int>
struct Whole {
  Int min;
  Int max;

  std::string range() const { return fmt::format("a whole number from {} to {}", min, max); }
  std::string text(Int value) const { return fmt::format("{}", value); }
  Int parse(const Value& value) const {
    if (value.node.kind != Node::Kind::plain) value.fail(number_hint(value.node));
    const std::string& text = value.node.text;
    const std::string_view digits = std::string_view(text).substr(text.starts_with('-') ? 1 : 0);
    // No octal, hexadecimal, fractions or separators, nor what YAML 1.1 and 1.2 read differently (010).
    if (!is_digits(digits) || (digits.size() > 1 && digits[0] == '0')) {
      value.fail(is_number_or_truth(text) || text.find('_') != text.npos
                     ? "; write it in decimal digits alone"
                     : "");
    }
    Int number{};
    const auto result = std::from_chars(text.data(), text.data() + text.size(), number);
    if (result.ec != std::errc{} || number < min || number > max) value.fail();
    return number;
  }
};

enum class Lowest { above_zero, zero };

struct Number {
  Lowest lowest = Lowest::above_zero;
  double max = std::numeric_limits<float>::max();
  bool rounded_to_fp32 = true;  // by the arithmetic that uses it

  std::string range() const {
    const char* low = lowest == Lowest::zero ? ">= 0" : "> 0";
    return rounded_to_fp32 ? fmt::format("a finite number {}", low)
                           : fmt::format("a number {} and at most {}", low, text(max));
  }
  // The shortest text that reads back as the same number.
  std::string text(double value) const { return fmt::format("{}", value); }
  double parse(const Value& value) const {
    if (value.node.kind != Node::Kind::plain) value.fail(number_hint(value.node));
    std::string_view text = value.node.text;
    if (!is_decimal(text)) value.fail();
    if (text.starts_with('+')) text.remove_prefix(1);
    double number = 0;
    const auto result = std::from_chars(text.data(), text.data() + text.size(), number);
    if (result.ec != std::errc{}) value.fail(", which is out of a double's range");
    if (number < 0 || (number == 0 && lowest == Lowest::above_zero)) value.fail();
    if (!rounded_to_fp32 && number > max) value.fail();
    if (rounded_to_fp32) {
      // The step is computed in fp32, where a tiny number would silently be 0.
      if (number > max) value.fail(", which is infinite in fp32");
      if (number != 0 && static_cast<float>(number) == 0) value.fail(", which is 0 in fp32");
    }
    return number + 0.0;  // -0 is 0
  }
};

template <typename Words>
struct Choice {
  const Words& words;
  using E = decltype(words[0].value);

  std::string range() const {
    std::string text;
    for (std::size_t i = 0; i < words.size(); ++i) {
      text += i == 0 ? "" : i + 1 == words.size() ? " or " : ", ";
      text += fmt::format("`{}`", words[i].name);
    }
    return text;
  }
  std::string text(std::remove_cvref_t<E> value) const { return std::string(find_name(words, value)); }
  std::remove_cvref_t<E> parse(const Value& value) const {
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

  std::string range() const { return what; }
  std::string text(const std::string& value) const { return yaml::scalar(value); }
  std::string parse(const Value& value) const {
    if (!is_text(value.node)) value.fail(text_hint(value.node));
    if (value.node.text.empty()) value.fail();
    return value.node.text;
  }
};

struct Path {
  std::string what;

  std::string range() const { return what; }
  std::string text(const std::string& value) const { return yaml::scalar(value); }
  std::string parse(const Value& value) const {
    const std::string written = Text{what}.parse(value);
    if (written.find('\0') != written.npos) value.fail(", which holds a NUL");
    std::filesystem::path path = std::filesystem::absolute(written).lexically_normal();
    if (!path.has_filename()) path = path.parent_path();  // "runs/a/"
    return path.string();
  }
};

template <typename Inner>
struct Optional {
  std::string none;  // the word for it: null or auto
  Inner inner;
  using Result = std::optional<decltype(inner.parse(std::declval<Value>()))>;

  std::string range() const {
    return none == "null" ? inner.range() : fmt::format("`{}` or {}", none, inner.range());
  }
  std::string text(const Result& value) const { return value ? inner.text(*value) : none; }
  Result parse(const Value& value) const {
    const bool is_none = none == "null" ? value.node.kind == Node::Kind::null
                                        : value.node.is_scalar() && value.node.text == none;
    return is_none ? Result() : Result(inner.parse(value));
  }
};

template <typename Items, typename Format>
std::string list_text(const Items& items, const char* brackets, Format format) {
  std::string text(1, brackets[0]);
  for (const auto& item : items) text += (text.size() == 1 ? "" : ", ") + format(item);
  return text + brackets[1];
}

struct Verbalizers {
  // Longer implicit keys would not be valid YAML when the config is printed (1024 characters at most).
  static constexpr std::size_t longest_label = 128;

  std::string range() const {
    return "a map of at least two entries, the text of a label: a non-empty option";
  }
  std::string text(const std::vector<Verbalizer>& value) const {
    if (value.empty()) return "null";
    return list_text(value, "{}", [](const Verbalizer& entry) {
      return yaml::scalar(entry.label) + ": " + yaml::scalar(entry.option);
    });
  }
  std::vector<Verbalizer> parse(const Value& value) const {
    const Node& map = value.node;
    if (map.kind == Node::Kind::null) return {};
    if (map.kind != Node::Kind::map) value.fail();
    std::vector<Verbalizer> result;
    std::map<std::string, std::string> labels;  // by option
    for (std::size_t i = 0; i < map.items.size(); ++i) {
      const std::string& label = map.keys[i].text;
      const Node& option = map.items[i];
      const std::string name = yaml::printable(label);
      if (label.size() > longest_label) {
        value.fail(map.keys[i], fmt::format("the label '{}' has {} bytes, expected at most {}", name,
                                            label.size(), longest_label));
      }
      if (!is_text(option) || option.text.empty()) {
        value.fail(option, fmt::format("expected a non-empty text as the option of label '{}', found {}{}",
                                       name, found(option), text_hint(option)));
      }
      if (const auto [other, is_new] = labels.emplace(option.text, label); !is_new) {
        value.fail(
            option,
            fmt::format("the labels '{}' and '{}' have the same option \"{}\", expected different ones",
                        yaml::printable(other->second), name, yaml::printable(option.text)));
      }
      result.push_back({label, option.text});
    }
    if (result.size() < 2) value.fail(map, fmt::format("expected {}, found {}", range(), result.size()));
    return result;
  }
};

// Parses the items of a list that is a set in meaning: not empty, nothing twice.
template <typename T, typename ParseItem>
std::vector<T> parse_set(const Value& value, ParseItem parse_item) {
  std::vector<T> result;
  std::set<T> seen;
  if (value.node.items.empty())
    value.fail(value.node, fmt::format("expected {}, found an empty list", value.key.range));
  for (const Node& item : value.node.items) {
    result.push_back(parse_item(item));
    if (!seen.insert(result.back()).second)
      value.fail(item, fmt::format("{} stands in the list twice", found(item)));
  }
  return result;
}

struct TargetModulesType {
  static constexpr const char* all_linear = "all-linear";

  std::string range() const { return "a list of module names or suffixes, or `all-linear`"; }
  std::string text(const TargetModules& value) const {
    if (value.all_linear) return all_linear;
    return value.names.empty() ? "null"
                               : list_text(value.names, "[]", [](const auto& n) { return yaml::scalar(n); });
  }
  TargetModules parse(const Value& value) const {
    const Node& node = value.node;
    if (node.kind == Node::Kind::null) return {};
    if (node.is_scalar() && node.text == all_linear) return {.all_linear = true, .names = {}};
    if (node.kind != Node::Kind::list) {
      value.fail(is_text(node) ? fmt::format("; write [{}] for one name", yaml::printable(node.text)) : "");
    }
    return {.all_linear = false,
            .names = parse_set<std::string>(value, [&](const Node& item) {
              if (!is_text(item) || item.text.empty() || item.text == all_linear) {
                value.fail(item, fmt::format("expected the name of a module in the list, found {}{}",
                                             found(item), text_hint(item)));
              }
              return item.text;
            })};
  }
};

struct Layers {
  Whole<std::int64_t> layer{0, std::numeric_limits<std::int32_t>::max()};

  std::string range() const { return "a layer's number from 0, or a list of them"; }
  std::string text(const std::vector<std::int64_t>& value) const {
    return list_text(value, "[]", [&](std::int64_t number) { return layer.text(number); });
  }
  std::vector<std::int64_t> parse(const Value& value) const {
    if (value.node.kind != Node::Kind::list) return {layer.parse(value)};
    return parse_set<std::int64_t>(value, [&](const Node& item) { return layer.parse(value.with(item)); });
  }
};

struct Resume {
  Path path{"the path of a snapshot"};

  std::string range() const { return "`auto`, `never` or the path of a snapshot"; }
  std::string text(const ResumeFrom& value) const {
    switch (value.kind) {
      case ResumeFrom::Kind::automatic:
        return "auto";
      case ResumeFrom::Kind::never:
        return "never";
      case ResumeFrom::Kind::snapshot:
        return path.text(value.path);
    }
    throw Error("resume_from_checkpoint has the unknown kind {}", static_cast<int>(value.kind));
  }
  ResumeFrom parse(const Value& value) const {
    if (value.node.is_scalar() && value.node.text == "auto") return {};
    if (value.node.is_scalar() && value.node.text == "never") return {ResumeFrom::Kind::never, ""};
    return {ResumeFrom::Kind::snapshot, path.parse(value)};
  }
};

// ---- the table ------------------------------------------------------------------------------------------

// Which tasks use a key.
enum class For { every_task, classification, completion };

struct Key {
  KeyInfo info;
  For task = For::every_task;
  std::vector<std::string> synonyms;  // names that other programs have for it, for "nearest known key"
  std::function<void(const Value&, Config&)> read;
  std::function<std::string(const Config&)> write;

  Key& defaults_to(std::string text) {
    info.default_value = std::move(text);
    return *this;
  }
  Key& used_for(For which) {
    task = which;
    return *this;
  }
  Key& also_called(std::initializer_list<std::string> names) {
    synonyms = names;
    return *this;
  }
};

// A row; `access` gives the member of a (const or not) Config that the key stands for. Without defaults_to()
// the default is what a fresh Config holds.
template <typename Access, typename Type>
Key key(std::string name, Access access, Type type, Resumption resumption, std::string description) {
  Key row;
  row.read = [access, type](const Value& value, Config& config) { access(config) = type.parse(value); };
  row.write = [access, type](const Config& config) { return type.text(access(config)); };
  row.info = {.name = std::move(name),
              .range = type.range(),
              .default_value = row.write(Config{}),
              .description = std::move(description),
              .resumption = resumption};
  return row;
}

std::vector<Key> make_table() {
  constexpr std::int64_t int32_max = std::numeric_limits<std::int32_t>::max();
  // Counts fit 32 bits, so that products of two of them fit 64; steps stay exact as JSON numbers (doubles).
  const Whole<std::int64_t> count{1, int32_max};
  const Whole<std::int64_t> steps{1, 1'000'000'000'000'000};
  const Whole<std::int64_t> steps_or_none{0, steps.max};
  const Whole<std::uint64_t> seed{0, std::numeric_limits<std::uint64_t>::max()};
  const Path directory{"a directory"};
  const Path json_lines{"the path of a JSON-lines file"};
  const Text field{"the name of a field"};
  constexpr auto free = Resumption::free;
  constexpr auto fixed = Resumption::fixed;

#define MEMBER(m) \
  [](auto& c) -> auto& { return c.m; }
  return {
      key("model.path", MEMBER(model.path), directory, Resumption::fixed_outcome,
          "The model, a Hugging Face directory with config.json, safetensors and a tokenizer.")
          .defaults_to("required")
          .also_called({"model_name_or_path", "model_name", "pretrained_model_name_or_path", "base_model"}),

      key("data.train", MEMBER(data.train), Optional<Path>{"null", json_lines}, fixed,
          "The training examples, one JSON object a line.")
          .defaults_to("required for train")
          .also_called({"train_file", "dataset"}),
      key("data.validation", MEMBER(data.validation), Optional<Path>{"null", json_lines}, fixed,
          "The examples that evaluations read.")
          .defaults_to("null, no evaluation; required for eval")
          .also_called({"validation_file", "eval", "test"}),
      key("data.max_train_examples", MEMBER(data.max_train_examples),
          Optional<Whole<std::int64_t>>{"null", count}, fixed,
          "Train on this many examples, the first of a shuffle by the data seed.")
          .defaults_to("null, all")
          .also_called({"max_train_samples", "num_train"}),
      key("data.max_length", MEMBER(data.max_length), Optional<Whole<std::int64_t>>{"null", count}, fixed,
          "Tokens an example at most; longer ones lose tokens from the left, never the start token or the "
          "template's own words.")
          .defaults_to("null, the model's")
          .also_called({"max_seq_length", "block_size", "model_max_length"}),
      key("data.task.type", MEMBER(data.task.type), Choice<decltype(task_types)>{task_types}, fixed,
          "What an example is: a text and the label of its class, or a prompt and its completion.")
          .defaults_to("required"),
      key("data.task.template", MEMBER(data.task.prompt_template),
          Optional<Text>{"null", {"a text with at least one {field}"}}, fixed,
          "The prompt; {field} stands for that field of the example, {{ and }} for literal braces.")
          .defaults_to("required for classification")
          .used_for(For::classification),
      key("data.task.label", MEMBER(data.task.label), field, fixed, "The field that holds the label.")
          .used_for(For::classification)
          .also_called({"label_field", "label_column"}),
      key("data.task.verbalizers", MEMBER(data.task.verbalizers), Verbalizers{}, fixed,
          "For each label the option that follows the prompt, its leading space included.")
          .defaults_to("required for classification")
          .used_for(For::classification)
          .also_called({"options", "labels", "label_words"}),
      key("data.task.loss", MEMBER(data.task.loss), Choice<decltype(task_losses)>{task_losses}, fixed,
          "Cross entropy over the options' mean token log-probabilities (`options`), or the loss of the "
          "right option's or the completion's tokens (`language_model`).")
          .defaults_to("options; language_model for completion"),
      key("data.task.prompt", MEMBER(data.task.prompt), field, fixed, "The field that holds the prompt.")
          .used_for(For::completion),
      key("data.task.completion", MEMBER(data.task.completion), field, fixed,
          "The field that holds the completion.")
          .used_for(For::completion),

      key("lora.r", MEMBER(lora.r), Optional<Whole<std::int64_t>>{"null", count}, fixed,
          "The rank of the adapters.")
          .defaults_to("8; with lora.adapter its own")
          .also_called({"rank", "lora_r", "lora_rank"}),
      key("lora.lora_alpha", MEMBER(lora.lora_alpha), Optional<Number>{"null", {}}, fixed,
          "The adapters' output is scaled by lora_alpha / r.")
          .defaults_to("16; with lora.adapter its own")
          .also_called({"alpha"}),
      key("lora.target_modules", MEMBER(lora.target_modules), TargetModulesType{}, fixed,
          "The linear layers that get an adapter, as in PEFT; null stands for the default.")
          .defaults_to("the family's query and value ([q_proj, v_proj]); with lora.adapter its own")
          .also_called({"modules", "targets"}),
      key("lora.layers_to_transform", MEMBER(lora.layers_to_transform), Optional<Layers>{"null", {}}, fixed,
          "The decoder layers that get adapters.")
          .defaults_to("null, all; with lora.adapter its own")
          .also_called({"layers"}),
      key("lora.adapter", MEMBER(lora.adapter), Optional<Path>{"null", {"the path of a PEFT adapter"}}, fixed,
          "The adapter to start from, copied into the run; r, lora_alpha, target_modules and "
          "layers_to_transform have to agree with it where they are given.")
          .defaults_to("null, a fresh one")
          .also_called({"adapter_name_or_path", "init_adapter"}),

      key("zo.directions", MEMBER(zo.directions), count, fixed, "Random directions a step.")
          .also_called({"num_directions", "n_directions", "perturbations", "num_perturbations"}),
      key("zo.epsilon", MEMBER(zo.epsilon), Number{}, fixed,
          "The size of the perturbation along a direction.")
          .also_called({"eps", "zo_eps"}),
      key("zo.estimator", MEMBER(zo.estimator), Choice<decltype(estimators)>{estimators}, fixed,
          "Two losses a direction, on both its sides, or one loss a direction and one unperturbed loss a "
          "step."),
      key("zo.noise", MEMBER(zo.noise), Choice<decltype(noise_kinds)>{noise_kinds}, fixed,
          "The distribution of a direction's elements.")
          .also_called({"distribution"}),
      key("zo.probes_per_forward", MEMBER(zo.probes_per_forward),
          Optional<Whole<std::int64_t>>{"auto", count}, free,
          "The most probes that one forward evaluates together; it changes speed and memory, never results."),

      key("optimizer.type", MEMBER(optimizer.type), Choice<decltype(optimizer_types)>{optimizer_types}, fixed,
          "The update rule.")
          .also_called({"optim"}),
      key("optimizer.learning_rate", MEMBER(optimizer.learning_rate), Number{}, fixed,
          "The peak learning rate.")
          .also_called({"lr"}),
      key("optimizer.weight_decay", MEMBER(optimizer.weight_decay), Number{Lowest::zero}, fixed,
          "Decoupled weight decay: each step also takes learning rate x weight_decay of the trainables away.")
          .also_called({"wd"}),
      key("optimizer.lr_scheduler_type", MEMBER(optimizer.lr_scheduler_type),
          Choice<decltype(lr_schedulers)>{lr_schedulers}, fixed,
          "How the learning rate goes on after the warm-up: it stays, or falls to 0 at max_steps.")
          .also_called({"schedule"}),
      key("optimizer.warmup_steps", MEMBER(optimizer.warmup_steps), steps_or_none, fixed,
          "Steps over which the learning rate rises linearly from 0; with a linear or cosine schedule only."),

      key("train.max_steps", MEMBER(train.max_steps), steps, Resumption::schedule, "Steps of the whole run.")
          .also_called({"steps", "num_steps", "epochs", "num_train_epochs", "num_epochs"}),
      key("train.batch_size", MEMBER(train.batch_size), count, fixed, "Examples of a batch, over all ranks.")
          .also_called({"per_device_train_batch_size", "batch"}),
      key("train.gradient_accumulation_steps", MEMBER(train.gradient_accumulation_steps), count, fixed,
          "Batches whose losses are added up for one step, under the same directions."),
      key("train.batch_slices", MEMBER(train.batch_slices), count, fixed,
          "Slices that a batch is cut into, so that ranks can share it; at most batch_size."),
      key("train.seed", MEMBER(train.seed), seed, fixed, "The 64-bit seed of directions and initial values."),
      key("train.data_seed", MEMBER(train.data_seed), seed, fixed, "The 64-bit seed of the examples' order.")
          .defaults_to("train.seed"),
      key("train.output_dir", MEMBER(train.output_dir), Optional<Path>{"null", directory}, free,
          "The run's folder.")
          .defaults_to("required for train"),
      key("train.eval_steps", MEMBER(train.eval_steps), steps, free, "Steps between evaluations."),
      key("train.save_steps", MEMBER(train.save_steps), steps, free, "Steps between snapshots."),
      key("train.save_total_limit", MEMBER(train.save_total_limit), count, free,
          "Snapshots that are kept; older ones are deleted."),
      key("train.logging_steps", MEMBER(train.logging_steps), steps, free,
          "Steps between lines of progress."),
      key("train.trajectory_sync_steps", MEMBER(train.trajectory_sync_steps), steps, free,
          "Steps between moments when the trajectory is made to reach the disk."),
      key("train.hash_steps", MEMBER(train.hash_steps), steps, free,
          "Steps between comparisons of the trainables' hash across ranks."),
      key("train.resume_from_checkpoint", MEMBER(train.resume_from_checkpoint), Resume{}, free,
          "Go on from the newest valid snapshot in output_dir if there is one, start afresh, or go on from "
          "the snapshot named."),

      key("runtime.device", MEMBER(runtime.device), Choice<decltype(devices)>{devices},
          Resumption::fixed_outcome,
          "Where to compute; `reference` is slow, plain code for checking the others."),
      key("runtime.dtype", MEMBER(runtime.dtype), Choice<decltype(precisions)>{precisions},
          Resumption::fixed_outcome, "The type of weights and activations; trainables are always fp32.")
          .also_called({"precision", "torch_dtype"}),
      key("runtime.threads", MEMBER(runtime.threads), Optional<Whole<std::int64_t>>{"auto", count}, free,
          "CPU threads a rank.")
          .also_called({"num_threads"}),
      key("runtime.timeout_s", MEMBER(runtime.timeout_s), Number{Lowest::above_zero, 1e9, false}, free,
          "Seconds without a heartbeat after which a rank is given up."),
  };
#undef MEMBER
}

const std::vector<Key>& table() {
  static const std::vector<Key> rows = make_table();
  return rows;
}

const Key* find_key(std::string_view name) {
  for (const Key& row : table()) {
    if (row.info.name == name) return &row;
  }
  return nullptr;
}

// "data.task.loss" → {"data.task", "loss"}
std::pair<std::string, std::string> split_leaf(const std::string& name) {
  const std::size_t dot = name.rfind('.');
  return dot == name.npos ? std::pair(std::string(), name)
                          : std::pair(name.substr(0, dot), name.substr(dot + 1));
}

// The sections, "data" and "data.task" among them, in the table's order.
std::vector<std::string> section_names() {
  std::vector<std::string> sections;
  for (const Key& row : table()) {
    for (std::size_t dot = row.info.name.find('.'); dot != std::string::npos;
         dot = row.info.name.find('.', dot + 1)) {
      const std::string section = row.info.name.substr(0, dot);
      if (std::find(sections.begin(), sections.end(), section) == sections.end()) sections.push_back(section);
    }
  }
  return sections;
}

bool is_section(const std::string& name) {
  const std::vector<std::string> sections = section_names();
  return std::find(sections.begin(), sections.end(), name) != sections.end();
}

// ---- unknown keys ---------------------------------------------------------------------------------------

// The known key or section, by its full name, that `leaf` in `section` was most likely meant to be, or "".
std::string nearest_known(const std::string& section, const std::string& leaf) {
  if (leaf.size() > 100) return "";  // nobody's slip of the pen, and slow to compare
  std::vector<std::string> names = section_names();
  for (const Key& row : table()) names.push_back(row.info.name);

  for (const std::string& name : names) {  // the right name in the wrong section, or written out with dots
    if (split_leaf(name).second == leaf || name == leaf) return name;
  }
  for (const Key& row : table()) {
    if (std::find(row.synonyms.begin(), row.synonyms.end(), leaf) != row.synonyms.end()) return row.info.name;
  }
  std::vector<std::string> here, elsewhere;
  for (const std::string& name : names) {
    (split_leaf(name).first == section ? here : elsewhere).push_back(split_leaf(name).second);
  }
  const auto full_name = [&](const std::string& near) {
    const std::string sibling = section.empty() ? near : section + "." + near;
    if (std::find(names.begin(), names.end(), sibling) != names.end()) return sibling;
    for (const std::string& name : names) {
      if (split_leaf(name).second == near) return name;
    }
    return std::string();
  };
  if (const std::string near = nearest(leaf, here); !near.empty()) return full_name(near);
  for (const std::string& name : names) {
    const std::string known = split_leaf(name).second;
    const bool overlap = known.find(leaf) != known.npos || leaf.find(known) != leaf.npos;
    if (overlap && std::min(known.size(), leaf.size()) >= 3) return name;
  }
  if (const std::string near = nearest(leaf, elsewhere); near.size() > 2) return full_name(near);
  return "";
}

/// What stands in `section`, for a name that is near to none of it.
std::string known_in(const std::string& section) {
  std::string known;
  for (const std::string& name : section_names()) {
    if (split_leaf(name).first == section) known += (known.empty() ? "" : ", ") + name;
  }
  for (const Key& row : table()) {
    if (split_leaf(row.info.name).first == section) known += (known.empty() ? "" : ", ") + row.info.name;
  }
  return "known there: " + known;
}

/// How an error about the unknown `leaf` in `section` ends.
std::string nearest_text(const std::string& section, const std::string& leaf) {
  const std::string near = nearest_known(section, leaf);
  if (near.empty()) return known_in(section);
  return fmt::format("the nearest known {} is '{}'", is_section(near) ? "section" : "key", near);
}

[[noreturn]] void fail_unknown(const std::string& where, const std::string& section,
                               const std::string& leaf) {
  const std::string place =
      section.empty() ? "at the top level" : fmt::format("in the section '{}'", section);
  if (const std::size_t colon = leaf.find(':'); colon != leaf.npos) {
    throw UsageError(
        "{}: unknown key '{}' {}; a key and its value are written with a space between, '{}: VALUE'", where,
        yaml::printable(leaf), place, yaml::printable(leaf.substr(0, colon)));
  }
  throw UsageError("{}: unknown key '{}' {}; {}", where, yaml::printable(leaf), place,
                   nearest_text(section, leaf));
}

[[noreturn]] void fail_section(const std::string& where, const std::string& section, const Node& node) {
  const bool no_space = node.is_scalar() && node.text.find(':') != node.text.npos;
  throw UsageError("{}: '{}' is a section, expected a map of its keys, found {}{}", where, section,
                   found(node),
                   no_space ? "; a key and its value are written with a space between, 'key: VALUE'" : "");
}

// ---- overrides ------------------------------------------------------------------------------------------

constexpr std::string_view verbalizers_name = "data.task.verbalizers";

// The map of `section` (dotted) below `root`, made where it is missing or empty.
Node& section_node(Node& root, const std::string& section, const yaml::Place& place) {
  Node* node = &root;
  std::string so_far;
  for (std::size_t begin = 0; begin <= section.size();) {
    const std::size_t end = std::min(section.find('.', begin), section.size());
    const std::string part = section.substr(begin, end - begin);
    so_far += (so_far.empty() ? "" : ".") + part;
    Node* child = node->find(part);
    if (child == nullptr) {
      node->set(part, Node{.kind = Node::Kind::map, .text = {}, .keys = {}, .items = {}, .place = place});
      child = node->find(part);
    }
    if (child->kind == Node::Kind::null) child->kind = Node::Kind::map;
    if (child->kind != Node::Kind::map) fail_section(child->place.text(), so_far, *child);
    node = child;
    begin = end + 1;
  }
  return *node;
}

// Puts "a.b=value" over the tree; data.task.verbalizers.LABEL=option sets one entry of that map.
void apply_override(Node& root, const std::string& text, std::set<std::string>& seen) {
  const std::string where = fmt::format("override '{}'", yaml::printable(text));
  const std::size_t equals = text.find('=');
  if (equals == text.npos || equals == 0) throw UsageError("{}: expected a.b=value", where);
  const std::string name = text.substr(0, equals);
  const std::string value = text.substr(equals + 1);
  if (is_section(name)) {
    throw UsageError("{}: '{}' is a section; override its keys one by one, {}.KEY=value", where, name, name);
  }

  const std::string verbalizers(verbalizers_name);
  const bool one_verbalizer = name.starts_with(verbalizers + ".");
  if (!one_verbalizer && find_key(name) == nullptr) {
    const auto [section, leaf] = split_leaf(name);
    if (section.empty() || is_section(section)) fail_unknown(where, section, leaf);
    auto [parent, unknown] = split_leaf(section);  // down to the first part that is unknown
    while (!parent.empty() && !is_section(parent)) std::tie(parent, unknown) = split_leaf(parent);
    throw UsageError("{}: unknown section '{}'; {}", where, yaml::printable(section),
                     nearest_text(parent, unknown));
  }
  bool repeated = !seen.insert(name).second;
  if (one_verbalizer) repeated |= seen.contains(verbalizers);
  if (name == verbalizers) {
    repeated |= std::any_of(seen.begin(), seen.end(),
                            [&](const auto& s) { return s.starts_with(verbalizers + "."); });
  }
  if (repeated) throw UsageError("{}: '{}' is overridden twice; expected once", where, yaml::printable(name));

  Node node = yaml::parse(value, where, false);
  if (node.kind == Node::Kind::null && value.find_first_not_of(" \t\r\n") == value.npos) {
    throw UsageError("{}: has no value; expected {}, or null where that is allowed", where,
                     find_key(one_verbalizer ? verbalizers : name)->info.range);
  }
  if (one_verbalizer) {
    section_node(root, verbalizers, node.place).set(name.substr(verbalizers.size() + 1), std::move(node));
  } else {
    const auto [section, leaf] = split_leaf(name);
    section_node(root, section, node.place).set(leaf, std::move(node));
  }
}

// ---- from tree to config --------------------------------------------------------------------------------

using Given = std::map<std::string, yaml::Place>;  // keys that have a value other than null, and where

void read_section(const Node& map, const std::string& section, Config& config, Given& given) {
  for (std::size_t i = 0; i < map.items.size(); ++i) {
    const std::string& leaf = map.keys[i].text;
    const Node& node = map.items[i];
    const std::string where = map.keys[i].place.text();
    const std::string name = section.empty() ? leaf : section + "." + leaf;
    if (leaf.find('.') != leaf.npos) fail_unknown(where, section, leaf);
    if (const Key* row = find_key(name)) {
      row->read({node, row->info}, config);
      if (node.kind != Node::Kind::null) given.emplace(name, node.place);
    } else if (is_section(name)) {
      if (node.kind == Node::Kind::null) continue;  // a section with all its keys commented out
      if (node.kind != Node::Kind::map) fail_section(where, name, node);
      read_section(node, name, config, given);
    } else {
      fail_unknown(where, section, leaf);
    }
  }
}

void check_required(const Given& given, const Config& config, ConfigUse use, const std::string& source) {
  std::vector<std::string> required = {"model.path", "data.task.type"};
  if (use == ConfigUse::train) required.insert(required.end(), {"data.train", "train.output_dir"});
  if (use == ConfigUse::eval) required.emplace_back("data.validation");
  if (given.contains("data.task.type") && config.data.task.type == TaskType::classification) {
    required.insert(required.end(), {"data.task.template", std::string(verbalizers_name)});
  }
  std::string missing;
  for (const std::string& name : required) {
    if (given.contains(name)) continue;
    missing += fmt::format("{}{} ({})", missing.empty() ? "" : ", ", name, find_key(name)->info.range);
  }
  if (!missing.empty()) throw UsageError("{}: missing, but required: {}", source, missing);
}

void check_task(const Given& given, Config& config) {
  TaskConfig& task = config.data.task;
  const For current = task.type == TaskType::classification ? For::classification : For::completion;
  for (const Key& row : table()) {
    if (row.task == For::every_task || row.task == current || !given.contains(row.info.name)) continue;
    throw UsageError("{}: {}: is not used by a {} task; expected the key to be left out",
                     given.at(row.info.name).text(), row.info.name, name_of(task.type));
  }
  if (task.type == TaskType::completion) {
    if (given.contains("data.task.loss") && task.loss != TaskLoss::language_model) {
      throw UsageError(
          "{}: data.task.loss: expected language_model, the one loss of a completion task, found {}",
          given.at("data.task.loss").text(), name_of(task.loss));
    }
    task.loss = TaskLoss::language_model;
  } else {
    parse_template(*task.prompt_template, given.at("data.task.template").text() + ": data.task.template");
  }
}

void check_together(const Given& given, const Config& config) {
  const TrainConfig& train = config.train;
  if (train.batch_slices > train.batch_size) {
    throw UsageError("{}: train.batch_slices: expected at most train.batch_size ({}), found {}",
                     given.at("train.batch_slices").text(), train.batch_size, train.batch_slices);
  }
  const OptimizerConfig& optimizer = config.optimizer;
  if (optimizer.warmup_steps > 0 && optimizer.lr_scheduler_type == LrScheduler::constant) {
    throw UsageError(
        "{}: optimizer.warmup_steps: expected 0 with lr_scheduler_type constant, which has no warm-up, "
        "found {}; linear and cosine have one",
        given.at("optimizer.warmup_steps").text(), optimizer.warmup_steps);
  }
}

void fill_in(const Given& given, Config& config) {
  if (!given.contains("train.data_seed")) config.train.data_seed = config.train.seed;
  LoraConfig& lora = config.lora;
  const LoraConfig fresh;
  if (!given.contains("lora.r")) lora.r = lora.adapter ? std::nullopt : fresh.r;
  if (!given.contains("lora.lora_alpha")) lora.lora_alpha = lora.adapter ? std::nullopt : fresh.lora_alpha;
}

// The text of a file of at most yaml::max_bytes; a pipe will do as well.
std::string read_text(const std::string& path) {
  const auto fail = [&](const char* operation, int error_number) -> void {
    throw UsageError("{}", io_error(std::string(operation) + " the config", path, error_number).what());
  };
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) fail("open", errno);
  std::string text(yaml::max_bytes + 1, '\0');
  std::size_t size = 0;
  int error_number = 0;
  while (size < text.size()) {
    const ssize_t got = ::read(file, text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) error_number = errno;
    if (got <= 0) break;
    size += static_cast<std::size_t>(got);
  }
  if (::close(file) != 0 && error_number == 0) error_number = errno;
  if (error_number != 0) fail("read", error_number);
  if (size > yaml::max_bytes) {
    throw UsageError("{}: has more than {} bytes, which no config has", path, yaml::max_bytes);
  }
  text.resize(size);
  return text;
}

std::string escape_cell(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '|' ? std::string("\\|") : std::string(1, c);
  return out;
}

std::string_view resumption_text(Resumption resumption) {
  switch (resumption) {
    case Resumption::free:
      return "yes";
    case Resumption::fixed:
      return "no";
    case Resumption::schedule:
      return "with a constant schedule";
    case Resumption::fixed_outcome:
      return "where the outcome is the same";
  }
  throw Error("a key of the config has the unknown resumption {}", static_cast<int>(resumption));
}

}  // namespace

std::string_view name_of(TaskType value) { return find_name(task_types, value); }
std::string_view name_of(TaskLoss value) { return find_name(task_losses, value); }
std::string_view name_of(EstimatorKind value) { return find_name(estimators, value); }
std::string_view name_of(NoiseKind value) { return find_name(noise_kinds, value); }
std::string_view name_of(OptimizerType value) { return find_name(optimizer_types, value); }
std::string_view name_of(LrScheduler value) { return find_name(lr_schedulers, value); }
std::string_view name_of(Device value) { return find_name(devices, value); }
std::string_view name_of(Precision value) { return find_name(precisions, value); }

std::vector<TemplatePart> parse_template(std::string_view text, const std::string& context) {
  std::vector<TemplatePart> parts;
  const auto add_literal = [&](char c) {
    if (parts.empty() || parts.back().is_field) parts.push_back({false, ""});
    parts.back().text += c;
  };
  bool has_field = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c != '{' && c != '}') {
      add_literal(c);
    } else if (i + 1 < text.size() && text[i + 1] == c) {
      add_literal(c);
      ++i;
    } else if (c == '}') {
      throw UsageError("{}: has a }} at byte {} that closes no {{; write }}}} for a literal one", context, i);
    } else {
      const std::size_t end = text.find_first_of("{}", i + 1);
      if (end == text.npos || text[end] == '{') {
        throw UsageError("{}: has a {{ at byte {} that is not closed; write {{{{ for a literal one", context,
                         i);
      }
      const std::string_view name = text.substr(i + 1, end - i - 1);
      if (name.empty())
        throw UsageError("{}: has {{}} at byte {}; expected {{the name of a field}}", context, i);
      if (name.front() == ' ' || name.back() == ' ') {
        throw UsageError("{}: has a field '{}' with spaces around its name; expected {{name}}", context,
                         yaml::printable(name));
      }
      parts.push_back({true, std::string(name)});
      has_field = true;
      i = end;
    }
  }
  if (!has_field) {
    throw UsageError("{}: expected a text with at least one {{field}}, found \"{}\"", context,
                     yaml::printable(text));
  }
  return parts;
}

Config parse_config(std::string_view text, const std::string& source, std::span<const std::string> overrides,
                    ConfigUse use) {
  Node root = yaml::parse(text, source);
  if (root.kind == Node::Kind::null) root.kind = Node::Kind::map;
  if (root.kind != Node::Kind::map) {
    throw UsageError("{}: expected a map of sections (model:, data:, ...), found {}", root.place.text(),
                     found(root));
  }
  std::set<std::string> overridden;
  for (const std::string& override_text : overrides) apply_override(root, override_text, overridden);

  Config config;
  Given given;
  read_section(root, "", config, given);
  check_required(given, config, use, source);
  check_task(given, config);
  check_together(given, config);
  fill_in(given, config);
  return config;
}

Config load_config(const std::string& path, std::span<const std::string> overrides, ConfigUse use) {
  return parse_config(read_text(path), path, overrides, use);
}

std::string to_yaml(const Config& config) {
  const For unused =
      config.data.task.type == TaskType::classification ? For::completion : For::classification;
  std::string text;
  std::set<std::string> begun;
  for (const Key& row : table()) {
    if (row.task == unused) continue;
    const std::string& name = row.info.name;
    std::size_t indent = 0;
    std::size_t begin = 0;
    for (std::size_t dot = name.find('.'); dot != name.npos; dot = name.find('.', begin)) {
      if (begun.insert(name.substr(0, dot)).second) {
        text += fmt::format("{:{}}{}:\n", "", indent, name.substr(begin, dot - begin));
      }
      begin = dot + 1;
      indent += 2;
    }
    text += fmt::format("{:{}}{}: {}\n", "", indent, name.substr(begin), row.write(config));
  }
  return text;
}

std::vector<IdentityEntry> identity(const Config& config) {
  Config canonical = config;
  std::sort(canonical.lora.target_modules.names.begin(), canonical.lora.target_modules.names.end());
  if (auto& layers = canonical.lora.layers_to_transform) std::sort(layers->begin(), layers->end());

  const For unused =
      config.data.task.type == TaskType::classification ? For::completion : For::classification;
  const bool scheduled = config.optimizer.lr_scheduler_type != LrScheduler::constant;
  std::vector<IdentityEntry> entries;
  for (const Key& row : table()) {
    const Resumption resumption = row.info.resumption;
    const bool belongs = resumption == Resumption::fixed || (resumption == Resumption::schedule && scheduled);
    if (belongs && row.task != unused) entries.push_back({row.info.name, row.write(canonical)});
  }
  return entries;
}

std::vector<KeyInfo> config_keys() {
  std::vector<KeyInfo> keys;
  for (const Key& row : table()) keys.push_back(row.info);
  return keys;
}

std::string config_reference_markdown() {
  std::string text = R"(# Configuration reference

<!-- Made from the table in src/core/config.cc. tests/core/config_test.cc compares the two and writes this file
     when it runs with MEZZO_UPDATE_DOCS=1 in the environment. -->

A config is one YAML file, `mezzo train CONFIG`. Any key can be overridden behind it, as in `zo.directions=8`. The
value is YAML too, so a text with special characters needs YAML's quotes inside the shell's:
`'data.task.template="{sentence} It was"'`. One entry of the verbalizers is overridden by its label:
`'data.task.verbalizers.0=" bad"'`.

Reading is strict, so that nothing is ignored or guessed: an unknown key, a key written twice, a value of another
type or outside its range, and a key that the task does not use are errors. Numbers are written without quotes, in
decimal (`1e-3` is fine where a whole number is not asked for); a text that looks like a number, true or false
needs quotes. Relative paths are taken from the working directory. Anchors, aliases, merge keys, tags and several
documents in one file are refused. `null` stands for none where the default says null.

The last column says whether a key may change when a run is resumed. Those that may not are the run's identity,
which is kept in its folder and compared.
)";
  std::string current;
  for (const Key& row : table()) {
    const KeyInfo& info = row.info;
    const std::string section = split_leaf(info.name).first;
    if (section != current) {
      text += fmt::format(
          "\n## {}\n\n| key | type, range | default | meaning | may change |\n|---|---|---|---|---|\n",
          section);
      current = section;
    }
    std::string meaning = info.description;
    if (row.task == For::classification) meaning += " Only for classification.";
    if (row.task == For::completion) meaning += " Only for completion.";
    text +=
        fmt::format("| `{}` | {} | {} | {} | {} |\n", info.name, escape_cell(info.range),
                    escape_cell(info.default_value), escape_cell(meaning), resumption_text(info.resumption));
  }
  return text;
}

}  // namespace mezzo
