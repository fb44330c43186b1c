#pragma once
#include <cstdint>

#include "mezzo/core/types.h"

namespace mezzo::cuda {

/// One matrix for each of several copies (probes), in device memory: element (copy, i, j) is element
/// copy * copy_stride + i * row_stride + j. copy_stride 0: all copies are the same matrix.
struct Matrices {
  void* data = nullptr;
  DType dtype = DType::f32;  ///< f32 or bf16
  std::int64_t row_stride = 0;
  std::int64_t copy_stride = 0;
};

/// What a kernel found wrong with its indices: it leaves the access out, writes the number to a word in
/// device memory, and the next operation that waits reports it.
enum class Fault : std::uint32_t { none = 0, token = 1, position = 2, row = 3, target = 4 };

}  // namespace mezzo::cuda
