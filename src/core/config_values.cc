#include "config_values.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>

#include "mezzo/core/error.h"
#include "mezzo/core/hub_cache.h"

namespace mezzo::config {
namespace {

using yaml::Node;

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

const char* number_hint(const Node& node) {
  return node.kind == Node::Kind::quoted && is_decimal(node.text) ? "; write the number without quotes" : "";
}

// ---- lists ----------------------------------------------------------------------------------------------

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

constexpr const char* all_linear = "all-linear";

}  // namespace

// ---- a value to be read ---------------------------------------------------------------------------------

const char* text_hint(const Node& node) {
  if (node.kind == Node::Kind::plain) return "; quote it if that text is meant";
  if (node.kind == Node::Kind::list || node.kind == Node::Kind::map)
    return "; quote a text that starts with { or [";
  return "";
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

void Value::fail(const Node& where, const std::string& problem) const {
  const bool required = key.default_value.starts_with("required");
  throw UsageError("{}: {}: {} ({}{})", where.place.text(), key.name, problem,
                   required ? "" : "default: ", key.default_value);
}

void Value::fail(const std::string& hint) const {
  fail(node, fmt::format("expected {}, found {}{}", key.range, found(node), hint));
}

// ---- numbers --------------------------------------------------------------------------------------------

std::string_view whole_digits(const Value& value) {
  if (value.node.kind != Node::Kind::plain) value.fail(number_hint(value.node));
  const std::string_view text = value.node.text;
  const std::string_view digits = text.substr(text.starts_with('-') ? 1 : 0);
  if (!is_digits(digits) || (digits.size() > 1 && digits[0] == '0')) {
    value.fail(is_number_or_truth(text) || text.find('_') != text.npos ? "; write it in decimal digits alone"
                                                                       : "");
  }
  return text;
}

std::string Number::range() const {
  const char* low = lowest == Lowest::zero ? ">= 0" : "> 0";
  return rounded_to_fp32 ? fmt::format("a finite number {}", low)
                         : fmt::format("a number {} and at most {}", low, text(max));
}

/// The shortest text that reads back as the same number.
std::string Number::text(double value) const { return fmt::format("{}", value); }

double Number::parse(const Value& value) const {
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

// ---- texts ----------------------------------------------------------------------------------------------

std::string Text::parse(const Value& value) const {
  if (!is_text(value.node)) value.fail(text_hint(value.node));
  if (value.node.text.empty() && !may_be_empty) value.fail();
  return value.node.text;
}

std::string TextsType::text(const std::vector<std::string>& value) const {
  return value.empty() ? "null"
                       : list_text(value, "[]", [](const std::string& text) { return yaml::scalar(text); });
}

std::vector<std::string> TextsType::parse(const Value& value) const {
  const Node& node = value.node;
  if (node.kind == Node::Kind::null) return {};
  if (node.kind != Node::Kind::list) {
    value.fail(is_text(node) ? fmt::format("; write [{}] for one", yaml::printable(node.text)) : "");
  }
  if (node.items.empty()) value.fail(node, fmt::format("expected {}, found an empty list", range()));
  std::vector<std::string> texts;
  for (const Node& item : node.items) {
    if (!is_text(item) || item.text.empty() || item.text.find('\0') != item.text.npos) {
      value.fail(item, fmt::format("expected a non-empty text without a NUL in the list, found {}{}",
                                   found(item), text_hint(item)));
    }
    texts.push_back(item.text);
  }
  return texts;
}

bool Flag::parse(const Value& value) const {
  const bool yes = value.node.kind == Node::Kind::plain && value.node.text == "true";
  if (!yes && (value.node.kind != Node::Kind::plain || value.node.text != "false")) value.fail();
  return yes;
}

std::string Path::parse(const Value& value) const {
  const std::string written = Text{what}.parse(value);
  if (written.find('\0') != written.npos) value.fail(", which holds a NUL");
  std::error_code error;
  std::filesystem::path path = std::filesystem::absolute(written, error).lexically_normal();
  if (error)
    value.fail(fmt::format(", but the working directory that it starts from is gone ({})", error.message()));
  if (!path.has_filename()) path = path.parent_path();  // "runs/a/"
  return path.string();
}

std::string ModelPath::parse(const Value& value) const {
  static_cast<void>(Path{what}.parse(value));  // refuses what is no path
  try {
    return find_model(value.node.text);
  } catch (const UsageError& error) {
    value.fail(value.node, error.what());
  }
}

// ---- maps and lists -------------------------------------------------------------------------------------

double Fraction::parse(const Value& value) const {
  const double fraction = Number{Lowest::above_zero, 1, false}.parse(value);
  if (fraction >= 1) value.fail();
  return fraction;
}

double Momentum::parse(const Value& value) const {
  const double momentum = Number{Lowest::zero, 1, false}.parse(value);
  if (static_cast<float>(momentum) >= 1.0f) value.fail();
  return momentum;
}

std::string BetasType::text(const std::pair<double, double>& value) const {
  return fmt::format("[{}, {}]", one.text(value.first), one.text(value.second));
}

std::pair<double, double> BetasType::parse(const Value& value) const {
  const auto& items = value.node.items;
  if (value.node.kind != Node::Kind::list || items.size() != 2) value.fail();
  return {one.parse(value.with(items[0])), one.parse(value.with(items[1]))};
}

std::string TrainFilesType::range() const {
  return fmt::format("{}, or a list of {{path, weight}}, weight being {}", path.range(), weight.range());
}

/// One file is its path, however it was written: its weight means nothing.
std::string TrainFilesType::text(const std::vector<TrainFile>& value) const {
  if (value.empty()) return "null";
  if (value.size() == 1) return path.text(value[0].path);
  return list_text(value, "[]", [&](const TrainFile& file) {
    return fmt::format("{{path: {}, weight: {}}}", path.text(file.path), weight.text(file.weight));
  });
}

std::vector<TrainFile> TrainFilesType::parse(const Value& value) const {
  if (value.node.kind == Node::Kind::null) return {};
  if (value.node.kind != Node::Kind::list) return {{path.parse(value), 1}};
  if (value.node.items.empty())
    value.fail(value.node, fmt::format("expected {}, found an empty list", range()));
  std::vector<TrainFile> files;
  std::set<std::string> seen;
  for (const Node& item : value.node.items) {
    constexpr const char* form = "expected {path: FILE, weight: NUMBER} as an entry of the list";
    if (item.kind != Node::Kind::map) value.fail(item, fmt::format("{}, found {}", form, found(item)));
    const Node* path_node = nullptr;
    const Node* weight_node = nullptr;
    for (std::size_t i = 0; i < item.items.size(); ++i) {
      const std::string& name = item.keys[i].text;
      if (name != "path" && name != "weight")
        value.fail(item.keys[i], fmt::format("{}, found '{}' in it", form, yaml::printable(name)));
      (name == "path" ? path_node : weight_node) = &item.items[i];
    }
    if (path_node == nullptr || weight_node == nullptr) {
      value.fail(item,
                 fmt::format("{}, found one without {}", form, path_node == nullptr ? "path" : "weight"));
    }
    files.push_back({path.parse(value.with(*path_node)), weight.parse(value.with(*weight_node))});
    if (!seen.insert(files.back().path).second)
      value.fail(item, fmt::format("{} stands in the list twice", found(*path_node)));
  }
  if (files.size() == 1) files[0].weight = 1;
  return files;
}

std::string TargetModulesType::range() const { return "a list of module names or suffixes, or `all-linear`"; }

std::string TargetModulesType::text(const TargetModules& value) const {
  if (value.all_linear) return all_linear;
  return value.names.empty() ? "null"
                             : list_text(value.names, "[]", [](const auto& n) { return yaml::scalar(n); });
}

TargetModules TargetModulesType::parse(const Value& value) const {
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

std::string LayersType::range() const { return "a layer's number from 0, or a list of them"; }

std::string LayersType::text(const std::vector<std::int64_t>& value) const {
  return list_text(value, "[]", [&](std::int64_t number) { return layer.text(number); });
}

std::vector<std::int64_t> LayersType::parse(const Value& value) const {
  if (value.node.kind != Node::Kind::list) return {layer.parse(value)};
  return parse_set<std::int64_t>(value, [&](const Node& item) { return layer.parse(value.with(item)); });
}

std::string ResumeType::range() const { return "`auto`, `never` or the path of a snapshot"; }

std::string ResumeType::text(const ResumeFrom& value) const {
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

ResumeFrom ResumeType::parse(const Value& value) const {
  if (value.node.is_scalar() && value.node.text == "auto") return {};
  if (value.node.is_scalar() && value.node.text == "never") return {ResumeFrom::Kind::never, ""};
  return {ResumeFrom::Kind::snapshot, path.parse(value)};
}

}  // namespace mezzo::config

namespace mezzo {
namespace {

template <typename Words, typename E>
std::string_view find_name(const Words& words, E value) {
  for (const auto& word : words) {
    if (word.value == value) return word.name;
  }
  throw Error("an enumeration of the config holds {}, which has no name", static_cast<int>(value));
}

}  // namespace

std::string_view name_of(TaskType value) { return find_name(config::task_types, value); }
std::string_view name_of(TaskLoss value) { return find_name(config::task_losses, value); }
std::string_view name_of(DataFormat value) { return find_name(config::data_formats, value); }
std::string_view name_of(CompletionFormat value) { return find_name(config::completion_formats, value); }
std::string_view name_of(Overlong value) { return find_name(config::overlong_words, value); }
std::string_view name_of(RewardRule value) { return find_name(config::reward_rules, value); }
std::string_view name_of(OnRewardError value) { return find_name(config::reward_errors, value); }
std::string_view name_of(EstimatorKind value) { return find_name(config::estimators, value); }
std::string_view name_of(SpaceType value) { return find_name(config::space_types, value); }
std::string_view name_of(Normalization value) { return find_name(config::normalizations, value); }
std::string_view name_of(NoiseKind value) { return find_name(config::noise_kinds, value); }
std::string_view name_of(OptimizerType value) { return find_name(config::optimizer_types, value); }
std::string_view name_of(SecondMoment value) { return find_name(config::second_moments, value); }
std::string_view name_of(MasterType value) { return find_name(config::master_types, value); }
std::string_view name_of(LrScheduler value) { return find_name(config::lr_schedulers, value); }
std::string_view name_of(Device value) { return find_name(config::devices, value); }
std::string_view name_of(Precision value) { return find_name(config::precisions, value); }

}  // namespace mezzo
