#pragma once
// A run in small: what tests of its files write.
#include "mezzo/model/family.h"
#include "mezzo/train/snapshots.h"

namespace mezzo::test {

inline RunHeader small_header(std::int64_t layers = 2) {
  Description model = read_description(MEZZO_TEST_DATA "/models/llama");
  model.layers = layers;
  RunHeader header;
  header.identity = {{"zo.epsilon", "0.01"}};
  header.base_model = "models/tiny";
  header.space = lora_space(model, {.r = 1});
  header.optimizer = configure_optimizer({});
  header.records = {.directions = 2, .probe_losses = 0};
  return header;
}

/// Other values at each step.
inline RunState small_state(const RunHeader& header, std::uint64_t step) {
  RunState state{.step = step, .values = {}};
  const auto count = static_cast<std::size_t>(element_count(header.trainables()));
  for (std::size_t i = 0; i < count; ++i)
    state.values.push_back(static_cast<float>(step) + 0.25f * static_cast<float>(i));
  return state;
}

}  // namespace mezzo::test
