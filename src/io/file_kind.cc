#include "mezzo/io/file_kind.h"

#include <algorithm>
#include <array>
#include <cstdint>

#include "mezzo/core/utf8.h"
#include "mezzo/io/files.h"

namespace mezzo {
namespace {

using namespace std::string_view_literals;

struct Magic {
  std::size_t offset;
  std::string_view bytes;
  const char* name;
  const char* advice;
};

constexpr const char* decompress = "decompress it first";
constexpr const char* extract = "take the data file out of it";
constexpr const char* save_in_utf8 = "save it in UTF-8 (iconv -f UTF-16 -t UTF-8)";
constexpr const char* save_table = "save it as CSV";
constexpr const char* save_arrow = "save it as Parquet or JSON lines with pyarrow or datasets";

// Of files that are no text; the first that fits counts.
constexpr std::array magics = {
    Magic{0, "\x1f\x8b"sv, "a gzip file", decompress},
    Magic{0, "\x28\xb5\x2f\xfd"sv, "a zstd file", decompress},
    Magic{0, "\xfd\x37zXZ\0"sv, "an xz file", decompress},
    Magic{0, "BZh"sv, "a bzip2 file", decompress},
    Magic{0, "\x04\x22\x4d\x18"sv, "an lz4 file", decompress},
    Magic{0, "7z\xbc\xaf\x27\x1c"sv, "a 7z archive", extract},
    Magic{0, "Rar!\x1a\x07"sv, "a RAR archive", extract},
    Magic{257, "ustar"sv, "a tar archive", extract},
    Magic{30, "[Content_Types].xml"sv, "an Excel workbook or another Office file", save_table},
    Magic{0, "PK\x03\x04"sv,
          "a ZIP archive (Excel's .xlsx, PyTorch's .pt and NumPy's .npz are ZIP archives too)", extract},
    Magic{0, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"sv, "an old Excel workbook or another Office file",
          save_table},
    Magic{0, parquet_magic, "a Parquet file", ""},
    Magic{0, "ARROW1"sv, "an Arrow IPC (Feather) file", save_arrow},
    Magic{0, "\xff\xff\xff\xff"sv, "an Arrow IPC stream", save_arrow},
    Magic{0, "ORC"sv, "an ORC file", "save it as Parquet"},
    Magic{0, "Obj\x01"sv, "an Avro file", "save it as Parquet or JSON lines"},
    Magic{0, "\x89HDF\r\n\x1a\n"sv, "an HDF5 file", ""},
    Magic{0, "\x93NUMPY"sv, "a NumPy array", ""},
    Magic{0, "GGUF"sv, "a GGUF model", ""},
    Magic{0, "SQLite format 3\0"sv, "an SQLite database", "save the table as CSV"},
    Magic{0, "\xff\xfe\0\0"sv, "a text in UTF-32", "save it in UTF-8"},
    Magic{0, "\0\0\xfe\xff"sv, "a text in UTF-32", "save it in UTF-8"},
    Magic{0, "\xff\xfe"sv, "a text in UTF-16", save_in_utf8},
    Magic{0, "\xfe\xff"sv, "a text in UTF-16", save_in_utf8},
};

/// Whether the head of a file could be UTF-8 without control characters that no text has; its last character
/// may be cut.
bool is_text(std::string_view head) {
  const auto broken = find_invalid_utf8(head);
  return head.find('\0') == head.npos && head.find('\1') == head.npos &&
         (!broken || (*broken + 4 > head.size() && head.size() >= file_kind_bytes));
}

/// A safetensors file begins with the length of its JSON header.
bool is_safetensors(std::string_view head) {
  if (head.size() < 10 || head.substr(8, 2) != "{\"") return false;
  std::uint64_t length = 0;
  for (std::size_t i = 8; i-- > 0;) length = length << 8 | static_cast<unsigned char>(head[i]);
  return length < std::uint64_t{100} << 20;
}

/// Pickle's protocols 2 to 5: PROTO, the number, and a frame or the start of a list, dict, tuple or object.
bool is_pickle(std::string_view head) {
  return head.size() > 2 && head[0] == '\x80' && head[1] >= 2 && head[1] <= 5 &&
         "\x95]}(c\x8c\x8aN"sv.find(head[2]) != std::string_view::npos;
}

/// Of a text that is no data.
std::optional<FileKind> text_kind(std::string_view head) {
  if (head.starts_with("version https://git-lfs.github.com/spec/"))
    return FileKind{"a Git LFS pointer", "fetch the file with git lfs pull"};
  if (head.starts_with("%PDF-")) return FileKind{"a PDF", ""};
  if (head.starts_with(byte_order_mark)) head.remove_prefix(byte_order_mark.size());
  const std::size_t begin = head.find_first_not_of(" \t\r\n");
  if (begin == head.npos) return std::nullopt;
  const std::string start = ascii_lower(head.substr(begin, 64));
  if (start.starts_with("<!doctype html") || start.starts_with("<html"))
    return FileKind{"an HTML page", "was a download redirected?"};
  if (start.starts_with("<?xml")) return FileKind{"an XML file", "was a download refused?"};
  return std::nullopt;
}

}  // namespace

std::optional<FileKind> file_kind(std::string_view head) {
  if (is_text(head)) return text_kind(head);
  for (const Magic& magic : magics) {
    if (head.size() >= magic.offset && head.substr(magic.offset).starts_with(magic.bytes))
      return FileKind{magic.name, magic.advice};
  }
  if (is_safetensors(head)) return FileKind{"a safetensors file", ""};
  if (is_pickle(head)) return FileKind{"a Python pickle", "save it as JSON lines"};
  if (head.find('\0') == head.npos)
    return std::nullopt;  // a text in Latin-1, say: its reader names the place
  // Without a byte order mark, UTF-16 shows itself by a NUL in every other place.
  const auto pattern = [&](char first, char second) {
    return head.size() >= 4 && !first == !head[0] && !second == !head[1] && !first == !head[2] &&
           !second == !head[3];
  };
  if (pattern('x', '\0') || pattern('\0', 'x')) return FileKind{"a text in UTF-16", save_in_utf8};
  return FileKind{"a binary file", ""};
}

FileKind folder_kind(const std::string& path) {
  for (const std::string& name : list_folder(path)) {
    if (name == "dataset_info.json" || name == "dataset_dict.json" || name == "state.json" ||
        name.ends_with(".arrow")) {
      return {"a folder of Hugging Face datasets",
              "save a split of it with datasets.load_from_disk(FOLDER)[\"train\"].to_json(\"train.jsonl\")"};
    }
  }
  return {"a directory", ""};
}

}  // namespace mezzo
