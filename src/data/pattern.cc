#include "mezzo/data/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <new>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/data/pattern_syntax.h"
#include "mezzo/data/utf8.h"

namespace mezzo {
namespace {

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());  // cuts a longer message: no reason to fail
  return reinterpret_cast<const char*>(text.data());
}

PCRE2_SPTR code_units(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

template <auto function>
struct Free {
  template <typename T>
  void operator()(T* pointer) const {
    function(pointer);
  }
};
using Code = std::unique_ptr<pcre2_code, Free<pcre2_code_free>>;
using CompileContext = std::unique_ptr<pcre2_compile_context, Free<pcre2_compile_context_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Free<pcre2_match_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>>;

template <typename Pointer>
Pointer checked(Pointer pointer) {
  if (!pointer) throw std::bad_alloc();
  return pointer;
}

std::uint32_t saturated(std::uint64_t value) {
  return static_cast<std::uint32_t>(
      std::min<std::uint64_t>(value, std::numeric_limits<std::uint32_t>::max()));
}

}  // namespace

struct Pattern::Compiled {
  Compiled(const std::string& pcre2, std::uint32_t options, std::string place, Engine engine)
      : where(std::move(place)) {
    CompileContext context = checked(CompileContext(pcre2_compile_context_create(nullptr)));
    pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
    int error = 0;
    PCRE2_SIZE offset = 0;
    code.reset(
        pcre2_compile(code_units(pcre2), pcre2.size(), options | PCRE2_UTF, &error, &offset, context.get()));
    if (!code) throw InputError("{}: the pattern does not compile: {}", where, pcre2_message(error));
    if (engine == Engine::interpreter) return;
    const int status = pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
    // Without a compiler in the library, or executable memory from the system, the interpreter does it.
    if (status != 0 && status != PCRE2_ERROR_JIT_BADOPTION && status != PCRE2_ERROR_NOMEMORY) {
      throw InputError("{}: the pattern does not compile to machine code: {}", where, pcre2_message(status));
    }
  }

  std::string where;
  Code code;
};

Pattern::Pattern(std::unique_ptr<Compiled> compiled) : compiled_(std::move(compiled)) {}
Pattern::Pattern(std::string_view oniguruma, std::string where, Engine engine)
    : Pattern(std::make_unique<Compiled>(translate_pattern(oniguruma, where), PCRE2_UCP, where, engine)) {}
Pattern Pattern::literal(std::string_view text, std::string where) {
  return Pattern(
      std::make_unique<Compiled>(std::string(text), PCRE2_LITERAL, std::move(where), Engine::compiled));
}
Pattern::Pattern(Pattern&&) noexcept = default;
Pattern& Pattern::operator=(Pattern&&) noexcept = default;
Pattern::~Pattern() = default;

struct PatternSearch::State {
  MatchContext context = checked(MatchContext(pcre2_match_context_create(nullptr)));
  MatchData match = checked(MatchData(pcre2_match_data_create(1, nullptr)));
};

PatternSearch::PatternSearch(const Pattern& pattern, std::string_view text)
    : pattern_(*pattern.compiled_), text_(text), state_(std::make_unique<State>()) {
  // A pattern of a tokenizer needs a few steps a character; one that would need far more is stopped.
  const std::uint64_t steps = 1'000'000 + 64 * std::uint64_t{text.size()};
  const std::uint64_t kibibytes = 65'536 + std::uint64_t{text.size()} / 4;
  pcre2_set_match_limit(state_->context.get(), saturated(steps));
  pcre2_set_depth_limit(state_->context.get(), saturated(steps));
  pcre2_set_heap_limit(state_->context.get(), saturated(kibibytes));
}

PatternSearch::~PatternSearch() = default;

bool PatternSearch::next() {
  std::size_t from = end_;
  while (from <= text_.size()) {
    const auto match = [&](std::uint32_t options) {
      // The text was checked once: checking at every call would take quadratic time.
      return pcre2_match(pattern_.code.get(), code_units(text_), text_.size(), from,
                         options | PCRE2_NO_UTF_CHECK, state_->match.get(), state_->context.get());
    };
    int status = match(0);
    if (status == PCRE2_ERROR_JIT_STACKLIMIT)
      status = match(PCRE2_NO_JIT);  // that one's stack is on the heap
    if (status == PCRE2_ERROR_NOMATCH) return false;
    if (status < 0) {
      throw InputError("{}: the pattern cannot be matched from byte {} of a text of {} bytes: {}",
                       pattern_.where, from, text_.size(), pcre2_message(status));
    }
    const PCRE2_SIZE* place = pcre2_get_ovector_pointer(state_->match.get());
    if (place[0] == place[1] && matched_ && place[1] == end_) {
      if (from == text_.size()) return false;
      from += first_code_point(text_.substr(from)).size;
      continue;
    }
    begin_ = place[0];
    end_ = place[1];
    matched_ = true;
    return true;
  }
  return false;
}

}  // namespace mezzo
