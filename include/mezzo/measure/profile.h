#pragma once
// Where a step's time goes: a few real steps of a config, each operation of the backend timed by itself.
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "mezzo/measure/step_time.h"
#include "mezzo/train/inputs.h"

namespace mezzo {

/// What a backend is asked to do in a step.
enum class Work : std::uint8_t {
  qkv,
  attention_output,
  mlp_input,
  mlp_output,
  router,  ///< with the places of rows
  expert_input,
  expert_output,
  embedding_projection,
  head,  ///< with the log-probabilities
  attention,
  norm,
  rows,     ///< embedding, gathered rows, rows to experts and back
  perturb,  ///< weights of a probe, where they are trained themselves
  update,
  hash,
  transfer,  ///< batches and probes up, log-probabilities down
};
inline constexpr std::size_t work_kinds = 16;
std::string_view name_of(Work work);

/// Floating-point operations count a multiplication and an addition each.
struct WorkTally {
  std::int64_t calls = 0;
  double seconds = 0.0;
  double products = 0.0;   ///< operations of base products
  double low_rank = 0.0;   ///< of the low-rank terms added to them
  double attention = 0.0;  ///< of scores and weighted sums
  double bytes = 0.0;  ///< that norms, moves of rows and perturbed weights read and write, each number once
};
using WorkTallies = std::array<WorkTally, work_kinds>;
WorkTally total_of(const WorkTallies& tallies);

/// Numbers of a step are means over `steps` steps, but for `step`.
struct ProfileResult {
  std::string device;
  std::int64_t steps = 0;
  std::int64_t probes = 0;  ///< of a step
  std::int64_t group = 0;   ///< probes a forward
  double tokens = 0.0;      ///< of a step's batch
  std::size_t weight_bytes = 0;
  std::size_t activation_bytes = 0;
  std::size_t arena_high_water = 0;  ///< of activation_bytes, that these steps have come to
  std::size_t scratch_bytes = 0;
  double step = 0.0;           ///< seconds, nothing timed within: the median
  double profiled_step = 0.0;  ///< seconds, its operations one by one
  struct Row {
    Work work = Work::qkv;
    double calls = 0.0;
    WorkTally step = {};  ///< calls apart
  };
  std::vector<Row> rows;       ///< of what was called
  double host = 0.0;           ///< seconds of profiled_step outside of all operations
  double peak = 0.0;           ///< operations a second of one large product alone
  std::int64_t peak_size = 0;  ///< its rows, columns and inner size
  double copy = 0.0;           ///< bytes a second, read and written, of rows gathered in their own order
  StepParts parts = {};        ///< medians, nothing timed within
};

/// Takes steps on one rank: forwards, estimate, update, hash where due. Nothing is written, evaluated or
/// exchanged.
ProfileResult profile(const Config& config, const Inputs& inputs, const BackendOptions& backend,
                      std::int64_t steps);

}  // namespace mezzo
