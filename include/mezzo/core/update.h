#pragma once
// The optimizer's one formula and the in-run hash, for host and device alike, so that any rank, a replay and
// any backend rebuild the same trainables bit for bit.
#include <cstdint>

#include "mezzo/core/ieee.h"
#include "mezzo/core/noise.h"

namespace mezzo {

/// acc + c z, rounded once: one direction's share of an element's update. Directions go in ascending order
/// from acc = 0, a coefficient of 0 (a dropped direction) like any other, so that nothing depends on who
/// skips it.
MEZZO_HOST_DEVICE inline float update_accumulate(float acc, float coefficient, float z) {
  return ieee::fma(coefficient, z, acc);
}

/// lr * wd, rounded first.
MEZZO_HOST_DEVICE inline float update_decay(float learning_rate, float weight_decay) {
  return ieee::mul(learning_rate, weight_decay);
}

/// theta - lr wd theta - lr acc; `decay` is update_decay(lr, wd), `acc` the sum over directions.
MEZZO_HOST_DEVICE inline float update_apply(float theta, float acc, float learning_rate, float decay) {
  return ieee::fma(-learning_rate, acc, ieee::fma(-decay, theta, theta));
}

/// The whole update of one element of a tensor, `directions` seeds and coefficients long.
MEZZO_HOST_DEVICE inline float updated(float theta, std::uint32_t tensor, std::uint64_t element,
                                       const std::uint64_t* seeds, const float* coefficients,
                                       std::int64_t directions, NoiseKind kind, float learning_rate,
                                       float weight_decay) {
  float acc = 0.0f;
  for (std::int64_t k = 0; k < directions; ++k) {
    acc = update_accumulate(acc, coefficients[k], noise_at(kind, seeds[k], tensor, element));
  }
  return update_apply(theta, acc, learning_rate, update_decay(learning_rate, weight_decay));
}

/// A bijection of 64-bit words whose output bits each depend on all input bits: the output step of SplitMix64
/// (Steele, Lea and Flood 2014) with Stafford's constants, after its additive step (so that 0 is not mapped
/// to 0).
MEZZO_HOST_DEVICE inline std::uint64_t mix64(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

/// One element's share of the in-run hash of the trainables. The hash is the sum of all shares modulo 2^64:
/// it depends on every bit and on its place, not on the order in which shares are added.
MEZZO_HOST_DEVICE inline std::uint64_t element_hash(std::uint32_t tensor, std::uint64_t element,
                                                    float value) {
  return mix64(mix64(mix64(tensor) ^ element) ^ ieee::to_bits(value));
}

}  // namespace mezzo
