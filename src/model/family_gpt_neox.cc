// GPT-NeoX and Pythia (Black et al. 2022; Biderman et al. 2023), as transformers' models/gpt_neox has them:
// attention and MLP side by side, each behind a norm of its own, one module for q, k and v head by head, and
// rotary positions over the first part of each head.
#include <nlohmann/json.hpp>

#include "config_reader.h"

namespace mezzo {
namespace {

/// transformers 4 has both numbers in the config itself, 5 in rope_parameters.
void read_rotation(const JsonCursor& config, Description& d) {
  const JsonCursor section = config["rope_parameters"];
  const bool sectioned = section.is_object();
  if (sectioned) {
    section.check_keys({"rope_type", "rope_theta", "partial_rotary_factor"});
    check_only(section["rope_type"], "default");
  }
  check_only(config["rope_scaling"], nlohmann::json::object());
  const JsonCursor base = sectioned ? section["rope_theta"] : config["rotary_emb_base"];
  if (!base.is_unset()) d.rope.theta = base.positive();
  const JsonCursor part = sectioned ? section["partial_rotary_factor"] : config["rotary_pct"];
  const double share = part.is_unset() ? 0.25 : part.positive();
  d.rope.style = RopeStyle::half_split;
  d.rope.dims = static_cast<std::int64_t>(static_cast<double>(d.head_dim) * share);
  if (d.rope.dims < 2 || d.rope.dims > d.head_dim || d.rope.dims % 2 != 0)
    part.fail(fmt::format("a share of a head's {} elements that is an even number of them", d.head_dim));
}

}  // namespace

Description describe_gpt_neox(const JsonCursor& config) {
  check_architecture(config, {"GPTNeoXForCausalLM", "GPTNeoXModel"});
  refuse_other_maths(config);
  Description d;
  d.vocabulary = read_size(config["vocab_size"], index_limit);
  d.hidden = read_size(config["hidden_size"], width_limit);
  d.intermediate = read_size(config["intermediate_size"], width_limit);
  d.layers = read_size(config["num_hidden_layers"], layers_limit);
  read_equal_heads(config["num_attention_heads"], "hidden_size", d);
  d.max_positions = read_size_or(config["max_position_embeddings"], index_limit, 2048);

  d.norm = NormKind::layer;
  d.norm_epsilon = static_cast<float>(config["layer_norm_eps"].positive_or(1e-5));
  d.positions = PositionKind::rotary;
  read_rotation(config, d);
  d.activation = read_activation(config["hidden_act"], "gelu");
  d.parallel_residual = config["use_parallel_residual"].boolean_or(true);
  d.qkv_head_by_head = true;
  d.qkv_bias = d.attention_output_bias = config["attention_bias"].boolean_or(true);
  d.mlp_bias = true;
  d.tied_head = config["tie_word_embeddings"].boolean_or(false);
  d.names = {
      .prefix = "gpt_neox.",
      .embedding = "embed_in",
      .position_embedding = "",
      .layers = "layers",
      .attention_norm = "input_layernorm",
      .qkv = {"attention.query_key_value"},
      .attention_output = "attention.dense",
      .mlp_norm = "post_attention_layernorm",
      .mlp_input = {"mlp.dense_h_to_4h"},
      .mlp_output = "mlp.dense_4h_to_h",
      .final_norm = "final_layer_norm",
      .head = "embed_out",
      .query_value = {"query_key_value"},
      .ignored_suffixes = {".attention.bias", ".attention.masked_bias", ".attention.rotary_emb.inv_freq"}};
  return d;
}

}  // namespace mezzo
