#pragma once
// Causal attention on tensor cores (Dao 2023, FlashAttention-2) for bf16; attention.h has the kernel that
// takes every other case.
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/attention.h"

namespace mezzo::cuda {

/// Rotary positions that flash_attend gives the tiles of q and k that it has loaded; q and k themselves stay
/// as they are. The bits are those of rotate() on q and k before it.
struct Rotary {
  Rotation rotation;                        ///< its heads and head_dim are not read
  const std::int32_t* positions = nullptr;  ///< [tokens]; null: nothing is rotated
  bool queries = true;
  bool keys = true;  ///< false: rotate() has been over k; keys_first says which is quicker
  std::uint32_t* fault = nullptr;
};

/// Whether flash_attend takes these operands: all bf16; pointers, strides and head_dim multiples of 8
/// elements; tiles that fit into `shared_bytes`, the most that a block may have on the card.
bool flash_attend_fits(const Attention& attention, std::size_t shared_bytes);
/// Whether it can rotate by these tables: rows of 16-byte words, dims a multiple of 16.
bool flash_rotary_fits(const Rotation& rotation);
/// Whether rotate() on k before flash_attend is quicker than Rotary::keys, which rotates a key once for each
/// query head and each 128 queries that see it. The bits are the same. With a window or a soft cap there is
/// no other way.
bool keys_first(const Attention& attention, std::int64_t copies);

/// Softmax in fp32, its weights rounded to bf16 for the product with v. A query's bits depend on its sequence
/// alone: not on the other sequences, nor on the place in the batch, the copy or the other queries.
/// cudaErrorInvalidValue if the operands do not fit.
cudaError_t flash_attend(const Attention& attention, const Rotary& rotary, std::int64_t copies,
                         cudaStream_t stream);

}  // namespace mezzo::cuda
