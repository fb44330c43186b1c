#include "llama_like.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "config_reader.h"

namespace mezzo {

Description describe_llama_like(const JsonCursor& config, const LlamaLikeDefaults& defaults) {
  Description d;
  d.vocabulary = read_size(config["vocab_size"], index_limit);
  d.hidden = read_size(config["hidden_size"], width_limit);
  d.intermediate = read_size(config["intermediate_size"], width_limit);
  d.layers = read_size(config["num_hidden_layers"], layers_limit);
  d.heads = read_size(config["num_attention_heads"], width_limit);
  // A key that is null means what it means to LLaMA: only an absent one has the family's own default.
  const auto otherwise = [&](const char* key, std::int64_t of_family, std::int64_t of_llama) {
    return of_family != 0 && !config.value().contains(key) ? of_family : of_llama;
  };
  d.kv_heads = read_size_or(config["num_key_value_heads"], width_limit,
                            otherwise("num_key_value_heads", defaults.kv_heads, d.heads));
  if (d.heads % d.kv_heads != 0) {
    config["num_key_value_heads"].fail(fmt::format("a divisor of num_attention_heads, {}", d.heads));
  }
  const std::int64_t head_dim = otherwise("head_dim", defaults.head_dim, d.hidden / d.heads);
  if (config["head_dim"].is_unset() && head_dim == d.hidden / d.heads && d.hidden % d.heads != 0) {
    config["num_attention_heads"].fail(fmt::format("a divisor of hidden_size, {}", d.hidden));
  }
  d.head_dim = config["head_dim"].is_unset() ? head_dim : read_size(config["head_dim"], width_limit);
  if (d.head_dim % 2 != 0) config["head_dim"].fail(fmt::format("an even number (it is {})", d.head_dim));
  if (d.query_width() > width_limit) config["head_dim"].fail("a smaller number of heads times head_dim");
  d.max_positions = read_size_or(config["max_position_embeddings"], index_limit, defaults.max_positions);

  d.norm = NormKind::rms;
  d.norm_epsilon = static_cast<float>(config["rms_norm_eps"].positive_or(1e-6));
  d.positions = PositionKind::rotary;
  if (defaults.rope_by_layer_type) {
    const LayerRopes ropes = read_layer_ropes(config, d.max_positions, d.head_dim);
    d.rope = ropes.full;
    d.window_rope = ropes.window;
  } else {
    d.rope = read_rope(config, d.max_positions, d.head_dim, defaults.partial_rotary);
  }
  cut_to_short_factors(d);
  d.attention_scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(d.head_dim)));
  d.activation = read_activation(config["hidden_act"], "silu");
  d.gated = true;
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

RoutingRule read_routing(const JsonCursor& config, std::int64_t experts, std::int64_t chosen_otherwise,
                         bool renormalised) {
  const JsonCursor chosen = config["num_experts_per_tok"];
  RoutingRule rule{.experts = experts,
                   .chosen = read_size_or(chosen, experts_limit, chosen_otherwise),
                   .renormalised = renormalised};
  if (rule.chosen > experts) chosen.fail(fmt::format("at most the number of experts, {}", experts));
  return rule;
}

void cut_to_short_factors(Description& d) {
  if (!d.window_rope) return;
  for (const RopeDescription* rope : {&d.rope, &*d.window_rope}) {
    if (!rope->turns_long_ones_apart(d.max_positions)) continue;
    d.max_positions = static_cast<std::int64_t>(rope->original_max_positions);
    d.limited_by =
        " (those of longrope's short factors: beside another rotation longer sequences are not served)";
  }
}

void read_layer_types(const JsonCursor& config, Description& d) {
  const JsonCursor types = config["layer_types"];
  if (types.is_unset()) return;
  const std::vector<JsonCursor> layers = types.elements();
  if (std::ssize(layers) != d.layers) types.fail(fmt::format("one for each of {} layers", d.layers));
  d.full_layers.clear();
  for (std::int64_t layer = 0; layer < d.layers; ++layer) {
    const JsonCursor& type = layers[static_cast<std::size_t>(layer)];
    const std::string name = type.text();
    if (name == "full_attention") {
      d.full_layers.push_back(layer);
    } else if (name != "sliding_attention") {
      type.refuse("full_attention or sliding_attention");
    } else if (d.window == 0) {
      type.fail("full_attention, as there is no sliding_window");
    }
  }
}

}  // namespace mezzo
