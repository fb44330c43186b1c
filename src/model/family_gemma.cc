// Gemma 2 and 3 (Gemma Team 2024, 2025; text alone), as transformers' models/gemma2 and models/gemma3 have
// them: LLaMA's parts with norms behind the blocks too, all times (1 + w), scaled embeddings, windows for
// some layers; soft caps (2), or norms over each head of q and k and a theta of the window's layers (3).
#include <cmath>
#include <nlohmann/json.hpp>

#include "config_reader.h"
#include "llama_like.h"

namespace mezzo {
namespace {

/// What both say alike. transformers rounds the embeddings' scale to the type that it computes in; Mezzo
/// computes in fp32 wherever it serves a scale.
Description describe_gemma(const JsonCursor& config, LlamaLikeDefaults defaults) {
  for (const char* key : {"mlp_bias", "use_bidirectional_attention"}) check_only(config[key], false);
  defaults.kv_heads = 4;
  defaults.head_dim = 256;
  Description d = describe_llama_like(config, defaults);
  d.activation = read_activation(config["hidden_activation"], "gelu_pytorch_tanh");
  d.norm_weight_offset = 1.0f;
  d.embedding_scale = static_cast<float>(std::sqrt(static_cast<double>(d.hidden)));
  d.attention_scale = static_cast<float>(1.0 / std::sqrt(config["query_pre_attn_scalar"].positive_or(256.0)));
  d.qkv_bias = d.attention_output_bias = config["attention_bias"].boolean_or(false);
  d.tied_head = config["tie_word_embeddings"].boolean_or(true);
  d.window = read_size_or(config["sliding_window"], index_limit, 4096);
  d.names.attention_post_norm = "post_attention_layernorm";
  d.names.mlp_norm = "pre_feedforward_layernorm";
  d.names.mlp_post_norm = "post_feedforward_layernorm";
  return d;
}

/// Every `period`-th layer is without the window, unless layer_types says otherwise.
void read_layers(const JsonCursor& config, std::int64_t period, Description& d) {
  for (std::int64_t layer = period - 1; layer < d.layers; layer += period) d.full_layers.push_back(layer);
  read_layer_types(config, d);
}

/// null: none.
float read_cap(const JsonCursor& config, const char* key, double otherwise) {
  const JsonCursor cap = config[key];
  if (cap.is_unset() && config.value().contains(key)) return 0.0f;
  return cap.is_unset() ? static_cast<float>(otherwise) : static_cast<float>(cap.positive());
}

}  // namespace

Description describe_gemma2(const JsonCursor& config) {
  check_architecture(config, {"Gemma2ForCausalLM", "Gemma2Model"});
  refuse_other_maths(config, {"sliding_window", "attn_logit_softcapping", "final_logit_softcapping"});
  Description d = describe_gemma(config, {.max_positions = 8192});
  read_layers(config, 2, d);
  d.attention_soft_cap = read_cap(config, "attn_logit_softcapping", 50.0);
  d.logit_soft_cap = read_cap(config, "final_logit_softcapping", 30.0);
  return d;
}

Description describe_gemma3(const JsonCursor& config) {
  check_architecture(config, {"Gemma3ForCausalLM", "Gemma3TextModel"});
  // transformers' attention of Gemma 3 reads no cap.
  refuse_other_maths(config, {"sliding_window", "final_logit_softcapping"});
  Description d = describe_gemma(config, {.max_positions = 131072, .rope_by_layer_type = true});
  // transformers 5 writes the pattern as _sliding_window_pattern.
  const JsonCursor old_name = config["sliding_window_pattern"];
  const JsonCursor pattern = old_name.is_unset() ? config["_sliding_window_pattern"] : old_name;
  read_layers(config, read_size_or(pattern, layers_limit, 6), d);
  d.logit_soft_cap = read_cap(config, "final_logit_softcapping", 0.0);
  d.names.q_norm = "self_attn.q_norm";
  d.names.k_norm = "self_attn.k_norm";
  return d;
}

}  // namespace mezzo
