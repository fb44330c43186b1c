#include "mezzo/train/inputs.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <set>
#include <span>

#include "mezzo/comm/together.h"
#include "mezzo/core/error.h"
#include "mezzo/core/limits.h"
#include "mezzo/io/files.h"
#include "mezzo/io/sha256.h"
#include "mezzo/train/best_step.h"
#include "mezzo/train/capacity.h"
#include "mezzo/zo/optimizer.h"

namespace mezzo {

namespace {

/// Where the XDG base directory specification puts what can be made again; "" without a home.
std::string algorithm_store() {
  const auto set = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value == nullptr ? "" : value);
  };
  std::string cache = set("XDG_CACHE_HOME");
  if (cache.empty() && !set("HOME").empty()) cache = set("HOME") + "/.cache";
  return cache.empty() ? "" : cache + "/mezzo/matrix_products";
}

/// The template of a chat; nothing for other tasks.
std::optional<ChatTemplate> chat_template_of(const Config& config, const Tokenizer& tokenizer) {
  if (config.data.task.type != TaskType::chat) return std::nullopt;
  std::optional<ChatTemplate> chat = ChatTemplate::load(config.model.path, tokenizer);
  if (chat) return chat;
  throw InputError(
      "{}: has no chat template, which data.task.type: chat needs; expected chat_template.jinja there (that "
      "of the model's chat version, for example), or chat_template in tokenizer_config.json",
      config.model.path);
}

/// Everything of an example that the model sees.
Sha256Digest digest_of(const Example& example) {
  Sha256 hash;
  const auto add = [&](const auto& list) {
    const std::uint64_t size = list.size();
    hash.update(std::as_bytes(std::span(&size, 1)));
    hash.update(std::as_bytes(std::span(list)));
  };
  add(example.prompt);
  add(example.calibration);
  for (const auto& option : example.options) add(option);
  const std::int32_t label[] = {example.label};
  add(std::span(label));
  return hash.finish();
}

/// Warnings of validation examples that the training sees too.
std::vector<std::string> leaks(std::span<const Example> train, std::span<const Example> validation,
                               const DataConfig& config) {
  if (validation.empty()) return {};
  std::set<Sha256Digest> trained;
  for (const Example& example : train) trained.insert(digest_of(example));
  const auto count = std::ranges::count_if(
      validation, [&](const Example& example) { return trained.contains(digest_of(example)); });
  if (count == 0) return {};
  const char* key = config.validation ? "data.validation" : "data.validation_fraction";
  return {
      fmt::format("{}: {} of {} validation examples are training examples too: evaluations on them say "
                  "what was learnt by heart",
                  key, static_cast<std::size_t>(count) == validation.size() ? "all" : std::to_string(count),
                  validation.size())};
}

}  // namespace

Seconds tolerated_silence(const RuntimeConfig& config) {
  return std::max(Seconds(config.timeout_s), Seconds(0.2));
}

Patience loading_patience(const RuntimeConfig& config) {
  constexpr double loading_timeouts = 20.0;
  const Seconds silence = tolerated_silence(config);
  return {.silence = std::min(silence, starting_patience.silence), .work = loading_timeouts * silence};
}

BackendOptions Placement::backend_options() const {
  return {.device = device,
          .fp32 = fp32,
          .threads = threads,
          .device_index = device_index,
          .store = algorithm_store()};
}

std::string Placement::device_name() const {
  switch (device) {
    case DeviceKind::reference:
      return "reference";
    case DeviceKind::cpu:
      return "cpu";
    case DeviceKind::cuda:
      return "cuda";
  }
  return "";
}

std::string Placement::dtype_name() const { return fp32 ? "fp32" : "bf16"; }

int threads_of_rank(Exchange& exchange, Patience patience) {
  const std::vector<std::string> all = agree(exchange, text_of(allowed_processors()), patience);
  std::vector<ProcessorSet> here;  // of the ranks on this host
  std::size_t own = 0;
  for (int rank = 0; rank < exchange.size(); ++rank) {
    if (!exchange.share_host(rank, exchange.rank())) continue;
    if (rank == exchange.rank()) own = here.size();
    here.push_back(processor_set(all[static_cast<std::size_t>(rank)]));
  }
  return fair_threads(here, own, processor_quota());
}

Placement place(const RuntimeConfig& config, const Exchange& exchange, int threads) {
  // Before inputs are read: where an allocation fails in a library, nothing can be said any more.
  if (available_memory(exchange.local_size()) == 0) {
    throw DeviceError(
        "no memory is left for a run: ulimit -v or -d, or a control group of this process, leaves nothing "
        "beside what programs and libraries take");
  }
  std::string reason;
  if (config.device == Device::cuda && !cuda_available(&reason))
    throw DeviceError("runtime.device: cuda was asked for, but {}", reason);
  Placement placement = plan_placement(config, exchange.local_size());
  if (!config.threads) placement.threads = threads;
  if (placement.device != DeviceKind::cuda) return placement;
  const std::vector<CudaDevice> devices = cuda_devices();
  placement.device_index = devices.size() == 1 ? 0 : exchange.local_rank();
  if (placement.device_index >= static_cast<int>(devices.size())) {
    throw DeviceError(
        "runtime.device: {} ranks were started on {}, which has {} GPUs; start one rank a GPU, or set "
        "runtime.device: cpu",
        exchange.local_size(), exchange.host(), devices.size());
  }
  placement.device_uuid = devices[static_cast<std::size_t>(placement.device_index)].uuid;
  return placement;
}

void check_own_devices(Exchange& exchange, const Placement& placement, Patience patience) {
  const std::vector<std::string> uuids = agree(exchange, placement.device_uuid, patience);
  for (auto uuid = uuids.begin(); uuid != uuids.end(); ++uuid) {
    const auto first = std::find(uuids.begin(), uuid, *uuid);
    if (uuid->empty() || first == uuid) continue;
    throw JobFailed(
        {.code = ExitCode::usage,
         .message = fmt::format("{} and {} would share the GPU {}; start one rank a GPU, or set "
                                "runtime.device: cpu",
                                exchange.name_of_rank(static_cast<int>(first - uuids.begin())),
                                exchange.name_of_rank(static_cast<int>(uuid - uuids.begin())), *uuid)});
  }
}

Placement place_together(const RuntimeConfig& config, Exchange& exchange, Patience patience) {
  Placement placement;
  const int threads = threads_of_rank(exchange, patience);
  together(exchange, patience, [&] { placement = place(config, exchange, threads); });
  check_own_devices(exchange, placement, patience);
  return placement;
}

Placement plan_placement(const RuntimeConfig& config, int local_ranks) {
  Placement placement;
  switch (config.device) {
    case Device::automatic:
      placement.device = cuda_available(nullptr) ? DeviceKind::cuda : DeviceKind::cpu;
      break;
    case Device::cpu:
      placement.device = DeviceKind::cpu;
      break;
    case Device::reference:
      placement.device = DeviceKind::reference;
      break;
    case Device::cuda:
      placement.device = DeviceKind::cuda;
      break;
  }
  const bool cuda = placement.device == DeviceKind::cuda;
  if (config.dtype == Precision::bf16 && !cuda) {
    throw UsageError("runtime.dtype: bf16 is served on cuda only; the {} backend computes in fp32",
                     placement.device_name());
  }
  placement.fp32 = !cuda || config.dtype == Precision::fp32;
  const std::vector<ProcessorSet> unbound(static_cast<std::size_t>(local_ranks), allowed_processors());
  placement.threads =
      config.threads ? static_cast<int>(*config.threads) : fair_threads(unbound, 0, processor_quota());
  return placement;
}

std::int64_t max_length_of(const DataConfig& config, const Description& description) {
  const std::int64_t length = config.max_length.value_or(description.max_positions);
  if (length > description.max_positions) {
    throw UsageError("data.max_length: {} tokens, but the model has {}", length,
                     description.positions_text());
  }
  return length;
}

WorkInputs::WorkInputs(const Description& description, const Config& config, ConfigUse use,
                       const std::string& saved_adapter)
    : tokenizer(load_tokenizer(config.model.path, description.vocabulary,
                               use == ConfigUse::train ? &tokenizer_hash : nullptr)),
      task(config.data.task, *tokenizer, max_length_of(config.data, description),
           chat_template_of(config, *tokenizer), config.generation.max_new_tokens),
      generation(task.generates() ? std::make_unique<RewardedGeneration>(config, *tokenizer, description,
                                                                         end_tokens(config.model.path))
                                  : nullptr),
      objective(generation ? make_generation(*generation) : make_likelihood(task.loss_rule())) {
  ConfiguredSpace configured = configure_space(config, description, saved_adapter);
  space = std::move(configured.space);
  start = std::move(configured.start);
  const std::int64_t max_length = max_length_of(config.data, description);
  RecordCounts counts;
  std::vector<ExampleFile> files;
  if (use == ConfigUse::train || config.data.validation_fraction) {
    for (const TrainFile& file : config.data.train)
      files.push_back({file.path, task.read(file.path, config.data.format, &counts), file.weight});
  }
  warnings = warnings_of(counts, config.data.task, "data.train", max_length);
  if (config.data.validation) {
    RecordCounts validation_counts;
    validation = task.read(*config.data.validation, config.data.format, &validation_counts);
    std::ranges::move(warnings_of(validation_counts, config.data.task, "data.validation", max_length),
                      std::back_inserter(warnings));
  }
  if (const auto fraction = config.data.validation_fraction)
    validation = hold_out(files, *fraction, config.train.data_seed);
  if (use == ConfigUse::train) {
    check_metric(config.train, task);
    // The template decides the ids as the tokenizer does.
    if (task.chat()) tokenizer_hash = sha256_of(bytes_of(tokenizer_hash + task.chat()->source()));
    train.emplace(std::move(files), config.train.data_seed, config.data.max_train_examples.value_or(0));
    const std::size_t memory = available_memory(1);
    if (!start) {
      const std::vector<TrainableSpec> kept =
          configure_optimizer(config.optimizer)->state(space->trainables());
      if (space->has_adapter()) {
        check_trainables_fit(space->trainables(), element_count(kept), config.lora.r.value(), memory);
      } else {
        check_weights_fit(space->kind(), space->trainables(), element_count(kept), memory);
      }
    }
    double tokens = 0.0;
    for (const Example& example : train->examples())
      tokens += static_cast<double>(objective->tokens_of(example));
    check_step_fits(config, tokens / static_cast<double>(train->size()), memory);
    std::ranges::move(leaks(train->examples(), validation, config.data), std::back_inserter(warnings));
  }
}

}  // namespace mezzo
