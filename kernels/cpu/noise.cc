#include "kernels/cpu/noise.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "mezzo/core/noise.h"

// The functions of mezzo/core/noise.h in loops that the compiler turns into AVX2: the same operations on the
// same words, hence the same bits.

namespace mezzo::cpu {
namespace {

// Philox blocks at a time.
constexpr int normal_blocks = 32;  // 128 elements
constexpr int sign_blocks = 8;     // 1024 elements

/// Random words of `blocks` blocks from `first_block` on; words[w][j] is word w of block first_block + j.
template <int blocks>
void random_words(std::uint32_t (&words)[4][blocks], std::uint64_t seed, NoiseTensor tensor,
                  std::uint64_t first_block) {
  const PhiloxKey key = philox_key(seed);
#pragma omp simd
  for (int j = 0; j < blocks; ++j) {
    const PhiloxWords block = philox4x32_10(
        philox_counter(first_block + static_cast<std::uint64_t>(j), tensor.id, tensor.purpose), key);
    words[0][j] = block.word[0];
    words[1][j] = block.word[1];
    words[2][j] = block.word[2];
    words[3][j] = block.word[3];
  }
}

/// The elements of `normal_blocks` blocks.
void normal_tile(float* out, std::uint64_t seed, NoiseTensor tensor, std::uint64_t first_block) {
  alignas(32) std::uint32_t words[4][normal_blocks];
  random_words(words, seed, tensor, first_block);
#pragma omp simd
  for (int j = 0; j < normal_blocks; ++j) {
    const NormalPair low = box_muller(words[0][j], words[1][j]);
    const NormalPair high = box_muller(words[2][j], words[3][j]);
    out[4 * j] = low.first;
    out[4 * j + 1] = low.second;
    out[4 * j + 2] = high.first;
    out[4 * j + 3] = high.second;
  }
}

/// The elements of `sign_blocks` blocks.
void sign_tile(float* out, std::uint64_t seed, NoiseTensor tensor, std::uint64_t first_block) {
  alignas(32) std::uint32_t words[4][sign_blocks];
  random_words(words, seed, tensor, first_block);
  for (int j = 0; j < sign_blocks; ++j) {
    for (int w = 0; w < 4; ++w) {
      const std::uint32_t bits = words[w][j];
      for (std::uint32_t e = 0; e < 32; ++e) *out++ = sign_of_bit(bits >> e);
    }
  }
}

/// Any range from a function that makes tiles of whole blocks: the first and the last are cut out of a
/// buffer.
template <std::uint64_t per_block, int tile_blocks, typename Tile>
void fill(float* out, std::uint64_t count, std::uint64_t first_element, Tile tile) {
  constexpr std::uint64_t per_tile = per_block * tile_blocks;
  alignas(32) float buffer[per_tile];
  std::uint64_t block = first_element / per_block;
  std::uint64_t skip = first_element % per_block;
  while (count > 0) {
    const std::uint64_t used = std::min(count, per_tile - skip);
    if (used == per_tile) {
      tile(out, block);
    } else {
      tile(buffer, block);
      std::memcpy(out, buffer + skip, used * sizeof(float));
    }
    out += used;
    count -= used;
    block += tile_blocks;
    skip = 0;
  }
}

}  // namespace

void fill_noise(float* out, std::int64_t count, NoiseKind kind, std::uint64_t seed, NoiseTensor tensor,
                std::uint64_t first_element) {
  const auto n = static_cast<std::uint64_t>(count);
  if (kind == NoiseKind::gaussian) {
    fill<elements_per_normal_block, normal_blocks>(
        out, n, first_element, [&](float* to, std::uint64_t block) { normal_tile(to, seed, tensor, block); });
  } else {
    fill<elements_per_sign_block, sign_blocks>(
        out, n, first_element, [&](float* to, std::uint64_t block) { sign_tile(to, seed, tensor, block); });
  }
}

}  // namespace mezzo::cpu
