#include "mezzo/train/trainer.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "mezzo/comm/together.h"
#include "mezzo/core/error.h"
#include "mezzo/io/files.h"
#include "mezzo/io/record_file.h"
#include "mezzo/train/best_step.h"
#include "mezzo/train/curvature_watch.h"
#include "mezzo/train/divergence_watch.h"
#include "mezzo/train/metrics_file.h"
#include "mezzo/train/reporter.h"
#include "mezzo/train/resumed_config.h"
#include "mezzo/train/setup.h"
#include "mezzo/train/speed_watch.h"
#include "mezzo/train/trainer_state.h"

namespace mezzo {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return Seconds(Clock::now() - start).count(); }

/// A rank that lives may take this many times as long as such work ever took here.
constexpr double straggler_factor = 10.0;

/// So many steps in a row without a finite loss are no accident of their batches.
constexpr std::uint64_t most_dropped_steps = 10;

/// "the adapter is in runs/a/adapter", and of which step it is. Rank 0 knows.
std::string where_result(const RunFolder& folder, const ParameterSpace& space, const Config& config,
                         const BestStep& best) {
  std::string text =
      fmt::format("the {} is in {}", space.has_adapter() ? "adapter" : "model", result_of(folder, space));
  if (takes_best(config) && best.best()) {
    text += fmt::format(", of step {}, the best with {} {:.4f}", best.best()->steps_done, best.metric(),
                        best.best()->value);
  }
  return text;
}

/// The loop: steps, and when to evaluate, save, warn and stop.
class Trainer {
 public:
  Trainer(const Config& config, Exchange& exchange, const StopSignal& stop, Logger& log, RunSetup& run)
      : config_(config),
        exchange_(exchange),
        stop_(stop),
        log_(log),
        run_(run),
        patience_(loading_patience(config.runtime)),
        reporter_(log, run.start.step, max_steps()),
        divergence_(chance_of(run.inputs->train->examples(), run.inputs->task),
                    chance_of(run.inputs->validation, run.inputs->task)),
        takes_best_(takes_best(config)),
        best_(config.train.metric_for_best_model) {}

  TrainResult run();

 private:
  bool leads() const { return exchange_.rank() == 0; }
  std::uint64_t max_steps() const { return static_cast<std::uint64_t>(config_.train.max_steps); }
  /// For work of which the longest so far took `longest`; zero: it was never done.
  Patience patience_for(Seconds longest) const {
    const Seconds silence = tolerated_silence(config_.runtime);
    const Seconds work = longest > Seconds(0) ? silence + straggler_factor * longest : patience_.work;
    return {.silence = silence, .work = work + grader_patience()};
  }
  /// What a grader's failures may cost a step: each completion may have all its processes fail on it.
  Seconds grader_patience() const {
    const RewardConfig& reward = config_.data.task.reward;
    const auto tries = static_cast<double>(reward.restarts + 1);
    return Seconds(reward.command.empty() ? 0.0 : tries * tries * reward.timeout_s);
  }

  /// How often the examples were seen after `steps_done`.
  double epoch_of(std::uint64_t steps_done) const {
    const auto of_step =
        static_cast<double>(config_.train.batch_size * config_.train.gradient_accumulation_steps);
    return static_cast<double>(steps_done) * of_step / static_cast<double>(run_.inputs->train->size());
  }
  /// The step whose trainables the run's result is. Rank 0 alone knows it.
  std::uint64_t result_step(std::uint64_t steps_done) const {
    return takes_best_ && best_.best() ? best_.best()->steps_done : steps_done;
  }

  void open_files();
  void recall();
  void recall_best(std::vector<PastEvaluation> past);
  void print_start();
  bool do_step(std::uint64_t step);
  void report(const StepResult& result, double seconds);
  /// Of a generation task, whose losses are less the rewards.
  std::optional<RewardSpread> rewards_of(std::span<const ProbeLoss> losses) const;
  void watch_speed(const StepResult& result);
  std::optional<std::string> see_loss(std::uint64_t steps_done, double loss, bool all_dropped);
  void require_losses(std::uint64_t steps_done, std::uint64_t most_dropped) const;
  void evaluate(std::uint64_t steps_done);
  void agree_on_stopping_early();
  void keep_rebuildable(std::uint64_t step, const Warn& warn);
  void write_result(std::uint64_t steps_done);
  void save(std::uint64_t steps_done);
  std::string what_was_done(std::uint64_t steps_done) const;
  TrainResult finish(std::uint64_t steps_done, bool stopped);

  const Config& config_;
  Exchange& exchange_;
  const StopSignal& stop_;
  Logger& log_;
  RunSetup& run_;
  const Patience patience_;  ///< for all but steps and evaluations

  std::optional<AsyncRecordWriter> trajectory_;  // rank 0
  std::optional<MetricsFile> metrics_;           // rank 0
  Reporter reporter_;
  DivergenceWatch divergence_;
  SpeedWatch speed_;  // rank 0
  CurvatureWatch curvature_;
  Clock::time_point began_;
  double earlier_seconds_ = 0.0;  ///< of the run's earlier processes; rank 0
  Seconds longest_step_{0};       ///< any rank's work in one
  Seconds longest_evaluation_{0};
  std::uint64_t saved_step_ = ~std::uint64_t{0};
  bool dropped_ = false;             ///< directions in the last step
  bool flat_ = false;                ///< the last step had nothing to normalize by
  std::uint64_t dropped_steps_ = 0;  ///< the last ones, of which every direction was dropped
  const bool takes_best_;
  BestStep best_;                // rank 0
  bool stops_early_ = false;     ///< there were enough evaluations without a better one
  bool evaluation_due_ = false;  ///< the step that the run goes on from was to be evaluated and was not
};

// ---- the start ------------------------------------------------------------------------------------------

void Trainer::open_files() {
  together(exchange_, patience_, [&] {
    if (!leads()) return;
    const std::uint64_t step = run_.start.step;
    write_file_atomically(run_.folder.config(), to_yaml(config_));
    trajectory_.emplace(RecordWriter(run_.folder.trajectory(), run_.start.valid_bytes),
                        static_cast<std::uint64_t>(config_.train.trajectory_sync_steps));
    const std::vector<PastEvaluation> past = cut_metrics(run_.folder.metrics(), step, warn_to(log_));
    earlier_seconds_ = total_seconds_in(run_.folder.metrics());
    metrics_.emplace(run_.folder.metrics());
    for (PastEvaluation one : past) {
      one.evaluation.examples = std::ssize(run_.inputs->validation);
      static_cast<void>(divergence_.see_evaluation(one.steps_done, one.evaluation));
    }
    const bool evaluated =
        std::ranges::any_of(past, [&](const PastEvaluation& one) { return one.steps_done == step; });
    evaluation_due_ = !evaluated && (step % static_cast<std::uint64_t>(config_.train.eval_steps) == 0 ||
                                     step >= max_steps());
    if (run_.start.resume) recall();
    recall_best(past);
  });
  agree_on_stopping_early();
  evaluation_due_ = !agree(exchange_, evaluation_due_ ? "due" : "", patience_)[0].empty();
  // Every rank ends alike when there are too many.
  dropped_steps_ = std::stoull(agree(exchange_, std::to_string(dropped_steps_), patience_)[0]);
}

/// What the run's earlier processes saw of its losses. Rank 0 alone warns, and reads the trajectory for all.
void Trainer::recall() {
  const std::string path = run_.folder.trajectory();
  RecordReader reader(path);
  for (auto payload = reader.next(); payload; payload = reader.next()) {
    const StepRecord record = decode(*payload, run_.header.records, path);
    if (record.step >= run_.start.step) break;
    static_cast<void>(see_loss(record.step + 1, record.loss, std::isnan(record.loss)));
  }
  divergence_.rearm();
}

/// The best step of before. It has its snapshot, unless the run has gone back since or the file is damaged:
/// then that is made again. A best step that cannot be rebuilt is none.
void Trainer::recall_best(std::vector<PastEvaluation> past) {
  const Warn warn = warn_to(log_);
  while (true) {
    best_ = best_of(past, config_.train.metric_for_best_model);
    if (!takes_best_ || !best_.best()) return;
    const std::uint64_t step = best_.best()->steps_done;
    try {
      keep_rebuildable(step, warn);
      return;
    } catch (const InputError& error) {
      warn(fmt::format("step {} was the best, but cannot be rebuilt: {}", step, error.what()));
      std::erase_if(past, [&](const PastEvaluation& one) { return one.steps_done == step; });
    }
  }
}

/// Sees to it that a step has a good snapshot, or is the one that the run's own files begin at.
void Trainer::keep_rebuildable(std::uint64_t step, const Warn& warn) {
  if (nearest_state(run_.folder, run_.header, step, warn).step == step) return;
  write_snapshot(run_.folder.snapshot(step), run_.header,
                 state_after(run_.folder, run_.header, step, [](const std::string&) {}));
}

void Trainer::print_start() {
  const Decoder& decoder = run_.model->decoder;
  const std::string mine =
      fmt::format("{}\t{}\t{}\t{}\t{} MiB weights, {} MiB activations", exchange_.host(),
                  run_.backend->device(), run_.placement.threads, run_.plan.group,
                  decoder.weight_bytes() >> 20, (run_.plan.activation_bytes + run_.plan.scratch_bytes) >> 20);
  std::vector<std::vector<std::string>> rows = {
      {"rank", "host", "device", "threads", "probes a forward", "memory"}};
  const std::vector<std::string> all = agree(exchange_, mine, patience_);
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    std::vector<std::string> row = {std::to_string(rank)};
    std::size_t begin = 0;
    for (std::size_t end = 0; end != std::string::npos; begin = end + 1) {
      end = all[rank].find('\t', begin);
      row.push_back(all[rank].substr(begin, end - begin));
    }
    rows.push_back(std::move(row));
  }
  reporter_.table(rows);
  const Inputs& inputs = *run_.inputs;
  const std::int64_t layers = inputs.files.description.layers;
  log_.info("model {} ({} layers, {} perturbed from layer {} on), {} trainable numbers in {} tensors",
            config_.model.path, layers, layers - decoder.first_perturbed_layer(),
            decoder.first_perturbed_layer(), run_.model->state.trainables.count(),
            run_.model->state.trainables.list.size());
  log_.info("{} training examples, {} validation examples; {} steps see the examples {:.2f} times",
            inputs.train->size(), inputs.validation.size(), max_steps(), epoch_of(max_steps()));
  const std::vector<ExampleStream::Part> parts = inputs.train->parts();
  for (const ExampleStream::Part& part : parts) {
    if (parts.size() == 1) break;
    const double size = static_cast<double>(part.count) / static_cast<double>(inputs.train->size());
    log_.info("  {}: {} examples, {:.1f} % of the stream, seen {:.2f} times", part.path, part.count,
              100.0 * part.share, epoch_of(max_steps()) * part.share / size);
  }
  reporter_.first_example(inputs.task, *inputs.tokenizer, *inputs.train->at(0, 1)[0]);
  if (run_.start.step > 0) log_.info("going on from step {}", run_.start.step);
}

// ---- the steps ------------------------------------------------------------------------------------------

/// Does step `step` (0-based) on all ranks; true when one of them was asked to stop.
bool Trainer::do_step(std::uint64_t step) {
  const Clock::time_point start = Clock::now();
  const StepResult result =
      run_.step->take({.step = step,
                       .slices = slices_of(config_.train, *run_.inputs->train, step),
                       .hash = step % static_cast<std::uint64_t>(config_.train.hash_steps) == 0,
                       .stop = &stop_,
                       .patience = patience_for(longest_step_)});
  longest_step_ = std::max(longest_step_, Seconds(std::ranges::max(result.work_seconds)));
  report(result, seconds_since(start));
  return result.stop;
}

/// A warning, where the loss of a step gives one.
std::optional<std::string> Trainer::see_loss(std::uint64_t steps_done, double loss, bool all_dropped) {
  dropped_steps_ = all_dropped ? dropped_steps_ + 1 : 0;
  return run_.inputs->generation ? std::nullopt : divergence_.see_step(steps_done, loss);
}

/// Throws on all ranks when as many of the last steps had no finite loss.
void Trainer::require_losses(std::uint64_t steps_done, std::uint64_t most_dropped) const {
  if (dropped_steps_ == 0 || dropped_steps_ < most_dropped) return;
  throw JobFailed({.code = ExitCode::error,
                   .message = fmt::format(
                       "steps {} to {}: no direction had a finite loss, so that nothing was learned: the "
                       "weights of {} or the trainables are not finite, or the run has diverged",
                       steps_done - dropped_steps_ + 1, steps_done, config_.model.path)});
}

std::optional<RewardSpread> Trainer::rewards_of(std::span<const ProbeLoss> losses) const {
  if (!run_.inputs->generation) return {};
  std::vector<double> rewards;
  for (const ProbeLoss& loss : losses) {
    if (loss.good) rewards.push_back(-loss.mean());
  }
  if (rewards.empty()) return {};
  const auto count = static_cast<double>(rewards.size());
  const double mean = std::accumulate(rewards.begin(), rewards.end(), 0.0) / count;
  double squares = 0.0;
  for (const double reward : rewards) squares += (reward - mean) * (reward - mean);
  return RewardSpread{
      .mean = mean, .deviation = std::sqrt(squares / count), .best = std::ranges::max(rewards)};
}

void Trainer::report(const StepResult& result, double seconds) {
  std::vector<double> work = result.work_seconds;
  work.resize(std::min(work.size(), static_cast<std::size_t>(result.units.count())));  // the others idle
  const StepMetrics metrics{.step = result.record.step + 1,
                            .epoch = epoch_of(result.record.step + 1),
                            .loss = result.record.loss,
                            .rewards = rewards_of(result.losses),
                            .projected_gradient_norm = result.record.gradient_norm,
                            .learning_rate = static_cast<double>(result.record.learning_rate),
                            .tokens_per_second = static_cast<double>(result.tokens()) / seconds,
                            .seconds = seconds_since(began_),
                            .total_seconds = earlier_seconds_ + seconds_since(began_),
                            .work_seconds_min = std::ranges::min(work),
                            .work_seconds_max = std::ranges::max(work),
                            .exchange_seconds = result.exchange_seconds,
                            .dropped_directions = result.estimate.dropped,
                            .signal_to_noise = result.estimate.signal_to_noise};
  const bool log_line = metrics.step % static_cast<std::uint64_t>(config_.train.logging_steps) == 0 ||
                        metrics.step == max_steps() || result.stop;
  if (metrics.dropped_directions > 0 && (log_line || !dropped_)) {
    log_.warning("step {}: {} of {} directions were dropped, because a loss was not finite", metrics.step,
                 metrics.dropped_directions, config_.zo.directions);
  }
  dropped_ = metrics.dropped_directions > 0;
  if (result.estimate.flat && (log_line || !flat_)) {
    log_.warning("step {}: no update: zo.normalize: {} needs {} whose losses differ", metrics.step,
                 name_of(config_.zo.normalize),
                 config_.zo.normalize_beta ? "a good direction" : "two good directions");
  }
  flat_ = result.estimate.flat;
  if (const auto warning =
          see_loss(metrics.step, metrics.loss, metrics.dropped_directions == config_.zo.directions))
    log_.warning("{}", *warning);
  if (result.estimate.bend && curvature_.see(*result.estimate.bend)) {
    log_.warning(
        "step {}: the losses are too rough to tell the curvature at zo.epsilon {}, so that zo.step_limit "
        "holds "
        "the learning rate lower than it need be; a larger zo.epsilon or zo.step_limit: null helps",
        metrics.step, config_.zo.epsilon);
  }
  if (!leads()) return;
  watch_speed(result);
  reporter_.step(metrics, log_line);
  log_.debug("  step {}: {:.3f} s, of which forwards {:.3f} to {:.3f} s and the exchange {:.4f} s",
             metrics.step, seconds, metrics.work_seconds_min, metrics.work_seconds_max,
             metrics.exchange_seconds);
  if (log_line) metrics_->append(metrics);
  // Last: a resumed run cuts metrics to the steps that are committed.
  trajectory_->append(encode(result.record));
}

/// Rank 0 says, once a run, which rank the others wait for.
void Trainer::watch_speed(const StepResult& result) {
  std::vector<std::int64_t> loads;
  for (const WorkShare& share : result.shares) loads.push_back(load_of(result.units, share));
  if (const auto slow = speed_.see(result.work_seconds, loads)) {
    log_.warning(
        "step {}: {} takes {:.2g} times as long for its work as the median rank, and every step "
        "waits for it (over the last {} steps)",
        result.record.step + 1, exchange_.name_of_rank(slow->rank), slow->factor, SpeedWatch::window);
  }
}

void Trainer::evaluate(std::uint64_t steps_done) {
  if (!run_.evaluator) return;
  exchange_.doing(Phase::evaluation, steps_done);
  const Clock::time_point start = Clock::now();
  const Evaluation evaluation =
      run_.evaluator->run(run_.model->runner, exchange_, patience_for(longest_evaluation_));
  longest_evaluation_ = std::max(longest_evaluation_, Seconds(seconds_since(start)));
  together(exchange_, patience_, [&] {
    if (!leads()) return;
    reporter_.evaluation(steps_done, epoch_of(steps_done), evaluation, config_.train.log_samples);
    if (const auto warning = divergence_.see_evaluation(steps_done, evaluation)) log_.warning("{}", *warning);
    // Before metrics.jsonl tells of it, so that a best step that is known has its snapshot. The run's other
    // files begin at its first step, which needs none.
    const bool better = best_.see(steps_done, evaluation);
    if (better && takes_best_ && steps_done != run_.header.start_step) save(steps_done);
    // On disk before the next step is, so that no resumed run has lost an evaluation.
    metrics_->append(steps_done, epoch_of(steps_done), evaluation, config_.train.log_samples);
    metrics_->sync();
  });
  agree_on_stopping_early();
}

void Trainer::agree_on_stopping_early() {
  const bool spent = leads() && best_.is_spent(config_.train.early_stopping_patience);
  stops_early_ = !agree(exchange_, spent ? "spent" : "", patience_)[0].empty();
}

void Trainer::save(std::uint64_t steps_done) {
  if (!leads() || saved_step_ == steps_done) return;
  exchange_.doing(Phase::saving, steps_done);
  metrics_->sync();
  trajectory_->flush();  // the trajectory is on disk through the step before its snapshot is
  write_snapshot(run_.folder.snapshot(steps_done), run_.header,
                 read_state(*run_.backend, run_.model->state, steps_done));
  log_.debug("  wrote {}", run_.folder.snapshot(steps_done));
  prune_snapshots(run_.folder.snapshots(), static_cast<std::size_t>(config_.train.save_total_limit),
                  steps_done, result_step(steps_done));
  saved_step_ = steps_done;
}

/// "40 steps in 4.4 s", and of a run that went on also what it comes to in all.
std::string Trainer::what_was_done(std::uint64_t steps_done) const {
  const double seconds = seconds_since(began_);
  const std::string here = fmt::format("{} steps in {:.1f} s", steps_done - run_.start.step, seconds);
  if (run_.start.step == 0) return here;
  return fmt::format("{} ({} in all, {:.1f} s)", here, steps_done, earlier_seconds_ + seconds);
}

void Trainer::write_result(std::uint64_t steps_done) {
  const std::uint64_t step = result_step(steps_done);
  const RunState state = step == steps_done ? read_state(*run_.backend, run_.model->state, step)
                                            : state_after(run_.folder, run_.header, step, warn_to(log_));
  const ParameterSpace& space = *run_.header.space;
  const ModelFiles& files = run_.inputs->files;
  if (space.has_adapter()) {
    space.write_adapter(run_.folder.adapter(), files.description, state.values, config_.model.path);
  } else {
    // In fp32, which holds the trainables as they are.
    space.write_merged(files, state.values, DType::f32, run_.folder.model(), true);
  }
  std::optional<BestNote> best;
  if (takes_best_ && best_.best()) best = {.metric = best_.metric(), .value = best_.best()->value};
  write_trainer_state(result_of(run_.folder, space), step, best);
}

TrainResult Trainer::finish(std::uint64_t steps_done, bool stopped) {
  const std::uint64_t hash = run_.backend->hash(run_.model->state.trainables);
  check_same(exchange_, "the hash of the trainables", fmt::format("{:016x}", hash), patience_,
             ExitCode::error);
  const bool goes_on = stopped && steps_done < max_steps() && !stops_early_;
  if (!goes_on) require_losses(steps_done, std::min(most_dropped_steps, steps_done));
  together(exchange_, patience_, [&] {
    save(steps_done);
    if (!leads()) return;
    trajectory_->close();
    if (!goes_on) write_result(steps_done);
  });
  if (leads()) reporter_.end_bar();
  if (goes_on) {
    log_.info("stopped after step {}: {}; the same command goes on from there", steps_done,
              what_was_done(steps_done));
    return TrainResult::stopped;
  }
  if (stops_early_ && steps_done < max_steps()) {
    log_.info("step {}: the last {} evaluations were no better than the best before them: the run ends early",
              steps_done, *config_.train.early_stopping_patience);
  }
  log_.info("done: {}; {}", what_was_done(steps_done),
            where_result(run_.folder, *run_.header.space, config_, best_));
  return TrainResult::finished;
}

TrainResult Trainer::run() {
  open_files();
  print_start();
  began_ = Clock::now();
  std::uint64_t done = run_.start.step;
  if (evaluation_due_) evaluate(done);
  bool stopped = false;
  while (done < max_steps() && !stopped && !stops_early_) {
    stopped = do_step(done);
    ++done;
    require_losses(done, most_dropped_steps);
    // A run that is to stop leaves an evaluation to the one that goes on with it.
    const bool due = done % static_cast<std::uint64_t>(config_.train.eval_steps) == 0 && !stopped;
    if (due || done == max_steps()) evaluate(done);
    // How long a disk takes is not a step's time: the others wait for it by themselves.
    if (done % static_cast<std::uint64_t>(config_.train.save_steps) == 0)
      together(exchange_, patience_, [&] { save(done); });
  }
  return finish(done, stopped);
}

/// `written`, where a run goes on with what it leaves unwritten as it was when the run began.
Config config_to_run(const Config& written, bool overwrite, Exchange& exchange, Logger& log) {
  const Patience patience = loading_patience(written.runtime);
  std::string record;
  together(exchange, patience, [&] {
    if (exchange.rank() != 0) return;
    if (const auto header = run_to_continue(written, overwrite)) record = header->to_json();
  });
  record = agree(exchange, record, patience)[0];
  if (record.empty()) return written;
  Config config = resumed_config(written, RunHeader::from_json(record, "the run's record"));
  if (const std::string text = taken_over(written, config); !text.empty()) {
    log.info("the config leaves to the run that goes on: {}", text);
  }
  return config;
}

}  // namespace

TrainResult train(const Config& written, const TrainOptions& options, Exchange& exchange,
                  const StopSignal& stop, Logger& log) {
  const Config config = config_to_run(written, options.overwrite, exchange, log);
  RunSetup run = run_setup(config, options, exchange, log);
  if (!run.start.finished) return Trainer(config, exchange, stop, log, run).run();
  BestStep best(config.train.metric_for_best_model);
  together(exchange, loading_patience(config.runtime), [&] {
    if (exchange.rank() != 0) return;
    best = best_of(cut_metrics(run.folder.metrics(), run.start.step, warn_to(log)),
                   config.train.metric_for_best_model);
  });
  const bool early = run.start.step < static_cast<std::uint64_t>(config.train.max_steps);
  log.info("{}: the run has finished its {} steps{}; {}", run.folder.path, run.start.step,
           early ? ", for want of a better evaluation" : "",
           where_result(run.folder, *run.header.space, config, best));
  return TrainResult::already_finished;
}

}  // namespace mezzo
