#include "mezzo/model/merged.h"

#include <cmath>
#include <map>

#include "mezzo/io/files.h"
#include "mezzo/model/family.h"
#include "model_test.h"

namespace mezzo {
namespace {

using namespace mezzo::testing;

class Merged : public ::testing::TestWithParam<std::string> {};

TEST_P(Merged, WeightsAreTheSumsAndTheRestIsAsItWas) {
  const TemporaryDirectory temporary;
  const ModelFiles files(model_directory(GetParam()));
  const Description& d = files.description;
  const Adapter adapter = read_adapter(files.directory + "/adapter", d);
  const std::string target = temporary.path() + "/merged";
  export_merged(files, adapter.config, adapter.values, DType::f32, target);

  const ModelFiles merged(target);  // all names and shapes are there
  EXPECT_EQ(merged.tensors.names(), files.tensors.names());
  std::map<std::string, std::span<const float>> factors;
  std::size_t offset = 0;
  for (const TrainableSpec& spec : adapter.specs) {
    factors[spec.name] = std::span(adapter.values).subspan(offset, static_cast<std::size_t>(spec.count()));
    offset += static_cast<std::size_t>(spec.count());
  }
  std::map<std::string, LinearModule> modules;
  for (const LinearModule& module : adapted_modules(d, adapter.config))
    modules[module.name + ".weight"] = module;
  for (const WeightSpec& spec : weight_specs(d)) {
    const std::vector<float> before = floats(files.tensors, files.weight(spec.name).name);
    const std::vector<float> after = floats(merged.tensors, spec.name);
    const auto module = modules.find(spec.name);
    if (module == modules.end()) {
      EXPECT_EQ(after, before) << spec.name;
      continue;
    }
    const auto a = factors.at(lora_a_name(module->second.name));
    const auto b = factors.at(lora_b_name(module->second.name));
    const std::int64_t in = module->second.in;
    const std::int64_t out = module->second.out;
    for (std::int64_t o = 0; o < out; ++o) {
      for (std::int64_t i = 0; i < in; ++i) {
        double sum = 0.0;
        for (std::int64_t k = 0; k < adapter.config.r; ++k) {
          sum += static_cast<double>(b[static_cast<std::size_t>(o * adapter.config.r + k)]) *
                 a[static_cast<std::size_t>(k * in + i)];
        }
        const auto place = static_cast<std::size_t>(d.transposed ? i * out + o : o * in + i);
        const double want = before[place] + adapter.config.scaling() * sum;
        ASSERT_FLOAT_EQ(after[place], static_cast<float>(want)) << spec.name;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Merged, ::testing::ValuesIn(golden_models),
                         [](const auto& which) { return which.param; });

TEST(MergedExport, RoundsShardsAndCopies) {
  const TemporaryDirectory temporary;
  const std::string source = temporary.copy("llama");
  write_text(source + "/tokenizer.json", "{\"any\": \"bytes\"}");
  write_text(source + "/generation_config.json", "{}");
  const ModelFiles files(source);
  const Adapter adapter = read_adapter(source + "/adapter", files.description);
  const std::string target = temporary.path() + "/merged";
  export_merged(files, adapter.config, adapter.values, DType::bf16, target, 20'000);

  EXPECT_TRUE(file_exists(target + "/model.safetensors.index.json"));
  const ModelFiles merged(target);
  EXPECT_GT(merged.tensors.files().size(), 1u);
  EXPECT_EQ(merged.weight("model.norm.weight").dtype, DType::bf16);
  EXPECT_EQ(read_file(target + "/tokenizer.json", 100), "{\"any\": \"bytes\"}");
  EXPECT_TRUE(file_exists(target + "/generation_config.json"));
  EXPECT_FALSE(file_exists(target + "/adapter"));
  nlohmann::json config = read_json_file(target + "/config.json");
  EXPECT_EQ(config.at("dtype"), "bfloat16");
  EXPECT_FALSE(config.contains("torch_dtype"));
  config["dtype"] = "float32";
  EXPECT_EQ(config, read_json_file(source + "/config.json"));

  const ModelFiles old_form(model_directory("llama_grouped"));
  const Adapter other = read_adapter(old_form.directory + "/adapter", old_form.description);
  export_merged(old_form, other.config, other.values, DType::f32, temporary.path() + "/old");
  const nlohmann::json old_config = read_json_file(temporary.path() + "/old/config.json");
  EXPECT_EQ(old_config.at("torch_dtype"), "float32");
  EXPECT_FALSE(old_config.contains("dtype"));
}

TEST(MergedExport, ReplacesAWholeModelAndNothingElse) {
  const TemporaryDirectory temporary;
  const std::string source = temporary.copy("llama");
  write_text(source + "/tokenizer.json", "{}");
  const ModelFiles files(source);
  const Adapter adapter = read_adapter(source + "/adapter", files.description);
  const std::string target = temporary.path() + "/merged";
  export_merged(files, adapter.config, adapter.values, DType::bf16, target, 20'000);
  EXPECT_TRUE(file_exists(target + "/model.safetensors.index.json"));
  write_text(target + "/merges.txt", "another tokenizer's");
  write_text(target + "/notes.txt", "mine");
  EXPECT_THROW(export_merged(files, adapter.config, adapter.values, DType::f32, target), IoError);

  export_merged(files, adapter.config, adapter.values, DType::f32, target, default_shard_bytes, true);
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(target)) names.insert(entry.path().filename());
  EXPECT_EQ(names,
            (std::set<std::string>{"config.json", "model.safetensors", "notes.txt", "tokenizer.json"}));
  EXPECT_EQ(ModelFiles(target).weight("model.norm.weight").dtype, DType::f32);
}

TEST(MergedExport, AValueThatHalfPrecisionCannotHoldIsNamed) {
  const TemporaryDirectory temporary;
  const ModelFiles files(model_directory("llama"));
  Adapter adapter = read_adapter(files.directory + "/adapter", files.description);
  for (float& value : adapter.values) value = 300.0f;
  expect_input_error(
      [&] { export_merged(files, adapter.config, adapter.values, DType::f16, temporary.path() + "/merged"); },
      {"self_attn.q_proj.weight", "F16"});
}

}  // namespace
}  // namespace mezzo
