#include "kernels/cpu/attention.h"

#include <algorithm>

#include "kernels/cpu/simd.h"

namespace mezzo::cpu {
namespace {

using namespace simd;

constexpr std::int64_t query_block = 4;    // query rows that share a load of k or v
constexpr std::int64_t panel = 2 * width;  // columns in registers: 4 x 2 accumulators

std::int64_t padded(std::int64_t n) { return (n + panel - 1) / panel * panel; }

/// y[i][0..panel) = sum over d of a[i][d] * b[d][0..panel), for `query_block` rows: each element one chain of
/// fma in the order of d.
void multiply_panel(const float* const* a, Rows<const float> b, std::int64_t depth, Float8 (*y)[2]) {
  for (std::int64_t i = 0; i < query_block; ++i) y[i][0] = y[i][1] = broadcast(0.0f);
  for (std::int64_t d = 0; d < depth; ++d) {
    const Float8 b0 = load(b.row(d));
    const Float8 b1 = load(b.row(d) + width);
    for (std::int64_t i = 0; i < query_block; ++i) {
      const Float8 factor = broadcast(a[i][d]);
      y[i][0] = fma(factor, b0, y[i][0]);
      y[i][1] = fma(factor, b1, y[i][1]);
    }
  }
}

/// The same for a last panel of `cols` < panel columns.
void multiply_panel(const float* const* a, Rows<const float> b, std::int64_t depth, std::int64_t cols,
                    Float8 (*y)[2]) {
  const __m256i low = mask_of(std::min(cols, width));
  const __m256i high = mask_of(std::max<std::int64_t>(cols - width, 0));
  for (std::int64_t i = 0; i < query_block; ++i) y[i][0] = y[i][1] = broadcast(0.0f);
  for (std::int64_t d = 0; d < depth; ++d) {
    const Float8 b0 = load(b.row(d), low);
    const Float8 b1 = load(b.row(d) + width, high);
    for (std::int64_t i = 0; i < query_block; ++i) {
      const Float8 factor = broadcast(a[i][d]);
      y[i][0] = fma(factor, b0, y[i][0]);
      y[i][1] = fma(factor, b1, y[i][1]);
    }
  }
}

/// scores[0..count) to exp(scale (score - largest)); zeros up to `end`. Returns their sum.
float soften(float* scores, std::int64_t count, std::int64_t end, float scale) {
  Float8 top = broadcast(-__builtin_inff());
  for_each(
      count, [&](std::int64_t j) { top = _mm256_max_ps(top, load(scores + j)); },
      [&](std::int64_t j, __m256i mask) {
        top = _mm256_max_ps(top, _mm256_blendv_ps(top, load(scores + j, mask), _mm256_castsi256_ps(mask)));
      });
  const Float8 factor = broadcast(scale);
  const Float8 shift = broadcast(-scale * max(top));
  Float8 total = broadcast(0.0f);
  for_each(
      count,
      [&](std::int64_t j) {
        const Float8 p = exp(fma(factor, load(scores + j), shift));
        store(scores + j, p);
        total = _mm256_add_ps(total, p);
      },
      [&](std::int64_t j, __m256i mask) {
        const Float8 p =
            _mm256_and_ps(exp(fma(factor, load(scores + j, mask), shift)), _mm256_castsi256_ps(mask));
        store(scores + j, mask, p);
        total = _mm256_add_ps(total, p);
      });
  std::fill(scores + count, scores + end, 0.0f);
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

void attend(Rows<const float> q, std::int64_t queries, const std::int32_t* places, std::int64_t group,
            Rows<const float> k, Rows<const float> v, std::int64_t length, std::int64_t head_dim, float scale,
            Rows<float> out, float* scratch) {
  const std::int64_t stride = padded(length);
  // Keys transposed, [head_dim, length] padded with zeros: scores of a panel of keys then fill whole vectors,
  // and each is one chain of fma over the head, whatever its neighbours.
  const Rows<float> keys{scratch, stride};
  float* const scores = scratch + head_dim * stride;
  for (std::int64_t j = 0; j < length; ++j) {
    for (std::int64_t d = 0; d < head_dim; ++d) keys.row(d)[j] = k.row(j)[d];
  }
  for (std::int64_t d = 0; d < head_dim; ++d) std::fill(keys.row(d) + length, keys.row(d) + stride, 0.0f);

  for (std::int64_t begin = 0; begin < queries; begin += query_block) {
    const std::int64_t count = std::min(query_block, queries - begin);
    const auto place = [&](std::int64_t i) { return places != nullptr ? places[begin + i] : begin + i; };
    const std::int64_t seen = place(count - 1) + 1;  // keys that the last row of the block sees
    for (std::int64_t head = 0; head < group; ++head) {
      const float* rows[query_block];
      // A short block repeats its last row: what the copies give is not stored.
      for (std::int64_t i = 0; i < query_block; ++i) {
        rows[i] = q.row(begin + std::min(i, count - 1)) + head * head_dim;
      }
      Float8 y[query_block][2];
      for (std::int64_t j = 0; j < seen; j += panel) {
        multiply_panel(rows, {keys.data + j, stride}, head_dim, y);
        for (std::int64_t i = 0; i < query_block; ++i) {
          store(scores + i * stride + j, y[i][0]);
          store(scores + i * stride + j + width, y[i][1]);
        }
      }
      float total[query_block];
      for (std::int64_t i = 0; i < query_block; ++i) {
        total[i] = soften(scores + i * stride, place(std::min(i, count - 1)) + 1, seen, scale);
        rows[i] = scores + i * stride;
      }
      for (std::int64_t d = 0; d < head_dim; d += panel) {
        const std::int64_t cols = std::min(panel, head_dim - d);
        const Rows<const float> values{v.data + d, v.stride};
        if (cols == panel) {
          multiply_panel(rows, values, seen, y);
        } else {
          multiply_panel(rows, values, seen, cols, y);
        }
        const __m256i low = mask_of(std::min(cols, width));
        const __m256i high = mask_of(std::max<std::int64_t>(cols - width, 0));
        for (std::int64_t i = 0; i < count; ++i) {
          float* to = out.row(begin + i) + head * head_dim + d;
          const Float8 norm = broadcast(1.0f / total[i]);
          store(to, low, _mm256_mul_ps(y[i][0], norm));
          store(to + width, high, _mm256_mul_ps(y[i][1], norm));
        }
      }
    }
  }
}

}  // namespace mezzo::cpu
