#include "mezzo/data/tokenizer.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/core/utf8.h"
#include "mezzo/data/tokenizer_json.h"
#include "mezzo/io/json_file.h"

namespace mezzo {
namespace {

class ByteLevelTokenizer final : public Tokenizer {
 public:
  explicit ByteLevelTokenizer(TokenizerParts parts) : parts_(std::move(parts)) {}

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
  TokenizerParts parts_;
};

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
  const std::string name = file.string();
  return std::make_unique<ByteLevelTokenizer>(read_tokenizer_json(read_json_file(name), name));
}

}  // namespace mezzo
