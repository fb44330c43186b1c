// A mixture of experts from the first estimate to the merged model.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <random>
#include <set>
#include <sstream>

#include "mezzo/io/safetensors.h"
#include "program.h"

namespace mezzo::test {
namespace {

class MixtureTest : public ::testing::Test {
 protected:
  static constexpr std::int64_t hidden = 16, width = 12, experts = 4, vocabulary = 8192;

  /// A random Qwen3-MoE under the embedded model's tokenizer.
  MixtureTest() : model_(scratch_ / "model") {
    std::filesystem::create_directories(model_);
    std::filesystem::copy_file(MEZZO_SOURCE_DIR "/configs/quickstart/llama2m/tokenizer.json",
                               model_ + "/tokenizer.json");
    write_file(model_ + "/config.json", nlohmann::json({{"model_type", "qwen3_moe"},
                                                        {"vocab_size", vocabulary},
                                                        {"hidden_size", hidden},
                                                        {"intermediate_size", 10},
                                                        {"moe_intermediate_size", width},
                                                        {"num_hidden_layers", 3},
                                                        {"num_attention_heads", 2},
                                                        {"num_key_value_heads", 1},
                                                        {"head_dim", 8},
                                                        {"num_experts", experts},
                                                        {"num_experts_per_tok", 2},
                                                        {"norm_topk_prob", true},
                                                        {"mlp_only_layers", {1}},
                                                        {"tie_word_embeddings", true}})
                                            .dump());
    add("model.embed_tokens", {vocabulary, hidden});
    add("model.norm", {hidden});
    for (const std::string layer : {"0", "1", "2"}) {
      const std::string prefix = "model.layers." + layer + ".";
      for (const char* norm : {"input_layernorm", "post_attention_layernorm"}) add(prefix + norm, {hidden});
      for (const char* norm : {"self_attn.q_norm", "self_attn.k_norm"}) add(prefix + norm, {8});
      add(prefix + "self_attn.q_proj", {16, hidden});
      add(prefix + "self_attn.k_proj", {8, hidden});
      add(prefix + "self_attn.v_proj", {8, hidden});
      add(prefix + "self_attn.o_proj", {hidden, 16});
      if (layer == "1") {
        add_mlp(prefix + "mlp.", 10);
      } else {
        add(prefix + "mlp.gate", {experts, hidden});
        for (int e = 0; e < experts; ++e) add_mlp(fmt::format("{}mlp.experts.{}.", prefix, e), width);
      }
    }
    write_safetensors(model_ + "/model.safetensors", sources_);
  }

  std::string train(const std::string& name, int steps, const std::string& more) const {
    return fmt::format(
        "train configs/quickstart.yaml train.output_dir={} model.path={} runtime.device=cpu "
        "train.max_steps={} "
        "train.batch_size=4 train.batch_slices=2 zo.directions=3 train.save_steps=2 data.validation=null "
        "data.max_train_examples=20 lora.target_modules=all-linear {}",
        scratch_ / name, model_, steps, more);
  }
  Outcome succeed(const std::string& arguments) {
    Outcome outcome = run(scratch_, arguments);
    EXPECT_EQ(outcome.status, 0) << arguments << '\n' << outcome.err;
    return outcome;
  }

  ScratchFolder scratch_;
  std::string model_;

 private:
  void add_mlp(const std::string& prefix, std::int64_t of) {
    add(prefix + "gate_proj", {of, hidden});
    add(prefix + "up_proj", {of, hidden});
    add(prefix + "down_proj", {hidden, of});
  }
  void add(const std::string& module, const std::vector<std::int64_t>& shape) {
    const bool norm = shape.size() == 1;
    std::vector<float>& values =
        values_.emplace_back(static_cast<std::size_t>(norm ? shape[0] : shape[0] * shape[1]), 1.0f);
    std::normal_distribution<float> normal(0.0f, 0.3f);
    for (float& value : values)
      if (!norm) value = normal(random_);
    sources_.push_back(float_source(module + ".weight", shape, values));
  }

  std::mt19937 random_{7};
  std::deque<std::vector<float>> values_;
  std::vector<TensorSource> sources_;
};

TEST_F(MixtureTest, TrainsToTheSameBitsInAnyGroupAndResumes) {
  succeed(train("one", 4, "runtime.threads=1"));
  succeed(train("two", 4, "runtime.threads=2 zo.probes_per_forward=1"));
  succeed(train("three", 2, "zo.probes_per_forward=4"));
  succeed(train("three", 4, "zo.probes_per_forward=5"));
  EXPECT_EQ(hash_of(scratch_, scratch_ / "one"), hash_of(scratch_, scratch_ / "two"));
  EXPECT_EQ(hash_of(scratch_, scratch_ / "one"), hash_of(scratch_, scratch_ / "three"));
  succeed(fmt::format("replay {} --adapter {}", scratch_ / "one", scratch_ / "replayed"));
  EXPECT_EQ(read_all(scratch_ / "replayed/adapter_model.safetensors"),
            read_all(scratch_ / "one/adapter/adapter_model.safetensors"));

  // The merged model is the base with its adapter.
  succeed(fmt::format("export {} --merged {}", scratch_ / "one", scratch_ / "merged"));
  write_file(scratch_ / "records.jsonl",
             R"({"prompt": "the film was", "completion": " great"})"
             "\n"
             R"({"prompt": "a dull story of", "completion": " terrible, terrible length"})"
             "\n");
  const auto scores = [&](const std::string& of) {
    std::vector<double> values;
    std::istringstream lines(succeed(fmt::format("score {} {}", of, scratch_ / "records.jsonl")).out);
    for (std::string line; std::getline(lines, line);) {
      const nlohmann::json record = nlohmann::json::parse(line);
      for (const nlohmann::json& value : record.at("logprobs")) values.push_back(value.get<double>());
    }
    return values;
  };
  const std::vector<double> adapted =
      scores(fmt::format("{} --adapter {}", model_, scratch_ / "one/adapter"));
  const std::vector<double> merged = scores(scratch_ / "merged");
  const std::vector<double> base = scores(model_);
  ASSERT_EQ(adapted.size(), merged.size());
  ASSERT_GT(adapted.size(), 3u);
  double moved = 0.0;
  for (std::size_t i = 0; i < adapted.size(); ++i) {
    EXPECT_NEAR(adapted[i], merged[i], 1e-4);
    moved = std::max(moved, std::abs(adapted[i] - base[i]));
  }
  EXPECT_GT(moved, 1e-3);
}

TEST_F(MixtureTest, IsEstimatedAsItRuns) {
  const std::string config = train("run", 1, "runtime.threads=2").substr(std::string("train ").size());
  const auto json_of = [&](const std::string& arguments) {
    return nlohmann::json::parse(succeed(arguments + " --json").out);
  };
  const nlohmann::json plan = json_of("estimate " + config);
  const nlohmann::json real = json_of("profile " + config + " --steps 1");
  for (const char* key : {"weight_bytes", "activation_bytes", "scratch_bytes", "probes_per_forward"})
    EXPECT_EQ(plan.at(key), real.at(key)) << key;
  EXPECT_EQ(plan.at("activation_bytes"), real.at("arena_high_water_bytes"));
  double products = 0.0;
  std::set<std::string> kinds;
  for (const nlohmann::json& row : real.at("operations")) {
    products += row.at("product_operations").get<double>();
    kinds.insert(row.at("name").get<std::string>());
  }
  EXPECT_DOUBLE_EQ(plan.at("operations").at("products").get<double>(), products);
  for (const char* kind : {"router", "expert_input", "expert_output", "mlp_input"})
    EXPECT_EQ(kinds.count(kind), 1u) << kind;
  // Of 4 experts in 2 layers, 2 of each take no part in a token.
  const std::int64_t idle = 2 * 2 * 3 * width * hidden;
  EXPECT_EQ(plan.at("parameters").get<std::int64_t>() - plan.at("active_parameters").get<std::int64_t>(),
            idle);
  EXPECT_EQ(info(scratch_, model_).at("experts"), experts);

  const Outcome cuda = run(scratch_, "estimate " + config + " --device cuda --memory-gib 80");
  EXPECT_NE(cuda.status, 0);
  ASSERT_EQ(cuda.errors().size(), 1u) << cuda.err;
  EXPECT_NE(cuda.err.find("cuda: a decoder's forward does not do"), std::string::npos) << cuda.err;
}

}  // namespace
}  // namespace mezzo::test
