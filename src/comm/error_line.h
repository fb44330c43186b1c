#pragma once
#include <string>

namespace mezzo {

/// Writes "mezzo: error: message" to standard error as one line and in one piece, so that it does not mix
/// with what other ranks write.
void write_error_line(const std::string& message);

}  // namespace mezzo
