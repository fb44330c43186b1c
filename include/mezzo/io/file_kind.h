#pragma once
// What a file is by its content, for the messages of readers that expected something else.
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace mezzo {

struct FileKind {
  std::string name;    ///< with its article, "a safetensors file"
  std::string advice;  ///< what to do about it, or ""
};

inline constexpr std::size_t file_kind_bytes = 4096;  ///< of a file's head: enough to tell its kind

/// By the first bytes of a file; nothing for what could be a text in UTF-8.
std::optional<FileKind> file_kind(std::string_view head);
/// Of a folder, by what is in it.
FileKind folder_kind(const std::string& path);

inline constexpr std::string_view parquet_magic = "PAR1";
inline constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";  ///< of UTF-8

}  // namespace mezzo
