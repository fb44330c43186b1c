#pragma once
// Which of the formats that data files come in a file has.
#include <string>

#include "mezzo/core/config.h"

namespace mezzo {

/// The format of a data file, compressed or not: never `automatic`. Content decides, and where it cannot (one
/// JSON object alone, a text that is no JSON), the name's extension. InputError that says what the file is
/// when it is in no format that is read, or not in the one `asked` for; an empty file is one too.
DataFormat format_of(const std::string& path, DataFormat asked);

}  // namespace mezzo
