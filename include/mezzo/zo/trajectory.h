#pragma once
// What a trajectory record means: everything one step needs to be done again without a forward.
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "mezzo/backend/trainables.h"

namespace mezzo {

/// Which directions the coefficients of a run's records belong to.
struct RunNoise {
  std::uint64_t seed = 0;
  NoiseKind noise = NoiseKind::gaussian;
  std::int64_t resample_steps = 1;  ///< so many steps in a row share their directions
};

/// One finished step. Seeds are not stored: they follow from (RunNoise, step, k).
struct StepRecord {
  std::uint64_t step = 0;           ///< 0-based index of the step
  float learning_rate = 0.0f;       ///< the bits that the update used
  std::vector<float> coefficients;  ///< [N] c_k, the bits that the update used
  double loss = 0.0;
  double gradient_norm = 0.0;
  std::vector<double> probe_losses = {};  ///< [P] mean loss of each probe, NaN where it was not finite; empty
                                          ///< unless the run's header says that its records have them
  std::vector<double> estimator = {};     ///< [K] what the estimator keeps, behind the step

  bool operator==(const StepRecord&) const = default;
};

/// How many numbers a run's records hold.
struct RecordShape {
  std::int64_t directions = 1;    ///< N
  std::int64_t probe_losses = 0;  ///< P, or 0: the records have none
  std::int64_t estimator = 0;     ///< K, or 0: it keeps nothing

  bool operator==(const RecordShape&) const = default;
};

/// Little-endian payload of a record file (docs/file-formats.md); 28 + 4 N + 8 P + 8 K bytes.
std::vector<std::byte> encode(const StepRecord& record);
/// InputError naming `path` and the record when the payload is not a record of that shape, or holds a number
/// that no step can have.
StepRecord decode(std::span<const std::byte> payload, const RecordShape& shape, const std::string& path);

/// The update that a record stands for.
UpdateStep update_of(const StepRecord& record, const RunNoise& run, const UpdateFactors& factors);

/// Seeds of a step's directions: those of (run seed, step / resample_steps, k), the quotient rounded down.
std::vector<std::uint64_t> direction_seeds(const RunNoise& run, std::uint64_t step, std::int64_t directions);

}  // namespace mezzo
