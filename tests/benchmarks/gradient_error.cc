// How far projected gradients in bf16 are from those of the cpu backend in fp32: the same directions, batch
// and trainables on both, at several epsilons.
//   gradient_error MODEL DATA.jsonl [directions = 64] [all-linear | low_rank | dense]
#include <fmt/format.h>

#include <cmath>

#include "mezzo/core/noise.h"
#include "mezzo/data/loss_batch.h"
#include "mezzo/train/inputs.h"
#include "mezzo/train/step.h"

namespace mezzo {
namespace {

/// g of each direction, two-sided: of a step that moves nothing, its learning rate being 0.
std::vector<double> gradients(const BackendOptions& options, const ModelFiles& files, const Slices& slices,
                              const Objective& objective, const std::string& trained, std::int64_t directions,
                              double epsilon) {
  const std::unique_ptr<Backend> backend = make_backend(options);
  const auto space = trained == "dense" ? dense_space(files.description)
                     : trained == "low_rank"
                         ? low_rank_space(files.description, 4)
                         : lora_space(files.description, {.all_linear = trained == "all-linear"});
  std::vector<float> values = space->initial_values(1, files.directory);
  // As after some training: LoRA's B is not zero.
  for (std::size_t i = 0; i < values.size() && space->has_adapter(); ++i)
    values[i] += 0.01f * noise_at(NoiseKind::gaussian, 7, 0, static_cast<std::uint64_t>(i));
  const StepRule rule{.epsilon = epsilon, .directions = directions, .noise = {.seed = 1}};
  LoadedModel model(*backend, files.description, *space,
                    begin_state(*backend, space->trainables(), values, *rule.optimizer));
  model.decoder.load(files, {});
  constexpr std::int64_t group = 16;
  model.runner.reserve(shape_of(pack(slices[0], TaskLoss::options, true).packed), group);
  const std::unique_ptr<Exchange> exchange = make_self_exchange();
  Step step(rule, {.slices = 1, .group = group}, objective, model, *exchange);
  return step.take({.step = 0, .slices = slices, .hash = false, .patience = starting_patience})
      .estimate.projected_gradient;
}

int run(int argc, char** argv) {
  if (argc < 3) {
    fmt::print(stderr,
               "usage: gradient_error MODEL DATA.jsonl [directions] [all-linear | low_rank | dense]\n");
    return 2;
  }
  const std::int64_t directions = argc > 3 ? std::stoll(argv[3]) : 64;
  const std::string trained = argc > 4 ? argv[4] : "";
  const ModelFiles files(argv[1]);
  const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(argv[1]);
  TaskConfig config;
  config.prompt_template = "{sentence} It was";
  config.verbalizers = {{"0", " terrible"}, {"1", " great"}};
  const Task task(config, *tokenizer, files.description.max_positions);
  const ExampleStream stream(task.read(argv[2], DataFormat::automatic), 42, 1000);
  const Slices slices = {stream.at(0, 32)};
  const std::unique_ptr<Objective> objective = make_likelihood(task.loss());

  std::string reason;
  const bool card = cuda_available(&reason);
  if (!card) fmt::print("cuda: {}\n", reason);
  for (const double epsilon : {1e-2, 1e-3}) {
    const std::vector<double> truth = gradients({.device = DeviceKind::cpu, .threads = 8}, files, slices,
                                                *objective, trained, directions, epsilon);
    double square = 0.0;
    for (const double g : truth) square += g * g;
    fmt::print("epsilon {:g}: root mean square of g {:.4g}\n", epsilon,
               std::sqrt(square / static_cast<double>(directions)));
    for (const bool fp32 : {true, false}) {
      if (!card) break;
      const std::vector<double> got = gradients({.device = DeviceKind::cuda, .fp32 = fp32}, files, slices,
                                                *objective, trained, directions, epsilon);
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
