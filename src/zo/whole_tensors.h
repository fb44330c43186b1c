#pragma once
#include <map>
#include <string>
#include <vector>

#include "mezzo/model/layers.h"
#include "mezzo/zo/parameter_space.h"

namespace mezzo {

/// A space whose trainables are tensors of the model's files, as WeightSpec::rows() and cols() have them.
/// What leaves a run is the whole model.
class WholeTensorsSpace : public ParameterSpace {
 public:
  std::vector<float> initial_values(std::uint64_t seed, const std::string& model) const override;
  void check_model(const Description& description, const std::string& model) const override;
  bool has_adapter() const override { return false; }
  void write_adapter(const std::string& directory, const Description& description,
                     std::span<const float> values, const std::string& base_model) const override;
  std::vector<float> read_adapter(const std::string& directory) const override;
  void write_merged(const ModelFiles& files, std::span<const float> values, DType dtype,
                    const std::string& directory, bool overwrite) const override;
  /// A module's tensors count together.
  std::vector<UpdateSize> update_sizes(const ModelFiles& files, std::span<const float> start,
                                       std::span<const float> values) const override;

 protected:
  using ParameterSpace::ParameterSpace;

  /// What the space trains in a described model.
  virtual std::vector<TrainableSpec> trainables_of(const Description& description) const = 0;
  /// Error unless they are the trainables.
  void check_trainables_of(const Description& description) const;

 private:
  [[noreturn]] void refuse_adapter() const;
};

/// The tensors of the model's files by their names.
std::map<std::string, WeightSpec> tensors_of(const Description& description);

}  // namespace mezzo
