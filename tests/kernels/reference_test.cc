// The oracle itself, against numbers worked out by hand.
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <vector>

#include "kernels/reference/activation.h"
#include "kernels/reference/attention.h"
#include "kernels/reference/linear.h"
#include "kernels/reference/norm.h"
#include "kernels/reference/rows.h"
#include "kernels/reference/score.h"

namespace mezzo::reference {
namespace {

using Values = std::vector<float>;

Rows<const float> rows(const Values& values, std::int64_t stride) { return {values.data(), stride}; }
Rows<float> rows(Values& values, std::int64_t stride) { return {values.data(), stride}; }

TEST(Reference, EmbedAddsPositionsFromTheirOffset) {
  const Values words = {1, 2, 3, 4, 5, 6}, places = {10, 20, 30, 40, 50, 60};
  const std::int32_t tokens[] = {2, 0}, positions[] = {0, 1};
  Values h(4);
  embed(rows(words, 2), tokens, {}, positions, 0, 2, 2, rows(h, 2));
  EXPECT_EQ(h, (Values{5, 6, 1, 2}));
  embed(rows(words, 2), tokens, rows(places, 2), positions, 1, 2, 2, rows(h, 2));
  EXPECT_EQ(h, (Values{35, 46, 51, 62}));
}

TEST(Reference, Gather) {
  const Values x = {1, 2, 3, 4, 5, 6};
  const std::int32_t index[] = {2, 2, 0};
  Values out(6);
  gather(rows(x, 2), index, 3, 2, rows(out, 2));
  EXPECT_EQ(out, (Values{5, 6, 5, 6, 1, 2}));
}

TEST(Reference, RmsNorm) {
  // mean of squares 12.5 = 3.5355^2; epsilon 3.5 makes it 16.
  const Values h = {3, 4}, weight = {1, 2};
  Values x(2);
  rms_norm(h.data(), 2, weight.data(), 3.5f, x.data());
  EXPECT_EQ(x, (Values{0.75f, 2.0f}));
}

TEST(Reference, LayerNorm) {
  // mean 3, variance ((-2)^2 + 0 + 2^2 + 0) / 4 = 2; epsilon 2 makes the deviation 2.
  const Values h = {1, 3, 5, 3}, weight = {1, 1, 3, 1}, bias = {0, 7, 1, 0};
  Values x(4);
  layer_norm(h.data(), 4, weight.data(), bias.data(), 2.0f, x.data());
  EXPECT_EQ(x, (Values{-1, 7, 4, 0}));
  layer_norm(h.data(), 4, weight.data(), nullptr, 2.0f, x.data());
  EXPECT_EQ(x, (Values{-1, 0, 3, 0}));
}

TEST(Reference, Activations) {
  // silu(1) = 1 / (1 + 1/e); gelu(1) = 0.841345 (erf), 0.841192 (tanh); all tables to 7 digits.
  const auto at = [](void (*f)(float*, std::int64_t), float x) {
    f(&x, 1);
    return x;
  };
  EXPECT_FLOAT_EQ(at(silu, 1.0f), 0.7310586f);
  EXPECT_FLOAT_EQ(at(silu, -1.0f), -0.2689414f);
  EXPECT_FLOAT_EQ(at(gelu_erf, 1.0f), 0.8413447f);
  EXPECT_FLOAT_EQ(at(gelu_erf, -1.0f), -0.1586553f);
  EXPECT_FLOAT_EQ(at(gelu_tanh, 1.0f), 0.8411920f);
  EXPECT_FLOAT_EQ(at(gelu_tanh, -1.0f), -0.1588080f);
  EXPECT_EQ(at(relu, -1.0f), 0.0f);
  EXPECT_EQ(at(relu, 2.0f), 2.0f);
  EXPECT_TRUE(std::isnan(at(relu, NAN)));
}

TEST(Reference, Linear) {
  // W = [1 2; 3 4; 5 6] in rows of 3 (the last column is not part of it), x = [1, -1], bias [0, 10, 20].
  const Values weight = {1, 2, 99, 3, 4, 99, 5, 6, 99}, x = {1, -1}, bias = {0, 10, 20};
  Values y(3);
  linear(rows(x, 2), 1, 2, rows(weight, 3), 3, bias.data(), rows(y, 3));
  EXPECT_EQ(y, (Values{-1, 9, 19}));
}

TEST(Reference, Tail) {
  // A = [1 0; 0 2], Z_A = [0 1; 1 0], B = [1 1], Z_B = [4 0], epsilon 1/2, x = [2, 4], scaling 3:
  // s = [2, 8] + [4, 2] / 2 = [4, 9];  B s = 13, Z_B s = 16;  y += 3 (13 + 8) = 63.
  const Values a = {1, 0, 0, 2}, b = {1, 1}, z_a = {0, 1, 1, 0}, z_b = {4, 0}, x = {2, 4};
  Tail tail{.a = rows(a, 2),
            .b = rows(b, 2),
            .z_a = z_a.data(),
            .z_b = z_b.data(),
            .rank = 2,
            .scaling = 3.0f,
            .a_epsilon = 0.5f,
            .epsilon = 0.5f};
  Values y = {100};
  add_tail(rows(x, 2), 1, 2, tail, 1, rows(y, 1));
  EXPECT_EQ(y[0], 163.0f);
  // The other sign: s = [0, 7]; B s = 7, Z_B s = 0; and without noise: s = [2, 8], B s = 10.
  tail.a_epsilon = tail.epsilon = -0.5f;
  y = {100};
  add_tail(rows(x, 2), 1, 2, tail, 1, rows(y, 1));
  EXPECT_EQ(y[0], 121.0f);
  tail.a_epsilon = tail.epsilon = 0.0f;
  tail.z_a = tail.z_b = nullptr;
  y = {100};
  add_tail(rows(x, 2), 1, 2, tail, 1, rows(y, 1));
  EXPECT_EQ(y[0], 130.0f);
}

TEST(Reference, RotationByAQuarterTurn) {
  // (a, b) turns to (-b, a); heads of 6, of which 4 turn: pairs (0, 2), (1, 3) or (0, 1), (2, 3).
  const Values cosines = {0, 1}, sines = {1, 0};  // the first pair by a quarter, the second not at all
  const Values row = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  Values x = row;
  rotate_half_split(x.data(), 2, 6, 4, cosines.data(), sines.data());
  EXPECT_EQ(x, (Values{-3, 2, 1, 4, 5, 6, -9, 8, 7, 10, 11, 12}));
  x = row;
  rotate_interleaved(x.data(), 2, 6, 4, cosines.data(), sines.data());
  EXPECT_EQ(x, (Values{-2, 1, 3, 4, 5, 6, -8, 7, 9, 10, 11, 12}));
}

TEST(Reference, Attention) {
  // Scores scale * (1 * 0, 1 * log 3): weights 1/4 and 3/4 of the values 4 and 8.
  const float log3 = std::log(3.0f);
  const Values q = {2}, k = {0, log3, 100}, v = {4, 8, 1000};
  float out = 0.0f;
  attend(q.data(), rows(k, 1), rows(v, 1), 1, 1, {.scale = 0.5f}, &out);
  EXPECT_NEAR(out, 7.0f, 1e-6);
  attend(q.data(), rows(k, 1), rows(v, 1), 0, 1, {.scale = 0.5f}, &out);
  EXPECT_EQ(out, 4.0f);
  // The last key alone; then scores of 2 tanh(0 / 2) and 2 tanh(log 3 / 2) = 1: weights 1 and e.
  attend(q.data(), rows(k, 1), rows(v, 1), 1, 1, {.scale = 0.5f, .window = 1}, &out);
  EXPECT_EQ(out, 8.0f);
  attend(q.data(), rows(k, 1), rows(v, 1), 1, 1, {.scale = 0.5f, .soft_cap = 2.0f}, &out);
  EXPECT_NEAR(out, (4.0 + 8.0 * std::numbers::e) / (1.0 + std::numbers::e), 1e-6);
}

TEST(Reference, LogSumExp) {
  const Values weight = {1, 0, -1}, bias = {0, 1, 0}, x = {2};
  std::vector<double> logits(3);
  head_logits(x.data(), 1, rows(weight, 1), 3, bias.data(), logits.data());
  EXPECT_EQ(logits, (std::vector<double>{2, 1, -2}));
  const double even[] = {1000, 1000, 1000, 1000};
  EXPECT_DOUBLE_EQ(log_sum_exp(even, 4), 1000 + 2 * std::numbers::ln2);
}

}  // namespace
}  // namespace mezzo::reference
