#pragma once
// What z ranges over: named fp32 trainables, what they perturb in a model, where they begin, and the files in
// which they leave a run. A space is made from a config, or again from a run's record, and knows no device:
// the values are the caller's.
//
// A new space is one file (src/zo/space_NAME.cc) and a line in src/zo/parameter_space.cc.
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mezzo/core/config.h"
#include "mezzo/model/description.h"
#include "mezzo/model/lora.h"
#include "mezzo/model/model_files.h"
#include "mezzo/model/perturbations.h"
#include "mezzo/model/trainable_values.h"

namespace mezzo {

class JsonCursor;

/// How far training has moved the weight W of a module that it trains or adapts. Norms are Frobenius norms.
struct UpdateSize {
  std::string module;      ///< "model.layers.3.self_attn.q_proj"
  std::int64_t layer = 0;  ///< -1: of none
  double update = 0.0;     ///< norm of W's difference from what it was at the start
  double weight = 0.0;     ///< norm of what W was at the start; of an adapted module, of the base model's W
};

class ParameterSpace {
 public:
  virtual ~ParameterSpace() = default;

  /// Its name in configs and records: "lora".
  virtual std::string_view kind() const = 0;
  /// A JSON object of all that decides the maths besides the kind and the trainables: written into a run's
  /// record, and enough to make the space again.
  virtual nlohmann::ordered_json constants() const = 0;
  /// In bytewise order of the names: a trainable's place is its tensor id.
  const std::vector<TrainableSpec>& trainables() const { return trainables_; }
  /// The values before the first step, where nothing else is named to start from. The same bits everywhere.
  /// `model`: the base model's directory, which is read where the trainables are weights of it.
  virtual std::vector<float> initial_values(std::uint64_t seed, const std::string& model) const = 0;

  /// InputError naming `model`, a directory, when the trainables are not those that this space has in it.
  virtual void check_model(const Description& description, const std::string& model) const = 0;
  /// Views of `trainables` (list_trainables() where only sizes matter), which must outlive them.
  virtual Perturbations perturbations(const Description& description, const Trainables& trainables) const = 0;

  /// Whether the trainables have files of their own. Else the two below throw UsageError, and what leaves a
  /// run is the whole model.
  virtual bool has_adapter() const = 0;
  /// Writes the values as files of their own, and reads what was written so: InputError when the tensors
  /// there are not the trainables.
  virtual void write_adapter(const std::string& directory, const Description& description,
                             std::span<const float> values, const std::string& base_model) const = 0;
  virtual std::vector<float> read_adapter(const std::string& directory) const = 0;
  /// Writes the whole model with the values in its weights; as export_merged() in mezzo/model/merged.h.
  virtual void write_merged(const ModelFiles& files, std::span<const float> values, DType dtype,
                            const std::string& directory, bool overwrite) const = 0;

  /// The update of each module between two values of the trainables, `start` and `values`, in the order of
  /// the forward; in fp64. `files`: the base model, one that check_model() accepts, of which the weights are
  /// read that the trainables are not themselves. Error unless both are as many values as the trainables
  /// have.
  virtual std::vector<UpdateSize> update_sizes(const ModelFiles& files, std::span<const float> start,
                                               std::span<const float> values) const = 0;

  /// Puts what this space's keys came to into a config that left them to the model or to files.
  virtual void resolve(Config& config) const = 0;

 protected:
  explicit ParameterSpace(std::vector<TrainableSpec> trainables) : trainables_(std::move(trainables)) {}

 private:
  std::vector<TrainableSpec> trainables_;
};

/// Values that a config names to start from.
struct NamedStart {
  std::string key;  ///< of the config: "lora.adapter"
  std::vector<float> values;
};

struct ConfiguredSpace {
  std::shared_ptr<const ParameterSpace> space;
  std::optional<NamedStart> start;  ///< none: the space's initial values
};

/// The space that a config asks for in the described model. `saved_start`: a run's own copy of the files to
/// start from, taken when the original is gone; "" for none. UsageError when the config does not fit the
/// model or those files.
ConfiguredSpace configure_space(const Config& config, const Description& description,
                                const std::string& saved_start);
/// The space of an adapter in PEFT's files.
std::shared_ptr<const ParameterSpace> space_of(const Adapter& adapter);
/// LoRA with a fresh adapter, in the described model.
std::shared_ptr<const ParameterSpace> lora_space(const Description& description, const AdapterConfig& config);
/// Low-rank noise over all linear layers of the described model.
std::shared_ptr<const ParameterSpace> low_rank_space(const Description& description, std::int64_t rank);
/// Noise of each element over all tensors of the described model.
std::shared_ptr<const ParameterSpace> dense_space(const Description& description);
/// The space of a record: its kind, of the object `constants` its constants(), and its trainables. InputError
/// that names what is wrong, an unknown kind included.
std::shared_ptr<const ParameterSpace> recorded_space(const std::string& kind, const JsonCursor& constants,
                                                     std::vector<TrainableSpec> trainables);

}  // namespace mezzo
