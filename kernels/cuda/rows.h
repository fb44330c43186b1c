#pragma once
// Looking up, copying and converting rows.
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/matrices.h"

namespace mezzo::cuda {

/// h[copy][t] = table[tokens[copy * token_stride + t]] + positions_table[positions[copy * position_stride +
/// t]
/// + position_offset], t < rows, each row `cols` wide; h fp32. The second term is left out where
/// positions_table has no data; both tables are of one type.
cudaError_t embed(Matrices table, std::int64_t vocabulary, const std::int32_t* tokens,
                  std::int64_t token_stride, Matrices positions_table, std::int64_t places,
                  const std::int32_t* positions, std::int64_t position_stride, std::int64_t position_offset,
                  std::int64_t rows, std::int64_t cols, std::int64_t copies, Matrices h, std::uint32_t* fault,
                  cudaStream_t stream);

/// out[copy][i] = x[copy][index[i]], i < rows; x has `x_rows` rows.
cudaError_t gather(Matrices x, std::int64_t x_rows, const std::int32_t* index, std::int64_t rows,
                   std::int64_t cols, std::int64_t copies, Matrices out, std::uint32_t* fault,
                   cudaStream_t stream);

/// h *= factor, in place; fp32.
cudaError_t scale(Matrices h, float factor, std::int64_t rows, std::int64_t cols, std::int64_t copies,
                  cudaStream_t stream);

/// The columns [heads][q, k, v][head_dim] of x as [q, k, v][heads][head_dim].
cudaError_t split_heads(Matrices x, std::int64_t heads, std::int64_t head_dim, std::int64_t rows,
                        std::int64_t copies, Matrices out, cudaStream_t stream);

/// out [rows, cols] = source, dense fp32, rounded to nearest even.
cudaError_t assign(Matrices out, const float* source, std::int64_t rows, std::int64_t cols,
                   cudaStream_t stream);

/// Element type to element type: out [rows, cols], rounded to nearest even. `source` is dense [rows, cols],
/// or [cols, rows] when `transposed`, of type f32, f16, bf16 or f64.
cudaError_t convert(Matrices out, const void* source, DType source_dtype, std::int64_t rows,
                    std::int64_t cols, bool transposed, cudaStream_t stream);

/// out [copies][rows][cols] dense fp32 = x.
cudaError_t to_dense(Matrices x, std::int64_t rows, std::int64_t cols, std::int64_t copies, float* out,
                     cudaStream_t stream);

/// out [rows, cols] = scale * z, z the normal of element i * cols + j of tensor 0 under `seed`, rounded to
/// nearest even.
cudaError_t fill_normal(Matrices out, std::int64_t rows, std::int64_t cols, std::uint64_t seed, float scale,
                        cudaStream_t stream);

/// Standard normals of a fixed seed, in `dtype`: test data for choosing algorithms.
cudaError_t fill_normals(void* out, DType dtype, std::int64_t count, cudaStream_t stream);

/// *differences += the number of bytes in which rows of a and b differ; row_bytes of each row are compared.
cudaError_t count_differences(const void* a, const void* b, std::int64_t rows, std::int64_t row_bytes,
                              std::int64_t stride_bytes, std::uint32_t* differences, cudaStream_t stream);

}  // namespace mezzo::cuda
