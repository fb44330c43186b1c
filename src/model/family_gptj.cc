// GPT-J (Wang and Komatsuzaki 2021), as transformers' models/gptj has it: attention and MLP side by side
// behind one norm, and rotary positions, in neighbouring pairs, over the first rotary_dim elements of each
// head.
#include <nlohmann/json.hpp>

#include "config_reader.h"

namespace mezzo {

Description describe_gptj(const JsonCursor& config) {
  check_architecture(config, {"GPTJForCausalLM", "GPTJModel"});
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
  d.positions = PositionKind::rotary;
  check_only(config["rotary"], true);
  check_only(config["rope_theta"], d.rope.theta);
  for (const char* key : {"rope_scaling", "rope_parameters"})
    check_only(config[key], nlohmann::json::object());
  d.rope.style = RopeStyle::interleaved;
  d.rope.dims = read_size(config["rotary_dim"], width_limit);
  if (d.rope.dims > d.head_dim || d.rope.dims % 2 != 0) {
    config["rotary_dim"].fail(fmt::format("an even number up to the size of a head, {}", d.head_dim));
  }
  d.activation = read_activation(config["activation_function"], "gelu_new");
  d.parallel_residual = true;
  d.mlp_bias = true;
  d.tied_head = config["tie_word_embeddings"].boolean_or(false);
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
