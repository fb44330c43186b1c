// The list of a decoder's parts: what the families make of it, and that what walks it takes any part.
#include "mezzo/model/layers.h"

#include <algorithm>

#include "forward.h"
#include "mezzo/backend/devices.h"
#include "mezzo/model/decoder.h"
#include "mezzo/model/family.h"
#include "model_test.h"
#include "weights.h"

namespace mezzo {
namespace {

using namespace mezzo::testing;

DecoderSpec spec_of(const std::string& model) {
  return decoder_spec(read_description(model_directory(model)));
}

const AttentionSpec& attention_core(const BlockSpec& block) { return std::get<AttentionSpec>(block.core); }

std::vector<std::string> names_of(const std::vector<WeightSpec>& specs) {
  std::vector<std::string> names;
  for (const WeightSpec& spec : specs) names.push_back(spec.name);
  return names;
}

bool has(const std::vector<std::string>& names, const std::string& name) {
  return std::ranges::find(names, name) != names.end();
}

TEST(Layers, OfLlamaAreTwoBlocksEach) {
  const DecoderSpec spec = spec_of("llama_grouped");
  ASSERT_EQ(spec.blocks.size() % 2, 0u);
  const BlockSpec& attention = spec.blocks[2];
  const BlockSpec& mlp = spec.blocks[3];
  EXPECT_EQ(attention.layer, 1);
  EXPECT_EQ(mlp.layer, 1);
  EXPECT_FALSE(attention.parallel || mlp.parallel);
  EXPECT_EQ(spec.at<NormSpec>(mlp.norm).name, "model.layers.1.post_attention_layernorm");
  const ProductSpec& qkv = spec.at<ProductSpec>(attention.input);
  ASSERT_EQ(qkv.modules.size(), 3u);
  EXPECT_EQ(qkv.out(), 40 + 20 + 20);
  EXPECT_EQ(attention_core(attention).k.begin, 40);
  EXPECT_EQ(attention_core(attention).v.begin, 60);
  EXPECT_EQ(attention_core(attention).rope, 0u);
  EXPECT_EQ(spec.ropes.size(), 1u);
  EXPECT_TRUE(spec.at<ProductSpec>(mlp.input).epilogue.gated);
  EXPECT_FALSE(spec.at<ProductSpec>(mlp.output).epilogue.gated);
}

TEST(Layers, OfGptjShareTheirNorm) {
  const DecoderSpec spec = spec_of("gptj");
  EXPECT_FALSE(spec.blocks[0].parallel);
  EXPECT_TRUE(spec.blocks[1].parallel);
  EXPECT_EQ(spec.blocks[0].norm, spec.blocks[1].norm);
  EXPECT_NE(spec.blocks[0].norm, spec.blocks[2].norm);
  EXPECT_TRUE(spec.at<ProductSpec>(spec.head).bias);
}

TEST(Layers, OfGptNeoxHaveNormsOfTheirOwnSideBySide) {
  const DecoderSpec spec = spec_of("gpt_neox");
  EXPECT_TRUE(spec.blocks[1].parallel);
  EXPECT_NE(spec.blocks[0].norm, spec.blocks[1].norm);
  EXPECT_EQ(spec.at<NormSpec>(spec.blocks[1].norm).name, "gpt_neox.layers.0.post_attention_layernorm");
  EXPECT_TRUE(attention_core(spec.blocks[0]).head_by_head);
  EXPECT_FALSE(spec_of("gpt_neox_sequential").blocks[1].parallel);
}

TEST(Layers, OfGpt2StoreThreePartsOfTheMathsInOneModule) {
  const DecoderSpec spec = spec_of("gpt2");
  const BlockSpec& attention = spec.blocks[0];
  const ProductSpec& fused = spec.at<ProductSpec>(attention.input);
  ASSERT_EQ(fused.modules.size(), 1u);
  EXPECT_TRUE(fused.modules[0].transposed);
  EXPECT_EQ(attention_core(attention).v.begin + attention_core(attention).v.count, fused.out());
  EXPECT_EQ(attention_core(attention).rope, std::nullopt);
  EXPECT_EQ(spec.at<ProductSpec>(spec.head).tied, spec.embedding);
  EXPECT_FALSE(has(names_of(weight_specs(spec)), "lm_head.weight"));
}

TEST(Layers, OfQwen3MoeHaveExpertsUnlessTheyAreDense) {
  const DecoderSpec spec = spec_of("qwen3_moe");
  const auto& mixture = std::get<MixtureSpec>(spec.blocks[1].core);
  EXPECT_EQ(mixture.rule, (RoutingRule{.experts = 7, .chosen = 3, .renormalised = false}));
  ASSERT_EQ(mixture.inputs.size(), 7u);
  EXPECT_EQ(spec.at<ProductSpec>(spec.blocks[1].input).name(), "model.layers.0.mlp.gate");
  const auto& input = spec.at<ProductSpec>(mixture.inputs[6]);
  EXPECT_EQ(input.modules[1].name, "model.layers.0.mlp.experts.6.up_proj");
  EXPECT_EQ(input.out(), 2 * 9);
  EXPECT_TRUE(input.epilogue.gated);
  EXPECT_EQ(spec.at<ProductSpec>(mixture.outputs[0]).name(), "model.layers.0.mlp.experts.0.down_proj");
  EXPECT_EQ(spec.blocks[1].products().size(), 15u);

  const BlockSpec& dense = spec.blocks[3];
  EXPECT_TRUE(std::holds_alternative<MlpSpec>(dense.core));
  EXPECT_EQ(dense.products(), (std::vector<PartIndex>{dense.input, dense.output}));
  EXPECT_EQ(spec.at<ProductSpec>(dense.input).out(), 2 * 19);
  EXPECT_TRUE(std::holds_alternative<MixtureSpec>(spec.blocks[5].core));
  // Of 7 experts in 2 layers, 4 of each take no part in a token.
  const ParameterCount count = count_parameters(spec);
  EXPECT_EQ(count.all - count.active, 2 * 4 * 3 * 9 * 22);
  EXPECT_EQ(count_parameters(spec_of("llama")).active, count_parameters(spec_of("llama")).all);
}

TEST(Layers, TensorsComeInTheOrderOfTheForward) {
  const std::vector<std::string> names = names_of(weight_specs(spec_of("llama")));
  const std::vector<std::string> first{"model.embed_tokens.weight",
                                       "model.layers.0.input_layernorm.weight",
                                       "model.layers.0.self_attn.q_proj.weight",
                                       "model.layers.0.self_attn.k_proj.weight",
                                       "model.layers.0.self_attn.v_proj.weight",
                                       "model.layers.0.self_attn.o_proj.weight",
                                       "model.layers.0.post_attention_layernorm.weight",
                                       "model.layers.0.mlp.gate_proj.weight"};
  ASSERT_GT(names.size(), first.size());
  EXPECT_TRUE(std::equal(first.begin(), first.end(), names.begin()));
  EXPECT_EQ(names[names.size() - 2], "model.norm.weight");
  EXPECT_EQ(names.back(), "lm_head.weight");
}

// A part that no family has yet: all but the forward takes it as it comes.
TEST(Layers, WhatWalksThePartsTakesAnyOfThem) {
  DecoderSpec spec = spec_of("llama");
  const auto backend = make_backend({.device = DeviceKind::reference});
  const std::size_t before = DecoderWeights(*backend, spec, Perturbations()).bytes();

  spec.blocks[0].post_norm = spec.parts.size();
  spec.parts.emplace_back(NormSpec{.name = "model.layers.0.post_norm", .kind = NormKind::layer, .width = 32});
  ProductSpec expert{.role = ProductRole::mlp_input, .modules = {}, .bias = true, .epilogue = {}, .tied = {}};
  expert.modules = {
      {.name = "model.layers.0.experts.7.w1", .layer = 0, .out = 5, .in = 32, .transposed = true},
      {.name = "model.layers.0.experts.7.w3", .layer = 0, .out = 5, .in = 32}};
  const PartIndex added = spec.parts.size();
  spec.parts.emplace_back(expert);

  const std::vector<WeightSpec> specs = weight_specs(spec);
  const std::vector<std::string> names = names_of(specs);
  for (const char* name : {"model.layers.0.post_norm.weight", "model.layers.0.post_norm.bias",
                           "model.layers.0.experts.7.w1.weight", "model.layers.0.experts.7.w3.bias"}) {
    EXPECT_TRUE(has(names, name)) << name;
  }
  const auto w1 = std::ranges::find(specs, "model.layers.0.experts.7.w1.weight", &WeightSpec::name);
  EXPECT_EQ(w1->shape, (std::vector<std::int64_t>{32, 5}));
  EXPECT_EQ(linear_modules(spec).back().name, "model.layers.0.experts.7.w3");

  const DecoderWeights weights(*backend, spec, Perturbations());
  // Each begins on a multiple of 256 bytes: the norm's weight and bias, the product's.
  EXPECT_EQ(weights.bytes() - before, 256u + 256u + 2 * 5 * 32 * sizeof(float) + 256u);
  EXPECT_EQ(weights.product(added).out(), 10);
}

// Experts that are planned alike lie equally far apart, whichever of them are perturbed.
TEST(Layers, ExpertsLieEquallyFarApart) {
  const DecoderSpec spec = spec_of("mixtral");
  const auto backend = make_backend({.device = DeviceKind::cpu, .threads = 1});
  DecoderWeights weights(*backend, spec, Perturbations());
  weights.randomize(*backend, 1, 0.1f);
  const auto* const mixture = std::get_if<MixtureSpec>(&spec.blocks[1].core);
  ASSERT_NE(mixture, nullptr);
  for (const auto* const parts : {&mixture->inputs, &mixture->outputs}) {
    const auto address = [&](std::size_t e) {
      return static_cast<const std::byte*>(weights.product(parts->at(e)).weight.codes.data);
    };
    ASSERT_GT(parts->size(), 2u);
    for (std::size_t e = 2; e < parts->size(); ++e)
      EXPECT_EQ(address(e) - address(e - 1), address(1) - address(0)) << e;
  }
}

TEST(Layers, CudaRefusesWhatOpt350mHasOfItsOwn) {
  const auto cuda = make_device_plan({.device = DeviceKind::cuda});
  EXPECT_NO_THROW(check_served(spec_of("opt"), *cuda));
  expect_error<DeviceError>([&] { check_served(spec_of("opt_projected"), *cuda); },
                            {"cuda", "projected embeddings"});
  expect_error<DeviceError>([&] { check_served(spec_of("opt_norm_after"), *cuda); },
                            {"cuda", "norms behind the residual sums"});
}

TEST(Layers, AForwardRefusesWhatItDoesNotDo) {
  const auto expect_refused = [](const std::string& what, const std::function<void(DecoderSpec&)>& change) {
    DecoderSpec spec = spec_of("llama");
    EXPECT_NO_THROW(check_served(spec));
    change(spec);
    expect_error<Error>([&] { check_served(spec); }, {what});
  };
  const auto attention = [](DecoderSpec& spec) -> AttentionSpec& {
    return std::get<AttentionSpec>(spec.blocks[2].core);
  };
  expect_refused("further down",
                 [](DecoderSpec& s) { std::get<EmbeddingSpec>(s.parts[s.embedding]).offset = 2; });
  expect_refused("several modules", [&](DecoderSpec& s) { attention(s).k.begin -= 1; });
  expect_refused("parallel", [](DecoderSpec& s) { s.blocks[2].parallel = true; });
  expect_refused("several shapes", [&](DecoderSpec& s) { attention(s).shape.kv_heads = 2; });
}

/// What the head would read: random weights, an unperturbed probe.
std::vector<float> head_input(const DecoderSpec& spec, const PackedBatch& packed) {
  const auto backend = make_backend({.device = DeviceKind::reference});
  DecoderWeights weights(*backend, spec, Perturbations());
  weights.randomize(*backend, 7, 0.1f);
  DeviceBatch batch;
  backend->upload(packed, batch);
  ProbeTable table;
  const Probe unperturbed{};
  backend->upload({&unperturbed, 1}, NoiseKind::gaussian, table);
  const std::int64_t longest = batch.shape.longest;
  const std::size_t bytes =
      Forward(*backend, nullptr, spec, weights, Arena(), longest, {}, 0).measure(batch.shape, 1);
  Forward forward(*backend, backend.get(), spec, weights, Arena(backend->allocate(bytes)), longest, {}, 0);
  forward.begin(batch);
  const View x = forward.finish(table);
  std::vector<float> values(static_cast<std::size_t>(x.rows * x.cols));
  backend->read(values, x, 1);
  return values;
}

// The same W, stored as q | k | v, q | kv, qk | v and qkv, for all rows and for some.
TEST(Layers, HowAProductIsStoredChangesNoBit) {
  const DecoderSpec apart = spec_of("llama_grouped");
  const auto stored_as = [&](const std::vector<std::size_t>& merged) {
    DecoderSpec spec = apart;
    for (const BlockSpec& block : spec.blocks) {
      if (!std::holds_alternative<AttentionSpec>(block.core)) continue;
      auto& modules = std::get<ProductSpec>(spec.parts[block.input]).modules;
      for (const std::size_t i : merged) {
        modules[i].out += modules[i + 1].out;
        modules.erase(modules.begin() + static_cast<std::ptrdiff_t>(i) + 1);
      }
    }
    check_served(spec);
    return spec;
  };
  PackedBatch packed{.tokens = {3, 4, 5, 6, 7},
                     .positions = {0, 1, 2, 0, 1},
                     .offsets = {0, 3, 5},
                     .loss_rows = {0, 1, 2, 3, 4},
                     .target_rows = {0},
                     .target_tokens = {0}};
  for (const auto& rows : {std::vector<std::int32_t>{0, 1, 2, 3, 4}, std::vector<std::int32_t>{2, 3}}) {
    packed.loss_rows = rows;
    const std::vector<float> want = head_input(apart, packed);
    EXPECT_NE(want, std::vector<float>(want.size(), 0.0f));
    EXPECT_EQ(head_input(stored_as({1}), packed), want);
    EXPECT_EQ(head_input(stored_as({0}), packed), want);
    EXPECT_EQ(head_input(stored_as({0, 0}), packed), want);
  }
}

// A table with rows before that of position 0, as OPT's: the logits are those of the table without them.
TEST(Layers, PositionsMayBeginFurtherDownTheTable) {
  const TemporaryDirectory temporary;
  const std::string source = temporary.copy("gpt2");
  const ModelFiles plain(model_directory("gpt2"));
  change_json(source + "/config.json", [](nlohmann::json& json) { json["n_positions"] = 50; });
  std::map<std::string, std::vector<float>> values;
  std::vector<TensorSource> tensors;
  for (const WeightSpec& spec : weight_specs(plain.description)) {
    const std::string& name = plain.weight(spec.name).name;
    std::vector<float>& value = values[name] = floats(plain.tensors, name);
    std::vector<std::int64_t> shape = spec.shape;
    if (name.ends_with("wpe.weight")) {
      value.insert(value.begin(), static_cast<std::size_t>(2 * shape[1]), 1e6f);
      shape[0] += 2;
    }
    tensors.push_back(float_source(name, shape, value));
  }
  write_safetensors(source + "/model.safetensors", tensors);
  const ModelFiles shifted(source);
  Description description = shifted.description;
  description.max_positions = 48;
  description.position_offset = 2;

  const auto backend = make_backend({.device = DeviceKind::reference});
  const PackedBatch packed{.tokens = {3, 4, 5, 6},
                           .positions = {0, 1, 2, 3},
                           .offsets = {0, 4},
                           .loss_rows = {0, 1, 2, 3},
                           .target_rows = {},
                           .target_tokens = {}};
  const auto logits = [&](const ModelFiles& files, const Description& of) {
    Decoder decoder(*backend, of, Perturbations());
    decoder.load(files, {});
    DeviceBatch batch;
    backend->upload(packed, batch);
    decoder.reserve(batch.shape, 1);
    decoder.begin(batch);
    ProbeTable table;
    const Probe unperturbed{};
    backend->upload({&unperturbed, 1}, NoiseKind::gaussian, table);
    std::vector<float> result(static_cast<std::size_t>(4 * of.vocabulary));
    const Buffer buffer = backend->allocate(result.size() * sizeof(float));
    decoder.logits(table, dense(buffer.data(), DType::f32, 4, of.vocabulary));
    backend->read(result, dense(buffer.data(), DType::f32, 4, of.vocabulary), 1);
    return result;
  };
  EXPECT_EQ(logits(shifted, description), logits(plain, plain.description));
}

}  // namespace
}  // namespace mezzo
