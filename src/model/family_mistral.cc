// Mistral (Jiang et al. 2023), as transformers' models/mistral has it: LLaMA's layer with a window that each
// token looks back on.
#include <nlohmann/json.hpp>

#include "config_reader.h"
#include "llama_like.h"

namespace mezzo {

Description describe_mistral(const JsonCursor& config) {
  check_architecture(config, {"MistralForCausalLM", "MistralModel"});
  refuse_other_maths(config, {"sliding_window"});
  for (const char* key : {"attention_bias", "mlp_bias"}) check_only(config[key], false);
  Description d = describe_llama_like(config, {.max_positions = 131072, .kv_heads = 8});
  const JsonCursor window = config["sliding_window"];
  if (!config.value().contains("sliding_window")) {
    d.window = 4096;
  } else if (!window.is_unset()) {
    d.window = read_size(window, index_limit);
  }
  return d;
}

}  // namespace mezzo
