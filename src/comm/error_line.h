#pragma once
#include <string>

namespace mezzo {

/// Writes "mezzo: error: message" to standard error as one line and in one piece, so that it does not mix
/// with what other ranks write.
void write_error_line(const std::string& message);
/// The same before this process ends: waits for the line to get through the launcher, which may leave in a
/// hurry once it has seen a status.
void write_last_error_line(const std::string& message);

}  // namespace mezzo
