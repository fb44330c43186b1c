#pragma once
// A step of decoding for tests: rows with prompts and slots of odd lengths, one of them idle.
#include <string>
#include <vector>

#include "operands.h"

namespace mezzo::test {

struct DecodingCase {
  std::int64_t heads, kv_heads, head_dim;
  std::int64_t window = 0;
  float soft_cap = 0.0f;
  std::int64_t rope_dims = 0;  ///< 0: none
  RopeStyle style = RopeStyle::half_split;
  bool shared_prompts = false;

  AttentionShape shape() const {
    return {.heads = heads,
            .kv_heads = kv_heads,
            .head_dim = head_dim,
            .scale = 1.0f / std::sqrt(static_cast<float>(head_dim)),
            .window = window,
            .soft_cap = soft_cap};
  }
  std::string text() const {
    return fmt::format("heads {} of {}, {}, window {}, cap {}, rope {} {}, prompts shared {}", heads,
                       head_dim, kv_heads, window, soft_cap, rope_dims, int(style), shared_prompts);
  }
};

inline std::vector<DecodingCase> decoding_cases() {
  constexpr auto interleaved = RopeStyle::interleaved;
  return {{5, 5, 64},
          {10, 5, 32, 0, 0.0f, 32},
          {4, 2, 80, 0, 0.0f, 32, interleaved, true},
          {2, 1, 7},
          {8, 1, 128, 33, 0.0f, 128, RopeStyle::half_split, true},
          {3, 3, 128, 0, 5.0f, 64},
          {2, 2, 256, 17},
          {12, 2, 20, 0, 0.0f, 12, interleaved},
          {6, 1, 256, 0, 3.0f, 256}};
}

inline constexpr std::int64_t decoding_probes = 2;
inline constexpr std::int64_t decoding_rows = 6;
inline constexpr std::int64_t decoding_new_tokens = 40;
inline constexpr std::int64_t decoding_prompt_rows = 300;

inline PackedBatch decoding_batch() {
  const std::int32_t prompts[2][decoding_rows] = {{1, 31, 33, 257, 0, 5}, {257, 0, 3, 64, 31, 1}};
  const std::int32_t own[2][decoding_rows] = {{0, 1, 31, 39, 3, -1}, {2, 33, -1, 0, 7, 38}};
  PackedBatch batch;
  batch.probes = decoding_probes;
  batch.offsets = {0, decoding_rows};
  for (std::int32_t t = 0; t < decoding_rows; ++t) {
    batch.loss_rows.push_back(t);
    batch.target_rows.push_back(t);
  }
  for (int p = 0; p < decoding_probes; ++p) {
    for (std::int32_t t = 0; t < decoding_rows; ++t) {
      batch.tokens.push_back(t);
      batch.cache_rows.push_back(own[p][t]);
      batch.prompt_lengths.push_back(prompts[p][t]);
      batch.prompt_begins.push_back((decoding_prompt_rows - prompts[p][t]) * t / decoding_rows);
      batch.positions.push_back(prompts[p][t] + std::max(own[p][t], 0));
      batch.draw_keys.insert(batch.draw_keys.end(), {t, p});
      batch.draw_places.push_back(t);
    }
  }
  return batch;
}

/// Whether row t of probe p is not idle.
inline bool decodes(const PackedBatch& batch, std::int64_t p, std::int64_t t) {
  return batch.cache_rows[static_cast<std::size_t>(p * decoding_rows + t)] >= 0;
}

}  // namespace mezzo::test
