#pragma once
// From the interface's operands to the kernels': views, a table of probes, a batch's targets.
#include <cstddef>
#include <numeric>
#include <span>
#include <vector>

#include "cuda_plan.h"
#include "kernels/cuda/head.h"
#include "kernels/cuda/low_rank.h"
#include "mezzo/backend/backend.h"
#include "mezzo/core/error.h"

namespace mezzo {

// ---- views
inline cuda::Matrices matrices(const View& view) {
  return {.data = view.data,
          .dtype = view.dtype,
          .row_stride = view.row_stride,
          .copy_stride = view.probe_stride};
}

/// Indices that all probes share.
inline const std::int32_t* integers(const View& view) {
  if (!view.shared())
    throw DeviceError("device cuda: each probe has indices of its own where none but tokens may be");
  return view.as<std::int32_t>();
}

/// How often an operation has to run for `output`: once if it is shared, else once a probe.
inline std::int64_t copies_on(const View& output, const ProbeTable& table) {
  return output.shared() ? 1 : table.count();
}

/// `view` is [rows, cols] of this element type.
inline void check_view(const char* operation, const char* operand, const View& view, std::int64_t rows,
                       std::int64_t cols, DType dtype) {
  if (view.data == nullptr && rows * cols > 0) throw DeviceError("{}: {} has no data", operation, operand);
  if (view.dtype != dtype) {
    throw DeviceError("{}: {} is of element type {}, expected {}", operation, operand, name_of(view.dtype),
                      name_of(dtype));
  }
  if (view.rows != rows || view.cols != cols) {
    throw DeviceError("{}: {} is [{}, {}], expected [{}, {}]", operation, operand, view.rows, view.cols, rows,
                      cols);
  }
}

// ---- probes
static_assert(sizeof(cuda::Perturbation) == sizeof(Probe) &&
                  offsetof(cuda::Perturbation, seed) == offsetof(Probe, seed) &&
                  offsetof(cuda::Perturbation, direction) == offsetof(Probe, direction) &&
                  offsetof(cuda::Perturbation, epsilon) == offsetof(Probe, epsilon),
              "kernels read probes as they lie in a ProbeTable");
/// Neighbouring probes of one direction share a direction block.
struct DirectionBlocks {
  std::vector<std::int32_t> of;     // [P]
  std::vector<std::int32_t> first;  // [direction_blocks + 1] a direction block's first probe; P at the end

  explicit DirectionBlocks(std::span<const Probe> probes) {
    for (std::size_t p = 0; p < probes.size(); ++p) {
      if (p == 0 || probes[p].seed != probes[p - 1].seed) first.push_back(static_cast<std::int32_t>(p));
      of.push_back(static_cast<std::int32_t>(first.size() - 1));
    }
    first.push_back(static_cast<std::int32_t>(probes.size()));
  }
  std::int64_t count() const { return std::ssize(first) - 1; }
};

/// A probe table in device memory: Probe[P], then DirectionBlocks::of and DirectionBlocks::first.
struct DeviceTable {
  const cuda::Perturbation* probes;
  const std::int32_t* direction_block;
  const std::int32_t* first_probe;

  explicit DeviceTable(const ProbeTable& table)
      : probes(static_cast<const cuda::Perturbation*>(table.device.data())),
        direction_block(reinterpret_cast<const std::int32_t*>(probes + table.count())),
        first_probe(direction_block + table.count()) {}
};

// ---- targets
/// A batch's targets by the row that they read, as cuda::Targets has them.
struct TargetsByRow {
  std::vector<std::int32_t> begins;   // [loss_rows + 1]
  std::vector<std::int32_t> targets;  // those of rows that are there: score() reports the others

  explicit TargetsByRow(const PackedBatch& batch) : begins(batch.loss_rows.size() + 1, 0) {
    const std::vector<std::int32_t>& loss_rows = batch.target_rows;
    const auto there = [&](std::int32_t read) { return read >= 0 && read < std::ssize(batch.loss_rows); };
    for (const std::int32_t read : loss_rows) {
      if (there(read)) ++begins[static_cast<std::size_t>(read) + 1];
    }
    std::partial_sum(begins.begin(), begins.end(), begins.begin());
    targets.resize(static_cast<std::size_t>(begins.back()));
    std::vector<std::int32_t> next = begins;
    for (std::size_t j = 0; j < loss_rows.size(); ++j) {
      if (!there(loss_rows[j])) continue;
      std::int32_t& place = next[static_cast<std::size_t>(loss_rows[j])];
      targets[static_cast<std::size_t>(place++)] = static_cast<std::int32_t>(j);
    }
  }
};

/// A batch's targets in device memory: TargetsByRow::begins and ::targets lie behind the batch's rows.
inline cuda::Targets targets_of(const DeviceBatch& batch) {
  const std::int32_t* const behind = integers(batch.target_tokens) + batch.shape.targets;
  return {.loss_rows = integers(batch.target_rows),
          .tokens = integers(batch.target_tokens),
          .row_begins = behind,
          .row_targets = behind + batch.shape.loss_rows + 1,
          .count = batch.shape.targets};
}

}  // namespace mezzo
