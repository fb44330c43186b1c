#include "mezzo/model/model_files.h"

#include "model_test.h"

namespace mezzo {
namespace {

using namespace mezzo::testing;

/// Rewrites the weights of a copied model: `change` sees name and shape of each tensor, and drops it by
/// returning false.
template <typename Change>
void rewrite(const std::string& directory, Change&& change, const std::vector<std::string>& extra = {}) {
  std::vector<std::vector<float>> values;
  std::vector<TensorSource> sources;
  {
    const Safetensors original = Safetensors::open(directory);
    values.reserve(original.names().size() + extra.size());
    for (std::string name : original.names()) {
      values.push_back(floats(original, name));
      std::vector<std::int64_t> shape = original.at(name).shape;
      if (change(name, shape)) sources.push_back(float_source(name, shape, values.back()));
    }
    for (const std::string& name : extra) {
      values.push_back({1.0f, 2.0f});
      sources.push_back(float_source(name, {2}, values.back()));
    }
  }
  std::filesystem::remove(directory + "/model.safetensors");
  write_safetensors(directory + "/model.safetensors", sources);
}

constexpr auto keep = [](const std::string&, const std::vector<std::int64_t>&) { return true; };

TEST(ModelFiles, GoldenModelsAreWhole) {
  for (const std::string& name : golden_models) {
    const ModelFiles files(model_directory(name));
    for (const WeightSpec& spec : weight_specs(files.description))
      EXPECT_EQ(files.weight(spec.name).shape, spec.shape);
  }
}

TEST(ModelFiles, AMissingWeightIsNamed) {
  const TemporaryDirectory temporary;
  const std::string directory = temporary.copy("gptj");
  rewrite(directory, [](const std::string& name, auto&) { return name != "transformer.h.1.mlp.fc_in.bias"; });
  expect_input_error([&] { ModelFiles files(directory); },
                     {directory, "transformer.h.1.mlp.fc_in.bias", "missing", "[71]"});
}

TEST(ModelFiles, AnExtraWeightIsNamed) {
  const TemporaryDirectory temporary;
  const std::string directory = temporary.copy("llama");
  rewrite(directory, keep, {"model.layers.0.self_attn.q_norm.weight"});
  expect_input_error([&] { ModelFiles files(directory); },
                     {"model.safetensors", "model.layers.0.self_attn.q_norm.weight", "llama"});
}

TEST(ModelFiles, FewerLayersInTheConfigLeaveExtraWeights) {
  const TemporaryDirectory temporary;
  const std::string directory = temporary.copy("llama");
  change_json(directory + "/config.json", [](auto& json) { json["num_hidden_layers"] = 1; });
  expect_input_error([&] { ModelFiles files(directory); }, {"model.layers.1."});
}

TEST(ModelFiles, AMisshapenWeightIsNamedWithBothShapes) {
  const TemporaryDirectory temporary;
  const std::string directory = temporary.copy("gpt2");
  rewrite(directory, [](const std::string& name, std::vector<std::int64_t>& shape) {
    if (name.ends_with("h.1.attn.c_attn.weight"))
      std::swap(shape[0], shape[1]);  // as a Linear would be stored
    return true;
  });
  expect_input_error([&] { ModelFiles files(directory); },
                     {"transformer.h.1.attn.c_attn.weight", "[108, 36]", "[36, 108]"});
}

TEST(ModelFiles, BuffersOfOldFilesAreTolerated) {
  const TemporaryDirectory temporary;
  const std::string llama = temporary.copy("llama");
  rewrite(llama, keep, {"model.layers.0.self_attn.rotary_emb.inv_freq"});
  EXPECT_NO_THROW(ModelFiles{llama});
  const std::string gptj = temporary.copy("gptj");
  rewrite(gptj, keep, {"transformer.h.0.attn.bias", "transformer.h.0.attn.masked_bias"});
  EXPECT_NO_THROW(ModelFiles{gptj});
}

TEST(ModelFiles, ATiedHeadMayBeStoredTwiceButNotDiffer) {
  const TemporaryDirectory temporary;
  for (const bool same : {true, false}) {
    const std::string directory = temporary.copy("gpt2");
    {
      const Safetensors original = Safetensors::open(directory);
      std::vector<std::vector<float>> values;
      std::vector<TensorSource> sources;
      values.reserve(original.names().size() + 1);
      for (const std::string& name : original.names()) {
        values.push_back(floats(original, name));
        sources.push_back(float_source(name, original.at(name).shape, values.back()));
      }
      values.push_back(floats(original, "transformer.wte.weight"));
      if (!same) values.back()[5] += 1.0f;
      sources.push_back(float_source("lm_head.weight", {89, 36}, values.back()));
      std::filesystem::remove(directory + "/model.safetensors");
      write_safetensors(directory + "/model.safetensors", sources);
    }
    if (same) {
      EXPECT_NO_THROW(ModelFiles{directory});
    } else {
      expect_input_error([&] { ModelFiles files(directory); },
                         {"lm_head.weight", "transformer.wte.weight", "ties"});
    }
    std::filesystem::remove_all(directory);
  }
}

TEST(ModelFiles, TheHashSeesEveryByteOfConfigAndWeights) {
  const TemporaryDirectory temporary;
  const std::string directory = temporary.copy("llama_grouped");
  const std::string hash = model_hash(directory, 2);
  EXPECT_EQ(ModelFiles(directory).hash(1), hash);
  EXPECT_EQ(model_hash(model_directory("llama_grouped"), 1), hash);
  change_json(directory + "/config.json", [](auto& json) { json["rms_norm_eps"] = 1e-5; });
  const std::string other_config = model_hash(directory, 1);
  EXPECT_NE(other_config, hash);
  const std::string shard = directory + "/model-00002-of-00004.safetensors";
  std::fstream file(shard, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(-1, std::ios::end);
  file.put('\x11');
  file.close();
  EXPECT_NE(model_hash(directory, 1), other_config);
}

}  // namespace
}  // namespace mezzo
