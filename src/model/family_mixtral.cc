// Mixtral (Jiang et al. 2024), as transformers' models/mixtral has it: Mistral's layer with a mixture of
// experts for its MLP.
#include <nlohmann/json.hpp>

#include "config_reader.h"
#include "llama_like.h"

namespace mezzo {
namespace {

bool says_theta(const JsonCursor& config) {
  const auto in_section = [&](const char* key) {
    const JsonCursor section = config[key];
    return section.is_object() && !section["rope_theta"].is_unset();
  };
  return !config["rope_theta"].is_unset() || in_section("rope_parameters") || in_section("rope_scaling");
}

}  // namespace

Description describe_mixtral(const JsonCursor& config) {
  check_architecture(config, {"MixtralForCausalLM", "MixtralModel"});
  refuse_other_maths(config, {"sliding_window", "num_local_experts"});
  for (const char* key : {"attention_bias", "mlp_bias"}) check_only(config[key], false);
  Description d = describe_llama_like(config, {.max_positions = 131072, .kv_heads = 8});
  d.norm_epsilon = static_cast<float>(config["rms_norm_eps"].positive_or(1e-5));
  if (!says_theta(config)) d.rope.theta = 1e6;
  if (const JsonCursor window = config["sliding_window"]; !window.is_unset())
    d.window = read_size(window, index_limit);
  const std::int64_t experts = read_size_or(config["num_local_experts"], experts_limit, 8);
  d.mixture = MixtureDescription{.rule = read_routing(config, experts, 2, true),
                                 .intermediate = d.intermediate,
                                 .dense_layers = {},
                                 .router = "block_sparse_moe.gate",
                                 .experts = "block_sparse_moe.experts",
                                 .input = {"w1", "w3"},
                                 .output = "w2"};
  return d;
}

}  // namespace mezzo
