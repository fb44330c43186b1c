#include "mezzo/backend/weight.h"

#include <algorithm>
#include <array>

namespace mezzo {

std::string_view name_of(WeightType type) {
  constexpr std::array<std::string_view, 5> names = {"fp32", "bf16", "fp8", "int8", "int4"};
  return names.at(static_cast<std::size_t>(type));
}

std::string_view name_of(Residence residence) {
  return residence == Residence::device ? "the device" : "a host ring";
}

std::size_t Weight::bytes() const {
  return static_cast<std::size_t>(std::max(stored_rows, codes.rows) * codes.row_stride) *
         size_of(codes.dtype);
}

}  // namespace mezzo
