// A training step on the cpu backend against its GEMM bound: all base products of all probes, unshared, each
// one multithreaded OpenBLAS call over all rows, on the same sizes, in turn with the steps. Also batched
// probes against one by one, and a step of which only the upper half of the layers is perturbed. Steps do
// what the trainer's do on one rank: pack, forward, estimate, update, append to a trajectory (synced by its
// own thread).
//   train_step MODEL DATA.jsonl [threads = 2] [repetitions = 7]
#include <fmt/format.h>

#include "mezzo/measure/benchmark.h"
#include "mezzo/measure/timing.h"
#include "mezzo/train/inputs.h"

namespace mezzo {
namespace {

constexpr std::int64_t directions = 8;

/// Steps of a model from its files, with the layers from `first_layer` on perturbed.
class FileStep {
 public:
  FileStep(Backend& backend, const ModelFiles& files, const BenchmarkWork& work, std::int64_t first_layer,
           AsyncRecordWriter& trajectory, Exchange& exchange)
      : space_(lora_space(files.description, from_layer({}, files.description, first_layer))),
        model_(backend, files.description, *space_,
               begin_state(backend, space_->trainables(), space_->initial_values(1, ""),
                           *StepRule().optimizer)) {
    model_.decoder.load(files, {});
    step_.emplace(model_, work, trajectory, exchange);
  }

  BenchmarkStep* operator->() { return &*step_; }

 private:
  std::shared_ptr<const ParameterSpace> space_;
  LoadedModel model_;
  std::optional<BenchmarkStep> step_;
};

int benchmark(int argc, char** argv) {
  if (argc < 3) {
    fmt::print(stderr, "usage: train_step MODEL DATA.jsonl [threads] [repetitions]\n");
    return 2;
  }
  const int threads = argc > 3 ? std::stoi(argv[3]) : 2;
  const int repetitions = argc > 4 ? std::stoi(argv[4]) : 7;
  const ModelFiles files(argv[1]);
  const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(argv[1]);
  TaskConfig config;
  config.prompt_template = "{sentence} It was";
  config.verbalizers = {{"0", " terrible"}, {"1", " great"}};
  const Task task(config, *tokenizer, files.description.max_positions);
  const ExampleStream stream(task.read(argv[2], DataFormat::automatic), 42, 1000);
  const BackendOptions device{.device = DeviceKind::cpu, .threads = threads};
  const std::unique_ptr<Backend> backend = make_backend(device);
  ScratchTrajectory trajectory;
  const std::unique_ptr<Exchange> exchange = make_self_exchange();

  fmt::print("{}, {}\n", backend->device(), backend->fingerprint().at("blas"));
  for (const std::int64_t size : {32, 1}) {
    const std::int64_t half = files.description.layers / 2;
    const auto step = [&](std::int64_t group, std::int64_t first_layer) {
      return FileStep(*backend, files,
                      {.examples = stream.at(0, size), .directions = directions, .group = group}, first_layer,
                      trajectory.writer(), *exchange);
    };
    FileStep batched = step(2 * directions, 0);
    FileStep grouped = step(4, 0);
    FileStep single = step(1, 0);
    FileStep upper = step(2 * directions, half);
    const std::vector<PlainProduct> products = batched->gemm_bound();
    const std::unique_ptr<GemmBound> products_alone = make_gemm_bound(device, products);
    double operations = 0.0;
    for (const PlainProduct& product : products) operations += product.operations();
    std::vector<double> times[5];
    for (int repetition = 0; repetition < repetitions; ++repetition) {
      times[0].push_back(seconds_of([&] { products_alone->run(); }));
      times[1].push_back(seconds_of([&] { batched->run(); }));
      times[2].push_back(seconds_of([&] { grouped->run(); }));
      times[3].push_back(seconds_of([&] { single->run(); }));
      times[4].push_back(seconds_of([&] { upper->run(); }));
    }
    const double gemm_bound = median_of(times[0]);
    fmt::print("batch {}: {} rows a probe, GEMM bound {:.1f} ms ({:.0f} GFLOP/s)\n", size,
               batched->shape().tokens, 1e3 * gemm_bound, operations / gemm_bound * 1e-9);
    const double all = median_of(times[1]);
    fmt::print("  step, 16 probes a forward {:.1f} ms = {:.2f} x GEMM bound\n", 1e3 * all, all / gemm_bound);
    fmt::print("  step, 4 probes a forward  {:.1f} ms = {:.2f} x GEMM bound\n", 1e3 * median_of(times[2]),
               median_of(times[2]) / gemm_bound);
    fmt::print("  step, one by one          {:.1f} ms: batched is {:.2f} x as fast\n",
               1e3 * median_of(times[3]), median_of(times[3]) / all);
    fmt::print("  step, upper half perturbed {:.1f} ms = {:.2f} of the full step\n",
               1e3 * median_of(times[4]), median_of(times[4]) / all);
  }
  return 0;
}

}  // namespace
}  // namespace mezzo

int main(int argc, char** argv) { return mezzo::benchmark(argc, argv); }
