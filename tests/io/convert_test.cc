#include "mezzo/io/convert.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "mezzo/core/error.h"

namespace mezzo {
namespace {

/// Places elements at an odd address, as a file may.
template <typename T>
std::vector<std::byte> unaligned(const std::vector<T>& values) {
  std::vector<std::byte> bytes(1 + values.size() * sizeof(T));
  if (!values.empty()) std::memcpy(bytes.data() + 1, values.data(), values.size() * sizeof(T));
  return bytes;
}

template <typename T>
std::vector<float> widened(DType dtype, const std::vector<T>& values) {
  std::vector<float> out(values.size());
  to_float(dtype, unaligned(values).data() + 1, out);
  return out;
}

template <typename T>
std::vector<T> narrowed(DType dtype, const std::vector<float>& values) {
  std::vector<std::byte> bytes(1 + values.size() * sizeof(T));
  from_float(values, dtype, bytes.data() + 1);
  std::vector<T> out(values.size());
  if (!out.empty()) std::memcpy(out.data(), bytes.data() + 1, out.size() * sizeof(T));
  return out;
}

std::vector<std::uint16_t> all_words() {
  std::vector<std::uint16_t> words(1 << 16);
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = static_cast<std::uint16_t>(i);
  return words;
}

/// The value of a float with the given layout, from the definition of IEEE 754.
double value_of(std::uint16_t word, int exponent_bits) {
  const int mantissa_bits = 15 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = word >> mantissa_bits & ((1 << exponent_bits) - 1);
  const int mantissa = word & ((1 << mantissa_bits) - 1);
  const double sign = word >> 15 ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1)
    return mantissa ? std::numeric_limits<double>::quiet_NaN()
                    : sign * std::numeric_limits<double>::infinity();
  return exponent ? sign * std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits)
                  : sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
}

void expect_same(float actual, double expected) {
  if (std::isnan(expected)) EXPECT_TRUE(std::isnan(actual));
  else {
    EXPECT_EQ(actual, expected);
    EXPECT_EQ(std::signbit(actual), std::signbit(expected));
  }
}

TEST(Convert, Every16BitPatternHasItsValue) {
  const std::vector<std::uint16_t> words = all_words();
  const std::vector<float> f16 = widened(DType::f16, words), bf16 = widened(DType::bf16, words);
  for (std::size_t i = 0; i < words.size(); ++i) {
    expect_same(f16[i], value_of(words[i], 5));
    expect_same(bf16[i], value_of(words[i], 8));
  }
}

TEST(Convert, VectorsAndTheirRestsAgree) {
  const std::vector<std::uint16_t> words = all_words();
  for (const std::size_t size : {0u, 1u, 7u, 8u, 9u, 31u, 33u, 257u}) {
    const std::vector<std::uint16_t> part(words.begin() + 0x3bf0,
                                          words.begin() + 0x3bf0 + static_cast<long>(size));
    const std::vector<float> f16 = widened(DType::f16, part), bf16 = widened(DType::bf16, part);
    for (std::size_t i = 0; i < size; ++i) {
      EXPECT_EQ(f16[i], value_of(part[i], 5));
      EXPECT_EQ(bf16[i], value_of(part[i], 8));
    }
    EXPECT_EQ(narrowed<std::uint16_t>(DType::f16, f16), part);
    EXPECT_EQ(narrowed<std::uint16_t>(DType::bf16, bf16), part);
  }
}

TEST(Convert, RoundsToNearestEven) {
  // Any two neighbours in f16 or bf16: below, at and above their middle.
  for (const auto& [dtype, exponent_bits] : {std::pair(DType::f16, 5), std::pair(DType::bf16, 8)}) {
    for (std::uint16_t word = 0; value_of(static_cast<std::uint16_t>(word + 1), exponent_bits) < 60000;
         ++word) {
      const std::uint16_t next = static_cast<std::uint16_t>(word + 1);
      const auto middle =
          static_cast<float>((value_of(word, exponent_bits) + value_of(next, exponent_bits)) / 2);
      const std::vector<float> values = {std::nextafter(middle, -1.f), middle, std::nextafter(middle, 1e30f),
                                         -middle};
      const std::uint16_t even = word % 2 == 0 ? word : next;
      ASSERT_EQ(narrowed<std::uint16_t>(dtype, values),
                (std::vector<std::uint16_t>{word, even, next, static_cast<std::uint16_t>(even | 0x8000)}));
    }
  }
}

TEST(Convert, RoundsADoubleOnce) {
  // So close to the middle of two neighbours that fp32 would be the middle itself.
  for (const auto& [dtype, exponent_bits] : {std::pair(DType::f16, 5), std::pair(DType::bf16, 8)}) {
    for (std::uint16_t word = 0; value_of(static_cast<std::uint16_t>(word + 1), exponent_bits) < 60000;
         ++word) {
      const std::uint16_t next = static_cast<std::uint16_t>(word + 1);
      const double middle = (value_of(word, exponent_bits) + value_of(next, exponent_bits)) / 2;
      const std::vector<double> values = {std::nextafter(middle, -1.0), middle, std::nextafter(middle, 1e30),
                                          -std::nextafter(middle, -1.0)};
      std::vector<std::uint16_t> words(values.size());
      from_double(values, dtype, reinterpret_cast<std::byte*>(words.data()));
      const std::uint16_t even = word % 2 == 0 ? word : next;
      ASSERT_EQ(words,
                (std::vector<std::uint16_t>{word, even, next, static_cast<std::uint16_t>(word | 0x8000)}));
    }
  }
}

TEST(Convert, DoublesBeyondAType) {
  const double infinity = std::numeric_limits<double>::infinity();
  const std::vector<double> values = {1e300, -1e300, 1e-300, -1e-300, infinity, 65519.999999999, 65520.0};
  std::vector<std::uint16_t> f16(values.size());
  from_double(values, DType::f16, reinterpret_cast<std::byte*>(f16.data()));
  EXPECT_EQ(f16, (std::vector<std::uint16_t>{0x7c00, 0xfc00, 0, 0x8000, 0x7c00, 0x7bff, 0x7c00}));
  std::vector<float> f32(2000, 0.0f);  // more than one piece
  from_double(std::vector<double>(f32.size(), 0.1), DType::f32, reinterpret_cast<std::byte*>(f32.data()));
  EXPECT_EQ(f32, std::vector<float>(f32.size(), 0.1f));
  double f64 = 0.0;
  from_double(std::vector{0.1}, DType::f64, reinterpret_cast<std::byte*>(&f64));
  EXPECT_EQ(f64, 0.1);
  std::uint16_t nan = 0;
  from_double(std::vector{std::nan("")}, DType::bf16, reinterpret_cast<std::byte*>(&nan));
  EXPECT_GT(nan & 0x7fff, 0x7f80);
}

TEST(Convert, Fp32AndFp64) {
  std::mt19937 random(1);
  std::vector<std::uint32_t> bits(257);
  for (auto& word : bits) word = random();  // NaNs with a payload among them
  std::vector<float> out(bits.size());
  to_float(DType::f32, unaligned(bits).data() + 1, out);
  EXPECT_EQ(std::memcmp(out.data(), bits.data(), bits.size() * 4), 0);
  EXPECT_EQ(std::memcmp(narrowed<std::uint32_t>(DType::f32, out).data(), bits.data(), bits.size() * 4), 0);

  const double infinity = std::numeric_limits<double>::infinity();
  const std::vector<double> doubles = {0.1,    -0.0,     1e300,       -1e300,
                                       1e-300, infinity, 1 + 0x1p-24, 1 + 0x1.8p-23};
  const std::vector<float> floats = widened(DType::f64, doubles);
  const std::vector<double> expected = {double{0.1f}, -0.0,     infinity, -infinity,
                                        0.0,          infinity, 1.0,      1 + 0x1p-22};
  for (std::size_t i = 0; i < doubles.size(); ++i) expect_same(floats[i], expected[i]);
  EXPECT_TRUE(std::isnan(widened(DType::f64, std::vector<double>{std::nan("")})[0]));
  EXPECT_EQ(narrowed<double>(DType::f64, {0.1f}), std::vector<double>{double{0.1f}});
}

TEST(Convert, RefusesIntegers) {
  std::vector<float> values(1);
  std::byte bytes[8] = {};
  for (const DType dtype : {DType::i32, DType::i64, DType::u64}) {
    EXPECT_FALSE(is_float(dtype));
    EXPECT_THROW(to_float(dtype, bytes, values), Error);
    EXPECT_THROW(from_float(values, dtype, bytes), Error);
  }
}

}  // namespace
}  // namespace mezzo
