#include "mezzo/train/generator.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "mezzo/core/utf8.h"
#include "mezzo/io/json_cursor.h"
#include "mezzo/io/json_file.h"
#include "mezzo/train/work.h"

namespace mezzo {
namespace {

constexpr std::int64_t block_rows = 32;  // of a step's rows on a CPU; as many as a product takes well

/// New tokens that fit behind a prompt.
std::int64_t limit_of(const GenerationRule& rule, std::int64_t prompt, std::int64_t max_positions) {
  return std::clamp<std::int64_t>(max_positions - prompt, 0, rule.max_new_tokens);
}

/// Prompts of one forward: of requests [first, last), each that is another than the one before.
struct PromptBatch {
  std::int64_t first = 0, last = 0;
  std::int64_t tokens = 0;
  std::int64_t cache_row = 0;              // of the first token
  std::vector<std::int64_t> prompts = {};  // their requests
};

/// Consecutive requests, as many as there are slots, whose prompts are in the cache together.
struct Wave {
  std::int64_t first = 0, last = 0;  // requests [first, last)
  std::int64_t tokens = 0;           // of their prompts
  std::vector<PromptBatch> batches = {};
};

bool same_prompt(const GenerationRequest& a, const GenerationRequest& b) {
  return a.prompt.data() == b.prompt.data() && a.prompt.size() == b.prompt.size();
}

/// Every second wave lies behind the largest of the others, so that one can come while another goes on.
std::vector<Wave> waves_of(std::span<const GenerationRequest> requests, std::int64_t slots) {
  std::vector<Wave> waves;
  const std::int64_t count = std::ssize(requests);
  std::int64_t most_of_even = 0;
  for (std::int64_t first = 0; first < count; first += slots) {
    Wave& wave = waves.emplace_back(Wave{.first = first, .last = std::min(first + slots, count)});
    for (std::int64_t n = wave.first; n < wave.last; ++n) {
      const auto& request = requests[static_cast<std::size_t>(n)];
      const bool known = n > wave.first && same_prompt(request, requests[static_cast<std::size_t>(n - 1)]);
      const std::int64_t tokens = known ? 0 : std::ssize(request.prompt);
      if (wave.batches.empty() || wave.batches.back().tokens + tokens > most_prefill_tokens)
        wave.batches.push_back({.first = n, .cache_row = wave.tokens});
      PromptBatch& batch = wave.batches.back();
      batch.last = n + 1;
      if (!known) batch.prompts.push_back(n);
      batch.tokens += tokens;
      wave.tokens += tokens;
    }
    if (waves.size() % 2 == 1) most_of_even = std::max(most_of_even, wave.tokens);
  }
  for (std::size_t w = 1; w < waves.size(); w += 2) {
    for (PromptBatch& batch : waves[w].batches) batch.cache_row += most_of_even;
  }
  return waves;
}

void add_key(PackedBatch& packed, std::uint64_t key) {
  packed.draw_keys.push_back(static_cast<std::int32_t>(static_cast<std::uint32_t>(key)));
  packed.draw_keys.push_back(static_cast<std::int32_t>(static_cast<std::uint32_t>(key >> 32)));
}

/// One call of Generator::run().
class Run {
 public:
  Run(ProbeRunner& runner, const Tokenizer& tokenizer, const GenerationRule& rule, std::int64_t max_positions,
      std::span<const Probe> probes, NoiseKind noise, std::span<const GenerationRequest> requests,
      const DecodingRows& rows, const Generator::Sink& sink);

  void run();

 private:
  /// A sequence that is being written.
  struct Slot {
    std::int64_t request = -1;  // none
    Generated written = {};
  };
  /// Of one probe.
  struct ProbeState {
    std::vector<Slot> slots;
    std::vector<std::size_t> next;  // of each place in a block: how many of its requests were begun
  };

  std::int64_t probe_count() const { return std::ssize(probes_); }
  const GenerationRequest& request(std::int64_t n) const { return requests_[static_cast<std::size_t>(n)]; }
  std::int64_t wave_of(std::int64_t n) const { return n / rows_.slots; }
  std::int64_t limit(std::int64_t n) const {
    return limit_of(rule_, std::ssize(request(n).prompt), max_positions_);
  }

  void prefill();
  void prefill(const PromptBatch& batch);
  /// Gives idle slots what comes next; whether one waits for the next wave.
  bool fill();
  bool fill(std::int64_t p, std::int64_t slot);
  void decode();
  /// Adds a token; whether the sequence goes on.
  bool add(Slot& slot, std::int32_t id) const;
  void end(std::int64_t p, Slot& slot);

  ProbeRunner& runner_;
  const Tokenizer& tokenizer_;
  const GenerationRule& rule_;
  const std::int64_t max_positions_;
  const std::span<const Probe> probes_;
  const NoiseKind noise_;
  const std::span<const GenerationRequest> requests_;
  const DecodingRows rows_;
  const Generator::Sink& sink_;
  std::vector<Wave> waves_;
  std::vector<std::vector<std::int64_t>> of_place_;  // requests of each place in a block, in order
  std::vector<std::int64_t> prompt_rows_;            // where each request's prompt begins in the cache
  std::vector<std::int32_t> first_tokens_;  // [requests of the wave in the cache's half][P], by n % (2 slots)
  std::vector<std::int64_t> open_;          // of each wave: completions that have not ended
  std::int64_t prefilled_ = 0;              // waves
  std::int64_t left_ = 0;                   // completions
  std::vector<ProbeState> states_;
};

Run::Run(ProbeRunner& runner, const Tokenizer& tokenizer, const GenerationRule& rule,
         std::int64_t max_positions, std::span<const Probe> probes, NoiseKind noise,
         std::span<const GenerationRequest> requests, const DecodingRows& rows, const Generator::Sink& sink)
    : runner_(runner),
      tokenizer_(tokenizer),
      rule_(rule),
      max_positions_(max_positions),
      probes_(probes),
      noise_(noise),
      requests_(requests),
      rows_(rows),
      sink_(sink),
      waves_(waves_of(requests, rows.slots)),
      of_place_(static_cast<std::size_t>(rows.block)),
      prompt_rows_(requests.size()),
      first_tokens_(static_cast<std::size_t>(2 * rows.slots) * probes.size()),
      left_(std::ssize(requests) * std::ssize(probes)),
      states_(probes.size()) {
  for (std::int64_t n = 0; n < std::ssize(requests_); ++n)
    of_place_[static_cast<std::size_t>(request(n).number % rows_.block)].push_back(n);
  for (const Wave& wave : waves_) open_.push_back((wave.last - wave.first) * probe_count());
  for (ProbeState& state : states_) {
    state.slots.resize(static_cast<std::size_t>(rows_.slots));
    state.next.resize(static_cast<std::size_t>(rows_.block));
  }
}

void Run::run() {
  while (left_ > 0) {
    while (fill()) {
      // The wave takes the place of the one before the last.
      const bool has_room = prefilled_ < 2 || open_[static_cast<std::size_t>(prefilled_ - 2)] == 0;
      if (!has_room) break;
      prefill();
    }
    if (left_ > 0) decode();
  }
}

void Run::prefill() {
  for (const PromptBatch& batch : waves_[static_cast<std::size_t>(prefilled_++)].batches) prefill(batch);
}

void Run::prefill(const PromptBatch& batch) {
  PackedBatch packed;
  packed.offsets.push_back(0);
  std::int64_t next = batch.first;
  for (std::size_t i = 0; i < batch.prompts.size(); ++i) {
    const std::int64_t begin = batch.cache_row + packed.offsets.back();
    const std::span<const std::int32_t> prompt = request(batch.prompts[i]).prompt;
    packed.tokens.insert(packed.tokens.end(), prompt.begin(), prompt.end());
    for (std::int64_t t = 0; t < std::ssize(prompt); ++t) {
      packed.positions.push_back(static_cast<std::int32_t>(t));
      packed.cache_rows.push_back(static_cast<std::int32_t>(begin + t));
    }
    packed.offsets.push_back(static_cast<std::int32_t>(packed.tokens.size()));
    packed.loss_rows.push_back(packed.offsets.back() - 1);
    const std::int64_t end = i + 1 < batch.prompts.size() ? batch.prompts[i + 1] : batch.last;
    for (; next < end; ++next) {
      prompt_rows_[static_cast<std::size_t>(next)] = begin;
      packed.target_rows.push_back(static_cast<std::int32_t>(i));
      add_key(packed, request(next).draw_key);
      packed.draw_places.push_back(0);
    }
  }
  const std::span<const std::int32_t> chosen = runner_.prefill(packed, probes_, noise_, rule_.sampling);
  const std::int64_t count = batch.last - batch.first;
  for (std::int64_t n = batch.first; n < batch.last; ++n) {
    for (std::int64_t p = 0; p < probe_count(); ++p) {
      first_tokens_[static_cast<std::size_t>(n % (2 * rows_.slots) * probe_count() + p)] =
          chosen[static_cast<std::size_t>(p * count + n - batch.first)];
    }
  }
}

bool Run::fill() {
  bool waits = false;
  for (std::int64_t p = 0; p < probe_count(); ++p) {
    for (std::int64_t slot = 0; slot < rows_.slots; ++slot) waits = fill(p, slot) || waits;
  }
  return waits;
}

bool Run::fill(std::int64_t p, std::int64_t index) {
  ProbeState& state = states_[static_cast<std::size_t>(p)];
  Slot& slot = state.slots[static_cast<std::size_t>(index)];
  const auto place = static_cast<std::size_t>(index % rows_.block);
  while (slot.request < 0 && state.next[place] < of_place_[place].size()) {
    const std::int64_t n = of_place_[place][state.next[place]];
    if (wave_of(n) >= prefilled_) return true;
    ++state.next[place];
    slot = {.request = n};
    const std::int32_t first =
        first_tokens_[static_cast<std::size_t>(n % (2 * rows_.slots) * probe_count() + p)];
    if (limit(n) == 0 || !add(slot, first)) end(p, slot);
  }
  return false;
}

void Run::decode() {
  PackedBatch packed;
  packed.probes = probe_count();
  for (std::int64_t row = 0; row <= rows_.slots; row += rows_.block)
    packed.offsets.push_back(static_cast<std::int32_t>(row));
  for (std::int64_t row = 0; row < rows_.slots; ++row) {
    packed.loss_rows.push_back(static_cast<std::int32_t>(row));
    packed.target_rows.push_back(static_cast<std::int32_t>(row));
  }
  for (const ProbeState& state : states_) {
    for (std::int64_t row = 0; row < rows_.slots; ++row) {
      const Slot& slot = state.slots[static_cast<std::size_t>(row)];
      const bool idle = slot.request < 0;
      const std::int64_t prompt = idle ? 0 : std::ssize(request(slot.request).prompt);
      const std::int64_t last = std::ssize(slot.written.tokens) - 1;  // the token that this row is
      const auto add = [](std::vector<std::int32_t>& to, std::int64_t value) {
        to.push_back(static_cast<std::int32_t>(value));
      };
      add(packed.tokens, idle ? 0 : slot.written.tokens.back());
      add(packed.positions, idle ? 0 : prompt + last);
      add(packed.cache_rows, idle ? -1 : last);
      add(packed.prompt_begins, idle ? 0 : prompt_rows_[static_cast<std::size_t>(slot.request)]);
      add(packed.prompt_lengths, prompt);
      add_key(packed, idle ? 0 : request(slot.request).draw_key);
      add(packed.draw_places, last + 1);
    }
  }
  const std::span<const std::int32_t> chosen = runner_.decode(packed, rule_.sampling);
  for (std::int64_t p = 0; p < probe_count(); ++p) {
    for (std::int64_t row = 0; row < rows_.slots; ++row) {
      Slot& slot = states_[static_cast<std::size_t>(p)].slots[static_cast<std::size_t>(row)];
      if (slot.request < 0) continue;
      if (!add(slot, chosen[static_cast<std::size_t>(p * rows_.slots + row)])) end(p, slot);
    }
  }
}

bool Run::add(Slot& slot, std::int32_t id) const {
  Generated& written = slot.written;
  written.finite = id >= 0;
  if (!written.finite) return false;
  if (std::ranges::find(rule_.ends, id) != rule_.ends.end()) {
    written.finish = FinishReason::stop;
    return false;
  }
  written.tokens.push_back(id);
  if (!rule_.stops.empty()) {
    const std::string text = tokenizer_.decode_continuation(written.tokens);
    if (std::ranges::any_of(rule_.stops,
                            [&](const std::string& stop) { return text.find(stop) != std::string::npos; })) {
      written.finish = FinishReason::stop;
      return false;
    }
  }
  return std::ssize(written.tokens) < limit(slot.request);
}

void Run::end(std::int64_t p, Slot& slot) {
  Generated& written = slot.written;
  const std::string text = tokenizer_.decode_continuation(written.tokens);
  std::size_t length = text.size();
  for (const std::string& stop : rule_.stops) length = std::min(length, text.find(stop));
  written.text = valid_utf8(text.substr(0, length));
  const std::int64_t n = slot.request;
  sink_(p, n, std::move(written));
  slot = {};
  --open_[static_cast<std::size_t>(wave_of(n))];
  --left_;
}

}  // namespace

std::vector<std::int32_t> end_tokens(const std::string& directory) {
  for (const char* const name : {"/generation_config.json", "/config.json"}) {
    const std::string path = directory + name;
    if (!std::filesystem::exists(path)) continue;
    const nlohmann::json json = read_json_file(path);
    const JsonCursor ends = JsonCursor(json, path)["eos_token_id"];
    if (ends.is_unset()) continue;
    const auto id_of = [](const JsonCursor& id) {
      return static_cast<std::int32_t>(id.integer(0, std::numeric_limits<std::int32_t>::max()));
    };
    if (!ends.is_list()) return {id_of(ends)};
    std::vector<std::int32_t> ids;
    for (const JsonCursor& id : ends.elements()) ids.push_back(id_of(id));
    return ids;
  }
  return {};
}

DecodingRows DecodingRows::of(std::int64_t all, std::int64_t most_slots) {
  const std::int64_t block = std::clamp<std::int64_t>(all, 1, block_rows);
  const std::int64_t blocks = std::min(divided_up(all, block), most_slots / block);
  return {.block = block, .slots = std::max<std::int64_t>(blocks, 1) * block};
}

BatchShape shape_of(std::span<const GenerationRequest> requests, const DecodingRows& rows,
                    const GenerationRule& rule, std::int64_t max_positions) {
  BatchShape shape{.targets = 1, .cache = {.slots = rows.slots, .new_tokens = rule.max_new_tokens}};
  for (const Wave& wave : waves_of(requests, rows.slots)) {
    for (const PromptBatch& batch : wave.batches) {
      const std::int64_t prompts = std::ssize(batch.prompts);
      BatchShape own{.tokens = batch.tokens,
                     .sequences = prompts,
                     .loss_rows = prompts,
                     .targets = batch.last - batch.first};
      own.cache.prompt_rows = batch.cache_row + batch.tokens;
      for (const std::int64_t n : batch.prompts) {
        const std::int64_t prompt = std::ssize(requests[static_cast<std::size_t>(n)].prompt);
        own.longest = std::max(own.longest, prompt + limit_of(rule, prompt, max_positions));
      }
      shape = largest_of(shape, own);
    }
  }
  return shape;
}

void Generator::run(std::span<const Probe> probes, NoiseKind noise,
                    std::span<const GenerationRequest> requests, const DecodingRows& rows,
                    const Sink& sink) const {
  Run(runner_, tokenizer_, rule_, max_positions_, probes, noise, requests, rows, sink).run();
}

}  // namespace mezzo
