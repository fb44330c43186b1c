#pragma once
// Text to token ids and back, as a model's tokenizer.json says.
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mezzo {

/// A model's tokenizer. Immutable: one may serve several threads.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// The ids of `text`, which must be UTF-8 (else InputError with the offset of the first bad byte).
  /// `with_special` puts the post-processor's tokens around them; added tokens that are written in the text
  /// are recognised either way, as Hugging Face does.
  virtual std::vector<std::int32_t> encode(std::string_view text, bool with_special) const = 0;

  /// The bytes that the ids stand for, nothing added, dropped or cleaned: special tokens are their text, and
  /// ids that cut a character give a part of it. InputError for an id that is not in the vocabulary.
  virtual std::string decode(std::span<const std::int32_t> ids) const = 0;

  /// The token that the post-processor puts first, if it puts one there.
  virtual std::optional<std::int32_t> start_token() const = 0;

  /// One more than the largest id, added tokens included.
  virtual std::int64_t vocabulary_size() const = 0;
};

/// Reads a tokenizer.json, or the one in a model's directory. What this version does not serve is an
/// InputError that names the file and the field.
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path);

}  // namespace mezzo
