#include "mezzo/measure/benchmark.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <utility>

#include "mezzo/comm/together.h"
#include "mezzo/core/error.h"
#include "mezzo/core/philox.h"
#include "mezzo/measure/timing.h"
#include "mezzo/model/family.h"
#include "mezzo/train/planner.h"
#include "mezzo/train/ranks.h"

namespace mezzo {

namespace {

constexpr std::uint64_t run_seed = 1;
constexpr double learning_rate = 1e-4;
constexpr float weight_scale = 0.02f;
constexpr int warm_up = 2;
constexpr Patience patience{Seconds(20), Seconds(600)};

struct TableModel {
  const char* name;
  const char* config;  // config.json: what is not there is transformers' default
};

constexpr TableModel table_models[] = {
    {"gpt2",
     R"({"model_type": "gpt2", "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12,
         "n_head": 12})"},
    {"gptj6b",
     R"({"model_type": "gptj", "vocab_size": 50400, "n_positions": 2048, "n_embd": 4096, "n_layer": 28,
         "n_head": 16, "rotary_dim": 64})"},
    {"llama7b",
     R"({"model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
         "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": 4096})"},
    {"llama3-8b",
     R"({"model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336,
         "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "rope_theta": 500000.0,
         "rms_norm_eps": 1e-5, "max_position_embeddings": 8192})"},
    {"mistral-7b",
     R"({"model_type": "mistral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
         "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "sliding_window": 4096,
         "rms_norm_eps": 1e-5, "max_position_embeddings": 32768})"},
    {"qwen3-8b",
     R"({"model_type": "qwen3", "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288,
         "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
         "rope_theta": 1000000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 40960})"},
    {"qwen3-30b-a3b",
     R"({"model_type": "qwen3_moe", "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 6144,
         "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": true,
         "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
         "rope_theta": 1000000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 40960,
         "decoder_sparse_step": 1, "mlp_only_layers": []})"},
};

using Space = std::shared_ptr<const ParameterSpace>;

/// What a space trains, before the first step; of weights that are trained themselves without values, which
/// Decoder::randomize() makes, and held in `master`.
TrainedState begin_random(Backend& backend, const ParameterSpace& space, DType master) {
  const std::shared_ptr<const Optimizer> optimizer = StepRule().optimizer;
  const std::vector<TrainableSpec>& specs = space.trainables();
  if (space.has_adapter()) return begin_state(backend, specs, space.initial_values(run_seed, ""), *optimizer);
  Trainables trainables = list_trainables(specs, master);
  trainables.values = backend.allocate(static_cast<std::size_t>(trainables.count()) * size_of(master));
  return begin_state(backend, std::move(trainables), specs, *optimizer);
}

/// A table's model on a device of its own, so that each measurement finds the memory as a run would.
struct RandomModel {
  RandomModel(const BackendOptions& options, const Description& description, const Space& space,
              DType master = DType::f32)
      : backend(make_backend(options)) {
    if (space) {
      model = std::make_unique<LoadedModel>(*backend, description, *space,
                                            begin_random(*backend, *space, master));
    } else {
      model = std::make_unique<LoadedModel>(*backend, description);
    }
    model->decoder.randomize(run_seed, weight_scale);
  }

  std::unique_ptr<Backend> backend;
  std::unique_ptr<LoadedModel> model;
};

void repeat(int times, const std::function<void()>& work) {
  for (int i = 0; i < times; ++i) work();
}

/// Median seconds of a forward of the base model alone over `work`'s batch, `copies` times.
double base_forward(const BackendOptions& options, const Description& description, const BenchmarkWork& work,
                    std::int64_t copies, int repetitions) {
  const RandomModel model(options, description, nullptr);
  std::vector<const Example*> examples;
  for (std::int64_t i = 0; i < copies; ++i) {
    examples.insert(examples.end(), work.examples.begin(), work.examples.end());
  }
  const PackedBatch batch = pack(examples, work.loss, reads_all_options(work.loss)).packed;
  ProbeRunner& runner = model.model->runner;
  runner.reserve(shape_of(batch), 1);
  const auto forward = [&] {
    const Probe unperturbed;
    runner.begin(batch);
    runner.evaluate({&unperturbed, 1}, NoiseKind::gaussian);
  };
  repeat(warm_up, forward);
  return median_seconds(repetitions, forward);
}

}  // namespace

ScratchTrajectory::ScratchTrajectory() {
  std::string folder = (std::filesystem::temp_directory_path() / "mezzo-bench-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) throw IoError("{}: cannot make a temporary folder", folder);
  path_ = folder;
  writer_.emplace(RecordWriter::create(path_ + "/trajectory", {}));
}

ScratchTrajectory::~ScratchTrajectory() {
  writer_.reset();
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

BenchmarkStep::BenchmarkStep(LoadedModel& model, const BenchmarkWork& work, AsyncRecordWriter& trajectory,
                             Exchange& exchange)
    : model_(model),
      trajectory_(trajectory),
      batch_(pack(work.examples, work.loss, reads_all_options(work.loss))),
      shape_(shape_of(batch_.packed)),
      slices_{work.examples},
      group_(std::min(work.group, 2 * work.directions)),
      objective_(make_likelihood(work.loss)),
      step_({.directions = work.directions,
             .noise = {.seed = run_seed},
             .schedule = {.kind = LrScheduler::constant, .learning_rate = learning_rate}},
            {.slices = 1, .group = group_}, *objective_, model, exchange) {
  model_.runner.reserve(shape_, group_);
  if (exchange.size() == 1) return;
  step_.connect(patience);
  // Its first sum makes the connections, on the backend's stream: not while that captures a step's graph.
  static_cast<void>(this->exchange());
}

void BenchmarkStep::run() {
  last_ = step_.take({.step = done_++, .slices = slices_, .hash = false, .patience = patience});
  trajectory_.append(encode(last_.record));
  model_.backend.synchronize();
}

double BenchmarkStep::exchange() { return step_.time_exchange(patience); }

double BenchmarkStep::skew() const {
  return std::ranges::max(last_.work_seconds) - std::ranges::min(last_.work_seconds);
}

void BenchmarkStep::forward() {
  const std::vector<Probe> probes = step_.probes(0);
  model_.runner.begin(batch_.packed);
  model_.runner.evaluate(std::span(probes).first(static_cast<std::size_t>(group_)), NoiseKind::gaussian);
}

void BenchmarkStep::update() {
  last_.record.step = done_++;
  step_.apply(last_.record);
  trajectory_.append(encode(last_.record));
  static_cast<void>(model_.backend.hash(model_.state.trainables));
}

std::vector<PlainProduct> BenchmarkStep::gemm_bound() const {
  std::vector<PlainProduct> products;
  for (const PlannedProduct& planned : model_.decoder.workload(shape_, group_).products) {
    std::int64_t rows = step_.probe_count() * (planned.scored ? shape_.loss_rows : shape_.tokens);
    if (planned.routing) rows = rows * planned.routing->chosen / planned.routing->experts;  // in the mean
    products.push_back({.rows = rows, .out = planned.product->out(), .in = planned.product->in()});
  }
  return products;
}

std::vector<std::string> benchmark_models() {
  std::vector<std::string> names;
  for (const TableModel& model : table_models) names.emplace_back(model.name);
  return names;
}

Description benchmark_model(const std::string& name, std::int64_t layers) {
  for (const TableModel& model : table_models) {
    if (name != model.name) continue;
    Description description = describe(nlohmann::json::parse(model.config), name);
    if (layers > 0) description.layers = std::min(layers, description.layers);
    return description;
  }
  throw UsageError("unknown model '{}', expected one of {}", name, nlohmann::json(benchmark_models()).dump());
}

AdapterConfig from_layer(AdapterConfig adapter, const Description& description, std::int64_t first_layer) {
  std::vector<std::int64_t> layers;
  for (std::int64_t layer = first_layer; layer < description.layers; ++layer) layers.push_back(layer);
  adapter.layers_to_transform = layers;
  return adapter;
}

std::vector<Example> random_examples(std::int64_t vocabulary, std::int64_t sequences, std::int64_t tokens) {
  std::vector<Example> examples;
  for (std::int64_t i = 0; i < sequences; ++i) {
    std::vector<std::int32_t> ids;
    for (std::int64_t t = 0; t <= tokens; ++t) {
      const PhiloxWords words = philox4x32_10(
          philox_counter(static_cast<std::uint64_t>(t), static_cast<std::uint32_t>(i), Purpose::sampling),
          philox_key(run_seed));
      ids.push_back(static_cast<std::int32_t>(words.word[0] % static_cast<std::uint32_t>(vocabulary)));
    }
    // The last token is only asked for: it is no row.
    examples.push_back({.prompt = {ids.front()}, .options = {{ids.begin() + 1, ids.end()}}, .label = 0});
  }
  return examples;
}

BenchmarkResult run_benchmark(const BenchmarkCase& benchmark, const BenchmarkOptions& options,
                              Exchange& exchange) {
  const Description description = benchmark_model(benchmark.model, options.layers);
  const std::vector<Example> examples =
      random_examples(description.vocabulary, benchmark.sequences, benchmark.tokens);
  BenchmarkWork work{.loss = TaskLoss::language_model, .directions = options.directions};
  for (const Example& example : examples) work.examples.push_back(&example);
  const BatchShape shape = shape_of(pack(work.examples, work.loss, false).packed);
  const std::int64_t probes = 2 * options.directions;
  ScratchTrajectory trajectory;

  const Space space = options.dense          ? dense_space(description)
                      : options.low_rank > 0 ? low_rank_space(description, options.low_rank)
                                             : lora_space(description, options.adapter);
  const DType master = options.dense == MasterType::bf16 ? DType::bf16 : DType::f32;
  const auto targets = [&]() -> std::vector<std::string> {
    if (options.dense) return {"all"};
    if (options.adapter.all_linear || options.low_rank > 0) return {"all-linear"};
    const std::vector<std::string>& named = options.adapter.target_modules;
    return named.empty() ? description.names.query_value : named;
  };
  const auto plan = [&](const RandomModel& model) {
    return plan_group(model.model->decoder, *model.backend, shape,
                      {.probes = probes,
                       .share = (probes + exchange.size() - 1) / exchange.size(),
                       .memory = model.backend->memory_available(),
                       .paired = true},
                      options.probes_per_forward);
  };
  const auto step_of = [&](RandomModel& model, std::int64_t group) {
    BenchmarkWork own = work;
    own.group = group;
    return BenchmarkStep(*model.model, own, trajectory.writer(), exchange);
  };

  BenchmarkResult result;
  {
    RandomModel model(options.backend, description, space, master);
    choose_together(exchange, *model.backend, model.model->decoder.workload(shape, 1), {}, patience);
    const GroupPlan planned = plan(model);
    BenchmarkStep step = step_of(model, planned.group);
    result = {.device = model.backend->device(),
              .layers = description.layers,
              .probes = probes,
              .group = planned.group,
              .target_modules = targets(),
              .trainables = model.model->state.trainables.count(),
              .ranks = exchange.size(),
              .weight_bytes = model.model->decoder.weight_bytes(),
              .trainable_bytes = model.model->state.trainables.values.bytes(),
              .arena_bytes = planned.activation_bytes,
              .scratch_bytes = planned.scratch_bytes};
    std::unique_ptr<GemmBound> gemm_bound;
    if (options.gemm_bound) {
      const std::vector<PlainProduct> products = step.gemm_bound();
      gemm_bound = make_gemm_bound(options.backend, products);
      result.gemm_bound_candidates = gemm_bound->fewest_candidates();
      for (const PlainProduct& product : products) result.gemm_bound_operations += product.operations();
    }
    std::vector<double> steps;
    std::vector<double> bounds;
    std::vector<double> skews;
    for (int i = -warm_up; i < options.repetitions; ++i) {
      const double gemm_bound_seconds = gemm_bound ? seconds_of([&] { gemm_bound->run(); }) : 0.0;
      const double step_seconds = seconds_of([&] { step.run(); });
      if (i < 0) continue;
      bounds.push_back(gemm_bound_seconds);
      steps.push_back(step_seconds);
      skews.push_back(step.skew());
    }
    result.step = median_of(steps);
    result.hash = model.backend->hash(model.model->state.trainables);
    if (exchange.size() > 1) {
      result.exchange = step.exchange();
      result.skew = median_of(skews);
    }
    if (gemm_bound) result.gemm_bound = median_of(bounds);
    gemm_bound.reset();
    result.tokens_per_second = static_cast<double>(probes * shape.tokens) / result.step;
    result.update = median_seconds(options.repetitions, [&] { step.update(); });
    if (options.base_forward) {
      repeat(warm_up, [&] { step.forward(); });
      result.group_forward = median_seconds(options.repetitions, [&] { step.forward(); });
    }
    if (options.one_by_one) {
      BenchmarkStep single = step_of(model, 1);
      repeat(warm_up, [&] { single.run(); });
      result.one_by_one = median_seconds(options.repetitions, [&] { single.run(); });
    }
  }
  if (options.upper_half) {
    const Space upper =
        lora_space(description, from_layer(options.adapter, description, description.layers / 2));
    RandomModel model(options.backend, description, upper);
    BenchmarkStep step = step_of(model, plan(model).group);
    repeat(warm_up, [&] { step.run(); });
    result.upper_half = median_seconds(options.repetitions, [&] { step.run(); });
  }
  if (options.base_forward) {
    result.base_forward = base_forward(options.backend, description, work, result.group, options.repetitions);
  }
  return result;
}

}  // namespace mezzo
