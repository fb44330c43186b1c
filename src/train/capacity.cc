#include "mezzo/train/capacity.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "mezzo/core/error.h"

namespace mezzo {

namespace {

// Bytes of the vectors that hold a step at the same time, those that grow counted with what they outgrow.
constexpr double direction_bytes =
    8 + 8 + 8 + 4 + 4 + 4;                      // seeds, seeds of the update, g; c in estimate, record, file
constexpr double probe_bytes = 3 * 16 + 24;     // probe, sums over its slices
constexpr double slot_bytes = 32 + 32 + 3 * 8;  // words, their copy in the exchange, load
constexpr double example_bytes = 3 * 8 + 8;     // pointers in the batch and in its slice
constexpr double packed_example_bytes = 96;     // offsets, loss rows, targets, options
constexpr double packed_token_bytes = 4 + 4;    // token, position
constexpr double most_packed_tokens = std::numeric_limits<std::int32_t>::max();  // their places are 32 bits

/// The numbers that decide how much a step lists. As doubles: the product of the largest ones is 2^124.
struct StepSize {
  double directions = 0;
  double batch_size = 0;
  double accumulation = 0;
  double batch_slices = 0;
  bool paired = true;
  double example_tokens = 0;

  double slice_tokens() const { return example_tokens * batch_size / std::min(batch_slices, batch_size); }
  double bytes() const {
    const double probes = (paired ? 2 * directions : directions) + 1;
    const double slices = accumulation * std::min(batch_slices, batch_size);
    const double examples = accumulation * batch_size;
    const double packed = batch_size / std::min(batch_slices, batch_size);
    return directions * direction_bytes + probes * probe_bytes + probes * slices * slot_bytes +
           examples * example_bytes + packed * packed_example_bytes + slice_tokens() * packed_token_bytes;
  }
};

struct Key {
  const char* name;
  double StepSize::*value;
};
constexpr Key keys[] = {{"zo.directions", &StepSize::directions},
                        {"train.batch_size", &StepSize::batch_size},
                        {"train.gradient_accumulation_steps", &StepSize::accumulation},
                        {"train.batch_slices", &StepSize::batch_slices}};

double gib(double bytes) { return bytes / (std::size_t{1} << 30); }

}  // namespace

void check_step_fits(const Config& config, double example_tokens, std::size_t memory) {
  const StepSize asked{.directions = static_cast<double>(config.zo.directions),
                       .batch_size = static_cast<double>(config.train.batch_size),
                       .accumulation = static_cast<double>(config.train.gradient_accumulation_steps),
                       .batch_slices = static_cast<double>(config.train.batch_slices),
                       .paired = config.zo.paired(),
                       .example_tokens = example_tokens};
  const auto fits = [&](const StepSize& size) {
    return size.bytes() <= static_cast<double>(memory) && size.slice_tokens() <= most_packed_tokens;
  };
  if (fits(asked)) return;
  const std::string reason = asked.bytes() > static_cast<double>(memory)
                                 ? fmt::format(
                                       "a step would list {:.4g} GiB of examples, probes and slots, but "
                                       "{:.4g} GiB of memory are free",
                                       gib(asked.bytes()), gib(static_cast<double>(memory)))
                                 : fmt::format("a slice would have {:.4g} tokens, but {:.0f} is the most",
                                               asked.slice_tokens(), most_packed_tokens);
  // The largest number is the likely mistake; where it cannot be made small enough, the next one.
  std::vector<Key> by_value(std::begin(keys), std::end(keys));
  std::ranges::stable_sort(by_value,
                           [&](const Key& a, const Key& b) { return asked.*a.value > asked.*b.value; });
  for (const Key& key : by_value) {
    const auto with = [&](std::int64_t value) {
      StepSize size = asked;
      size.*key.value = static_cast<double>(value);
      return size;
    };
    std::int64_t largest = 0;
    auto too_large = static_cast<std::int64_t>(asked.*key.value);
    while (too_large - largest > 1) {
      const std::int64_t middle = largest + (too_large - largest) / 2;
      (fits(with(middle)) ? largest : too_large) = middle;
    }
    if (largest == 0) continue;
    throw UsageError("{}: found {:.0f}: {}; the largest that can be listed is {}", key.name, asked.*key.value,
                     reason, largest);
  }
  throw UsageError(
      "zo.directions, train.batch_size, train.gradient_accumulation_steps, train.batch_slices: {}", reason);
}

namespace {

/// Bytes of the trainables and of what an optimizer keeps: made on the host, held by a backend.
double trainable_bytes(std::span<const TrainableSpec> trainables, std::int64_t kept) {
  double count = static_cast<double>(kept);
  for (const TrainableSpec& spec : trainables)
    count += static_cast<double>(spec.rows) * static_cast<double>(spec.cols);
  return 2 * sizeof(float) * count;
}

/// Why that does not fit.
std::string too_large(double bytes, std::int64_t kept, double available) {
  return fmt::format("{:.4g} trainable numbers{} would take {:.4g} GiB, but {:.4g} GiB of memory are free",
                     bytes / (2 * sizeof(float)), kept > 0 ? " and those that the optimizer keeps" : "",
                     gib(bytes), gib(available));
}

}  // namespace

void check_trainables_fit(std::span<const TrainableSpec> trainables, std::int64_t kept, std::int64_t r,
                          std::size_t memory) {
  const double bytes = trainable_bytes(trainables, kept);
  const auto available = static_cast<double>(memory);
  if (bytes <= available) return;
  const std::string reason = too_large(bytes, kept, available);
  const double largest = std::floor(static_cast<double>(r) * available / bytes);
  if (largest < 1.0) throw DeviceError("{}: not even lora.r: 1 would fit", reason);
  throw UsageError("lora.r: found {}: {}; the largest that fits is {:.0f}", r, reason, largest);
}

void check_weights_fit(std::string_view space, std::span<const TrainableSpec> trainables, std::int64_t kept,
                       std::size_t memory) {
  const double bytes = trainable_bytes(trainables, kept);
  const auto available = static_cast<double>(memory);
  if (bytes <= available) return;
  throw UsageError("zo.space: {}: {}; fewer zo.target_modules{} take less", space,
                   too_large(bytes, kept, available),
                   kept > 0 ? ", or an optimizer.type that keeps less," : "");
}

}  // namespace mezzo
