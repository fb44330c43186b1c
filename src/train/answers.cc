#include "mezzo/train/answers.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "mezzo/comm/together.h"
#include "mezzo/core/utf8.h"
#include "mezzo/io/json_cursor.h"
#include "mezzo/io/json_file.h"

namespace mezzo {

namespace {

// Of a forward; fixed by nothing but speed and memory.
constexpr std::size_t most_texts = 64;
constexpr std::int64_t most_tokens = 8192;

/// Adds a sequence of which the last row is read.
void add_sequence(PackedBatch& packed, const std::vector<std::int32_t>& ids) {
  packed.tokens.insert(packed.tokens.end(), ids.begin(), ids.end());
  for (std::size_t i = 0; i < ids.size(); ++i) packed.positions.push_back(static_cast<std::int32_t>(i));
  packed.offsets.push_back(static_cast<std::int32_t>(packed.tokens.size()));
  packed.loss_rows.push_back(packed.offsets.back() - 1);
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

NextTokenLogits::NextTokenLogits(LoadedModel& model, std::int64_t vocabulary, const BatchShape& largest)
    : model_(model), vocabulary_(vocabulary) {
  Backend& backend = model.backend;
  model.decoder.reserve(largest, 1);
  logits_ = backend.allocate(static_cast<std::size_t>(largest.loss_rows * vocabulary) *
                             size_of(backend.activation_dtype()));
  const Probe unperturbed;
  backend.upload({&unperturbed, 1}, NoiseKind::gaussian, table_);
}

std::span<const float> NextTokenLogits::behind(std::span<const std::vector<std::int32_t>* const> texts) {
  PackedBatch packed;
  packed.offsets.push_back(0);
  for (const std::vector<std::int32_t>* text : texts) add_sequence(packed, *text);
  Backend& backend = model_.backend;
  View logits = dense(logits_.data(), backend.activation_dtype(), std::ssize(texts), vocabulary_);
  logits.probe_stride = logits.rows * vocabulary_;  // with an adapter they are a probe's own
  model_.decoder.upload(packed, batch_);
  model_.decoder.begin(batch_);
  model_.decoder.logits(table_, logits);
  result_.resize(static_cast<std::size_t>(logits.probe_stride));
  backend.read(result_, logits, 1);
  return result_;
}

std::vector<std::string> AnswerWriter::answers(std::span<const Example> examples, Exchange& exchange,
                                               Patience patience) {
  const auto ranks = static_cast<std::size_t>(exchange.size());
  const auto rank = static_cast<std::size_t>(exchange.rank());
  const std::size_t begin = examples.size() * rank / ranks;
  const std::size_t end = examples.size() * (rank + 1) / ranks;
  const nlohmann::json mine = write(examples.subspan(begin, end - begin));
  std::vector<std::string> all;
  for (const std::string& of_rank : agree(exchange, mine.dump(), patience)) {
    const nlohmann::json texts = nlohmann::json::parse(of_rank);
    for (const nlohmann::json& text : texts) all.push_back(text.get<std::string>());
  }
  return all;
}

std::int64_t AnswerWriter::longest(const Text& text) const {
  return std::min(description_.max_positions, static_cast<std::int64_t>(text.prompt) + limits_.new_tokens);
}

std::vector<std::string> AnswerWriter::write(std::span<const Example> examples) {
  std::vector<Text> texts;
  for (const Example& example : examples) {
    texts.push_back({.ids = example.prompt, .prompt = example.prompt.size()});
  }
  for (std::size_t begin = 0; begin < texts.size();) {
    std::size_t end = begin;
    std::int64_t tokens = 0;
    for (; end < texts.size() && end - begin < most_texts; ++end) {
      tokens += longest(texts[end]);
      if (end > begin && tokens > most_tokens) break;
    }
    write_all(std::span(texts).subspan(begin, end - begin));
    begin = end;
  }
  std::vector<std::string> answers;
  for (Text& text : texts) answers.push_back(std::move(text.answer));
  return answers;
}

void AnswerWriter::write_all(std::span<Text> texts) {
  BatchShape shape{.tokens = 0,
                   .sequences = std::ssize(texts),
                   .loss_rows = std::ssize(texts),
                   .targets = 0,
                   .longest = 0};
  for (const Text& text : texts) {
    shape.tokens += longest(text);
    shape.longest = std::max(shape.longest, longest(text));
  }
  NextTokenLogits logits(model_, description_.vocabulary, shape);
  for (;;) {
    std::vector<Text*> open;
    std::vector<const std::vector<std::int32_t>*> ids;
    for (Text& text : texts) {
      if (text.done || std::ssize(text.ids) >= longest(text)) continue;
      open.push_back(&text);
      ids.push_back(&text.ids);
    }
    if (open.empty()) return;
    auto row = logits.behind(ids).begin();
    for (Text* const text : open) {
      const auto end = row + description_.vocabulary;
      add(*text, static_cast<std::int32_t>(std::max_element(row, end) - row));
      row = end;
    }
  }
}

void AnswerWriter::add(Text& text, std::int32_t id) const {
  text.done = std::ranges::find(limits_.ends, id) != limits_.ends.end();
  if (text.done) return;
  text.ids.push_back(id);
  text.answer = valid_utf8(
      tokenizer_.decode_continuation(std::span<const std::int32_t>(text.ids).subspan(text.prompt)));
  for (const std::string& stop : limits_.stops) {
    const std::size_t found = text.answer.find(stop);
    if (found == std::string::npos) continue;
    text.answer.resize(found);
    text.done = true;
  }
}

}  // namespace mezzo
