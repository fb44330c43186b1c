#pragma once
// Noise as a pure function of (seed, tensor id, element), the same bits on every host and device: Philox
// words turned into normals, signs or uniforms by integer and IEEE binary32 operations alone (no libm, no
// branches). The layout of words over elements and the accuracy of the normals are in docs/numerics.md; the
// coefficients come from tests/goldens/fit_normal_polynomials.py.
#include <cstdint>

#include "mezzo/core/ieee.h"
#include "mezzo/core/noise_kind.h"
#include "mezzo/core/philox.h"

namespace mezzo {

inline constexpr std::uint64_t elements_per_normal_block =
    4;  ///< elements that share a Philox block; uniforms too
inline constexpr std::uint64_t elements_per_sign_block = 128;

struct NormalPair {
  float first;
  float second;
};

/// -2 log(2^exponent (1 + f)) for f in [-1/3, 1/3): -2 log(2) exponent - 2 f + f^2 Q(f).
MEZZO_HOST_DEVICE inline float minus_2_log(std::int32_t exponent, float f) {
  float q = 0x1.0932b4p-2f;
  q = ieee::fma(q, f, -0x1.1ed150p-2f);
  q = ieee::fma(q, f, 0x1.f25d72p-3f);
  q = ieee::fma(q, f, -0x1.1ebe64p-2f);
  q = ieee::fma(q, f, 0x1.55a758p-2f);
  q = ieee::fma(q, f, -0x1.99d1f2p-2f);
  q = ieee::fma(q, f, 0x1.fffe84p-2f);
  q = ieee::fma(q, f, -0x1.555502p-1f);
  q = ieee::fma(q, f, 1.0f);
  const float minus_2_log_m = ieee::fma(ieee::mul(f, f), q, ieee::mul(-2.0f, f));
  return ieee::fma(ieee::from_int(exponent), -0x1.62e430p+0f, minus_2_log_m);
}

/// The exponent of a positive normal float from its bits, such that its mantissa lies in [2/3, 4/3).
MEZZO_HOST_DEVICE inline std::int32_t balanced_exponent(std::uint32_t bits) {
  return static_cast<std::int32_t>(bits - 0x3f2aaaabu) >> 23;
}

/// -2 log u of a random word, u = (a + 1/2) / 2^32.
MEZZO_HOST_DEVICE inline float minus_2_log_uniform(std::uint32_t a) {
  // u, or u - 1 from a = 2^31 on: a signed conversion gives both, either with its own relative precision.
  const float signed_u = ieee::fma(ieee::from_int(static_cast<std::int32_t>(a)), 0x1p-32f, 0x1p-33f);
  const std::uint32_t one_if_high = (0u - (a >> 31)) & 0x3f800000u;
  const std::uint32_t bits = ieee::to_bits(ieee::add(signed_u, ieee::from_bits(one_if_high)));
  const std::int32_t exponent = balanced_exponent(bits);
  const std::uint32_t mantissa = bits - (static_cast<std::uint32_t>(exponent) << 23);
  const float f_rounded = ieee::add(ieee::from_bits(mantissa), -1.0f);
  return minus_2_log(exponent, exponent == 0 ? signed_u : f_rounded);
}

/// Two independent standard normals from two random words (Box and Muller 1958): sqrt(-2 log u) times the
/// cosine (first) and the sine (second) of 2 pi v, with u = (a + 1/2) / 2^32 and v = (b + 1/2) / 2^32. |z|
/// lies between pi 2^-48 = 1.1e-14 and sqrt(66 log 2) = 6.7637: there are no zeros, and no subnormal occurs
/// on the way.
MEZZO_HOST_DEVICE inline NormalPair box_muller(std::uint32_t a, std::uint32_t b) {
  const float radius = ieee::sqrt(minus_2_log_uniform(a));

  // 2 pi v = pi/2 quadrant + pi/4 x, x in [-1, 1]; the quadrant is in the top two bits of `turn`.
  const std::uint32_t turn = b + 0x20000000u;
  const std::int32_t rest = static_cast<std::int32_t>(turn & 0x3fffffffu) - 0x20000000;
  const float x = ieee::fma(ieee::from_int(rest), 0x1p-29f, 0x1p-30f);
  const float z = ieee::mul(x, x);
  // sin(pi/4 x) = pi/4 x + x S(z): pi/4 is the sum of the nearest float and S(0).
  float s = -0x1.2da156p-15f;
  s = ieee::fma(s, z, 0x1.465eeap-9f);
  s = ieee::fma(s, z, -0x1.4abbbap-4f);
  s = ieee::fma(s, z, -0x1.a32bb2p-26f);
  s = ieee::fma(x, 0x1.921fb6p-1f, ieee::mul(x, s));
  // cos(pi/4 x) = 1 + z C(z)
  float c = 0x1.d4f7eep-19f;
  c = ieee::fma(c, z, -0x1.55b2b6p-12f);
  c = ieee::fma(c, z, 0x1.03c1b0p-6f);
  c = ieee::fma(c, z, -0x1.3bd3ccp-2f);
  c = ieee::fma(c, z, 1.0f);

  const bool odd = (turn & 0x40000000u) != 0;
  const std::uint32_t cosine = ieee::to_bits(odd ? s : c) ^ ((turn + 0x40000000u) & 0x80000000u);
  const std::uint32_t sine = ieee::to_bits(odd ? c : s) ^ (turn & 0x80000000u);
  return {ieee::mul(radius, ieee::from_bits(cosine)), ieee::mul(radius, ieee::from_bits(sine))};
}

/// +1 for a bit 0, -1 for a bit 1: the bit becomes the float's sign. Only bit 0 of `bit` counts.
MEZZO_HOST_DEVICE inline float sign_of_bit(std::uint32_t bit) {
  return ieee::from_bits(0x3f800000u | bit << 31);
}

/// Uniform on [-1, 1], symmetric: (2 word + 1) / 2^32 of the word as a signed integer, rounded once.
MEZZO_HOST_DEVICE inline float symmetric_uniform(std::uint32_t word) {
  return ieee::fma(ieee::from_int(static_cast<std::int32_t>(word)), 0x1p-31f, 0x1p-32f);
}

/// Four noise values, of elements 4 i to 4 i + 3.
struct NoiseQuad {
  float value[4];
};

/// Whose noise: that of a tensor's own elements, or of a factor from which they are made. A tensor's number
/// alone stands for the first.
struct NoiseTensor {
  std::uint32_t id = 0;
  Purpose purpose = Purpose::noise;

  NoiseTensor() = default;
  MEZZO_HOST_DEVICE constexpr NoiseTensor(std::uint32_t tensor, Purpose what = Purpose::noise)
      : id(tensor), purpose(what) {}
};

/// The normals of Philox block `block`, elements 4 block to 4 block + 3: words 0, 1 give the first two, 2, 3
/// the others.
MEZZO_HOST_DEVICE inline NoiseQuad normal_block(std::uint64_t seed, NoiseTensor tensor, std::uint64_t block) {
  const PhiloxWords words = philox4x32_10(philox_counter(block, tensor.id, tensor.purpose), philox_key(seed));
  const NormalPair low = box_muller(words.word[0], words.word[1]);
  const NormalPair high = box_muller(words.word[2], words.word[3]);
  return {{low.first, low.second, high.first, high.second}};
}

/// The signs of Philox block `block`, elements 128 block to 128 block + 127, as words: element e's bit is bit
/// e mod 32 of word (e mod 128) / 32 (see sign_of_bit).
MEZZO_HOST_DEVICE inline PhiloxWords sign_block(std::uint64_t seed, NoiseTensor tensor, std::uint64_t block) {
  return philox4x32_10(philox_counter(block, tensor.id, tensor.purpose), philox_key(seed));
}

/// Noise of the elements 4 quad to 4 quad + 3 of a tensor. Of signs it uses 4 of a block's 128 bits: code
/// that wants many signs is better off with sign_block.
MEZZO_HOST_DEVICE inline NoiseQuad noise4(NoiseKind kind, std::uint64_t seed, NoiseTensor tensor,
                                          std::uint64_t quad) {
  if (kind == NoiseKind::gaussian) return normal_block(seed, tensor, quad);
  const std::uint32_t word = sign_block(seed, tensor, quad / 32).word[quad / 8 % 4];
  const std::uint32_t bits = word >> (quad % 8 * 4);
  return {{sign_of_bit(bits), sign_of_bit(bits >> 1), sign_of_bit(bits >> 2), sign_of_bit(bits >> 3)}};
}

/// Noise of one element of a tensor: the definition that every other function has to agree with.
MEZZO_HOST_DEVICE inline float noise_at(NoiseKind kind, std::uint64_t seed, NoiseTensor tensor,
                                        std::uint64_t element) {
  return noise4(kind, seed, tensor, element / 4).value[element % 4];
}

/// An element of a tensor that a probe of this signed epsilon sees: value + epsilon z, rounded once.
/// `offset`: of what the forward reads to what is trained, added first.
MEZZO_HOST_DEVICE inline float perturbed(float value, float offset, float epsilon, float z) {
  return ieee::fma(epsilon, z, ieee::add(value, offset));
}

// ---- noise of low rank: Z = U V^T / sqrt(rank) of a matrix [rows, cols] (EGGROLL: Sarkar et al. 2025).
// Tensor `tensor` has the factors U [rows, rank] and V^T [rank, cols], each the noise of a purpose of its
// own, its elements counted row by row.

MEZZO_HOST_DEVICE constexpr NoiseTensor outer_rows(std::uint32_t tensor) {
  return {tensor, Purpose::outer_rows};
}
MEZZO_HOST_DEVICE constexpr NoiseTensor outer_columns(std::uint32_t tensor) {
  return {tensor, Purpose::outer_columns};
}

/// 1 / sqrt(rank).
MEZZO_HOST_DEVICE inline float outer_scale(std::int64_t rank) {
  return ieee::div(1.0f, ieee::sqrt(static_cast<float>(rank)));
}

/// An element of Z from its row of U and its column of V^T: ranks in ascending order by fma from 0, scaled
/// once. `u` [rank], `v` [rank] at multiples of `v_stride`.
MEZZO_HOST_DEVICE inline float outer_element(const float* u, const float* v, std::int64_t v_stride,
                                             std::int64_t rank, float scale) {
  float sum = 0.0f;
  for (std::int64_t k = 0; k < rank; ++k) sum = ieee::fma(u[k], v[k * v_stride], sum);
  return ieee::mul(sum, scale);
}

/// Initial value of one element, uniform on [-bound, bound]; Philox block element / 4, word element mod 4.
MEZZO_HOST_DEVICE inline float initial_uniform(std::uint64_t seed, std::uint32_t tensor,
                                               std::uint64_t element, float bound) {
  const PhiloxWords words =
      philox4x32_10(philox_counter(element / 4, tensor, Purpose::initial), philox_key(seed));
  return ieee::mul(bound, symmetric_uniform(words.word[element % 4]));
}

/// The bound of PEFT's initial lora_A: kaiming_uniform_(a = sqrt(5)) is U(-b, b), b = sqrt(3) sqrt(2 / (1 +
/// 5) / fan_in) = 1 / sqrt(fan_in) (He et al. 2015, arXiv:1502.01852). `fan_in`: the layer's input features,
/// >= 1.
MEZZO_HOST_DEVICE inline float kaiming_bound(std::uint32_t fan_in) {
  return ieee::div(1.0f, ieee::sqrt(static_cast<float>(fan_in)));
}

}  // namespace mezzo
