#pragma once
// Text to token ids and back, as a model's tokenizer files say.
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

  /// The ids of a text that goes on where another ended: without special tokens, and without the space mark
  /// that some tokenizers put before a text.
  virtual std::vector<std::int32_t> encode_continuation(std::string_view text) const {
    return encode(text, false);
  }

  /// The bytes that the ids stand for, nothing added, dropped or cleaned: special tokens are their text, and
  /// ids that cut a character give a part of it. InputError for an id that is not in the vocabulary.
  virtual std::string decode(std::span<const std::int32_t> ids) const = 0;

  /// The token that the post-processor puts first, if it puts one there.
  virtual std::optional<std::int32_t> start_token() const = 0;

  /// One more than the largest id, added tokens apart.
  virtual std::int64_t vocabulary_size() const = 0;
};

/// Reads a model's directory: its tokenizer.json, with what tokenizer_config.json adds to it
/// (docs/tokenizers.md); or a tokenizer.json by itself. What this version does not serve is an InputError
/// that names the file and the field. With `model_vocabulary`, the number of ids that the model has, encode()
/// and this function throw an InputError for an id beyond it. `hash`, unless null, gets the tokenizer_hash()
/// of what was read.
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& path,
                                          std::optional<std::int64_t> model_vocabulary = std::nullopt,
                                          std::string* hash = nullptr);

/// SHA-256, in hexadecimal, of what decides the ids of the tokenizer that load_tokenizer() reads from there:
/// tokenizer.json without `truncation` and `padding`, as tokenizer_config.json changes it. The layout of the
/// files, the order of their keys and keys that change nothing do not count.
std::string tokenizer_hash(const std::string& path);

}  // namespace mezzo
