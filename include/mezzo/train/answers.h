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

/// Writes answers. Every new token takes a forward over all tokens before it, since nothing keeps keys and
/// values; many prompts share a forward.
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
  /// One token more for each.
  void write_tokens(std::span<Text* const> texts);
  void add(Text& text, std::int32_t id) const;
  std::int64_t longest(const Text& text) const;

  LoadedModel& model_;
  const Description& description_;
  const Tokenizer& tokenizer_;
  AnswerLimits limits_;
};

}  // namespace mezzo
