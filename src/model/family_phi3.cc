// Phi-3 and Phi-4 (Abdin et al. 2024), as transformers' models/phi3 has them: LLaMA's layer with q | k | v
// and gate | up as one module each, and rotary positions over a part of each head where the config says so.
#include <nlohmann/json.hpp>

#include "config_reader.h"
#include "llama_like.h"

namespace mezzo {

Description describe_phi3(const JsonCursor& config) {
  check_architecture(config, {"Phi3ForCausalLM", "Phi3Model"});
  refuse_other_maths(config, {"sliding_window"});
  for (const char* key : {"attention_bias", "mlp_bias"}) check_only(config[key], false);
  Description d = describe_llama_like(config, {.max_positions = 4096, .partial_rotary = 1.0});
  d.norm_epsilon = static_cast<float>(config["rms_norm_eps"].positive_or(1e-5));
  if (const JsonCursor window = config["sliding_window"]; !window.is_unset())
    d.window = read_size(window, index_limit);
  d.names.qkv = {"self_attn.qkv_proj"};
  d.names.mlp_input = {"mlp.gate_up_proj"};
  d.names.query_value = {"qkv_proj"};
  return d;
}

}  // namespace mezzo
