#pragma once
// Files with a SHA-256 beside them, which are read back before they are believed to be written.
//
// FILE.sha256 is a line in sha256sum's format and is put in place before FILE is: the appearance of FILE is
// the commit. So a crash leaves no FILE at all (and perhaps a sidecar that belongs to none), or a complete
// pair. Only where a FILE is replaced can a crash leave a pair that does not match; it is refused like any
// damaged file.
#include <functional>
#include <string>

namespace mezzo {

/// A file that appears under `path` together with its checksum, or not at all. Its content is written to
/// temporary_path() by whatever writes its format; then commit(). Throws IoError when the system refuses.
class ChecksummedFile {
 public:
  /// Makes the temporary file, empty.
  explicit ChecksummedFile(std::string path);
  ChecksummedFile(const ChecksummedFile&) = delete;
  ChecksummedFile& operator=(const ChecksummedFile&) = delete;
  ~ChecksummedFile();  ///< removes what was not committed

  const std::string& path() const { return path_; }
  const std::string& temporary_path() const { return temporary_path_; }

  /// Makes what was written durable, lets `verify` read the temporary file back (from the device, where the
  /// system lets us), then sidecar, rename, and fsync of the folder. The content has to be closed by then.
  void commit(const std::function<void()>& verify);

 private:
  std::string path_;
  std::string temporary_path_;
  bool pending_ = true;  ///< the temporary file is there and not renamed
};

/// `path` + ".sha256".
std::string sha256_sidecar_path(const std::string& path);
/// Compares a file with the SHA-256 beside it; throws InputError when that is missing, malformed or another
/// one.
void verify_sha256_sidecar(const std::string& path);

}  // namespace mezzo
