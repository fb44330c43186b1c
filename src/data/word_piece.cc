#include "mezzo/data/word_piece.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "mezzo/core/utf8.h"

namespace mezzo {

WordPiece::WordPiece(Vocabulary vocabulary, std::int32_t unknown, std::string prefix,
                     std::size_t longest_word)
    : vocabulary_(std::move(vocabulary)),
      unknown_(unknown),
      prefix_(std::move(prefix)),
      longest_word_(longest_word),
      longest_token_(0) {
  for (const auto& entry : vocabulary_.ids()) longest_token_ = std::max(longest_token_, entry.first.size());
}

WordPiece WordPiece::read(const JsonCursor& model, Vocabulary vocabulary) {
  const auto unknown = vocabulary.find(model["unk_token"].text());
  if (!unknown) model["unk_token"].fail("a token of model.vocab");
  const std::int64_t longest =
      model["max_input_chars_per_word"].integer(0, std::numeric_limits<std::int32_t>::max());
  return {std::move(vocabulary), *unknown, model["continuing_subword_prefix"].text(),
          static_cast<std::size_t>(longest)};
}

void WordPiece::encode(std::string_view piece, Workspace& workspace, std::vector<std::int32_t>& ids) const {
  const auto characters = std::ranges::count_if(piece, [](char byte) { return !continues_character(byte); });
  if (static_cast<std::size_t>(characters) > longest_word_) return ids.push_back(unknown_);
  const std::size_t before = ids.size();
  for (std::size_t start = 0; start < piece.size();) {
    std::size_t end = std::min(piece.size(), start + longest_token_);
    while (end < piece.size() && continues_character(piece[end])) --end;
    for (; end > start; end -= last_code_point(piece.substr(0, end)).size) {
      workspace.text = start > 0 ? prefix_ : "";
      workspace.text += piece.substr(start, end - start);
      if (const auto id = vocabulary_.find(workspace.text)) {
        ids.push_back(*id);
        break;
      }
    }
    if (end <= start) {
      ids.resize(before);
      return ids.push_back(unknown_);
    }
    start = end;
  }
}

}  // namespace mezzo
