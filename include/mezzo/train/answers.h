#pragma once
// What a model answers in its own words: greedy continuations of the examples' prompts, for evaluations.
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "mezzo/comm/exchange.h"
#include "mezzo/data/example.h"
#include "mezzo/data/tokenizer.h"
#include "mezzo/train/generator.h"
#include "mezzo/train/loaded_model.h"
#include "mezzo/train/rewarded_generation.h"

namespace mezzo {

/// An answer an example, in their order, as valid UTF-8; of the unperturbed model, by `rule`. The same on any
/// number of ranks, which share the examples; all ranks call it together and get all answers. DeviceError
/// where a logit is NaN.
std::vector<std::string> answers(LoadedModel& model, const Description& description,
                                 const Tokenizer& tokenizer, const GenerationRule& rule,
                                 std::span<const Example> examples, Exchange& exchange, Patience patience);

}  // namespace mezzo
