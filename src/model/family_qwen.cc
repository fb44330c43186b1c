// Qwen2, 2.5 and 3 (Yang et al. 2024, 2025), as transformers' models/qwen2 and models/qwen3 have them:
// LLaMA's layer with biases on q, k and v (2) or with norms over each head of q and k (3).
#include <nlohmann/json.hpp>

#include "config_reader.h"
#include "llama_like.h"

namespace mezzo {
namespace {

/// A window for the layers from max_window_layers on, if it is switched on.
void read_window(const JsonCursor& config, Description& d) {
  if (!config["use_sliding_window"].boolean_or(false)) return;
  const JsonCursor window = config["sliding_window"];
  if (window.is_unset() && config.value().contains("sliding_window")) return;
  cut_to_window(d, read_size_or(window, index_limit, 4096));
}

}  // namespace

Description describe_qwen2(const JsonCursor& config) {
  check_architecture(config, {"Qwen2ForCausalLM", "Qwen2Model"});
  refuse_other_maths(config, {"sliding_window"});
  for (const char* key : {"attention_bias", "mlp_bias"}) check_only(config[key], key[0] == 'a');
  Description d = describe_llama_like(config, {.max_positions = 32768, .kv_heads = 32});
  d.qkv_bias = true;
  read_window(config, d);
  return d;
}

Description describe_qwen3(const JsonCursor& config) {
  check_architecture(config, {"Qwen3ForCausalLM", "Qwen3Model"});
  refuse_other_maths(config, {"sliding_window"});
  check_only(config["mlp_bias"], false);
  Description d = describe_llama_like(config, {.max_positions = 32768, .kv_heads = 32, .head_dim = 128});
  d.qkv_bias = d.attention_output_bias = config["attention_bias"].boolean_or(false);
  d.names.q_norm = "self_attn.q_norm";
  d.names.k_norm = "self_attn.k_norm";
  read_window(config, d);
  return d;
}

}  // namespace mezzo
