#include "kernels/reference/attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace mezzo::reference {
namespace {

void rotate_pair(float& first, float& second, double cosine, double sine) {
  const double a = first;
  const double b = second;
  first = static_cast<float>(a * cosine - b * sine);
  second = static_cast<float>(b * cosine + a * sine);
}

}  // namespace

void rotate_half_split(float* row, std::int64_t heads, std::int64_t head_dim, std::int64_t dims,
                       const float* cosines, const float* sines) {
  for (std::int64_t h = 0; h < heads; ++h) {
    float* head = row + h * head_dim;
    for (std::int64_t j = 0; j < dims / 2; ++j)
      rotate_pair(head[j], head[j + dims / 2], cosines[j], sines[j]);
  }
}

void rotate_interleaved(float* row, std::int64_t heads, std::int64_t head_dim, std::int64_t dims,
                        const float* cosines, const float* sines) {
  for (std::int64_t h = 0; h < heads; ++h) {
    float* head = row + h * head_dim;
    for (std::int64_t j = 0; j < dims / 2; ++j)
      rotate_pair(head[2 * j], head[2 * j + 1], cosines[j], sines[j]);
  }
}

void attend(const float* q, Rows<const float> k, Rows<const float> v, std::int64_t last,
            std::int64_t head_dim, const Scoring& scoring, float* out) {
  const std::int64_t first = scoring.first_key(last);
  std::vector<double> scores;
  for (std::int64_t j = first; j <= last; ++j) {
    double dot = 0.0;
    for (std::int64_t d = 0; d < head_dim; ++d) dot += double{q[d]} * k.row(j)[d];
    const double score = scoring.scale * dot;
    const double cap = scoring.soft_cap;
    scores.push_back(cap == 0.0 ? score : cap * std::tanh(score / cap));
  }
  const double largest = *std::max_element(scores.begin(), scores.end());
  double total = 0.0;
  for (double& score : scores) {
    score = std::exp(score - largest);
    total += score;
  }
  for (std::int64_t d = 0; d < head_dim; ++d) {
    double sum = 0.0;
    for (std::int64_t j = first; j <= last; ++j)
      sum += scores[static_cast<std::size_t>(j - first)] * v.row(j)[d];
    out[d] = static_cast<float>(sum / total);
  }
}

}  // namespace mezzo::reference
