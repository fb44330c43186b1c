#include "mezzo/core/config.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <tuple>
#include <utility>

#include "config_generation.h"
#include "config_names.h"
#include "config_overrides.h"
#include "config_short_form.h"
#include "config_table.h"
#include "mezzo/core/error.h"
#include "mezzo/core/yaml.h"

namespace mezzo {
namespace {

using config::Given;
using config::Key;
using yaml::Node;

// ---- from tree to config --------------------------------------------------------------------------------

// Defaults that depend on other keys; docs/learning.md has the measurements behind them.

Normalization default_normalization(const ZoConfig& zo) {
  if (zo.paired()) return Normalization::zscore;
  return zo.directions < 2 ? Normalization::none : Normalization::std;
}

/// Of one direction: a hundred steps tell how far losses spread.
constexpr double default_normalize_beta = 0.99;

/// Whether steps are differences over a standard deviation.
bool divides(Normalization normalize) {
  return normalize == Normalization::zscore || normalize == Normalization::std;
}

/// As measured on small models; of dense a tenth of where runs fail there, since larger ones bear less.
double default_epsilon(SpaceType space) {
  switch (space) {
    case SpaceType::dense:
      return 3e-3;
    case SpaceType::vectors:
      return 3e-2;
    case SpaceType::lora:
    case SpaceType::low_rank:
      break;
  }
  return 1e-2;
}

/// With normalized steps about twice the best rate without a step limit, for the limit to cut.
double default_learning_rate(OptimizerType type, Normalization normalize) {
  if (normalize == Normalization::none) return 1e-4;  // as MeZO's authors use it
  switch (type) {
    case OptimizerType::momentum:
    case OptimizerType::sign:
      return 4e-3;
    case OptimizerType::adam:
      return 2e-2;
    case OptimizerType::sgd:
      break;
  }
  return 3e-2;
}

void read_section(const Node& map, const std::string& section, Config& config, Given& given) {
  for (std::size_t i = 0; i < map.items.size(); ++i) {
    const std::string& leaf = map.keys[i].text;
    const Node& node = map.items[i];
    const std::string where = map.keys[i].place.text();
    const std::string name = section.empty() ? leaf : section + "." + leaf;
    if (leaf.find('.') != leaf.npos) config::fail_unknown(where, section, leaf);
    if (const Key* row = config::find_key(name)) {
      row->read({node, row->info}, config);
      config.written.insert(name);
      if (node.kind != Node::Kind::null) given.emplace(name, node.place);
    } else if (config::is_section(name)) {
      if (node.kind == Node::Kind::null) continue;  // a section with all its keys commented out
      if (node.kind != Node::Kind::map) config::fail_section(where, name, node);
      read_section(node, name, config, given);
    } else {
      config::fail_unknown(where, section, leaf);
    }
  }
}

/// Whether a task asks for one of several options.
bool chooses(TaskType type) { return type == TaskType::classification || type == TaskType::multiple_choice; }

void check_required(const Given& given, const Config& config, ConfigUse use, const std::string& source) {
  std::vector<std::string> required = {"model.path", "data.task.type"};
  if (use == ConfigUse::train) required.insert(required.end(), {"data.train", "train.output_dir"});
  if (use == ConfigUse::eval) {
    const bool held_out = given.contains("data.validation_fraction");
    required.emplace_back(held_out ? "data.train" : "data.validation");
  }
  if (given.contains("data.task.type") && chooses(config.data.task.type)) {
    const bool classifies = config.data.task.type == TaskType::classification;
    required.insert(required.end(),
                    {"data.task.template", classifies ? "data.task.verbalizers" : "data.task.options"});
  }
  std::string missing;
  for (const std::string& name : required) {
    if (given.contains(name)) continue;
    missing +=
        fmt::format("{}{} ({})", missing.empty() ? "" : ", ", name, config::find_key(name)->info.range);
  }
  if (config.data.task.type == TaskType::generation && config.data.task.reward.unset()) {
    missing +=
        fmt::format("{}data.task.reward ({}, or {{command: [PROGRAM, ARGUMENT, ...]}})",
                    missing.empty() ? "" : ", ", config::find_key("data.task.reward.type")->info.range);
  }
  if (!missing.empty()) throw UsageError("{}: missing, but required: {}", source, missing);
}

/// That only one thing says what the prompt of a completion or generation is. config.yaml of a run has all of
/// the keys, those that were not written as their defaults.
void check_prompt(const Given& given, const TaskConfig& task) {
  if (chooses(task.type) || task.type == TaskType::chat) return;
  const TaskConfig fresh;
  if (task.format == CompletionFormat::alpaca) {
    const std::pair<const char*, bool> of_others[] = {
        {"data.task.template", task.prompt_template.has_value()},
        {"data.task.prompt", task.prompt != fresh.prompt},
        {"data.task.completion", task.completion != fresh.completion}};
    for (const auto& [key, changed] : of_others) {
      if (!changed) continue;
      throw UsageError(
          "{}: {}: expected the key to be left out with data.task.format: alpaca, which has its own",
          given.at(key).text(), key);
    }
  }
  if (task.prompt_template && task.prompt != fresh.prompt) {
    throw UsageError("{}: data.task.prompt: expected it or data.task.template, found both",
                     given.at("data.task.prompt").text());
  }
}

void check_task(const Given& given, Config& config) {
  TaskConfig& task = config.data.task;
  for (const Key& row : config::table()) {
    if (row.is_used_by(task.type) || !given.contains(row.info.name)) continue;
    throw UsageError("{}: {}: is not used by a {} task; expected the key to be left out",
                     given.at(row.info.name).text(), row.info.name, name_of(task.type));
  }
  if (task.prompt_template)
    parse_template(*task.prompt_template, given.at("data.task.template").text() + ": data.task.template");
  if (const auto& prompt = task.calibration) {
    parse_optional_template(*prompt, given.at("data.task.calibration").text() + ": data.task.calibration");
  }
  check_prompt(given, task);
  if (!chooses(task.type)) {
    if (given.contains("data.task.loss") && task.loss != TaskLoss::language_model) {
      throw UsageError("{}: data.task.loss: expected language_model, the one loss of a {} task, found {}",
                       given.at("data.task.loss").text(), name_of(task.type), name_of(task.loss));
    }
    task.loss = TaskLoss::language_model;
  }
}

void check_normalization(const Given& given, const Config& config) {
  const ZoConfig& zo = config.zo;
  const bool chosen = given.contains("zo.normalize");
  const Normalization normalize = chosen ? zo.normalize : default_normalization(zo);
  if (zo.normalize_beta && !divides(normalize)) {
    throw UsageError("{}: zo.normalize_beta: needs zo.normalize zscore or std, found {}",
                     given.at("zo.normalize_beta").text(), name_of(normalize));
  }
  const bool refuses_means = config.written.contains("zo.normalize_beta") && !zo.normalize_beta;
  if (zo.directions < 2 && divides(normalize) && refuses_means)
    throw UsageError("zo.normalize_beta: zo.normalize: {} of one direction needs it, found null",
                     name_of(normalize));
  if (normalize == Normalization::none || !chosen) return;
  const auto refuse = [&](std::string_view expected, std::string_view found) {
    throw UsageError("{}: zo.normalize: {} needs {}, found {}", given.at("zo.normalize").text(),
                     name_of(zo.normalize), expected, found);
  };
  if (zo.normalize == Normalization::zscore && zo.estimator != EstimatorKind::two_sided)
    refuse("zo.estimator two_sided", name_of(zo.estimator));
  if (zo.normalize == Normalization::std && zo.estimator != EstimatorKind::one_sided)
    refuse("zo.estimator one_sided", name_of(zo.estimator));
  if (zo.directions < 2 && !divides(normalize))
    refuse("zo.directions of 2 at least", fmt::format("{}", zo.directions));
}

/// A constant of another rule than the config's. config.yaml of a run has them all, as their defaults.
void check_rule(const Given& given, const OptimizerConfig& optimizer) {
  using enum OptimizerType;
  const OptimizerConfig fresh;
  const auto type = optimizer.type;
  const std::tuple<const char*, bool, bool, const char*> constants[] = {
      {"optimizer.momentum", optimizer.momentum != fresh.momentum, type == momentum || type == sign,
       "momentum or sign"},
      {"optimizer.nesterov", optimizer.nesterov, type == momentum, "momentum"},
      {"optimizer.betas", optimizer.betas != fresh.betas, type == adam, "adam"},
      {"optimizer.adam_epsilon", optimizer.adam_epsilon != fresh.adam_epsilon, type == adam, "adam"},
      {"optimizer.second_moment", optimizer.second_moment != fresh.second_moment, type == adam, "adam"}};
  for (const auto& [key, changed, used, users] : constants) {
    if (!changed || used) continue;
    throw UsageError("{}: {}: is a constant of optimizer.type {}, found optimizer.type {}",
                     given.at(key).text(), key, users, name_of(type));
  }
}

/// A key of another space than the config's.
void check_space(const Given& given, const Config& config) {
  using enum SpaceType;
  const Config fresh;
  const auto space = config.zo.space;
  const bool of_weights = space != lora;
  const char* const weights = "low_rank, dense or vectors";
  const std::tuple<const char*, bool, bool, const char*> keys[] = {
      {"zo.rank", config.zo.rank != fresh.zo.rank, space == low_rank, "low_rank"},
      {"zo.target_modules", !config.zo.target_modules.unset(), of_weights, weights},
      {"optimizer.master", config.optimizer.master != fresh.optimizer.master, space == dense, "dense"},
      {"lora.r", config.lora.r != fresh.lora.r, !of_weights, "lora"},
      {"lora.lora_alpha", config.lora.lora_alpha != fresh.lora.lora_alpha, !of_weights, "lora"},
      {"lora.target_modules", !config.lora.target_modules.unset(), !of_weights, "lora"},
      {"lora.layers_to_transform", config.lora.layers_to_transform.has_value(), !of_weights, "lora"},
      {"lora.adapter", config.lora.adapter.has_value(), !of_weights, "lora"}};
  for (const auto& [key, changed, used, users] : keys) {
    if (!changed || used || !given.contains(key)) continue;
    throw UsageError("{}: {}: is of zo.space {}, found zo.space {}", given.at(key).text(), key, users,
                     name_of(space));
  }
}

/// Whether the objective is smooth: neither a reward nor a count of right answers.
bool has_curvature(const TaskConfig& task) {
  return task.type != TaskType::generation && task.loss != TaskLoss::accuracy;
}

void check_together(const Given& given, const Config& config) {
  const TrainConfig& train = config.train;
  if (train.batch_slices > train.batch_size) {
    throw UsageError("{}: train.batch_slices: expected at most train.batch_size ({}), found {}",
                     given.at("train.batch_slices").text(), train.batch_size, train.batch_slices);
  }
  const std::pair<const char*, bool> of_evaluations[] = {
      {"train.load_best_model_at_end", train.load_best_model_at_end.value_or(false)},
      {"train.metric_for_best_model", train.metric_for_best_model.has_value()},
      {"train.early_stopping_patience", train.early_stopping_patience.has_value()}};
  for (const auto& [key, asked] : of_evaluations) {
    if (!asked || config.data.evaluates()) continue;
    throw UsageError("{}: {}: asks for evaluations, but there is no data.validation or validation_fraction",
                     given.at(key).text(), key);
  }
  if (config.data.validation && config.data.validation_fraction) {
    throw UsageError(
        "{}: data.validation_fraction: expected it or data.validation, found both; null stands for none",
        given.at("data.validation_fraction").text());
  }
  config::check_generation(given, config);
  check_space(given, config);
  check_normalization(given, config);
  if (config.zo.step_limit && !has_curvature(config.data.task) && given.contains("zo.step_limit")) {
    throw UsageError(
        "{}: zo.step_limit: follows a loss's curvature, which rewards and data.task.loss accuracy have none "
        "of",
        given.at("zo.step_limit").text());
  }
  if (config.zo.step_limit && !config.zo.paired() && given.contains("zo.step_limit")) {
    throw UsageError("{}: zo.step_limit: needs zo.estimator two_sided, found {}",
                     given.at("zo.step_limit").text(), name_of(config.zo.estimator));
  }
  const OptimizerConfig& optimizer = config.optimizer;
  check_rule(given, optimizer);
  if (optimizer.warmup_steps > 0 && optimizer.lr_scheduler_type == LrScheduler::constant) {
    throw UsageError(
        "{}: optimizer.warmup_steps: expected 0 with lr_scheduler_type constant, which has no warm-up, "
        "found {}; linear and cosine have one",
        given.at("optimizer.warmup_steps").text(), optimizer.warmup_steps);
  }
}

void fill_in(const Given& given, Config& config) {
  ZoConfig& zo = config.zo;
  if (!config.written.contains("zo.epsilon")) zo.epsilon = default_epsilon(zo.space);
  if (!config.written.contains("zo.normalize")) zo.normalize = default_normalization(zo);
  if (!config.written.contains("zo.normalize_beta") && zo.directions < 2 && divides(zo.normalize))
    zo.normalize_beta = default_normalize_beta;
  const bool plain = !zo.paired() || zo.normalize == Normalization::none;
  if (!config.written.contains("zo.step_limit") && (plain || !has_curvature(config.data.task))) {
    zo.step_limit = {};  // plain steps are as the learning rate says; what only jumps has no curvature
  }
  if (!config.written.contains("optimizer.learning_rate"))
    config.optimizer.learning_rate = default_learning_rate(config.optimizer.type, zo.normalize);
  if (!given.contains("train.data_seed")) config.train.data_seed = config.train.seed;
  LoraConfig& lora = config.lora;
  const LoraConfig fresh;
  if (!given.contains("lora.r")) lora.r = lora.adapter ? std::nullopt : fresh.r;
  if (!given.contains("lora.lora_alpha")) lora.lora_alpha = lora.adapter ? std::nullopt : fresh.lora_alpha;
}

// The text of a regular file of at most yaml::max_bytes. Anything else under that name could be endless, or
// never answer.
std::string read_text(const std::string& path) {
  const auto fail = [&](const char* operation, int error_number) -> void {
    throw UsageError("{}", io_error(std::string(operation) + " the config", path, error_number).what());
  };
  // O_NONBLOCK: the opening of a FIFO that nobody writes to would wait.
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) fail("open", errno);
  struct stat status {};
  int error_number = ::fstat(file, &status) != 0 ? errno : 0;
  const bool is_regular = error_number == 0 && S_ISREG(status.st_mode);
  std::string text(is_regular ? yaml::max_bytes + 1 : 0, '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const ssize_t got = ::read(file, text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) error_number = errno;
    if (got <= 0) break;
    size += static_cast<std::size_t>(got);
  }
  if (::close(file) != 0 && error_number == 0) error_number = errno;
  if (error_number != 0) fail("read", error_number);
  if (!is_regular)
    throw UsageError("{}: expected a regular file as the config, found {}", path,
                     kind_of_file(status.st_mode));
  if (size > yaml::max_bytes) {
    throw UsageError("{}: has more than {} bytes, which no config has", path, yaml::max_bytes);
  }
  text.resize(size);
  return text;
}

}  // namespace

bool Config::operator==(const Config& other) const {
  return model == other.model && data == other.data && lora == other.lora && zo == other.zo &&
         optimizer == other.optimizer && train == other.train && runtime == other.runtime;
}

Config parse_config(std::string_view text, const std::string& source, std::span<const std::string> overrides,
                    ConfigUse use) {
  Node root = yaml::parse(text, source);
  if (root.kind == Node::Kind::null) root.kind = Node::Kind::map;
  if (root.kind != Node::Kind::map) {
    throw UsageError("{}: expected a map of sections (model:, data:, ...), found {}", root.place.text(),
                     config::found(root));
  }
  config::expand_short_forms(root);
  std::set<std::string> overridden;
  for (const std::string& override_text : overrides) {
    config::apply_override(root, override_text, overridden);
  }

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

void adopt_unwritten(Config& config, std::span<const IdentityEntry> entries, const std::string& source) {
  for (const IdentityEntry& entry : entries) {
    const Key* row = config::find_key(entry.key);
    if (row == nullptr || config.written.contains(entry.key)) continue;
    const Node node = yaml::parse(entry.value, fmt::format("{}: {}", source, entry.key), false);
    row->read({node, row->info}, config);
  }
}

std::string to_yaml(const Config& config) {
  std::string text;
  std::set<std::string> begun;
  for (const Key& row : config::table()) {
    if (!row.is_used_by(config.data.task.type)) continue;
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

std::vector<IdentityEntry> changed_from_defaults(const Config& config) {
  const Config fresh;
  std::vector<IdentityEntry> entries;
  for (const Key& row : config::table()) {
    if (!config.written.contains(row.info.name) || !row.is_used_by(config.data.task.type)) continue;
    // What has to be written has no default, and be it equal to what a fresh Config holds.
    const bool required = row.info.default_value.starts_with("required");
    std::string value = row.write(config);
    if (required || value != row.write(fresh)) entries.push_back({row.info.name, std::move(value)});
  }
  return entries;
}

namespace {

/// Whether the number of steps decides what a step does.
bool depends_on_steps(const Config& config) {
  return config.optimizer.lr_scheduler_type != LrScheduler::constant || config.zo.step_limit;
}

/// The keys of one kind, with their values in `config`.
template <typename Belongs>
std::vector<IdentityEntry> entries_of(const Config& config, Belongs belongs) {
  Config canonical = config;
  std::sort(canonical.lora.target_modules.names.begin(), canonical.lora.target_modules.names.end());
  std::sort(canonical.zo.target_modules.names.begin(), canonical.zo.target_modules.names.end());
  if (auto& layers = canonical.lora.layers_to_transform) std::sort(layers->begin(), layers->end());
  std::vector<IdentityEntry> entries;
  for (const Key& row : config::table()) {
    if (belongs(row.info.resumption) && row.is_used_by(config.data.task.type)) {
      entries.push_back({row.info.name, row.write(canonical)});
    }
  }
  return entries;
}

}  // namespace

std::vector<IdentityEntry> identity(const Config& config) {
  return entries_of(config, [&](Resumption resumption) {
    return resumption == Resumption::fixed ||
           (resumption == Resumption::schedule && depends_on_steps(config));
  });
}

std::vector<IdentityEntry> settings(const Config& config) {
  return entries_of(config, [&](Resumption resumption) {
    return resumption == Resumption::free ||
           (resumption == Resumption::schedule && !depends_on_steps(config));
  });
}

std::vector<IdentityEntry> values_before_records() {
  std::vector<IdentityEntry> entries;
  for (const Key& row : config::table()) {
    if (!row.info.before_records.empty()) entries.push_back({row.info.name, row.info.before_records});
  }
  return entries;
}

}  // namespace mezzo
