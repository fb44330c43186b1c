#include "mezzo/data/pattern.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/core/utf8.h"
#include "mezzo/io/oniguruma.h"

namespace mezzo {

using oniguruma::begin_of;
using oniguruma::checked;
using oniguruma::end_of;
using oniguruma::FreeMatchParam;
using oniguruma::FreeRegion;

std::string pattern_library() { return fmt::format("Oniguruma {}", onig_version()); }

struct Pattern::Compiled {
  Compiled(std::string_view source, OnigSyntaxType* syntax, std::string place) : where(std::move(place)) {
    if (const auto bad = find_invalid_utf8(source)) {
      throw InputError("{}: the pattern is not valid UTF-8 at byte {}", where, *bad);
    }
    oniguruma::initialize();
    OnigErrorInfo info{};
    const int status = onig_new(&regex, begin_of(source), end_of(source), ONIG_OPTION_NONE,
                                ONIG_ENCODING_UTF8, syntax, &info);
    if (status != ONIG_NORMAL) {
      throw InputError("{}: the pattern does not compile: {}", where, oniguruma::message_of(status, &info));
    }
  }
  Compiled(const Compiled&) = delete;
  Compiled& operator=(const Compiled&) = delete;
  ~Compiled() { onig_free(regex); }

  std::string where;
  OnigRegex regex = nullptr;
};

Pattern::Pattern(std::unique_ptr<Compiled> compiled) : compiled_(std::move(compiled)) {}
Pattern::Pattern(std::string_view source, std::string where)
    : Pattern(std::make_unique<Compiled>(source, ONIG_SYNTAX_ONIGURUMA, std::move(where))) {}
Pattern Pattern::literal(std::string_view text, std::string where) {
  return Pattern(std::make_unique<Compiled>(text, ONIG_SYNTAX_ASIS, std::move(where)));
}
Pattern Pattern::read(const JsonCursor& field) {
  const JsonCursor regex = field["Regex"];
  const JsonCursor text = field["String"];
  if (regex.is_unset() == text.is_unset()) field.fail("either Regex or String in it");
  const JsonCursor& source = regex.is_unset() ? text : regex;
  if (source.text().empty()) source.fail("a pattern that is not empty");
  return regex.is_unset() ? literal(source.text(), source.where()) : Pattern(source.text(), source.where());
}
Pattern::Pattern(Pattern&&) noexcept = default;
Pattern& Pattern::operator=(Pattern&&) noexcept = default;
Pattern::~Pattern() = default;

int Pattern::groups() const { return onig_number_of_captures(compiled_->regex); }

struct PatternSearch::State {
  std::unique_ptr<OnigRegion, FreeRegion> region{checked(onig_region_new())};
  std::unique_ptr<OnigMatchParam, FreeMatchParam> limits{checked(onig_new_match_param())};
};

PatternSearch::PatternSearch(const Pattern& pattern, std::string_view text)
    : pattern_(*pattern.compiled_), text_(text), state_(std::make_unique<State>()) {
  // The library's offsets are of the type int.
  if (text.size() > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    throw InputError("{}: the pattern cannot be matched in a text of {} bytes; expected less than 2 GiB",
                     pattern_.where, text.size());
  }
  // The engine reads a character's length from its first byte, and would read beyond the end.
  if (const auto bad = find_invalid_utf8(text)) {
    throw InputError("{}: the text is not valid UTF-8 at byte {}", pattern_.where, *bad);
  }
  // A pattern of a tokenizer needs a few steps a character; one that would need far more is stopped.
  const std::size_t steps = 1'000'000 + 64 * text.size();
  const std::size_t places = 1'000'000 + 6 * text.size();
  OnigMatchParam* limits = state_->limits.get();
  onig_set_retry_limit_in_match_of_match_param(limits, steps);
  onig_set_retry_limit_in_search_of_match_param(limits, steps);
  onig_set_match_stack_limit_size_of_match_param(
      limits, static_cast<unsigned>(std::min<std::size_t>(places, std::numeric_limits<unsigned>::max())));
}

PatternSearch::~PatternSearch() = default;

bool PatternSearch::next() {
  std::size_t from = end_;
  while (from <= text_.size()) {
    const OnigUChar* begin = begin_of(text_);
    const OnigUChar* end = end_of(text_);
    const int status = onig_search_with_param(pattern_.regex, begin, end, begin + from, end,
                                              state_->region.get(), ONIG_OPTION_NONE, state_->limits.get());
    if (status == ONIG_MISMATCH) return false;
    if (status < 0) {
      throw InputError("{}: the pattern cannot be matched from byte {} of a text of {} bytes: {}",
                       pattern_.where, from, text_.size(), oniguruma::message_of(status));
    }
    const auto match_begin = static_cast<std::size_t>(state_->region->beg[0]);
    const auto match_end = static_cast<std::size_t>(state_->region->end[0]);
    if (match_begin == match_end && matched_ && match_end == end_) {
      if (from == text_.size()) return false;
      from += first_code_point(text_.substr(from)).size;
      continue;
    }
    begin_ = match_begin;
    end_ = match_end;
    matched_ = true;
    return true;
  }
  return false;
}

std::optional<std::string_view> PatternSearch::group(int number) const {
  const int begin = state_->region->beg[number];
  if (begin == ONIG_REGION_NOTPOS) return std::nullopt;
  const auto size = static_cast<std::size_t>(state_->region->end[number] - begin);
  return text_.substr(static_cast<std::size_t>(begin), size);
}

std::string replace(const Pattern& pattern, std::string_view text, std::string_view content) {
  std::string replaced;
  std::size_t end = 0;
  for (PatternSearch search(pattern, text); search.next(); end = search.end()) {
    replaced += text.substr(end, search.begin() - end);
    replaced += content;
  }
  return replaced += text.substr(end);
}

}  // namespace mezzo
