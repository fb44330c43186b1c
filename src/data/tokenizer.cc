#include "mezzo/data/tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/data/added_tokens.h"
#include "mezzo/data/byte_level.h"
#include "mezzo/data/byte_pair_encoding.h"
#include "mezzo/data/pre_tokenizer.h"
#include "mezzo/data/utf8.h"
#include "mezzo/io/json_file.h"

namespace mezzo {
namespace {

using Json = nlohmann::json;

/// The pattern that the ByteLevel pre-tokenizer brings along: GPT-2's.
constexpr std::string_view gpt2_pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

constexpr std::int64_t max_id =
    (1 << 24) - 1;  ///< far above any model's; tables are as long as the largest id

constexpr std::size_t max_steps = 64;  ///< of a pre-tokenizer: each is a call inside the one before

/// What a tokenizer.json amounts to.
struct Parts {
  std::vector<std::optional<std::string>> bytes_of_id;  ///< nothing where an id is not used
  AddedTokens added_tokens;
  PreTokenizer pre_tokenizer;
  BytePairEncoding model;
  std::vector<std::int32_t> prefix;  ///< the post-processor's tokens before a text ...
  std::vector<std::int32_t> suffix;  ///< ... and behind it
};

class ByteLevelTokenizer final : public Tokenizer {
 public:
  explicit ByteLevelTokenizer(Parts parts) : parts_(std::move(parts)) {}

  std::vector<std::int32_t> encode(std::string_view text, bool with_special) const override {
    if (const auto bad = find_invalid_utf8(text)) {
      throw InputError("the text is not valid UTF-8 at byte {} (0x{:02X})", *bad,
                       static_cast<unsigned char>(text[*bad]));
    }
    std::vector<std::int32_t> ids;
    if (with_special) ids = parts_.prefix;
    BytePairEncoding::Workspace workspace;
    const auto encode_piece = [&](std::string_view piece) { parts_.model.encode(piece, workspace, ids); };
    parts_.added_tokens.split(
        text, [&](std::string_view plain) { parts_.pre_tokenizer.split(plain, encode_piece); },
        [&](std::int32_t id) { ids.push_back(id); });
    if (with_special) ids.insert(ids.end(), parts_.suffix.begin(), parts_.suffix.end());
    return ids;
  }

  std::string decode(std::span<const std::int32_t> ids) const override {
    std::string bytes;
    for (const std::int32_t id : ids) {
      const auto& table = parts_.bytes_of_id;
      if (id < 0 || static_cast<std::size_t>(id) >= table.size() || !table[static_cast<std::size_t>(id)]) {
        throw InputError("the id {} is not in the vocabulary, whose ids end at {}", id, table.size() - 1);
      }
      bytes += *table[static_cast<std::size_t>(id)];
    }
    return bytes;
  }

  std::optional<std::int32_t> start_token() const override {
    return parts_.prefix.empty() ? std::nullopt : std::optional(parts_.prefix.front());
  }

  std::int64_t vocabulary_size() const override {
    return static_cast<std::int64_t>(parts_.bytes_of_id.size());
  }

 private:
  Parts parts_;
};

/// A value of the file with its place, for reading it or saying what is wrong with it.
class Field {
 public:
  Field(const Json& value, const std::string& file, std::string name)
      : value_(&value), file_(&file), name_(std::move(name)) {}

  const Json& value() const { return *value_; }
  bool is_null() const { return value_->is_null(); }
  std::string where() const { return fmt::format("{}: {}", *file_, name_); }

  /// A member of an object; one that is missing is null.
  Field operator[](const std::string& key) const {
    static const Json null;
    if (!value_->is_object()) fail("an object");
    const auto member = value_->find(key);
    return {member == value_->end() ? null : *member, *file_,
            name_.empty() ? key : fmt::format("{}.{}", name_, key)};
  }
  std::vector<Field> elements() const {
    if (!value_->is_array()) fail("a list");
    std::vector<Field> fields;
    for (const Json& element : *value_)
      fields.emplace_back(element, *file_, fmt::format("{}[{}]", name_, fields.size()));
    return fields;
  }
  const std::string& text() const {
    if (!value_->is_string()) fail("a string");
    return value_->get_ref<const std::string&>();
  }
  bool boolean() const {
    if (!value_->is_boolean()) fail("true or false");
    return value_->get<bool>();
  }
  bool boolean_or(bool otherwise) const { return is_null() ? otherwise : boolean(); }
  std::int32_t id() const {
    if (!value_->is_number_unsigned() || value_->get<std::uint64_t>() > std::uint64_t{max_id}) {
      fail(fmt::format("an id from 0 to {}", max_id));
    }
    return value_->get<std::int32_t>();
  }
  /// The type of a component, which `"type"` names.
  const std::string& type() const { return (*this)["type"].text(); }

  [[noreturn]] void fail(std::string_view expected) const {
    throw InputError("{} is {}; expected {}", where(), found(), expected);
  }
  [[noreturn]] void refuse(std::string_view served) const {
    throw InputError("{} is {}, which is not served; expected {}", where(), found(), served);
  }

 private:
  std::string found() const {
    if (value_->is_null()) return "missing or null";
    if (value_->is_string()) return quote(value_->get_ref<const std::string&>());
    if (value_->is_array()) return fmt::format("a list of {}", value_->size());
    if (!value_->is_object()) return value_->dump();
    const auto type = value_->find("type");
    if (type == value_->end() || !type->is_string()) return "an object";
    return "of the type " + quote(type->get_ref<const std::string&>());
  }

  const Json* value_;
  const std::string* file_;
  std::string name_;
};

// ---- model --------------------------------------------------------------------------------------------

/// The vocabulary's ids by token, checked.
const Json::object_t& read_vocabulary(const Field& model) {
  const Field field = model["vocab"];
  if (!field.value().is_object() || field.value().empty()) field.fail("an object of tokens and their ids");
  const auto& vocabulary = field.value().get_ref<const Json::object_t&>();
  std::unordered_set<std::int32_t> ids;
  for (const auto& [token, value] : vocabulary) {
    const auto entry = [&] { return fmt::format("{}, token {}:", field.where(), quote(token)); };
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > std::uint64_t{max_id}) {
      throw InputError("{} the id is {}; expected one from 0 to {}", entry(), value.dump(), max_id);
    }
    if (!ids.insert(value.get<std::int32_t>()).second) {
      throw InputError("{} the id {} stands at another token too", entry(), value.dump());
    }
  }
  return vocabulary;
}

/// The merges as ids. They are written as ["a", "b"], or as "a b" in files of before 2024.
std::vector<BytePairEncoding::Merge> read_merges(const Field& model, const Json::object_t& vocabulary) {
  const Field field = model["merges"];
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

BytePairEncoding read_model(const Field& model, const Json::object_t& vocabulary) {
  // The first files of this kind name no type; merges are what no other model has.
  if (model["type"].is_null() ? model["merges"].is_null() : model.type() != "BPE")
    model["type"].refuse("\"BPE\"");
  if (const Field dropout = model["dropout"]; !dropout.is_null() && dropout.value() != 0)
    dropout.refuse("null");
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (const Field field = model[affix]; !field.is_null() && !field.text().empty()) field.refuse("null");
  }
  if (const Field fallback = model["byte_fallback"]; fallback.boolean_or(false)) fallback.refuse("false");

  std::vector<BytePairEncoding::Token> tokens;
  for (const auto& [token, id] : vocabulary) {
    if (auto bytes = byte_level_bytes(token)) tokens.push_back({std::move(*bytes), id.get<std::int32_t>()});
  }
  BytePairEncoding encoding(tokens, read_merges(model, vocabulary), model["ignore_merges"].boolean_or(false),
                            model["vocab"].where());
  // With a token for each byte nothing is unknown, and what would stand for it does not matter.
  for (unsigned byte = 0; byte <= 0xF4; ++byte) {
    const bool occurs = byte != 0xC0 && byte != 0xC1;  // in UTF-8
    if (occurs && !encoding.knows(static_cast<unsigned char>(byte)) && !model["unk_token"].is_null()) {
      model["unk_token"].refuse(
          fmt::format("null, or a vocabulary of all bytes (0x{:02X} has no token)", byte));
    }
  }
  return encoding;
}

// ---- added tokens -------------------------------------------------------------------------------------

std::vector<AddedToken> read_added_tokens(const Field& field, const Json::object_t& vocabulary) {
  std::vector<AddedToken> tokens;
  if (field.is_null()) return tokens;
  std::unordered_set<std::string> contents;
  auto next_id = static_cast<std::int32_t>(vocabulary.size());
  for (const Field& entry : field.elements()) {
    AddedToken token{entry["id"].id(),          entry["content"].text(),   entry["single_word"].boolean(),
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
                                                       const Field& added_field) {
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

Split read_split(const Field& field) {
  constexpr std::pair<const char*, Split::Behavior> behaviors[] = {
      {"Isolated", Split::Behavior::isolated},
      {"Removed", Split::Behavior::removed},
      {"MergedWithPrevious", Split::Behavior::merged_with_previous},
      {"MergedWithNext", Split::Behavior::merged_with_next},
      {"Contiguous", Split::Behavior::contiguous}};
  const std::string& name = field["behavior"].text();
  const auto behavior = std::find_if(std::begin(behaviors), std::end(behaviors),
                                     [&](const auto& known) { return name == known.first; });
  if (behavior == std::end(behaviors)) {
    field["behavior"].fail("Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous");
  }
  const Field pattern = field["pattern"];
  const Field regex = pattern["Regex"];
  const Field literal = pattern["String"];
  if (regex.is_null() == literal.is_null()) pattern.fail("either Regex or String in it");
  const Field& source = regex.is_null() ? literal : regex;
  if (source.text().empty()) source.fail("a pattern that is not empty");
  return {regex.is_null() ? Pattern::literal(source.text(), source.where())
                          : Pattern(source.text(), source.where()),
          behavior->second, field["invert"].boolean()};
}

/// Appends the steps of a pre-tokenizer; true when it ended with ByteLevel.
bool read_pre_tokenizer(const Field& field, std::vector<PreTokenizer::Step>& steps) {
  if (field.is_null()) return false;
  const std::string& type = field.type();
  if (type == "Sequence") {
    bool is_byte_level = false;
    for (const Field& element : field["pretokenizers"].elements()) {
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

// ---- post-processor -----------------------------------------------------------------------------------

void read_template(const Field& field, Parts& parts) {
  const Field single = field["single"];
  bool text_seen = false;
  for (const Field& piece : single.elements()) {
    const Field sequence = piece["Sequence"];
    const Field special = piece["SpecialToken"];
    if (sequence.is_null() == special.is_null()) piece.fail("either Sequence or SpecialToken in it");
    if (!sequence.is_null()) {
      if (sequence["id"].text() != "A" || text_seen) sequence["id"].refuse("\"A\", once");
      text_seen = true;
      continue;
    }
    const Field tokens = field["special_tokens"][special["id"].text()];
    if (tokens.is_null()) special["id"].fail("a key of special_tokens");
    for (const Field& element : tokens["ids"].elements()) {
      const std::int32_t id = element.id();
      const auto index = static_cast<std::size_t>(id);
      if (index >= parts.bytes_of_id.size() || !parts.bytes_of_id[index])
        element.fail("an id of the vocabulary");
      (text_seen ? parts.suffix : parts.prefix).push_back(id);
    }
  }
  if (!text_seen) single.refuse("a template with the sequence A");
}

/// Returns whether there was a template in it.
bool read_post_processor(const Field& field, Parts& parts) {
  if (field.is_null()) return false;
  const std::string& type = field.type();
  if (type == "ByteLevel") return false;  // it corrects offsets into the text, which nobody asks for here
  if (type == "TemplateProcessing") {
    read_template(field, parts);
    return true;
  }
  if (type != "Sequence") field.refuse("ByteLevel, TemplateProcessing or a Sequence of these");
  bool has_template = false;
  for (const Field& element : field["processors"].elements()) {
    if (has_template && element.type() != "ByteLevel") element.refuse("one TemplateProcessing at most");
    has_template |= read_post_processor(element, parts);
  }
  return has_template;
}

// ---- the whole file -----------------------------------------------------------------------------------

/// `truncation` and `padding` are passed over: transformers sets both anew at each call, whatever the file
/// says.
std::unique_ptr<Tokenizer> read_tokenizer_json(const std::string& path) {
  const Json document = read_json_file(path);
  const Field root(document, path, "");
  if (!document.is_object()) throw InputError("{}: expected an object", path);
  if (const Field version = root["version"]; !version.is_null() && version.text() != "1.0")
    version.refuse("\"1.0\"");
  if (!root["normalizer"].is_null()) root["normalizer"].refuse("null");

  const Field model = root["model"];
  if (model.is_null()) model.fail("an object");
  std::vector<PreTokenizer::Step> steps;
  if (!read_pre_tokenizer(root["pre_tokenizer"], steps)) {
    root["pre_tokenizer"].refuse("ByteLevel, or a Sequence that ends with it");
  }
  if (steps.size() > max_steps) {
    throw InputError("{}: pre_tokenizer has {} steps, which is not served; expected {} at most", path,
                     steps.size(), max_steps);
  }
  if (const Field decoder = root["decoder"]; decoder.is_null() || decoder.type() != "ByteLevel") {
    decoder.refuse("ByteLevel");
  }
  const Json::object_t& vocabulary = read_vocabulary(model);
  std::vector<AddedToken> added_tokens = read_added_tokens(root["added_tokens"], vocabulary);
  auto bytes_of_id = table_of_bytes(vocabulary, added_tokens, root["added_tokens"]);
  Parts parts{std::move(bytes_of_id),
              AddedTokens(std::move(added_tokens)),
              PreTokenizer(std::move(steps)),
              read_model(model, vocabulary),
              {},
              {}};
  read_post_processor(root["post_processor"], parts);
  return std::make_unique<ByteLevelTokenizer>(std::move(parts));
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;  // what cannot be looked at is reported when it is opened
  fs::path file = path;
  if (fs::is_directory(file, ignored)) {
    file /= "tokenizer.json";
    const fs::path sentencepiece = file.parent_path() / "tokenizer.model";
    if (!fs::exists(file, ignored) && fs::exists(sentencepiece, ignored)) file = sentencepiece;
  }
  if (file.filename() == "tokenizer.model") {
    throw InputError("{}: a SentencePiece tokenizer is not served yet; expected a tokenizer.json",
                     file.string());
  }
  return read_tokenizer_json(file.string());
}

}  // namespace mezzo
