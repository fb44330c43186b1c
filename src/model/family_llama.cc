// LLaMA 1-3 (Touvron et al. 2023; Grattafiori et al. 2024), as transformers' models/llama has it.
#include <nlohmann/json.hpp>

#include "config_reader.h"
#include "llama_like.h"

namespace mezzo {

Description describe_llama(const JsonCursor& config) {
  check_architecture(config, {"LlamaForCausalLM", "LlamaModel", "LLaMAForCausalLM"});
  refuse_other_maths(config);
  Description d = describe_llama_like(config, {});
  d.qkv_bias = d.attention_output_bias = config["attention_bias"].boolean_or(false);
  d.mlp_bias = config["mlp_bias"].boolean_or(false);
  return d;
}

}  // namespace mezzo
