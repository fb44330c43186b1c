// A training step on the cpu backend against its floor: all base products of all probes, unshared, each one
// multithreaded OpenBLAS call over all rows, on the same sizes, in turn with the steps. Also batched probes
// against one by one, and a step of which only the upper half of the layers is perturbed. Steps do what the
// trainer's do on one rank: pack, forward, estimate, update, append to a trajectory (synced by its own
// thread).
//   train_step MODEL DATA.jsonl [threads = 2] [repetitions = 7]
#include <cblas.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <functional>
#include <random>

#include "mezzo/io/record_file.h"
#include "mezzo/train/inputs.h"
#include "mezzo/train/probe_runner.h"
#include "mezzo/zo/estimator.h"
#include "mezzo/zo/trajectory.h"

namespace mezzo {
namespace {

constexpr std::int64_t directions = 8;

double median_of(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + std::ssize(values) / 2, values.end());
  return values[values.size() / 2];
}

double seconds_of(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// Steps over one batch, in groups of `group` probes, with the layers from `first_layer` on perturbed.
class Step {
 public:
  Step(Backend& backend, const ModelFiles& files, const Task& task, std::span<const Example* const> examples,
       std::int64_t group, std::int64_t first_layer, AsyncRecordWriter& trajectory)
      : backend_(backend), task_(task), examples_(examples), group_(group), trajectory_(trajectory) {
    config_.target_modules = files.description.names.query_value;
    std::vector<std::int64_t> layers;
    for (std::int64_t layer = first_layer; layer < files.description.layers; ++layer) layers.push_back(layer);
    config_.layers_to_transform = layers;
    const std::vector<TrainableSpec> specs = lora_trainables(files.description, config_);
    trainables_ = make_trainables(backend, specs, initial_values(specs, 1));
    decoder_ = std::make_unique<Decoder>(backend, files.description, &config_, &trainables_);
    decoder_->load(files, {});
    runner_ = std::make_unique<ProbeRunner>(backend, *decoder_);
    const BatchShape shape = shape_of(pack(examples_, task_.loss(), true).packed);
    runner_->reserve(shape, group_, std::min(directions, group_));
    for (const PlannedProduct& planned : decoder_->workload(shape, group_, directions).products) {
      // Only rows that are read go through the head.
      products_.push_back({planned.product->out(), planned.product->in(), planned.scored});
    }
    rows_ = shape.tokens;
    reads_ = shape.reads;
  }

  void run() {
    const auto estimator = make_estimator(EstimatorKind::two_sided, 1e-2);
    const std::vector<Probe> probes = estimator->probes(direction_seeds(1, step_, directions));
    const LossBatch batch = pack(examples_, task_.loss(), true);
    runner_->begin(batch.packed);
    const std::size_t questions = batch.packed.question_tokens.size();
    std::vector<ProbeLoss> losses;
    for (std::size_t first = 0; first < probes.size(); first += static_cast<std::size_t>(group_)) {
      const auto group =
          std::span(probes).subspan(first, std::min(probes.size() - first, static_cast<std::size_t>(group_)));
      const std::span<const float> scores = runner_->evaluate(group, NoiseKind::gaussian);
      for (std::size_t p = 0; p < group.size(); ++p) {
        const SliceLoss loss = loss_of(batch, scores.subspan(p * questions, questions));
        losses.push_back({.sum = loss.sum, .weight = loss.weight, .good = true});
      }
    }
    const Estimate estimate = estimator->estimate(losses);
    const StepRecord record{.step = step_++, .learning_rate = 1e-4f, .coefficients = estimate.coefficients};
    backend_.update(trainables_, update_of(record, 1, 0.0f), NoiseKind::gaussian);
    trajectory_.append(encode(record));
  }

  /// The floor of the same step; returns its floating-point operations.
  double floor(int threads) const {
    const std::int64_t all_rows = 2 * directions * rows_;
    std::int64_t widest = 0;
    for (const Size& size : products_) widest = std::max({widest, size.out, size.in});
    static std::vector<float> x, w, y;  // kept: the pages are touched once
    const auto grow = [](std::vector<float>& values, std::int64_t count) {
      std::mt19937 random(1);
      while (std::ssize(values) < count) values.push_back(static_cast<float>(random()) * 0x1p-32f - 0.5f);
    };
    grow(x, all_rows * widest);
    grow(y, all_rows * widest);
    grow(w, widest * widest);
    openblas_set_num_threads(threads);
    double operations = 0.0;
    for (const Size& size : products_) {
      const std::int64_t rows = size.head ? 2 * directions * reads_ : all_rows;
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(rows), static_cast<int>(size.out),
                  static_cast<int>(size.in), 1.0f, x.data(), static_cast<int>(size.in), w.data(),
                  static_cast<int>(size.in), 0.0f, y.data(), static_cast<int>(size.out));
      operations +=
          2.0 * static_cast<double>(rows) * static_cast<double>(size.out) * static_cast<double>(size.in);
    }
    openblas_set_num_threads(1);
    return operations;
  }

  std::int64_t rows() const { return rows_; }

 private:
  struct Size {
    std::int64_t out, in;
    bool head;
  };
  Backend& backend_;
  const Task& task_;
  std::span<const Example* const> examples_;
  std::int64_t group_;
  AsyncRecordWriter& trajectory_;
  AdapterConfig config_;
  Trainables trainables_;
  std::unique_ptr<Decoder> decoder_;
  std::unique_ptr<ProbeRunner> runner_;
  std::vector<Size> products_;
  std::int64_t rows_ = 0, reads_ = 0;
  std::uint64_t step_ = 0;
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
  const ExampleStream stream(task.read(argv[2]), 42, 1000);
  const std::unique_ptr<Backend> backend = make_backend({.device = DeviceKind::cpu, .threads = threads});
  const std::string path = (std::filesystem::temp_directory_path() / "train_step.trajectory").string();
  std::filesystem::remove(path);
  AsyncRecordWriter trajectory(RecordWriter::create(path, {}));

  fmt::print("{}, {}\n", backend->device(), backend->fingerprint().at("blas"));
  for (const std::int64_t size : {32, 1}) {
    const std::vector<const Example*> examples = stream.at(0, size);
    const std::int64_t half = files.description.layers / 2;
    Step batched(*backend, files, task, examples, 2 * directions, 0, trajectory);
    Step grouped(*backend, files, task, examples, 4, 0, trajectory);
    Step single(*backend, files, task, examples, 1, 0, trajectory);
    Step upper(*backend, files, task, examples, 2 * directions, half, trajectory);
    std::vector<double> times[5];
    double operations = 0.0;
    for (int repetition = 0; repetition < repetitions; ++repetition) {
      times[0].push_back(seconds_of([&] { operations = batched.floor(threads); }));
      times[1].push_back(seconds_of([&] { batched.run(); }));
      times[2].push_back(seconds_of([&] { grouped.run(); }));
      times[3].push_back(seconds_of([&] { single.run(); }));
      times[4].push_back(seconds_of([&] { upper.run(); }));
    }
    const double floor = median_of(times[0]);
    fmt::print("batch {}: {} rows a probe, floor {:.1f} ms ({:.0f} GFLOP/s)\n", size, batched.rows(),
               1e3 * floor, operations / floor * 1e-9);
    const double all = median_of(times[1]);
    fmt::print("  step, 16 probes a forward {:.1f} ms = {:.2f} x floor\n", 1e3 * all, all / floor);
    fmt::print("  step, 4 probes a forward  {:.1f} ms = {:.2f} x floor\n", 1e3 * median_of(times[2]),
               median_of(times[2]) / floor);
    fmt::print("  step, one by one          {:.1f} ms: batched is {:.2f} x as fast\n",
               1e3 * median_of(times[3]), median_of(times[3]) / all);
    fmt::print("  step, upper half perturbed {:.1f} ms = {:.2f} of the full step\n",
               1e3 * median_of(times[4]), median_of(times[4]) / all);
  }
  trajectory.close();
  std::filesystem::remove(path);
  return 0;
}

}  // namespace
}  // namespace mezzo

int main(int argc, char** argv) { return mezzo::benchmark(argc, argv); }
