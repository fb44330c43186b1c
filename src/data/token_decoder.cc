#include "mezzo/data/token_decoder.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>

#include "mezzo/core/utf8.h"
#include "mezzo/data/byte_fallback.h"
#include "mezzo/data/byte_level.h"

namespace mezzo {
namespace {

using Tokens = std::vector<TokenDecoder::Token>;

std::string replace_all(std::string_view text, std::string_view what, std::string_view content) {
  std::string replaced;
  std::size_t end = 0;
  for (std::size_t at; (at = text.find(what, end)) != std::string_view::npos; end = at + what.size()) {
    replaced += text.substr(end, at - end);
    replaced += content;
  }
  return replaced += text.substr(end);
}

void apply(TokenDecoder::ByteLevel, Tokens& tokens) {
  for (TokenDecoder::Token& token : tokens) {
    if (token.is_added) continue;
    if (auto bytes = byte_level_bytes(token.text)) token.text = std::move(*bytes);
  }
}

void apply(TokenDecoder::ByteFallback, Tokens& tokens) {
  Tokens fused;
  bool in_bytes = false;
  for (TokenDecoder::Token& token : tokens) {
    const auto byte = byte_of_fallback(token.text);
    if (byte && in_bytes) {
      fused.back().text += static_cast<char>(*byte);
    } else if (byte) {
      fused.push_back({std::string(1, static_cast<char>(*byte))});
    } else {
      fused.push_back(std::move(token));
    }
    in_bytes = byte.has_value();
  }
  tokens = std::move(fused);
}

void apply(TokenDecoder::Fuse, Tokens& tokens) {
  std::string text;
  for (const TokenDecoder::Token& token : tokens) text += token.text;
  tokens.assign(1, {std::move(text)});
}

void apply(const TokenDecoder::Strip& strip, Tokens& tokens) {
  for (TokenDecoder::Token& token : tokens) {
    std::string_view rest = token.text;
    for (std::size_t i = 0; i < strip.start && rest.starts_with(strip.character); ++i)
      rest.remove_prefix(strip.character.size());
    for (std::size_t i = 0; i < strip.stop && rest.ends_with(strip.character); ++i)
      rest.remove_suffix(strip.character.size());
    token.text = std::string(rest);
  }
}

void apply(const TokenDecoder::Replace& step, Tokens& tokens) {
  for (TokenDecoder::Token& token : tokens) token.text = replace(step.pattern, token.text, step.content);
}

void apply(const TokenDecoder::Metaspace& metaspace, Tokens& tokens) {
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const bool drops = i == 0 && metaspace.drops_first;
    tokens[i].text = replace_all(tokens[i].text, metaspace.mark, drops ? "" : " ");
  }
}

void apply(const TokenDecoder::WordPiece& step, Tokens& tokens) {
  constexpr std::pair<std::string_view, std::string_view> cleanings[] = {
      {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
      {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    std::string& text = tokens[i].text;
    if (i > 0) text = text.starts_with(step.prefix) ? text.substr(step.prefix.size()) : ' ' + text;
    if (!step.cleans_up) continue;
    for (const auto& [what, content] : cleanings) text = replace_all(text, what, content);
  }
}

void apply(const TokenDecoder::WordEnd& step, Tokens& tokens) {
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens[i].text = replace_all(tokens[i].text, step.suffix, i + 1 == tokens.size() ? "" : " ");
  }
}

/// Whether a Metaspace pre-tokenizer with the same fields puts marks before texts.
bool prepends(const JsonCursor& field) {
  const JsonCursor scheme = field["prepend_scheme"];
  if (scheme.is_unset()) return field["add_prefix_space"].boolean_or(true);
  if (scheme.text() != "always" && scheme.text() != "first" && scheme.text() != "never") {
    scheme.fail("always, first or never");
  }
  return scheme.text() != "never";
}

std::string text_not_empty(const JsonCursor& field, std::string_view expected) {
  if (field.text().empty()) field.fail(expected);
  return field.text();
}

}  // namespace

std::string TokenDecoder::decode(std::vector<Token> tokens) const {
  for (const Step& step : steps_) {
    std::visit([&](const auto& known) { apply(known, tokens); }, step);
  }
  std::string text;
  for (const Token& token : tokens) text += token.text;
  return text;
}

bool TokenDecoder::has_byte_level() const {
  return std::ranges::any_of(steps_,
                             [](const Step& step) { return std::holds_alternative<ByteLevel>(step); });
}

TokenDecoder TokenDecoder::read(const JsonCursor& field) {
  TokenDecoder decoder;
  decoder.read_step(field);
  return decoder;
}

void TokenDecoder::read_step(const JsonCursor& field) {
  constexpr std::string_view served =
      "ByteLevel, ByteFallback, Fuse, Strip, Replace, Metaspace, WordPiece, BPEDecoder or a Sequence of "
      "these";
  if (field.is_unset()) field.refuse(served);
  const std::string type = field["type"].text();
  if (type == "Sequence") {
    for (const JsonCursor& element : field["decoders"].elements()) read_step(element);
  } else if (type == "ByteLevel") {
    steps_.emplace_back(ByteLevel{});
  } else if (type == "ByteFallback") {
    steps_.emplace_back(ByteFallback{});
  } else if (type == "Fuse") {
    steps_.emplace_back(Fuse{});
  } else if (type == "Strip") {
    constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
    steps_.emplace_back(Strip{text_not_empty(field["content"], "a character"),
                              static_cast<std::size_t>(field["start"].integer(0, most)),
                              static_cast<std::size_t>(field["stop"].integer(0, most))});
  } else if (type == "Replace") {
    steps_.emplace_back(Replace{Pattern::read(field["pattern"]), field["content"].text()});
  } else if (type == "Metaspace") {
    steps_.emplace_back(Metaspace{text_not_empty(field["replacement"], "a character"), prepends(field)});
  } else if (type == "WordPiece") {
    steps_.emplace_back(WordPiece{field["prefix"].text(), field["cleanup"].boolean()});
  } else if (type == "BPEDecoder") {
    steps_.emplace_back(WordEnd{text_not_empty(field["suffix"], "a text that is not empty")});
  } else {
    field.refuse(served);
  }
}

}  // namespace mezzo
