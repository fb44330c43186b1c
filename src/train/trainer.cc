#include "mezzo/train/trainer.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>

#include "mezzo/comm/together.h"
#include "mezzo/core/error.h"
#include "mezzo/core/limits.h"
#include "mezzo/data/pattern.h"
#include "mezzo/io/files.h"
#include "mezzo/io/hdf5_file.h"
#include "mezzo/io/json_lines.h"
#include "mezzo/io/sha256.h"
#include "mezzo/train/evaluator.h"
#include "mezzo/train/inputs.h"
#include "mezzo/train/planner.h"
#include "mezzo/train/ranks.h"
#include "mezzo/train/replay.h"
#include "mezzo/train/reporter.h"
#include "mezzo/train/resumed_config.h"
#include "mezzo/train/speed_watch.h"
#include "mezzo/train/start.h"
#include "mezzo/zo/estimator.h"
#include "mezzo/zo/schedule.h"
#include "mezzo/zo/slots.h"

namespace mezzo {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return Seconds(Clock::now() - start).count(); }

/// A rank that lives may take this many times as long as such work ever took here.
constexpr double straggler_factor = 10.0;

/// Warns once when the loss has risen far above where it began.
class DivergenceWatch {
 public:
  void see(std::uint64_t step, double loss, Logger& log) {
    if (!std::isfinite(loss)) return;  // dropped directions have a warning of their own
    if (seen_ < window) {
      first_ += loss / window;
      recent_ = first_ * window / static_cast<double>(++seen_);
      return;
    }
    recent_ += (loss - recent_) / window;
    if (!warned_ && recent_ > 2.0 * first_ + 1.0) {
      log.warning(
          "step {}: the loss has risen from {:.4g} to {:.4g}: the run diverges; a smaller "
          "optimizer.learning_rate or more zo.directions help",
          step, first_, recent_);
      warned_ = true;
    }
  }

 private:
  static constexpr double window = 10;
  double first_ = 0.0;
  double recent_ = 0.0;
  double seen_ = 0.0;
  bool warned_ = false;
};

class Trainer {
 public:
  Trainer(const Config& config, const TrainOptions& options, Exchange& exchange, const StopSignal& stop,
          Logger& log)
      : config_(config),
        options_(options),
        exchange_(exchange),
        stop_(stop),
        log_(log),
        starting_(loading_patience(config.runtime)),
        folder_{config.train.output_dir.value()},
        estimator_(configure_estimator(config.zo)),
        schedule_(configure_schedule(config)) {}

  TrainResult run();

 private:
  bool leads() const { return exchange_.rank() == 0; }
  /// For work of which the longest so far took `longest`; zero: it was never done.
  Patience patience_for(Seconds longest) const {
    const Seconds silence = tolerated_silence(config_.runtime);
    return {.silence = silence,
            .work = longest > Seconds(0) ? silence + straggler_factor * longest : starting_.work};
  }
  std::uint64_t max_steps() const { return static_cast<std::uint64_t>(config_.train.max_steps); }
  std::vector<Probe> probes_of(std::uint64_t step) const {
    return estimator_->probes(direction_seeds(config_.train.seed, step, config_.zo.directions));
  }

  void open();
  void make_header();
  RunStart look_at_folder();
  void choose_algorithms(const std::map<std::string, std::string>& recorded);
  void build(const RunStart& start);
  void choose_groups(std::uint64_t first_step);
  void open_transport();
  bool cut_metrics(std::uint64_t step);
  void open_record(const RunStart& start);
  void print_start(std::uint64_t first_step);
  bool do_step(std::uint64_t step);
  void watch_speed(std::uint64_t step, const StepUnits& units, std::span<const WorkShare> shares);
  void evaluate(std::uint64_t steps_done);
  void save(std::uint64_t steps_done);
  void write_final_adapter();
  TrainResult finish(std::uint64_t steps_done, bool stopped);

  const Config& config_;
  const TrainOptions& options_;
  Exchange& exchange_;
  const StopSignal& stop_;
  Logger& log_;
  const Patience starting_;
  const RunFolder folder_;
  std::unique_ptr<Estimator> estimator_;
  Schedule schedule_;

  Placement placement_;
  std::optional<Inputs> inputs_;
  BatchShape largest_;  ///< of all steps' slices
  RunHeader header_;
  std::optional<FolderLock> lock_;  // rank 0

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Transport> transport_;  ///< of the steps' slots, on the backend's stream; may be none
  TrainedState state_;
  std::optional<Decoder> decoder_;
  std::optional<ProbeRunner> runner_;
  std::optional<Evaluator> evaluator_;
  std::int64_t group_ = 1;         ///< probes a forward
  std::size_t planned_bytes_ = 0;  ///< activations and scratch of a step
  std::optional<SlotTable> slots_;

  std::optional<AsyncRecordWriter> trajectory_;  // rank 0
  std::optional<JsonLinesWriter> metrics_;       // rank 0
  std::optional<Reporter> reporter_;
  DivergenceWatch divergence_;
  SpeedWatch speed_;
  Clock::time_point began_;
  Seconds longest_step_{0};  ///< any rank's work in one
  Seconds longest_evaluation_{0};
  std::uint64_t saved_step_ = ~std::uint64_t{0};
  bool dropped_ = false;         ///< directions in the last step
  bool evaluation_due_ = false;  ///< the step that the run goes on from was to be evaluated and was not
};

// ---- before the weights ---------------------------------------------------------------------------------

void Trainer::open() {
  const int threads = threads_of_rank(exchange_, starting_);
  together(exchange_, starting_, [&] {
    placement_ = place(config_.runtime, exchange_, threads);
    inputs_.emplace(config_, ConfigUse::train, folder_.initial_adapter());
    largest_ = largest_slice(config_.train, *inputs_->train, inputs_->task.loss());
  });
  check_same(exchange_, "the resolved config", to_yaml(config_), starting_);
  check_same(exchange_, "the device", placement_.device_name() + " " + placement_.dtype_name(), starting_);
  check_own_devices(exchange_, placement_, starting_);
  if (exchange_.size() == 1) return;
  std::string binary;
  together(exchange_, starting_, [&] { binary = sha256_of_file("/proc/self/exe"); });
  check_same(exchange_, "the SHA-256 of the mezzo executable", binary, starting_);
  check_same(exchange_, "the library of the tokenizer's patterns", pattern_library(), starting_);
  check_same(exchange_, "the MPI library", exchange_.library(), starting_);
}

void Trainer::make_header() {
  // One rank a host reads the weights; their hashes must agree.
  std::string hash;
  std::string tokenizer;
  std::string train_hash;
  std::string validation_hash;  // empty without data.validation
  together(exchange_, starting_, [&] {
    if (exchange_.local_rank() == 0) hash = inputs_->files.hash(placement_.threads);
    tokenizer = tokenizer_hash(config_.model.path);
    train_hash = sha256_of_file(*config_.data.train);
    if (config_.data.validation) validation_hash = sha256_of_file(*config_.data.validation);
  });
  const std::vector<std::string> hashes = agree(exchange_, hash, starting_);
  header_.base_hash = hashes[0];  // rank 0 is the first of its host
  for (int rank = 1; rank < exchange_.size(); ++rank) {
    const std::string& other = hashes[static_cast<std::size_t>(rank)];
    if (other.empty() || other == hashes[0]) continue;
    throw JobFailed(
        {.code = ExitCode::usage,
         .message = fmt::format("model.path: the model's hash of {} differs from that of {}: found "
                                "{}, expected {}",
                                exchange_.name_of_rank(rank), exchange_.name_of_rank(0), other, hashes[0])});
  }
  check_same(exchange_, "the tokenizer's hash", tokenizer, starting_);
  check_same(exchange_, "the data's SHA-256", train_hash + " " + validation_hash, starting_);

  // What a value comes to counts, whether it was written out or left to the model or the adapter.
  Config resolved = config_;
  resolved.data.max_length = max_length_of(config_.data, inputs_->files.description);
  inputs_->space->resolve(resolved);
  header_.identity.push_back({"model.hash", header_.base_hash});
  header_.identity.push_back({tokenizer_key, "sha256:" + tokenizer});
  // Files are what they hold, wherever they lie.
  std::map<std::string, std::string> contents = {{"data.train", train_hash}};
  if (config_.data.validation) contents["data.validation"] = validation_hash;
  if (inputs_->start) contents[inputs_->start->key] = trainables_sha256(inputs_->start->values);
  header_.settings = settings(resolved);
  for (IdentityEntry entry : identity(resolved)) {
    if (const auto found = contents.find(entry.key); found != contents.end()) {
      header_.settings.push_back(entry);  // where it lies, for who leaves the key unwritten
      entry.value = "sha256:" + found->second;
    }
    header_.identity.push_back(std::move(entry));
  }
  header_.identity.push_back({"runtime.device", placement_.device_name()});
  header_.identity.push_back({"runtime.dtype", placement_.dtype_name()});
  header_.base_model = config_.model.path;
  header_.space = inputs_->space;
  header_.optimizer = configure_optimizer(config_.optimizer);
  header_.seed = config_.train.seed;
  header_.noise = config_.zo.noise;
  header_.records = {.directions = config_.zo.directions,
                     .probe_losses = header_.optimizer->reads_probe_losses()
                                         ? static_cast<std::int64_t>(probes_of(0).size())
                                         : 0};
  header_.initial_adapter = inputs_->start.has_value();
}

/// Rank 0 alone looks, at a folder that it locks; everybody gets what it found.
RunStart Trainer::look_at_folder() {
  RunStart start;
  together(exchange_, starting_, [&] {
    if (!leads()) return;
    std::error_code error;
    std::filesystem::create_directories(folder_.snapshots(), error);
    if (error) throw IoError("train.output_dir: cannot create {}: {}", folder_.snapshots(), error.message());
    lock_.emplace(folder_.path);
    start = start_run(config_, *inputs_, folder_, options_.overwrite, header_,
                      [&](const std::string& text) { log_.warning("{}", text); });
  });
  return RunStart::from_text(agree(exchange_, leads() ? start.text() : "", starting_)[0]);
}

// ---- the weights and the work ---------------------------------------------------------------------------

void Trainer::choose_algorithms(const std::map<std::string, std::string>& recorded) {
  const Trainables names = list_trainables(header_.trainables());
  const Description& description = inputs_->files.description;
  const Decoder sizes(static_cast<const DevicePlan&>(*backend_), description,
                      header_.space->perturbations(description, names));
  choose_together(exchange_, *backend_, sizes.workload(largest_, 1), recorded, starting_);
}

void Trainer::build(const RunStart& start) {
  exchange_.doing(Phase::loading, 0);
  if (start.resume) choose_algorithms(header_.fingerprint);  // rank 0 has read the record
  together(exchange_, starting_, [&] {
    // A fresh run's folder holds its start already, so that every start is the one that a replay will take.
    header_ = scan_trajectory(folder_.trajectory(), 0).header;
    const RunState state = nearest_state(folder_, header_, start.step,
                                         [&](const std::string& text) { log_.warning("{}", text); });
    state_ = load_state(*backend_, header_, state);
    replay_records(folder_.trajectory(), header_, state.step, start.step, *backend_, state_);
    decoder_.emplace(*backend_, inputs_->files.description,
                     header_.space->perturbations(inputs_->files.description, state_.trainables));
    runner_.emplace(*backend_, *decoder_);
    if (!inputs_->validation.empty()) evaluator_.emplace(inputs_->validation, inputs_->task);
    const Clock::time_point loading = Clock::now();
    std::size_t bytes = 0;
    decoder_->load(inputs_->files, [&](std::size_t loaded, std::size_t total) {
      log_.status(fmt::format("loading weights: {} of {} MiB", loaded >> 20, total >> 20));
      bytes = loaded;
    });
    log_.status("");
    const double seconds = seconds_since(loading);
    log_.info("loaded {} MiB of weights in {:.1f} s, {:.1f} GB/s", bytes >> 20, seconds,
              1e-9 * static_cast<double>(bytes) / seconds);
    choose_groups(start.step);
  });
  exchange_.doing(Phase::starting, 0);
  const std::map<std::string, std::string> fingerprint = backend_->fingerprint();
  check_same(exchange_, "the backend", nlohmann::json(fingerprint).dump(1), starting_);
  const auto recorded = [&](const std::string& key) {
    const auto found = header_.fingerprint.find(key);
    return found == header_.fingerprint.end() ? std::string("not recorded") : found->second;
  };
  const bool same_kind = recorded("backend") == backend_->name();  // each kind records keys of its own
  for (const auto& [key, value] : fingerprint) {
    const std::string before = recorded(key);
    const bool expected = same_kind || header_.fingerprint.contains(key);
    if (expected && before != value) {
      log_.warning(
          "{} was {} when the run began and is {} now: the steps from here on may differ in their last bits "
          "from those of an uninterrupted run",
          key, before, value);
    }
  }
}

/// Makes the way that the steps' slots take between ranks, and times it.
void Trainer::open_transport() {
  if (exchange_.size() == 1) return;
  const std::size_t words = slots_->words().size();
  transport_ = make_transport(exchange_, *backend_, words, starting_);
  const std::string library = transport_ ? transport_->library() : exchange_.library();
  check_same(exchange_, "the library between ranks", library, starting_);
  log_.info("exchange of {} words over {} by {} ranks: {:.1f} us", words, library, exchange_.size(),
            1e6 * exchange_seconds(exchange_, transport_.get(), words, starting_));
}

void Trainer::choose_groups(std::uint64_t first_step) {
  const auto probes = static_cast<std::int64_t>(probes_of(0).size());
  const std::int64_t slices = config_.train.gradient_accumulation_steps * config_.train.batch_slices;
  slots_.emplace(probes, slices, exchange_.size());
  if (first_step >= max_steps()) {  // at most the last evaluation is left to do
    if (evaluator_) runner_->reserve(evaluator_->largest(), 1);
    return;
  }
  const bool paired = config_.zo.paired();
  // A card is one rank's, a host's memory that of all its ranks.
  const bool shared = placement_.device != DeviceKind::cuda;
  const GroupPlan plan =
      plan_group(*decoder_, *backend_, largest_,
                 {.probes = probes,
                  .share = largest_share(config_.train, *inputs_->train, inputs_->task.loss(), probes, paired,
                                         exchange_.size()),
                  .memory = shared ? available_memory(exchange_.local_size()) : backend_->memory_available(),
                  .paired = paired},
                 config_.zo.probes_per_forward);
  group_ = plan.group;
  planned_bytes_ = plan.activation_bytes + plan.scratch_bytes;
  runner_->reserve(largest_, plan.group);
  if (evaluator_) runner_->reserve(evaluator_->largest(), 1);
}

/// Takes out of metrics.jsonl what is torn or of steps after `step`; whether that step's evaluation is there.
bool Trainer::cut_metrics(std::uint64_t step) {
  bool evaluated = false;
  const JsonLinesCut cut = truncate_json_lines(folder_.metrics(), [&](const nlohmann::json& line) {
    if (!line.is_object() || !line.contains("step") || !line["step"].is_number_unsigned() ||
        line["step"].get<std::uint64_t>() > step)
      return false;
    evaluated = evaluated || (line["step"] == step && line.contains("eval_loss"));
    return true;
  });
  if (cut.malformed > 0) {
    log_.warning("{}: {} lines removed that hold no whole JSON object, the first of them line {}",
                 folder_.metrics(), cut.malformed, cut.first_malformed);
  }
  return evaluated;
}

void Trainer::open_record(const RunStart& start) {
  together(exchange_, starting_, [&] {
    if (!leads()) return;
    write_file_atomically(folder_.config(), to_yaml(config_));
    trajectory_.emplace(RecordWriter(folder_.trajectory(), start.valid_bytes),
                        static_cast<std::uint64_t>(config_.train.trajectory_sync_steps));
    const bool evaluated = cut_metrics(start.step);
    metrics_.emplace(folder_.metrics());
    const auto interval = static_cast<std::uint64_t>(config_.train.eval_steps);
    evaluation_due_ = !evaluated && (start.step % interval == 0 || start.step >= max_steps());
  });
  const std::vector<std::string> due = agree(exchange_, evaluation_due_ ? "due" : "", starting_);
  evaluation_due_ = !due[0].empty();
}

void Trainer::print_start(std::uint64_t first_step) {
  reporter_.emplace(log_, first_step, max_steps());
  const std::string mine =
      fmt::format("{}\t{}\t{}\t{}\t{} MiB weights, {} MiB activations", exchange_.host(), backend_->device(),
                  placement_.threads, group_, decoder_->weight_bytes() >> 20, planned_bytes_ >> 20);
  std::vector<std::vector<std::string>> rows = {
      {"rank", "host", "device", "threads", "probes a forward", "memory"}};
  const std::vector<std::string> all = agree(exchange_, mine, starting_);
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    std::vector<std::string> row = {std::to_string(rank)};
    std::size_t begin = 0;
    for (std::size_t end = 0; end != std::string::npos; begin = end + 1) {
      end = all[rank].find('\t', begin);
      row.push_back(all[rank].substr(begin, end - begin));
    }
    rows.push_back(std::move(row));
  }
  reporter_->table(rows);
  log_.info("model {} ({} layers, {} perturbed from layer {} on), {} trainable numbers in {} tensors",
            config_.model.path, inputs_->files.description.layers,
            inputs_->files.description.layers - decoder_->first_perturbed_layer(),
            decoder_->first_perturbed_layer(), state_.trainables.count(), state_.trainables.list.size());
  log_.info("{} training examples, {} validation examples", inputs_->train->size(),
            inputs_->validation.size());
  reporter_->first_example(inputs_->task, *inputs_->tokenizer, *inputs_->train->at(0, 1)[0]);
  if (first_step > 0) log_.info("going on from step {}", first_step);
}

// ---- the steps ------------------------------------------------------------------------------------------

/// Rank 0 says, once a run, which rank the others wait for.
void Trainer::watch_speed(std::uint64_t step, const StepUnits& units, std::span<const WorkShare> shares) {
  std::vector<std::int64_t> loads;
  for (const WorkShare& share : shares) loads.push_back(load_of(units, share));
  if (const auto slow = speed_.see(slots_->work_seconds(), loads)) {
    log_.warning(
        "step {}: {} takes {:.2g} times as long for its work as the median rank, and every step "
        "waits for it (over the last {} steps)",
        step + 1, exchange_.name_of_rank(slow->rank), slow->factor, SpeedWatch::window);
  }
}

/// Does step `step` (0-based) on all ranks; true when one of them was asked to stop.
bool Trainer::do_step(std::uint64_t step) {
  const Clock::time_point start = Clock::now();
  exchange_.doing(Phase::forward, step + 1);
  const std::vector<Probe> probes = probes_of(step);
  const std::vector<std::vector<const Example*>> slices = slices_of(config_.train, *inputs_->train, step);
  const StepItems items{.probes = probes,
                        .slices = slices,
                        .loss = inputs_->task.loss(),
                        .noise = config_.zo.noise,
                        .paired = config_.zo.paired()};
  const StepUnits units = items.units();
  const std::vector<WorkShare> shares = share_out(units, exchange_.size());
  evaluate_items(*runner_, items, items_of(units, shares[static_cast<std::size_t>(exchange_.rank())], group_),
                 exchange_.rank(), *slots_);
  const bool hash_due = step % static_cast<std::uint64_t>(config_.train.hash_steps) == 0;
  if (hash_due) slots_->set_hash(exchange_.rank(), backend_->hash(state_.trainables));
  if (stop_.requested()) slots_->set_stop(exchange_.rank());

  const Clock::time_point exchange_start = Clock::now();
  require_complete(exchange_, exchange_.sum(slots_->words(), patience_for(longest_step_), transport_.get()));
  exchange_.doing(Phase::update, step + 1);
  const double exchanged = seconds_since(exchange_start);
  longest_step_ = std::max(longest_step_, Seconds(std::ranges::max(slots_->work_seconds())));
  if (hash_due) slots_->check_hashes(static_cast<std::int64_t>(step));
  const std::vector<ProbeLoss> losses = slots_->losses(probes, static_cast<std::int64_t>(step));
  const Estimate estimate = estimator_->estimate(losses);

  StepRecord record{.step = step,
                    .learning_rate = schedule_.at(static_cast<std::int64_t>(step)),
                    .coefficients = estimate.coefficients,
                    .loss = estimate.loss,
                    .gradient_norm = estimate.gradient_norm()};
  if (header_.records.probe_losses > 0) {
    for (const ProbeLoss& loss : losses)
      record.probe_losses.push_back(loss.good ? loss.mean() : std::nan(""));
  }
  header_.optimizer->apply(record, header_.run_noise(), *backend_, state_.trainables, state_.optimizer);

  divergence_.see(step + 1, estimate.loss, log_);
  if (leads()) watch_speed(step, units, shares);
  const std::int64_t tokens = load_of(units, {.first = 0, .count = units.count()});  // of all probes
  const StepMetrics metrics{.step = step + 1,
                            .loss = estimate.loss,
                            .projected_gradient_norm = record.gradient_norm,
                            .learning_rate = static_cast<double>(record.learning_rate),
                            .tokens_per_second = static_cast<double>(tokens) / seconds_since(start),
                            .seconds = seconds_since(began_)};
  const bool log_line = metrics.step % static_cast<std::uint64_t>(config_.train.logging_steps) == 0 ||
                        metrics.step == max_steps();
  if (estimate.dropped > 0 && (log_line || !dropped_)) {
    log_.warning("step {}: {} of {} directions were dropped, because a loss was not finite", metrics.step,
                 estimate.dropped, config_.zo.directions);
  }
  dropped_ = estimate.dropped > 0;
  if (leads()) {
    reporter_->step(metrics, log_line);
    if (log_line) {
      nlohmann::ordered_json line = {{"step", metrics.step},
                                     {"loss", metrics.loss},
                                     {"projected_gradient_norm", metrics.projected_gradient_norm},
                                     {"learning_rate", metrics.learning_rate},
                                     {"tokens_per_second", metrics.tokens_per_second},
                                     {"seconds", metrics.seconds}};
      std::vector<double> work = slots_->work_seconds();
      work.resize(std::min(work.size(), static_cast<std::size_t>(units.count())));  // the others idle
      line["work_seconds_min"] = std::ranges::min(work);
      line["work_seconds_max"] = std::ranges::max(work);
      line["exchange_seconds"] = exchanged;
      if (estimate.dropped > 0) line["dropped_directions"] = estimate.dropped;
      metrics_->append(line);
    }
    trajectory_->append(encode(record));  // last: a resumed run cuts metrics to the steps that are committed
  }
  return slots_->stop_requested();
}

void Trainer::evaluate(std::uint64_t steps_done) {
  if (!evaluator_) return;
  exchange_.doing(Phase::evaluation, steps_done);
  const Clock::time_point start = Clock::now();
  const Evaluation evaluation = evaluator_->run(*runner_, exchange_, patience_for(longest_evaluation_));
  longest_evaluation_ = std::max(longest_evaluation_, Seconds(seconds_since(start)));
  if (!leads()) return;
  reporter_->evaluation(steps_done, evaluation);
  nlohmann::ordered_json line = {{"step", steps_done}};
  line["eval_accuracy"] =
      evaluation.accuracy ? nlohmann::ordered_json(*evaluation.accuracy) : nlohmann::ordered_json(nullptr);
  line["eval_loss"] = evaluation.loss;
  metrics_->append(line);
}

void Trainer::save(std::uint64_t steps_done) {
  if (!leads() || saved_step_ == steps_done) return;
  exchange_.doing(Phase::saving, steps_done);
  metrics_->sync();
  trajectory_->flush();  // the trajectory is on disk through the step before its snapshot is
  write_snapshot(folder_.snapshot(steps_done), header_, read_state(*backend_, state_, steps_done));
  prune_snapshots(folder_.snapshots(), static_cast<std::size_t>(config_.train.save_total_limit), steps_done);
  saved_step_ = steps_done;
}

void Trainer::write_final_adapter() {
  if (!leads()) return;
  header_.space->write_adapter(folder_.adapter(), inputs_->files.description,
                               read_values(*backend_, state_.trainables), config_.model.path);
}

TrainResult Trainer::finish(std::uint64_t steps_done, bool stopped) {
  check_same(exchange_, "the hash of the trainables",
             fmt::format("{:016x}", backend_->hash(state_.trainables)), starting_, ExitCode::error);
  const bool goes_on = stopped && steps_done < max_steps();
  together(exchange_, starting_, [&] {
    save(steps_done);
    if (leads()) trajectory_->close();
    if (!goes_on) write_final_adapter();
  });
  if (leads()) reporter_->end_bar();
  if (goes_on) {
    log_.info("stopped after step {}; the same command goes on from there", steps_done);
    return TrainResult::stopped;
  }
  log_.info("done: {} steps in {:.1f} s; the adapter is in {}", steps_done, seconds_since(began_),
            folder_.adapter());
  return TrainResult::finished;
}

TrainResult Trainer::run() {
  open();
  make_header();
  together(exchange_, starting_, [&] { backend_ = make_backend(placement_.backend_options()); });
  choose_algorithms({});
  header_.fingerprint = backend_->fingerprint();
  const RunStart start = look_at_folder();
  if (start.finished) {
    together(exchange_, starting_, [&] {
      if (leads()) cut_metrics(start.step);
    });
    log_.info("{}: the run has finished its {} steps", folder_.path, start.step);
    return TrainResult::already_finished;
  }
  std::istringstream resolved(to_yaml(config_));
  for (std::string line; std::getline(resolved, line);) log_.info("{}", line);
  build(start);
  open_transport();
  open_record(start);
  print_start(start.step);

  began_ = Clock::now();
  if (evaluation_due_) evaluate(start.step);
  bool stopped = false;
  std::uint64_t done = start.step;
  while (done < max_steps() && !stopped) {
    stopped = do_step(done);
    ++done;
    // A run that is to stop leaves an evaluation to the one that goes on with it.
    const bool due = done % static_cast<std::uint64_t>(config_.train.eval_steps) == 0 && !stopped;
    if (due || done == max_steps()) evaluate(done);
    // How long a disk takes is not a step's time: the others wait for it by themselves.
    if (done % static_cast<std::uint64_t>(config_.train.save_steps) == 0)
      together(exchange_, starting_, [&] { save(done); });
  }
  return finish(done, stopped);
}

}  // namespace

TrainResult train(const Config& config, const TrainOptions& options, Exchange& exchange,
                  const StopSignal& stop, Logger& log) {
  // What the config leaves unwritten stays as it was when the run began.
  const Patience starting = loading_patience(config.runtime);
  std::string record;
  together(exchange, starting, [&] {
    if (exchange.rank() != 0) return;
    if (const auto header = run_to_continue(config, options.overwrite)) record = header->to_json();
  });
  record = agree(exchange, record, starting)[0];
  if (record.empty()) return Trainer(config, options, exchange, stop, log).run();
  const Config resumed = resumed_config(config, RunHeader::from_json(record, "the run's record"));
  if (const std::string text = taken_over(config, resumed); !text.empty()) {
    log.info("the config leaves to the run that goes on: {}", text);
  }
  return Trainer(resumed, options, exchange, stop, log).run();
}

}  // namespace mezzo
