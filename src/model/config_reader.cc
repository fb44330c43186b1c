#include "config_reader.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "mezzo/core/error.h"
#include "mezzo/io/json_file.h"

namespace mezzo {
namespace {

/// Keys by which other families of decoders change the maths. Absent, null and false say that they do not.
constexpr std::array<std::string_view, 15> other_maths{"quantization_config",
                                                       "is_encoder_decoder",
                                                       "add_cross_attention",
                                                       "sliding_window",
                                                       "attn_logit_softcapping",
                                                       "final_logit_softcapping",
                                                       "attention_multiplier",
                                                       "embedding_multiplier",
                                                       "residual_multiplier",
                                                       "logits_scaling",
                                                       "logit_scale",
                                                       "clip_qkv",
                                                       "num_local_experts",
                                                       "num_experts",
                                                       "use_qk_norm"};

bool is_off(const JsonCursor& value) {
  return value.is_unset() || (value.value().is_boolean() && !value.boolean());
}

}  // namespace

void read_equal_heads(const JsonCursor& heads, std::string_view hidden, Description& d) {
  d.heads = d.kv_heads = read_size(heads, width_limit);
  if (d.hidden % d.heads != 0) heads.fail(fmt::format("a divisor of {}, {}", hidden, d.hidden));
  d.head_dim = d.hidden / d.heads;
  d.attention_scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(d.head_dim)));
}

Activation read_activation(const JsonCursor& value, std::string_view otherwise) {
  const std::string name = value.text_or(otherwise);
  if (name == "silu" || name == "swish") return Activation::silu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh") return Activation::gelu_tanh;
  if (name == "gelu") return Activation::gelu_erf;
  if (name == "relu") return Activation::relu;
  value.refuse("one of silu, swish, gelu_new, gelu_pytorch_tanh, gelu, relu");
}

void check_only(const JsonCursor& value, const nlohmann::json& served) {
  if (!value.is_unset() && value.value() != served) value.refuse(served.dump());
}

void check_architecture(const JsonCursor& config, std::initializer_list<std::string_view> classes) {
  const auto is_known = [&](std::string_view name) {
    return std::ranges::find(classes, name.substr(name.rfind('.') + 1)) != classes.end();  // modeling_x.Class
  };
  const std::string expected = fmt::format("{}", fmt::join(classes, ", "));
  if (const JsonCursor names = config["architectures"]; !names.is_unset()) {
    for (const JsonCursor& name : names.elements())
      if (!is_known(name.text())) name.refuse(expected);
  }
  if (const JsonCursor map = config["auto_map"]; !map.is_unset()) {
    for (const auto& [key, name] : map.members()) {
      // AutoConfig and AutoTokenizer name other things than the model's code.
      if (key.starts_with("AutoModel") && !is_known(name.text())) name.refuse(expected);
    }
  }
}

void refuse_other_maths(const JsonCursor& config, std::initializer_list<std::string_view> served) {
  for (const std::string_view key : other_maths) {
    if (std::ranges::find(served, key) != served.end()) continue;
    if (const JsonCursor value = config[key]; !is_off(value))
      value.fail("null (it changes the model's maths in a way that is not served)");
  }
}

}  // namespace mezzo
