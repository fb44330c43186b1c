#include "mezzo/model/description.h"

#include <fmt/format.h>

namespace mezzo {

std::string Description::layer_prefix(std::int64_t layer) const {
  return fmt::format("{}{}.{}.", names.prefix, names.layers, layer);
}

std::string Description::positions_text() const {
  return fmt::format("{} positions{}", max_positions, limited_by);
}

}  // namespace mezzo
