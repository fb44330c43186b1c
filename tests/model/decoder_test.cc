// The forward against transformers and PEFT (tests/goldens/make_model_goldens.py), on every backend of a CPU
// build.
#include "mezzo/model/decoder.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "golden.h"
#include "mezzo/io/files.h"
#include "mezzo/model/family.h"

namespace mezzo {
namespace {

using namespace mezzo::testing;

// The promise is 1e-4 relative. Both sides compute in fp32 with sums of up to 150 terms through two or three
// layers: errors of some 1e-6 are expected, and 2e-5 still catches a wrong constant in the fifth digit.
constexpr double tolerance = 2e-5;

void expect_close(const std::vector<float>& got, const std::vector<float>& want) {
  ASSERT_EQ(got.size(), want.size());
  double scale = 0.0;
  for (const float value : want) scale = std::max(scale, std::abs(static_cast<double>(value)));
  for (std::size_t i = 0; i < want.size(); ++i) {
    ASSERT_NEAR(got[i], want[i], tolerance * scale) << "element " << i;
  }
}

struct Case {
  std::string model;
  DeviceKind device;
  int threads = 1;
};
std::string name_of(const Case& c) {
  return c.model + (c.device == DeviceKind::reference ? "_reference" : "_cpu");
}
void PrintTo(const Case& c, std::ostream* out) { *out << name_of(c); }
Golden golden_of(const Case& c) {
  return Golden(make_backend({.device = c.device, .threads = c.threads}), c.model);
}

constexpr auto every = [](std::int32_t) { return true; };
constexpr auto some = [](std::int32_t row) { return row % 3 == 1; };

class DecoderGoldens : public ::testing::TestWithParam<Case> {};

TEST_P(DecoderGoldens, LogitsAreThoseOfTransformers) {
  const std::string directory = model_directory(GetParam().model);
  const Safetensors expected = Safetensors::open(directory + "/expected.safetensors");
  const auto backend = make_backend({.device = GetParam().device, .threads = GetParam().threads});
  expect_close(base_logits(*backend, directory, golden_batch(expected, true, every)),
               floats(expected, "logits"));
}

TEST_P(DecoderGoldens, PerturbedProbesAreThoseOfPeft) {
  Golden golden = golden_of(GetParam());
  golden.begin(golden_batch(golden.expected, false, every), std::ssize(golden.probes));
  const std::vector<float> got = golden.evaluate(golden.probes);
  const std::vector<float> want = floats(golden.expected, "logprobs");
  expect_close(got, want);

  // The losses and, through a difference that magnifies errors, the projected gradient of the first
  // direction.
  const std::size_t targets = want.size() / golden.probes.size();
  const auto loss = [&](const std::vector<float>& logprobs, std::size_t p) {
    const auto first = logprobs.begin() + static_cast<std::ptrdiff_t>(p * targets);
    return -std::accumulate(first, first + static_cast<std::ptrdiff_t>(targets), 0.0) /
           static_cast<double>(targets);
  };
  for (std::size_t p = 0; p < golden.probes.size(); ++p) EXPECT_NEAR(loss(got, p) / loss(want, p), 1.0, 1e-4);
  const double gradient = (loss(want, 0) - loss(want, 1)) / 2e-2;
  EXPECT_GT(std::abs(gradient), 0.01);  // otherwise the probes were hardly perturbed
  EXPECT_NEAR((loss(got, 0) - loss(got, 1)) / 2e-2, gradient, 1e-3 * std::max(1.0, std::abs(gradient)));
}

TEST_P(DecoderGoldens, GroupsAndRepetitionChangeNoBit) {
  Golden golden = golden_of(GetParam());
  golden.begin(golden_batch(golden.expected, false, some), std::ssize(golden.probes));
  const std::vector<float> together = golden.evaluate(golden.probes);
  EXPECT_EQ(golden.evaluate(golden.probes), together);
  const std::size_t targets = together.size() / golden.probes.size();
  for (std::size_t p = 0; p < golden.probes.size(); ++p) {
    const std::vector<float> alone = golden.evaluate({&golden.probes[p], 1});
    EXPECT_TRUE(
        std::equal(alone.begin(), alone.end(), together.begin() + static_cast<std::ptrdiff_t>(p * targets)))
        << "probe " << p;
  }
}

TEST_P(DecoderGoldens, ReadingFewerRowsGivesTheSameAnswers) {
  Golden golden = golden_of(GetParam());
  const PackedBatch all = golden_batch(golden.expected, false, every);
  const PackedBatch fewer = golden_batch(golden.expected, false, some);
  golden.begin(all, std::ssize(golden.probes));
  const std::vector<float> of_all = golden.evaluate(golden.probes);
  golden.begin(fewer, std::ssize(golden.probes));
  const std::vector<float> of_fewer = golden.evaluate(golden.probes);
  std::vector<float> want;
  for (std::size_t p = 0; p < golden.probes.size(); ++p) {
    for (std::size_t j = 0; j < all.loss_rows.size(); ++j) {
      if (some(all.loss_rows[j])) want.push_back(of_all[p * all.loss_rows.size() + j]);
    }
  }
  expect_close(of_fewer, want);
}

TEST_P(DecoderGoldens, MemoryIsWhatWasPlanned) {
  Golden golden = golden_of(GetParam());
  const PackedBatch packed = golden_batch(golden.expected, false, some);
  for (const std::int64_t probes : {1, 5}) {
    golden.begin(packed, probes);
    golden.evaluate(std::span(golden.probes).first(static_cast<std::size_t>(probes)));
    EXPECT_EQ(golden.decoder.arena_high_water(), golden.decoder.activation_bytes(golden.batch.shape, probes));
  }
  // A smaller batch, of which every row is read, fits into what was made for the larger one.
  PackedBatch small{.tokens = {3, 4},
                    .positions = {0, 1},
                    .offsets = {0, 2},
                    .loss_rows = {0, 1},
                    .target_rows = {1},
                    .target_tokens = {0}};
  DeviceBatch batch;
  golden.backend->upload(small, batch);
  golden.decoder.begin(batch);
  golden.batch.shape = batch.shape;
  golden.evaluate(golden.probes);
}

TEST_P(DecoderGoldens, NothingIsAllocatedBeforeLoad) {
  const Description description = read_description(model_directory(GetParam().model));
  const auto backend = make_backend({.device = GetParam().device, .threads = GetParam().threads});
  Decoder decoder(*backend, description, Perturbations());
  std::size_t elements = 0;
  for (const WeightSpec& spec : weight_specs(description)) {
    elements += static_cast<std::size_t>(
        std::accumulate(spec.shape.begin(), spec.shape.end(), std::int64_t{1}, std::multiplies<>()));
  }
  // fp32, each in whole 256 bytes, and a tied head counts once.
  EXPECT_GE(decoder.weight_bytes(), elements * sizeof(float));
  EXPECT_LT(decoder.weight_bytes(), elements * sizeof(float) + 256 * weight_specs(description).size());
  EXPECT_EQ(decoder.first_perturbed_layer(), description.layers);
  DeviceBatch batch;
  EXPECT_THROW(decoder.begin(batch), Error);
  EXPECT_THROW(decoder.evaluate({}, {}), Error);
}

/// Shapes that read all rows and such that do not.
std::vector<BatchShape> shapes_of_memory() {
  const auto shape = [](std::int64_t tokens, std::int64_t loss_rows) {
    return BatchShape{.tokens = tokens,
                      .sequences = 2,
                      .loss_rows = loss_rows,
                      .targets = loss_rows,
                      .longest = tokens - 1};
  };
  return {shape(40, 40), shape(40, 39), shape(39, 37), shape(31, 1)};
}

// A forward that leaves rows unread holds the others beside all of them, one that reads all does not.
TEST_P(DecoderGoldens, MemoryForTheLargestShapeSufficesForEach) {
  const Golden golden = golden_of(GetParam());
  const std::vector<BatchShape> shapes = shapes_of_memory();
  for (const std::int64_t probes : {1, 5}) {
    for (const BatchShape& a : shapes) {
      for (const BatchShape& b : shapes) {
        const std::size_t bytes = golden.decoder.activation_bytes(largest_of(a, b), probes);
        EXPECT_LE(golden.decoder.activation_bytes(a, probes), bytes) << a.tokens << ' ' << a.loss_rows;
        EXPECT_LE(golden.decoder.activation_bytes(b, probes), bytes) << b.tokens << ' ' << b.loss_rows;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, DecoderGoldens, ::testing::ValuesIn([] {
                           std::vector<Case> cases;
                           for (const std::string& model : golden_models) {
                             cases.push_back({model, DeviceKind::reference});
                             cases.push_back({model, DeviceKind::cpu});
                           }
                           return cases;
                         }()),
                         [](const auto& which) { return name_of(which.param); });

TEST(Decoder, ThreadsChangeNoBit) {
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2}) {
    Golden golden = golden_of({"llama_grouped", DeviceKind::cpu, threads});
    golden.begin(golden_batch(golden.expected, false, some), std::ssize(golden.probes));
    results.push_back(golden.evaluate(golden.probes));
  }
  EXPECT_EQ(results[0], results[1]);
}

TEST(Decoder, LayersBelowTheFirstAdapterAreShared) {
  const Description description = read_description(model_directory("llama_tied"));
  const auto backend = make_backend({.device = DeviceKind::reference});
  const BatchShape shape{.tokens = 40, .sequences = 2, .loss_rows = 4, .targets = 4, .longest = 30};
  AdapterConfig all{.r = 2};
  AdapterConfig upper = all;
  upper.layers_to_transform = {2};
  const auto build = [&](const AdapterConfig& config, const Trainables& trainables) {
    return std::make_unique<Decoder>(*backend, description,
                                     lora_perturbations(description, config, trainables));
  };
  const auto specs_all = lora_trainables(description, all);
  const auto specs_upper = lora_trainables(description, upper);
  const Trainables of_all = make_trainables(*backend, specs_all, initial_values(specs_all, 1));
  const Trainables of_upper = make_trainables(*backend, specs_upper, initial_values(specs_upper, 1));
  EXPECT_EQ(build(all, of_all)->first_perturbed_layer(), 0);
  EXPECT_EQ(build(upper, of_upper)->first_perturbed_layer(), 2);
  EXPECT_LT(build(upper, of_upper)->activation_bytes(shape, 20),
            build(all, of_all)->activation_bytes(shape, 20));
  EXPECT_THROW(build(all, of_upper), Error);
}

TEST(Decoder, PerturbationsThatAreNotItsOwnAreErrors) {
  const Description description = read_description(model_directory("llama_tied"));
  const auto backend = make_backend({.device = DeviceKind::reference});
  const AdapterConfig config{.r = 2};
  const Trainables trainables = list_trainables(lora_trainables(description, config));
  const Perturbations good = lora_perturbations(description, config, trainables);
  EXPECT_EQ(Decoder(*backend, description, good).first_perturbed_layer(), 0);
  Perturbations unknown = good;
  unknown["model.layers.0.self_attn.z_proj"] = good.begin()->second;
  EXPECT_THROW(Decoder(*backend, description, unknown), Error);
  Perturbations misshapen = good;
  ++std::get<LowRankTail>(misshapen.begin()->second).b.rows;
  EXPECT_THROW(Decoder(*backend, description, misshapen), Error);
}

// Which operations come first for a probe decides what is shared, and with it where buffers lie.
TEST(Decoder, MemoryForTheLargestShapeSufficesWhateverIsPerturbed) {
  const auto backend = make_backend({.device = DeviceKind::reference});
  const std::vector<BatchShape> shapes = shapes_of_memory();
  for (const char* model : {"llama", "llama_grouped", "llama_tied", "qwen3_moe", "opt_350m"}) {
    const Description description = read_description(model_directory(model));
    const auto bytes_of = [&](const std::vector<std::string>& targets, const BatchShape& of,
                              std::int64_t probes) {
      const AdapterConfig config{.r = 2, .target_modules = targets};
      const auto specs = lora_trainables(description, config);
      const Trainables trainables = make_trainables(*backend, specs, initial_values(specs, 1));
      return Decoder(*backend, description, lora_perturbations(description, config, trainables))
          .activation_bytes(of, probes);
    };
    using Targets = std::vector<std::string>;
    std::vector<Targets> cases = {{"q_proj"}, {"v_proj"}, {"k_proj", "v_proj"}, {"q_proj", "v_proj"}};
    if (description.family == "opt") {
      for (const char* target : {"out_proj", "fc1", "fc2", "project_in", "project_out"})
        cases.push_back({target});
    } else {
      for (const char* target : {"o_proj", "up_proj", "down_proj"}) cases.push_back({target});
    }
    for (const Targets& targets : cases) {
      SCOPED_TRACE(fmt::format("{}: {}", model, fmt::join(targets, " ")));
      for (const std::int64_t probes : {1, 5}) {
        for (const BatchShape& a : shapes) {
          for (const BatchShape& b : shapes)
            EXPECT_LE(bytes_of(targets, a, probes), bytes_of(targets, largest_of(a, b), probes));
        }
      }
      // Less that depends on the probe takes no more room but for what is shared.
      const auto most = static_cast<double>(bytes_of({"q_proj", "k_proj", "v_proj"}, shapes[0], 5));
      EXPECT_LE(static_cast<double>(bytes_of(targets, shapes[0], 5)), 1.1 * most);
    }
  }
}

TEST(Decoder, FilesWithoutThePrefixAndWithOldBuffersAreTheSameModel) {
  struct Stored {
    std::string model, left_out;
    std::vector<std::string> buffers;
  };
  const std::vector<Stored> cases = {{"gpt2", "transformer.", {"h.0.attn.bias", "h.1.attn.masked_bias"}},
                                     {"opt", "model.", {}},
                                     {"opt", "model.decoder.", {}}};
  for (const auto& [model, left_out, buffers] : cases) {
    const TemporaryDirectory temporary;
    const std::string bare = temporary.copy(model);
    const Safetensors original = Safetensors::open(model_directory(model));
    std::vector<std::vector<float>> values;
    std::vector<TensorSource> sources;
    const std::vector<float> mask(16, 1.0f);
    for (const std::string& name : original.names()) values.push_back(floats(original, name));
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::string name = original.names()[i];
      sources.push_back(float_source(name.substr(left_out.size()), original.at(name).shape, values[i]));
    }
    for (const std::string& buffer : buffers) sources.push_back(float_source(buffer, {1, 1, 4, 4}, mask));
    std::filesystem::remove(bare + "/model.safetensors");
    write_safetensors(bare + "/model.safetensors", sources);

    const Safetensors expected = Safetensors::open(bare + "/expected.safetensors");
    const auto backend = make_backend({.device = DeviceKind::reference});
    expect_close(base_logits(*backend, bare, golden_batch(expected, true, every)),
                 floats(expected, "logits"));
  }
}

TEST(Decoder, TensorsMayStartAnywhereInAFile) {
  const TemporaryDirectory temporary;
  for (const std::string model : {"llama", "llama_tied"}) {  // F32, F16
    const std::string directory = temporary.copy(model);
    const std::string path = directory + "/model.safetensors";
    std::string bytes = read_file(path, 1 << 20);
    std::uint64_t header = 0;
    std::memcpy(&header, bytes.data(), sizeof(header));
    bytes.insert(sizeof(header) + header, " ");  // moves every tensor by one byte
    ++header;
    std::memcpy(bytes.data(), &header, sizeof(header));
    write_text(path, bytes);
    const Safetensors expected = Safetensors::open(directory + "/expected.safetensors");
    const auto backend = make_backend({.device = DeviceKind::cpu});
    expect_close(base_logits(*backend, directory, golden_batch(expected, true, every)),
                 floats(expected, "logits"));
  }
}

/// A field of /proc/self/status in bytes.
std::size_t memory(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(field + ":")) return std::stoul(line.substr(field.size() + 1)) * 1024;
  }
  throw Error("/proc/self/status has no {}", field);
}

TEST(Decoder, LoadingKeepsNoMoreThanOnePieceOfTheFilesInMemory) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "the sanitizer's own memory is in the way";
#endif
  const TemporaryDirectory temporary;
  nlohmann::json config = read_json_file(model_directory("llama") + "/config.json");
  for (const auto& [key, value] : std::map<std::string, int>{
           {"vocab_size", 16000}, {"hidden_size", 512}, {"intermediate_size", 1408}, {"head_dim", 64}}) {
    config[key] = value;
  }
  write_text(temporary.path() + "/config.json", config.dump());
  std::vector<TensorSource> sources;
  for (const WeightSpec& spec : weight_specs(read_description(temporary.path()))) {
    const auto elements = static_cast<std::size_t>(
        std::accumulate(spec.shape.begin(), spec.shape.end(), std::int64_t{1}, std::multiplies<>()));
    sources.push_back(
        {.name = spec.name, .dtype = DType::bf16, .shape = spec.shape, .produce = [elements](auto& sink) {
           sink(std::vector<std::byte>(2 * elements));
         }});
  }
  write_safetensors(temporary.path() + "/model.safetensors", sources);

  const auto backend = make_backend({.device = DeviceKind::cpu});
  std::ofstream("/proc/self/clear_refs") << "5";  // sets the high-water mark back to what is resident now
  const std::size_t before = memory("VmHWM");
  const ModelFiles files(temporary.path());
  Decoder decoder(*backend, files.description, Perturbations());
  std::size_t loaded = 0;
  std::size_t total = 0;
  decoder.load(files, [&](std::size_t now, std::size_t all) {
    EXPECT_GT(now, loaded);
    loaded = now;
    total = all;
  });
  EXPECT_EQ(loaded, total);
  EXPECT_EQ(2 * total, decoder.weight_bytes());  // bf16 in the file, fp32 in memory
  EXPECT_GT(total, std::size_t{40} << 20);       // so the bound below would not hold if pages were kept
  EXPECT_LE(memory("VmHWM") - before, decoder.weight_bytes() + (std::size_t{24} << 20));
}

TEST(Decoder, SequencesLongerThanTheModelAreRefused) {
  const Description description = read_description(model_directory("gpt2"));
  const auto backend = make_backend({.device = DeviceKind::reference});
  Decoder decoder(*backend, description, Perturbations());
  expect_input_error(
      [&] {
        decoder.reserve({.tokens = 49, .sequences = 1, .loss_rows = 1, .targets = 1, .longest = 49}, 1);
      },
      {"49", "48"});
}

}  // namespace
}  // namespace mezzo
