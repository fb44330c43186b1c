// LLaMA 1-3 (Touvron et al. 2023; Grattafiori et al. 2024), as transformers' models/llama has it.
#include <cmath>
#include <nlohmann/json.hpp>

#include "config_reader.h"

namespace mezzo {
Description describe_llama(const JsonCursor& config) {
  check_architecture(config, {"LlamaForCausalLM", "LlamaModel", "LLaMAForCausalLM"});
  refuse_other_maths(config);
  Description d;
  d.vocabulary = read_size(config["vocab_size"], index_limit);
  d.hidden = read_size(config["hidden_size"], width_limit);
  d.intermediate = read_size(config["intermediate_size"], width_limit);
  d.layers = read_size(config["num_hidden_layers"], layers_limit);
  d.heads = read_size(config["num_attention_heads"], width_limit);
  d.kv_heads = read_size_or(config["num_key_value_heads"], width_limit, d.heads);
  if (d.heads % d.kv_heads != 0) {
    config["num_key_value_heads"].fail(fmt::format("a divisor of num_attention_heads, {}", d.heads));
  }
  if (config["head_dim"].is_unset() && d.hidden % d.heads != 0) {
    config["num_attention_heads"].fail(fmt::format("a divisor of hidden_size, {}", d.hidden));
  }
  d.head_dim = read_size_or(config["head_dim"], width_limit, d.hidden / d.heads);
  if (d.head_dim % 2 != 0) config["head_dim"].fail(fmt::format("an even number (it is {})", d.head_dim));
  if (d.query_width() > width_limit) config["head_dim"].fail("a smaller number of heads times head_dim");
  d.max_positions = read_size_or(config["max_position_embeddings"], index_limit, 2048);

  d.norm = NormKind::rms;
  d.norm_epsilon = static_cast<float>(config["rms_norm_eps"].positive_or(1e-6));
  d.positions = PositionKind::rotary;
  d.rope = read_rope(config, d.max_positions);
  d.rope.style = RopeStyle::half_split;
  d.rope.dims = d.head_dim;
  d.attention_scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(d.head_dim)));
  d.activation = read_activation(config["hidden_act"], "silu");
  d.gated = true;
  d.qkv_bias = d.attention_output_bias = config["attention_bias"].boolean_or(false);
  d.mlp_bias = config["mlp_bias"].boolean_or(false);
  d.tied_head = config["tie_word_embeddings"].boolean_or(false);
  d.names = {.prefix = "model.",
             .embedding = "embed_tokens",
             .position_embedding = "",
             .layers = "layers",
             .attention_norm = "input_layernorm",
             .qkv = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"},
             .attention_output = "self_attn.o_proj",
             .mlp_norm = "post_attention_layernorm",
             .mlp_input = {"mlp.gate_proj", "mlp.up_proj"},
             .mlp_output = "mlp.down_proj",
             .final_norm = "norm",
             .head = "lm_head",
             .query_value = {"q_proj", "v_proj"},
             .ignored_suffixes = {".rotary_emb.inv_freq"}};
  return d;
}

}  // namespace mezzo
