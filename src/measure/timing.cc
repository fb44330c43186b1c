#include "mezzo/measure/timing.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "mezzo/core/error.h"

namespace mezzo {

double seconds_of(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double median_of(std::vector<double> values) {
  if (values.empty()) throw Error("the median of nothing was asked for");
  std::ranges::sort(values);
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : 0.5 * (values[middle - 1] + values[middle]);
}

double median_seconds(int repetitions, const std::function<void()>& work) {
  std::vector<double> seconds;
  for (int i = 0; i < repetitions; ++i) seconds.push_back(seconds_of(work));
  return median_of(std::move(seconds));
}

}  // namespace mezzo
