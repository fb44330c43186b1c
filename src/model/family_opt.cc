// OPT (Zhang et al. 2022), as transformers' models/opt has it: learned positions that begin at row 2 of their
// table, ReLU, biases; OPT-350m with norms behind the residual sums and narrower embeddings.
#include <nlohmann/json.hpp>

#include "config_reader.h"

namespace mezzo {

Description describe_opt(const JsonCursor& config) {
  check_architecture(config, {"OPTForCausalLM", "OPTModel"});
  refuse_other_maths(config);
  Description d;
  d.vocabulary = read_size(config["vocab_size"], index_limit);
  d.hidden = read_size(config["hidden_size"], width_limit);
  d.intermediate = read_size(config["ffn_dim"], width_limit);
  d.layers = read_size(config["num_hidden_layers"], layers_limit);
  read_equal_heads(config["num_attention_heads"], "hidden_size", d);
  d.max_positions = read_size_or(config["max_position_embeddings"], index_limit, 2048);
  d.position_offset = 2;
  d.embedding_width = read_size_or(config["word_embed_proj_dim"], width_limit, d.hidden);
  d.norm_after_sum = !config["do_layer_norm_before"].boolean_or(true);
  check_only(config["layer_norm_elementwise_affine"], true);
  check_only(config["_remove_final_layer_norm"], false);

  d.norm = NormKind::layer;
  d.norm_epsilon = 1e-5f;
  d.positions = PositionKind::learned;
  d.activation = read_activation(config["activation_function"], "relu");
  d.qkv_bias = d.attention_output_bias = d.mlp_bias = config["enable_bias"].boolean_or(true);
  d.tied_head = config["tie_word_embeddings"].boolean_or(true);
  d.names = {.prefix = "model.decoder.",
             .embedding = "embed_tokens",
             .position_embedding = "embed_positions",
             .layers = "layers",
             .attention_norm = "self_attn_layer_norm",
             .qkv = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"},
             .attention_output = "self_attn.out_proj",
             .mlp_norm = "final_layer_norm",
             .mlp_input = {"fc1"},
             .mlp_output = "fc2",
             .final_norm = "final_layer_norm",
             .head = "lm_head",
             .query_value = {"q_proj", "v_proj"},
             .ignored_suffixes = {}};
  if (d.norm_after_sum) d.names.final_norm = "";
  if (d.embedding_width != d.hidden) {
    d.names.project_in = "project_in";
    d.names.project_out = "project_out";
  }
  return d;
}

}  // namespace mezzo
