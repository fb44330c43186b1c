// config.json -> Description: both forms, defaults, and what is refused by name.
#include "mezzo/model/description.h"

#include "mezzo/model/family.h"
#include "mezzo/model/layers.h"
#include "model_test.h"
#include "rope.h"

namespace mezzo {
namespace {

using namespace mezzo::testing;
using nlohmann::json;

json config_of(const std::string& model) { return read_json_file(model_directory(model) + "/config.json"); }
Description described(const json& config) { return describe(config, "m/config.json"); }

json changed(json config, const std::string& key, json value) {
  config[key] = std::move(value);
  return config;
}
json without(json config, const std::string& key) {
  config.erase(key);
  return config;
}

TEST(Description, OfLlamaWithHeadsOfTheirOwnSize) {
  const Description d = described(config_of("llama_grouped"));
  EXPECT_EQ(d.family, "llama");
  EXPECT_EQ(d.hidden, 24);
  EXPECT_EQ(d.heads, 4);
  EXPECT_EQ(d.kv_heads, 2);
  EXPECT_EQ(d.head_dim, 10);
  EXPECT_EQ(d.query_width(), 40);
  EXPECT_TRUE(d.qkv_bias && d.attention_output_bias && d.mlp_bias && d.gated && !d.head_bias && !d.tied_head);
  EXPECT_TRUE(d.rope.scaling == RopeScaling::llama3);
  EXPECT_EQ(d.rope.theta, 100.0);
  EXPECT_EQ(d.rope.original_max_positions, 64.0);
  EXPECT_EQ(d.rope.style, RopeStyle::half_split);
}

TEST(Description, OldAndNewFormOfRotaryParametersAgree) {
  const json old_form = config_of("llama_grouped");
  json new_form = without(without(old_form, "rope_scaling"), "rope_theta");
  new_form["rope_parameters"] = old_form["rope_scaling"];
  new_form["rope_parameters"]["rope_theta"] = 100.0;
  const Description a = described(old_form);
  const Description b = described(new_form);
  EXPECT_EQ(a.rope.theta, b.rope.theta);
  EXPECT_EQ(a.rope.factor, b.rope.factor);
  EXPECT_EQ(a.rope.original_max_positions, b.rope.original_max_positions);
  EXPECT_TRUE(b.rope.scaling == RopeScaling::llama3);
  // Both at once may stand there, as long as they say the same.
  json both = new_form;
  both["rope_theta"] = 100.0;
  both["rope_scaling"] = old_form["rope_scaling"];
  EXPECT_NO_THROW(described(both));
  both["rope_scaling"]["factor"] = 4.0;
  expect_input_error([&] { described(both); }, {"rope_scaling", "rope_parameters"});
}

TEST(Description, RotarySectionsAreReadWhole) {
  const auto of_case = [](const std::string& name) {
    const std::string path = std::string(MEZZO_TEST_DATA) + "/rope/" + name + ".json";
    return describe(read_json_file(path), path);
  };
  EXPECT_EQ(of_case("base").rope.theta, 10000.0);
  EXPECT_EQ(of_case("theta-v4").rope.theta, 500000.0);
  const RopeDescription scaled = of_case("orig-in").rope;
  EXPECT_TRUE(scaled.scaling == RopeScaling::llama3);
  EXPECT_EQ(scaled.original_max_positions, 64.0);

  const std::vector<std::pair<std::string, std::string>> refused{
      {"theta-both", "rope_parameters.rope_theta is 10000.0; expected 500000.0, which rope_theta says"},
      {"type-linear+rope_type-default",
       "rope_scaling.type is \"linear\"; expected \"default\", which rope_scaling.rope_type says"},
      {"orig-both",
       "rope_scaling.original_max_position_embeddings is 64; expected 1024, which "
       "original_max_position_embeddings says"},
      {"typo", "rope_parameters: the key \"theta\" is not known here; expected rope_type, type, rope_theta"},
      {"nested", "rope_parameters: the key \"full_attention\" is not known here"},
      {"factor-only", "rope_scaling.factor is 4.0, which is not served; expected 1.0"},
      {"automap", "architectures[0] is \"OtherForCausalLM\", which is not served; expected LlamaForCausalLM"},
  };
  for (const auto& [name, message] : refused)
    expect_input_error([&] { of_case(name); }, {name + ".json: " + message});
}

TEST(Description, ScaledFrequenciesAreThoseOfTransformers) {
  const std::string folder = std::string(MEZZO_TEST_DATA) + "/rope/";
  const json base = read_json_file(folder + "base.json");
  for (const json& golden : read_json_file(folder + "frequencies.json")) {
    SCOPED_TRACE(golden["change"].dump());
    json config = base;
    config.update(golden["change"]);
    const Description d = described(config);
    const std::vector<float> got = rope_frequencies(d.rope);
    const std::vector<double> want = golden["inv_freq"];
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i] / want[i], 1.0, 1e-6) << i;
    EXPECT_NEAR(d.rope.attention_factor / golden["attention_factor"].get<double>(), 1.0, 1e-6);
  }
}

TEST(Description, LongropeTakesSequencesOfBothLengthsUnlessAnotherRotationStandsBeside) {
  json config = config_of("llama_longrope");
  EXPECT_EQ(described(config).positions_text(), "64 positions");
  EXPECT_TRUE(described(config).rope.turns_long_ones_apart(41));
  EXPECT_FALSE(described(config).rope.turns_long_ones_apart(40));
  json gemma = config_of("gemma3");
  gemma["rope_parameters"]["full_attention"] = {{"rope_type", "longrope"},
                                                {"rope_theta", 100.0},
                                                {"short_factor", {1.0, 1.1, 1.3}},
                                                {"long_factor", {2.0, 3.0, 4.0}},
                                                {"original_max_position_embeddings", 40}};
  EXPECT_EQ(
      described(gemma).positions_text(),
      "40 positions (those of longrope's short factors: beside another rotation longer sequences are not "
      "served)");
  config["rope_parameters"]["rope_type"] = "su";  // its name in the first files of Phi-3
  EXPECT_EQ(described(config).rope.scaling, RopeScaling::longrope);
}

TEST(Description, PlacesOfOneNumberMayAgree) {
  json config = config_of("llama_grouped");  // llama3 in rope_scaling, rope_theta beside it
  config["rope_scaling"]["rope_theta"] = config["rope_theta"];
  config["rope_scaling"]["type"] = "llama3";
  config["original_max_position_embeddings"] = config["rope_scaling"]["original_max_position_embeddings"];
  EXPECT_NO_THROW(described(config));
  config["rope_scaling"]["rope_type"] = "default";
  config["rope_scaling"]["type"] = nullptr;
  expect_input_error([&] { described(config); }, {"rope_scaling.factor is 8.0"});
  config["rope_scaling"]["factor"] = 1.0;
  expect_input_error([&] { described(config); },
                     {"rope_scaling.original_max_position_embeddings", "rope_type default"});
}

TEST(Description, CodeOfTheModelsOwnIsRefused) {
  const json llama = config_of("llama");
  const auto with = [&](const json& architectures, const json& map) {
    return changed(changed(llama, "architectures", architectures), "auto_map", map);
  };
  EXPECT_NO_THROW(described(with(nullptr, nullptr)));
  EXPECT_NO_THROW(described(with({"LlamaForCausalLM"}, {{"AutoConfig", "configuration_x.XConfig"}})));
  EXPECT_NO_THROW(
      described(with({"LlamaForCausalLM"}, {{"AutoModelForCausalLM", "modeling_llama.LlamaForCausalLM"}})));
  expect_input_error(
      [&] {
        described(with({"LlamaForCausalLM", "X"}, nullptr));
      },
      {"architectures[1] is \"X\""});
  expect_input_error(
      [&] {
        described(with({"LlamaForCausalLM"}, {{"AutoModelForCausalLM", "modeling_x.XForCausalLM"}}));
      },
      {"auto_map.AutoModelForCausalLM is \"modeling_x.XForCausalLM\"", "expected LlamaForCausalLM"});
  expect_input_error(
      [&] { described(changed(config_of("gpt2"), "architectures", {"GPT2LMHeadCustomModel"})); },
      {"GPT2LMHeadCustomModel", "GPT2LMHeadModel"});
}

TEST(Description, WhatIsNotWrittenHasTransformersDefaults) {
  json config = config_of("llama");
  for (const char* key :
       {"num_key_value_heads", "head_dim", "rms_norm_eps", "hidden_act", "tie_word_embeddings",
        "rope_parameters", "attention_bias", "mlp_bias", "max_position_embeddings"}) {
    config.erase(key);
  }
  const Description d = described(config);
  EXPECT_EQ(d.kv_heads, 4);
  EXPECT_EQ(d.head_dim, 8);
  EXPECT_EQ(d.norm_epsilon, 1e-6f);
  EXPECT_EQ(d.rope.theta, 10000.0);
  EXPECT_EQ(d.max_positions, 2048);
  EXPECT_FALSE(d.tied_head);
  EXPECT_TRUE(described(without(config_of("gpt2"), "tie_word_embeddings")).tied_head);
  EXPECT_EQ(described(changed(config_of("gpt2"), "n_inner", nullptr)).intermediate, 4 * 36);
}

TEST(Description, OfGpt2AndGptj) {
  const Description gpt2 = described(config_of("gpt2"));
  EXPECT_TRUE(gpt2.fused_qkv() && gpt2.transposed && gpt2.tied_head && gpt2.qkv_bias);
  EXPECT_EQ(gpt2.positions, PositionKind::learned);
  EXPECT_EQ(gpt2.activation, Activation::gelu_tanh);
  const Description gptj = described(config_of("gptj"));
  EXPECT_TRUE(gptj.parallel_residual && gptj.head_bias && !gptj.qkv_bias && gptj.mlp_bias);
  EXPECT_EQ(gptj.rope.dims, 6);
  EXPECT_EQ(gptj.rope.style, RopeStyle::interleaved);
  EXPECT_EQ(described(changed(config_of("gpt2"), "scale_attn_weights", false)).attention_scale, 1.0f);
}

TEST(Description, OfGptNeox) {
  const json config = config_of("gpt_neox");
  const Description d = described(config);
  EXPECT_TRUE(d.parallel_residual && d.qkv_head_by_head && d.qkv_bias && d.attention_output_bias &&
              d.mlp_bias);
  EXPECT_FALSE(d.tied_head);
  EXPECT_EQ(d.rope.dims, 4);  // 0.4 of 10
  EXPECT_EQ(d.rope.theta, 500.0);
  EXPECT_EQ(d.activation, Activation::gelu_erf);
  const json before = config_of("gpt_neox_sequential");  // as transformers 4 wrote it
  EXPECT_FALSE(described(before).parallel_residual || described(before).qkv_bias);
  EXPECT_EQ(described(before).rope.dims, 2);  // 0.25 of 8
  EXPECT_EQ(described(without(before, "rotary_pct")).rope.dims, 2);
  EXPECT_EQ(described(changed(before, "rotary_emb_base", 100)).rope.theta, 100.0);
  expect_input_error([&] { described(changed(before, "rotary_pct", 0.2)); }, {"rotary_pct", "a head's 8"});
  expect_input_error([&] { described(changed(before, "rotary_pct", 1.5)); }, {"rotary_pct", "a head's 8"});
  expect_input_error(
      [&] {
        described(changed(before, "rope_scaling", {{"type", "linear"}, {"factor", 2.0}}));
      },
      {"rope_scaling"});
}

TEST(Description, OfOpt) {
  const json config = config_of("opt");
  const Description d = described(config);
  EXPECT_TRUE(d.qkv_bias && d.attention_output_bias && d.mlp_bias && d.tied_head);
  EXPECT_EQ(d.position_offset, 2);
  EXPECT_EQ(d.activation, Activation::relu);
  EXPECT_FALSE(described(config_of("opt_plain")).mlp_bias);
  EXPECT_EQ(d.head_width(), 28);
  EXPECT_FALSE(d.norm_after_sum);
  const Description small = described(config_of("opt_350m"));
  EXPECT_EQ(small.hidden, 20);
  EXPECT_EQ(small.head_width(), 12);
  EXPECT_TRUE(small.norm_after_sum);
  EXPECT_TRUE(small.names.final_norm.empty());
  EXPECT_EQ(small.names.project_out, "project_out");
}

TEST(Description, OfMistral) {
  const json config = config_of("mistral");
  const Description d = described(config);
  EXPECT_EQ(d.max_positions, 64);
  EXPECT_EQ(d.window_of(0), 5);
  EXPECT_EQ(d.window_of(1), 5);
  EXPECT_FALSE(d.qkv_bias || d.attention_output_bias || d.mlp_bias);
  EXPECT_EQ(described(changed(config, "sliding_window", nullptr)).window_of(0), 0);
  EXPECT_EQ(described(without(config, "sliding_window")).window_of(0), 4096);
  EXPECT_EQ(described(changed(config, "num_key_value_heads", nullptr)).kv_heads, 4);
  expect_input_error([&] { described(without(config, "num_key_value_heads")); },  // 8, of 4 heads
                     {"num_key_value_heads", "a divisor of num_attention_heads, 4"});
  expect_input_error([&] { described(changed(config, "sliding_window", 0)); }, {"sliding_window"});
}

TEST(Description, OfQwen) {
  const json two = config_of("qwen2");
  const Description d = described(two);
  EXPECT_TRUE(d.qkv_bias && !d.attention_output_bias && !d.mlp_bias && d.tied_head);
  // A window counts only where it is switched on.
  const json window = changed(two, "sliding_window", 20);
  EXPECT_EQ(described(without(window, "layer_types")).window_of(1), 0);
  const json on = changed(window, "use_sliding_window", true);
  EXPECT_EQ(described(on).window_of(1), 0);  // by layer_types
  EXPECT_EQ(described(changed(on, "layer_types", {"full_attention", "sliding_attention"})).full_layers,
            std::vector<std::int64_t>{0});
  EXPECT_EQ(described(without(on, "layer_types")).window_of(1), 0);  // 28 layers have none
  const json second = changed(without(on, "layer_types"), "max_window_layers", 1);
  EXPECT_EQ(described(second).window_of(0), 0);
  EXPECT_EQ(described(second).window_of(1), 20);
  const json sliding = {"full_attention", "sliding_attention"};
  expect_input_error([&] { described(changed(window, "layer_types", sliding)); },
                     {"layer_types[1]", "no sliding_window"});
  expect_input_error([&] { described(changed(on, "layer_types", {"full_attention"})); },
                     {"layer_types", "each of 2 layers"});
  expect_input_error([&] { described(changed(two, "attention_bias", false)); }, {"attention_bias"});
  const json three = config_of("qwen3");
  EXPECT_EQ(described(three).head_dim, 10);
  EXPECT_EQ(described(without(three, "head_dim")).head_dim, 128);
  EXPECT_EQ(described(three).names.q_norm, "self_attn.q_norm");
  EXPECT_TRUE(described(changed(three, "attention_bias", true)).attention_output_bias);
}

TEST(Description, OfPhi) {
  const json config = config_of("phi3");
  const Description d = described(config);
  EXPECT_TRUE(d.fused_qkv() && d.fused_gate() && !d.tied_head);
  EXPECT_EQ(d.rope.dims, 6);  // 0.75 of 8
  EXPECT_EQ(linear_modules(d)[2].out, 2 * 19);
  EXPECT_EQ(d.window, 0);
  const json longrope = config_of("phi3_longrope");
  EXPECT_EQ(described(longrope).window, 6);
  EXPECT_EQ(described(longrope).max_positions, 160);
  const auto with_share = [&](double share) {
    json other = config;
    other["rope_parameters"]["partial_rotary_factor"] = share;
    return other;
  };
  EXPECT_EQ(described(with_share(1.0)).rope.dims, 8);
  expect_input_error([&] { described(with_share(0.4)); }, {"partial_rotary_factor", "is even"});
  expect_input_error([&] { described(with_share(1.5)); }, {"partial_rotary_factor"});
}

TEST(Description, OfGemma) {
  const json two = config_of("gemma2");
  const Description d = described(two);
  EXPECT_TRUE(d.gated && d.tied_head && !d.qkv_bias);
  EXPECT_EQ(d.activation, Activation::gelu_tanh);
  EXPECT_FLOAT_EQ(d.embedding_scale * d.embedding_scale, 20.0f);
  EXPECT_FLOAT_EQ(d.attention_scale * d.attention_scale, 1.0f / 11.0f);
  EXPECT_EQ(d.window_of(0), 5);
  EXPECT_EQ(d.window_of(1), 0);
  EXPECT_EQ(d.attention_soft_cap, 3.0f);
  EXPECT_EQ(described(changed(two, "attn_logit_softcapping", nullptr)).attention_soft_cap, 0.0f);
  EXPECT_EQ(described(without(two, "attn_logit_softcapping")).attention_soft_cap, 50.0f);
  EXPECT_EQ(described(without(two, "final_logit_softcapping")).logit_soft_cap, 30.0f);
  EXPECT_EQ(described(without(two, "head_dim")).head_dim, 256);
  EXPECT_EQ(described(without(two, "sliding_window")).window, 4096);

  const Description old_form = described(config_of("gemma3_old"));
  EXPECT_EQ(old_form.full_layers, std::vector<std::int64_t>{1});
  EXPECT_EQ(old_form.rope.theta, 1000.0);
  EXPECT_EQ(old_form.rope.factor, 4.0);
  EXPECT_EQ(old_form.window_rope->theta, 10.0);
  EXPECT_EQ(old_form.window_rope->scaling, RopeScaling::none);
  const json three = config_of("gemma3");
  EXPECT_EQ(described(three).full_layers, (std::vector<std::int64_t>{0, 2}));
  EXPECT_EQ(described(three).logit_soft_cap, 6.0f);
  const json bare = without(without(three, "rope_parameters"), "layer_types");
  EXPECT_EQ(described(bare).rope.theta, 1e6);
  EXPECT_EQ(described(bare).window_rope->theta, 1e4);
  expect_input_error([&] { described(changed(three, "attn_logit_softcapping", 50.0)); },
                     {"attn_logit_softcapping"});
  expect_input_error(
      [&] {
        described(changed(three, "rope_scaling", {{"type", "linear"}, {"factor", 2.0}}));
      },
      {"rope_scaling", "rope_parameters"});
  expect_input_error([&] { described(changed(two, "use_bidirectional_attention", true)); },
                     {"use_bidirectional_attention"});
}

TEST(Description, UnknownKeysPass) {
  EXPECT_NO_THROW(described(changed(config_of("llama"), "something_new", {1, 2})));
  EXPECT_NO_THROW(described(changed(config_of("gpt2"), "reorder_and_upcast_attn", true)));
}

TEST(Description, OtherFamiliesAreRefusedWithThoseThatAreServed) {
  for (const char* family : {"bloom", "gemma", "gemma3", "falcon", "bert"}) {
    expect_input_error([&] { described(changed(config_of("llama"), "model_type", family)); },
                       {"m/config.json", "model_type", family,
                        "gemma2, gemma3_text, gpt2, gpt_neox, gptj, llama, mistral, mixtral, opt, phi3, "
                        "qwen2, qwen3, qwen3_moe"});
  }
  expect_input_error([&] { described(without(config_of("llama"), "model_type")); },
                     {"model_type is missing"});
  expect_input_error([&] { described(json::array()); }, {"m/config.json is a list of 0; expected an object"});
}

TEST(Description, OtherMathsIsRefusedByName) {
  const std::vector<std::tuple<std::string, std::string, json>> refused{
      {"llama", "hidden_act", "quick_gelu"},
      {"llama", "quantization_config", json{{"bits", 4}}},
      {"llama", "sliding_window", 1024},
      {"llama", "attn_logit_softcapping", 50.0},
      {"llama", "final_logit_softcapping", 30.0},
      {"llama", "partial_rotary_factor", 0.5},
      {"llama", "rope_scaling", json{{"type", "linear"}}},
      {"llama", "rope_scaling", json{{"type", "mrope"}, {"factor", 2.0}}},
      {"llama", "rope_parameters", json{{"rope_type", "linear"}, {"factor", 2.0}, {"beta_fast", 32}}},
      {"llama", "rope_parameters", json{{"rope_type", "yarn"}, {"factor", -2.0}}},
      {"llama", "rope_parameters", json{{"rope_type", "yarn"}, {"beta_fast", 1}, {"beta_slow", 2}}},
      {"llama", "rope_parameters",
       json{{"rope_type", "longrope"}, {"short_factor", {1.0}}, {"long_factor", {1.0}}}},
      {"gpt2", "scale_attn_by_inverse_layer_idx", true},
      {"gpt2", "add_cross_attention", true},
      {"gpt2", "activation_function", "tanh"},
      {"gptj", "rotary", false},
      {"gptj", "rope_theta", 500000.0},
      {"gptj", "rope_scaling", json{{"type", "linear"}, {"factor", 2.0}}},
      {"gptj", "num_experts", 8},
      {"gpt2", "sliding_window", 16},
  };
  for (const auto& [model, key, value] : refused) {
    expect_input_error([&] { described(changed(config_of(model), key, value)); },
                       {"m/config.json", key, "expected"});
  }
  // Said not to be used, they pass.
  EXPECT_NO_THROW(described(changed(config_of("llama"), "sliding_window", nullptr)));
  EXPECT_NO_THROW(described(changed(config_of("llama"), "rope_scaling", nullptr)));
}

TEST(Description, MixtralsDefaultsAreItsOwn) {
  json config = config_of("mixtral");
  for (const char* key : {"num_local_experts", "num_experts_per_tok", "rms_norm_eps", "rope_parameters",
                          "num_key_value_heads", "sliding_window"})
    config.erase(key);
  config["num_attention_heads"] = 8;
  config["head_dim"] = 4;
  const Description d = described(config);
  EXPECT_EQ(d.mixture->rule, (RoutingRule{.experts = 8, .chosen = 2, .renormalised = true}));
  EXPECT_EQ(d.mixture->intermediate, d.intermediate);
  EXPECT_EQ(d.norm_epsilon, 1e-5f);
  EXPECT_EQ(d.rope.theta, 1e6);
  EXPECT_EQ(d.kv_heads, 8);
  EXPECT_EQ(d.window, 0);
  EXPECT_EQ(described(changed(config, "rope_theta", 500.0)).rope.theta, 500.0);
  EXPECT_EQ(described(changed(config, "sliding_window", 17)).window, 17);
}

TEST(Description, Qwen3MoeSaysWhichLayersAreDense) {
  const json base = config_of("qwen3_moe");  // layer 1 by mlp_only_layers
  const Description d = described(base);
  EXPECT_TRUE(d.has_mixture(0) && !d.has_mixture(1) && d.has_mixture(2));
  EXPECT_FALSE(d.mixture->rule.renormalised);
  EXPECT_TRUE(described(changed(base, "norm_topk_prob", true)).mixture->rule.renormalised);
  const Description third = described(changed(base, "decoder_sparse_step", 3));
  EXPECT_TRUE(!third.has_mixture(0) && !third.has_mixture(1) && third.has_mixture(2));
  EXPECT_FALSE(described(changed(base, "num_local_experts", 0)).has_mixture(0));
  EXPECT_TRUE(described(changed(base, "mlp_only_layers", nullptr)).has_mixture(1));
  // transformers 4's name for the number of experts.
  EXPECT_EQ(described(changed(without(base, "num_local_experts"), "num_experts", 5)).mixture->rule.experts,
            5);
  EXPECT_EQ(described(without(base, "num_local_experts")).mixture->rule.experts, 128);
  const json few = without(base, "num_experts_per_tok");
  expect_input_error([&] { described(few); }, {"num_experts_per_tok", "at most the number of experts, 7"});
  const std::vector<std::tuple<std::string, json>> refused{{"num_experts", 8},
                                                           {"num_experts_per_tok", 8},
                                                           {"num_experts_per_tok", 0},
                                                           {"mlp_only_layers", "1"},
                                                           {"mlp_only_layers", json::array({-1})},
                                                           {"decoder_sparse_step", 0},
                                                           {"moe_intermediate_size", 0}};
  for (const auto& [key, value] : refused)
    expect_input_error([&] { described(changed(base, key, value)); }, {"m/config.json", key, "expected"});
}

TEST(Description, TypesAndRangesAreChecked) {
  const std::vector<std::tuple<std::string, std::string, json>> refused{
      {"llama", "hidden_size", "32"},
      {"llama", "hidden_size", 32.0},
      {"llama", "hidden_size", 0},
      {"llama", "hidden_size", -32},
      {"llama", "hidden_size", std::uint64_t{1} << 63},
      {"llama", "num_hidden_layers", 1'000'000'000},
      {"llama", "vocab_size", std::int64_t{1} << 31},
      {"llama", "num_key_value_heads", 3},
      {"llama", "head_dim", 7},
      {"llama", "rms_norm_eps", 0.0},
      {"llama", "rms_norm_eps", "1e-6"},
      {"llama", "tie_word_embeddings", 1},
      {"llama", "rope_parameters", "default"},
      {"gpt2", "n_head", 5},
      {"gpt2", "n_positions", nullptr},
      {"gptj", "rotary_dim", 17},
      {"gptj", "rotary_dim", nullptr},
  };
  for (const auto& [model, key, value] : refused) {
    expect_input_error([&] { described(changed(config_of(model), key, value)); },
                       {"m/config.json", key, "expected"});
  }
  for (const char* key :
       {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"}) {
    expect_input_error([&] { described(without(config_of("llama"), key)); }, {key, "is missing"});
  }
}

}  // namespace
}  // namespace mezzo
