// Each family from the first estimate to the merged model, on the CPU and (label gpu) on a card.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <random>
#include <set>
#include <sstream>

#include "mezzo/backend/devices.h"
#include "mezzo/io/safetensors.h"
#include "mezzo/model/family.h"
#include "mezzo/model/layers.h"
#include "program.h"

namespace mezzo::test {
namespace {

constexpr int steps = 4;
constexpr double learning_rate = 3e-3, epsilon = 1e-2;

struct Family {
  std::string name;
  nlohmann::json config;  ///< beside the sizes
  int experts = 0;
  std::int64_t idle_parameters = 0;          ///< of the experts that take no part in a token
  std::vector<std::string> operations = {};  ///< some that a profile has to name
  bool on_cuda = true;                       ///< else it is refused there by name
  bool profiled_on_cpu = true;  ///< a profile takes seconds, so not for those that are like another
};

enum class Where : std::uint8_t { cpu, cuda_fp32, cuda_bf16 };

struct Case {
  Family family;
  Where where = Where::cpu;
};
std::string name_of(const Case& c) {
  return c.family.name + (c.where == Where::cpu         ? "_cpu"
                          : c.where == Where::cuda_fp32 ? "_cuda_fp32"
                                                        : "_cuda_bf16");
}
std::string runtime_of(Where where) {
  return where == Where::cpu         ? "runtime.device=cpu"
         : where == Where::cuda_fp32 ? "runtime.device=cuda runtime.dtype=fp32"
                                     : "runtime.device=cuda runtime.dtype=bf16";
}
void PrintTo(const Case& c, std::ostream* out) { *out << name_of(c); }

/// A random model of the family under the embedded model's tokenizer.
void write_model(const Family& family, const std::string& folder) {
  std::filesystem::create_directories(folder);
  std::filesystem::copy_file(MEZZO_SOURCE_DIR "/configs/quickstart/llama2m/tokenizer.json",
                             folder + "/tokenizer.json");
  nlohmann::json config{{"vocab_size", 8192},
                        {"hidden_size", 16},
                        {"num_hidden_layers", 2},
                        {"num_attention_heads", 2},
                        {"max_position_embeddings", 256}};
  if (!family.name.starts_with("opt")) config["intermediate_size"] = 12;
  if (!family.name.starts_with("opt") && family.name != "gpt_neox") {
    config["num_key_value_heads"] = 1;
    config["head_dim"] = 8;
  }
  config.update(family.config);
  write_file(folder + "/config.json", config.dump());
  const Description description = read_description(folder);
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0.0f, 0.3f);
  std::deque<std::vector<float>> values;
  std::vector<TensorSource> sources;
  for (const WeightSpec& spec : weight_specs(description)) {
    std::int64_t count = 1;
    for (const std::int64_t size : spec.shape) count *= size;
    const bool norm = spec.shape.size() == 1 && spec.name.ends_with("weight");
    const float middle = norm ? 1.0f - description.norm_weight_offset : 0.0f;
    for (float& value : values.emplace_back(static_cast<std::size_t>(count))) value = middle + normal(random);
    sources.push_back(float_source(spec.name, spec.shape, values.back()));
  }
  write_safetensors(folder + "/model.safetensors", sources);
}

class FamilyRun : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    std::string reason;
    if (GetParam().where != Where::cpu && !cuda_available(&reason)) GTEST_SKIP() << reason;
    write_model(GetParam().family, model_);
    scratch_.write("validation.jsonl", R"({"sentence": "a moving film .", "label": 1}
{"sentence": "dull and much too long .", "label": 0}
{"sentence": "the best of the year .", "label": 1}
)");
    scratch_.write("records.jsonl", R"({"prompt": "the film was", "completion": " great"}
{"prompt": "a dull story of", "completion": " terrible, terrible length"}
)");
  }

  std::string config_of(Where where, const std::string& more) const {
    return fmt::format(
        "configs/quickstart.yaml model.path={} {} train.batch_size=4 train.batch_slices=2 zo.directions=2 "
        "zo.normalize=none optimizer.lr_scheduler_type=constant "
        "zo.epsilon={} optimizer.learning_rate={} data.max_train_examples=20 lora.target_modules=all-linear "
        "train.save_steps=2 train.logging_steps=1 {}",
        model_, runtime_of(where), epsilon, learning_rate, more);
  }
  /// Trains up to a step.
  void train(const std::string& name, int until, const std::string& more, Where where = GetParam().where) {
    succeed("train " +
            config_of(where, fmt::format("data.validation=null train.output_dir={} train.max_steps={} {}",
                                         scratch_ / name, until, more)));
  }
  Outcome succeed(const std::string& arguments) {
    Outcome outcome = run(scratch_, arguments);
    EXPECT_EQ(outcome.status, 0) << arguments << '\n' << outcome.err;
    return outcome;
  }
  nlohmann::json json_of(const std::string& arguments) {
    return nlohmann::json::parse(succeed(arguments + " --json").out);
  }
  std::string adapter(const std::string& name) const {
    return scratch_ / (name + "/adapter/adapter_model.safetensors");
  }
  std::vector<double> scores(const std::string& of) {
    std::vector<double> values;
    std::istringstream lines(
        succeed(fmt::format("score {} {} --device cpu", of, scratch_ / "records.jsonl")).out);
    for (std::string line; std::getline(lines, line);) {
      const nlohmann::json record = nlohmann::json::parse(line);
      for (const nlohmann::json& value : record.at("logprobs")) values.push_back(value.get<double>());
    }
    return values;
  }
  /// One number a step.
  std::vector<double> losses(const std::string& name) const {
    std::vector<double> values;
    std::istringstream lines(read_all(scratch_ / (name + "/metrics.jsonl")));
    for (std::string line; std::getline(lines, line);) {
      const nlohmann::json record = nlohmann::json::parse(line);
      if (record.contains("loss")) values.push_back(record.at("loss").get<double>());
    }
    return values;
  }
  std::map<std::string, std::vector<float>> trainables(const std::string& name) const {
    const Safetensors file = Safetensors::open(adapter(name));
    std::map<std::string, std::vector<float>> values;
    for (const std::string& tensor : file.names()) {
      std::vector<float>& of = values[tensor];
      of.resize(static_cast<std::size_t>(file.at(tensor).elements()));
      to_float(file.at(tensor), of);
    }
    return values;
  }

  ScratchFolder scratch_;
  const std::string model_ = scratch_ / "model";
};

class FamilyOnACard : public FamilyRun {};
class FamilyEstimate : public FamilyRun {};

TEST_P(FamilyRun, TrainsToTheSameBitsInAnyGroupResumesAndExports) {
  train("whole", steps, "runtime.threads=1");
  train("parts", 2, "runtime.threads=2 zo.probes_per_forward=1");
  train("parts", steps, "zo.probes_per_forward=3");
  EXPECT_TRUE(read_all(adapter("whole")) == read_all(adapter("parts")));
  float moved = 0.0f;  // B begins at zero
  for (const auto& [name, values] : trainables("whole")) {
    if (name.find("lora_B") == std::string::npos) continue;
    for (const float value : values) moved = std::max(moved, std::abs(value));
  }
  EXPECT_GT(moved, 1e-3f);
  succeed(fmt::format("replay {} --adapter {}", scratch_ / "whole", scratch_ / "replayed"));
  EXPECT_TRUE(read_all(scratch_ / "replayed/adapter_model.safetensors") == read_all(adapter("whole")));

  // The merged model is the base with its adapter.
  succeed(fmt::format("export {} --merged {}", scratch_ / "whole", scratch_ / "merged"));
  const std::vector<double> adapted =
      scores(fmt::format("{} --adapter {}", model_, scratch_ / "whole/adapter"));
  const std::vector<double> merged = scores(scratch_ / "merged");
  ASSERT_EQ(adapted.size(), merged.size());
  ASSERT_GT(adapted.size(), 3u);
  for (std::size_t i = 0; i < adapted.size(); ++i) EXPECT_NEAR(adapted[i], merged[i], 1e-4);
  const nlohmann::json eval =
      json_of(fmt::format("eval {} data.validation={} --adapter {}", config_of(GetParam().where, ""),
                          scratch_ / "validation.jsonl", scratch_ / "whole/adapter"));
  EXPECT_TRUE(std::isfinite(eval.at("loss").get<double>()));
}

// On a card the losses and the trainables are the CPU's. Both compute in fp32: a loss, of some 10 at most, is
// wrong by a few 1e-7 of itself for each of some ten sums on the way, taken as 1e-5 in all. A projected
// gradient (l+ - l-) / 2 epsilon is then wrong by that over epsilon, and a trainable, by the learning rate
// times that times z, |z| < 6, in each step.
TEST_P(FamilyOnACard, IsWhatItIsOnTheCpu) {
  train("cuda", steps, "");
  train("cpu", steps, "", Where::cpu);
  const std::vector<double> got = losses("cuda"), want = losses("cpu");
  ASSERT_EQ(got.size(), static_cast<std::size_t>(steps));
  ASSERT_EQ(want.size(), got.size());
  const double of_loss = 1e-5 * *std::ranges::max_element(want);
  for (std::size_t step = 0; step < got.size(); ++step)
    EXPECT_NEAR(got[step], want[step], of_loss * static_cast<double>(1 + step)) << "step " << step + 1;
  const double of_trainable = steps * learning_rate * of_loss / epsilon * 6.0;
  const auto cuda = trainables("cuda"), cpu = trainables("cpu");
  ASSERT_EQ(cuda.size(), cpu.size());
  double moved = 0.0, worst = 0.0;
  for (const auto& [name, values] : cpu) {
    const std::vector<float>& other = cuda.at(name);
    ASSERT_EQ(other.size(), values.size()) << name;
    for (std::size_t i = 0; i < values.size(); ++i) {
      worst = std::max(worst, std::abs(double{values[i]} - other[i]));
      if (name.find("lora_B") != std::string::npos) moved = std::max(moved, std::abs(double{values[i]}));
    }
  }
  EXPECT_LE(worst, of_trainable);
  EXPECT_GT(moved, 10.0 * of_trainable);
  fmt::print("{}: trainables moved by {:.1e}, differ by {:.1e} of {:.1e} allowed\n", name_of(GetParam()),
             moved, worst, of_trainable);
}

TEST_P(FamilyEstimate, IsWhatRuns) {
  const Family& family = GetParam().family;
  const bool on_cpu = GetParam().where == Where::cpu;
  const std::string config =
      config_of(GetParam().where,
                fmt::format("data.validation=null train.output_dir={} train.max_steps=1 runtime.threads=2 {}",
                            scratch_ / "run", on_cpu ? "" : "zo.probes_per_forward=2"));
  const nlohmann::json plan = json_of("estimate " + config + (on_cpu ? "" : " --memory-gib 40"));
  const nlohmann::json real = json_of("profile " + config + " --steps 1");
  for (const char* key : {"weight_bytes", "activation_bytes", "probes_per_forward"})
    EXPECT_EQ(plan.at(key), real.at(key)) << key;
  if (on_cpu) {
    EXPECT_EQ(plan.at("scratch_bytes"), real.at("scratch_bytes"));
  }
  EXPECT_EQ(plan.at("activation_bytes"), real.at("arena_high_water_bytes"));
  double products = 0.0;
  std::set<std::string> kinds;
  for (const nlohmann::json& row : real.at("operations")) {
    products += row.at("product_operations").get<double>();
    kinds.insert(row.at("name").get<std::string>());
  }
  EXPECT_DOUBLE_EQ(plan.at("operations").at("products").get<double>(), products);
  for (const std::string& kind : family.operations) EXPECT_EQ(kinds.count(kind), 1u) << kind;
  EXPECT_EQ(plan.at("parameters").get<std::int64_t>() - plan.at("active_parameters").get<std::int64_t>(),
            family.idle_parameters);
  if (family.experts > 0) {
    EXPECT_EQ(info(scratch_, model_).at("experts"), family.experts);
  }
}

std::vector<Family> tested_families() {
  return {
      // A window shorter than the sequences.
      {.name = "mistral", .config = {{"model_type", "mistral"}, {"sliding_window", 5}}},
      {.name = "mixtral",
       .config = {{"model_type", "mixtral"}, {"num_local_experts", 4}, {"num_experts_per_tok", 2}},
       .experts = 4,
       .idle_parameters = 2 * 2 * 3 * 12 * 16,
       .operations = {"router", "expert_input", "expert_output"},
       .profiled_on_cpu = false},
      {.name = "qwen2", .config = {{"model_type", "qwen2"}}, .profiled_on_cpu = false},
      {.name = "qwen3", .config = {{"model_type", "qwen3"}}, .profiled_on_cpu = false},
      // Layer 1 of 3 is dense.
      {.name = "qwen3_moe",
       .config = {{"model_type", "qwen3_moe"},
                  {"num_hidden_layers", 3},
                  {"intermediate_size", 10},
                  {"moe_intermediate_size", 12},
                  {"num_experts", 4},
                  {"num_experts_per_tok", 2},
                  {"norm_topk_prob", true},
                  {"mlp_only_layers", {1}},
                  {"tie_word_embeddings", true}},
       .experts = 4,
       .idle_parameters = 2 * 2 * 3 * 12 * 16,
       .operations = {"router", "expert_input", "expert_output", "mlp_input"}},
      {.name = "phi3", .config = {{"model_type", "phi3"}, {"sliding_window", 5}}},
      {.name = "gemma2", .config = {{"model_type", "gemma2"}, {"sliding_window", 5}}},
      {.name = "gemma3",
       .config = {{"model_type", "gemma3_text"}, {"sliding_window", 5}, {"sliding_window_pattern", 2}}},
      {.name = "gpt_neox", .config = {{"model_type", "gpt_neox"}}, .profiled_on_cpu = false},
      {.name = "opt",
       .config = {{"model_type", "opt"}, {"ffn_dim", 12}, {"word_embed_proj_dim", 16}},
       .profiled_on_cpu = false},
      {.name = "opt_350m",
       .config = {{"model_type", "opt"},
                  {"ffn_dim", 12},
                  {"word_embed_proj_dim", 12},
                  {"do_layer_norm_before", false}},
       .operations = {"embedding_projection"},
       .on_cuda = false},
  };
}

std::vector<Case> cases(std::initializer_list<Where> places) {
  std::vector<Case> all;
  for (const Family& family : tested_families())
    for (const Where where : places)
      if (where == Where::cpu || family.on_cuda) all.push_back({.family = family, .where = where});
  return all;
}
std::vector<Case> profiled_on_cpu() {
  std::vector<Case> all = cases({Where::cpu});
  std::erase_if(all, [](const Case& c) { return !c.family.profiled_on_cpu; });
  return all;
}

// tests/cli/CMakeLists.txt tells the suites apart by their first word: those of Cuda see the machine's GPUs.
constexpr auto named = [](const auto& which) { return name_of(which.param); };
INSTANTIATE_TEST_SUITE_P(Cpu, FamilyRun, ::testing::ValuesIn(cases({Where::cpu})), named);
INSTANTIATE_TEST_SUITE_P(Cpu, FamilyEstimate, ::testing::ValuesIn(profiled_on_cpu()), named);
INSTANTIATE_TEST_SUITE_P(Cuda, FamilyRun, ::testing::ValuesIn(cases({Where::cuda_fp32, Where::cuda_bf16})),
                         named);
INSTANTIATE_TEST_SUITE_P(Cuda, FamilyEstimate, ::testing::ValuesIn(cases({Where::cuda_bf16})), named);
INSTANTIATE_TEST_SUITE_P(Cuda, FamilyOnACard, ::testing::ValuesIn(cases({Where::cuda_fp32})), named);

}  // namespace
}  // namespace mezzo::test
