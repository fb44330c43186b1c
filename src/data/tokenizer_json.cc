#include "mezzo/data/tokenizer_json.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/data/byte_level.h"
#include "mezzo/io/json_cursor.h"
#include "mezzo/io/json_file.h"

namespace mezzo {
namespace {

using Json = nlohmann::json;

std::int32_t id_of(const JsonCursor& field) {
  return static_cast<std::int32_t>(field.integer(0, max_token_id));
}

// ---- model --------------------------------------------------------------------------------------------

std::string read_model_type(const JsonCursor& model) {
  if (!model.is_object()) model.fail("an object");
  // The first files of this kind name no type; merges are what no other model has.
  const JsonCursor type = model["type"];
  if (type.is_unset() && !model["merges"].is_unset()) return "BPE";
  if (type.text() != "BPE" && type.text() != "Unigram" && type.text() != "WordPiece") {
    type.refuse("BPE, Unigram or WordPiece");
  }
  return type.text();
}

TokenModel read_model(const JsonCursor& model, std::string_view type, Vocabulary vocabulary) {
  if (type == "Unigram") return Unigram::read(model, std::move(vocabulary));
  if (type == "WordPiece") return WordPiece::read(model, std::move(vocabulary));
  return BytePairEncoding::read(model, std::move(vocabulary));
}

// ---- added tokens -------------------------------------------------------------------------------------

std::vector<AddedToken> read_added_tokens(const JsonCursor& field, const Vocabulary& vocabulary,
                                          const TokenDecoder& decoder) {
  std::vector<AddedToken> tokens;
  if (field.is_unset()) return tokens;
  std::unordered_set<std::string> contents;
  auto next_id = static_cast<std::int32_t>(vocabulary.ids().size());
  for (const JsonCursor& entry : field.elements()) {
    AddedToken token{id_of(entry["id"]),        entry["content"].text(),   entry["single_word"].boolean(),
                     entry["lstrip"].boolean(), entry["rstrip"].boolean(), entry["normalized"].boolean()};
    if (token.content.empty()) entry["content"].fail("a text that is not empty");
    if (!contents.insert(token.content).second) entry["content"].fail("no token twice");
    // Hugging Face does not take the id that is written here: a token of the vocabulary keeps its id, the
    // others are numbered on. A file that says otherwise would mean one thing here and another there.
    const auto known = vocabulary.find(token.content);
    const std::int32_t id = known.value_or(next_id);
    if (token.id != id) entry["id"].fail(fmt::format("{}, which Hugging Face gives it", id));
    next_id = std::max(next_id, token.id + 1);
    if (known && decoder.has_byte_level() &&
        byte_level_bytes(token.content).value_or(token.content) != token.content) {
      entry["content"].refuse("no added token that the vocabulary uses for other bytes");
    }
    tokens.push_back(std::move(token));
  }
  return tokens;
}

std::vector<std::optional<TokenDecoder::Token>> table_of_tokens(const Vocabulary& vocabulary,
                                                                const std::vector<AddedToken>& added_tokens,
                                                                const JsonCursor& added_field) {
  std::vector<std::optional<TokenDecoder::Token>> table;
  const auto put = [&](std::int32_t id, const std::string& text, bool is_added) {
    const auto index = static_cast<std::size_t>(id);
    if (index >= table.size()) table.resize(index + 1);
    table[index] = {text, is_added};
  };
  for (const auto& [text, id] : vocabulary.ids()) put(id, text, false);
  for (const AddedToken& token : added_tokens) {
    const auto index = static_cast<std::size_t>(token.id);
    if (!vocabulary.find(token.content) && index < table.size() && table[index]) {
      throw InputError("{}: the token {} has the id {}, which is another token's", added_field.where(),
                       quote(token.content), token.id);
    }
    put(token.id, token.content, true);
  }
  return table;
}

// ---- post-processor -----------------------------------------------------------------------------------

std::int32_t known_id_of(const JsonCursor& field, const PipelineParts& parts) {
  const std::int32_t id = id_of(field);
  const auto index = static_cast<std::size_t>(id);
  if (index >= parts.tokens.size() || !parts.tokens[index]) field.fail("an id of the vocabulary");
  return id;
}

void read_template(const JsonCursor& field, PipelineParts& parts) {
  const JsonCursor single = field["single"];
  bool text_seen = false;
  for (const JsonCursor& piece : single.elements()) {
    const JsonCursor sequence = piece["Sequence"];
    const JsonCursor special = piece["SpecialToken"];
    if (sequence.is_unset() == special.is_unset()) piece.fail("either Sequence or SpecialToken in it");
    if (!sequence.is_unset()) {
      if (sequence["id"].text() != "A" || text_seen) sequence["id"].refuse("\"A\", once");
      text_seen = true;
      continue;
    }
    const JsonCursor tokens = field["special_tokens"][special["id"].text()];
    if (tokens.is_unset()) special["id"].fail("a key of special_tokens");
    for (const JsonCursor& element : tokens["ids"].elements()) {
      (text_seen ? parts.suffix : parts.prefix).push_back(known_id_of(element, parts));
    }
  }
  if (!text_seen) single.refuse("a template with the sequence A");
}

/// Returns whether there was a template in it.
bool read_post_processor(const JsonCursor& field, PipelineParts& parts) {
  if (field.is_unset()) return false;
  const std::string type = field["type"].text();
  if (type == "ByteLevel") return false;  // it corrects offsets into the text, which nobody asks for here
  if (type == "TemplateProcessing") {
    read_template(field, parts);
    return true;
  }
  if (type == "RobertaProcessing" || type == "BertProcessing") {
    // Each a pair of a token and its id.
    for (const auto& [name, ids] : {std::pair("cls", &parts.prefix), std::pair("sep", &parts.suffix)}) {
      const std::vector<JsonCursor> pair = field[name].elements();
      if (pair.size() != 2) field[name].fail("a token and its id");
      ids->push_back(known_id_of(pair[1], parts));
    }
    return true;
  }
  if (type != "Sequence") {
    field.refuse("ByteLevel, TemplateProcessing, RobertaProcessing, BertProcessing or a Sequence of these");
  }
  bool has_template = false;
  for (const JsonCursor& element : field["processors"].elements()) {
    if (has_template && element["type"].text() != "ByteLevel") element.refuse("one that adds tokens at most");
    has_template |= read_post_processor(element, parts);
  }
  return has_template;
}

}  // namespace

PipelineParts read_tokenizer_json(const Json& document, const std::string& file,
                                  std::optional<SentencePieceModel> sentencepiece) {
  const JsonCursor root(document, file);
  if (const JsonCursor version = root["version"]; !version.is_unset() && version.text() != "1.0") {
    version.refuse("\"1.0\"");
  }
  const JsonCursor model = root["model"];
  const std::string type = sentencepiece ? "" : read_model_type(model);
  Normalizer normalizer = Normalizer::read(root["normalizer"]);
  PreTokenizer pre_tokenizer = PreTokenizer::read(root["pre_tokenizer"]);
  TokenDecoder decoder = TokenDecoder::read(root["decoder"]);
  Vocabulary vocabulary = Vocabulary::read(model);
  std::vector<AddedToken> added_tokens = read_added_tokens(root["added_tokens"], vocabulary, decoder);
  auto tokens = table_of_tokens(vocabulary, added_tokens, root["added_tokens"]);
  std::unordered_map<std::int32_t, std::string> normalized_tokens;
  for (const AddedToken& token : added_tokens) {
    std::string sought = sought_text(token, normalizer);
    if (sought != token.content) normalized_tokens.emplace(token.id, std::move(sought));
  }
  PipelineParts parts{.tokens = std::move(tokens),
                      .normalized_tokens = std::move(normalized_tokens),
                      .added_tokens = AddedTokens(std::move(added_tokens), std::move(normalizer)),
                      .pre_tokenizer = std::move(pre_tokenizer),
                      .model = sentencepiece ? TokenModel(std::move(*sentencepiece))
                                             : read_model(model, type, std::move(vocabulary)),
                      .decoder = std::move(decoder),
                      .prefix = {},
                      .suffix = {}};
  read_post_processor(root["post_processor"], parts);
  return parts;
}

}  // namespace mezzo
