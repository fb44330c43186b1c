// How far projected gradients in bf16 are from those of the cpu backend in fp32: the same directions, batch
// and adapter on both, at several epsilons.
//   gradient_error MODEL DATA.jsonl [directions = 64] [all-linear]
#include <fmt/format.h>

#include <cmath>

#include "mezzo/core/noise.h"
#include "mezzo/measure/benchmark.h"
#include "mezzo/train/inputs.h"
#include "mezzo/zo/trajectory.h"

namespace mezzo {
namespace {

/// g of each direction, two-sided.
std::vector<double> gradients(const BackendOptions& options, const ModelFiles& files, const LossBatch& batch,
                              const AdapterConfig& config, std::int64_t directions, double epsilon) {
  const std::unique_ptr<Backend> backend = make_backend(options);
  const std::vector<TrainableSpec> specs = lora_trainables(files.description, config);
  std::vector<float> values = initial_values(specs, 1);
  // As after some training: B is not zero.
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] += 0.01f * noise_at(NoiseKind::gaussian, 7, 0, static_cast<std::uint64_t>(i));
  const Trainables trainables = make_trainables(*backend, specs, values);
  Decoder decoder(*backend, files.description, lora_perturbations(files.description, config, trainables));
  decoder.load(files, {});
  ProbeRunner runner(*backend, decoder);
  constexpr std::int64_t group = 16;
  runner.reserve(shape_of(batch.packed), group);
  runner.begin(batch.packed);
  const auto estimator = make_estimator(EstimatorKind::two_sided, epsilon);
  const std::vector<Probe> probes = estimator->probes(direction_seeds(1, 0, directions));
  const std::size_t targets = batch.packed.target_tokens.size();
  std::vector<double> losses;
  for (std::size_t first = 0; first < probes.size(); first += group) {
    const auto some = std::span(probes).subspan(first, std::min<std::size_t>(group, probes.size() - first));
    const std::span<const float> scores = runner.evaluate(some, NoiseKind::gaussian);
    for (std::size_t p = 0; p < some.size(); ++p) {
      const SliceLoss loss = loss_of(batch, scores.subspan(p * targets, targets));
      losses.push_back(loss.sum / loss.weight);
    }
  }
  std::vector<double> result;
  for (std::size_t k = 0; k + 1 < losses.size(); k += 2)
    result.push_back((losses[k] - losses[k + 1]) / (2.0 * epsilon));
  return result;
}

int run(int argc, char** argv) {
  if (argc < 3) {
    fmt::print(stderr, "usage: gradient_error MODEL DATA.jsonl [directions] [all-linear]\n");
    return 2;
  }
  const std::int64_t directions = argc > 3 ? std::stoll(argv[3]) : 64;
  const AdapterConfig adapter{.all_linear = argc > 4 && std::string(argv[4]) == "all-linear"};
  const ModelFiles files(argv[1]);
  const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(argv[1]);
  TaskConfig config;
  config.prompt_template = "{sentence} It was";
  config.verbalizers = {{"0", " terrible"}, {"1", " great"}};
  const Task task(config, *tokenizer, files.description.max_positions);
  const ExampleStream stream(task.read(argv[2]), 42, 1000);
  const LossBatch batch = pack(stream.at(0, 32), task.loss(), true);

  std::string reason;
  const bool card = cuda_available(&reason);
  if (!card) fmt::print("cuda: {}\n", reason);
  for (const double epsilon : {1e-2, 1e-3}) {
    const std::vector<double> truth =
        gradients({.device = DeviceKind::cpu, .threads = 8}, files, batch, adapter, directions, epsilon);
    double square = 0.0;
    for (const double g : truth) square += g * g;
    fmt::print("epsilon {:g}: root mean square of g {:.4g}\n", epsilon,
               std::sqrt(square / static_cast<double>(directions)));
    for (const bool fp32 : {true, false}) {
      if (!card) break;
      const std::vector<double> got =
          gradients({.device = DeviceKind::cuda, .fp32 = fp32}, files, batch, adapter, directions, epsilon);
      double error = 0.0;
      double along = 0.0;
      double own = 0.0;
      for (std::size_t k = 0; k < got.size(); ++k) {
        error += (got[k] - truth[k]) * (got[k] - truth[k]);
        along += got[k] * truth[k];
        own += got[k] * got[k];
      }
      fmt::print("  cuda {}: error {:.3g} of that, correlation {:.5f}\n", fp32 ? "fp32" : "bf16",
                 std::sqrt(error / square), along / std::sqrt(own * square));
    }
  }
  return 0;
}

}  // namespace
}  // namespace mezzo

int main(int argc, char** argv) { return mezzo::run(argc, argv); }
