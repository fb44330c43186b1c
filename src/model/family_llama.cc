// LLaMA 1-3 (Touvron et al. 2023; Grattafiori et al. 2024), as transformers' models/llama has it.
#include <cmath>

#include "config_reader.h"

namespace mezzo {
namespace {

/// The rotary part of a config in one of its two forms: rope_theta and rope_scaling, or (since transformers
/// 5) rope_parameters, which holds both.
RopeDescription read_rope(const ConfigReader& config, const std::optional<ConfigReader>& parameters,
                          std::int64_t max_positions) {
  RopeDescription rope;
  rope.theta = config.positive_or("rope_theta", rope.theta);
  if (!parameters) return rope;
  rope.theta = parameters->positive_or("rope_theta", rope.theta);
  parameters->only("partial_rotary_factor", 1.0);
  const std::string_view key = parameters->has("rope_type") ? "rope_type" : "type";
  const std::string type = parameters->text_or(key, "default");
  if (type == "default") return rope;
  if (type != "llama3") parameters->refuse(key, "default or llama3");
  rope.llama3_scaling = true;
  for (const char* required : {"factor", "low_freq_factor", "high_freq_factor"}) {
    if (!parameters->has(required)) parameters->refuse(required, "a finite number above 0");
  }
  rope.factor = parameters->positive_or("factor", 1.0);
  rope.low_freq_factor = parameters->positive_or("low_freq_factor", 1.0);
  rope.high_freq_factor = parameters->positive_or("high_freq_factor", 1.0);
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    parameters->refuse("high_freq_factor",
                       fmt::format("more than low_freq_factor, {}", rope.low_freq_factor));
  }
  // transformers lets a key outside the object go first, and falls back to the context's length.
  rope.original_max_positions = config.positive_or(
      "original_max_position_embeddings",
      parameters->positive_or("original_max_position_embeddings", static_cast<double>(max_positions)));
  return rope;
}

bool same(const RopeDescription& a, const RopeDescription& b) {
  return a.theta == b.theta && a.llama3_scaling == b.llama3_scaling && a.factor == b.factor &&
         a.low_freq_factor == b.low_freq_factor && a.high_freq_factor == b.high_freq_factor &&
         a.original_max_positions == b.original_max_positions;
}

}  // namespace

Description describe_llama(const ConfigReader& config) {
  Description d;
  d.vocabulary = config.size("vocab_size", index_limit);
  d.hidden = config.size("hidden_size", width_limit);
  d.intermediate = config.size("intermediate_size", width_limit);
  d.layers = config.size("num_hidden_layers", layers_limit);
  d.heads = config.size("num_attention_heads", width_limit);
  d.kv_heads = config.size_or("num_key_value_heads", width_limit, d.heads);
  if (d.heads % d.kv_heads != 0) {
    config.refuse("num_key_value_heads", fmt::format("a divisor of num_attention_heads, {}", d.heads));
  }
  if (!config.has("head_dim") && d.hidden % d.heads != 0) {
    config.refuse("num_attention_heads", fmt::format("a divisor of hidden_size, {}", d.hidden));
  }
  d.head_dim = config.size_or("head_dim", width_limit, d.hidden / d.heads);
  if (d.head_dim % 2 != 0) config.refuse("head_dim", fmt::format("an even number (it is {})", d.head_dim));
  if (d.query_width() > width_limit) config.refuse("head_dim", "a smaller number of heads times head_dim");
  d.max_positions = config.size_or("max_position_embeddings", index_limit, 2048);

  d.norm = NormKind::rms;
  d.norm_epsilon = static_cast<float>(config.positive_or("rms_norm_eps", 1e-6));
  d.positions = PositionKind::rotary;
  config.only("partial_rotary_factor", 1.0);
  const auto old_form = config.object("rope_scaling");
  const auto new_form = config.object("rope_parameters");
  d.rope = read_rope(config, new_form ? new_form : old_form, d.max_positions);
  if (old_form && new_form && !same(d.rope, read_rope(config, old_form, d.max_positions))) {
    config.refuse("rope_scaling", "the same as rope_parameters, which says otherwise");
  }
  d.rope.style = RopeStyle::half_split;
  d.rope.dims = d.head_dim;
  d.attention_scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(d.head_dim)));
  d.activation = read_activation(config, "hidden_act", "silu");
  d.gated = true;
  d.qkv_bias = d.attention_output_bias = config.flag_or("attention_bias", false);
  d.mlp_bias = config.flag_or("mlp_bias", false);
  d.tied_head = config.flag_or("tie_word_embeddings", false);
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
