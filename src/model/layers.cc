#include "mezzo/model/layers.h"

#include <fmt/format.h>

#include <functional>
#include <numeric>
#include <utility>

#include "overloaded.h"

namespace mezzo {
namespace {

/// Makes the list, part by part.
class SpecMaker {
 public:
  explicit SpecMaker(const Description& description) : d_(description) {
    spec_.hidden = d_.hidden;
    spec_.norm_after_sum = d_.norm_after_sum;
  }

  DecoderSpec make() && {
    spec_.embedding =
        add_embedding(d_.names.embedding, d_.vocabulary, d_.head_width(), 0, d_.embedding_scale);
    if (!d_.names.project_in.empty())
      spec_.project_in = add_projection(d_.names.project_in, d_.hidden, d_.head_width());
    if (d_.positions == PositionKind::learned) {
      spec_.positions =
          add_embedding(d_.names.position_embedding, d_.max_positions, d_.hidden, d_.position_offset);
    } else {
      spec_.ropes.push_back(d_.rope);
      if (d_.window_rope) spec_.ropes.push_back(*d_.window_rope);
    }
    for (std::int64_t layer = 0; layer < d_.layers; ++layer) add_layer(layer);
    if (!d_.names.final_norm.empty()) spec_.final_norm = add_norm(d_.names.prefix + d_.names.final_norm);
    if (!d_.names.project_out.empty())
      spec_.project_out = add_projection(d_.names.project_out, d_.head_width(), d_.hidden);
    ProductSpec head{
        .role = ProductRole::head, .modules = {}, .bias = d_.head_bias, .epilogue = {}, .tied = {}};
    head.modules.push_back(
        {.name = d_.names.head, .layer = d_.layers, .out = d_.vocabulary, .in = d_.head_width()});
    head.score_cap = d_.logit_soft_cap;
    if (d_.tied_head) head.tied = spec_.embedding;
    spec_.head = add(std::move(head));
    return std::move(spec_);
  }

 private:
  PartIndex add(Part part) {
    spec_.parts.push_back(std::move(part));
    return spec_.parts.size() - 1;
  }

  PartIndex add_embedding(const std::string& name, std::int64_t indices, std::int64_t width,
                          std::int64_t offset, float scale = 1.0f) {
    return add(EmbeddingSpec{.name = d_.names.prefix + name,
                             .rows = indices + offset,
                             .cols = width,
                             .offset = offset,
                             .scale = scale});
  }

  /// Of no layer.
  PartIndex add_projection(const std::string& name, std::int64_t out, std::int64_t in) {
    ProductSpec product{
        .role = ProductRole::embedding_projection, .modules = {}, .bias = false, .epilogue = {}, .tied = {}};
    product.modules.push_back({.name = d_.names.prefix + name, .layer = -1, .out = out, .in = in});
    return add(std::move(product));
  }

  PartIndex add_norm(const std::string& name) { return add_norm(name, d_.hidden); }

  PartIndex add_norm(const std::string& name, std::int64_t width) {
    return add(NormSpec{.name = name,
                        .kind = d_.norm,
                        .width = width,
                        .epsilon = d_.norm_epsilon,
                        .weight_offset = d_.norm_weight_offset});
  }

  /// `names` without the layer's prefix; `rows` of each.
  PartIndex add_product(std::int64_t layer, ProductRole role, const std::vector<std::string>& names,
                        const std::vector<std::int64_t>& rows, std::int64_t in, bool bias,
                        Epilogue epilogue = {}) {
    ProductSpec product{.role = role, .modules = {}, .bias = bias, .epilogue = epilogue, .tied = {}};
    for (std::size_t i = 0; i < names.size(); ++i) {
      product.modules.push_back({.name = d_.layer_prefix(layer) + names[i],
                                 .layer = layer,
                                 .out = rows[i],
                                 .in = in,
                                 .transposed = d_.transposed});
    }
    return add(std::move(product));
  }

  void add_layer(std::int64_t layer) {
    const ModuleNames& names = d_.names;
    const std::int64_t q = d_.query_width();
    const std::int64_t kv = d_.kv_width();
    BlockSpec attention{.layer = layer, .core = AttentionSpec{}, .post_norm = {}};
    attention.norm = add_norm(d_.layer_prefix(layer) + names.attention_norm);
    attention.input = add_product(layer, ProductRole::attention_input, names.qkv,
                                  d_.fused_qkv() ? std::vector{q + 2 * kv} : std::vector{q, kv, kv},
                                  d_.hidden, d_.qkv_bias);
    AttentionSpec core;
    if (!names.q_norm.empty()) core.q_norm = add_norm(d_.layer_prefix(layer) + names.q_norm, d_.head_dim);
    if (!names.k_norm.empty()) core.k_norm = add_norm(d_.layer_prefix(layer) + names.k_norm, d_.head_dim);
    attention.output = add_product(layer, ProductRole::attention_output, {names.attention_output},
                                   {d_.hidden}, q, d_.attention_output_bias);
    core.shape = {.heads = d_.heads,
                  .kv_heads = d_.kv_heads,
                  .head_dim = d_.head_dim,
                  .scale = d_.attention_scale,
                  .window = d_.window_of(layer),
                  .soft_cap = d_.attention_soft_cap};
    core.q = {.begin = 0, .count = q};
    core.k = {.begin = q, .count = kv};
    core.v = {.begin = q + kv, .count = kv};
    core.head_by_head = d_.qkv_head_by_head;
    if (d_.positions == PositionKind::rotary) core.rope = d_.window_rope && d_.window_of(layer) != 0 ? 1 : 0;
    attention.core = core;
    if (!names.attention_post_norm.empty())
      attention.post_norm = add_norm(d_.layer_prefix(layer) + names.attention_post_norm);
    spec_.blocks.push_back(attention);

    BlockSpec mlp{.layer = layer, .core = MlpSpec{}, .post_norm = {}};
    mlp.parallel = d_.parallel_residual;
    mlp.norm = names.mlp_norm.empty() ? attention.norm : add_norm(d_.layer_prefix(layer) + names.mlp_norm);
    if (d_.has_mixture(layer)) {
      add_mixture(*d_.mixture, mlp);
    } else {
      add_mlp_input(mlp);
      mlp.output = add_product(layer, ProductRole::mlp_output, {names.mlp_output}, {d_.hidden},
                               d_.intermediate, d_.mlp_bias);
    }
    if (!names.mlp_post_norm.empty()) mlp.post_norm = add_norm(d_.layer_prefix(layer) + names.mlp_post_norm);
    spec_.blocks.push_back(mlp);
  }

  void add_mlp_input(BlockSpec& mlp) {
    const std::vector<std::string>& names = d_.names.mlp_input;
    const std::int64_t rows = d_.fused_gate() ? 2 * d_.intermediate : d_.intermediate;
    Epilogue epilogue{.activation = d_.activation, .gated = d_.gated};
    if (d_.fused_gate()) {
      mlp.core = MlpSpec{.gate = d_.activation};
      epilogue = {};
    }
    mlp.input = add_product(mlp.layer, ProductRole::mlp_input, names, std::vector(names.size(), rows),
                            d_.hidden, d_.mlp_bias, epilogue);
  }

  void add_mixture(const MixtureDescription& mixture, BlockSpec& block) {
    block.input = add_product(block.layer, ProductRole::router, {mixture.router}, {mixture.rule.experts},
                              d_.hidden, false);
    MixtureSpec core{.rule = mixture.rule, .inputs = {}, .outputs = {}};
    for (std::int64_t expert = 0; expert < mixture.rule.experts; ++expert) {
      const std::string prefix = fmt::format("{}.{}.", mixture.experts, expert);
      std::vector<std::string> input;
      for (const std::string& name : mixture.input) input.push_back(prefix + name);
      core.inputs.push_back(add_product(block.layer, ProductRole::expert_input, input,
                                        std::vector(input.size(), mixture.intermediate), d_.hidden,
                                        d_.mlp_bias, {.activation = d_.activation, .gated = d_.gated}));
      core.outputs.push_back(add_product(block.layer, ProductRole::expert_output, {prefix + mixture.output},
                                         {d_.hidden}, mixture.intermediate, d_.mlp_bias));
    }
    block.core = std::move(core);
  }

  const Description& d_;
  DecoderSpec spec_;
};

}  // namespace

std::int64_t ProductSpec::out() const {
  std::int64_t rows = 0;
  for (const LinearModule& module : modules) rows += module.out;
  return rows;
}

namespace {

/// The layer of each part; -1: of none.
std::vector<std::int64_t> layers_of_parts(const DecoderSpec& spec) {
  std::vector<std::int64_t> layers(spec.parts.size(), -1);
  for (const BlockSpec& block : spec.blocks) {
    std::vector<PartIndex> parts = block.products();
    parts.push_back(block.norm);
    if (block.post_norm) parts.push_back(*block.post_norm);
    if (const auto* const attention = std::get_if<AttentionSpec>(&block.core)) {
      for (const std::optional<PartIndex>& norm : {attention->q_norm, attention->k_norm}) {
        if (norm) parts.push_back(*norm);
      }
    }
    for (const PartIndex part : parts) layers.at(part) = block.layer;
  }
  return layers;
}

}  // namespace

std::vector<PartIndex> BlockSpec::products() const {
  const auto* const mixture = std::get_if<MixtureSpec>(&core);
  if (mixture == nullptr) return {input, output};
  std::vector<PartIndex> all = {input};
  all.insert(all.end(), mixture->inputs.begin(), mixture->inputs.end());
  all.insert(all.end(), mixture->outputs.begin(), mixture->outputs.end());
  return all;
}

DecoderSpec decoder_spec(const Description& description) { return SpecMaker(description).make(); }

std::vector<WeightSpec> weight_specs(const DecoderSpec& spec) {
  const std::vector<std::int64_t> layers = layers_of_parts(spec);
  std::vector<WeightSpec> specs;
  std::int64_t layer = -1;  // of the part in turn
  const auto add = [&](const std::string& module, const char* tensor, std::vector<std::int64_t> shape) {
    specs.push_back({.name = module + tensor, .shape = std::move(shape), .module = module, .layer = layer});
    return &specs.back();
  };
  const auto add_embedding = [&](const EmbeddingSpec& table) {
    add(table.name, ".weight", {table.rows, table.cols});
  };
  const auto add_norm = [&](const NormSpec& norm) {
    add(norm.name, ".weight", {norm.width});
    if (norm.kind == NormKind::layer) add(norm.name, ".bias", {norm.width});
  };
  const auto add_product = [&](const ProductSpec& product) {
    const bool of_mixture = in_mixture(product.role);
    for (const LinearModule& module : product.modules) {
      if (!product.tied) {
        auto shape =
            module.transposed ? std::vector{module.in, module.out} : std::vector{module.out, module.in};
        WeightSpec* const weight = add(module.name, ".weight", std::move(shape));
        weight->transposed = module.transposed;
        weight->in_mixture = of_mixture;
      }
      if (product.bias) add(module.name, ".bias", {module.out})->in_mixture = of_mixture;
    }
  };
  for (PartIndex part = 0; part < spec.parts.size(); ++part) {
    layer = layers[part];
    std::visit(Overloaded{add_embedding, add_norm, add_product}, spec.parts[part]);
  }
  return specs;
}

std::vector<WeightSpec> weight_specs(const Description& description) {
  return weight_specs(decoder_spec(description));
}

ParameterCount count_parameters(const DecoderSpec& spec) {
  ParameterCount count;
  for (const WeightSpec& weight : weight_specs(spec)) {
    count.all += std::accumulate(weight.shape.begin(), weight.shape.end(), std::int64_t{1},
                                 std::multiplies<std::int64_t>());
  }
  count.active = count.all;
  const auto numbers_of = [&](PartIndex part) {
    const auto& product = spec.at<ProductSpec>(part);
    return product.out() * (product.in() + (product.bias ? 1 : 0));
  };
  for (const BlockSpec& block : spec.blocks) {
    const auto* const mixture = std::get_if<MixtureSpec>(&block.core);
    if (mixture == nullptr) continue;
    const std::int64_t expert = numbers_of(mixture->inputs.front()) + numbers_of(mixture->outputs.front());
    count.active -= (mixture->rule.experts - mixture->rule.chosen) * expert;
  }
  return count;
}

std::vector<LinearModule> linear_modules(const DecoderSpec& spec) {
  std::vector<LinearModule> modules;
  for (const Part& part : spec.parts) {
    const auto* product = std::get_if<ProductSpec>(&part);
    if (product == nullptr || product->role == ProductRole::head) continue;
    modules.insert(modules.end(), product->modules.begin(), product->modules.end());
  }
  return modules;
}

std::vector<LinearModule> linear_modules(const Description& description) {
  return linear_modules(decoder_spec(description));
}

}  // namespace mezzo
