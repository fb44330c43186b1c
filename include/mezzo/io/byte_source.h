#pragma once
// Bytes in order, from a file as it lies on the disk or from what its compression gives.
#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace mezzo {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  /// Fills `target` from its start; returns the bytes given, fewer than asked for only at the end.
  virtual std::size_t read(std::span<std::byte> target) = 0;
  virtual const std::string& path() const = 0;  ///< for messages
};

/// A regular file as it is. InputError when `path` is something else, IoError when the system refuses.
std::unique_ptr<ByteSource> open_source(const std::string& path);

/// The same, decompressed where the first bytes are those of gzip (RFC 1952) or zstd (RFC 8878), whatever the
/// name; several members or frames follow one another. Reading is an InputError where the data are damaged or
/// end too early, and where a zstd frame asks for a window above 128 MiB.
std::unique_ptr<ByteSource> open_decompressed(const std::string& path);

/// At most `count` of the first bytes that `source` still has.
std::string read_head(ByteSource& source, std::size_t count);
/// What is left of `source`. InputError for more than `limit` bytes.
std::string read_rest(ByteSource& source, std::size_t limit);

}  // namespace mezzo
