#pragma once
// The configuration of a run: one plain struct, and one table in config_table.cc that says of each key its
// name, range, default and meaning. Parsing, printing, the reference (docs/configuration.md) and the
// comparison of two runs' identities are all driven by that table.
#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mezzo/core/noise_kind.h"

namespace mezzo {

enum class TaskType { classification, multiple_choice, completion, chat, generation };
enum class TaskLoss { options, language_model, accuracy };
/// Which fields of a record are a completion's prompt and answer.
enum class CompletionFormat { prompt_completion, alpaca };
/// What becomes of an example that has more tokens than data.max_length.
enum class Overlong { truncate, skip, error };
/// How a data file holds its records; automatic: as its content shows, else its name.
enum class DataFormat { automatic, jsonl, json, csv, tsv, parquet };
/// A rule that is built in and says what a completion is worth (mezzo/data/reward_rules.h).
enum class RewardRule { exact_match, f1, contains, regex, number, choice, length };
/// What becomes of a completion that no reward could be had for: its direction is dropped, or the run stops.
enum class OnRewardError { drop, stop };
enum class EstimatorKind { two_sided, one_sided };
/// What the losses of a step are divided by before they become its update (mezzo/zo/estimator.h).
enum class Normalization { none, zscore, std, ranks };
/// What z ranges over.
enum class SpaceType { lora, low_rank, dense, vectors };
enum class OptimizerType { sgd, momentum, sign, adam };
/// What trainables are held in.
enum class MasterType { fp32, bf16 };
/// What Adam keeps a second moment of.
enum class SecondMoment { full, scalar };
enum class LrScheduler { constant, linear, cosine };
enum class Device { automatic, cpu, cuda, reference };
enum class Precision { automatic, fp32, bf16 };

struct ModelConfig {
  std::string path;
  bool operator==(const ModelConfig&) const = default;
};

/// One class of a classification task: the text of its label in the data, and the option that stands for it,
/// a template where it has a {field} (has_field()).
struct Verbalizer {
  std::string label;
  std::string option;
  bool operator==(const Verbalizer&) const = default;
};

/// A field that is added to every record: a text that a Jinja template makes of the record. Where the name
/// ends in `[]`, which is no part of it, the text is JSON, a list.
struct ComputedField {
  std::string name;
  std::string source;
  bool operator==(const ComputedField&) const = default;
};

/// The options of a multiple choice: a template each, or the field that holds the list of them.
struct TaskOptions {
  std::vector<std::string> templates;  ///< none or at least two
  std::string field;                   ///< "" where there are templates
  bool unset() const { return templates.empty() && field.empty(); }
  bool operator==(const TaskOptions&) const = default;
};

/// What a completion is worth: a rule that is built in, or what a program of the user's says.
struct RewardConfig {
  std::optional<RewardRule> type;        ///< one of type and command is there for a generation task
  std::optional<std::string> pattern;    ///< there for regex, and for nothing else
  std::int64_t target = 0;               ///< of length: tokens, at most generation.max_new_tokens
  std::vector<std::string> command;      ///< a program and its arguments; empty: none
  std::int64_t workers = 1;              ///< of a command, as all below but on_error: processes a rank
  double timeout_s = 10;                 ///< for each answer
  std::int64_t restarts = 3;             ///< of each process
  std::vector<std::string> environment;  ///< names of variables that the program sees
  OnRewardError on_error = OnRewardError::drop;

  bool unset() const { return !type && command.empty(); }
  bool operator==(const RewardConfig&) const = default;
};

struct TaskConfig {
  TaskType type = TaskType::classification;
  std::optional<std::string> records;  ///< where the records lie within what a file holds (record_path.h)
  std::vector<ComputedField> fields;   ///< in the order written
  /// `template`, of the prompt; there for classification and multiple_choice, may be for completion and
  /// generation.
  std::optional<std::string> prompt_template;
  std::string label = "label";             ///< name of the label's field
  std::vector<Verbalizer> verbalizers;     ///< in the order written; at least two for classification
  TaskOptions options;                     ///< of multiple_choice
  TaskLoss loss = TaskLoss::options;       ///< language_model for completion and chat
  bool length_normalized = true;           ///< an option's score is the mean over its tokens, else the sum
  std::optional<std::string> calibration;  ///< a prompt template: scores less those behind this prompt
  CompletionFormat format = CompletionFormat::prompt_completion;
  std::string prompt = "prompt";  ///< field names of a completion or generation task
  std::string completion = "completion";
  bool append_eos = true;  ///< of completion and chat
  Overlong overlong = Overlong::truncate;
  RewardConfig reward;  ///< of generation
  bool operator==(const TaskConfig&) const = default;
};

/// A file of training examples, and its part of the stream in proportion to the other files' weights.
struct TrainFile {
  std::string path;
  double weight = 1;  ///< finite, > 0; means nothing where there is one file
  bool operator==(const TrainFile&) const = default;
};

struct DataConfig {
  std::vector<TrainFile> train;  ///< one at least when loaded for training
  std::optional<std::string> validation;
  std::optional<double> validation_fraction;  ///< in (0, 1), of `train`; instead of `validation`
  DataFormat format = DataFormat::automatic;
  std::optional<std::int64_t> max_train_examples;  ///< none: all
  std::optional<std::int64_t> max_length;          ///< tokens; none: the model's
  TaskConfig task;

  /// Whether there are examples for evaluations.
  bool evaluates() const { return validation || validation_fraction; }
  bool operator==(const DataConfig&) const = default;
};

/// How a generation task's completions are written.
struct GenerationConfig {
  std::int64_t max_new_tokens = 64;
  double temperature = 0;         ///< 0: greedy
  double top_p = 1;               ///< in (0, 1]
  std::int64_t samples = 1;       ///< of each prompt
  std::vector<std::string> stop;  ///< texts that end a completion and are no part of it, none of them empty
  bool operator==(const GenerationConfig&) const = default;
};

/// PEFT's target_modules: `all-linear`, or names and suffixes. Neither: the adapter's, or without an adapter
/// the family's own query and value projections.
struct TargetModules {
  bool all_linear = false;
  std::vector<std::string> names;
  bool unset() const { return !all_linear && names.empty(); }
  bool operator==(const TargetModules&) const = default;
};

/// With `adapter`, what is none here is the adapter's; what is not was written in the config and has to
/// agree. Without, r and lora_alpha always have a value.
struct LoraConfig {
  std::optional<std::int64_t> r = 8;
  std::optional<double> lora_alpha = 16;
  TargetModules target_modules;
  std::optional<std::vector<std::int64_t>> layers_to_transform;  ///< none: all
  std::optional<std::string> adapter;
  bool operator==(const LoraConfig&) const = default;
};

struct ZoConfig {
  SpaceType space = SpaceType::lora;
  std::int64_t rank = 4;         ///< of low_rank
  TargetModules target_modules;  ///< of all but lora; neither: the space's own choice
  std::int64_t directions = 16;
  std::int64_t resample_steps = 1;  ///< so many steps in a row share their directions
  double epsilon = 1e-2;
  EstimatorKind estimator = EstimatorKind::two_sided;
  NoiseKind noise = NoiseKind::gaussian;
  Normalization normalize = Normalization::zscore;
  std::optional<double> normalize_beta =
      {};  ///< of the running means of zscore and std; none: each step's own
  std::optional<double> step_limit =
      0.15;  ///< share of the loss over the run (mezzo/zo/step_limit.h); none: no limit
  std::optional<std::int64_t> probes_per_forward;  ///< none: auto

  /// Whether a direction has a probe of either sign, which share their noise.
  bool paired() const { return estimator == EstimatorKind::two_sided; }
  bool operator==(const ZoConfig&) const = default;
};

struct OptimizerConfig {
  OptimizerType type = OptimizerType::sgd;
  double learning_rate = 3e-2;
  double weight_decay = 0;
  double anchor_decay = 0;
  double momentum = 0.9;                            ///< of momentum and sign
  bool nesterov = false;                            ///< of momentum
  std::pair<double, double> betas = {0.9, 0.99};    ///< of adam
  double adam_epsilon = 1e-8;                       ///< of adam
  SecondMoment second_moment = SecondMoment::full;  ///< of adam
  std::optional<double> clip = {};                  ///< of projected gradients, before their mean
  MasterType master = MasterType::fp32;             ///< of dense
  LrScheduler lr_scheduler_type = LrScheduler::linear;
  std::int64_t warmup_steps = 0;
  bool operator==(const OptimizerConfig&) const = default;
};

/// What a start takes up: the newest snapshot of the run if there is one, none, or the one named.
struct ResumeFrom {
  enum class Kind { automatic, never, snapshot };
  Kind kind = Kind::automatic;
  std::string path;  ///< of a snapshot
  bool operator==(const ResumeFrom&) const = default;
};

struct TrainConfig {
  std::int64_t max_steps = 1000;
  std::int64_t batch_size = 16;
  std::int64_t gradient_accumulation_steps = 1;
  std::int64_t batch_slices = 1;  ///< of each batch of batch_size examples; <= batch_size
  std::uint64_t seed = 42;
  std::uint64_t data_seed = 42;
  std::optional<std::string> output_dir;  ///< there when loaded for training
  std::int64_t eval_steps = 100;
  std::int64_t save_steps = 100;
  std::int64_t save_total_limit = 3;
  std::int64_t logging_steps = 10;
  std::int64_t log_samples = 3;  ///< completions of an evaluation that are shown
  std::int64_t trajectory_sync_steps = 1;
  std::int64_t hash_steps = 50;
  std::optional<bool> load_best_model_at_end;           ///< none: true with validation data
  std::optional<std::string> metric_for_best_model;     ///< none: the first that evaluations have
  std::optional<std::int64_t> early_stopping_patience;  ///< evaluations; none: never
  ResumeFrom resume_from_checkpoint;
  bool operator==(const TrainConfig&) const = default;
};

struct RuntimeConfig {
  Device device = Device::automatic;
  Precision dtype = Precision::automatic;
  std::optional<std::int64_t> threads;  ///< a rank; none: auto
  double timeout_s = 60;
  double start_timeout_s = 120;  ///< until all ranks are there
  bool operator==(const RuntimeConfig&) const = default;
};

/// A config with every default filled in. All paths are absolute.
struct Config {
  ModelConfig model;
  DataConfig data;
  GenerationConfig generation;
  LoraConfig lora;
  ZoConfig zo;
  OptimizerConfig optimizer;
  TrainConfig train;
  RuntimeConfig runtime;

  /// Full names of the keys that the user wrote, in the file or as overrides, null included; all others hold
  /// defaults.
  std::set<std::string, std::less<>> written;

  /// Of the values, whoever they are from.
  bool operator==(const Config& other) const;
};

/// What a config is loaded for decides which keys have to be there: train needs data.train and
/// train.output_dir, eval data.validation or a fraction of data.train, inspect neither.
enum class ConfigUse { train, eval, inspect };

/// Reads the config at `path`, with `overrides` of the form a.b=value (the value is YAML) put over it.
/// Relative paths are taken from the working directory. Anything that is not right is a UsageError naming
/// file and line or the override, the key, what was found and what was expected.
Config load_config(const std::string& path, std::span<const std::string> overrides, ConfigUse use);

/// The same of a text; `source` is its name in errors.
Config parse_config(std::string_view text, const std::string& source, std::span<const std::string> overrides,
                    ConfigUse use);

/// The whole config as YAML, which parses back to an equal Config. Keys that the task does not use are left
/// out.
std::string to_yaml(const Config& config);

/// One key of a run's identity and its value as YAML.
struct IdentityEntry {
  std::string key;
  std::string value;
  bool operator==(const IdentityEntry&) const = default;
};

/// The keys that a config sets to something else than a fresh Config holds, in the order of the reference.
std::vector<IdentityEntry> changed_from_defaults(const Config& config);

/// What of `config` decides a run's bits and so must be the same when it is resumed: data, task, generation,
/// lora, zo but for probes_per_forward, optimizer, batch, slices, seeds, and max_steps where the schedule
/// depends on it. The model's hash and the device and dtype chosen belong to it too; the caller knows them.
/// Lists that are sets in meaning (target_modules, layers_to_transform) are sorted.
std::vector<IdentityEntry> identity(const Config& config);

/// What a run's record holds of `config` besides its identity: values that may change, but that a resumed run
/// goes on with where its config does not write them.
std::vector<IdentityEntry> settings(const Config& config);

/// What runs did whose record lacks a key, because the key is younger than the record.
std::vector<IdentityEntry> values_before_records();

/// Gives each key that the user left unwritten the value that `entries`, a run's identity, have for it: a run
/// goes on as it began, although a default has changed since. Entries that are no keys of a config are passed
/// over. UsageError naming `source` for a value that the key cannot have.
void adopt_unwritten(Config& config, std::span<const IdentityEntry> entries, const std::string& source);

/// Whether a key may change when a run is resumed.
enum class Resumption {
  free,          ///< it may; left unwritten, it stays as it was
  job,           ///< it may, and is chosen anew by every job
  fixed,         ///< it may not: part of the run's identity
  schedule,      ///< fixed unless the schedule is constant
  fixed_outcome  ///< what it led to may not: the model's content, the device and dtype chosen
};

/// One row of the table behind all this.
struct KeyInfo {
  std::string name;           ///< "zo.epsilon"
  std::string range;          ///< type and range, in words
  std::string default_value;  ///< as YAML where it is a value, else in words
  std::string description;    ///< one sentence
  Resumption resumption = Resumption::free;
  std::string before_records = "";  ///< as YAML: what a run did whose record lacks the key; "": none lacks it
};

/// All keys, in the order of the reference.
std::vector<KeyInfo> config_keys();
/// The words that a key may have as its value, as its range names them.
std::vector<std::string> words_of(const KeyInfo& key);

/// The configuration reference, docs/configuration.md.
std::string config_reference_markdown();

/// The words of enumerations, as the config spells them.
std::string_view name_of(TaskType value);
std::string_view name_of(TaskLoss value);
std::string_view name_of(DataFormat value);
std::string_view name_of(CompletionFormat value);
std::string_view name_of(Overlong value);
std::string_view name_of(RewardRule value);
std::string_view name_of(OnRewardError value);
std::string_view name_of(EstimatorKind value);
std::string_view name_of(Normalization value);
std::string_view name_of(SpaceType value);
std::string_view name_of(NoiseKind value);
std::string_view name_of(OptimizerType value);
std::string_view name_of(SecondMoment value);
std::string_view name_of(MasterType value);
std::string_view name_of(LrScheduler value);
std::string_view name_of(Device value);
std::string_view name_of(Precision value);

/// A piece of a template: literal text, or the name of a field to put in.
struct TemplatePart {
  bool is_field = false;
  std::string text;
  bool operator==(const TemplatePart&) const = default;
};

/// Splits a template such as "{sentence} It was"; `{{` and `}}` stand for literal braces. Throws UsageError
/// with what is wrong (no field, an empty field name, a brace without its partner), prefixed by `context`.
std::vector<TemplatePart> parse_template(std::string_view text, const std::string& context);
/// The same for a text that need not hold a field: without any {name} it is literal, braces included.
std::vector<TemplatePart> parse_optional_template(std::string_view text, const std::string& context);
/// The first {name} in a text, or "": a text without one is no template.
std::string field_in(std::string_view text);

}  // namespace mezzo
