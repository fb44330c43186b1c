#pragma once
// What a model answers in its own words: greedy continuations of the examples' prompts, for evaluations.
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "mezzo/comm/exchange.h"
#include "mezzo/data/example.h"
#include "mezzo/data/tokenizer.h"
#include "mezzo/train/loaded_model.h"

namespace mezzo {

/// Where an answer ends, at the latest with the model's positions.
struct AnswerLimits {
  std::int64_t new_tokens = 1;          ///< at most
  std::vector<std::int32_t> ends = {};  ///< tokens that end it and are no part of it
  std::vector<std::string> stops = {};  ///< texts that end it and are no part of it
};

/// Ids that end a text: eos_token_id of generation_config.json, else of config.json; a number or a list.
/// InputError for anything else.
std::vector<std::int32_t> end_tokens(const std::string& directory);

/// The logits of what comes behind texts. Each call is a forward over all of their tokens: nothing keeps keys
/// and values.
class NextTokenLogits {
 public:
  /// `largest`: the texts of a call at most, with a loss row each. `model` must outlive it, and nothing else
  /// may run on it in between.
  NextTokenLogits(LoadedModel& model, std::int64_t vocabulary, const BatchShape& largest);

  /// [texts, vocabulary], valid until the next call. Waits for the backend.
  std::span<const float> behind(std::span<const std::vector<std::int32_t>* const> texts);

 private:
  LoadedModel& model_;
  std::int64_t vocabulary_;
  Buffer logits_;  ///< [texts, vocabulary] in the activations' type
  DeviceBatch batch_;
  ProbeTable table_;
  std::vector<float> result_;  ///< [texts, vocabulary]
};

/// Writes answers; many prompts share a forward.
class AnswerWriter {
 public:
  /// All but `limits` must outlive the writer.
  AnswerWriter(LoadedModel& model, const Description& description, const Tokenizer& tokenizer,
               AnswerLimits limits)
      : model_(model), description_(description), tokenizer_(tokenizer), limits_(std::move(limits)) {}

  /// An answer an example, in their order, as valid UTF-8. The same on any number of ranks, which share the
  /// examples; all ranks call it together and get all answers.
  std::vector<std::string> answers(std::span<const Example> examples, Exchange& exchange, Patience patience);

 private:
  /// A prompt with what was added to it.
  struct Text {
    std::vector<std::int32_t> ids;
    std::size_t prompt = 0;  ///< tokens
    std::string answer = {};
    bool done = false;
  };
  std::vector<std::string> write(std::span<const Example> examples);
  void write_all(std::span<Text> texts);
  void add(Text& text, std::int32_t id) const;
  std::int64_t longest(const Text& text) const;

  LoadedModel& model_;
  const Description& description_;
  const Tokenizer& tokenizer_;
  AnswerLimits limits_;
};

}  // namespace mezzo
