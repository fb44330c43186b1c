#include "mezzo/model/description.h"

#include <fmt/format.h>

namespace mezzo {
namespace {

/// The linear modules of one layer and whether each has a bias.
struct Linear {
  LinearModule module;
  bool bias = false;
};

std::vector<Linear> layer_linears(const Description& d, std::int64_t layer) {
  const std::string prefix = d.layer_prefix(layer);
  std::vector<Linear> linears;
  const auto add = [&](const std::string& name, std::int64_t out, std::int64_t in, bool bias) {
    linears.push_back({{.name = prefix + name, .layer = layer, .out = out, .in = in}, bias});
  };
  if (d.fused_qkv()) {
    add(d.names.qkv[0], d.query_width() + 2 * d.kv_width(), d.hidden, d.qkv_bias);
  } else {
    add(d.names.qkv[0], d.query_width(), d.hidden, d.qkv_bias);
    add(d.names.qkv[1], d.kv_width(), d.hidden, d.qkv_bias);
    add(d.names.qkv[2], d.kv_width(), d.hidden, d.qkv_bias);
  }
  add(d.names.attention_output, d.hidden, d.query_width(), d.attention_output_bias);
  for (const std::string& name : d.names.mlp_input) add(name, d.intermediate, d.hidden, d.mlp_bias);
  add(d.names.mlp_output, d.hidden, d.intermediate, d.mlp_bias);
  return linears;
}

}  // namespace

std::string Description::layer_prefix(std::int64_t layer) const {
  return fmt::format("{}{}.{}.", names.prefix, names.layers, layer);
}

std::vector<LinearModule> linear_modules(const Description& description) {
  std::vector<LinearModule> modules;
  for (std::int64_t layer = 0; layer < description.layers; ++layer) {
    for (Linear& linear : layer_linears(description, layer)) modules.push_back(std::move(linear.module));
  }
  return modules;
}

std::vector<WeightSpec> weight_specs(const Description& d) {
  std::vector<WeightSpec> specs;
  const auto add_norm = [&](const std::string& name) {
    specs.push_back({name + ".weight", {d.hidden}});
    if (d.norm == NormKind::layer) specs.push_back({name + ".bias", {d.hidden}});
  };
  specs.push_back({d.names.prefix + d.names.embedding + ".weight", {d.vocabulary, d.hidden}});
  if (d.positions == PositionKind::learned) {
    specs.push_back({d.names.prefix + d.names.position_embedding + ".weight", {d.max_positions, d.hidden}});
  }
  for (std::int64_t layer = 0; layer < d.layers; ++layer) {
    add_norm(d.layer_prefix(layer) + d.names.attention_norm);
    if (!d.parallel_residual) add_norm(d.layer_prefix(layer) + d.names.mlp_norm);
    for (const auto& [module, bias] : layer_linears(d, layer)) {
      auto shape = d.transposed ? std::vector{module.in, module.out} : std::vector{module.out, module.in};
      specs.push_back({module.name + ".weight", std::move(shape)});
      if (bias) specs.push_back({module.name + ".bias", {module.out}});
    }
  }
  add_norm(d.names.prefix + d.names.final_norm);
  if (!d.tied_head) specs.push_back({d.names.head + ".weight", {d.vocabulary, d.hidden}});
  if (d.head_bias) specs.push_back({d.names.head + ".bias", {d.vocabulary}});
  return specs;
}

}  // namespace mezzo
