#include "mezzo/data/added_tokens.h"

#include <algorithm>
#include <utility>

#include "mezzo/core/utf8.h"

namespace mezzo {
namespace {

std::size_t white_space_at_end(std::string_view text) {
  std::size_t begin = text.size();
  while (begin > 0) {
    const CodePoint c = last_code_point(text.substr(0, begin));
    if (!is_white_space(c.value)) break;
    begin -= c.size;
  }
  return text.size() - begin;
}

std::size_t white_space_at_start(std::string_view text) {
  std::size_t end = 0;
  while (end < text.size()) {
    const CodePoint c = first_code_point(text.substr(end));
    if (!is_white_space(c.value)) break;
    end += c.size;
  }
  return end;
}

}  // namespace

std::string sought_text(const AddedToken& token, const Normalizer& normalizer) {
  if (!token.normalized) return token.content;
  auto start = PieceStart::text;
  return normalizer.normalize(token.content, start);
}

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, Normalizer normalizer)
    : normalizer_(std::move(normalizer)) {
  for (AddedToken& token : tokens) token.content = sought_text(token, normalizer_);
  std::erase_if(tokens, [](const AddedToken& token) { return token.content.empty(); });
  std::ranges::stable_sort(tokens, {}, &AddedToken::content);
  for (AddedToken& token : tokens) {
    // Hugging Face asks Rust's regular expressions here, whose \w is that of Unicode's UTS 18, annex C.
    // Oniguruma's has no joiners and some numerals.
    if (token.single_word && !word_) {
      word_.emplace(R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}])", "added tokens");
    }
    Pass& pass = token.normalized ? normalized_ : verbatim_;
    pass.starts_token[static_cast<unsigned char>(token.content[0])] = true;
    pass.tokens.push_back(std::move(token));
  }
}

/// The longest token that `text` starts with.
const AddedToken* AddedTokens::Pass::longest_at(std::string_view text) const {
  if (!starts_token[static_cast<unsigned char>(text[0])]) return nullptr;
  const AddedToken* longest = nullptr;
  auto begin = tokens.begin();
  auto end = tokens.end();
  for (std::size_t depth = 0; depth < text.size(); ++depth) {
    // Of the tokens in [begin, end), which all start with the text's first `depth` bytes, those that go on
    // with its next one. The one that ends there comes first among them.
    const auto next = static_cast<unsigned char>(text[depth]);
    const auto byte = [depth](const AddedToken& token) {
      return depth < token.content.size() ? static_cast<int>(static_cast<unsigned char>(token.content[depth]))
                                          : -1;
    };
    begin = std::partition_point(begin, end, [&](const AddedToken& token) { return byte(token) < next; });
    end = std::partition_point(begin, end, [&](const AddedToken& token) { return byte(token) == next; });
    if (begin == end) break;
    if (begin->content.size() == depth + 1) longest = &*begin;
  }
  return longest;
}

bool AddedTokens::touches_word(std::string_view before, std::string_view after) const {
  const auto is_word = [&](std::string_view character) { return PatternSearch(*word_, character).next(); };
  return (!before.empty() && is_word(before.substr(before.size() - last_code_point(before).size))) ||
         (!after.empty() && is_word(after.substr(0, first_code_point(after).size)));
}

void AddedTokens::split(const Pass& pass, std::string_view text, PieceStart start, const OnText& on_text,
                        const OnToken& on_token) const {
  const auto give = [&](std::size_t begin, std::size_t end) {
    if (begin < end) on_text(text.substr(begin, end - begin), begin == 0 ? start : PieceStart::middle);
  };
  std::size_t taken = 0;  // the text up to here is given away
  std::size_t space_end =
      0;  // end of the last run of white space that rstrip went over: a run is walked once
  for (std::size_t at = 0; at < text.size();) {
    const AddedToken* token = pass.longest_at(text.substr(at));
    if (token == nullptr) {
      ++at;
      continue;
    }
    std::size_t begin = at;
    std::size_t end = at + token->content.size();
    at = end;
    if (token->single_word && touches_word(text.substr(0, begin), text.substr(end))) continue;
    if (token->lstrip && begin > taken) begin -= white_space_at_end(text.substr(taken, begin - taken));
    if (token->rstrip) {
      if (end >= space_end) space_end = end + white_space_at_start(text.substr(end));
      end = space_end;
    }
    give(taken, begin);
    on_token(token->id);
    taken = end;
  }
  give(taken, text.size());
}

void AddedTokens::split(std::string_view text, PieceStart start, const OnText& on_text,
                        const OnToken& on_token) const {
  split(
      verbatim_, text, start,
      [&](std::string_view piece, PieceStart place) {
        if (normalizer_.empty()) return split(normalized_, piece, place, on_text, on_token);
        const std::string normal = normalizer_.normalize(piece, place);
        split(normalized_, normal, place, on_text, on_token);
      },
      on_token);
}

}  // namespace mezzo
