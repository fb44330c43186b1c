// GPT-J (Wang and Komatsuzaki 2021), as transformers' models/gptj has it: attention and MLP side by side
// behind one norm, and rotary positions, in neighbouring pairs, over the first rotary_dim elements of each
// head.
#include <cmath>

#include "config_reader.h"

namespace mezzo {

Description describe_gptj(const ConfigReader& config) {
  Description d;
  d.vocabulary = config.size("vocab_size", index_limit);
  d.hidden = config.size("n_embd", width_limit);
  d.intermediate = config.size_or("n_inner", width_limit, 4 * d.hidden);
  d.layers = config.size("n_layer", layers_limit);
  d.heads = d.kv_heads = config.size("n_head", width_limit);
  if (d.hidden % d.heads != 0) config.refuse("n_head", fmt::format("a divisor of n_embd, {}", d.hidden));
  d.head_dim = d.hidden / d.heads;
  d.max_positions = config.size("n_positions", index_limit);

  d.norm = NormKind::layer;
  d.norm_epsilon = static_cast<float>(config.positive_or("layer_norm_epsilon", 1e-5));
  d.positions = PositionKind::rotary;
  config.only("rotary", true);
  d.rope.style = RopeStyle::interleaved;
  d.rope.dims = config.size("rotary_dim", width_limit);
  if (d.rope.dims > d.head_dim || d.rope.dims % 2 != 0) {
    config.refuse("rotary_dim", fmt::format("an even number up to the size of a head, {}", d.head_dim));
  }
  d.attention_scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(d.head_dim)));
  d.activation = read_activation(config, "activation_function", "gelu_new");
  d.parallel_residual = true;
  d.mlp_bias = true;
  d.tied_head = config.flag_or("tie_word_embeddings", false);
  d.head_bias = true;
  d.names = {.prefix = "transformer.",
             .embedding = "wte",
             .position_embedding = "",
             .layers = "h",
             .attention_norm = "ln_1",
             .qkv = {"attn.q_proj", "attn.k_proj", "attn.v_proj"},
             .attention_output = "attn.out_proj",
             .mlp_norm = "",
             .mlp_input = {"mlp.fc_in"},
             .mlp_output = "mlp.fc_out",
             .final_norm = "ln_f",
             .head = "lm_head",
             .query_value = {"q_proj", "v_proj"},
             .ignored_suffixes = {".attn.bias", ".attn.masked_bias", ".attn.embed_positions"}};
  return d;
}

}  // namespace mezzo
