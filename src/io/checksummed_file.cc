#include "mezzo/io/checksummed_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/io/files.h"
#include "mezzo/io/sha256.h"

namespace mezzo {
namespace {

constexpr std::uint64_t max_sidecar_bytes = 1u << 16;

}  // namespace

ChecksummedFile::ChecksummedFile(std::string path)
    : path_(std::move(path)), temporary_path_(temporary_path_for(path_)) {
  FileDescriptor::open(temporary_path_, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, "create");
}

ChecksummedFile::~ChecksummedFile() {
  if (pending_) ::unlink(temporary_path_.c_str());
}

void ChecksummedFile::commit(const std::function<void()>& verify) {
  {
    FileDescriptor written = FileDescriptor::open(temporary_path_, O_WRONLY);
    written.sync();
    ::posix_fadvise(written.get(), 0, 0, POSIX_FADV_DONTNEED);
  }
  verify();
  const std::string name = std::filesystem::path(path_).filename().string();
  write_file_atomically(sha256_sidecar_path(path_),
                        fmt::format("{}  {}\n", sha256_of_file(temporary_path_), name));
  rename_durably(temporary_path_, path_);
  pending_ = false;
}

std::string sha256_sidecar_path(const std::string& path) { return path + ".sha256"; }

void verify_sha256_sidecar(const std::string& path) {
  file_size(path);  // its own message when the file itself is missing
  const std::string sidecar = sha256_sidecar_path(path);
  if (!file_exists(sidecar)) throw InputError("{}: the checksum beside it, {}, is missing", path, sidecar);
  const std::string line = read_file(sidecar, max_sidecar_bytes);
  const std::string expected = line.substr(0, 64);
  // "DIGEST  NAME" or, as sha256sum --binary says it, "DIGEST *NAME". The name may differ: files get copied.
  const bool good = line.size() > 66 && expected.find_first_not_of("0123456789abcdef") == std::string::npos &&
                    line[64] == ' ' && (line[65] == ' ' || line[65] == '*') && line.back() == '\n';
  if (!good)
    throw InputError("{}: not a line of sha256sum: 64 hexadecimal digits and a name are expected", sidecar);
  const std::string found = sha256_of_file(path);
  if (found != expected)
    throw InputError("{}: the file is damaged: its SHA-256 is {}, expected {} ({})", path, found, expected,
                     sidecar);
}

}  // namespace mezzo
