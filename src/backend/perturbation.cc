#include "mezzo/backend/perturbation.h"

#include <array>

namespace mezzo {

std::string_view name_of(const Perturbation& perturbation) {
  // In the order of the alternatives.
  constexpr std::array<std::string_view, std::variant_size_v<Perturbation>> names = {"none", "low-rank tail",
                                                                                     "dense noise"};
  return names.at(perturbation.index());
}

}  // namespace mezzo
