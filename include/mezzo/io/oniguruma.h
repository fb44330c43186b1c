#pragma once
// What every user of Oniguruma needs: its start, its memory and its messages in C++. A header for .cc files
// that call the library themselves.
#define ONIG_ESCAPE_UCHAR_COLLISION
#include <oniguruma.h>

#include <array>
#include <new>
#include <string>
#include <string_view>

namespace mezzo::oniguruma {

/// The library asks to be told of its encodings once a process. Limits how deep groups nest. Error when it
/// cannot start. To be called before a pattern is compiled.
void initialize();

inline const OnigUChar* begin_of(std::string_view text) {
  return reinterpret_cast<const OnigUChar*>(text.data());
}
inline const OnigUChar* end_of(std::string_view text) { return begin_of(text) + text.size(); }

/// The library's text for what a call returned. `info` belongs to errors of a pattern.
template <typename... Info>
std::string message_of(int code, Info*... info) {
  std::array<OnigUChar, ONIG_MAX_ERROR_MESSAGE_LEN> text{};
  const int length = onig_error_code_to_str(text.data(), code, info...);
  return {reinterpret_cast<const char*>(text.data()), static_cast<std::size_t>(length)};
}

template <typename Pointer>
Pointer checked(Pointer pointer) {
  if (!pointer) throw std::bad_alloc();
  return pointer;
}

struct FreeRegion {
  void operator()(OnigRegion* region) const { onig_region_free(region, /*free_self=*/1); }
};
struct FreeMatchParam {
  void operator()(OnigMatchParam* param) const { onig_free_match_param(param); }
};

}  // namespace mezzo::oniguruma
