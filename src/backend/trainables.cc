#include "mezzo/backend/trainables.h"

#include "mezzo/core/error.h"

namespace mezzo {

void check_master(DType dtype) {
  if (dtype != DType::f32 && dtype != DType::bf16)
    throw DeviceError("trainables of element type {}, expected F32 or BF16", name_of(dtype));
}

UpdateState update_state(const UpdateFactors& factors, const Trainables& trainables, Trainables& state) {
  auto* const values = static_cast<float*>(state.values.data());
  std::int64_t used = 0;
  const auto next = [&](bool kept, std::int64_t count) -> float* {
    if (!kept) return nullptr;
    used += count;
    return used <= state.count() ? values + (used - count) : nullptr;
  };
  const std::int64_t elements = trainables.count();
  UpdateState result;
  result.drift = next(factors.anchored, elements);
  result.first = next(keeps_momentum(factors.rule), elements);
  result.second = next(keeps_second_moment(factors.rule),
                       factors.scalar_second ? static_cast<std::int64_t>(trainables.list.size()) : elements);
  if (used != state.count()) {
    throw DeviceError("update: the optimizer keeps {} elements, but its rule needs {}", state.count(), used);
  }
  return result;
}

UpdateState state_of(const UpdateState& all, const UpdateFactors& factors, const Trainables& trainables,
                     std::size_t id) {
  const auto part = [](float* values, std::int64_t offset) {
    return values == nullptr ? nullptr : values + offset;
  };
  const std::int64_t offset = trainables.list[id].offset;
  return {.drift = part(all.drift, offset),
          .first = part(all.first, offset),
          .second = part(all.second, factors.scalar_second ? static_cast<std::int64_t>(id) : offset)};
}

}  // namespace mezzo
