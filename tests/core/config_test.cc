#include "mezzo/core/config.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "mezzo/core/error.h"
#include "mezzo/core/yaml.h"
#include "scratch.h"

namespace mezzo {
namespace {

using Overrides = std::vector<std::string>;

// Line numbers of this text are used below.
const std::string minimal = R"(model:
  path: /m
data:
  train: /d/train.jsonl
  task:
    type: classification
    template: "{sentence} It was"
    verbalizers: {0: " terrible", 1: " great"}
train:
  output_dir: /runs/a
)";

const std::string completion = R"(model: {path: /m}
data:
  train: /d/train.jsonl
  task: {type: completion}
train: {output_dir: /runs/a}
)";

const std::string generation = R"(model: {path: /m}
data:
  train: /d/train.jsonl
  task: {type: generation, reward: number}
train: {output_dir: /runs/a}
)";

Config parsed(const std::string& text, const Overrides& overrides = {}, ConfigUse use = ConfigUse::train) {
  return parse_config(text, "c.yaml", overrides, use);
}

std::string error_of(const std::string& text, const Overrides& overrides = {},
                     ConfigUse use = ConfigUse::train) {
  try {
    parsed(text, overrides, use);
  } catch (const UsageError& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::usage);
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  return "";
}

std::string override_error(const std::string& text) { return error_of(minimal, {text}); }

// That the error holds each part.
#define EXPECT_ERROR(expression, ...)                                     \
  do {                                                                    \
    const std::string message = expression;                               \
    for (const std::string& part : std::vector<std::string>{__VA_ARGS__}) \
      EXPECT_NE(message.find(part), message.npos) << message;             \
  } while (false)

// ---- defaults and values --------------------------------------------------------------------------------

TEST(Config, Defaults) {
  const Config c = parsed(minimal);
  Config expected;
  expected.model.path = "/m";
  expected.data.train = {{"/d/train.jsonl"}};
  expected.data.task.prompt_template = "{sentence} It was";
  expected.data.task.verbalizers = {{"0", " terrible"}, {"1", " great"}};
  expected.train.output_dir = "/runs/a";
  EXPECT_EQ(c, expected);

  // The promises of the interface, spelled out.
  EXPECT_EQ(c.data.validation, std::nullopt);
  EXPECT_EQ(c.data.max_train_examples, std::nullopt);
  EXPECT_EQ(c.data.max_length, std::nullopt);
  EXPECT_EQ(c.data.task.label, "label");
  EXPECT_EQ(c.data.task.loss, TaskLoss::options);
  EXPECT_EQ(c.data.task.prompt, "prompt");
  EXPECT_EQ(c.data.task.completion, "completion");
  EXPECT_EQ(c.lora.r, 8);
  EXPECT_EQ(c.lora.lora_alpha, 16);
  EXPECT_TRUE(c.lora.target_modules.unset());
  EXPECT_EQ(c.lora.layers_to_transform, std::nullopt);
  EXPECT_EQ(c.lora.adapter, std::nullopt);
  EXPECT_EQ(c.zo.space, SpaceType::lora);
  EXPECT_EQ(c.zo.directions, 16);
  EXPECT_EQ(c.zo.epsilon, 1e-2);
  EXPECT_EQ(c.zo.estimator, EstimatorKind::two_sided);
  EXPECT_EQ(c.zo.noise, NoiseKind::gaussian);
  EXPECT_EQ(c.zo.normalize, Normalization::zscore);
  EXPECT_EQ(c.zo.step_limit, 0.15);
  EXPECT_EQ(c.zo.probes_per_forward, std::nullopt);
  EXPECT_EQ(c.optimizer.type, OptimizerType::sgd);
  EXPECT_EQ(c.optimizer.learning_rate, 3e-2);
  EXPECT_EQ(c.optimizer.weight_decay, 0);
  EXPECT_EQ(c.optimizer.lr_scheduler_type, LrScheduler::linear);
  EXPECT_EQ(c.optimizer.warmup_steps, 0);
  EXPECT_EQ(c.train.max_steps, 1000);
  EXPECT_EQ(c.train.batch_size, 16);
  EXPECT_EQ(c.train.gradient_accumulation_steps, 1);
  EXPECT_EQ(c.train.batch_slices, 1);
  EXPECT_EQ(c.train.seed, 42u);
  EXPECT_EQ(c.train.data_seed, 42u);
  EXPECT_EQ(c.train.eval_steps, 100);
  EXPECT_EQ(c.train.save_steps, 100);
  EXPECT_EQ(c.train.save_total_limit, 3);
  EXPECT_EQ(c.train.logging_steps, 10);
  EXPECT_EQ(c.train.trajectory_sync_steps, 1);
  EXPECT_EQ(c.train.hash_steps, 50);
  EXPECT_EQ(c.train.resume_from_checkpoint.kind, ResumeFrom::Kind::automatic);
  EXPECT_EQ(c.runtime.device, Device::automatic);
  EXPECT_EQ(c.runtime.dtype, Precision::automatic);
  EXPECT_EQ(c.runtime.threads, std::nullopt);
  EXPECT_EQ(c.runtime.timeout_s, 60);
  EXPECT_EQ(c.runtime.start_timeout_s, 120);
}

// A config that sets every key of its task to something else than the default.
const std::string everything = R"(
model: {path: /models/x}
data:
  train: /t
  validation: /v
  format: csv
  max_train_examples: 1000
  max_length: 128
  task:
    type: classification
    template: "{{{a b}}} \"{c}\"\n: "
    label: y
    verbalizers: {"true": " ja:", false: " nein", "": "\t#", "x\ny": "\\"}
    loss: language_model
lora: {r: 4, lora_alpha: 2.5, target_modules: [v_proj, q_proj], layers_to_transform: [3, 1], adapter: /ad}
zo: {directions: 8, epsilon: 1e-3, estimator: one_sided, noise: rademacher, normalize: std, probes_per_forward: 5}
optimizer: {type: sgd, learning_rate: 5e-3, weight_decay: 0.1, lr_scheduler_type: cosine, warmup_steps: 7}
train:
  max_steps: 450
  batch_size: 32
  gradient_accumulation_steps: 2
  batch_slices: 4
  seed: 18446744073709551615
  data_seed: 0
  output_dir: /runs/all
  eval_steps: 11
  save_steps: 12
  save_total_limit: 13
  logging_steps: 14
  trajectory_sync_steps: 15
  hash_steps: 16
  load_best_model_at_end: false
  metric_for_best_model: eval_loss
  early_stopping_patience: 17
  resume_from_checkpoint: /runs/all/snapshots/step-5.h5
runtime: {device: cpu, dtype: bf16, threads: 2, timeout_s: 0.5, start_timeout_s: 600}
)";

TEST(Config, ReadsEveryKey) {
  const Config c = parsed(everything);
  Config e;
  e.model.path = "/models/x";
  e.data.train = {{"/t"}};
  e.data.validation = "/v";
  e.data.format = DataFormat::csv;
  e.data.max_train_examples = 1000;
  e.data.max_length = 128;
  e.data.task.prompt_template = "{{{a b}}} \"{c}\"\n: ";
  e.data.task.label = "y";
  e.data.task.verbalizers = {{"true", " ja:"}, {"false", " nein"}, {"", "\t#"}, {"x\ny", "\\"}};
  e.data.task.loss = TaskLoss::language_model;
  e.lora = {.r = 4,
            .lora_alpha = 2.5,
            .target_modules = {false, {"v_proj", "q_proj"}},
            .layers_to_transform = {{3, 1}},
            .adapter = "/ad"};
  e.zo = {.space = SpaceType::lora,
          .rank = 4,
          .target_modules = {},
          .directions = 8,
          .epsilon = 1e-3,
          .estimator = EstimatorKind::one_sided,
          .noise = NoiseKind::rademacher,
          .normalize = Normalization::std,
          .step_limit = {},
          .probes_per_forward = 5};
  e.optimizer = {.type = OptimizerType::sgd,
                 .learning_rate = 5e-3,
                 .weight_decay = 0.1,
                 .lr_scheduler_type = LrScheduler::cosine,
                 .warmup_steps = 7};
  e.train = {.max_steps = 450,
             .batch_size = 32,
             .gradient_accumulation_steps = 2,
             .batch_slices = 4,
             .seed = 18446744073709551615u,
             .data_seed = 0,
             .output_dir = "/runs/all",
             .eval_steps = 11,
             .save_steps = 12,
             .save_total_limit = 13,
             .logging_steps = 14,
             .trajectory_sync_steps = 15,
             .hash_steps = 16,
             .load_best_model_at_end = false,
             .metric_for_best_model = "eval_loss",
             .early_stopping_patience = 17,
             .resume_from_checkpoint = {ResumeFrom::Kind::snapshot, "/runs/all/snapshots/step-5.h5"}};
  e.runtime = {.device = Device::cpu,
               .dtype = Precision::bf16,
               .threads = 2,
               .timeout_s = 0.5,
               .start_timeout_s = 600};
  EXPECT_EQ(c, e);
}

TEST(Config, AnObjectiveThatOnlyJumpsHasNoStepLimit) {
  EXPECT_EQ(parsed(minimal).zo.step_limit, 0.15);
  EXPECT_EQ(parsed(minimal, {"data.task.loss=accuracy"}).zo.step_limit, std::nullopt);
  EXPECT_EQ(parsed(generation).zo.step_limit, std::nullopt);
  EXPECT_ERROR(error_of(minimal, {"data.task.loss=accuracy", "zo.step_limit=0.1"}), "zo.step_limit",
               "curvature");
}

TEST(Config, PrintedConfigParsesBackToTheSame) {
  const std::vector<Config> configs = {
      parsed(minimal),
      parsed(everything),
      parsed(completion),
      parsed(completion, {"data.task.template=\"{q}?\""}),
      parsed(completion, {"data.task.format=alpaca"}),
      parsed(generation),
      parsed(generation, {"data.task.reward={type: regex, pattern: \"#+ (\\\\d+)\"}",
                          "generation.stop=[\"\\n\", \"}\"]", "generation.temperature=0.7"}),
      parsed(generation, {"data.task.reward={command: [python3, \"my grader.py\", \"-1\"], workers: 2}"}),
      parsed(minimal, {"lora.adapter=/a"}),
      parsed(minimal, {"lora.target_modules=all-linear", "lora.layers_to_transform=3"}),
      parsed(minimal,
             {"optimizer.learning_rate=0.1234567890123456789", "zo.epsilon=3.3e-38", "lora.lora_alpha=1e20"}),
      parsed(minimal, {"train.output_dir=\"a b/#: '\\\"é\"", "train.resume_from_checkpoint=never"}),
  };
  for (const Config& c : configs) {
    const std::string text = to_yaml(c);
    EXPECT_EQ(parsed(text), c) << text;
    EXPECT_EQ(to_yaml(parsed(text)), text);
  }
  // Complete: every key that the task uses is there.
  const std::string text = to_yaml(parsed(minimal));
  for (const KeyInfo& info : config_keys()) {
    const std::string leaf = info.name.substr(info.name.rfind('.') + 1);
    if (info.name == "data.task.format") continue;  // data.format has the same leaf
    const std::set<std::string> of_others = {"data.task.options", "data.task.prompt", "data.task.completion",
                                             "data.task.append_eos", "train.log_samples"};
    // Their leaves are those of others too; the sections are looked for below.
    if (info.name.starts_with("data.task.reward.") || info.name.starts_with("generation.")) continue;
    const bool used = !of_others.contains(info.name);
    EXPECT_EQ(text.find("  " + leaf + ": ") != text.npos, used) << info.name;
  }
  EXPECT_EQ(text.find("reward:"), text.npos) << text;
  EXPECT_EQ(text.find("generation:"), text.npos) << text;
  EXPECT_NE(to_yaml(parsed(generation)).find("    reward:\n      type: number\n      pattern: null\n"),
            text.npos)
      << to_yaml(parsed(generation));
  EXPECT_NE(text.find("\ndata:\n  train: /d/train.jsonl\n  validation: null\n"), text.npos) << text;
  EXPECT_NE(text.find("\n  task:\n    type: classification\n"), text.npos) << text;
  EXPECT_NE(text.find("verbalizers: {\"0\": \" terrible\", \"1\": \" great\"}\n"), text.npos) << text;
  EXPECT_NE(text.find("learning_rate: 0.03\n"), text.npos) << text;

  const Config eval =
      parsed(minimal, {"data.train=null", "data.validation=/v", "train.output_dir=null"}, ConfigUse::eval);
  EXPECT_EQ(parsed(to_yaml(eval), {}, ConfigUse::eval), eval);
}

TEST(Config, KnowsWhichKeysTheUserWrote) {
  using Names = std::set<std::string, std::less<>>;
  const Names in_file = {
      "model.path",      "data.train", "data.task.type", "data.task.template", "data.task.verbalizers",
      "train.output_dir"};
  EXPECT_EQ(parsed(minimal).written, in_file);
  Names expected = in_file;
  // A default that is written out is written, and so is null; a section without keys writes none.
  expected.insert({"zo.epsilon", "data.validation", "train.seed"});
  EXPECT_EQ(parsed(minimal + "lora:\nzo: {epsilon: 0.01}\n",
                   {"data.validation=null", "train.seed=42", "data.task.verbalizers.0=\" bad\""})
                .written,
            expected);
  EXPECT_EQ(parsed(minimal, {"zo.epsilon=0.01"}), parsed(minimal));  // who wrote a value is no part of it
}

TEST(Config, UnwrittenKeysTakeTheValuesOfARun) {
  const Overrides of_the_run = {"zo.directions=8",
                                "zo.noise=rademacher",
                                "lora.target_modules=[v_proj, q_proj]",
                                "train.seed=7",
                                "train.data_seed=9",
                                "data.validation=/v",
                                "optimizer.lr_scheduler_type=linear",
                                "train.max_steps=5"};
  const Config run = parsed(minimal, of_the_run);
  Config now = parsed(minimal, {"zo.directions=4", "train.seed=7", "train.eval_steps=3"});
  std::vector<IdentityEntry> entries = identity(run);
  entries.push_back({"model.hash", "0123"});
  adopt_unwritten(now, entries, "runs/a");
  Overrides expected = of_the_run;
  expected[0] = "zo.directions=4";  // what is written stays
  expected.push_back("train.eval_steps=3");
  expected[2] = "lora.target_modules=[q_proj, v_proj]";  // identities sort what is a set
  EXPECT_EQ(now, parsed(minimal, expected));

  entries = {{"zo.epsilon", "-1"}};
  try {
    adopt_unwritten(now, entries, "runs/a");
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_ERROR(std::string(error.what()), "runs/a: zo.epsilon", "found -1");
  }
}

// ---- unknown and repeated keys
// ------------------------------------------------------------------------------

TEST(Config, UnknownKeysNameTheNearest) {
  const struct {
    const char* name;
    const char* near;
  } cases[] = {
      {"zo.epsilonn", "key is 'zo.epsilon'"},
      {"zo.direction", "key is 'zo.directions'"},
      {"zo.eps", "key is 'zo.epsilon'"},
      {"lora.alpha", "key is 'lora.lora_alpha'"},
      {"lora.rank", "key is 'lora.r'"},
      {"lora.target_module", "key is 'lora.target_modules'"},
      {"train.learning_rate", "key is 'optimizer.learning_rate'"},
      {"train.lr", "key is 'optimizer.learning_rate'"},
      {"train.epsilon", "key is 'zo.epsilon'"},
      {"train.max_step", "key is 'train.max_steps'"},
      {"train.num_train_epochs", "key is 'train.max_steps'"},
      {"train.per_device_train_batch_size", "key is 'train.batch_size'"},
      {"optimizer.lr_scheduler", "key is 'optimizer.lr_scheduler_type'"},
      {"data.template", "key is 'data.task.template'"},
      {"data.tasks", "section is 'data.task'"},
      {"data.task.verbaliser", "key is 'data.task.verbalizers'"},
      {"runtime.thread", "key is 'runtime.threads'"},
      {"model.paths", "key is 'model.path'"},
  };
  for (const auto& [name, near] : cases) {
    const std::string full = name;
    const std::string section = full.substr(0, full.rfind('.'));
    const std::string leaf = full.substr(full.rfind('.') + 1);
    const std::string expected = "unknown key '" + leaf + "' in the section '" + section + "'";
    EXPECT_ERROR(override_error(full + "=1"), expected.c_str(), near);
  }
  EXPECT_ERROR(error_of(minimal + "optimiser: {learning_rate: 1}"), "c.yaml:11",
               "'optimiser' at the top level", "section is 'optimizer'");
  EXPECT_ERROR(error_of(minimal + "learning_rate: 1"), "c.yaml:11", "'learning_rate'",
               "'optimizer.learning_rate'");
  EXPECT_ERROR(error_of(minimal + "  batchsize: 1"), "c.yaml:11", "'batchsize' in the section 'train'",
               "'train.batch_size'");
  EXPECT_ERROR(error_of(minimal + "lora.r: 4"), "c.yaml:11", "'lora.r' at the top level", "'lora.r'");
  EXPECT_ERROR(error_of(minimal + "zo:\n  zzzzzzzzzzzz: 4"), "c.yaml:12",
               "known there: zo.space, zo.rank, zo.target_modules, zo.directions, zo.resample_steps");
  EXPECT_ERROR(error_of(minimal + "qqqqqqqqqqqqqqqqqqq: 4"), "c.yaml:11",
               "known there: model, data, generation, lora");
  EXPECT_ERROR(error_of(minimal + "zo:\n  epsilon:1\n"), "'zo' is a section", "a space between");
  EXPECT_ERROR(error_of(minimal + "zo:\n  noise: gaussian\n  epsilon:1\n"), "c.yaml:13", "'epsilon: VALUE'");
  EXPECT_ERROR(override_error("optimiser.learning_rate=1"), "unknown section 'optimiser'", "'optimizer'");
  EXPECT_ERROR(override_error("data.tasks.type=x"), "unknown section 'data.tasks'", "section is 'data.task'");
  EXPECT_ERROR(override_error("data.task.verbalizer.0=x"), "unknown section 'data.task.verbalizer'",
               "key is 'data.task.verbalizers'");
  EXPECT_ERROR(override_error("data.tsk.verbalizers.0=x"), "unknown section 'data.tsk.verbalizers'",
               "section is 'data.task'");
  EXPECT_ERROR(override_error("qqqqqqqqqqqqqqqqqqq.b=1"), "unknown section 'qqqqqqqqqqqqqqqqqqq'",
               "known there: model, data, generation, lora");
}

TEST(Config, RepeatedKeysNameSectionAndLines) {
  EXPECT_ERROR(error_of(minimal + "  seed: 1\n  seed: 1\n"), "c.yaml:12", "'seed'", "'train'", "line 11");
  EXPECT_ERROR(error_of(minimal + "data: {}\n"), "c.yaml:11", "'data'", "top level", "line 3");
}

TEST(Config, SectionsAreMaps) {
  EXPECT_ERROR(error_of(minimal + "lora: 8"), "c.yaml:11", "'lora' is a section", "8");
  EXPECT_ERROR(error_of(minimal + "lora: [r]"), "c.yaml:11", "'lora' is a section", "a list");
  EXPECT_ERROR(error_of("model: 3", {"model.path=/m"}), "c.yaml:1", "'model' is a section");
  EXPECT_ERROR(error_of("[1]"), "c.yaml:1", "expected a map of sections", "a list");
  EXPECT_ERROR(error_of("text"), "c.yaml:1", "expected a map of sections");
  EXPECT_EQ(parsed(minimal + "lora:\nzo: # nothing yet\n"), parsed(minimal));
}

// ---- types and ranges
// ----------------------------------------------------------------------------------------

TEST(Config, ErrorsNamePlaceKeyFoundExpectedDefault) {
  EXPECT_ERROR(error_of(minimal + "zo:\n  epsilon: 0\n"),
               "c.yaml:12: zo.epsilon: expected a finite number > 0, found 0 (default: 1e-2, of dense 3e-3, "
               "of vectors 3e-2)");
  EXPECT_ERROR(override_error("zo.directions=0"),
               "override 'zo.directions=0': zo.directions: expected a whole number from 1 to",
               "found 0 (default: 16)");
  EXPECT_ERROR(override_error("zo.estimator=twosided"), "`two_sided` or `one_sided`, found twosided",
               "did you mean `two_sided`?", "(default: two_sided)");
}

TEST(Config, TruthValues) {
  const std::string key = "train.load_best_model_at_end=";
  EXPECT_EQ(parsed(minimal, {key + "false"}).train.load_best_model_at_end, false);
  EXPECT_EQ(parsed(minimal, {key + "true", "data.validation=/v"}).train.load_best_model_at_end, true);
  EXPECT_EQ(parsed(minimal, {key + "null"}).train.load_best_model_at_end, std::nullopt);
  for (const char* bad : {"yes", "True", "1", "\"true\"", "[true]", "auto"})
    EXPECT_ERROR(override_error(key + bad), "train.load_best_model_at_end", "expected true or false");
}

TEST(Config, WhatEvaluationsDecideNeedsValidationData) {
  for (const char* override_text :
       {"train.load_best_model_at_end=true", "train.metric_for_best_model=eval_loss",
        "train.early_stopping_patience=3"}) {
    const std::string text = override_text;
    EXPECT_ERROR(override_error(text), text.substr(0, text.find('=')), "there is no data.validation");
    EXPECT_EQ(error_of(minimal, {text, "data.validation=/v"}), "");
  }
  EXPECT_ERROR(error_of(minimal, {"train.early_stopping_patience=0", "data.validation=/v"}),
               "train.early_stopping_patience", "found 0");
}

TEST(Config, WholeNumbers) {
  const std::vector<std::string> one_or_more = {"data.max_train_examples",
                                                "data.max_length",
                                                "lora.r",
                                                "zo.directions",
                                                "zo.probes_per_forward",
                                                "train.max_steps",
                                                "train.batch_size",
                                                "train.gradient_accumulation_steps",
                                                "train.batch_slices",
                                                "train.eval_steps",
                                                "train.save_steps",
                                                "train.save_total_limit",
                                                "train.logging_steps",
                                                "train.trajectory_sync_steps",
                                                "train.hash_steps",
                                                "runtime.threads"};
  for (const std::string& key : one_or_more) {
    EXPECT_EQ(override_error(key + "=1"), "") << key;
    for (const char* bad : {"0",
                            "-1",
                            "1.5",
                            "1.0",
                            "1e3",
                            "0x10",
                            "0o17",
                            "010",
                            "1_000",
                            "+5",
                            "\"8\"",
                            "'8'",
                            "true",
                            "yes",
                            ".inf",
                            "[1]",
                            "{a: 1}",
                            "99999999999999999999",
                            "9223372036854775808",
                            "eight",
                            "1 2"}) {
      EXPECT_ERROR(override_error(key + "=" + bad), (key + ": expected").c_str(), "whole number from 1 to",
                   "found");
    }
  }
  EXPECT_ERROR(override_error("lora.r=\"8\""), "found the text \"8\"; write the number without quotes");
  EXPECT_ERROR(override_error("train.max_steps=1e3"), "found 1e3; write it in decimal digits alone");
  EXPECT_ERROR(override_error("train.batch_size=2147483648"), "from 1 to 2147483647, found 2147483648");
  EXPECT_EQ(override_error("train.batch_size=2147483647"), "");
  EXPECT_EQ(override_error("train.eval_steps=1000000000000"), "");
  EXPECT_EQ(parsed(minimal, {"optimizer.warmup_steps=0"}).optimizer.warmup_steps, 0);
  EXPECT_ERROR(override_error("optimizer.warmup_steps=-1"), "whole number from 0");
}

TEST(Config, Seeds) {
  EXPECT_EQ(parsed(minimal, {"train.seed=0"}).train.seed, 0u);
  EXPECT_EQ(parsed(minimal, {"train.seed=18446744073709551615"}).train.seed, ~std::uint64_t{0});
  for (const char* bad : {"-1", "18446744073709551616", "1.0", "null", "''", "0x2a"}) {
    EXPECT_ERROR(override_error(std::string("train.seed=") + bad),
                 "train.seed: expected a whole number from 0 to 18446744073709551615", "default: 42");
  }
  EXPECT_EQ(parsed(minimal, {"train.seed=7"}).train.data_seed, 7u);
  EXPECT_EQ(parsed(minimal, {"train.seed=7", "train.data_seed=9"}).train.data_seed, 9u);
}

TEST(Config, Numbers) {
  const struct {
    const char* text;
    double value;
  } good[] = {{"1e-2", 1e-2}, {".5", .5},    {"5.", 5},      {"+1", 1},
              {"3", 3},       {"1E+2", 100}, {"007.5", 7.5}, {"1e-38", 1e-38}};
  for (const auto& [text, value] : good) {
    EXPECT_EQ(parsed(minimal, {std::string("zo.epsilon=") + text}).zo.epsilon, value) << text;
  }
  for (const char* key : {"zo.epsilon", "optimizer.learning_rate", "lora.lora_alpha", "runtime.timeout_s"}) {
    for (const char* bad :
         {"0",  "0.0", "-0.0", "-1",    ".inf", "-.inf", ".nan",  "inf",  "nan", "1e999", "1e-999",
          "1e", "e5",  ".",    "1.2.3", "1,5",  "0x1p3", "\"1\"", "true", "[1]", "1_0"}) {
      EXPECT_ERROR(override_error(std::string(key) + "=" + bad), key, "> 0", "found");
    }
  }
  // What fp32 arithmetic would turn into 0 or infinity.
  EXPECT_ERROR(override_error("optimizer.learning_rate=1e-60"), "which is 0 in fp32");
  EXPECT_ERROR(override_error("zo.epsilon=1e39"), "which is infinite in fp32");
  EXPECT_EQ(parsed(minimal, {"optimizer.weight_decay=0"}).optimizer.weight_decay, 0);
  EXPECT_FALSE(std::signbit(parsed(minimal, {"optimizer.weight_decay=-0.0"}).optimizer.weight_decay));
  EXPECT_ERROR(override_error("optimizer.weight_decay=-0.1"), "a finite number >= 0, found -0.1");
  EXPECT_EQ(parsed(minimal, {"runtime.timeout_s=1e-50"}).runtime.timeout_s, 1e-50);
  EXPECT_ERROR(override_error("runtime.timeout_s=1e10"), "at most 1000000000, found 1e10");
  for (const char* key : {"zo.epsilon", "runtime.timeout_s", "optimizer.weight_decay"}) {
    EXPECT_ERROR(override_error(std::string(key) + "=null"), "found null");
  }
}

TEST(Config, Words) {
  const auto with = [](const std::string& text) { return parsed(minimal, {text}); };
  EXPECT_EQ(with("zo.estimator=one_sided").zo.estimator, EstimatorKind::one_sided);
  EXPECT_EQ(with("zo.estimator=\"one_sided\"").zo.estimator, EstimatorKind::one_sided);
  EXPECT_EQ(with("zo.noise=rademacher").zo.noise, NoiseKind::rademacher);
  EXPECT_EQ(with("data.task.loss=language_model").data.task.loss, TaskLoss::language_model);
  EXPECT_EQ(with("optimizer.lr_scheduler_type=linear").optimizer.lr_scheduler_type, LrScheduler::linear);
  EXPECT_EQ(with("runtime.device=reference").runtime.device, Device::reference);
  EXPECT_EQ(with("runtime.device=cuda").runtime.device, Device::cuda);
  EXPECT_EQ(with("runtime.dtype=fp32").runtime.dtype, Precision::fp32);
  EXPECT_EQ(with("runtime.threads=auto").runtime.threads, std::nullopt);
  EXPECT_EQ(with("zo.probes_per_forward=auto").zo.probes_per_forward, std::nullopt);
  for (const char* text : {"zo.estimator=", "zo.estimator=null", "zo.noise=Gaussian", "optimizer.type=lion",
                           "runtime.device=gpu", "runtime.dtype=fp16", "optimizer.lr_scheduler_type=[linear]",
                           "zo.probes_per_forward=null", "runtime.threads=null", "data.task.type=ranking"}) {
    EXPECT_ERROR(override_error(text), "expected", "`");
  }
}

TEST(Config, Texts) {
  const auto with = [](const std::string& text) { return parsed(minimal, {text}); };
  EXPECT_EQ(with("data.task.label=yes").data.task.label, "yes");
  EXPECT_EQ(with("data.task.label=\"8\"").data.task.label, "8");
  for (const char* bad : {"8", "1e3", "true", "0x1f", ".nan", "[a]", "{a}", "\"\"", "null"}) {
    EXPECT_ERROR(override_error(std::string("data.task.label=") + bad),
                 "data.task.label: expected the name of a field, found");
  }
  EXPECT_ERROR(override_error("data.task.label=8"), "quote it if that text is meant");
  EXPECT_ERROR(override_error("data.task.template={sentence}"),
               "found a map; quote a text that starts with {");
  EXPECT_ERROR(override_error("data.task.template={sentence} was"), "quote a text that starts with");
}

TEST(Config, Paths) {
  const std::string here = std::filesystem::current_path().string();
  const auto with = [](const std::string& text) { return parsed(minimal, {text}); };
  EXPECT_EQ(with("model.path=./m").model.path, here + "/m");
  EXPECT_EQ(with("model.path=./x/../m//n/").model.path, here + "/m/n");
  EXPECT_EQ(with("model.path=/").model.path, "/");
  EXPECT_EQ(with("model.path=.").model.path, here);
  EXPECT_EQ(with("data.train=t").data.train, (std::vector<TrainFile>{{here + "/t"}}));
  EXPECT_EQ(with("data.train=[{path: t, weight: 1}, {path: ./u, weight: 2}]").data.train,
            (std::vector<TrainFile>{{here + "/t", 1}, {here + "/u", 2}}));
  EXPECT_EQ(with("data.validation=v").data.validation, here + "/v");
  EXPECT_EQ(with("lora.adapter=./a").lora.adapter, here + "/a");
  EXPECT_EQ(with("train.output_dir=o/").train.output_dir, here + "/o");
  const ResumeFrom snapshot = with("train.resume_from_checkpoint=s.h5").train.resume_from_checkpoint;
  EXPECT_EQ(snapshot.kind, ResumeFrom::Kind::snapshot);
  EXPECT_EQ(snapshot.path, here + "/s.h5");
  EXPECT_EQ(with("train.resume_from_checkpoint=./auto").train.resume_from_checkpoint.path, here + "/auto");
  EXPECT_EQ(with("train.resume_from_checkpoint=never").train.resume_from_checkpoint.kind,
            ResumeFrom::Kind::never);
  EXPECT_ERROR(override_error("train.resume_from_checkpoint=true"),
               "`auto`, `never` or the path of a snapshot, found true");
  EXPECT_ERROR(override_error("model.path=\"\""), "expected a directory");
  EXPECT_ERROR(override_error("model.path=no-org/no-model"),
               "override 'model.path=no-org/no-model': model.path: ",
               "no folder " + here + "/no-org/no-model", "`hf download no-org/no-model`");
  EXPECT_ERROR(override_error("model.path=\"a\\0b\""), "NUL");
}

TEST(Config, TargetModulesAndLayers) {
  const auto with = [](const std::string& text) { return parsed(minimal, {text}).lora; };
  EXPECT_EQ(with("lora.target_modules=[q_proj]").target_modules.names, std::vector<std::string>{"q_proj"});
  EXPECT_TRUE(with("lora.target_modules=all-linear").target_modules.all_linear);
  EXPECT_TRUE(with("lora.target_modules=null").target_modules.unset());
  EXPECT_ERROR(override_error("lora.target_modules=q_proj"), "list", "write [q_proj]");
  EXPECT_ERROR(override_error("lora.target_modules=[]"), "empty list");
  EXPECT_ERROR(override_error("lora.target_modules=[a, b, a]"), "a stands in the list twice");
  EXPECT_ERROR(override_error("lora.target_modules=[a, all-linear]"), "found all-linear");
  for (const char* bad : {"[1]", "[[a]]", "[null]", "['']", "{a: b}", "8"}) {
    EXPECT_ERROR(override_error(std::string("lora.target_modules=") + bad), "lora.target_modules: expected");
  }
  EXPECT_EQ(with("lora.layers_to_transform=[2, 0]").layers_to_transform, (std::vector<std::int64_t>{2, 0}));
  EXPECT_EQ(with("lora.layers_to_transform=2").layers_to_transform, (std::vector<std::int64_t>{2}));
  EXPECT_EQ(with("lora.layers_to_transform=null").layers_to_transform, std::nullopt);
  for (const char* bad : {"[]", "[-1]", "[1.5]", "[a]", "[[1]]", "all", "{0: 1}", "\"1\""}) {
    EXPECT_ERROR(override_error(std::string("lora.layers_to_transform=") + bad),
                 "lora.layers_to_transform: expected");
  }
  EXPECT_ERROR(override_error("lora.layers_to_transform=[1, 1]"), "twice");
}

TEST(Config, AdapterGivesWhatIsLeftOut) {
  const LoraConfig alone = parsed(minimal, {"lora.adapter=/a"}).lora;
  EXPECT_EQ(alone.r, std::nullopt);
  EXPECT_EQ(alone.lora_alpha, std::nullopt);
  EXPECT_TRUE(alone.target_modules.unset());
  EXPECT_EQ(alone.layers_to_transform, std::nullopt);
  const LoraConfig both = parsed(minimal, {"lora.adapter=/a", "lora.r=4"}).lora;
  EXPECT_EQ(both.r, 4);
  EXPECT_EQ(both.lora_alpha, std::nullopt);
  EXPECT_EQ(parsed(minimal, {"lora.r=null", "lora.lora_alpha=null"}).lora, LoraConfig());
}

TEST(Config, Verbalizers) {
  const auto with = [](const std::string& text) { return parsed(minimal, {text}).data.task.verbalizers; };
  using V = std::vector<Verbalizer>;
  EXPECT_EQ(with("data.task.verbalizers={z: \" a\", 0: b, true: \"1\"}"),
            (V{{"z", " a"}, {"0", "b"}, {"true", "1"}}));
  EXPECT_EQ(with("data.task.verbalizers.1=\" fine\""), (V{{"0", " terrible"}, {"1", " fine"}}));
  EXPECT_EQ(with("data.task.verbalizers.a.b=\" third\""),
            (V{{"0", " terrible"}, {"1", " great"}, {"a.b", " third"}}));
  EXPECT_EQ(parsed(minimal, {"data.task.verbalizers.0=\" x=y\"", "data.task.verbalizers.1=\" z\""})
                .data.task.verbalizers,
            (V{{"0", " x=y"}, {"1", " z"}}));
  EXPECT_EQ(with("data.task.verbalizers={0: \" {\", 1: \" }{}\"}"), (V{{"0", " {"}, {"1", " }{}"}}));
  EXPECT_EQ(with("data.task.verbalizers.1=\" {answer}\"")[1].option, " {answer}");
  EXPECT_ERROR(override_error("data.task.verbalizers.1=\"a { {b c}\""),
               "data.task.verbalizers: has a { at byte 2");
  EXPECT_ERROR(override_error("data.task.verbalizers={0: \" a\", \"0\": \" b\"}"), "repeats the key '0'");
  EXPECT_ERROR(override_error("data.task.verbalizers={0: \" a\"}"), "at least two", "found 1");
  EXPECT_ERROR(override_error("data.task.verbalizers={}"), "at least two");
  EXPECT_ERROR(override_error("data.task.verbalizers=[a, b]"), "expected a map", "a list");
  EXPECT_ERROR(override_error("data.task.verbalizers={0: \"\", 1: \" b\"}"), "non-empty text", "label '0'");
  EXPECT_ERROR(override_error("data.task.verbalizers={0:, 1: \" b\"}"), "label '0'", "null");
  EXPECT_ERROR(override_error("data.task.verbalizers={0: 0, 1: 1}"), "label '0'", "quote it");
  EXPECT_ERROR(override_error("data.task.verbalizers={0: [a], 1: \" b\"}"), "label '0'", "a list");
  EXPECT_ERROR(override_error("data.task.verbalizers={0: \" a\", 1: \" a\"}"), "same option", "'0'", "'1'");
  EXPECT_ERROR(override_error("data.task.verbalizers={" + std::string(129, 'x') + ": a, b: c}"), "129 bytes",
               "128");
  EXPECT_ERROR(override_error("data.task.verbalizers=null"), "missing", "data.task.verbalizers");
  const std::string block =
      "model: {path: /m}\ndata:\n  train: /t\n  task:\n    type: classification\n    template: \"{a}\"\n"
      "    verbalizers:\n      0: \" x\"\n      1: 8\ntrain: {output_dir: /o}\n";
  EXPECT_ERROR(error_of(block), "c.yaml:9: data.task.verbalizers", "label '1'");
}

// ---- overrides
// -----------------------------------------------------------------------------------------------

TEST(Config, OverridesWinAndMakeSections) {
  EXPECT_EQ(parsed(minimal, {"train.output_dir=/x"}).train.output_dir, "/x");
  EXPECT_EQ(parsed(minimal, {"runtime.threads=3"}).runtime.threads, 3);
  EXPECT_EQ(
      parsed("", {"model.path=/m", "data.train=/t", "data.task.type=completion", "train.output_dir=/o"}),
      parsed("model: {path: /m}\ndata: {train: /t, task: {type: completion}}\ntrain: {output_dir: /o}"));
  EXPECT_EQ(parsed("data:\n" + std::string("model: {path: /m}"),
                   {"data.train=/t", "data.task.type=completion", "train.output_dir=/o"})
                .data.train,
            (std::vector<TrainFile>{{"/t"}}));
  EXPECT_EQ(parsed(minimal, {"data.task.template=\"{a} = {b}\""}).data.task.prompt_template, "{a} = {b}");
  EXPECT_EQ(parsed(minimal, {"data.max_length=5 # tokens"}).data.max_length, 5);
  EXPECT_EQ(parsed(minimal, {"data.validation=null"}).data.validation, std::nullopt);
}

TEST(Config, TrainingFilesWithWeights) {
  const Config config = parsed(minimal, {"data.train=[{weight: 3, path: /a}, {path: /b c, weight: 0.5}]"});
  EXPECT_EQ(config.data.train, (std::vector<TrainFile>{{"/a", 3}, {"/b c", 0.5}}));
  EXPECT_NE(to_yaml(config).find("train: [{path: /a, weight: 3}, {path: \"/b c\", weight: 0.5}]\n"),
            std::string::npos)
      << to_yaml(config);
  EXPECT_EQ(parse_config(to_yaml(config), "again", {}, ConfigUse::train), config);
  // One file is one file.
  EXPECT_EQ(parsed(minimal, {"data.train=[{path: /d/train.jsonl, weight: 3}]"}), parsed(minimal));
  for (const auto& [value, problem] :
       {std::pair("[]", "found an empty list"),
        std::pair("[/a, /b]", "expected {path: FILE, weight: NUMBER}"),
        std::pair("[{path: /a}]", "found one without weight"),
        std::pair("[{weight: 1}]", "found one without path"),
        std::pair("[{path: /a, weight: 1, name: x}]", "found 'name' in it"),
        std::pair("[{path: /a, weight: 0}]", "found 0"), std::pair("[{path: /a, weight: -1}]", "found -1"),
        std::pair("[{path: /a, weight: 1}, {path: /x/../a, weight: 1}]", "/a stands in the list twice"),
        std::pair("{path: /a, weight: 1}", "found a map")}) {
    EXPECT_ERROR(override_error(std::string("data.train=") + value), "data.train", problem);
  }
}

TEST(Config, AFractionIsHeldOut) {
  const Config config = parsed(minimal, {"data.validation_fraction=0.25", "train.early_stopping_patience=3"});
  EXPECT_EQ(config.data.validation_fraction, 0.25);
  EXPECT_TRUE(config.data.evaluates());
  EXPECT_FALSE(parsed(minimal).data.evaluates());
  for (const char* value : {"0", "1", "1.5", "-0.1"}) {
    EXPECT_ERROR(override_error(std::string("data.validation_fraction=") + value), "data.validation_fraction",
                 "expected a number above 0 and below 1", value);
  }
  EXPECT_ERROR(error_of(minimal, {"data.validation_fraction=0.5", "data.validation=/v"}),
               "data.validation_fraction: expected it or data.validation, found both");
  EXPECT_EQ(error_of(minimal, {"data.validation_fraction=0.5"}, ConfigUse::eval), "");
  EXPECT_ERROR(error_of(minimal, {"data.validation_fraction=0.5", "data.train=null"}, ConfigUse::eval),
               "required: data.train (");
}

TEST(Config, OverridesAreStrict) {
  EXPECT_ERROR(error_of(minimal, {"zo.directions=1", "zo.directions=1"}),
               "'zo.directions' is overridden twice");
  EXPECT_ERROR(error_of(minimal, {"data.task.verbalizers.0=a", "data.task.verbalizers.0=b"}),
               "overridden twice");
  const std::string map = "data.task.verbalizers={0: a, 1: b}";
  EXPECT_ERROR(error_of(minimal, {"data.task.verbalizers.0=c", map}), "overridden twice");
  EXPECT_ERROR(error_of(minimal, {map, "data.task.verbalizers.0=c"}), "overridden twice");
  EXPECT_ERROR(override_error("zo.directions"), "override 'zo.directions': expected a.b=value");
  EXPECT_ERROR(override_error("=1"), "expected a.b=value");
  EXPECT_ERROR(override_error("--steps=1"), "unknown key");
  EXPECT_ERROR(override_error("zo.directions="), "has no value", "null");
  EXPECT_ERROR(override_error("lora={r: 4}"), "'lora' is a section", "lora.KEY=value");
  EXPECT_ERROR(override_error("data.task={type: completion}"), "'data.task' is a section");
  EXPECT_ERROR(override_error("zo.directions=[1"), "[ that is not closed");
  EXPECT_ERROR(override_error("zo.directions=&a 1"), "anchor");
  EXPECT_ERROR(override_error("zo.directions=1\n---\n2"), "second document");
  EXPECT_ERROR(override_error("zo.directions=\xff"), "UTF-8");
  EXPECT_ERROR(override_error("zo..directions=1"), "unknown");
  EXPECT_ERROR(override_error(".zo.directions=1"), "unknown");
  EXPECT_ERROR(override_error("zo.directions.x=1"), "unknown section 'zo.directions'");
}

// ---- what has to be there
// ------------------------------------------------------------------------------------

TEST(Config, RequiredKeysDependOnTheUse) {
  EXPECT_ERROR(
      error_of(""),
      "c.yaml: missing, but required: model.path (a directory or a model's name on the Hub), data.task.type",
      "data.train", "train.output_dir");
  EXPECT_ERROR(error_of("# nothing\n", {}, ConfigUse::eval), "model.path", "data.validation");
  EXPECT_EQ(error_of("", {}, ConfigUse::eval).find("data.train"), std::string::npos);
  EXPECT_EQ(error_of("", {}, ConfigUse::inspect).find("data.validation"), std::string::npos);
  EXPECT_ERROR(error_of(minimal, {"data.train=null"}), "required: data.train (");
  EXPECT_ERROR(error_of(minimal, {"train.output_dir=null"}), "required: train.output_dir (");
  EXPECT_ERROR(error_of(minimal, {}, ConfigUse::eval), "required: data.validation (");
  EXPECT_EQ(
      error_of(minimal, {"data.validation=/v", "data.train=null", "train.output_dir=null"}, ConfigUse::eval),
      "");
  EXPECT_EQ(error_of(minimal, {"data.train=null", "train.output_dir=null"}, ConfigUse::inspect), "");
  EXPECT_ERROR(error_of(minimal, {"data.task.template=null"}), "required: data.task.template (");
  EXPECT_ERROR(override_error("model.path=null"),
               "model.path: expected a directory or a model's name on the Hub, found null");
}

TEST(Config, NoKeyIsIgnored) {
  const Config c = parsed(completion);
  EXPECT_EQ(c.data.task.loss, TaskLoss::language_model);
  EXPECT_EQ(parsed(completion, {"data.task.loss=language_model", "data.task.prompt=q"}).data.task.prompt,
            "q");
  for (const char* text : {"data.task.label=y", "data.task.verbalizers={0: a, 1: b}", "data.task.options=x",
                           "data.task.length_normalized=false", "data.task.calibration=\"\""}) {
    EXPECT_ERROR(error_of(completion, {text}), "is not used by a completion task");
  }
  EXPECT_ERROR(error_of(completion, {"data.task.loss=options"}), "language_model");
  EXPECT_ERROR(override_error("data.task.prompt=q"),
               "data.task.prompt: is not used by a classification task");
  EXPECT_ERROR(override_error("data.task.completion=q"), "is not used by a classification task");
  EXPECT_ERROR(override_error("data.task.append_eos=true"), "is not used by a classification task");
  // The way from one task to the other by overrides.
  EXPECT_EQ(error_of(minimal,
                     {"data.task.type=completion", "data.task.template=null", "data.task.verbalizers=null"}),
            "");
}

TEST(Config, MultipleChoice) {
  const std::string text = R"(model: {path: /m}
data:
  train: /d/train.jsonl
  task:
    type: multiple_choice
    template: "{q}"
    options: [" {a}", " b"]
    fields: {"all[]": "{{ x }}", y: ""}
train: {output_dir: /runs/a}
)";
  const TaskConfig task = parsed(text).data.task;
  EXPECT_EQ(task.options.templates, (std::vector<std::string>{" {a}", " b"}));
  EXPECT_EQ(task.fields, (std::vector<ComputedField>{{"all[]", "{{ x }}"}, {"y", ""}}));
  EXPECT_EQ(parsed(to_yaml(parsed(text))), parsed(text));
  EXPECT_EQ(parsed(text, {"data.task.options=choices"}).data.task.options.field, "choices");
  EXPECT_EQ(parsed(text, {"data.task.fields.y=\"{{ z }}\""}).data.task.fields[1].source, "{{ z }}");
  EXPECT_EQ(parsed(text, {"data.task.calibration=\"\""}).data.task.calibration, "");
  EXPECT_EQ(parsed(text).data.task.calibration, std::nullopt);
  const auto error = [&](const std::string& change) { return error_of(text, {change}); };
  EXPECT_ERROR(error("data.task.options=null"), "required: data.task.options (");
  EXPECT_ERROR(error("data.task.options=[\" a\"]"), "at least two", "found 1");
  EXPECT_ERROR(error("data.task.options=[\" a\", \" a\"]"), "stands in the list twice");
  EXPECT_ERROR(error("data.task.options=[\" a\", 1]"), "quote it if that text is meant");
  EXPECT_ERROR(error("data.task.options=[\" a\", \"{ {b}\"]"), "data.task.options: has a { at byte 0");
  EXPECT_ERROR(error("data.task.options=\"{a}\""), "a template stands in a list");
  EXPECT_ERROR(error("data.task.fields=[a]"), "a map, the name of a field: a Jinja template");
  EXPECT_ERROR(error("data.task.fields={a: 1}"), "as the field 'a'", "quote it");
  EXPECT_ERROR(error("data.task.fields.a=\"x\" data.task.fields=null"), "data.task.fields");
  EXPECT_ERROR(error("data.task.verbalizers={0: a, 1: b}"), "is not used by a multiple_choice task");
}

TEST(Config, OneThingSaysWhatACompletionsPromptIs) {
  EXPECT_EQ(parsed(completion).data.task.append_eos, true);
  EXPECT_EQ(parsed(completion, {"data.task.template=\"{q}?\""}).data.task.prompt_template, "{q}?");
  EXPECT_ERROR(error_of(completion, {"data.task.template=\"{q}?\"", "data.task.prompt=q"}), "found both");
  EXPECT_ERROR(error_of(completion, {"data.task.template=\"q?\""}), "at least one {field}");
  EXPECT_EQ(parsed(completion, {"data.task.format=alpaca"}).data.task.format, CompletionFormat::alpaca);
  EXPECT_ERROR(error_of(completion, {"data.task.format=alpaca", "data.task.completion=output"}),
               "data.task.completion: expected the key to be left out with data.task.format: alpaca");
}

TEST(Config, Generation) {
  const Config config = parsed(generation);
  EXPECT_EQ(config.data.task.reward.type, RewardRule::number);
  EXPECT_EQ(config.data.task.reward.workers, 1);
  EXPECT_EQ(config.data.task.reward.timeout_s, 10);
  EXPECT_EQ(config.data.task.reward.restarts, 3);
  EXPECT_EQ(config.data.task.reward.on_error, OnRewardError::drop);
  EXPECT_EQ(config.generation, GenerationConfig{});
  EXPECT_EQ(config.generation.max_new_tokens, 64);
  EXPECT_EQ(config.generation.temperature, 0);
  EXPECT_EQ(config.generation.top_p, 1);
  EXPECT_EQ(config.generation.samples, 1);
  EXPECT_TRUE(config.generation.stop.empty());

  const Config set =
      parsed(generation, {"generation.max_new_tokens=18", "generation.temperature=0.5",
                          "generation.top_p=0.9", "generation.samples=4", "generation.stop=[\"\\n\", Q]"});
  const GenerationConfig expected = {
      .max_new_tokens = 18, .temperature = 0.5, .top_p = 0.9, .samples = 4, .stop = {"\n", "Q"}};
  EXPECT_EQ(set.generation, expected);

  const auto error = [&](const std::string& change) { return error_of(generation, {change}); };
  EXPECT_ERROR(error("generation.max_new_tokens=0"), "whole number from 1");
  EXPECT_ERROR(error("generation.temperature=-1"), "a finite number >= 0");
  for (const char* bad : {"0", "1.1", "-1", "one"})
    EXPECT_ERROR(error(std::string("generation.top_p=") + bad), "a number above 0 and at most 1");
  for (const char* key : {"generation.top_p=0.5", "generation.samples=2"})
    EXPECT_ERROR(error(key), "needs a generation.temperature above 0");
  EXPECT_ERROR(error("generation.stop=Q"), "generation.stop: expected a list of texts", "write [Q] for one");
  EXPECT_ERROR(error("generation.stop=[]"), "empty list");
  EXPECT_ERROR(error("generation.stop=[a, \"\"]"), "non-empty text");
  EXPECT_ERROR(error("generation.stop=[8]"), "quote it");
  EXPECT_ERROR(error("data.task.loss=options"), "is not used by a generation task");
  EXPECT_ERROR(error("data.task.append_eos=false"), "is not used by a generation task");
  EXPECT_ERROR(error_of(generation, {"data.task.template=\"{q}\"", "data.task.prompt=q"}), "found both");
  EXPECT_ERROR(override_error("generation.max_new_tokens=3"), "is not used by a classification task");
  EXPECT_ERROR(override_error("data.task.reward=f1"), "is not used by a classification task");
}

TEST(Config, RewardIsAWordOrAMap) {
  const auto reward = [](const Overrides& overrides) {
    return parsed(generation, overrides).data.task.reward;
  };
  EXPECT_EQ(reward({"data.task.reward=f1"}).type, RewardRule::f1);
  EXPECT_EQ(reward({"data.task.reward.type=f1"}).type, RewardRule::f1);
  EXPECT_EQ(reward({"data.task.reward={type: f1}"}), reward({"data.task.reward=f1"}));
  EXPECT_EQ(reward({"data.task.reward={type: regex, pattern: a+}"}).pattern, "a+");
  // What is written for a command stands behind it: the whole is replaced, a single key is not.
  const std::string runs = std::string(generation)
                               .replace(generation.find("reward: number"), 14,
                                        "reward: {command: [sh, -c, \"exit 1\"], workers: 3}");
  RewardConfig expected;
  expected.command = {"sh", "-c", "exit 1"};
  expected.workers = 3;
  EXPECT_EQ(parsed(runs).data.task.reward, expected);
  expected.restarts = 0;
  expected.environment = {"KEY"};
  expected.on_error = OnRewardError::stop;
  expected.timeout_s = 0.5;
  EXPECT_EQ(parsed(runs, {"data.task.reward.restarts=0", "data.task.reward.environment=[KEY]",
                          "data.task.reward.on_error=stop", "data.task.reward.timeout_s=0.5"})
                .data.task.reward,
            expected);
  EXPECT_EQ(parsed(runs, {"data.task.reward=number"}), parsed(generation));

  EXPECT_ERROR(error_of(std::string(generation).replace(generation.find(", reward: number"), 16, "")),
               "missing, but required: data.task.reward (`exact_match`, ", "command");
  EXPECT_ERROR(error_of(generation, {"data.task.reward=null"}), "required: data.task.reward (");
  EXPECT_ERROR(error_of(generation, {"data.task.reward=numbr"}),
               "data.task.reward.type: expected `exact_match`", "did you mean `number`?");
  EXPECT_ERROR(error_of(generation, {"data.task.reward="}), "has no value; expected `exact_match`");
  EXPECT_ERROR(error_of(generation, {"data.task.reward=[number]"}), "'data.task.reward' is a section");
  EXPECT_ERROR(error_of(generation, {"data.task.reward={typ: f1}"}), "unknown key 'typ'",
               "'data.task.reward.type'");
  EXPECT_ERROR(error_of(generation, {"data.task.reward=f1", "data.task.reward.type=f1"}), "overridden twice");
  EXPECT_ERROR(error_of(generation, {"data.task.reward.type=f1", "data.task.reward=f1"}), "overridden twice");
}

TEST(Config, KeysBelongToAReward) {
  const auto error = [](const Overrides& overrides) { return error_of(generation, overrides); };
  EXPECT_ERROR(error({"data.task.reward.command=[a]"}), "data.task.reward.command: expected it or",
               "found both");
  EXPECT_ERROR(error({"data.task.reward=regex"}), "data.task.reward.pattern: missing");
  EXPECT_ERROR(error({"data.task.reward.pattern=a"}), "data.task.reward.pattern: is of regex, found number");
  EXPECT_ERROR(error({"data.task.reward.target=3"}), "data.task.reward.target: is of length, found number");
  for (const char* key : {"workers=2", "timeout_s=1", "restarts=0", "environment=[A]"})
    EXPECT_ERROR(error({std::string("data.task.reward.") + key}), "is of a command, found number");
  EXPECT_EQ(error({"data.task.reward.on_error=stop"}), "");
  EXPECT_EQ(error({"data.task.completion=answer"}), "");
  EXPECT_ERROR(error({"data.task.reward=length", "data.task.completion=answer"}),
               "data.task.completion: is of rewards that compare with right answers, found length");
  EXPECT_EQ(error({"data.task.reward={type: length, target: 64}"}), "");
  EXPECT_ERROR(error({"data.task.reward={type: length, target: 65}"}),
               "data.task.reward.target: expected at most generation.max_new_tokens (64), found 65");
  EXPECT_ERROR(error({"data.task.reward={command: [a], environment: [A=b]}"}),
               "expected names of variables, found 'A=b'");
  EXPECT_ERROR(error({"data.task.reward={command: [a], workers: 0}"}), "whole number from 1");
  EXPECT_ERROR(error({"data.task.reward={command: a}"}), "a list of texts, a program and its arguments",
               "write [a] for one");
  EXPECT_ERROR(error({"data.task.reward={command: [a, \"b\\0c\"]}"}), "without a NUL");
}

TEST(Config, KeysThatHaveToAgree) {
  EXPECT_EQ(error_of(minimal, {"train.batch_size=4", "train.batch_slices=4"}), "");
  EXPECT_ERROR(error_of(minimal, {"train.batch_size=4", "train.batch_slices=5"}), "train.batch_slices",
               "at most train.batch_size (4), found 5");
  EXPECT_ERROR(error_of(minimal + "optimizer:\n  lr_scheduler_type: constant\n  warmup_steps: 3\n"),
               "c.yaml:13: optimizer.warmup_steps", "constant", "found 3");
  EXPECT_EQ(error_of(minimal, {"optimizer.warmup_steps=3", "optimizer.lr_scheduler_type=linear"}), "");
}

TEST(Config, DefaultsFollowFromOtherKeys) {
  const auto zo = [](const Overrides& overrides) { return parsed(minimal, overrides).zo; };
  EXPECT_EQ(zo({"zo.directions=1"}).normalize, Normalization::zscore);
  EXPECT_EQ(zo({"zo.directions=1", "zo.estimator=one_sided"}).normalize, Normalization::none);
  EXPECT_EQ(zo({"zo.directions=2"}).normalize, Normalization::zscore);
  EXPECT_EQ(zo({"zo.estimator=one_sided"}).normalize, Normalization::std);
  EXPECT_EQ(zo({"zo.directions=1"}).step_limit, 0.15);
  EXPECT_EQ(zo({"zo.directions=1", "zo.normalize=none"}).step_limit, std::nullopt);
  EXPECT_EQ(zo({"zo.directions=2"}).step_limit, 0.15);
  EXPECT_EQ(zo({"zo.normalize=ranks"}).step_limit, 0.15);
  EXPECT_EQ(zo({"zo.normalize=none"}).step_limit, std::nullopt);
  EXPECT_EQ(zo({"zo.estimator=one_sided"}).step_limit, std::nullopt);
  EXPECT_EQ(zo({"zo.step_limit=null"}).step_limit, std::nullopt);
  EXPECT_EQ(zo({"zo.directions=1", "zo.step_limit=0.5"}).step_limit, 0.5);
  EXPECT_ERROR(error_of(minimal, {"zo.estimator=one_sided", "zo.step_limit=0.5"}),
               "zo.step_limit: needs zo.estimator two_sided, found one_sided");
  const auto rate = [](const Overrides& overrides) {
    return parsed(minimal, overrides).optimizer.learning_rate;
  };
  EXPECT_EQ(rate({"optimizer.type=momentum"}), 4e-3);
  EXPECT_EQ(rate({"optimizer.type=sign"}), 4e-3);
  EXPECT_EQ(rate({"optimizer.type=adam"}), 2e-2);
  EXPECT_EQ(rate({"optimizer.type=adam", "zo.normalize=none"}), 1e-4);
  EXPECT_EQ(rate({"optimizer.type=adam", "optimizer.learning_rate=1"}), 1.0);
}

TEST(Config, KeysBelongToASpace) {
  EXPECT_EQ(error_of(minimal, {"zo.space=low_rank", "zo.rank=2", "zo.target_modules=[q_proj]"}), "");
  EXPECT_EQ(error_of(to_yaml(parsed(minimal, {"zo.space=low_rank"})), {}), "");
  EXPECT_ERROR(error_of(minimal, {"zo.rank=2"}), "zo.rank: is of zo.space low_rank, found zo.space lora");
  EXPECT_ERROR(error_of(minimal, {"zo.space=dense", "zo.rank=2"}), "found zo.space dense");
  for (const char* space : {"dense", "vectors"}) {
    const std::string chosen = fmt::format("zo.space={}", space);
    EXPECT_EQ(error_of(minimal, {chosen, "zo.target_modules=[q_proj]"}), "");
    EXPECT_ERROR(error_of(minimal, {chosen, "lora.r=4"}), "is of zo.space lora, found zo.space");
  }
  EXPECT_EQ(error_of(minimal, {"zo.space=dense", "optimizer.master=bf16"}), "");
  const auto epsilon = [](const std::vector<std::string>& overrides) {
    return parsed(minimal, overrides).zo.epsilon;
  };
  EXPECT_EQ(epsilon({"zo.space=low_rank"}), 1e-2);
  EXPECT_EQ(epsilon({"zo.space=dense"}), 3e-3);
  EXPECT_EQ(epsilon({"zo.space=vectors"}), 3e-2);
  EXPECT_EQ(epsilon({"zo.space=vectors", "zo.epsilon=1e-2"}), 1e-2);
  for (const char* space : {"lora", "low_rank", "vectors"}) {
    EXPECT_ERROR(error_of(minimal, {fmt::format("zo.space={}", space), "optimizer.master=bf16"}),
                 "optimizer.master: is of zo.space dense, found zo.space");
  }
  for (const char* key : {"lora.r=4", "lora.lora_alpha=4", "lora.target_modules=[q_proj]",
                          "lora.layers_to_transform=[0]", "lora.adapter=/x"}) {
    EXPECT_ERROR(error_of(minimal, {"zo.space=low_rank", key}),
                 "is of zo.space lora, found zo.space low_rank");
  }
}

TEST(Config, NormalizationsNeedTheirLosses) {
  EXPECT_EQ(error_of(minimal, {"zo.normalize=none"}), "");
  EXPECT_EQ(error_of(minimal, {"zo.normalize=zscore", "zo.directions=2"}), "");
  EXPECT_EQ(error_of(minimal, {"zo.normalize=std", "zo.estimator=one_sided", "zo.directions=2"}), "");
  EXPECT_EQ(error_of(minimal, {"zo.normalize=ranks", "zo.estimator=one_sided", "zo.directions=2"}), "");
  EXPECT_ERROR(error_of(minimal, {"zo.normalize=zscore", "zo.estimator=one_sided", "zo.directions=2"}),
               "zo.normalize: zscore needs zo.estimator two_sided, found one_sided");
  EXPECT_ERROR(error_of(minimal, {"zo.normalize=std", "zo.directions=2"}),
               "zo.normalize: std needs zo.estimator one_sided, found two_sided");
  EXPECT_ERROR(error_of(minimal, {"zo.normalize=ranks", "zo.directions=1"}),
               "zo.normalize: ranks needs zo.directions of 2 at least, found 1");
}

TEST(Config, RunningMeansNormalizeOneDirection) {
  const auto zo = [](const std::vector<std::string>& overrides) { return parsed(minimal, overrides).zo; };
  EXPECT_EQ(zo({}).normalize_beta, std::nullopt);
  EXPECT_EQ(zo({"zo.normalize_beta=0.5"}).normalize_beta, 0.5);
  EXPECT_EQ(zo({"zo.directions=1", "zo.normalize=zscore"}).normalize_beta, 0.99);
  EXPECT_EQ(zo({"zo.directions=1", "zo.normalize=zscore", "zo.normalize_beta=0.5"}).normalize_beta, 0.5);
  EXPECT_EQ(zo({"zo.directions=1", "zo.normalize=std", "zo.estimator=one_sided"}).normalize_beta, 0.99);
  EXPECT_EQ(zo({"zo.directions=1"}).normalize_beta, 0.99);
  EXPECT_EQ(zo({"zo.directions=1", "zo.normalize=none"}).normalize_beta, std::nullopt);
  EXPECT_ERROR(error_of(minimal, {"zo.directions=1", "zo.normalize=zscore", "zo.normalize_beta=null"}),
               "zo.normalize_beta: zo.normalize: zscore of one direction needs it, found null");
  EXPECT_ERROR(error_of(minimal, {"zo.normalize=ranks", "zo.normalize_beta=0.5"}),
               "zo.normalize_beta: needs zo.normalize zscore or std, found ranks");
  EXPECT_ERROR(error_of(minimal, {"zo.directions=1", "zo.normalize_beta=null"}),
               "zo.normalize_beta: zo.normalize: zscore of one direction needs it, found null");
  EXPECT_ERROR(error_of(minimal, {"zo.directions=1", "zo.estimator=one_sided", "zo.normalize_beta=0.5"}),
               "zo.normalize_beta: needs zo.normalize zscore or std, found none");
  EXPECT_ERROR(error_of(minimal, {"zo.normalize_beta=1"}), "zo.normalize_beta: expected");
  // What a run saves is read as it was.
  const Config one = parsed(minimal, {"zo.directions=1", "zo.normalize=zscore"});
  EXPECT_EQ(parsed(to_yaml(one), {}).zo, one.zo);
}

TEST(Config, Templates) {
  using Parts = std::vector<TemplatePart>;
  EXPECT_EQ(parse_template("{sentence} It was", "x"), (Parts{{true, "sentence"}, {false, " It was"}}));
  EXPECT_EQ(parse_template("a {{b}} {c}{d e}", "x"), (Parts{{false, "a {b} "}, {true, "c"}, {true, "d e"}}));
  EXPECT_EQ(parse_template("{{{a}}}", "x"), (Parts{{false, "{"}, {true, "a"}, {false, "}"}}));
  EXPECT_ERROR(override_error("data.task.template=\"no field\""), "data.task.template", "{field}",
               "no field");
  EXPECT_ERROR(override_error("data.task.template=\"{{a}}\""), "{field}");
  EXPECT_ERROR(override_error("data.task.template=\"{a} {b\""), "{ at byte 4");
  EXPECT_ERROR(override_error("data.task.template=\"{a{b}}\""), "{ at byte 0");
  EXPECT_ERROR(override_error("data.task.template=\"{a} }\""), "} at byte 4");
  EXPECT_ERROR(override_error("data.task.template=\"{a} {}\""), "{} at byte 4");
  EXPECT_ERROR(override_error("data.task.template=\"{ a }\""), "spaces around");
  EXPECT_ERROR(error_of(std::string(minimal).replace(minimal.find("{sentence}"), 10, "{sentence")),
               "c.yaml:7: data.task.template");
}

// ---- strict YAML, as far as the config adds to it (yaml_test.cc has the rest)
// -----------------------------------

TEST(Config, RefusesYamlThatHidesMeaning) {
  EXPECT_ERROR(error_of(minimal + "lora: &l {r: 8}\n"), "c.yaml:11", "anchor");
  EXPECT_ERROR(error_of(minimal + "<<: {lora: {r: 8}}\n"), "c.yaml:11", "merge key");
  EXPECT_ERROR(error_of(minimal + "---\na: 1\n"), "c.yaml:11", "second document");
  EXPECT_ERROR(error_of(minimal + "lora: {r: !!int 8}\n"), "c.yaml:11", "tag");
}

// ---- files
// -------------------------------------------------------------------------------------------------------

class ConfigFile : public ::testing::Test {
 protected:
  std::string write(const std::string& text) const { return folder_.write("c.yaml", text); }
  static std::string load_error(const std::string& path) {
    try {
      load_config(path, {}, ConfigUse::train);
    } catch (const UsageError& error) {
      return error.what();
    }
    return "";
  }
  const test::ScratchFolder folder_;
};

TEST_F(ConfigFile, Loads) {
  const std::string path = write(minimal);
  const Overrides overrides = {"zo.directions=8"};
  EXPECT_EQ(load_config(path, overrides, ConfigUse::train), parsed(minimal, overrides));
  write(minimal + "zo: {directions: 0}\n");
  EXPECT_ERROR(load_error(path), (path + ":11: zo.directions").c_str());
}

TEST_F(ConfigFile, NamesWhatCannotBeRead) {
  const std::string missing = folder_ / "missing.yaml";
  EXPECT_ERROR(load_error(missing), missing.c_str(), "No such file");
  EXPECT_ERROR(load_error(folder_.path()), folder_.path().c_str(), "directory");
  const std::string fifo = folder_ / "fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_ERROR(load_error(fifo), fifo.c_str(), "expected a regular file", "FIFO");
  EXPECT_ERROR(load_error("/dev/zero"), "/dev/zero", "expected a regular file", "a device");
  const std::string path = write(minimal + "#" + std::string(yaml::max_bytes, 'x'));
  EXPECT_ERROR(load_error(path), path.c_str(), "1048576 bytes");
}

// ---- the table and what is made from it
// ------------------------------------------------------------------------

TEST(ConfigTable, HasTheKeysOfTheInterface) {
  const std::vector<std::string> expected = {"model.path",
                                             "data.train",
                                             "data.validation",
                                             "data.validation_fraction",
                                             "data.format",
                                             "data.max_train_examples",
                                             "data.max_length",
                                             "data.task.type",
                                             "data.task.records",
                                             "data.task.fields",
                                             "data.task.template",
                                             "data.task.label",
                                             "data.task.verbalizers",
                                             "data.task.options",
                                             "data.task.loss",
                                             "data.task.length_normalized",
                                             "data.task.calibration",
                                             "data.task.format",
                                             "data.task.prompt",
                                             "data.task.completion",
                                             "data.task.append_eos",
                                             "data.task.overlong",
                                             "data.task.reward.type",
                                             "data.task.reward.pattern",
                                             "data.task.reward.target",
                                             "data.task.reward.command",
                                             "data.task.reward.workers",
                                             "data.task.reward.timeout_s",
                                             "data.task.reward.restarts",
                                             "data.task.reward.environment",
                                             "data.task.reward.on_error",
                                             "generation.max_new_tokens",
                                             "generation.temperature",
                                             "generation.top_p",
                                             "generation.samples",
                                             "generation.stop",
                                             "lora.r",
                                             "lora.lora_alpha",
                                             "lora.target_modules",
                                             "lora.layers_to_transform",
                                             "lora.adapter",
                                             "zo.space",
                                             "zo.rank",
                                             "zo.target_modules",
                                             "zo.directions",
                                             "zo.resample_steps",
                                             "zo.epsilon",
                                             "zo.estimator",
                                             "zo.noise",
                                             "zo.normalize",
                                             "zo.normalize_beta",
                                             "zo.step_limit",
                                             "zo.probes_per_forward",
                                             "optimizer.type",
                                             "optimizer.learning_rate",
                                             "optimizer.weight_decay",
                                             "optimizer.anchor_decay",
                                             "optimizer.momentum",
                                             "optimizer.nesterov",
                                             "optimizer.betas",
                                             "optimizer.adam_epsilon",
                                             "optimizer.second_moment",
                                             "optimizer.clip",
                                             "optimizer.master",
                                             "optimizer.lr_scheduler_type",
                                             "optimizer.warmup_steps",
                                             "train.max_steps",
                                             "train.batch_size",
                                             "train.gradient_accumulation_steps",
                                             "train.batch_slices",
                                             "train.seed",
                                             "train.data_seed",
                                             "train.output_dir",
                                             "train.eval_steps",
                                             "train.save_steps",
                                             "train.save_total_limit",
                                             "train.logging_steps",
                                             "train.log_samples",
                                             "train.load_best_model_at_end",
                                             "train.metric_for_best_model",
                                             "train.early_stopping_patience",
                                             "train.trajectory_sync_steps",
                                             "train.hash_steps",
                                             "train.resume_from_checkpoint",
                                             "runtime.device",
                                             "runtime.dtype",
                                             "runtime.threads",
                                             "runtime.timeout_s",
                                             "runtime.start_timeout_s"};
  std::vector<std::string> names;
  for (const KeyInfo& info : config_keys()) {
    names.push_back(info.name);
    EXPECT_FALSE(info.range.empty()) << info.name;
    EXPECT_FALSE(info.default_value.empty()) << info.name;
    EXPECT_EQ(info.description.back(), '.') << info.name;
  }
  EXPECT_EQ(names, expected);
}

std::map<std::string, std::string> identity_of(const Overrides& overrides) {
  std::map<std::string, std::string> entries;
  for (const IdentityEntry& entry : identity(parsed(minimal, overrides))) entries[entry.key] = entry.value;
  return entries;
}

TEST(ConfigIdentity, HoldsTheRewardButNotHowItsProgramIsRun) {
  const auto of = [](const Overrides& overrides) {
    std::map<std::string, std::string> entries;
    for (const IdentityEntry& entry : identity(parsed(generation, overrides)))
      entries[entry.key] = entry.value;
    return entries;
  };
  const auto base = of({"data.task.reward={command: [a]}"});
  EXPECT_EQ(base.at("data.task.reward.command"), "[a]");
  EXPECT_EQ(base.at("data.task.reward.type"), "null");
  EXPECT_EQ(base.at("generation.max_new_tokens"), "64");
  EXPECT_EQ(of({"data.task.reward={command: [a], workers: 2, timeout_s: 3, restarts: 4}"}), base);
  for (const char* key :
       {"data.task.reward={command: [b]}", "data.task.reward={command: [a], on_error: stop}",
        "data.task.reward={command: [a], environment: [A]}"}) {
    EXPECT_NE(of({key}), base) << key;
  }
  EXPECT_NE(of({"data.task.reward={command: [a]}", "generation.max_new_tokens=3"}), base);
  EXPECT_FALSE(identity_of({}).contains("generation.max_new_tokens"));
}

TEST(ConfigIdentity, HoldsWhatDecidesTheBits) {
  const auto base = identity_of({});
  EXPECT_EQ(base.at("data.task.verbalizers"), "{\"0\": \" terrible\", \"1\": \" great\"}");
  EXPECT_EQ(base.at("train.batch_size"), "16");
  for (const char* change : {"data.train=/x",
                             "data.validation=/x",
                             "data.train=[{path: /d/train.jsonl, weight: 1}, {path: /x, weight: 1}]",
                             "data.validation_fraction=0.5",
                             "data.format=jsonl",
                             "data.max_train_examples=5",
                             "data.max_length=5",
                             "data.task.template=\"{x}\"",
                             "data.task.label=y",
                             "data.task.verbalizers.0=\" bad\"",
                             "data.task.loss=language_model",
                             "data.task.records=\"a[]\"",
                             "data.task.fields={x: \"{{ y }}\"}",
                             "data.task.length_normalized=false",
                             "data.task.calibration=\"\"",
                             "data.task.overlong=skip",
                             "lora.r=4",
                             "lora.lora_alpha=4",
                             "lora.target_modules=all-linear",
                             "lora.layers_to_transform=[1]",
                             "lora.adapter=/x",
                             "zo.directions=2",
                             "zo.resample_steps=2",
                             "zo.epsilon=0.5",
                             "zo.estimator=one_sided",
                             "zo.noise=rademacher",
                             "optimizer.learning_rate=1",
                             "optimizer.weight_decay=1",
                             "optimizer.type=adam",
                             "optimizer.anchor_decay=1",
                             "optimizer.clip=1",
                             "optimizer.lr_scheduler_type=constant",
                             "zo.space=low_rank",
                             "zo.normalize_beta=0.5",
                             "zo.step_limit=0.5",
                             "train.max_steps=5",
                             "train.batch_size=4",
                             "train.gradient_accumulation_steps=2",
                             "train.batch_slices=2",
                             "train.seed=1",
                             "train.data_seed=1"}) {
    EXPECT_NE(identity_of({change}), base) << change;
  }
  EXPECT_NE(identity_of({"zo.normalize=ranks"}), base);
  EXPECT_NE(identity_of({"zo.space=dense", "optimizer.master=bf16"}), identity_of({"zo.space=dense"}));
  for (const char* change :
       {"zo.probes_per_forward=3", "train.eval_steps=5", "train.save_steps=5", "train.save_total_limit=5",
        "train.logging_steps=5", "train.trajectory_sync_steps=5", "train.hash_steps=5",
        "train.load_best_model_at_end=false", "train.resume_from_checkpoint=never", "runtime.threads=1",
        "runtime.timeout_s=5", "runtime.start_timeout_s=5", "train.output_dir=/x",
        // The caller adds the model's hash, and the device and dtype that these led to.
        "model.path=/x", "runtime.device=cpu", "runtime.dtype=fp32"}) {
    EXPECT_EQ(identity_of({change}), base) << change;
  }
}

TEST(ConfigOfARule, HasItsConstantsAndNoOthers) {
  const OptimizerConfig fresh;
  EXPECT_EQ(fresh.momentum, 0.9);
  EXPECT_EQ(fresh.betas, std::pair(0.9, 0.99));
  const OptimizerConfig adam =
      parsed(minimal, {"optimizer.type=adam", "optimizer.betas=[0, 0.5]", "optimizer.clip=2"}).optimizer;
  EXPECT_EQ(adam.type, OptimizerType::adam);
  EXPECT_EQ(adam.betas, std::pair(0.0, 0.5));
  EXPECT_EQ(adam.clip, 2.0);
  EXPECT_TRUE(parsed(minimal, {"optimizer.type=momentum", "optimizer.nesterov=true"}).optimizer.nesterov);
  // A run's config.yaml has every constant, at its default where the rule does not use it.
  EXPECT_EQ(parsed(to_yaml(parsed(minimal, {"optimizer.type=adam"})), {}).optimizer.type,
            OptimizerType::adam);
  EXPECT_ERROR(override_error("optimizer.momentum=0.5"), "optimizer.momentum",
               "is a constant of optimizer.type momentum or sign, found optimizer.type sgd");
  EXPECT_ERROR(error_of(minimal, {"optimizer.type=sign", "optimizer.nesterov=true"}),
               "is a constant of optimizer.type momentum, found optimizer.type sign");
  EXPECT_ERROR(override_error("optimizer.betas=[0.5, 0.9]"), "a constant of optimizer.type adam");
  EXPECT_ERROR(override_error("optimizer.second_moment=scalar"), "a constant of optimizer.type adam");
  EXPECT_ERROR(override_error("optimizer.adam_epsilon=1"), "a constant of optimizer.type adam");
  EXPECT_ERROR(override_error("optimizer.momentum=1"), "a number >= 0 and below 1, found 1");
  EXPECT_ERROR(override_error("optimizer.momentum=0.999999999999"), "a number >= 0 and below 1");
  EXPECT_ERROR(override_error("optimizer.betas=0.9"), "a list of two numbers >= 0 and below 1, found 0.9");
  EXPECT_ERROR(override_error("optimizer.betas=[0.9]"), "a list of two numbers");
  EXPECT_ERROR(override_error("optimizer.betas=[0.9, 1]"), "a list of two numbers");
  EXPECT_ERROR(override_error("optimizer.clip=0"), "a finite number > 0");
  EXPECT_ERROR(override_error("optimizer.max_grad_norm=1"), "the nearest known key is 'optimizer.clip'");
}

TEST(ConfigIdentity, HoldsTheNumberOfStepsWhereTheScheduleDependsOnIt) {
  for (const std::string schedule : {"linear", "cosine"}) {
    const std::string key = "optimizer.lr_scheduler_type=" + schedule;
    EXPECT_NE(identity_of({key, "train.max_steps=5"}), identity_of({key, "train.max_steps=6"}));
  }
  // A step limit is one of the whole run.
  const std::string constant = "optimizer.lr_scheduler_type=constant";
  EXPECT_TRUE(identity_of({constant}).contains("train.max_steps"));
  EXPECT_FALSE(identity_of({constant, "zo.step_limit=null"}).contains("train.max_steps"));
}

TEST(ConfigIdentity, DoesNotDependOnTheOrderOfSets) {
  EXPECT_EQ(identity_of({"lora.target_modules=[a, b]"}), identity_of({"lora.target_modules=[b, a]"}));
  EXPECT_EQ(identity_of({"lora.layers_to_transform=[1, 2]"}),
            identity_of({"lora.layers_to_transform=[2, 1]"}));
}

TEST(ConfigOfARun, IsIdentityAndSettings) {
  std::set<std::string> kept;
  const Config config = parsed(minimal, {});
  for (const auto& entries : {identity(config), settings(config)}) {
    for (const IdentityEntry& entry : entries) EXPECT_TRUE(kept.insert(entry.key).second) << entry.key;
  }
  for (const char* key : {"zo.probes_per_forward", "train.max_steps", "train.save_steps", "zo.directions"}) {
    EXPECT_TRUE(kept.contains(key)) << key;
  }
  for (const char* key : {"train.output_dir", "train.resume_from_checkpoint", "runtime.threads"}) {
    EXPECT_FALSE(kept.contains(key)) << key;
  }
}

// A key that is added must say what runs did before it: one that a record lacks is never today's default.
TEST(ConfigOfARun, EveryKeyIsInVersion1OrSaysWhatRunsDidWithoutIt) {
  const std::set<std::string> keys_of_version_1 = {"data.train",
                                                   "data.validation",
                                                   "data.max_train_examples",
                                                   "data.max_length",
                                                   "data.task.type",
                                                   "data.task.template",
                                                   "data.task.label",
                                                   "data.task.verbalizers",
                                                   "data.task.loss",
                                                   "data.task.prompt",
                                                   "data.task.completion",
                                                   "lora.r",
                                                   "lora.lora_alpha",
                                                   "lora.target_modules",
                                                   "lora.layers_to_transform",
                                                   "lora.adapter",
                                                   "zo.directions",
                                                   "zo.epsilon",
                                                   "zo.estimator",
                                                   "zo.noise",
                                                   "optimizer.type",
                                                   "optimizer.learning_rate",
                                                   "optimizer.weight_decay",
                                                   "optimizer.lr_scheduler_type",
                                                   "optimizer.warmup_steps",
                                                   "train.max_steps",
                                                   "train.batch_size",
                                                   "train.gradient_accumulation_steps",
                                                   "train.batch_slices",
                                                   "train.seed",
                                                   "train.data_seed"};
  std::set<std::string> before;
  for (const IdentityEntry& entry : values_before_records()) before.insert(entry.key);
  // A default that has changed: runs went on without an end token.
  const std::vector<IdentityEntry> values = values_before_records();
  EXPECT_EQ(std::ranges::count(values, IdentityEntry{"data.task.append_eos", "false"}), 1);
  for (const KeyInfo& info : config_keys()) {
    if (info.resumption != Resumption::fixed && info.resumption != Resumption::schedule) continue;
    EXPECT_NE(keys_of_version_1.contains(info.name), before.contains(info.name)) << info.name;
  }
}

TEST(ConfigReference, IsUpToDate) {
  const std::string path = MEZZO_SOURCE_DIR "/docs/configuration.md";
  if (std::getenv("MEZZO_UPDATE_DOCS") != nullptr) std::ofstream(path) << config_reference_markdown();
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  EXPECT_EQ(text.str(), config_reference_markdown())
      << "run this test with MEZZO_UPDATE_DOCS=1 to write the file anew";
}

TEST(ConfigReference, NamesEveryKey) {
  const std::string text = config_reference_markdown();
  for (const KeyInfo& info : config_keys())
    EXPECT_NE(text.find("| `" + info.name + "` |"), text.npos) << info.name;
}

}  // namespace
}  // namespace mezzo
