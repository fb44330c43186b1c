#include "mezzo/data/tokenizer.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/core/utf8.h"
#include "mezzo/data/tokenizer_config.h"
#include "mezzo/data/tokenizer_json.h"
#include "mezzo/io/files.h"
#include "mezzo/io/json_cursor.h"
#include "mezzo/io/json_file.h"
#include "mezzo/io/sha256.h"

namespace mezzo {
namespace {

using Json = nlohmann::json;

namespace fs = std::filesystem;

/// The files of a tokenizer, read and put together.
struct Source {
  std::string file;  ///< the tokenizer.json
  Json document;     ///< as transformers reads it beside the other files
  std::string config_file;
  Json config = Json::object();  ///< tokenizer_config.json; empty without one
  std::optional<std::string> bos{};
  std::optional<std::string> eos{};
};

/// The added token with this text.
std::optional<NamedToken> added_token(const Json& document, const std::optional<std::string>& text) {
  if (!text) return std::nullopt;
  for (const Json& entry : document["added_tokens"]) {
    if (entry["content"] == *text) return NamedToken{entry["id"].get<std::int32_t>(), *text};
  }
  return std::nullopt;
}

Source read_source(const std::string& path) {
  std::error_code ignored;  // what cannot be looked at is reported when it is opened
  const bool is_directory = fs::is_directory(path, ignored);
  const auto in_directory = [&](const char* name) { return (fs::path(path) / name).string(); };
  const auto is_there = [&](const std::string& file) { return fs::exists(file, ignored); };
  Source source{.file = is_directory ? in_directory("tokenizer.json") : path,
                .document = {},
                .config_file = in_directory("tokenizer_config.json")};
  const std::string sentencepiece = is_directory ? in_directory("tokenizer.model") : path;
  const bool is_sentencepiece = fs::path(sentencepiece).filename() == "tokenizer.model";
  if (is_sentencepiece && (!is_directory || (!is_there(source.file) && is_there(sentencepiece)))) {
    throw InputError("{}: a SentencePiece tokenizer is not served yet; expected a tokenizer.json",
                     sentencepiece);
  }
  source.document = read_json_file(source.file);
  if (!is_directory) return source;
  if (is_there(source.config_file)) {
    source.config = read_json_file(source.config_file);
    const JsonCursor config(source.config, source.config_file);
    apply_tokenizer_config(config, source.document, source.file);
    source.bos = named_token(config, "bos_token");
    source.eos = named_token(config, "eos_token");
  }
  for (const char* name : {"added_tokens.json", "special_tokens_map.json"}) {
    const std::string file = in_directory(name);
    if (source.config.contains("added_tokens_decoder") || !is_there(file)) continue;
    const Json names = read_json_file(file);
    const JsonCursor cursor(names, file);
    check_older_file(cursor, source.document);
    if (name != std::string_view("special_tokens_map.json")) continue;
    if (!source.bos) source.bos = named_token(cursor, "bos_token");
    if (!source.eos) source.eos = named_token(cursor, "eos_token");
  }
  return source;
}

/// The tokenizer_hash() of a document that read_source() has put together.
std::string hash_of(Json document) {
  for (const char* unused : {"truncation", "padding"}) document.erase(unused);
  return sha256_of(bytes_of(document.dump()));
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path,
                                          std::optional<std::int64_t> model_vocabulary, std::string* hash) {
  Source source = read_source(path);
  PipelineParts parts = read_tokenizer_json(source.document, source.file);
  check_start_and_end(JsonCursor(source.config, source.config_file), parts, source.file);
  parts.bos = added_token(source.document, source.bos);
  parts.eos = added_token(source.document, source.eos);
  if (hash != nullptr) *hash = hash_of(std::move(source.document));
  return std::make_unique<PipelineTokenizer>(std::move(parts), model_vocabulary);
}

std::string tokenizer_hash(const std::string& path) { return hash_of(read_source(path).document); }

}  // namespace mezzo
