#include "mezzo/zo/running_spread.h"

#include "mezzo/core/error.h"

namespace mezzo {

RunningSpread::RunningSpread(double beta, std::span<const double> state) : beta_(beta) {
  if (state.empty()) return;
  if (state.size() != state_size)
    throw Error("a running spread has {} numbers, not {}", state_size, state.size());
  weight_ = state[0];
  sums_ = {.variance = state[1], .squares = state[2], .bend = state[3]};
}

void RunningSpread::see(const Spread& of_step) {
  const auto take = [&](double& sum, double value) { sum = beta_ * sum + (1.0 - beta_) * value; };
  take(weight_, 1.0);
  take(sums_.variance, of_step.variance);
  take(sums_.squares, of_step.squares);
  take(sums_.bend, of_step.bend);
}

Spread RunningSpread::mean() const {
  return {
      .variance = sums_.variance / weight_, .squares = sums_.squares / weight_, .bend = sums_.bend / weight_};
}

std::vector<double> RunningSpread::state() const {
  return {weight_, sums_.variance, sums_.squares, sums_.bend};
}

}  // namespace mezzo
