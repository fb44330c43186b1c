#pragma once
// Completions: every probe goes on with every prompt, each with its own perturbation, many at a time over a
// cache of keys and values.
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "mezzo/core/sampling.h"
#include "mezzo/data/reward.h"
#include "mezzo/data/tokenizer.h"
#include "mezzo/train/probe_runner.h"

namespace mezzo {

/// Ids that end a text: eos_token_id of generation_config.json, else of config.json; a number or a list.
/// InputError for anything else.
std::vector<std::int32_t> end_tokens(const std::string& directory);

/// How tokens are chosen and what ends a completion, at the latest the model's positions.
struct GenerationRule {
  std::int64_t max_new_tokens = 1;
  Sampling sampling = {};
  std::vector<std::int32_t> ends = {};  ///< tokens that end it and are no part of it
  std::vector<std::string> stops = {};  ///< texts that end it and are no part of it
};

/// One completion of each probe.
struct GenerationRequest {
  std::span<const std::int32_t> prompt;  ///< not empty; neighbours with the same memory share its cache
  std::int64_t number = 0;     ///< among all requests, other ranks' too: where it lies in a step's rows
  std::uint64_t draw_key = 0;  ///< mezzo/core/sampling.h
};

struct Generated {
  std::vector<std::int32_t> tokens = {};  ///< without the end token
  std::string text = {};                  ///< valid UTF-8, without the stop text
  FinishReason finish = FinishReason::length;
  bool finite = true;  ///< false: it ended because a logit was NaN
};

/// Rows of one step of decoding. A completion's bits must not depend on the others': its row's place in a
/// block follows from its number, and so does the block's height from the number of all requests.
struct DecodingRows {
  std::int64_t block = 1;  ///< rows that go through a product together on a CPU
  std::int64_t slots = 1;  ///< of a probe; a multiple of `block`

  /// `all`: requests of all ranks; `most_slots`: at once, or as many as a block has.
  static DecodingRows of(std::int64_t all, std::int64_t most_slots);
};

/// Tokens of the prompts of one forward, where one prompt alone has no more.
inline constexpr std::int64_t most_prefill_tokens = 8192;

/// What Generator::run() needs reserved for these requests.
BatchShape shape_of(std::span<const GenerationRequest> requests, const DecodingRows& rows,
                    const GenerationRule& rule, std::int64_t max_positions);

/// Writes completions. A completion depends on the trainables, the probe, the prompt and the draw key; not on
/// its company, on the order in which sequences take the slots of those that ended, on the group or the rank.
class Generator {
 public:
  using Sink = std::function<void(std::int64_t probe, std::int64_t request, Generated&&)>;

  /// All but `rule` must outlive it. `max_positions`: the model's.
  Generator(ProbeRunner& runner, const Tokenizer& tokenizer, GenerationRule rule, std::int64_t max_positions)
      : runner_(runner), tokenizer_(tokenizer), rule_(std::move(rule)), max_positions_(max_positions) {}

  /// Hands on each completion as it ends. The runner has room for the shape and the probes. Waits.
  void run(std::span<const Probe> probes, NoiseKind noise, std::span<const GenerationRequest> requests,
           const DecodingRows& rows, const Sink& sink) const;

 private:
  ProbeRunner& runner_;
  const Tokenizer& tokenizer_;
  GenerationRule rule_;
  std::int64_t max_positions_;
};

}  // namespace mezzo
