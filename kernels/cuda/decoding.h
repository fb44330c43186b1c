#pragma once
// One token more of many sequences, whose keys and values are kept: their store, attention over it, and the
// choice of next tokens.
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/matrices.h"
#include "kernels/cuda/score.h"
#include "mezzo/core/sampling.h"

namespace mezzo::cuda {

/// to[copy][index[i]] = from[copy][i], i < rows; `to` has `to_rows` rows. Both of one type.
cudaError_t scatter(Matrices from, const std::int32_t* index, std::int64_t rows, std::int64_t cols,
                    std::int64_t copies, Matrices to, std::int64_t to_rows, std::uint32_t* fault,
                    cudaStream_t stream);

/// Row b of each copy is one token of the sequence in slot b. Its key and value, the key turned by `rotation`
/// (dims 0: not at all), go to row cache_rows[b] of the slot's rows [b, b + 1) * slot_rows of `own`; its
/// `heads` queries, turned alike, attend to the prompt's rows and the slot's up to that one. Every array of
/// indices is [rows] a copy, `index_stride` apart. A row with cache_rows -1 stores nothing and gives zeros.
struct Decoding {
  Matrices q;                     ///< [rows, heads * head_dim]
  Matrices k, v;                  ///< [rows, kv_heads * head_dim]
  Matrices prompt_k, prompt_v;    ///< [prompt_rows, kv_heads * head_dim]
  Matrices own_k, own_v;          ///< [own_rows, kv_heads * head_dim]
  Matrices out;                   ///< like q
  const std::int32_t* positions;  ///< rows of the rotation's tables
  const std::int32_t* cache_rows;
  const std::int32_t* prompt_begins;
  const std::int32_t* prompt_lengths;
  std::int64_t index_stride = 0;
  std::int64_t rows = 0;
  std::int64_t prompt_rows = 0, own_rows = 0, slot_rows = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;  ///< at most 256
  float scale = 1.0f;
  std::int64_t window = 0;  ///< keys that a query sees, the last ones up to its own; 0: all
  float soft_cap = 0.0f;    ///< 0: none
  Rotation rotation;
};
/// A row's bits depend on its own operands and the number of its keys alone.
cudaError_t decode_attend(const Decoding& decoding, std::int64_t copies, std::uint32_t* fault,
                          cudaStream_t stream);

/// Target j of each copy asks for a token behind row rows[j]. Keys and places are of draw_key().
struct Choices {
  const std::int32_t* rows = nullptr;    ///< [count]
  const std::int32_t* keys = nullptr;    ///< [2 count], low words first
  const std::int32_t* places = nullptr;  ///< [count]
  std::int64_t key_stride = 0;           ///< between copies
  std::int64_t place_stride = 0;
  std::int64_t count = 0;
};

/// out[copy * out_stride + j] = the token that mezzo/core/sampling.h chooses for target j, for the targets
/// whose row is among these; -1 where a logit is NaN. Of a nucleus, probabilities are summed in fp64.
cudaError_t choose_tokens(const Logits& logits, const Choices& choices, const Sampling& sampling,
                          std::int64_t copies, std::int32_t* out, std::int64_t out_stride,
                          std::uint32_t* fault, cudaStream_t stream);

}  // namespace mezzo::cuda
