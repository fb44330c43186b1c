#include "mezzo/data/tokenizer_files.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <limits>
#include <string_view>
#include <utility>
#include <vector>

#include "mezzo/core/error.h"
#include "mezzo/data/tokenizer_config.h"
#include "mezzo/data/vocabulary.h"
#include "mezzo/io/files.h"
#include "mezzo/io/json_cursor.h"
#include "mezzo/io/json_file.h"
#include "mezzo/io/sha256.h"

namespace mezzo {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr std::uint64_t file_limit = std::uint64_t{1} << 28;  // bytes of a tokenizer.model or merges.txt

/// The pattern of Qwen2Tokenizer, which its files do not hold.
constexpr const char* qwen2_pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// Where the files of a model lie.
class Folder {
 public:
  explicit Folder(std::string path) : path_(std::move(path)) {}
  std::string at(const char* name) const { return (fs::path(path_) / name).string(); }
  bool has(const char* name) const {
    std::error_code ignored;  // what cannot be looked at is reported when it is opened
    return fs::exists(at(name), ignored);
  }
  /// The name of a vocabulary of OpenAI's tiktoken, if there is one.
  std::optional<std::string> tiktoken() const {
    for (const std::string& name : list_folder(path_)) {
      if (name.ends_with(".tiktoken")) return name;
    }
    return std::nullopt;
  }

 private:
  std::string path_;
};

[[noreturn]] void refuse_tiktoken(const std::string& file) {
  throw InputError(
      "{}: a tiktoken vocabulary, which is not served; expected a tokenizer.json (transformers writes one "
      "with save_pretrained)",
      file);
}

/// Whether the text starts with a line of a tiktoken vocabulary: base64 code, a space and a rank.
bool is_tiktoken(std::string_view text) {
  const std::string_view line = text.substr(0, text.find('\n'));
  const std::size_t space = line.find(' ');
  if (space == 0 || space == std::string_view::npos || space + 1 == line.size() || line.size() > 4096)
    return false;
  const auto is_base64 = [](unsigned char c) { return std::isalnum(c) || c == '+' || c == '/' || c == '='; };
  const std::string_view rank = line.substr(space + 1);
  return std::ranges::all_of(line.substr(0, space), is_base64) &&
         std::ranges::all_of(rank, [](unsigned char c) { return std::isdigit(c) || c == '\r'; });
}

// ---- what the files beside say ------------------------------------------------------------------------

/// tokenizer_config.json, with what older files hold that newer ones write into it: for tokenizers without a
/// tokenizer.json, where nothing else says it.
void read_config(const Folder& folder, TokenizerFiles& files) {
  if (folder.has("tokenizer_config.json")) files.config = read_json_file(files.config_file);
  const JsonCursor config(files.config, files.config_file);
  if (!config.is_object()) config.fail("an object");
  if (!config["added_tokens_decoder"].is_unset()) return;
  if (folder.has("special_tokens_map.json")) {
    const std::string file = folder.at("special_tokens_map.json");
    const Json map = read_json_file(file);
    for (const auto& [name, token] : JsonCursor(map, file).members()) {
      if (!files.config.contains(name)) files.config[name] = token.value();
    }
  }
  if (folder.has("added_tokens.json")) {
    const std::string file = folder.at("added_tokens.json");
    const Json ids = read_json_file(file);
    std::vector<std::pair<std::int64_t, std::string>> tokens;
    for (const auto& [text, id] : JsonCursor(ids, file).members()) {
      tokens.emplace_back(id.integer(0, max_token_id), text);
    }
    std::ranges::sort(tokens);
    for (const auto& [id, text] : tokens) {
      files.document["added_tokens"].push_back({{"id", id},
                                                {"content", text},
                                                {"single_word", false},
                                                {"lstrip", false},
                                                {"rstrip", false},
                                                {"normalized", false},
                                                {"special", false}});
    }
  }
}

/// Applies `files.config` to the document, and puts the start and end tokens around texts that it asks for.
void apply_config(TokenizerFiles& files, bool adds_bos) {
  const JsonCursor config(files.config, files.config_file);
  apply_tokenizer_config(config, files.document, files.file);
  files.bos = named_token(config, "bos_token");
  files.eos = named_token(config, "eos_token");
  Json single = Json::array({{{"Sequence", {{"id", "A"}, {"type_id", 0}}}}});
  Json tokens = Json::object();
  const auto add = [&](const std::optional<std::string>& text, const char* key, bool is_first) {
    if (!text) throw InputError("{} is asked for, but no file names the token", config[key].where());
    for (const Json& entry : files.document["added_tokens"]) {
      if (entry["content"] == *text)
        tokens[*text] = {{"id", *text}, {"ids", {entry["id"]}}, {"tokens", {*text}}};
    }
    const Json piece = {{"SpecialToken", {{"id", *text}, {"type_id", 0}}}};
    single.insert(is_first ? single.begin() : single.end(), piece);
  };
  if (config["add_bos_token"].boolean_or(adds_bos)) add(files.bos, "add_bos_token", true);
  if (config["add_eos_token"].boolean_or(false)) add(files.eos, "add_eos_token", false);
  files.document["post_processor"] = {
      {"type", "TemplateProcessing"}, {"single", std::move(single)}, {"special_tokens", std::move(tokens)}};
}

// ---- the kinds of files -------------------------------------------------------------------------------

void read_sentencepiece(const Folder* folder, TokenizerFiles& files) {
  const std::string bytes = read_file(files.file, file_limit);
  if (is_tiktoken(bytes)) refuse_tiktoken(files.file);
  files.document["added_tokens"] = Json::array();
  if (folder != nullptr) read_config(*folder, files);
  const JsonCursor config(files.config, files.config_file);
  const JsonCursor kind = config["tokenizer_class"];
  const std::string name = kind.text_or("LlamaTokenizer");
  const bool is_gemma = name == "GemmaTokenizer" || name == "GemmaTokenizerFast";
  if (!is_gemma && name != "LlamaTokenizer" && name != "LlamaTokenizerFast") {
    kind.refuse("LlamaTokenizer or GemmaTokenizer beside a tokenizer.model, or a tokenizer.json");
  }
  if (const JsonCursor options = config["sp_model_kwargs"]; !options.is_unset() && !options.value().empty()) {
    options.refuse("an empty object");
  }
  const bool legacy = is_gemma || config["legacy"].boolean_or(true);
  if (const JsonCursor space = config["add_prefix_space"]; !legacy && !space.boolean_or(true)) {
    space.refuse("true");
  }
  SentencePieceModel model(bytes, legacy, files.file);
  // The classes have these tokens by default.
  for (const auto& [key, text] : {std::pair("bos_token", model.bos()), std::pair("eos_token", model.eos()),
                                  std::pair("unk_token", model.unknown())}) {
    if (text && !files.config.contains(key)) files.config[key] = *text;
  }
  Json vocabulary = Json::object();
  for (const auto& [text, id] : model.pieces()) vocabulary[text] = static_cast<std::uint64_t>(id);
  files.document["model"] = {{"type", "SentencePiece"},
                             {"sha256", sha256_of(bytes_of(bytes))},
                             {"legacy", legacy},
                             {"vocab", std::move(vocabulary)}};
  Json steps = {{{"type", "Replace"}, {"pattern", {{"String", "\u2581"}}}, {"content", " "}},
                {{"type", "ByteFallback"}},
                {{"type", "Fuse"}}};
  // As many blanks as the library drops at the start of a text that it decodes.
  const std::int32_t dropped =
      model.drops_blanks() ? std::numeric_limits<std::int32_t>::max() : model.puts_mark();
  steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", dropped}, {"stop", 0}});
  files.document["decoder"] = {{"type", "Sequence"}, {"decoders", std::move(steps)}};
  apply_config(files, /*adds_bos=*/true);
  files.sentencepiece = std::move(model);
}

void read_vocabulary_and_merges(const Folder& folder, TokenizerFiles& files) {
  files.document["added_tokens"] = Json::array();
  read_config(folder, files);
  const JsonCursor config(files.config, files.config_file);
  const JsonCursor kind = config["tokenizer_class"];
  const std::string name = kind.text_or("");
  const bool is_qwen2 = name == "Qwen2Tokenizer" || name == "Qwen2TokenizerFast";
  if (!is_qwen2 && name != "GPT2Tokenizer" && name != "GPT2TokenizerFast") {
    kind.refuse("GPT2Tokenizer or Qwen2Tokenizer beside vocab.json and merges.txt, or a tokenizer.json");
  }
  Json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", !is_qwen2}};
  if (is_qwen2) {
    files.document["normalizer"] = {{"type", "NFC"}};
    const Json split = {{"type", "Split"},
                        {"pattern", {{"Regex", qwen2_pattern}}},
                        {"behavior", "Isolated"},
                        {"invert", false}};
    files.document["pre_tokenizer"] = {{"type", "Sequence"},
                                       {"pretokenizers", Json::array({split, std::move(byte_level)})}};
  } else {
    files.document["pre_tokenizer"] = std::move(byte_level);
  }
  files.document["decoder"] = {{"type", "ByteLevel"}};
  Json merges = Json::array();
  const std::string file = folder.at("merges.txt");
  const std::string text = read_file(file, file_limit);
  for (std::string_view rest = text; !rest.empty();) {
    std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty()) merges.push_back(line);
  }
  files.document["model"] = {
      {"type", "BPE"}, {"vocab", read_json_file(folder.at("vocab.json"))}, {"merges", std::move(merges)}};
  apply_config(files, /*adds_bos=*/false);
}

void read_tokenizer_json(const Folder* folder, TokenizerFiles& files) {
  files.document = read_json_file(files.file);
  if (folder == nullptr) return;
  if (folder->has("tokenizer_config.json")) {
    files.config = read_json_file(files.config_file);
    const JsonCursor config(files.config, files.config_file);
    apply_tokenizer_config(config, files.document, files.file);
    files.bos = named_token(config, "bos_token");
    files.eos = named_token(config, "eos_token");
  }
  for (const char* name : {"added_tokens.json", "special_tokens_map.json"}) {
    if (files.config.contains("added_tokens_decoder") || !folder->has(name)) continue;
    const std::string file = folder->at(name);
    const Json names = read_json_file(file);
    const JsonCursor cursor(names, file);
    check_older_file(cursor, files.document);
    if (name != std::string_view("special_tokens_map.json")) continue;
    if (!files.bos) files.bos = named_token(cursor, "bos_token");
    if (!files.eos) files.eos = named_token(cursor, "eos_token");
  }
}

}  // namespace

TokenizerFiles read_tokenizer_files(const std::string& path) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) {
    TokenizerFiles files{.file = path, .document = {}, .config_file = ""};
    if (path.ends_with(".tiktoken")) refuse_tiktoken(path);
    path.ends_with(".model") ? read_sentencepiece(nullptr, files) : read_tokenizer_json(nullptr, files);
    return files;
  }
  const Folder folder(path);
  TokenizerFiles files{.file = "", .document = {}, .config_file = folder.at("tokenizer_config.json")};
  if (folder.has("tokenizer.json")) {
    files.file = folder.at("tokenizer.json");
    read_tokenizer_json(&folder, files);
  } else if (folder.has("tokenizer.model")) {
    files.file = folder.at("tokenizer.model");
    read_sentencepiece(&folder, files);
  } else if (folder.has("vocab.json") && folder.has("merges.txt")) {
    files.file = folder.at("vocab.json, merges.txt");
    read_vocabulary_and_merges(folder, files);
  } else if (const auto tiktoken = folder.tiktoken()) {
    refuse_tiktoken(folder.at(tiktoken->c_str()));
  } else {
    throw InputError(
        "{} has no tokenizer; expected a tokenizer.json, a tokenizer.model, or a vocab.json with a "
        "merges.txt",
        path);
  }
  return files;
}

std::string hash_of(const TokenizerFiles& files) {
  Json document = files.document;
  for (const char* unused : {"truncation", "padding"}) document.erase(unused);
  return sha256_of(bytes_of(document.dump()));
}

}  // namespace mezzo
