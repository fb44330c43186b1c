#pragma once
// What a decoder is: its sizes, its maths and the names of its weights. A family (family.h) makes one from
// config.json; everything else of the model layer works from the description alone.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mezzo/backend/backend.h"
#include "mezzo/model/rope_description.h"

namespace mezzo {

enum class PositionKind : std::uint8_t { rotary, learned };

/// Names of the modules of a family as transformers' ...ForCausalLM has them (PEFT's names are these,
/// prefixed). Names below a layer are relative to it: "layers.3." + "self_attn.q_proj".
struct ModuleNames {
  std::string prefix;              ///< of the base model: "model.", "transformer."
  std::string embedding;           ///< "embed_tokens"; under prefix
  std::string position_embedding;  ///< "wpe", or "" without learned positions; under prefix
  std::string layers;              ///< "layers", "h"; under prefix
  std::string attention_norm;      ///< of a layer
  std::vector<std::string> qkv;    ///< q, k, v, or the one fused module
  std::string q_norm = {};         ///< over each head of q, before the rotation; "": none
  std::string k_norm = {};         ///< the same of k
  std::string attention_output;
  std::string attention_post_norm = {};  ///< of what attention adds; "": none
  std::string mlp_norm;                  ///< "" with a parallel residual
  std::vector<std::string> mlp_input;    ///< gate, up, or one: gated, it has the rows of both
  std::string mlp_output;
  std::string mlp_post_norm = {};        ///< of what the MLP adds; "": none
  std::string final_norm;                ///< under prefix; "" where norms stand behind the sums
  std::string head;                      ///< "lm_head"; not under prefix
  std::string project_in = {};           ///< from the embedding's width to hidden; under prefix
  std::string project_out = {};          ///< from hidden to the head's input; under prefix
  std::vector<std::string> query_value;  ///< the family's default LoRA targets
  /// Last components of stored tensors that hold no weight ("attn.bias", a mask): present or not, they are
  /// not read.
  std::vector<std::string> ignored_suffixes;
};

/// Layers whose MLP is a mixture of experts (mezzo/backend/mixture.h). An expert is the family's MLP, of
/// another width. Names are relative to the layer.
struct MixtureDescription {
  RoutingRule rule;
  std::int64_t intermediate = 0;           ///< of an expert
  std::vector<std::int64_t> dense_layers;  ///< those with one MLP instead
  std::string router;                      ///< "mlp.gate"
  std::string experts;                     ///< "mlp.experts"; an expert's number follows
  std::vector<std::string> input;          ///< "gate_proj", "up_proj"; of an expert
  std::string output;                      ///< "down_proj"
};

/// A decoder. Weights are [out, in] in the maths; `transposed` says that files hold linear layers as [in,
/// out].
struct Description {
  std::string family;  ///< config.json's model_type
  std::int64_t layers = 0;
  std::int64_t hidden = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t intermediate = 0;
  std::int64_t vocabulary = 0;
  std::int64_t max_positions = 0;    ///< tokens of the longest sequence
  std::string limited_by = {};       ///< why that is less than the model's own, or ""
  std::int64_t position_offset = 0;  ///< rows of learned positions before that of position 0

  NormKind norm = NormKind::rms;
  float norm_epsilon = 1e-5f;
  float norm_weight_offset = 0.0f;  ///< 1: norms times (1 + w)
  bool norm_after_sum = false;      ///< h = norm(h + block(h)), else h + block(norm(h))
  float embedding_scale = 1.0f;
  std::int64_t embedding_width = 0;  ///< of embedding and head, between projections; 0: hidden
  PositionKind positions = PositionKind::rotary;
  RopeDescription rope;                        ///< of rotary positions
  std::optional<RopeDescription> window_rope;  ///< of layers with the window, where they have their own
  float attention_scale = 1.0f;                ///< of q.k before the softmax
  std::int64_t window = 0;                     ///< tokens that a query looks back on, itself included; 0: all
  std::vector<std::int64_t> full_layers;       ///< those without the window
  float attention_soft_cap = 0.0f;             ///< c of c tanh(score / c); 0: none
  float logit_soft_cap = 0.0f;                 ///< the same of the head's logits
  Activation activation = Activation::silu;
  bool gated = false;              ///< activation(gate) * up
  bool parallel_residual = false;  ///< h + attention(norm h) + mlp(norm h); one norm without a mlp_norm
  bool qkv_head_by_head = false;   ///< rows of the one qkv module are [heads][q, k, v][head_dim]
  bool qkv_bias = false;
  bool attention_output_bias = false;
  bool mlp_bias = false;
  bool head_bias = false;
  bool tied_head = false;   ///< the head's weight is the embedding
  bool transposed = false;  ///< linear layers are stored [in, out] (Conv1D); never embedding or head
  std::optional<MixtureDescription> mixture;  ///< none: every layer has one MLP
  ModuleNames names;

  bool has_mixture(std::int64_t layer) const {
    return mixture && std::ranges::find(mixture->dense_layers, layer) == mixture->dense_layers.end();
  }
  std::int64_t window_of(std::int64_t layer) const {
    return std::ranges::find(full_layers, layer) == full_layers.end() ? window : 0;
  }
  std::int64_t head_width() const { return embedding_width == 0 ? hidden : embedding_width; }
  std::int64_t query_width() const { return heads * head_dim; }
  std::int64_t kv_width() const { return kv_heads * head_dim; }
  bool fused_gate() const { return gated && names.mlp_input.size() == 1; }
  bool fused_qkv() const { return names.qkv.size() == 1; }
  std::string layer_prefix(std::int64_t layer) const;  ///< "model.layers.3."
  /// max_positions for a message, "2048 positions", with the reason if it is not the model's own.
  std::string positions_text() const;
};

}  // namespace mezzo
