// Qwen2, 2.5 and 3 (Yang et al. 2024, 2025), as transformers' models/qwen2, qwen3 and qwen3_moe have them:
// LLaMA's layer with biases on q, k and v (2) or with norms over each head of q and k (3), and (3, MoE) a
// mixture of experts for the MLP of some or all layers.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "config_reader.h"
#include "llama_like.h"

namespace mezzo {
namespace {

/// A window for all layers, if it is switched on.
void read_window(const JsonCursor& config, Description& d) {
  if (!config["use_sliding_window"].boolean_or(false)) return;
  const JsonCursor window = config["sliding_window"];
  if (window.is_unset() && config.value().contains("sliding_window")) return;
  d.window = read_size_or(window, index_limit, 4096);
}

/// The same for the layers that layer_types names, or those from max_window_layers on.
void read_windows(const JsonCursor& config, Description& d) {
  read_window(config, d);
  const std::int64_t first = config["max_window_layers"].integer_or(0, layers_limit, 28);
  if (d.window != 0) {
    for (std::int64_t layer = 0; layer < std::min(first, d.layers); ++layer) d.full_layers.push_back(layer);
  }
  read_layer_types(config, d);
}

/// Qwen3's layer with one MLP.
Description describe_normed(const JsonCursor& config, const LlamaLikeDefaults& defaults) {
  check_only(config["mlp_bias"], false);
  Description d = describe_llama_like(config, defaults);
  d.qkv_bias = d.attention_output_bias = config["attention_bias"].boolean_or(false);
  d.names.q_norm = "self_attn.q_norm";
  d.names.k_norm = "self_attn.k_norm";
  return d;
}

/// transformers 4 wrote num_experts, 5 writes num_local_experts and reads either.
std::int64_t read_experts(const JsonCursor& config) {
  const JsonCursor before = config["num_experts"];
  const JsonCursor now = config["num_local_experts"];
  const JsonCursor& said = now.is_unset() ? before : now;
  const std::int64_t experts = said.integer_or(0, experts_limit, 128);
  if (!before.is_unset() && before.integer(0, experts_limit) != experts)
    before.fail(fmt::format("{}, which {} says", experts, now.path()));
  return experts;
}

/// Layers with one MLP: those of mlp_only_layers, and all but every decoder_sparse_step-th.
std::vector<std::int64_t> read_dense_layers(const JsonCursor& config, std::int64_t layers) {
  const std::int64_t step = read_size_or(config["decoder_sparse_step"], layers_limit, 1);
  std::set<std::int64_t> dense;
  for (std::int64_t layer = 0; layer < layers; ++layer)
    if ((layer + 1) % step != 0) dense.insert(layer);
  if (const JsonCursor named = config["mlp_only_layers"]; !named.is_unset()) {
    for (const JsonCursor& layer : named.elements()) dense.insert(layer.integer(0, layers_limit - 1));
  }
  return {dense.begin(), dense.end()};
}

}  // namespace

Description describe_qwen2(const JsonCursor& config) {
  check_architecture(config, {"Qwen2ForCausalLM", "Qwen2Model"});
  refuse_other_maths(config, {"sliding_window"});
  for (const char* key : {"attention_bias", "mlp_bias"}) check_only(config[key], key[0] == 'a');
  Description d = describe_llama_like(config, {.max_positions = 32768, .kv_heads = 32});
  d.qkv_bias = true;
  read_windows(config, d);
  return d;
}

Description describe_qwen3(const JsonCursor& config) {
  check_architecture(config, {"Qwen3ForCausalLM", "Qwen3Model"});
  refuse_other_maths(config, {"sliding_window"});
  Description d = describe_normed(config, {.max_positions = 32768, .kv_heads = 32, .head_dim = 128});
  read_windows(config, d);
  return d;
}

Description describe_qwen3_moe(const JsonCursor& config) {
  check_architecture(config, {"Qwen3MoeForCausalLM", "Qwen3MoeModel"});
  refuse_other_maths(config, {"sliding_window", "num_experts", "num_local_experts"});
  Description d = describe_normed(config, {.max_positions = 32768, .kv_heads = 4});
  read_window(config, d);
  const std::int64_t experts = read_experts(config);
  if (experts == 0) return d;
  d.mixture =
      MixtureDescription{.rule = read_routing(config, experts, 8, config["norm_topk_prob"].boolean_or(false)),
                         .intermediate = read_size_or(config["moe_intermediate_size"], width_limit, 768),
                         .dense_layers = read_dense_layers(config, d.layers),
                         .router = "mlp.gate",
                         .experts = "mlp.experts",
                         .input = {"gate_proj", "up_proj"},
                         .output = "down_proj"};
  return d;
}

}  // namespace mezzo
