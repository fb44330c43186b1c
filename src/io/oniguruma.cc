#include "mezzo/io/oniguruma.h"

#include "mezzo/core/error.h"

namespace mezzo::oniguruma {

void initialize() {
  // The parser calls itself for each nested group: the default of 4096 levels needs more stack than `ulimit
  // -s` may leave.
  constexpr unsigned max_levels = 256;
  static const int status = [] {
    OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
    const int initialized = onig_initialize(encodings, 1);
    return initialized == ONIG_NORMAL ? onig_set_parse_depth_limit(max_levels) : initialized;
  }();
  if (status != ONIG_NORMAL) throw Error("Oniguruma cannot start: {}", message_of(status));
}

}  // namespace mezzo::oniguruma
