#pragma once
// The benchmark table: steps of models with random weights over random tokens, done as the trainer does them,
// and what they are compared with. What is measured is said in docs/performance.md.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mezzo/backend/gemm_bound.h"
#include "mezzo/data/loss_batch.h"
#include "mezzo/io/record_file.h"
#include "mezzo/model/lora.h"
#include "mezzo/train/step.h"

namespace mezzo {

/// A trajectory in the folder for temporary files, gone with its owner.
class ScratchTrajectory {
 public:
  ScratchTrajectory();
  ~ScratchTrajectory();
  ScratchTrajectory(const ScratchTrajectory&) = delete;
  ScratchTrajectory& operator=(const ScratchTrajectory&) = delete;
  AsyncRecordWriter& writer() { return *writer_; }

 private:
  std::string path_;
  std::optional<AsyncRecordWriter> writer_;
};

/// What a benchmark's step works on.
struct BenchmarkWork {
  std::vector<const Example*> examples = {};  ///< one slice
  TaskLoss loss = TaskLoss::options;
  std::int64_t directions = 1;  ///< two-sided
  std::int64_t group = 1;       ///< most probes of a forward
};

/// The trainer's steps over one slice again and again, appended to a trajectory (of every rank's own).
class BenchmarkStep {
 public:
  /// Reserves what it needs, and makes the way between ranks. All must outlive it, examples too.
  BenchmarkStep(LoadedModel& model, const BenchmarkWork& work, AsyncRecordWriter& trajectory,
                Exchange& exchange);

  void run();      ///< one step of all ranks; waits
  void forward();  ///< the first group's forward alone; waits
  void update();   ///< update, hash and record alone; waits

  /// The base products of a step's probes, unshared; of the head's rows only those that are read.
  std::vector<PlainProduct> gemm_bound() const;
  const BatchShape& shape() const { return shape_; }
  /// Seconds by which the ranks' evaluations differed in the last step.
  double skew() const;
  double exchange();  ///< seconds of the slots' exchange when all ranks come at once

 private:
  LoadedModel& model_;
  AsyncRecordWriter& trajectory_;
  const LossBatch batch_;
  const BatchShape shape_;
  const Slices slices_;
  const std::int64_t group_;
  std::unique_ptr<Objective> objective_;
  Step step_;
  std::uint64_t done_ = 0;
  StepResult last_;
};

/// Names of the table's models: those of the PyTorch scripts that it is compared with.
std::vector<std::string> benchmark_models();
/// One of them; UsageError for another name. `layers` 0: all that it has.
Description benchmark_model(const std::string& name, std::int64_t layers);
/// `adapter` on the layers from `first_layer` on alone.
AdapterConfig from_layer(AdapterConfig adapter, const Description& description, std::int64_t first_layer);
/// Sequences of random tokens of which a language-model loss reads every one of `tokens` rows.
std::vector<Example> random_examples(std::int64_t vocabulary, std::int64_t sequences, std::int64_t tokens);

struct BenchmarkCase {
  std::string model;
  std::int64_t sequences = 1;
  std::int64_t tokens = 128;  ///< of a sequence
};

struct BenchmarkOptions {
  BackendOptions backend;
  std::int64_t layers = 0;     ///< 0: all
  AdapterConfig adapter = {};  ///< on all layers
  std::int64_t low_rank = 0;   ///< > 0: not LoRA, but low-rank noise of this rank over all linear layers
  std::optional<MasterType> dense = {};  ///< not LoRA, but noise of each element over all tensors, held so
  std::int64_t directions = 20;
  int repetitions = 5;
  std::optional<std::int64_t> probes_per_forward;  ///< none: as the planner chooses
  bool one_by_one = false;                         ///< also one probe a forward
  bool upper_half = false;                         ///< also with the upper half of the layers perturbed
  bool base_forward = false;  ///< also a group's forward against the base model's over the same rows
  bool gemm_bound = false;    ///< also the products alone, in turn with the steps
};

/// Seconds are medians.
struct BenchmarkResult {
  std::string device;
  std::int64_t layers = 0;
  std::int64_t probes = 0;
  std::int64_t group = 0;  ///< probes a forward
  std::vector<std::string> target_modules = {};
  std::int64_t trainables = 0;  ///< numbers
  int ranks = 1;
  std::uint64_t hash = 0;  ///< of the trainables behind the timed steps: the same on any number of ranks
  double step = 0.0;
  double tokens_per_second = 0.0;  ///< rows of all probes
  double update = 0.0;             ///< update, hash and record alone
  std::size_t weight_bytes = 0;    ///< without those that are trained themselves, where noise is dense
  std::size_t trainable_bytes = 0;
  std::size_t arena_bytes = 0;
  std::size_t scratch_bytes = 0;
  std::optional<double> one_by_one = {};     ///< step
  std::optional<double> upper_half = {};     ///< step
  std::optional<double> group_forward = {};  ///< with base_forward
  std::optional<double> base_forward = {};
  std::optional<double> gemm_bound = {};
  double gemm_bound_operations = 0.0;
  std::optional<int> gemm_bound_candidates = {};  ///< GemmBound::fewest_candidates
  std::optional<double> exchange = {};            ///< of several ranks that come at once
  std::optional<double> skew = {};                ///< between the ranks' evaluations in a step
};

/// On all ranks together. What is not a step on several ranks (one_by_one and all below it) is of one rank
/// alone.
BenchmarkResult run_benchmark(const BenchmarkCase& benchmark, const BenchmarkOptions& options,
                              Exchange& exchange);

}  // namespace mezzo
