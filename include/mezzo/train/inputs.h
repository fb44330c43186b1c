#pragma once
// What a config names, opened and checked before any weight is loaded.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mezzo/comm/exchange.h"
#include "mezzo/core/config.h"
#include "mezzo/data/stream.h"
#include "mezzo/model/lora.h"
#include "mezzo/model/model_files.h"

namespace mezzo {

/// The device, the precision and the threads that a config's `runtime` section comes down to on this machine.
struct Placement {
  DeviceKind device = DeviceKind::cpu;
  bool fp32 = true;
  int threads = 1;

  BackendOptions backend_options(int local_rank) const;
  std::string device_name() const;  ///< "cpu", "cuda", "reference": part of a run's identity
  std::string dtype_name() const;   ///< "fp32", "bf16"
};
/// UsageError when the combination is not served, DeviceError when the device is not there.
Placement place(const RuntimeConfig& config, const Exchange& exchange);

/// Model, tokenizer, data and adapter of a config. Not movable: the task refers to the tokenizer.
class Inputs {
 public:
  /// Opens data.train only for ConfigUse::train. `saved_adapter`: a run's own copy of lora.adapter, taken
  /// when the original is gone; "" for none.
  Inputs(const Config& config, ConfigUse use, const std::string& saved_adapter);
  Inputs(const Inputs&) = delete;
  Inputs& operator=(const Inputs&) = delete;

  ModelFiles files;
  std::unique_ptr<Tokenizer> tokenizer;
  Task task;
  std::optional<ExampleStream> train;
  std::vector<Example> validation;  ///< empty without data.validation
  std::optional<Adapter> start;     ///< lora.adapter
  AdapterConfig adapter;
  std::vector<TrainableSpec> trainables;
};

/// Tokens an example may have: data.max_length, or the model's positions.
std::int64_t max_length_of(const DataConfig& config, const Description& description);

}  // namespace mezzo
