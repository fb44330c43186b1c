#pragma once
// JSON from files that nobody has vouched for: strict RFC 8259, with limits on size and depth, and with
// duplicate keys refused (two readers of one text must never see two meanings).
#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace mezzo {

inline constexpr int max_json_depth = 100;  ///< nested objects and arrays
inline constexpr std::uint64_t max_json_bytes = std::uint64_t{1}
                                                << 30;  ///< of a file; far above any tokenizer.json

/// The value written in `text`, which stands in `path` from line `first_line` on. Throws InputError
/// "PATH:LINE:COLUMN: ..." (columns are bytes, from 1) for anything but one JSON value in UTF-8, for an
/// object with the same key twice, and for more than max_json_depth levels.
nlohmann::json parse_json(std::string_view text, const std::string& path, std::size_t first_line = 1);

/// The value in a regular file of at most `max_bytes`. Throws as parse_json() and read_file() do.
nlohmann::json read_json_file(const std::string& path, std::uint64_t max_bytes = max_json_bytes);

/// A name from a file, fit for a message: in double quotes, on one line, control characters and broken UTF-8
/// escaped, cut after about 100 bytes.
std::string quote(std::string_view text);

}  // namespace mezzo
