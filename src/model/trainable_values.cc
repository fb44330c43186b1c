#include "mezzo/model/trainable_values.h"

#include <bit>

#include "mezzo/core/error.h"
#include "mezzo/io/sha256.h"

namespace mezzo {

std::int64_t element_count(std::span<const TrainableSpec> specs) {
  std::int64_t count = 0;
  for (const TrainableSpec& spec : specs) count += spec.count();
  return count;
}

std::map<std::string, std::span<const float>> values_by_name(std::span<const TrainableSpec> specs,
                                                             std::span<const float> values) {
  if (const std::int64_t count = element_count(specs); count != static_cast<std::int64_t>(values.size()))
    throw Error("trainables have {} elements, but {} values were given", count, values.size());
  std::map<std::string, std::span<const float>> parts;
  std::size_t offset = 0;
  for (const TrainableSpec& spec : specs) {
    const auto count = static_cast<std::size_t>(spec.count());
    parts[spec.name] = values.subspan(offset, count);
    offset += count;
  }
  return parts;
}

Trainables list_trainables(std::span<const TrainableSpec> specs) {
  Trainables trainables;
  std::int64_t count = 0;
  for (const TrainableSpec& spec : specs) {
    trainables.list.push_back({.name = spec.name,
                               .rows = spec.rows,
                               .cols = spec.cols,
                               .offset = count,
                               .noise_rank = spec.noise_rank});
    count += spec.count();
  }
  return trainables;
}

Trainables make_trainables(Backend& backend, std::span<const TrainableSpec> specs,
                           std::span<const float> values) {
  Trainables trainables = list_trainables(specs);
  const std::int64_t count = trainables.count();
  if (count != static_cast<std::int64_t>(values.size())) {
    throw Error("trainables have {} elements, but {} values were given", count, values.size());
  }
  if (count == 0) return trainables;
  trainables.values = backend.allocate(values.size_bytes());
  backend.load(dense(trainables.values.data(), DType::f32, 1, count), DType::f32, values.data(), false);
  backend.synchronize();  // `values` is the caller's
  return trainables;
}

std::vector<float> read_values(Backend& backend, const Trainables& trainables) {
  std::vector<float> values(static_cast<std::size_t>(trainables.count()));
  if (values.empty()) return values;
  backend.read(values, dense(trainables.values.data(), DType::f32, 1, trainables.count()), 1);
  return values;
}

std::string trainables_sha256(std::span<const float> values) {
  static_assert(std::endian::native == std::endian::little);
  return sha256_of(std::as_bytes(values));
}

}  // namespace mezzo
