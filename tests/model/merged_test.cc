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

// A weight in the middle of two neighbours of the type and a delta that decides between them, but is too
// small for fp32 beside the weight: rounded to fp32 on the way, the sum would be the middle and go to the
// even one.
TEST(MergedExport, SumsAreRoundedOnce) {
  for (const auto& [dtype, step] : {std::pair(DType::bf16, 0x1p-7f), std::pair(DType::f16, 0x1p-10f)}) {
    const TemporaryDirectory temporary;
    const std::string source = temporary.copy("llama");
    const ModelFiles before(model_directory("llama"));
    Adapter adapter = read_adapter(source + "/adapter", before.description);
    for (float& value : adapter.values) value = 0x1p-20f;
    const std::vector<LinearModule> adapted = adapted_modules(before.description, adapter.config);
    const std::string name = adapted.front().name + ".weight";
    std::map<std::string, std::vector<float>> values;
    std::vector<TensorSource> tensors;
    for (const WeightSpec& spec : weight_specs(before.description)) {
      std::vector<float>& value = values[spec.name] = floats(before.tensors, spec.name);
      if (spec.name == name) std::ranges::fill(value, 1.0f + step / 2);
      tensors.push_back(float_source(spec.name, spec.shape, value));
    }
    write_safetensors(source + "/model.safetensors", tensors);

    const ModelFiles files(source);
    export_merged(files, adapter.config, adapter.values, dtype, temporary.path() + "/merged");
    const std::vector<float> merged = floats(ModelFiles(temporary.path() + "/merged").tensors, name);
    EXPECT_EQ(merged, std::vector<float>(merged.size(), 1.0f + step)) << name_of(dtype);
  }
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
