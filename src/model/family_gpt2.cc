// GPT-2 (Radford et al. 2019), as transformers' models/gpt2 has it: Conv1D modules, stored [in, out], and one
// module for q, k and v.
#include <nlohmann/json.hpp>

#include "config_reader.h"

namespace mezzo {

Description describe_gpt2(const JsonCursor& config) {
  check_architecture(config, {"GPT2LMHeadModel", "GPT2Model"});
  refuse_other_maths(config);
  Description d;
  d.vocabulary = read_size(config["vocab_size"], index_limit);
  d.hidden = read_size(config["n_embd"], width_limit);
  d.intermediate = read_size_or(config["n_inner"], width_limit, 4 * d.hidden);
  d.layers = read_size(config["n_layer"], layers_limit);
  read_equal_heads(config["n_head"], "n_embd", d);
  d.max_positions = read_size(config["n_positions"], index_limit);

  d.norm = NormKind::layer;
  d.norm_epsilon = static_cast<float>(config["layer_norm_epsilon"].positive_or(1e-5));
  d.positions = PositionKind::learned;
  check_only(config["scale_attn_by_inverse_layer_idx"], false);
  // reorder_and_upcast_attn changes the order of a scaling, not the maths.
  if (!config["scale_attn_weights"].boolean_or(true)) d.attention_scale = 1.0f;
  d.activation = read_activation(config["activation_function"], "gelu_new");
  d.qkv_bias = d.attention_output_bias = d.mlp_bias = true;
  d.tied_head = config["tie_word_embeddings"].boolean_or(true);
  d.transposed = true;
  d.names = {.prefix = "transformer.",
             .embedding = "wte",
             .position_embedding = "wpe",
             .layers = "h",
             .attention_norm = "ln_1",
             .qkv = {"attn.c_attn"},
             .attention_output = "attn.c_proj",
             .mlp_norm = "ln_2",
             .mlp_input = {"mlp.c_fc"},
             .mlp_output = "mlp.c_proj",
             .final_norm = "ln_f",
             .head = "lm_head",
             .query_value = {"c_attn"},
             .ignored_suffixes = {".attn.bias", ".attn.masked_bias"}};
  return d;
}

}  // namespace mezzo
