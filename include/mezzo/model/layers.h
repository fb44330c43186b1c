#pragma once
// A decoder as one list of its parts, made once from its description.
//
//   parts    what holds weights, in the order of the forward: embeddings, norms, products
//   blocks   what the forward does with them: each adds output(core(input(norm(h)))) to the residual stream h
//
// A block names its parts by their places in the list. What walks the parts alone (names and shapes of the
// files, adapters, loading, workloads, profiles, exports) knows nothing of blocks: it stays as it is when a
// family has more parts in a block, or other blocks.
//
//   LLaMA's layer:  { norm, q|k|v, attention, o }  { norm, gate|up, MLP, down }
//   GPT-J's layer:  { norm, q|k|v, attention, out }  { the same norm, fc_in, MLP, fc_out; parallel }
//   Mixtral's:      { norm, q|k|v, attention, o }  { norm, router, mixture of { w1|w3, w2 } }
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "mezzo/backend/backend.h"
#include "mezzo/model/description.h"

namespace mezzo {

/// The place of a part in DecoderSpec::parts.
using PartIndex = std::size_t;

/// A table of rows, of which a token or a position takes one.
struct EmbeddingSpec {
  std::string name;  ///< of the module: its tensor is name + ".weight"
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t offset = 0;  ///< row of index 0: a table of positions may begin with rows that none takes
  float scale = 1.0f;       ///< of what is taken
};

struct NormSpec {
  std::string name;
  NormKind kind = NormKind::rms;
  std::int64_t width = 0;
  float epsilon = 1e-5f;
  float weight_offset = 0.0f;  ///< added to what the files hold: 1 where they hold w of (1 + w)
};

/// A linear layer as the files store it and as PEFT names it: what an adapter targets.
struct LinearModule {
  std::string name;        ///< "model.layers.3.self_attn.q_proj"
  std::int64_t layer = 0;  ///< -1: of none
  std::int64_t out = 0;
  std::int64_t in = 0;
  bool transposed = false;  ///< stored [in, out], else [out, in]
};

enum class ProductRole : std::uint8_t {
  attention_input,
  attention_output,
  mlp_input,
  mlp_output,
  router,
  expert_input,
  expert_output,
  embedding_projection,
  head
};

constexpr bool is_expert(ProductRole role) {
  return role == ProductRole::expert_input || role == ProductRole::expert_output;
}
/// Of an expert, or the router before it.
constexpr bool in_mixture(ProductRole role) { return role == ProductRole::router || is_expert(role); }

/// y = epilogue(W x + b): modules that share an input, one below the other in W. How they cut W says how it
/// is stored; which rows mean what is said by the block's core.
struct ProductSpec {
  ProductRole role = ProductRole::head;
  std::vector<LinearModule> modules;
  bool bias = false;  ///< of every module
  Epilogue epilogue;
  float score_cap = 0.0f;         ///< of the head: c of c tanh(logit / c); 0: none
  std::optional<PartIndex> tied;  ///< W is this embedding's table and not stored once more

  const std::string& name() const { return modules.front().name; }  ///< of the backend's product
  std::int64_t in() const { return modules.front().in; }
  std::int64_t out() const;
};

using Part = std::variant<EmbeddingSpec, NormSpec, ProductSpec>;

/// Rows [begin, begin + count) of a product.
struct RowRange {
  std::int64_t begin = 0;
  std::int64_t count = 0;
};

/// The core of an attention block.
struct AttentionSpec {
  AttentionShape shape;
  RowRange q, k, v;  ///< of the input product, however many modules store it
  /// One module stores the rows of q, k and v as [heads][q, k, v][head_dim]; q, k and v say where they are
  /// once they are split.
  bool head_by_head = false;
  std::optional<std::size_t> rope;          ///< in DecoderSpec::ropes; none: not rotary
  std::optional<PartIndex> q_norm, k_norm;  ///< over each head, before the rotation
};

/// The core of an MLP block: the activation, which is the input product's epilogue where it can be.
struct MlpSpec {
  /// Of the input product's rows gate | up where one module holds both: an operation of its own.
  std::optional<Activation> gate = {};
};

/// The core of a block whose MLP is a mixture of experts. Expert e is the products inputs[e] and outputs[e],
/// the activation its input product's epilogue.
struct MixtureSpec {
  RoutingRule rule;
  std::vector<PartIndex> inputs, outputs;
};

struct BlockSpec {
  std::int64_t layer = 0;
  PartIndex norm = 0;
  /// Reads the residual stream as the block before did: h + block before(h) + block(h).
  bool parallel = false;
  PartIndex input = 0;  ///< reads x; of a mixture it is the router
  std::variant<AttentionSpec, MlpSpec, MixtureSpec> core;
  PartIndex output = 0;                ///< a mixture has none: its experts have one each
  std::optional<PartIndex> post_norm;  ///< of what the block adds

  /// All of the block.
  std::vector<PartIndex> products() const;
};

struct DecoderSpec {
  std::int64_t hidden = 0;  ///< width of the residual stream
  std::vector<Part> parts;
  std::vector<BlockSpec> blocks;
  std::vector<RopeDescription> ropes;
  PartIndex embedding = 0;
  std::optional<PartIndex> positions;
  std::optional<PartIndex>
      project_in;  ///< from the embedding's width to `hidden`, before positions are added
  std::optional<PartIndex> project_out;  ///< from `hidden` to the head's width
  /// A block reads h itself, and its norm makes norm(h + block(h)) the next h.
  bool norm_after_sum = false;
  std::optional<PartIndex> final_norm;  ///< none where norms stand behind the sums
  PartIndex head = 0;

  template <typename T>
  const T& at(PartIndex index) const {
    return std::get<T>(parts.at(index));
  }
};

DecoderSpec decoder_spec(const Description& description);

/// One tensor of the model's files.
struct WeightSpec {
  std::string name;                 ///< with prefix
  std::vector<std::int64_t> shape;  ///< as stored
  std::string module = {};          ///< whose tensor it is: `name` is module.weight or module.bias
  std::int64_t layer = -1;          ///< of the module; -1: of none
  bool transposed = false;          ///< of a linear layer, stored [in, out]
  bool in_mixture = false;          ///< of a router or an expert

  bool is_vector() const { return shape.size() == 1; }
  /// As a matrix, [out, in] of a linear layer; a vector is one row.
  std::int64_t rows() const { return is_vector() ? 1 : shape[transposed ? 1 : 0]; }
  std::int64_t cols() const { return is_vector() ? shape[0] : shape[transposed ? 0 : 1]; }
};

/// Every tensor that the files must hold, in the order of the parts.
std::vector<WeightSpec> weight_specs(const DecoderSpec& spec);
std::vector<WeightSpec> weight_specs(const Description& description);

/// Numbers in the model's files.
struct ParameterCount {
  std::int64_t all = 0;
  std::int64_t active = 0;  ///< of a token: less those of experts that it does not go to
};
ParameterCount count_parameters(const DecoderSpec& spec);

/// Every linear layer that an adapter may perturb, all but the head, in the order of the parts.
std::vector<LinearModule> linear_modules(const DecoderSpec& spec);
std::vector<LinearModule> linear_modules(const Description& description);

}  // namespace mezzo
