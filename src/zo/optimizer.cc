#include "mezzo/zo/optimizer.h"

#include <fmt/ranges.h>

#include <array>

#include "mezzo/core/error.h"
#include "mezzo/io/json_cursor.h"
#include "mezzo/io/json_file.h"

namespace mezzo {

// Each optimizer's file defines how it is made from a config and from a record.
std::shared_ptr<const Optimizer> configure_rule(const OptimizerConfig& config);
std::shared_ptr<const Optimizer> recorded_sgd(const JsonCursor& constants);
std::shared_ptr<const Optimizer> recorded_momentum(const JsonCursor& constants);
std::shared_ptr<const Optimizer> recorded_sign(const JsonCursor& constants);
std::shared_ptr<const Optimizer> recorded_adam(const JsonCursor& constants);

namespace {

struct OptimizerKind {
  OptimizerType type;
  std::shared_ptr<const Optimizer> (*configure)(const OptimizerConfig&);
  std::shared_ptr<const Optimizer> (*recorded)(const JsonCursor&);
};

constexpr std::array kinds{OptimizerKind{OptimizerType::sgd, configure_rule, recorded_sgd},
                           OptimizerKind{OptimizerType::momentum, configure_rule, recorded_momentum},
                           OptimizerKind{OptimizerType::sign, configure_rule, recorded_sign},
                           OptimizerKind{OptimizerType::adam, configure_rule, recorded_adam}};

}  // namespace

std::shared_ptr<const Optimizer> configure_optimizer(const OptimizerConfig& config) {
  for (const OptimizerKind& each : kinds) {
    if (each.type == config.type) return each.configure(config);
  }
  throw Error("the optimizer {} is not built", name_of(config.type));
}

std::shared_ptr<const Optimizer> recorded_optimizer(const std::string& kind, const JsonCursor& constants) {
  std::vector<std::string_view> known;
  for (const OptimizerKind& each : kinds) {
    known.push_back(name_of(each.type));
    if (known.back() == kind) return each.recorded(constants);
  }
  throw InputError("{}: the optimizer {} is unknown, expected {}", constants.where(), quote(kind),
                   fmt::join(known, " or "));
}

}  // namespace mezzo
