// Stochastic gradient descent with decoupled weight decay: the update of mezzo/core/update.h, without state.
#include <limits>
#include <nlohmann/json.hpp>

#include "mezzo/io/json_cursor.h"
#include "mezzo/zo/optimizer.h"

namespace mezzo {

namespace {

class Sgd final : public Optimizer {
 public:
  explicit Sgd(float weight_decay) : weight_decay_(weight_decay) {}

  std::string_view kind() const override { return "sgd"; }
  nlohmann::ordered_json constants() const override {
    return nlohmann::ordered_json::object({{"weight_decay", weight_decay_}});
  }
  std::vector<TrainableSpec> state(std::span<const TrainableSpec>) const override { return {}; }

  void apply(const StepRecord& record, const RunNoise& run, Backend& backend, Trainables& trainables,
             Trainables&) const override {
    backend.update(trainables, update_of(record, run.seed, weight_decay_), run.noise);
  }

 private:
  float weight_decay_;
};

}  // namespace

std::shared_ptr<const Optimizer> configure_sgd(const OptimizerConfig& config) {
  return std::make_shared<Sgd>(static_cast<float>(config.weight_decay));
}

std::shared_ptr<const Optimizer> recorded_sgd(const JsonCursor& constants) {
  constants.check_keys({"kind", "weight_decay"});
  const JsonCursor field = constants["weight_decay"];
  const double decay = field.number();
  if (decay < 0.0 || decay > double{std::numeric_limits<float>::max()})
    field.fail("a number >= 0, finite in fp32");
  return std::make_shared<Sgd>(static_cast<float>(decay));
}

}  // namespace mezzo
