#pragma once
// Rotary positions and causal attention, as kernels/reference/attention.h defines them.
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/matrices.h"

namespace mezzo::cuda {

struct Rotation {
  bool half_split = true;
  std::int64_t dims = 0;
  std::int64_t head_dim = 0;
  std::int64_t heads = 0;
  std::int64_t places = 0;         ///< rows of the tables
  const float* cosines = nullptr;  ///< [places, dims / 2]
  const float* sines = nullptr;
  std::int64_t table_stride = 0;
};
/// Rotates x [rows, heads * head_dim] in place; row i is at positions[row_index[i]], or positions[i] where
/// row_index is null. `tokens`: how many positions there are.
cudaError_t rotate(const Rotation& rotation, const std::int32_t* positions, std::int64_t tokens,
                   const std::int32_t* row_index, std::int64_t rows, std::int64_t copies, Matrices x,
                   std::uint32_t* fault, cudaStream_t stream);

/// Causal attention within each of `sequences` packed sequences, fp32 inside.
struct Attention {
  Matrices q;                      ///< [queries, heads * head_dim]
  Matrices k, v;                   ///< [tokens, kv_heads * head_dim]
  Matrices out;                    ///< like q
  const std::int32_t* offsets;     ///< [sequences + 1]
  const std::int32_t* query_rows;  ///< [queries] ascending tokens of the queries; null: every token
  std::int64_t queries = 0;
  std::int64_t sequences = 0;
  std::int64_t longest = 0;  ///< tokens of the longest sequence
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;  ///< at most 256
  float scale = 1.0f;
  std::int64_t window = 0;  ///< keys that a query sees, the last ones up to its own; 0: all
  float soft_cap = 0.0f;    ///< c of c tanh(scale q.k / c); 0: none
};
cudaError_t attend(const Attention& attention, std::int64_t copies, cudaStream_t stream);

}  // namespace mezzo::cuda
