#include "config_generation.h"

#include <tuple>

#include "mezzo/core/error.h"

namespace mezzo::config {

namespace {

void check_type_or_command(const Given& given, const RewardConfig& reward) {
  if (reward.type && !reward.command.empty()) {
    throw UsageError("{}: data.task.reward.command: expected it or data.task.reward.type, found both",
                     given.at("data.task.reward.command").text());
  }
  if (reward.type == RewardRule::regex && !reward.pattern) {
    throw UsageError("{}: data.task.reward.pattern: missing, but required for regex",
                     given.at("data.task.reward.type").text());
  }
}

/// A key of another kind of reward than the config's. config.yaml of a run has them all, as their defaults.
void check_kind(const Given& given, const TaskConfig& task) {
  const RewardConfig& reward = task.reward;
  const RewardConfig fresh;
  const bool runs = !reward.command.empty();
  const bool compares = !runs && reward.type != RewardRule::length;
  const char* const program = "a command";
  const std::tuple<const char*, bool, bool, const char*> keys[] = {
      {"data.task.reward.pattern", reward.pattern.has_value(), reward.type == RewardRule::regex, "regex"},
      {"data.task.reward.target", reward.target != fresh.target, reward.type == RewardRule::length, "length"},
      {"data.task.reward.workers", reward.workers != fresh.workers, runs, program},
      {"data.task.reward.timeout_s", reward.timeout_s != fresh.timeout_s, runs, program},
      {"data.task.reward.restarts", reward.restarts != fresh.restarts, runs, program},
      {"data.task.reward.environment", !reward.environment.empty(), runs, program},
      {"data.task.completion", task.completion != TaskConfig{}.completion, compares,
       "rewards that compare with right answers"}};
  for (const auto& [key, changed, used, users] : keys) {
    if (!changed || used) continue;
    throw UsageError("{}: {}: is of {}, found {}", given.at(key).text(), key, users,
                     runs ? program : name_of(reward.type.value()));
  }
  for (const std::string& name : reward.environment) {
    if (name.find('=') == name.npos) continue;
    throw UsageError("{}: data.task.reward.environment: expected names of variables, found '{}'",
                     given.at("data.task.reward.environment").text(), yaml::printable(name));
  }
}

void check_decoding(const Given& given, const Config& config) {
  const GenerationConfig& generation = config.generation;
  if (config.data.task.reward.target > generation.max_new_tokens) {
    throw UsageError("{}: data.task.reward.target: expected at most generation.max_new_tokens ({}), found {}",
                     given.at("data.task.reward.target").text(), generation.max_new_tokens,
                     config.data.task.reward.target);
  }
  if (generation.temperature > 0) return;
  const std::pair<const char*, bool> of_draws[] = {{"generation.top_p", generation.top_p < 1},
                                                   {"generation.samples", generation.samples > 1}};
  for (const auto& [key, changed] : of_draws) {
    if (!changed) continue;
    throw UsageError("{}: {}: needs a generation.temperature above 0, found 0, where nothing is drawn",
                     given.at(key).text(), key);
  }
}

}  // namespace

void check_generation(const Given& given, const Config& config) {
  const TaskConfig& task = config.data.task;
  if (task.type != TaskType::generation) return;
  check_type_or_command(given, task.reward);
  check_kind(given, task);
  check_decoding(given, config);
}

}  // namespace mezzo::config
