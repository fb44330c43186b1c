#include "mezzo/model/trainable_values.h"

#include <algorithm>
#include <bit>

#include "mezzo/core/error.h"
#include "mezzo/io/sha256.h"

namespace mezzo {

namespace {

/// Calls f(view, first element) for pieces of all values: a device stages what it loads and reads.
template <typename F>
void each_piece(const Trainables& trainables, F f) {
  constexpr std::int64_t most = std::int64_t{1} << 24;
  for (std::int64_t first = 0; first < trainables.count(); first += most) {
    f(trainables.all().columns(first, std::min(most, trainables.count() - first)),
      static_cast<std::size_t>(first));
  }
}

}  // namespace

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

Trainables list_trainables(std::span<const TrainableSpec> specs, DType dtype) {
  Trainables trainables;
  trainables.dtype = dtype;
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
                           std::span<const float> values, DType dtype) {
  Trainables trainables = list_trainables(specs, dtype);
  const std::int64_t count = trainables.count();
  if (count != static_cast<std::int64_t>(values.size())) {
    throw Error("trainables have {} elements, but {} values were given", count, values.size());
  }
  if (count == 0) return trainables;
  trainables.values = backend.allocate(values.size() * size_of(dtype));
  each_piece(trainables, [&](const View& piece, std::size_t first) {
    backend.load(piece, DType::f32, values.data() + first, false);
  });
  backend.synchronize();  // `values` is the caller's
  return trainables;
}

std::vector<float> read_values(Backend& backend, const Trainables& trainables) {
  std::vector<float> values(static_cast<std::size_t>(trainables.count()));
  if (values.empty()) return values;
  each_piece(trainables, [&](const View& piece, std::size_t first) {
    backend.read(std::span(values).subspan(first, static_cast<std::size_t>(piece.cols)), piece, 1);
  });
  return values;
}

std::string trainables_sha256(std::span<const float> values) {
  static_assert(std::endian::native == std::endian::little);
  return sha256_of(std::as_bytes(values));
}

}  // namespace mezzo
