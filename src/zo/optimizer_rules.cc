// The update rules of mezzo/core/update.h as optimizers. They differ in their constants and in what they
// keep; the arithmetic of an element is that page's.
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "mezzo/io/json_cursor.h"
#include "mezzo/zo/optimizer.h"

namespace mezzo {

namespace {

/// What decides the updates of a rule besides the records. fp32 where the arithmetic is; the betas of Adam
/// stay in fp64, in which their powers and 1 - beta are taken.
struct Constants {
  OptimizerType type = OptimizerType::sgd;
  float weight_decay = 0.0f;
  float anchor_decay = 0.0f;
  float momentum = 0.0f;  // of momentum and sign
  bool nesterov = false;  // of momentum
  double beta1 = 0.0;     // of adam, as the rest
  double beta2 = 0.0;
  float epsilon = 0.0f;
  SecondMoment second_moment = SecondMoment::full;
  MasterType master = MasterType::fp32;
};

/// base^exponent by squaring: multiplications alone, so that every machine gets the same bits.
double power(double base, std::uint64_t exponent) {
  double result = 1.0;
  for (; exponent > 0; exponent /= 2, base *= base) {
    if (exponent % 2 == 1) result *= base;
  }
  return result;
}

UpdateRule rule_of(const Constants& constants) {
  switch (constants.type) {
    case OptimizerType::momentum:
      return constants.nesterov ? UpdateRule::nesterov : UpdateRule::momentum;
    case OptimizerType::sign:
      return UpdateRule::sign;
    case OptimizerType::adam:
      return UpdateRule::adam;
    case OptimizerType::sgd:
      break;
  }
  return UpdateRule::sgd;
}

/// The factors of the step with the 0-based number `step`.
UpdateFactors factors_of(const Constants& constants, std::uint64_t step, float learning_rate) {
  UpdateFactors factors = sgd_factors(learning_rate, constants.weight_decay);
  factors.rule = rule_of(constants);
  factors.anchored = constants.anchor_decay > 0.0f;
  factors.anchor = update_decay(learning_rate, constants.anchor_decay);
  factors.momentum = constants.momentum;
  if (constants.type == OptimizerType::adam) {
    const double first = 1.0 - power(constants.beta1, step + 1);
    const double second = 1.0 - power(constants.beta2, step + 1);
    factors.step_size = static_cast<float>(static_cast<double>(learning_rate) / first);
    factors.momentum = static_cast<float>(constants.beta1);
    factors.gain = static_cast<float>(1.0 - constants.beta1);
    factors.second_momentum = static_cast<float>(constants.beta2);
    factors.second_gain = static_cast<float>(1.0 - constants.beta2);
    factors.root_factor = static_cast<float>(1.0 / std::sqrt(second));
    factors.epsilon = constants.epsilon;
    factors.scalar_second = constants.second_moment == SecondMoment::scalar;
  }
  return factors;
}

class RuleOptimizer final : public Optimizer {
 public:
  explicit RuleOptimizer(const Constants& constants) : constants_(constants) {}

  std::string_view kind() const override { return name_of(constants_.type); }

  nlohmann::ordered_json constants() const override {
    nlohmann::ordered_json json = nlohmann::ordered_json::object();
    json["weight_decay"] = constants_.weight_decay;
    // Records of plain gradient descent are older than this key.
    if (constants_.anchor_decay > 0.0f) json["anchor_decay"] = constants_.anchor_decay;
    if (constants_.master != MasterType::fp32) json["master"] = name_of(constants_.master);
    switch (constants_.type) {
      case OptimizerType::momentum:
        json["momentum"] = constants_.momentum;
        json["nesterov"] = constants_.nesterov;
        break;
      case OptimizerType::sign:
        json["momentum"] = constants_.momentum;
        break;
      case OptimizerType::adam:
        json["betas"] = {constants_.beta1, constants_.beta2};
        json["epsilon"] = constants_.epsilon;
        json["second_moment"] = name_of(constants_.second_moment);
        break;
      case OptimizerType::sgd:
        break;
    }
    return json;
  }

  /// In the order of UpdateState's members. The prefixes, PyTorch's names but for drift, keep the tensors of
  /// one member together, in the trainables' order.
  std::vector<TrainableSpec> state(std::span<const TrainableSpec> trainables) const override {
    std::vector<TrainableSpec> specs;
    const auto keep = [&](const char* prefix) {
      for (const TrainableSpec& each : trainables)
        specs.push_back({prefix + each.name, each.rows, each.cols});
    };
    if (constants_.anchor_decay > 0.0f) keep("drift.");
    const UpdateRule rule = rule_of(constants_);
    if (keeps_second_moment(rule)) {
      keep("exp_avg.");
      keep("exp_avg_sq.");
      if (constants_.second_moment == SecondMoment::scalar) {
        for (TrainableSpec& spec : std::span(specs).last(trainables.size())) spec.rows = spec.cols = 1;
      }
    } else if (keeps_momentum(rule)) {
      keep("momentum_buffer.");
    }
    return specs;
  }

  DType master() const override { return constants_.master == MasterType::bf16 ? DType::bf16 : DType::f32; }

  double walk_variance(double squares) const override {
    const double momentum = constants_.momentum;
    switch (constants_.type) {
      case OptimizerType::momentum:  // each step goes on for 1 / (1 - momentum) of its length in all
        return squares / ((1.0 - momentum) * (1.0 - momentum));
      case OptimizerType::sign:  // signs of neighbouring steps agree as far as the momentum does
        return (1.0 + momentum) / (1.0 - momentum);
      case OptimizerType::adam:  // the average's weights have the sum 1, the root of the second moment its
                                 // size
        return 1.0;
      case OptimizerType::sgd:
        break;
    }
    return squares;
  }

  void apply(const StepRecord& record, const RunNoise& run, Backend& backend, Trainables& trainables,
             Trainables& state) const override {
    const UpdateFactors factors = factors_of(constants_, record.step, record.learning_rate);
    backend.update(trainables, state, update_of(record, run, factors), run.noise);
  }

 private:
  Constants constants_;
};

// ---- of a record ----------------------------------------------------------------------------------------

float read_decay(const JsonCursor& field) {
  const double decay = field.number();
  if (decay < 0.0 || decay > double{std::numeric_limits<float>::max()})
    field.fail("a number >= 0, finite in fp32");
  return static_cast<float>(decay);
}

double read_beta(const JsonCursor& field) {
  const double beta = field.number();
  if (beta < 0.0 || beta >= 1.0) field.fail("a number >= 0 and below 1");
  return beta;
}

Constants read_decays(OptimizerType type, const JsonCursor& json) {
  Constants constants;
  constants.type = type;
  constants.weight_decay = read_decay(json["weight_decay"]);
  if (!json["anchor_decay"].missing()) constants.anchor_decay = read_decay(json["anchor_decay"]);
  if (const JsonCursor master = json["master"]; !master.missing()) {
    constants.master = MasterType::bf16;
    if (master.text() != name_of(constants.master)) master.fail("bf16, or no key");
  }
  return constants;
}

}  // namespace

std::shared_ptr<const Optimizer> configure_rule(const OptimizerConfig& config) {
  Constants constants;
  constants.type = config.type;
  constants.weight_decay = static_cast<float>(config.weight_decay);
  constants.anchor_decay = static_cast<float>(config.anchor_decay);
  constants.momentum = static_cast<float>(config.momentum);
  constants.nesterov = config.nesterov;
  constants.beta1 = config.betas.first;
  constants.beta2 = config.betas.second;
  constants.epsilon = static_cast<float>(config.adam_epsilon);
  constants.second_moment = config.second_moment;
  constants.master = config.master;
  return std::make_shared<RuleOptimizer>(constants);
}

std::shared_ptr<const Optimizer> recorded_sgd(const JsonCursor& json) {
  json.check_keys({"kind", "weight_decay", "anchor_decay", "master"});
  return std::make_shared<RuleOptimizer>(read_decays(OptimizerType::sgd, json));
}

std::shared_ptr<const Optimizer> recorded_momentum(const JsonCursor& json) {
  json.check_keys({"kind", "weight_decay", "anchor_decay", "master", "momentum", "nesterov"});
  Constants constants = read_decays(OptimizerType::momentum, json);
  constants.momentum = static_cast<float>(read_beta(json["momentum"]));
  constants.nesterov = json["nesterov"].boolean();
  return std::make_shared<RuleOptimizer>(constants);
}

std::shared_ptr<const Optimizer> recorded_sign(const JsonCursor& json) {
  json.check_keys({"kind", "weight_decay", "anchor_decay", "master", "momentum"});
  Constants constants = read_decays(OptimizerType::sign, json);
  constants.momentum = static_cast<float>(read_beta(json["momentum"]));
  return std::make_shared<RuleOptimizer>(constants);
}

std::shared_ptr<const Optimizer> recorded_adam(const JsonCursor& json) {
  json.check_keys({"kind", "weight_decay", "anchor_decay", "master", "betas", "epsilon", "second_moment"});
  Constants constants = read_decays(OptimizerType::adam, json);
  const std::vector<JsonCursor> betas = json["betas"].elements();
  if (betas.size() != 2) json["betas"].fail("a list of two numbers");
  constants.beta1 = read_beta(betas[0]);
  constants.beta2 = read_beta(betas[1]);
  constants.epsilon = static_cast<float>(json["epsilon"].positive());
  const JsonCursor moment = json["second_moment"];
  constants.second_moment =
      moment.text() == name_of(SecondMoment::scalar) ? SecondMoment::scalar : SecondMoment::full;
  if (moment.text() != name_of(constants.second_moment)) moment.fail("full or scalar");
  return std::make_shared<RuleOptimizer>(constants);
}

}  // namespace mezzo
