#include "mezzo/data/pipeline.h"

#include <type_traits>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/core/utf8.h"
#include "mezzo/io/json_file.h"

namespace mezzo {

PipelineTokenizer::PipelineTokenizer(PipelineParts parts, std::optional<std::int64_t> model_vocabulary)
    : parts_(std::move(parts)), model_vocabulary_(model_vocabulary) {
  check(parts_.prefix);
  check(parts_.suffix);
}

void PipelineTokenizer::append(std::string_view text, PieceStart start,
                               std::vector<std::int32_t>& ids) const {
  if (const auto bad = find_invalid_utf8(text)) {
    throw InputError("the text is not valid UTF-8 at byte {} (0x{:02X})", *bad,
                     static_cast<unsigned char>(text[*bad]));
  }
  std::visit(
      [&](const auto& model) {
        using Model = std::decay_t<decltype(model)>;
        typename Model::Workspace workspace;
        const PreTokenizer::Sink encode = [&](std::string_view piece, [[maybe_unused]] PieceStart place) {
          if constexpr (std::is_same_v<Model, SentencePieceModel>) {
            model.encode(piece, place, workspace, ids);
          } else {
            model.encode(piece, workspace, ids);
          }
        };
        parts_.added_tokens.split(
            text, start,
            [&](std::string_view plain, PieceStart place) {
              parts_.pre_tokenizer.split(plain, place, encode);
            },
            [&](std::int32_t id) { ids.push_back(id); });
      },
      parts_.model);
  check(ids);
}

std::vector<std::int32_t> PipelineTokenizer::encode(std::string_view text, bool with_special) const {
  std::vector<std::int32_t> ids;
  if (with_special) ids = parts_.prefix;
  append(text, PieceStart::text, ids);
  if (with_special) ids.insert(ids.end(), parts_.suffix.begin(), parts_.suffix.end());
  return ids;
}

std::vector<std::int32_t> PipelineTokenizer::encode_continuation(std::string_view text) const {
  std::vector<std::int32_t> ids;
  append(text, PieceStart::continuation, ids);
  return ids;
}

std::vector<TokenDecoder::Token> PipelineTokenizer::tokens_of(std::span<const std::int32_t> ids) const {
  std::vector<TokenDecoder::Token> tokens;
  tokens.reserve(ids.size());
  for (const std::int32_t id : ids) {
    const auto& table = parts_.tokens;
    if (id < 0 || static_cast<std::size_t>(id) >= table.size() || !table[static_cast<std::size_t>(id)]) {
      throw InputError("the id {} is not in the vocabulary, whose ids end at {}", id, table.size() - 1);
    }
    tokens.push_back(*table[static_cast<std::size_t>(id)]);
    const auto normalized = parts_.normalized_tokens.find(id);
    if (normalized != parts_.normalized_tokens.end()) tokens.back().text = normalized->second;
  }
  return tokens;
}

std::string PipelineTokenizer::decode(std::span<const std::int32_t> ids) const {
  return parts_.decoder.decode(tokens_of(ids));
}

std::string PipelineTokenizer::decode_continuation(std::span<const std::int32_t> ids) const {
  // Behind a letter nothing is the start of a text.
  std::vector<TokenDecoder::Token> tokens = tokens_of(ids);
  tokens.insert(tokens.begin(), {.text = "x", .is_added = true});
  return parts_.decoder.decode(std::move(tokens)).substr(1);
}

std::optional<std::int32_t> PipelineTokenizer::start_token() const {
  return parts_.prefix.empty() ? std::nullopt : std::optional(parts_.prefix.front());
}

void PipelineTokenizer::check(std::span<const std::int32_t> ids) const {
  if (!model_vocabulary_) return;
  for (const std::int32_t id : ids) {
    if (id < *model_vocabulary_) continue;
    const auto& token = parts_.tokens.at(static_cast<std::size_t>(id));
    throw InputError("the token {} has the id {}, but the model's vocab_size is {}",
                     quote(token ? token->text : ""), id, *model_vocabulary_);
  }
}

}  // namespace mezzo
