// Generation by a model of the benchmark table with random weights, on a card: prompts through a forward,
// then one token a step, by 32 probes of an adapter on q and v, against the base model alone over as many
// sequences and against the bound: the products of a step alone, or its bytes (weights once, every key and
// value that is there) at the rate of a copy, whichever takes longer. Greedy; every sequence has all its new
// tokens.
//   generation_speed MODEL SEQUENCES[,SEQUENCES...] [layers] [probes = 32] [prompt = 32] [new tokens = 64]
#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "mezzo/measure/benchmark.h"
#include "mezzo/measure/timing.h"
#include "mezzo/model/lora.h"
#include "mezzo/train/generator.h"
#include "mezzo/train/loaded_model.h"

namespace mezzo {
namespace {

constexpr int repetitions = 3;

class NoTokenizer final : public Tokenizer {
 public:
  std::vector<std::int32_t> encode(std::string_view, bool) const override { return {}; }
  std::vector<std::int32_t> encode_continuation(std::string_view) const override { return {}; }
  std::string decode(std::span<const std::int32_t>) const override { return {}; }
  std::string decode_continuation(std::span<const std::int32_t>) const override { return {}; }
  std::optional<std::int32_t> start_token() const override { return {}; }
  std::optional<NamedToken> bos_token() const override { return {}; }
  std::optional<NamedToken> eos_token() const override { return {}; }
};

struct Sizes {
  std::int64_t probes = 32;
  std::int64_t sequences = 1;  ///< of a probe
  std::int64_t prompt = 32;
  std::int64_t new_tokens = 64;
};

struct Seconds {
  double prefill = 0.0;  ///< of all prompts, with the choice of the first tokens
  double step = 0.0;     ///< of decoding, in the mean over a completion
};

/// Medians of several generations.
Seconds measure(const BackendOptions& options, const Description& description, const Sizes& sizes,
                bool perturbed) {
  const std::unique_ptr<Backend> backend = make_backend(options);
  const std::shared_ptr<const ParameterSpace> space = lora_space(description, {});
  const std::unique_ptr<LoadedModel> model =
      perturbed
          ? std::make_unique<LoadedModel>(*backend, description, *space,
                                          begin_state(*backend, space->trainables(),
                                                      space->initial_values(1, ""), *StepRule().optimizer))
          : std::make_unique<LoadedModel>(*backend, description);
  model->decoder.randomize(1, 0.02f);
  const std::vector<Example> examples =
      random_examples(description.vocabulary, sizes.sequences, sizes.prompt);
  std::vector<GenerationRequest> requests;
  for (const Example& example : examples)
    requests.push_back(
        {.prompt = std::span(example.options.at(0)).first(static_cast<std::size_t>(sizes.prompt)),
         .number = std::ssize(requests)});
  std::vector<Probe> probes;
  for (std::int64_t p = 0; p < sizes.probes; ++p)
    probes.push_back({.seed = static_cast<std::uint64_t>(p / 2 + 1),
                      .direction = static_cast<std::uint32_t>(p / 2),
                      .epsilon = p % 2 == 0 ? 0.01f : -0.01f});
  if (!perturbed) probes = {{}};
  const NoTokenizer tokenizer;
  const auto rows = DecodingRows::of(sizes.sequences, sizes.sequences);
  const auto seconds = [&](std::int64_t new_tokens) {
    const GenerationRule rule{.max_new_tokens = new_tokens};
    const Generator generator(model->runner, tokenizer, rule, description.max_positions);
    model->runner.reserve(shape_of(requests, rows, rule, description.max_positions), std::ssize(probes));
    const auto run = [&] {
      generator.run(probes, NoiseKind::gaussian, requests, rows, [](auto, auto, Generated&&) {});
    };
    run();
    return median_seconds(repetitions, run);
  };
  const double whole = seconds(sizes.new_tokens);
  const double prefill = seconds(1);
  return {.prefill = prefill, .step = (whole - prefill) / static_cast<double>(sizes.new_tokens - 1)};
}

double products_alone(const BackendOptions& options, const Description& description, std::int64_t rows,
                      std::int64_t read_rows) {
  const std::unique_ptr<DevicePlan> plan = make_device_plan(options);
  const Decoder decoder(*plan, description, {});
  std::vector<PlainProduct> products;
  for (const PlannedProduct& planned : decoder.workload({.tokens = 1}, 1).products)
    products.push_back({.rows = planned.scored ? read_rows : rows,
                        .out = planned.product->out(),
                        .in = planned.product->in()});
  const std::unique_ptr<GemmBound> bound = make_gemm_bound(options, products);
  bound->run();
  return median_seconds(repetitions, [&] { bound->run(); });
}

/// Bytes read and written a second.
double copy_rate(const BackendOptions& options) {
  constexpr std::int64_t rows = 65536, cols = 4096;
  const std::unique_ptr<Backend> backend = make_backend(options);
  const auto bytes = static_cast<std::size_t>(rows * cols) * size_of(backend->activation_dtype());
  const Buffer from = backend->allocate(bytes), to = backend->allocate(bytes);
  const auto view = [&](const Buffer& buffer) {
    return dense(buffer.data(), backend->activation_dtype(), rows, cols);
  };
  backend->fill_normal(view(from), 1, 1.0f);
  const auto copy = [&] {
    backend->assign(view(to), view(from));
    backend->synchronize();
  };
  copy();
  return 2.0 * static_cast<double>(bytes) / median_seconds(5, copy);
}

int benchmark(int argc, char** argv) {
  if (argc < 3) {
    fmt::print(stderr, "usage: generation_speed MODEL SEQUENCES [layers] [probes] [prompt] [new tokens]\n");
    return 2;
  }
  const auto number = [&](int i, std::int64_t otherwise) {
    return argc > i ? std::stoll(argv[i]) : otherwise;
  };
  const Description description = benchmark_model(argv[1], number(3, 0));
  const BackendOptions options{.device = DeviceKind::cuda};
  const double rate = copy_rate(options);
  fmt::print("{}, {} layers, {}, copies {:.2f} TB/s\n", argv[1], description.layers,
             make_backend(options)->device(), 1e-12 * rate);
  fmt::print(
      "sequences | prefill, bound, ratio | step, base's, base/step | products, bytes, bound/step | "
      "tokens/s\n");
  std::istringstream list(argv[2]);
  for (std::string word; std::getline(list, word, ',');) {
    const std::int64_t all = std::stoll(word);
    Sizes sizes{
        .probes = number(4, 32), .sequences = 1, .prompt = number(5, 32), .new_tokens = number(6, 64)};
    sizes.sequences = std::max<std::int64_t>(all / sizes.probes, 1);
    const std::int64_t sequences = sizes.sequences * sizes.probes;
    const Seconds own = measure(options, description, sizes, true);
    Sizes base_sizes = sizes;
    base_sizes.probes = 1;
    base_sizes.sequences = sequences;
    const Seconds base = measure(options, description, base_sizes, false);
    const double prompts = products_alone(options, description, sequences * sizes.prompt, sequences);
    const double products = products_alone(options, description, sequences, sequences);
    double bytes = 0.0;
    for (const WeightSpec& spec : weight_specs(description)) {
      double elements = 2.0;
      for (const std::int64_t size : spec.shape) elements *= static_cast<double>(size);
      bytes += elements;
    }
    const double tokens = static_cast<double>(sizes.prompt) + 0.5 * static_cast<double>(sizes.new_tokens);
    bytes += 4.0 * static_cast<double>(description.layers * description.kv_heads * description.head_dim) *
             static_cast<double>(sequences) * tokens;
    const double bound = std::max(products, bytes / rate);
    fmt::print("{} | {:.4f} {:.4f} {:.3f} | {:.5f} {:.5f} {:.3f} | {:.5f} {:.5f} {:.3f} | {:.0f}\n",
               sequences, own.prefill, prompts, own.prefill / prompts, own.step, base.step,
               base.step / own.step, products, bytes / rate, bound / own.step,
               static_cast<double>(sequences) / own.step);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace mezzo

int main(int argc, char** argv) {
  try {
    return mezzo::benchmark(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "generation_speed: {}\n", error.what());
    return 1;
  }
}
