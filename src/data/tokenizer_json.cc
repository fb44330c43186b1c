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

/// The pattern that the ByteLevel pre-tokenizer brings along: GPT-2's.
constexpr std::string_view gpt2_pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

constexpr std::size_t max_steps = 64;  ///< of a pre-tokenizer: each is a call inside the one before

std::int32_t id_of(const JsonCursor& field) {
  return static_cast<std::int32_t>(field.integer(0, max_token_id));
}

// ---- model --------------------------------------------------------------------------------------------

/// The vocabulary's ids by token, checked.
const Json::object_t& read_vocabulary(const JsonCursor& model) {
  const JsonCursor field = model["vocab"];
  if (!field.value().is_object() || field.value().empty()) field.fail("an object of tokens and their ids");
  const auto& vocabulary = field.value().get_ref<const Json::object_t&>();
  std::unordered_set<std::int32_t> ids;
  for (const auto& [token, value] : vocabulary) {
    const auto entry = [&] { return fmt::format("{}, token {}:", field.where(), quote(token)); };
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > std::uint64_t{max_token_id}) {
      throw InputError("{} the id is {}; expected one from 0 to {}", entry(), value.dump(), max_token_id);
    }
    if (!ids.insert(value.get<std::int32_t>()).second) {
      throw InputError("{} the id {} stands at another token too", entry(), value.dump());
    }
  }
  return vocabulary;
}

/// The merges as ids. They are written as ["a", "b"], or as "a b" in files of before 2024.
std::vector<BytePairEncoding::Merge> read_merges(const JsonCursor& model, const Json::object_t& vocabulary) {
  const JsonCursor field = model["merges"];
  if (!field.value().is_array()) field.fail("a list of pairs of tokens");
  std::vector<BytePairEncoding::Merge> merges;
  merges.reserve(field.value().size());
  for (std::size_t i = 0; i < field.value().size(); ++i) {
    const Json& entry = field.value()[i];
    const auto fail = [&](std::string_view what) { throw InputError("{}[{}] {}", field.where(), i, what); };
    std::string left, right;
    if (entry.is_string()) {
      const auto& text = entry.get_ref<const std::string&>();
      if (text.starts_with("#version")) continue;  // the first line of a merges.txt
      const std::size_t space = text.find(' ');
      if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
        fail(fmt::format("is {}; expected two tokens with one space between them", quote(text)));
      }
      left = text.substr(0, space);
      right = text.substr(space + 1);
    } else if (entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string()) {
      left = entry[0].get_ref<const std::string&>();
      right = entry[1].get_ref<const std::string&>();
    } else {
      fail("is no merge; expected [\"a\", \"b\"] or \"a b\"");
    }
    const auto id = [&](const std::string& token) {
      const auto found = vocabulary.find(token);
      if (found == vocabulary.end()) {
        fail(fmt::format("needs the token {}, which is not in model.vocab", quote(token)));
      }
      return found->second.get<std::int32_t>();
    };
    merges.push_back({id(left), id(right), id(left + right)});
  }
  return merges;
}

BytePairEncoding read_model(const JsonCursor& model, const Json::object_t& vocabulary) {
  // The first files of this kind name no type; merges are what no other model has.
  if (model["type"].is_unset() ? model["merges"].is_unset() : model["type"].text() != "BPE") {
    model["type"].refuse("\"BPE\"");
  }
  if (const JsonCursor dropout = model["dropout"]; !dropout.is_unset() && dropout.value() != 0)
    dropout.refuse("null");
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (const JsonCursor field = model[affix]; !field.is_unset() && !field.text().empty())
      field.refuse("null");
  }
  if (const JsonCursor fallback = model["byte_fallback"]; fallback.boolean_or(false))
    fallback.refuse("false");

  std::vector<BytePairEncoding::Token> tokens;
  for (const auto& [token, id] : vocabulary) {
    if (auto bytes = byte_level_bytes(token)) tokens.push_back({std::move(*bytes), id.get<std::int32_t>()});
  }
  BytePairEncoding encoding(tokens, read_merges(model, vocabulary), model["ignore_merges"].boolean_or(false),
                            model["vocab"].where());
  // With a token for each byte nothing is unknown, and what would stand for it does not matter.
  for (unsigned byte = 0; byte <= 0xF4; ++byte) {
    const bool occurs = byte != 0xC0 && byte != 0xC1;  // in UTF-8
    if (occurs && !encoding.knows(static_cast<unsigned char>(byte)) && !model["unk_token"].is_unset()) {
      model["unk_token"].refuse(
          fmt::format("null, or a vocabulary of all bytes (0x{:02X} has no token)", byte));
    }
  }
  return encoding;
}

// ---- added tokens -------------------------------------------------------------------------------------

std::vector<AddedToken> read_added_tokens(const JsonCursor& field, const Json::object_t& vocabulary) {
  std::vector<AddedToken> tokens;
  if (field.is_unset()) return tokens;
  std::unordered_set<std::string> contents;
  auto next_id = static_cast<std::int32_t>(vocabulary.size());
  for (const JsonCursor& entry : field.elements()) {
    AddedToken token{id_of(entry["id"]),        entry["content"].text(),   entry["single_word"].boolean(),
                     entry["lstrip"].boolean(), entry["rstrip"].boolean(), entry["normalized"].boolean()};
    if (token.content.empty()) entry["content"].fail("a text that is not empty");
    if (!contents.insert(token.content).second) entry["content"].fail("no token twice");
    // Hugging Face does not take the id that is written here: a token of the vocabulary keeps its id, the
    // others are numbered on. A file that says otherwise would mean one thing here and another there.
    const auto known = vocabulary.find(token.content);
    const std::int32_t id = known != vocabulary.end() ? known->second.get<std::int32_t>() : next_id;
    if (token.id != id) entry["id"].fail(fmt::format("{}, which Hugging Face gives it", id));
    next_id = std::max(next_id, token.id + 1);
    if (known != vocabulary.end() &&
        byte_level_bytes(token.content).value_or(token.content) != token.content) {
      entry["content"].refuse("no added token that the vocabulary uses for other bytes");
    }
    tokens.push_back(std::move(token));
  }
  return tokens;
}

std::vector<std::optional<std::string>> table_of_bytes(const Json::object_t& vocabulary,
                                                       const std::vector<AddedToken>& added_tokens,
                                                       const JsonCursor& added_field) {
  std::vector<std::optional<std::string>> table;
  const auto put = [&](std::int32_t id, std::string bytes) {
    const auto index = static_cast<std::size_t>(id);
    if (index >= table.size()) table.resize(index + 1);
    table[index] = std::move(bytes);
  };
  for (const auto& [token, id] : vocabulary) {
    put(id.get<std::int32_t>(), byte_level_bytes(token).value_or(token));
  }
  for (const AddedToken& token : added_tokens) {
    const auto index = static_cast<std::size_t>(token.id);
    if (!vocabulary.contains(token.content) && index < table.size() && table[index]) {
      throw InputError("{}: the token {} has the id {}, which is another token's", added_field.where(),
                       quote(token.content), token.id);
    }
    put(token.id, token.content);
  }
  return table;
}

// ---- pre-tokenizer ------------------------------------------------------------------------------------

Split read_split(const JsonCursor& field) {
  constexpr std::pair<const char*, Split::Behavior> behaviors[] = {
      {"Isolated", Split::Behavior::isolated},
      {"Removed", Split::Behavior::removed},
      {"MergedWithPrevious", Split::Behavior::merged_with_previous},
      {"MergedWithNext", Split::Behavior::merged_with_next},
      {"Contiguous", Split::Behavior::contiguous}};
  const std::string name = field["behavior"].text();
  const auto behavior = std::find_if(std::begin(behaviors), std::end(behaviors),
                                     [&](const auto& known) { return name == known.first; });
  if (behavior == std::end(behaviors)) {
    field["behavior"].fail("Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous");
  }
  const JsonCursor pattern = field["pattern"];
  const JsonCursor regex = pattern["Regex"];
  const JsonCursor literal = pattern["String"];
  if (regex.is_unset() == literal.is_unset()) pattern.fail("either Regex or String in it");
  const JsonCursor& source = regex.is_unset() ? literal : regex;
  if (source.text().empty()) source.fail("a pattern that is not empty");
  return {regex.is_unset() ? Pattern::literal(source.text(), source.where())
                           : Pattern(source.text(), source.where()),
          behavior->second, field["invert"].boolean()};
}

/// Appends the steps of a pre-tokenizer; true when it ended with ByteLevel.
bool read_pre_tokenizer(const JsonCursor& field, std::vector<PreTokenizer::Step>& steps) {
  if (field.is_unset()) return false;
  const std::string type = field["type"].text();
  if (type == "Sequence") {
    bool is_byte_level = false;
    for (const JsonCursor& element : field["pretokenizers"].elements()) {
      if (is_byte_level) element.refuse("nothing behind ByteLevel");
      is_byte_level = read_pre_tokenizer(element, steps);
    }
    return is_byte_level;
  }
  if (type == "ByteLevel") {
    if (field["add_prefix_space"].boolean()) steps.emplace_back(PrefixSpace{});
    if (field["use_regex"].boolean_or(true)) {
      steps.emplace_back(Split{Pattern(gpt2_pattern, field.where()), Split::Behavior::isolated, false});
    }
    return true;
  }
  if (type == "Split") {
    steps.emplace_back(read_split(field));
  } else if (type == "Digits") {
    steps.emplace_back(
        Split{Pattern(R"(\p{N})", field.where()),
              field["individual_digits"].boolean() ? Split::Behavior::isolated : Split::Behavior::contiguous,
              false});
  } else {
    field.refuse("ByteLevel, Split, Digits or a Sequence of these");
  }
  return false;
}

// ---- normalizer and post-processor ------------------------------------------------------------------------

void refuse_normalizer(const JsonCursor& field) {
  if (field.is_unset()) return;
  if (field["type"].text() != "Sequence") field.refuse("null");
  for (const JsonCursor& element : field["normalizers"].elements()) refuse_normalizer(element);
}

std::int32_t known_id_of(const JsonCursor& field, const TokenizerParts& parts) {
  const std::int32_t id = id_of(field);
  const auto index = static_cast<std::size_t>(id);
  if (index >= parts.bytes_of_id.size() || !parts.bytes_of_id[index]) field.fail("an id of the vocabulary");
  return id;
}

void read_template(const JsonCursor& field, TokenizerParts& parts) {
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
bool read_post_processor(const JsonCursor& field, TokenizerParts& parts) {
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

TokenizerParts read_tokenizer_json(const Json& document, const std::string& file) {
  const JsonCursor root(document, file);
  if (const JsonCursor version = root["version"]; !version.is_unset() && version.text() != "1.0") {
    version.refuse("\"1.0\"");
  }
  refuse_normalizer(root["normalizer"]);

  const JsonCursor model = root["model"];
  if (!model.is_object()) model.fail("an object");
  std::vector<PreTokenizer::Step> steps;
  if (!read_pre_tokenizer(root["pre_tokenizer"], steps)) {
    root["pre_tokenizer"].refuse("ByteLevel, or a Sequence that ends with it");
  }
  if (steps.size() > max_steps) {
    throw InputError("{} has {} steps, which is not served; expected {} at most",
                     root["pre_tokenizer"].where(), steps.size(), max_steps);
  }
  if (const JsonCursor decoder = root["decoder"];
      decoder.is_unset() || decoder["type"].text() != "ByteLevel") {
    decoder.refuse("ByteLevel");
  }
  const Json::object_t& vocabulary = read_vocabulary(model);
  std::vector<AddedToken> added_tokens = read_added_tokens(root["added_tokens"], vocabulary);
  auto bytes_of_id = table_of_bytes(vocabulary, added_tokens, root["added_tokens"]);
  TokenizerParts parts{.bytes_of_id = std::move(bytes_of_id),
                       .added_tokens = AddedTokens(std::move(added_tokens)),
                       .pre_tokenizer = PreTokenizer(std::move(steps)),
                       .model = read_model(model, vocabulary),
                       .prefix = {},
                       .suffix = {},
                       .bos = {},
                       .eos = {}};
  read_post_processor(root["post_processor"], parts);
  return parts;
}

}  // namespace mezzo
