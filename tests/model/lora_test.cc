#include "mezzo/model/lora.h"

#include <cmath>

#include "mezzo/core/config.h"
#include "mezzo/io/sha256.h"
#include "mezzo/model/family.h"
#include "model_test.h"

namespace mezzo {
namespace {

using namespace mezzo::testing;

Description described(const std::string& model) { return read_description(model_directory(model)); }

TEST(Lora, TrainablesAreTheTensorsThatPeftWrote) {
  for (const std::string& model : golden_models) {
    const std::string path = model_directory(model) + "/adapter";
    const Safetensors file = Safetensors::open(path + "/adapter_model.safetensors");
    const Adapter adapter = read_adapter(path, described(model));
    const std::vector<TrainableSpec> specs = lora_trainables(described(model), adapter.config);
    std::vector<std::string> names;
    for (const TrainableSpec& spec : specs) {
      names.push_back(spec.name);
      EXPECT_EQ(file.at(spec.name).shape, (std::vector{spec.rows, spec.cols})) << spec.name;
    }
    EXPECT_EQ(names, file.names());  // bytewise order
    EXPECT_EQ(adapter.specs, specs);
  }
}

TEST(Lora, DefaultTargetsAreTheFamilysQueryAndValue) {
  const auto modules = [](const std::string& model) {
    std::vector<std::string> names;
    for (const LinearModule& module : adapted_modules(described(model), {})) names.push_back(module.name);
    return names;
  };
  EXPECT_EQ(modules("llama"),
            (std::vector<std::string>{"model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj",
                                      "model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.v_proj"}));
  EXPECT_EQ(modules("gpt2"),
            (std::vector<std::string>{"transformer.h.0.attn.c_attn", "transformer.h.1.attn.c_attn"}));
  EXPECT_EQ(modules("gptj").size(), 4u);
  EXPECT_EQ(modules("phi3"), (std::vector<std::string>{"model.layers.0.self_attn.qkv_proj",
                                                       "model.layers.1.self_attn.qkv_proj"}));
  EXPECT_EQ(modules("gemma2").size(), 4u);
}

TEST(Lora, TargetsMatchAsInPeft) {
  const auto count = [](const std::string& model, AdapterConfig config) {
    return adapted_modules(described(model), config).size();
  };
  EXPECT_EQ(count("gpt2", {.all_linear = true}), 8u);
  EXPECT_EQ(count("llama", {.all_linear = true}), 14u);
  EXPECT_EQ(count("gpt2", {.target_modules = {"c_proj"}}), 4u);  // attention's and the MLP's
  EXPECT_EQ(count("gpt2", {.target_modules = {"attn.c_proj"}}), 2u);
  EXPECT_EQ(count("llama", {.target_modules = {"model.layers.1.mlp.up_proj"}}), 1u);
  EXPECT_EQ(count("llama", {.target_modules = {"q_proj", "q_proj"}}), 2u);
  EXPECT_EQ(count("llama", {.target_modules = {"q_proj"}, .layers_to_transform = {{1}}}), 1u);
  EXPECT_EQ(count("llama", {.all_linear = true, .layers_to_transform = {{1}}}), 7u);
  // A whole name is taken in any layer.
  EXPECT_EQ(count("llama", {.target_modules = {"model.layers.0.mlp.up_proj"}, .layers_to_transform = {{1}}}),
            1u);
}

TEST(Lora, WhatMatchesNothingIsAnErrorWithSuggestions) {
  expect_error<UsageError>(
      [&] {
        adapted_modules(described("gpt2"), {.target_modules = {"c_attn", "q_proj"}});
      },
      {"lora.target_modules", "\"q_proj\"", "c_attn, c_fc, c_proj"});
  expect_error<UsageError>([&] { adapted_modules(described("llama"), {.target_modules = {"proj"}}); },
                           {"\"proj\"", "q_proj"});
  expect_error<UsageError>([&] { adapted_modules(described("llama"), {.target_modules = {"lm_head"}}); },
                           {"lm_head"});
  expect_error<UsageError>(
      [&] {
        adapted_modules(described("llama"), {.layers_to_transform = {{0, 2}}});
      },
      {"lora.layers_to_transform", "2", "0 to 1"});
  // Each for itself is there.
  const std::string whole = linear_modules(described("llama")).front().name;
  expect_error<UsageError>(
      [&] {
        adapted_modules(described("llama"), {.target_modules = {whole.substr(whole.find("layers."))},
                                             .layers_to_transform = {{1}}});
      },
      {"lora.layers_to_transform", "no module", "layers 1"});
}

TEST(Lora, InitialValuesAreKaimingUniformAndZero) {
  const Description description = described("llama");
  const std::vector<TrainableSpec> specs = lora_trainables(description, {.r = 64});
  const std::vector<float> values = initial_values(specs, 7);
  std::size_t first = 0;
  const double bound = 1.0 / std::sqrt(32.0);
  for (const TrainableSpec& spec : specs) {
    double square = 0.0;
    for (std::int64_t i = 0; i < spec.count(); ++i) {
      const double value = values[first + static_cast<std::size_t>(i)];
      EXPECT_LE(std::abs(value), bound);
      square += value * value;
    }
    // Uniform: variance bound^2 / 3; of 2048 draws the mean square's deviation is 2% of it, so 10% is five of
    // them.
    const bool is_a = spec.name.find("lora_A") != std::string::npos;
    EXPECT_NEAR(square / static_cast<double>(spec.count()), is_a ? bound * bound / 3 : 0.0,
                is_a ? 0.1 * bound * bound / 3 : 0.0);
    first += static_cast<std::size_t>(spec.count());
  }
  EXPECT_EQ(first, values.size());
  EXPECT_EQ(initial_values(specs, 7), values);
  EXPECT_NE(initial_values(specs, 8), values);
}

TEST(Lora, AdaptersSurviveWritingAndReading) {
  for (const std::string& model : golden_models) {
    const TemporaryDirectory temporary;
    const Description description = described(model);
    const Adapter original = read_adapter(model_directory(model) + "/adapter", description);
    for (const char* name : {"/one", "/two"}) {
      write_adapter(temporary.path() + name, description, original.config, original.values, "some/base");
    }
    const Adapter copy = read_adapter(temporary.path() + "/one", description);
    EXPECT_EQ(copy.config, original.config);
    EXPECT_EQ(copy.specs, original.specs);
    EXPECT_EQ(copy.values, original.values);
    EXPECT_EQ(copy.base_model, "some/base");
    EXPECT_EQ(trainables_sha256(copy.values), trainables_sha256(original.values));
    for (const char* name : {"/adapter_model.safetensors", "/adapter_config.json"}) {
      EXPECT_EQ(sha256_of_file(temporary.path() + "/one" + name),
                sha256_of_file(temporary.path() + "/two" + name));
    }
    // PEFT's own tensors, byte for byte, and its keys.
    const Safetensors peft = Safetensors::open(model_directory(model) + "/adapter/adapter_model.safetensors");
    const Safetensors ours = Safetensors::open(temporary.path() + "/one/adapter_model.safetensors");
    EXPECT_EQ(ours.names(), peft.names());
    const nlohmann::json theirs = read_json_file(model_directory(model) + "/adapter/adapter_config.json");
    const nlohmann::json written = read_json_file(temporary.path() + "/one/adapter_config.json");
    for (const auto& [key, value] : written.items()) {
      if (key == "target_modules" || key == "base_model_name_or_path") continue;  // a set; another place
      if (!theirs.contains(key)) continue;
      EXPECT_EQ(value, theirs.at(key)) << model << ": " << key;
    }
  }
}

TEST(Lora, AllLinearIsWrittenAsNamesThatSelectTheSame) {
  const TemporaryDirectory temporary;
  const Description description = described("gptj");
  const AdapterConfig config{.r = 2, .all_linear = true};
  const std::vector<TrainableSpec> specs = lora_trainables(description, config);
  write_adapter(temporary.path(), description, config, initial_values(specs, 1), "");
  const Adapter adapter = read_adapter(temporary.path(), description);
  EXPECT_EQ(adapter.specs, specs);
  EXPECT_EQ(adapter.config.target_modules,
            (std::vector<std::string>{"fc_in", "fc_out", "k_proj", "out_proj", "q_proj", "v_proj"}));
}

TEST(Lora, TheHashIsThatOfTheBytes) {
  // sha256sum of the eight bytes 00 00 80 3f 00 00 00 c0
  EXPECT_EQ(trainables_sha256(std::vector<float>{1.0f, -2.0f}),
            sha256_of(std::as_bytes(std::span("\0\0\x80\x3f\0\0\0\xc0", 8))));
}

class BadAdapter : public ::testing::Test {
 protected:
  BadAdapter() : directory(temporary.copy("llama") + "/adapter") {}
  template <typename Change>
  void change_config(Change&& change) {
    change_json(directory + "/adapter_config.json", change);
  }
  void expect_refused(std::initializer_list<std::string> words) {
    expect_input_error([&] { read_adapter(directory, described("llama")); }, words);
  }
  TemporaryDirectory temporary;
  std::string directory;
};

TEST_F(BadAdapter, WhatIsNotServedIsRefusedByName) {
  const nlohmann::json original = read_json_file(directory + "/adapter_config.json");
  const std::vector<std::pair<std::string, nlohmann::json>> refused{{"use_dora", true},
                                                                    {"rank_pattern", {{"q_proj", 2}}},
                                                                    {"alpha_pattern", {{"q_proj", 2}}},
                                                                    {"bias", "lora_only"},
                                                                    {"modules_to_save", {"lm_head"}},
                                                                    {"lora_bias", true},
                                                                    {"peft_type", "IA3"},
                                                                    {"task_type", "SEQ_CLS"},
                                                                    {"init_lora_weights", "pissa"},
                                                                    {"use_newer_thing", true},
                                                                    {"target_modules", nullptr},
                                                                    {"target_modules", {1, 2}},
                                                                    {"r", 0},
                                                                    {"r", "4"},
                                                                    {"lora_alpha", "16"},
                                                                    {"layers_to_transform", {-1}},
                                                                    {"trainable_token_indices", {1}},
                                                                    {"layer_replication", {{0, 1}}}};
  for (const auto& [key, value] : refused) {
    change_config([&](auto& json) {
      json = original;
      json[key] = value;
    });
    expect_refused({"adapter_config.json", key, "expected"});
  }
}

// The adapter has q_proj and v_proj of both layers.
TEST_F(BadAdapter, PatternsAndExclusionsAreHeldAgainstTheTensors) {
  const nlohmann::json original = read_json_file(directory + "/adapter_config.json");
  const auto with = [&](const nlohmann::json& changes) {
    change_config([&](auto& json) {
      json = original;
      json.update(changes);
    });
  };
  const std::vector<nlohmann::json> same = {
      {{"target_modules", R"(.*\.(q_proj|v_proj))"}},
      {{"target_modules", R"(.*\.(?P<name>q|q_proj|v_proj))"}},  // the whole name, whichever comes first
      {{"target_modules", R"(^(?!.*mlp).*\.[qkv]_proj$)"}, {"exclude_modules", R"(.*\.k_proj)"}},
      {{"target_modules", {"q_proj", "k_proj", "v_proj"}}, {"exclude_modules", {"k_proj"}}},
      {{"target_modules", "all-linear"}, {"exclude_modules", R"(.*(mlp.*|\.k_proj|\.o_proj))"}},
      {{"layers_to_transform", {0, 1}}, {"layers_pattern", "layers"}},
      {{"layers_to_transform", {1, 0}}, {"layers_pattern", {"h", "layers"}}},
  };
  for (const nlohmann::json& changes : same) {
    with(changes);
    const Adapter adapter = read_adapter(directory, described("llama"));
    EXPECT_EQ(adapter.config.target_modules.size(), 4u) << changes;
  }
  const std::vector<std::pair<nlohmann::json, std::string>> refused = {
      {{{"target_modules", R"(.*\.q_proj)"}}, "v_proj.lora_A.weight is there, but adapter_config.json"},
      {{{"target_modules", "q_proj|v_proj"}}, "q_proj.lora_A.weight is there, but adapter_config.json"},
      {{{"target_modules", R"(.*\.[qkv]_proj)"}},
       "k_proj.lora_A.weight is missing, though adapter_config.json"},
      {{{"exclude_modules", R"(.*\.v_proj)"}}, "v_proj.lora_A.weight is there"},
      {{{"exclude_modules", {"layers.1.self_attn.v_proj"}}},
       "layers.1.self_attn.v_proj.lora_A.weight is there"},
      {{{"layers_to_transform", 0}, {"layers_pattern", "layers"}},
       "layers.1.self_attn.q_proj.lora_A.weight is there"},
      {{{"layers_to_transform", 0}, {"layers_pattern", "h"}}, "q_proj.lora_A.weight is there"},
      {{{"target_modules", "(q_proj"}}, "adapter_config.json: target_modules is no regular expression"},
      {{{"target_modules", "a)(b"}}, "adapter_config.json: target_modules is no regular expression"},
      {{{"target_modules", "((.+)+)+[!]"}}, "cannot be matched"},
      // Before any tokenizer has been read, too: the default depth would take more stack than there may be.
      {{{"target_modules", std::string(4000, '(') + "q_proj" + std::string(4000, ')')}},
       "adapter_config.json: target_modules is no regular expression"},
      {{{"exclude_modules", 3}}, "adapter_config.json: exclude_modules is 3"},
      {{{"layers_pattern", "layers"}}, "adapter_config.json: layers_pattern"},
      {{{"target_modules", ".*"}, {"layers_to_transform", {0}}}, "adapter_config.json: layers_to_transform"},
  };
  for (const auto& [changes, message] : refused) {
    with(changes);
    expect_refused({message});
  }
  // What a model is not needed for is told without it.
  with(refused[0].first);
  expect_input_error([&] { read_adapter(directory); }, {refused[0].second});
}

// The number of an expert is none of a layer.
TEST(Lora, LayersOfExpertsAreThoseOfTheirNames) {
  const TemporaryDirectory temporary;
  const std::string directory = temporary.copy("mixtral") + "/adapter";
  const Description description = described("mixtral");
  const std::size_t all = linear_modules(description).size();
  for (const bool with_pattern : {true, false}) {
    change_json(directory + "/adapter_config.json", [&](auto& json) {
      json["layers_to_transform"] = {0, 1};
      json["layers_pattern"] = with_pattern ? nlohmann::json("layers") : nlohmann::json();
      json["exclude_modules"] = "none of them";
    });
    EXPECT_EQ(read_adapter(directory, description).config.target_modules.size(), all);
  }
  const AdapterConfig upper{.r = 2, .all_linear = true, .layers_to_transform = std::vector<std::int64_t>{1}};
  EXPECT_EQ(adapted_modules(description, upper).size(), all / 2);
}

TEST(Lora, ExpertsAndRouterAreLinearModules) {
  const Description description = described("mixtral");
  const auto count = [&](const std::vector<std::string>& targets) {
    return adapted_modules(description, {.r = 2, .target_modules = targets}).size();
  };
  EXPECT_EQ(count({"w1"}), 2 * 5u);
  EXPECT_EQ(count({"experts.3.w2"}), 2u);
  EXPECT_EQ(count({"gate"}), 2u);
  EXPECT_EQ(count({}), 4u);  // q and v
  EXPECT_EQ(adapted_modules(description, {.r = 2, .all_linear = true}).size(), 2 * (4 + 1 + 5 * 3u));
}

// PEFT's own form for the experts of transformers 5.
TEST_F(BadAdapter, ParametersAsTargets) {
  change_config([](auto& json) { json["target_parameters"] = {"gate_up_proj", "down_proj"}; });
  expect_refused({"adapter_config.json: target_parameters", "is not served"});
}

TEST_F(BadAdapter, AnotherRankThanTheTensors) {
  change_config([](auto& json) { json["r"] = 5; });
  expect_refused({"lora_A.weight", "[4, 32]", "r = 5"});
}

TEST_F(BadAdapter, MoreOrFewerModulesThanTheTensors) {
  change_config([](auto& json) { json["target_modules"] = {"q_proj"}; });
  expect_refused({"v_proj.lora_A.weight", "belongs to no module"});
  change_config([](auto& json) { json["target_modules"] = {"q_proj", "k_proj", "v_proj"}; });
  expect_refused({"k_proj.lora_A.weight", "missing"});
}

TEST_F(BadAdapter, AnotherBaseModel) {
  expect_input_error([&] { read_adapter(directory, described("llama_grouped")); },
                     {"lora_A.weight", "[4, 32]", "[4, 24]"});
  expect_input_error([&] { read_adapter(directory, described("gpt2")); },
                     {"adapter_config.json", "target_modules", "gpt2"});
}

TEST_F(BadAdapter, TargetsThatTheModelLacksArePassedOverAsInPeft) {
  change_config([](auto& json) {
    json["target_modules"] = {"c_attn", "q_proj", "v_proj"};
    json["layers_to_transform"] = {0, 1, 7};
  });
  const Adapter adapter = read_adapter(directory, described("llama"));
  EXPECT_EQ(adapter.config.target_modules, (std::vector<std::string>{"q_proj", "v_proj"}));
  EXPECT_EQ(adapter.config.layers_to_transform, (std::vector<std::int64_t>{0, 1}));
  change_config([](auto& json) { json["layers_to_transform"] = {7}; });
  expect_refused({"adapter_config.json", "layers_to_transform"});
}

TEST_F(BadAdapter, TensorsThatAreNoFactors) {
  const std::string path = directory + "/adapter_model.safetensors";
  const std::vector<float> values(8, 1.0f);
  const std::string a = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
  std::filesystem::remove(path);
  write_safetensors(path, std::vector{float_source(a, {4, 2}, values)});
  expect_refused({a, "partner"});
  std::filesystem::remove(path);
  write_safetensors(path, std::vector{float_source("base_model.model.score.weight", {4, 2}, values)});
  expect_refused({"base_model.model.score.weight", "no LoRA factor"});
  std::filesystem::remove(path);
  write_safetensors(path, std::vector<TensorSource>{});
  expect_refused({path, "no tensors"});
}

TEST_F(BadAdapter, AValueThatIsNotFinite) {
  const std::string path = directory + "/adapter_model.safetensors";
  Adapter adapter = read_adapter(directory, described("llama"));
  adapter.values[3] = std::nanf("");
  std::filesystem::remove(path);
  write_adapter(directory, described("llama"), adapter.config, adapter.values, "");
  expect_refused({"lora_A.weight", "nan", "element 3"});
}

TEST(Lora, ARunsSectionHasToAgreeWithTheAdapterItStartsFrom) {
  const Description description = described("llama");
  const Adapter adapter = read_adapter(model_directory("llama") + "/adapter", description);
  LoraConfig section{
      .r = {}, .lora_alpha = {}, .target_modules = {}, .layers_to_transform = {}, .adapter = "a"};
  EXPECT_NO_THROW(check_agreement(section, adapter, description));
  section.r = 4;
  section.lora_alpha = 6;
  section.target_modules.names = {"v_proj", "self_attn.q_proj"};  // the same modules in other words
  EXPECT_NO_THROW(check_agreement(section, adapter, description));
  section.r = 8;
  EXPECT_NE(error_of<UsageError>([&] { check_agreement(section, adapter, description); }).find("lora.r"),
            std::string::npos);
  section.r = 4;
  section.target_modules.names = {"v_proj"};
  EXPECT_NE(error_of<UsageError>([&] {
              check_agreement(section, adapter, description);
            }).find("lora.target_modules"),
            std::string::npos);
  // An adapter's whole names are taken in any layer, but not those that the section leaves out.
  Adapter named = adapter;
  named.config.target_modules.clear();
  for (const LinearModule& module : adapted_modules(description, adapter.config))
    named.config.target_modules.push_back(module.name);
  section = {
      .r = {}, .lora_alpha = {}, .target_modules = {}, .layers_to_transform = {{0, 1}}, .adapter = "a"};
  EXPECT_NO_THROW(check_agreement(section, named, description));
  section.layers_to_transform = {{0}};
  EXPECT_NE(
      error_of<UsageError>([&] { check_agreement(section, named, description); }).find("leaves layer 1 out"),
      std::string::npos);
}

}  // namespace
}  // namespace mezzo
