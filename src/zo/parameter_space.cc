#include "mezzo/zo/parameter_space.h"

#include <fmt/ranges.h>

#include <array>

#include "mezzo/core/error.h"
#include "mezzo/io/json_cursor.h"
#include "mezzo/io/json_file.h"

namespace mezzo {

// Each space's file defines these two.
ConfiguredSpace configure_lora_space(const Config& config, const Description& description,
                                     const std::string& saved_start);
std::shared_ptr<const ParameterSpace> recorded_lora_space(const JsonCursor& constants,
                                                          std::vector<TrainableSpec> trainables);
ConfiguredSpace configure_low_rank_space(const Config& config, const Description& description,
                                         const std::string& saved_start);
std::shared_ptr<const ParameterSpace> recorded_low_rank_space(const JsonCursor& constants,
                                                              std::vector<TrainableSpec> trainables);
// Dense and vectors.
ConfiguredSpace configure_dense_space(const Config& config, const Description& description,
                                      const std::string& saved_start);
std::shared_ptr<const ParameterSpace> recorded_dense_space(const JsonCursor& constants,
                                                           std::vector<TrainableSpec> trainables);
std::shared_ptr<const ParameterSpace> recorded_vectors_space(const JsonCursor& constants,
                                                             std::vector<TrainableSpec> trainables);

namespace {

struct SpaceKind {
  std::string_view name;
  ConfiguredSpace (*configure)(const Config&, const Description&, const std::string&);
  std::shared_ptr<const ParameterSpace> (*recorded)(const JsonCursor&, std::vector<TrainableSpec>);
};

// In the order of SpaceType.
constexpr std::array kinds{SpaceKind{"lora", configure_lora_space, recorded_lora_space},
                           SpaceKind{"low_rank", configure_low_rank_space, recorded_low_rank_space},
                           SpaceKind{"dense", configure_dense_space, recorded_dense_space},
                           SpaceKind{"vectors", configure_dense_space, recorded_vectors_space}};

}  // namespace

ConfiguredSpace configure_space(const Config& config, const Description& description,
                                const std::string& saved_start) {
  return kinds.at(static_cast<std::size_t>(config.zo.space)).configure(config, description, saved_start);
}

std::shared_ptr<const ParameterSpace> recorded_space(const std::string& kind, const JsonCursor& constants,
                                                     std::vector<TrainableSpec> trainables) {
  std::vector<std::string_view> known;
  for (const SpaceKind& each : kinds) {
    known.push_back(each.name);
    if (each.name == kind) return each.recorded(constants, std::move(trainables));
  }
  throw InputError("{}: the parameter space {} is unknown, expected {}", constants.where(), quote(kind),
                   fmt::join(known, " or "));
}

}  // namespace mezzo
