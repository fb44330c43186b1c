// Families whose layers have parts of their own, from the first estimate to the merged model.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <random>
#include <sstream>

#include "mezzo/io/safetensors.h"
#include "mezzo/model/family.h"
#include "mezzo/model/layers.h"
#include "program.h"

namespace mezzo::test {
namespace {

struct Case {
  std::string name;
  nlohmann::json config;    ///< beside the sizes
  std::string not_on_cuda;  ///< what cuda refuses first
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class FamilyTest : public ::testing::TestWithParam<Case> {
 protected:
  /// A random model under the embedded model's tokenizer.
  FamilyTest() : model_(scratch_ / "model") {
    std::filesystem::create_directories(model_);
    std::filesystem::copy_file(MEZZO_SOURCE_DIR "/configs/quickstart/llama2m/tokenizer.json",
                               model_ + "/tokenizer.json");
    nlohmann::json config{
        {"vocab_size", 8192},     {"hidden_size", 16},        {"intermediate_size", 11},
        {"num_hidden_layers", 2}, {"num_attention_heads", 2}, {"num_key_value_heads", 1},
        {"head_dim", 8},          {"sliding_window", 5},      {"max_position_embeddings", 256}};
    config.update(GetParam().config);
    write_file(model_ + "/config.json", config.dump());
    std::mt19937 random(7);
    std::normal_distribution<float> normal(0.0f, 0.3f);
    std::deque<std::vector<float>> values;
    std::vector<TensorSource> sources;
    for (const WeightSpec& spec : weight_specs(read_description(model_))) {
      std::int64_t count = 1;
      for (const std::int64_t size : spec.shape) count *= size;
      for (float& value : values.emplace_back(static_cast<std::size_t>(count))) value = normal(random);
      sources.push_back(float_source(spec.name, spec.shape, values.back()));
    }
    write_safetensors(model_ + "/model.safetensors", sources);
  }

  std::string config_of(const std::string& name, const std::string& more) const {
    return fmt::format(
        "configs/quickstart.yaml train.output_dir={} model.path={} runtime.device=cpu "
        "train.batch_size=4 zo.directions=2 data.validation=null data.max_train_examples=20 "
        "lora.target_modules=all-linear {}",
        scratch_ / name, model_, more);
  }
  Outcome succeed(const std::string& arguments) {
    Outcome outcome = run(scratch_, arguments);
    EXPECT_EQ(outcome.status, 0) << arguments << '\n' << outcome.err;
    return outcome;
  }
  std::vector<double> scores(const std::string& of) {
    std::vector<double> values;
    std::istringstream lines(succeed(fmt::format("score {} {}", of, scratch_ / "records.jsonl")).out);
    for (std::string line; std::getline(lines, line);) {
      const nlohmann::json record = nlohmann::json::parse(line);
      for (const nlohmann::json& value : record.at("logprobs")) values.push_back(value.get<double>());
    }
    return values;
  }

  ScratchFolder scratch_;
  std::string model_;
};

TEST_P(FamilyTest, TrainsToTheSameBitsInAnyGroupAndExports) {
  succeed("train " + config_of("one", "train.max_steps=2 runtime.threads=1"));
  succeed("train " + config_of("two", "train.max_steps=2 runtime.threads=2 zo.probes_per_forward=1"));
  EXPECT_EQ(hash_of(scratch_, scratch_ / "one"), hash_of(scratch_, scratch_ / "two"));

  succeed(fmt::format("export {} --merged {}", scratch_ / "one", scratch_ / "merged"));
  write_file(scratch_ / "records.jsonl",
             R"({"prompt": "the film was", "completion": " a dull story of terrible length"})"
             "\n");
  const std::vector<double> adapted =
      scores(fmt::format("{} --adapter {}", model_, scratch_ / "one/adapter"));
  const std::vector<double> merged = scores(scratch_ / "merged");
  const std::vector<double> base = scores(model_);
  ASSERT_EQ(adapted.size(), merged.size());
  double moved = 0.0;
  for (std::size_t i = 0; i < adapted.size(); ++i) {
    EXPECT_NEAR(adapted[i], merged[i], 1e-4);
    moved = std::max(moved, std::abs(adapted[i] - base[i]));
  }
  EXPECT_GT(moved, 1e-4);
}

TEST_P(FamilyTest, IsEstimatedAsItRuns) {
  const std::string config = config_of("run", "runtime.threads=2 train.max_steps=1");
  const auto json_of = [&](const std::string& arguments) {
    return nlohmann::json::parse(succeed(arguments + " --json").out);
  };
  const nlohmann::json plan = json_of("estimate " + config);
  const nlohmann::json real = json_of("profile " + config + " --steps 1");
  for (const char* key : {"weight_bytes", "activation_bytes", "scratch_bytes", "probes_per_forward"})
    EXPECT_EQ(plan.at(key), real.at(key)) << key;
  EXPECT_EQ(plan.at("activation_bytes"), real.at("arena_high_water_bytes"));

  const Outcome cuda = run(scratch_, "estimate " + config + " --device cuda --memory-gib 80");
  EXPECT_NE(cuda.status, 0);
  ASSERT_EQ(cuda.errors().size(), 1u) << cuda.err;
  EXPECT_NE(cuda.err.find(GetParam().not_on_cuda), std::string::npos) << cuda.err;
}

INSTANTIATE_TEST_SUITE_P(
    Families, FamilyTest,
    ::testing::Values(
        Case{.name = "mistral", .config = {{"model_type", "mistral"}}, .not_on_cuda = "sliding window is 5"},
        Case{.name = "phi3", .config = {{"model_type", "phi3"}}, .not_on_cuda = "gate and up of one module"},
        Case{.name = "gemma2", .config = {{"model_type", "gemma2"}}, .not_on_cuda = "scaled embeddings"},
        Case{.name = "gemma3",
             .config = {{"model_type", "gemma3_text"}, {"sliding_window_pattern", 2}},
             .not_on_cuda = "scaled embeddings"}),
    [](const auto& which) { return which.param.name; });

}  // namespace
}  // namespace mezzo::test
