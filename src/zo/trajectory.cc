#include "mezzo/zo/trajectory.h"

#include <cmath>
#include <cstring>

#include "mezzo/core/error.h"
#include "mezzo/core/philox.h"

namespace mezzo {

namespace {

// x86-64 is little-endian, and so is the format: values are copied as they lie.
template <typename T>
void put(std::vector<std::byte>& out, const T& value) {
  const auto* bytes = reinterpret_cast<const std::byte*>(&value);
  out.insert(out.end(), bytes, bytes + sizeof(T));
}

template <typename T>
T take(const std::byte*& in) {
  T value;
  std::memcpy(&value, in, sizeof(T));
  in += sizeof(T);
  return value;
}

constexpr std::size_t bytes_of(std::size_t directions, std::size_t doubles) {
  return 8 + 4 + 8 + 8 + sizeof(float) * directions + sizeof(double) * doubles;
}

}  // namespace

std::vector<std::byte> encode(const StepRecord& record) {
  std::vector<std::byte> out;
  out.reserve(bytes_of(record.coefficients.size(), record.probe_losses.size() + record.estimator.size()));
  put(out, record.step);
  put(out, record.learning_rate);
  put(out, record.loss);
  put(out, record.gradient_norm);
  for (const float c : record.coefficients) put(out, c);
  for (const double loss : record.probe_losses) put(out, loss);
  for (const double kept : record.estimator) put(out, kept);
  return out;
}

StepRecord decode(std::span<const std::byte> payload, const RecordShape& shape, const std::string& path) {
  const std::size_t expected = bytes_of(static_cast<std::size_t>(shape.directions),
                                        static_cast<std::size_t>(shape.probe_losses + shape.estimator));
  if (payload.size() != expected) {
    throw InputError(
        "{}: a record of {} bytes, expected {} bytes for {} directions, the losses of {} probes and {} "
        "numbers "
        "of the estimator",
        path, payload.size(), expected, shape.directions, shape.probe_losses, shape.estimator);
  }
  const std::byte* in = payload.data();
  StepRecord record;
  record.step = take<std::uint64_t>(in);
  record.learning_rate = take<float>(in);
  record.loss = take<double>(in);
  record.gradient_norm = take<double>(in);
  record.coefficients.resize(static_cast<std::size_t>(shape.directions));
  for (float& c : record.coefficients) c = take<float>(in);
  record.probe_losses.resize(static_cast<std::size_t>(shape.probe_losses));
  for (double& loss : record.probe_losses) loss = take<double>(in);
  record.estimator.resize(static_cast<std::size_t>(shape.estimator));
  for (double& kept : record.estimator) kept = take<double>(in);

  const auto refuse = [&](const char* what, double found, const char* wanted) {
    throw InputError("{}: the record of step {} has the {} {}, expected {}", path, record.step, what, found,
                     wanted);
  };
  if (!std::isfinite(record.learning_rate) || record.learning_rate < 0.0f) {
    refuse("learning rate", static_cast<double>(record.learning_rate), "a finite number >= 0");
  }
  for (const float c : record.coefficients) {
    if (!std::isfinite(c)) refuse("coefficient", static_cast<double>(c), "a finite number");
  }
  for (const double kept : record.estimator) {
    if (!std::isfinite(kept) || kept < 0.0) refuse("estimator's number", kept, "a finite number >= 0");
  }
  return record;
}

UpdateStep update_of(const StepRecord& record, const RunNoise& run, const UpdateFactors& factors) {
  return {.seeds = direction_seeds(run, record.step, static_cast<std::int64_t>(record.coefficients.size())),
          .coefficients = record.coefficients,
          .factors = factors,
          .rounding = {.run_seed = run.seed, .step = static_cast<std::uint32_t>(record.step)}};
}

std::vector<std::uint64_t> direction_seeds(const RunNoise& run, std::uint64_t step, std::int64_t directions) {
  const std::uint64_t draw = step / static_cast<std::uint64_t>(run.resample_steps);
  std::vector<std::uint64_t> seeds(static_cast<std::size_t>(directions));
  for (std::size_t k = 0; k < seeds.size(); ++k) {
    seeds[k] = direction_seed(run.seed, draw, static_cast<std::uint32_t>(k));
  }
  return seeds;
}

}  // namespace mezzo
