#include "kernels/cpu/attention.h"

#include <algorithm>

#include "kernels/cpu/activation.h"
#include "kernels/cpu/simd.h"

namespace mezzo::cpu {
namespace {

using namespace simd;

constexpr std::int64_t query_block = 4;    // query rows that share a load of k or v
constexpr std::int64_t panel = 2 * width;  // columns in registers: 4 x 2 accumulators

std::int64_t padded(std::int64_t n) { return (n + panel - 1) / panel * panel; }

/// A panel of results: `query_block` rows of two vectors.
struct Panel {
  Float8 low[query_block];
  Float8 high[query_block];
};

/// Row i: sum over d of a[i][d] * b[d][0..panel), each element one chain of fma in the order of d. `load_row`
/// reads the two vectors of a row of b.
template <typename LoadRow>
inline Panel multiply_panel(const float* const* a, std::int64_t depth, LoadRow load_row) {
  Panel y;
  for (std::int64_t i = 0; i < query_block; ++i) y.low[i] = y.high[i] = broadcast(0.0f);
  for (std::int64_t d = 0; d < depth; ++d) {
    const auto [low, high] = load_row(d);
    for (std::int64_t i = 0; i < query_block; ++i) {
      const Float8 factor = broadcast(a[i][d]);
      y.low[i] = fma(factor, low, y.low[i]);
      y.high[i] = fma(factor, high, y.high[i]);
    }
  }
  return y;
}

struct RowOfPanel {
  Float8 low;
  Float8 high;
};

/// The same over the first `cols` <= panel columns of b.
Panel multiply_panel(const float* const* a, Rows<const float> b, std::int64_t depth, std::int64_t cols) {
  if (cols == panel) {
    return multiply_panel(a, depth, [b](std::int64_t d) {
      return RowOfPanel{load(b.row(d)), load(b.row(d) + width)};
    });
  }
  const __m256i low = mask_of(std::min(cols, width));
  const __m256i high = mask_of(std::max<std::int64_t>(cols - width, 0));
  return multiply_panel(a, depth, [=](std::int64_t d) {
    return RowOfPanel{load(b.row(d), low), load(b.row(d) + width, high)};
  });
}

/// to[d][j] = from[j][d] for eight rows j and eight columns d.
void transpose_eight(Rows<const float> from, Rows<float> to) {
  Float8 a[8], b[8];
  for (int j = 0; j < 8; ++j) a[j] = load(from.row(j));
  for (int j = 0; j < 8; j += 2) {
    b[j] = _mm256_unpacklo_ps(a[j], a[j + 1]);
    b[j + 1] = _mm256_unpackhi_ps(a[j], a[j + 1]);
  }
  for (int j = 0; j < 8; j += 4) {
    a[j] = _mm256_shuffle_ps(b[j], b[j + 2], 0x44);
    a[j + 1] = _mm256_shuffle_ps(b[j], b[j + 2], 0xee);
    a[j + 2] = _mm256_shuffle_ps(b[j + 1], b[j + 3], 0x44);
    a[j + 3] = _mm256_shuffle_ps(b[j + 1], b[j + 3], 0xee);
  }
  for (int d = 0; d < 4; ++d) {
    store(to.row(d), _mm256_permute2f128_ps(a[d], a[d + 4], 0x20));
    store(to.row(d + 4), _mm256_permute2f128_ps(a[d], a[d + 4], 0x31));
  }
}

/// to[d][j] = from[j][d], zeros for j from `rows` up to the stride of `to`.
void transpose(Rows<const float> from, std::int64_t rows, std::int64_t cols, Rows<float> to) {
  const std::int64_t whole_rows = rows / 8 * 8;
  const std::int64_t whole_cols = cols / 8 * 8;
  for (std::int64_t j = 0; j < whole_rows; j += 8) {
    for (std::int64_t d = 0; d < whole_cols; d += 8) {
      transpose_eight({from.row(j) + d, from.stride}, {to.row(d) + j, to.stride});
    }
  }
  for (std::int64_t d = 0; d < cols; ++d) {
    for (std::int64_t j = d < whole_cols ? whole_rows : 0; j < rows; ++j) to.row(d)[j] = from.row(j)[d];
    std::fill(to.row(d) + rows, to.row(d) + to.stride, 0.0f);
  }
}

/// scores[hidden..count) to exp(scale (score - largest)), zeros before them and behind them up to `end`;
/// returns their sum. `end` is a multiple of a vector, so that only whole vectors are moved: masked stores
/// are slow, and what they wrote cannot be forwarded to the loads that come next.
float soften(float* scores, std::int64_t hidden, std::int64_t count, std::int64_t end, float scale) {
  std::fill(scores, scores + hidden, -__builtin_inff());  // exp(-inf) is 0
  const std::int64_t whole = count / width * width;
  const Float8 rest = _mm256_castsi256_ps(mask_of(count - whole));
  Float8 top = broadcast(-__builtin_inff());
  for (std::int64_t j = 0; j < whole; j += width) top = _mm256_max_ps(top, load(scores + j));
  if (whole < count) top = _mm256_max_ps(top, _mm256_blendv_ps(top, load(scores + whole), rest));
  const Float8 factor = broadcast(scale);
  const Float8 shift = broadcast(-scale * max(top));
  Float8 total = broadcast(0.0f);
  for (std::int64_t j = 0; j < whole; j += width) {
    const Float8 p = exp(fma(factor, load(scores + j), shift));
    store(scores + j, p);
    total = _mm256_add_ps(total, p);
  }
  if (whole < count) {
    const Float8 p = _mm256_and_ps(exp(fma(factor, load(scores + whole), shift)), rest);
    store(scores + whole, p);
    total = _mm256_add_ps(total, p);
  }
  for (std::int64_t j = (count + width - 1) / width * width; j < end; j += width)
    store(scores + j, broadcast(0.0f));
  return sum(total);
}

}  // namespace

void rotate_half_split(float* row, std::int64_t heads, std::int64_t head_dim, std::int64_t dims,
                       const float* cosines, const float* sines) {
  const std::int64_t half = dims / 2;
  for (std::int64_t h = 0; h < heads; ++h) {
    float* first = row + h * head_dim;
    float* second = first + half;
#pragma omp simd
    for (std::int64_t j = 0; j < half; ++j) {
      const float a = first[j];
      const float b = second[j];
      first[j] = a * cosines[j] - b * sines[j];
      second[j] = b * cosines[j] + a * sines[j];
    }
  }
}

void rotate_interleaved(float* row, std::int64_t heads, std::int64_t head_dim, std::int64_t dims,
                        const float* cosines, const float* sines) {
  for (std::int64_t h = 0; h < heads; ++h) {
    float* head = row + h * head_dim;
#pragma omp simd
    for (std::int64_t j = 0; j < dims / 2; ++j) {
      const float a = head[2 * j];
      const float b = head[2 * j + 1];
      head[2 * j] = a * cosines[j] - b * sines[j];
      head[2 * j + 1] = b * cosines[j] + a * sines[j];
    }
  }
}

std::int64_t attend_scratch(std::int64_t longest, std::int64_t head_dim) {
  return (head_dim + query_block) * padded(longest);
}

std::int64_t attend_row_scratch(std::int64_t length) { return padded(length); }

void attend_row(const float* q, std::int64_t group, std::span<const KeyRows> pieces, std::int64_t head_dim,
                const Scoring& scoring, float* out, float* scores) {
  std::int64_t length = 0;
  for (const KeyRows& piece : pieces) length += piece.count;
  if (length == 0) return std::fill(out, out + group * head_dim, 0.0f);
  const std::int64_t first = scoring.first_key(length - 1);
  const std::int64_t count = length - first;
  /// f(j, piece, row) for every key seen, j from 0.
  const auto for_keys = [&](auto f) {
    std::int64_t begin = 0;  // of the piece
    for (const KeyRows& piece : pieces) {
      for (std::int64_t row = std::max<std::int64_t>(first - begin, 0); row < piece.count; ++row)
        f(begin + row - first, piece, row);
      begin += piece.count;
    }
  };
  const __m256i rest = mask_of(head_dim % width);
  for (std::int64_t head = 0; head < group; ++head, q += head_dim, out += head_dim) {
    for_keys([&](std::int64_t j, const KeyRows& piece, std::int64_t row) {
      const float* const key = piece.k.row(row);
      Float8 dot = broadcast(0.0f);
      std::int64_t d = 0;
      for (; d + width <= head_dim; d += width) dot = fma(load(q + d), load(key + d), dot);
      if (d < head_dim) dot = fma(load(q + d, rest), load(key + d, rest), dot);
      scores[j] = sum(dot);
    });
    if (scoring.soft_cap != 0.0f) soft_cap(scores, count, scoring.scale, scoring.soft_cap);
    const float total =
        soften(scores, 0, count, padded(count), scoring.soft_cap == 0.0f ? scoring.scale : 1.0f);
    const Float8 norm = broadcast(1.0f / total);
    for (std::int64_t d = 0; d < head_dim; d += width) {
      const bool whole = d + width <= head_dim;
      Float8 y = broadcast(0.0f);
      for_keys([&](std::int64_t j, const KeyRows& piece, std::int64_t row) {
        const float* const value = piece.v.row(row) + d;
        y = fma(broadcast(scores[j]), whole ? load(value) : load(value, rest), y);
      });
      y = _mm256_mul_ps(y, norm);
      whole ? store(out + d, y) : store(out + d, rest, y);
    }
  }
}

void attend(Rows<const float> q, std::int64_t queries, const std::int32_t* places, std::int64_t group,
            Rows<const float> k, Rows<const float> v, std::int64_t length, std::int64_t head_dim,
            const Scoring& scoring, Rows<float> out, float* scratch) {
  const std::int64_t stride = padded(length);
  // Keys transposed, [head_dim, length] padded with zeros: scores of a panel of keys then fill whole vectors,
  // and each is one chain of fma over the head, whatever its neighbours.
  const Rows<float> keys{scratch, stride};
  float* const scores = scratch + head_dim * stride;
  transpose(k, length, head_dim, keys);

  for (std::int64_t begin = 0; begin < queries; begin += query_block) {
    const std::int64_t count = std::min(query_block, queries - begin);
    const auto place = [&](std::int64_t i) { return places != nullptr ? places[begin + i] : begin + i; };
    const std::int64_t seen = place(count - 1) + 1;  // keys that the last row of the block sees
    // A whole panel, so that a key's lane does not depend on the rows of the block.
    const std::int64_t start = scoring.first_key(place(0)) / panel * panel;
    for (std::int64_t head = 0; head < group; ++head) {
      const float* rows[query_block];
      // A short block repeats its last row: what the copies give is not stored.
      for (std::int64_t i = 0; i < query_block; ++i) {
        rows[i] = q.row(begin + std::min(i, count - 1)) + head * head_dim;
      }
      for (std::int64_t j = start; j < seen; j += panel) {
        const Panel y = multiply_panel(rows, {keys.data + j, stride}, head_dim, panel);
        for (std::int64_t i = 0; i < query_block; ++i) {
          store(scores + i * stride + j, y.low[i]);
          store(scores + i * stride + j + width, y.high[i]);
        }
      }
      float total[query_block];
      for (std::int64_t i = 0; i < query_block; ++i) {
        float* const row = scores + i * stride + start;
        const std::int64_t at = place(std::min(i, count - 1));
        if (scoring.soft_cap != 0.0f) soft_cap(row, padded(seen) - start, scoring.scale, scoring.soft_cap);
        total[i] = soften(row, scoring.first_key(at) - start, at + 1 - start, padded(seen) - start,
                          scoring.soft_cap == 0.0f ? scoring.scale : 1.0f);
        rows[i] = row;
      }
      for (std::int64_t d = 0; d < head_dim; d += panel) {
        const std::int64_t cols = std::min(panel, head_dim - d);
        const Panel y = multiply_panel(rows, {v.row(start) + d, v.stride}, seen - start, cols);
        for (std::int64_t i = 0; i < count; ++i) {
          float* to = out.row(begin + i) + head * head_dim + d;
          const Float8 norm = broadcast(1.0f / total[i]);
          const Float8 low = _mm256_mul_ps(y.low[i], norm);
          const Float8 high = _mm256_mul_ps(y.high[i], norm);
          if (cols == panel) {
            store(to, low);
            store(to + width, high);
          } else {
            store(to, mask_of(std::min(cols, width)), low);
            store(to + width, mask_of(std::max<std::int64_t>(cols - width, 0)), high);
          }
        }
      }
    }
  }
}

}  // namespace mezzo::cpu
