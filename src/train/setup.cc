#include "mezzo/train/setup.h"

#include <chrono>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "mezzo/comm/together.h"
#include "mezzo/core/error.h"
#include "mezzo/core/limits.h"
#include "mezzo/data/pattern.h"
#include "mezzo/data/unicode.h"
#include "mezzo/io/sha256.h"
#include "mezzo/train/ranks.h"

namespace mezzo {

namespace {

using Clock = std::chrono::steady_clock;

/// The libraries that say what a character is to a tokenizer, by their keys in a run's fingerprint.
std::map<std::string, std::string> tokenizer_libraries() {
  return {{"tokenizer_patterns", pattern_library()}, {"tokenizer_normal_forms", unicode_library()}};
}

/// What files hold, for a run's identity.
std::string content_of(const std::vector<TrainFile>& files) {
  if (files.size() == 1) return sha256_of_file(files[0].path);
  std::string text;
  for (const TrainFile& file : files) {
    text += fmt::format("{}{} of weight {}", text.empty() ? "" : ", sha256:", sha256_of_file(file.path),
                        file.weight);
  }
  return text;
}

class Setup {
 public:
  Setup(const Config& config, const TrainOptions& options, Exchange& exchange, Logger& log)
      : config_(config),
        options_(options),
        exchange_(exchange),
        log_(log),
        patience_(loading_patience(config.runtime)) {
    run_.folder = {config.train.output_dir.value()};
  }

  RunSetup make();
  RunSetup make_trial();

 private:
  bool leads() const { return exchange_.rank() == 0; }

  void open();
  void make_header();
  void look_at_folder();
  void show_config();
  void choose_algorithms(const std::map<std::string, std::string>& recorded);
  void open_backend();
  void load(void (Setup::*load_state)());
  void load_run();
  void load_initial();
  void load_weights();
  void plan_forwards();
  void compare_fingerprint();
  void connect();

  const Config& config_;
  const TrainOptions& options_;
  Exchange& exchange_;
  Logger& log_;
  const Patience patience_;
  BatchShape largest_;  ///< of all steps' slices
  RunSetup run_;
};

// ---- before the weights ---------------------------------------------------------------------------------

void Setup::open() {
  const int threads = threads_of_rank(exchange_, patience_);
  together(exchange_, patience_, [&] {
    run_.placement = place(config_.runtime, exchange_, threads);
    run_.inputs = std::make_unique<Inputs>(config_, ConfigUse::train, run_.folder.initial_adapter());
    largest_ = largest_slice(config_.train, *run_.inputs->train, *run_.inputs->objective);
  });
  check_same(exchange_, "the resolved config", to_yaml(config_), patience_);
  check_same(exchange_, "the device", run_.placement.device_name() + " " + run_.placement.dtype_name(),
             patience_);
  check_own_devices(exchange_, run_.placement, patience_);
  if (exchange_.size() == 1) return;
  std::string binary;
  together(exchange_, patience_, [&] { binary = sha256_of_file("/proc/self/exe"); });
  check_same(exchange_, "the SHA-256 of the mezzo executable", binary, patience_);
  check_same(exchange_, "the tokenizer's libraries", nlohmann::json(tokenizer_libraries()).dump(1),
             patience_);
  check_same(exchange_, "the MPI library", exchange_.library(), patience_);
}

void Setup::make_header() {
  // One rank a host reads the weights; their hashes must agree.
  std::string hash;
  const std::string& tokenizer = run_.inputs->tokenizer_hash;
  std::string train_hash;       // of several files each, with its weight
  std::string validation_hash;  // empty without data.validation
  together(exchange_, patience_, [&] {
    if (exchange_.local_rank() == 0) hash = run_.inputs->files.hash(run_.placement.threads);
    train_hash = content_of(config_.data.train);
    if (config_.data.validation) validation_hash = sha256_of_file(*config_.data.validation);
  });
  const std::vector<std::string> hashes = agree(exchange_, hash, patience_);
  run_.header.base_hash = hashes[0];  // rank 0 is the first of its host
  for (int rank = 1; rank < exchange_.size(); ++rank) {
    const std::string& other = hashes[static_cast<std::size_t>(rank)];
    if (other.empty() || other == hashes[0]) continue;
    throw JobFailed(
        {.code = ExitCode::usage,
         .message = fmt::format("model.path: the model's hash of {} differs from that of {}: found "
                                "{}, expected {}",
                                exchange_.name_of_rank(rank), exchange_.name_of_rank(0), other, hashes[0])});
  }
  check_same(exchange_, "the tokenizer's hash", tokenizer, patience_);
  check_same(exchange_, "the data's SHA-256", train_hash + " " + validation_hash, patience_);

  const Inputs& inputs = *run_.inputs;
  RunHeader& header = run_.header;
  // What a value comes to counts, whether it was written out or left to the model or the adapter.
  Config resolved = config_;
  resolved.data.max_length = max_length_of(config_.data, inputs.files.description);
  inputs.space->resolve(resolved);
  header.identity.push_back({"model.hash", header.base_hash});
  header.identity.push_back({tokenizer_key, "sha256:" + tokenizer});
  // Files are what they hold, wherever they lie.
  std::map<std::string, std::string> contents = {{"data.train", train_hash}};
  if (config_.data.validation) contents["data.validation"] = validation_hash;
  if (inputs.start) contents[inputs.start->key] = trainables_sha256(inputs.start->values);
  header.settings = settings(resolved);
  for (IdentityEntry entry : identity(resolved)) {
    if (const auto found = contents.find(entry.key); found != contents.end()) {
      header.settings.push_back(entry);  // where it lies, for who leaves the key unwritten
      entry.value = "sha256:" + found->second;
    }
    header.identity.push_back(std::move(entry));
  }
  header.identity.push_back({"runtime.device", run_.placement.device_name()});
  header.identity.push_back({"runtime.dtype", run_.placement.dtype_name()});
  header.base_model = config_.model.path;
  header.space = inputs.space;
  header.optimizer = configure_optimizer(config_.optimizer);
  header.seed = config_.train.seed;
  header.noise = config_.zo.noise;
  header.resample_steps = config_.zo.resample_steps;
  header.records = {.directions = config_.zo.directions,
                    .probe_losses = header.optimizer->reads_probe_losses() ? probes_of_step(config_.zo) : 0,
                    .estimator = static_cast<std::int64_t>(estimator_of(step_rule(config_))->state_size())};
  header.initial_adapter = inputs.start.has_value();
}

/// Rank 0 alone looks, at a folder that it locks; everybody gets what it found.
void Setup::look_at_folder() {
  RunStart start;
  together(exchange_, patience_, [&] {
    if (!leads()) return;
    std::error_code error;
    std::filesystem::create_directories(run_.folder.path, error);
    if (error) throw IoError("train.output_dir: cannot create {}: {}", run_.folder.path, error.message());
    run_.lock.emplace(run_.folder.path);
    start = start_run(config_, *run_.inputs, run_.folder, options_.overwrite, run_.header, warn_to(log_));
  });
  run_.start = RunStart::from_text(agree(exchange_, leads() ? start.text() : "", patience_)[0]);
}

void Setup::show_config() {
  if (options_.show_config) {
    std::istringstream resolved(to_yaml(config_));
    for (std::string line; std::getline(resolved, line);) log_.info("{}", line);
    return;
  }
  log_.info("config, but for defaults (--show-config for all):");
  for (const IdentityEntry& entry : changed_from_defaults(config_))
    log_.info("  {}: {}", entry.key, entry.value);
}

// ---- the weights and the work ---------------------------------------------------------------------------

void Setup::choose_algorithms(const std::map<std::string, std::string>& recorded) {
  const Trainables names = list_trainables(run_.header.trainables());
  const Description& description = run_.inputs->files.description;
  const Decoder sizes(static_cast<const DevicePlan&>(*run_.backend), description,
                      run_.header.space->perturbations(description, names));
  choose_together(exchange_, *run_.backend, sizes.workload(largest_, 1), recorded, patience_);
}

/// The trainables of the step that the run goes on from.
void Setup::load_run() {
  const Warn warn = warn_to(log_);
  const std::string trajectory = run_.folder.trajectory();
  // A fresh run's folder holds its start already, so that every start is the one that a replay will take.
  run_.header = scan_trajectory(trajectory, 0).header;
  const RunState state = nearest_state(run_.folder, run_.header, run_.start.step, warn);
  run_.model =
      std::make_unique<LoadedModel>(*run_.backend, run_.inputs->files.description, *run_.header.space,
                                    load_state(*run_.backend, run_.header, state));
  replay_records(trajectory, run_.header, state.step, run_.start.step, *run_.backend, run_.model->state);
}

/// The trainables that the config begins with.
void Setup::load_initial() {
  const std::vector<float> values = run_.inputs->initial_values(config_);
  run_.model = std::make_unique<LoadedModel>(
      *run_.backend, run_.inputs->files.description, *run_.header.space,
      begin_state(*run_.backend, run_.header.trainables(), values, *run_.header.optimizer));
}

void Setup::load_weights() {
  const Clock::time_point loading = Clock::now();
  std::size_t bytes = 0;
  run_.model->decoder.load(run_.inputs->files, [&](std::size_t loaded, std::size_t total) {
    log_.status(fmt::format("loading weights: {} of {} MiB", loaded >> 20, total >> 20));
    bytes = loaded;
  });
  log_.status("");
  const double seconds = Seconds(Clock::now() - loading).count();
  log_.info("loaded {} MiB of weights in {:.1f} s, {:.1f} GB/s", bytes >> 20, seconds,
            1e-9 * static_cast<double>(bytes) / seconds);
}

/// Makes room for the steps' forwards and the evaluations'.
void Setup::plan_forwards() {
  // A card is one rank's, a host's memory that of all its ranks.
  const bool shared = run_.placement.device != DeviceKind::cuda;
  LoadedModel& model = *run_.model;
  if (!run_.inputs->validation.empty())
    run_.evaluator =
        make_evaluator(run_.inputs->validation, run_.inputs->task, run_.inputs->generation.get());
  // A run that has no step left has at most its last evaluation to do.
  if (run_.start.step < static_cast<std::uint64_t>(config_.train.max_steps)) {
    const GroupLimits limits =
        group_limits(config_, *run_.inputs->train, *run_.inputs->objective, exchange_.size(),
                     shared ? available_memory(exchange_.local_size()) : run_.backend->memory_available());
    run_.plan = plan_group(model.decoder, *run_.backend, largest_, limits, config_.zo.probes_per_forward);
    model.runner.reserve(largest_, run_.plan.group);
  }
  if (run_.evaluator) model.runner.reserve(run_.evaluator->largest(), 1);
}

/// Holds what can change bits against the other ranks and against what the run was begun with.
void Setup::compare_fingerprint() {
  const std::map<std::string, std::string> fingerprint = run_.backend->fingerprint();
  for (const auto& [key, library] : tokenizer_libraries()) {
    const auto before = run_.header.fingerprint.find(key);
    if (before == run_.header.fingerprint.end() || before->second == library) continue;
    log_.warning(
        "the tokenizer ran with {} when the run began and runs with {} now: characters that only the newer "
        "of the two knows may have other ids",
        before->second, library);
  }
  check_same(exchange_, "the backend", nlohmann::json(fingerprint).dump(1), patience_);
  const auto recorded = [&](const std::string& key) {
    const auto found = run_.header.fingerprint.find(key);
    return found == run_.header.fingerprint.end() ? std::string("not recorded") : found->second;
  };
  const bool same_kind = recorded("backend") == run_.backend->name();  // each kind records keys of its own
  for (const auto& [key, value] : fingerprint) {
    const std::string before = recorded(key);
    const bool is_new = key == "libm";  // records of before have none, which says nothing
    const bool expected = (same_kind && !is_new) || run_.header.fingerprint.contains(key);
    if (expected && before != value) {
      log_.warning(
          "{} was {} when the run began and is {} now: the steps from here on may differ in their last bits "
          "from those of an uninterrupted run",
          key, before, value);
    }
  }
}

void Setup::connect() {
  const StepShape shape{.slices = slices_of_step(config_.train), .group = run_.plan.group};
  StepRule rule = step_rule(config_);
  rule.noise = run_.header.run_noise();
  rule.optimizer = run_.header.optimizer;
  run_.step = std::make_unique<Step>(rule, shape, *run_.inputs->objective, *run_.model, exchange_);
  if (exchange_.size() == 1) return;
  Step& step = *run_.step;
  step.connect(patience_);
  check_same(exchange_, "the library between ranks", step.library(), patience_);
  log_.info("exchange of {} words over {} by {} ranks: {:.1f} us", step.words(), step.library(),
            exchange_.size(), 1e6 * step.time_exchange(patience_));
}

void Setup::open_backend() {
  together(exchange_, patience_, [&] { run_.backend = make_backend(run_.placement.backend_options()); });
  choose_algorithms({});
  run_.header.fingerprint = run_.backend->fingerprint();
  run_.header.fingerprint.merge(tokenizer_libraries());
}

/// Makes the model, whose trainables `load_state` loads, and gets ready for steps.
void Setup::load(void (Setup::*load_state)()) {
  together(exchange_, patience_, [&] {
    if (run_.inputs->generation) {
      // It outlives this set-up: what it warns through is the caller's.
      run_.inputs->generation->start_grader(
          {.rank = exchange_.rank(),
           .log_folder = run_.folder.path,
           .warn = [&log = log_, &exchange = exchange_](const std::string& line) {
             log.warning("{}: {}", exchange.name_of_rank(exchange.rank()), line);
           }});
    }
    (this->*load_state)();
    load_weights();
    plan_forwards();
  });
  exchange_.doing(Phase::starting, 0);
  compare_fingerprint();
  connect();
}

RunSetup Setup::make_trial() {
  open();
  make_header();
  open_backend();
  exchange_.doing(Phase::loading, 0);
  load(&Setup::load_initial);
  return std::move(run_);
}

RunSetup Setup::make() {
  open();
  make_header();
  open_backend();
  look_at_folder();
  if (run_.start.finished) return std::move(run_);

  show_config();
  for (const std::string& warning : run_.inputs->warnings) log_.warning("{}", warning);
  exchange_.doing(Phase::loading, 0);
  if (run_.start.resume) choose_algorithms(run_.header.fingerprint);  // rank 0 has read the record
  load(&Setup::load_run);
  return std::move(run_);
}

}  // namespace

RunSetup run_setup(const Config& config, const TrainOptions& options, Exchange& exchange, Logger& log) {
  return Setup(config, options, exchange, log).make();
}

RunSetup trial_setup(const Config& config, Exchange& exchange, Logger& log) {
  return Setup(config, {}, exchange, log).make_trial();
}

}  // namespace mezzo
