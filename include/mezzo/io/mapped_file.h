#pragma once
// A file seen as memory, read only.
#include <cstddef>
#include <span>
#include <string>

namespace mezzo {

/// Owns the read-only mapping of a regular file. Pages come in when they are touched and belong to the page
/// cache, so the mapping costs no memory of its own; what was touched counts as resident (file-backed) until
/// release(). A file that another process shortens while it is mapped ends the process with SIGBUS, as with
/// any mapping.
class MappedFile {
 public:
  /// Throws IoError when the system refuses, InputError when `path` is no regular file.
  explicit MappedFile(std::string path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return bytes_; }
  bool contains(std::span<const std::byte> part) const;

  /// Asks the kernel to start reading `part`, a piece of bytes(), ahead of its use.
  void prefetch(std::span<const std::byte> part) const;
  /// Takes the pages that `part` touches out of the resident set. They stay valid: the next access maps them
  /// again.
  void release(std::span<const std::byte> part) const;

 private:
  void advise(std::span<const std::byte> part, int advice, const char* operation) const;

  std::string path_;
  std::span<const std::byte> bytes_;
};

}  // namespace mezzo
