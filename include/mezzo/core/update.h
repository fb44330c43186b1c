#pragma once
// The optimizers' formulas and the in-run hash, for host and device alike, so that any rank, a replay and
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

/// The noise of a trainable tensor: of its elements, or of low rank. A tensor's number alone stands for the
/// first.
struct TensorNoise {
  std::uint32_t tensor = 0;
  std::int64_t rank = 0;  ///< 0: of its elements
  std::int64_t cols = 0;  ///< of the tensor, where the noise has a rank

  TensorNoise() = default;
  MEZZO_HOST_DEVICE constexpr TensorNoise(std::uint32_t of, std::int64_t of_rank = 0,
                                          std::int64_t of_cols = 0)
      : tensor(of), rank(of_rank), cols(of_cols) {}
};

/// Noise of one element of a trainable tensor: the definition that every other function has to agree with.
MEZZO_HOST_DEVICE inline float tensor_noise_at(NoiseKind kind, std::uint64_t seed, const TensorNoise& of,
                                               std::uint64_t element) {
  if (of.rank == 0) return noise_at(kind, seed, of.tensor, element);
  const auto cols = static_cast<std::uint64_t>(of.cols);
  const auto rank = static_cast<std::uint64_t>(of.rank);
  float sum = 0.0f;
  for (std::uint64_t k = 0; k < rank; ++k) {
    const float u = noise_at(kind, seed, outer_rows(of.tensor), element / cols * rank + k);
    const float v = noise_at(kind, seed, outer_columns(of.tensor), k * cols + element % cols);
    sum = ieee::fma(u, v, sum);
  }
  return ieee::mul(sum, outer_scale(of.rank));
}

/// The sum over `directions` seeds and coefficients at one element.
MEZZO_HOST_DEVICE inline float update_sum(const TensorNoise& of, std::uint64_t element,
                                          const std::uint64_t* seeds, const float* coefficients,
                                          std::int64_t directions, NoiseKind kind) {
  float acc = 0.0f;
  for (std::int64_t k = 0; k < directions; ++k) {
    acc = update_accumulate(acc, coefficients[k], tensor_noise_at(kind, seeds[k], of, element));
  }
  return acc;
}

// ---- update rules -----------------------------------------------------------------------------------------

/// How the sum over directions, here `acc`, becomes the step d that an element takes: theta - step_size d.
enum class UpdateRule {
  sgd,       ///< d = acc
  momentum,  ///< m = momentum m + acc, d = m (heavy ball: Polyak 1964)
  nesterov,  ///< the same m, d = momentum m + acc (Sutskever et al. 2013, in PyTorch's form)
  sign,      ///< the same m, d = sign(m), 0 where m is 0 (Signum: Bernstein et al. 2018)
  adam       ///< Kingma and Ba 2015, decay decoupled (AdamW: Loshchilov and Hutter 2019)
};

/// The constants of one step, each rounded to fp32 once, on the host.
struct UpdateFactors {
  UpdateRule rule = UpdateRule::sgd;
  bool scalar_second = false;    ///< adam keeps one second moment a tensor, of the mean of its acc^2
  float step_size = 0.0f;        ///< lr; of adam lr / (1 - beta1^t)
  float decay = 0.0f;            ///< lr * weight decay
  bool anchored = false;         ///< the drift from the start is kept
  float anchor = 0.0f;           ///< lr * anchor decay
  float momentum = 0.0f;         ///< of adam beta1
  float gain = 0.0f;             ///< of adam 1 - beta1
  float second_momentum = 0.0f;  ///< of adam beta2
  float second_gain = 0.0f;      ///< of adam 1 - beta2
  float root_factor = 0.0f;      ///< of adam 1 / sqrt(1 - beta2^t)
  float epsilon = 0.0f;          ///< of adam
};

MEZZO_HOST_DEVICE constexpr bool keeps_momentum(UpdateRule rule) { return rule != UpdateRule::sgd; }
MEZZO_HOST_DEVICE constexpr bool keeps_second_moment(UpdateRule rule) { return rule == UpdateRule::adam; }

/// lr * wd, rounded first.
MEZZO_HOST_DEVICE inline float update_decay(float learning_rate, float weight_decay) {
  return ieee::mul(learning_rate, weight_decay);
}

/// Plain gradient descent with decoupled weight decay.
MEZZO_HOST_DEVICE inline UpdateFactors sgd_factors(float learning_rate, float weight_decay) {
  UpdateFactors factors;
  factors.step_size = learning_rate;
  factors.decay = update_decay(learning_rate, weight_decay);
  return factors;
}

MEZZO_HOST_DEVICE inline float adam_first(const UpdateFactors& f, float first, float acc) {
  return ieee::fma(f.momentum, first, ieee::mul(f.gain, acc));
}
MEZZO_HOST_DEVICE inline float adam_second(const UpdateFactors& f, float second, float square) {
  return ieee::fma(f.second_momentum, second, ieee::mul(f.second_gain, square));
}
MEZZO_HOST_DEVICE inline float adam_direction(const UpdateFactors& f, float first, float second) {
  return ieee::div(first, ieee::fma(ieee::sqrt(second), f.root_factor, f.epsilon));
}

/// The step d of a rule at one element, and its moments behind the step. A rule leaves alone what it does not
/// keep. No product is added to anything but inside of an fma.
template <UpdateRule rule>
MEZZO_HOST_DEVICE inline float update_direction(const UpdateFactors& f, float acc, float& first,
                                                float& second) {
  if constexpr (rule == UpdateRule::sgd) {
    return acc;
  } else if constexpr (rule == UpdateRule::adam) {
    first = adam_first(f, first, acc);
    second = adam_second(f, second, ieee::mul(acc, acc));
    return adam_direction(f, first, second);
  } else {
    first = ieee::fma(f.momentum, first, acc);
    if constexpr (rule == UpdateRule::nesterov) {
      return ieee::fma(f.momentum, first, acc);
    } else if constexpr (rule == UpdateRule::sign) {
      return first > 0.0f ? 1.0f : first < 0.0f ? -1.0f : 0.0f;
    } else {
      return first;
    }
  }
}

/// What an optimizer keeps of one element; what a rule does not keep stays as it is.
struct UpdateElement {
  float drift = 0.0f;   ///< theta minus its start, as the sum of all changes
  float first = 0.0f;   ///< momentum
  float second = 0.0f;  ///< second moment
};

// ---- what theta is held in: fp32, or bf16 as the upper half of an fp32 number's bits

MEZZO_HOST_DEVICE inline float master_value(float stored) { return stored; }
MEZZO_HOST_DEVICE inline float master_value(std::uint16_t stored) {
  return ieee::from_bits(std::uint32_t{stored} << 16);
}
MEZZO_HOST_DEVICE inline void store_master(float& to, float value) { to = value; }
/// `value` is one of bf16.
MEZZO_HOST_DEVICE inline void store_master(std::uint16_t& to, float value) {
  to = static_cast<std::uint16_t>(ieee::to_bits(value) >> 16);
}

/// Which random numbers round the masters of a step.
struct StepRounding {
  std::uint64_t run_seed = 0;  ///< of the run, not of a direction
  std::uint32_t step = 0;
};

inline constexpr std::uint64_t elements_per_rounding_block = 8;
/// Random numbers of the elements [8 block, 8 block + 8) of a tensor, 16 bits each: the lower half of word 0,
/// its upper half, and so on.
MEZZO_HOST_DEVICE inline PhiloxWords rounding_words(const StepRounding& of, std::uint32_t tensor,
                                                    std::uint64_t block) {
  return philox4x32_10(philox_counter(std::uint64_t{of.step} << 32 | block, tensor, Purpose::rounding),
                       philox_key(of.run_seed));
}
/// Of an element of the tensor in that block.
MEZZO_HOST_DEVICE inline std::uint32_t rounding_bits(const PhiloxWords& words, std::uint64_t element) {
  return words.word[element / 2 % 4] >> (element % 2 * 16) & 0xffffu;
}

/// An fp32 number as it is.
struct KeepFp32 {
  MEZZO_HOST_DEVICE float operator()(float value) const { return value; }
};
/// A neighbour in bf16, the upper with the probability at which `value` lies between the two: its mean is
/// `value` (Gupta et al. 2015, arXiv:1502.02551). Numbers stay finite, NaN and infinity what they are.
struct RoundToBf16 {
  std::uint32_t bits;  ///< 16 random ones
  MEZZO_HOST_DEVICE float operator()(float value) const {
    constexpr std::uint32_t upper = 0xffff0000u, exponent = 0x7f800000u, quiet = 0x00400000u;
    constexpr std::uint32_t sign = 0x80000000u, largest = 0x7f7f0000u;
    const std::uint32_t word = ieee::to_bits(value);
    if ((word & exponent) == exponent) {
      const bool is_nan = (word & ~(sign | exponent)) != 0;
      return ieee::from_bits((word & upper) | (is_nan ? quiet : 0u));
    }
    const std::uint32_t rounded = (word + bits) & upper;
    return ieee::from_bits((rounded & exponent) == exponent ? (word & sign) | largest : rounded);
  }
};

/// How the masters of the elements of a tensor that share a block with `element` are rounded.
template <typename Master>
struct BlockRounding {
  PhiloxWords words;

  MEZZO_HOST_DEVICE BlockRounding(const StepRounding& of, std::uint32_t tensor, std::uint64_t element)
      : words(rounding_words(of, tensor, element / elements_per_rounding_block)) {}
  MEZZO_HOST_DEVICE RoundToBf16 of(std::uint64_t element) const { return {rounding_bits(words, element)}; }
};
template <>
struct BlockRounding<float> {
  MEZZO_HOST_DEVICE BlockRounding(const StepRounding&, std::uint32_t, std::uint64_t) {}
  MEZZO_HOST_DEVICE KeepFp32 of(std::uint64_t) const { return {}; }
};

/// theta behind a step d, and its drift: update_apply() says how.
template <typename Round>
MEZZO_HOST_DEVICE inline float update_move(const UpdateFactors& f, float theta, float step, float& drift,
                                           const Round& round) {
  float decayed = ieee::fma(-f.decay, theta, theta);
  if (f.anchored) decayed = ieee::fma(-f.anchor, drift, decayed);
  const float result = round(ieee::fma(-f.step_size, step, decayed));
  if (f.anchored) drift = ieee::add(drift, ieee::add(result, -theta));
  return result;
}

/// theta' = theta - lr wd theta - lr anchor drift - step_size d, the anchor's term only where there is one,
/// and drift' = drift + (theta' - theta). theta' is rounded to what it is held in.
template <UpdateRule rule, typename Round>
MEZZO_HOST_DEVICE inline float update_apply(const UpdateFactors& f, float theta, float acc,
                                            UpdateElement& kept, const Round& round) {
  const float step = update_direction<rule>(f, acc, kept.first, kept.second);
  return update_move(f, theta, step, kept.drift, round);
}

/// Where a tensor's or all tensors' kept elements lie, in the order of the trainables' own; null: not kept.
/// With a scalar second moment `second` has one number a tensor.
struct UpdateState {
  float* drift = nullptr;
  float* first = nullptr;
  float* second = nullptr;
};

/// Element `i` behind its update, `theta` before it, with what is kept of it read and written once.
template <UpdateRule rule, typename Round>
MEZZO_HOST_DEVICE inline float updated_at(const UpdateFactors& f, float theta, const UpdateState& state,
                                          std::int64_t i, float acc, const Round& round) {
  UpdateElement kept;
  if (state.drift != nullptr) kept.drift = state.drift[i];
  if constexpr (keeps_momentum(rule)) kept.first = state.first[i];
  if constexpr (keeps_second_moment(rule)) kept.second = state.second[i];
  const float result = update_apply<rule>(f, theta, acc, kept, round);
  if (state.drift != nullptr) state.drift[i] = kept.drift;
  if constexpr (keeps_momentum(rule)) state.first[i] = kept.first;
  if constexpr (keeps_second_moment(rule)) state.second[i] = kept.second;
  return result;
}

/// The same in place.
template <UpdateRule rule, typename Master, typename Round>
MEZZO_HOST_DEVICE inline void update_at(const UpdateFactors& f, Master* theta, const UpdateState& state,
                                        std::int64_t i, float acc, const Round& round) {
  store_master(theta[i], updated_at<rule>(f, master_value(theta[i]), state, i, acc, round));
}

/// A rule that is known when code is compiled.
template <UpdateRule known>
struct RuleConstant {
  static constexpr UpdateRule rule = known;
};
/// call(RuleConstant of `rule`).
template <typename Call>
auto with_rule(UpdateRule rule, const Call& call) {
  switch (rule) {
    case UpdateRule::sgd:
      break;
    case UpdateRule::momentum:
      return call(RuleConstant<UpdateRule::momentum>{});
    case UpdateRule::nesterov:
      return call(RuleConstant<UpdateRule::nesterov>{});
    case UpdateRule::sign:
      return call(RuleConstant<UpdateRule::sign>{});
    case UpdateRule::adam:
      return call(RuleConstant<UpdateRule::adam>{});
  }
  return call(RuleConstant<UpdateRule::sgd>{});
}

// ---- Adam with one second moment a tensor ---------------------------------------------------------------
//
// The sum of acc^2 over a tensor, in fp64: quad q (elements 4q to 4q + 3) adds its own in ascending order
// from 0; lane q mod moment_lanes adds its quads in ascending order from 0; lanes are folded in halves. A
// square of an fp32 number is exact in fp64, so whether a compiler fuses its sum changes nothing.

inline constexpr int moment_lanes = 1024;

/// squares + acc^2.
MEZZO_HOST_DEVICE inline double add_square(double squares, float acc) {
  const auto wide = static_cast<double>(acc);
  return squares + wide * wide;
}

/// The sum of all lanes, which it overwrites.
inline double fold_lanes(double* lanes) {
  for (int width = moment_lanes / 2; width > 0; width /= 2) {
    for (int j = 0; j < width; ++j) lanes[j] += lanes[j + width];
  }
  return lanes[0];
}

/// The tensor's second moment behind a step in which its `count` elements have this sum of acc^2.
MEZZO_HOST_DEVICE inline float scalar_second(const UpdateFactors& f, float second, double squares,
                                             std::int64_t count) {
  return adam_second(f, second, static_cast<float>(squares / static_cast<double>(count)));
}

/// The update of element `i` once its first moment and the tensor's second are those behind the step.
template <typename Master, typename Round>
MEZZO_HOST_DEVICE inline void update_by_scalar(const UpdateFactors& f, Master* theta,
                                               const UpdateState& state, std::int64_t i, float second,
                                               const Round& round) {
  float drift = state.drift != nullptr ? state.drift[i] : 0.0f;
  const float step = adam_direction(f, state.first[i], second);
  store_master(theta[i], update_move(f, master_value(theta[i]), step, drift, round));
  if (state.drift != nullptr) state.drift[i] = drift;
}

/// The whole update of one element of a tensor by plain gradient descent, `directions` seeds and
/// coefficients long.
MEZZO_HOST_DEVICE inline float updated(float theta, std::uint32_t tensor, std::uint64_t element,
                                       const std::uint64_t* seeds, const float* coefficients,
                                       std::int64_t directions, NoiseKind kind, float learning_rate,
                                       float weight_decay) {
  UpdateElement none;
  return update_apply<UpdateRule::sgd>(sgd_factors(learning_rate, weight_decay), theta,
                                       update_sum(tensor, element, seeds, coefficients, directions, kind),
                                       none, KeepFp32{});
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

/// What the shares of a tensor's elements begin with.
MEZZO_HOST_DEVICE inline std::uint64_t tensor_hash(std::uint32_t tensor) { return mix64(tensor); }
MEZZO_HOST_DEVICE inline std::uint64_t hash_in_tensor(std::uint64_t of_tensor, std::uint64_t element,
                                                      float value) {
  return mix64(mix64(of_tensor ^ element) ^ ieee::to_bits(value));
}

/// One element's share of the in-run hash of the trainables. The hash is the sum of all shares modulo 2^64:
/// it depends on every bit and on its place, not on the order in which shares are added.
MEZZO_HOST_DEVICE inline std::uint64_t element_hash(std::uint32_t tensor, std::uint64_t element,
                                                    float value) {
  return hash_in_tensor(tensor_hash(tensor), element, value);
}

}  // namespace mezzo
