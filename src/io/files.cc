#include "mezzo/io/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "mezzo/core/error.h"

namespace mezzo {
namespace {

constexpr std::string_view temporary_infix = ".tmp-";
constexpr std::string_view lock_text = "process ";  // and its number and host: what a lock's file holds

/// Repeats a system call that a signal interrupted: TERM and INT only ask a run to stop after its step.
template <typename Call>
auto retry(Call call) {
  decltype(call()) result;
  do {
    result = call();
  } while (result < 0 && errno == EINTR);
  return result;
}

bool is_temporary(std::string_view name) {
  const std::size_t infix = name.rfind(temporary_infix);
  if (name.empty() || name.front() != '.' || infix == std::string_view::npos || infix < 2) return false;
  const std::string_view pid = name.substr(infix + temporary_infix.size());
  return !pid.empty() && pid.find_first_not_of("0123456789") == std::string_view::npos;
}

bool is_directory(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

struct stat stat_of(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) throw io_error("open", path, errno);
  return status;
}

}  // namespace

// ---- FileDescriptor -----------------------------------------------------------------------------------

FileDescriptor FileDescriptor::open(const std::string& path, int flags, const char* operation, mode_t mode) {
  const int fd = retry([&] { return ::open(path.c_str(), flags | O_CLOEXEC, mode); });
  if (fd < 0) throw io_error(operation, path, errno);
  return FileDescriptor(fd, path);
}

FileDescriptor FileDescriptor::open_regular(const std::string& path) {
  // O_NONBLOCK: the opening of a FIFO that nobody writes to would wait.
  FileDescriptor file = open(path, O_RDONLY | O_NONBLOCK);
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) throw io_error("find the kind", path, errno);
  if (!S_ISREG(status.st_mode))
    throw InputError("{}: a regular file is expected, found {}", path, kind_of_file(status.st_mode));
  return file;
}

FileDescriptor::FileDescriptor(FileDescriptor&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)) {}

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(path_, other.path_);
  return *this;
}

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) ::close(fd_);
}

std::uint64_t FileDescriptor::size() const {
  struct stat status {};
  if (::fstat(fd_, &status) != 0) throw io_error("find the size", path_, errno);
  return static_cast<std::uint64_t>(status.st_size);
}

void FileDescriptor::write_all(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = retry([&] { return ::write(fd_, bytes.data(), bytes.size()); });
    if (written < 0) throw io_error("write", path_, errno);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

std::size_t FileDescriptor::read_at(std::uint64_t offset, std::span<std::byte> target) const {
  std::size_t done = 0;
  while (done < target.size()) {
    const ssize_t count = retry([&] {
      return ::pread(fd_, target.data() + done, target.size() - done, static_cast<off_t>(offset + done));
    });
    if (count < 0) throw io_error("read", path_, errno);
    if (count == 0) break;
    done += static_cast<std::size_t>(count);
  }
  return done;
}

void FileDescriptor::truncate(std::uint64_t bytes) {
  if (retry([&] { return ::ftruncate(fd_, static_cast<off_t>(bytes)); }) != 0)
    throw io_error("truncate", path_, errno);
}

void FileDescriptor::sync() {
  if (retry([&] { return ::fsync(fd_); }) != 0) throw io_error("fsync", path_, errno);
}

void FileDescriptor::sync_data() {
  if (retry([&] { return ::fdatasync(fd_); }) != 0) throw io_error("fdatasync", path_, errno);
}

void FileDescriptor::close() {
  // Linux frees the descriptor even when close() reports EINTR: it must not be called again.
  const int fd = std::exchange(fd_, -1);
  if (fd >= 0 && ::close(fd) != 0 && errno != EINTR) throw io_error("close", path_, errno);
}

// ---- atomic files -------------------------------------------------------------------------------------

std::string parent_directory(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

std::string temporary_path_for(const std::string& path) {
  const std::filesystem::path target(path);
  if (target.filename().empty()) throw IoError("{}: a file name is expected, found a folder", path);
  return (target.parent_path() /
          fmt::format(".{}{}{}", target.filename().string(), temporary_infix, ::getpid()))
      .string();
}

AtomicFile::AtomicFile(std::string path)
    : path_(std::move(path)),
      temporary_path_(temporary_path_for(path_)),
      // Truncating, not O_EXCL: a killed process that had the same id may have left one.
      file_(FileDescriptor::open(temporary_path_, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, "create")) {}

AtomicFile::~AtomicFile() {
  if (file_) ::unlink(temporary_path_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  if (!file_) throw IoError("{}: cannot write: the file was committed already", path_);
  file_.write_all(bytes);
}

void AtomicFile::write(std::string_view text) { write(bytes_of(text)); }

void AtomicFile::commit() {
  if (!file_) throw IoError("{}: cannot commit: the file was committed already", path_);
  file_.sync();
  rename_durably(temporary_path_, path_);
  file_.close();
}

void write_file_atomically(const std::string& path, std::span<const std::byte> bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

void write_file_atomically(const std::string& path, std::string_view text) {
  write_file_atomically(path, bytes_of(text));
}

void rename_durably(const std::string& from, const std::string& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0) throw io_error(fmt::format("rename {}", from), to, errno);
  sync_directory(parent_directory(to));
}

std::size_t remove_temporary_files(const std::string& directory) {
  std::size_t removed = 0;
  try {
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
      if (!entry.is_regular_file() || !is_temporary(entry.path().filename().string())) continue;
      removed += std::filesystem::remove(entry.path()) ? 1 : 0;
    }
  } catch (const std::filesystem::filesystem_error& error) {
    throw io_error("remove temporary files", directory, error.code().value());
  }
  return removed;
}

// ---- folders ------------------------------------------------------------------------------------------

std::vector<std::string> list_folder(const std::string& directory) {
  std::vector<std::string> names;
  if (!file_exists(directory)) return names;
  try {
    for (const auto& entry : std::filesystem::directory_iterator(directory))
      names.push_back(entry.path().filename().string());
  } catch (const std::filesystem::filesystem_error& error) {
    throw io_error("list the folder", directory, error.code().value());
  }
  std::ranges::sort(names);
  return names;
}

std::optional<std::uint64_t> number_in_name(std::string_view name, std::string_view prefix,
                                            std::string_view suffix) {
  if (name.size() <= prefix.size() + suffix.size() || !name.starts_with(prefix) || !name.ends_with(suffix))
    return std::nullopt;
  const std::string_view digits = name.substr(prefix.size(), name.size() - prefix.size() - suffix.size());
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc() || end != digits.data() + digits.size() || digits != std::to_string(number))
    return std::nullopt;
  return number;
}

FolderLock::FolderLock(const std::string& directory)
    : file_(FileDescriptor::open((std::filesystem::path(directory) / ".lock").string(),
                                 O_RDWR | O_CREAT | O_NOFOLLOW, "create")) {
  if (retry([&] { return ::flock(file_.get(), LOCK_EX | LOCK_NB); }) != 0) {
    if (errno != EWOULDBLOCK) throw io_error("lock", file_.path(), errno);
    char holder[256] = {};
    const std::size_t size =
        file_.read_at(0, std::as_writable_bytes(std::span(holder).first(sizeof holder - 1)));
    throw IoError("{}: the folder is in use by {}: wait for it to end or choose another folder", directory,
                  size > 0 ? holder : "another process");
  }
  // Only what this class wrote is replaced. A system that died can leave zeros.
  std::array<char, lock_text.size()> text{};
  const std::size_t size = file_.read_at(0, std::as_writable_bytes(std::span(text)));
  if (size > 0 && text[0] != '\0' && std::string_view(text.data(), size) != lock_text.substr(0, size))
    throw InputError("{}: is no lock of Mezzo's; remove it or choose another folder", file_.path());
  char host[HOST_NAME_MAX + 1] = {};
  if (::gethostname(host, sizeof host - 1) != 0) host[0] = '?';
  file_.truncate(0);
  file_.write_all(bytes_of(fmt::format("{}{} on {}", lock_text, ::getpid(), host)));
}

void sync_directory(const std::string& path) {
  const FileDescriptor directory = FileDescriptor::open(path, O_RDONLY | O_DIRECTORY);
  // Some network and FUSE file systems know no fsync of a folder and say EINVAL: there is nothing more to ask
  // for.
  if (retry([&] { return ::fsync(directory.get()); }) != 0 && errno != EINVAL)
    throw io_error("fsync", path, errno);
}

void create_directories(const std::string& path) {
  if (path.empty() || is_directory(path)) return;
  const std::string parent = parent_directory(path);
  if (parent != path) create_directories(parent);
  if (::mkdir(path.c_str(), 0777) == 0) sync_directory(parent);
  else if (errno != EEXIST || !is_directory(path))  // another rank may have been quicker
    throw io_error("create the folder", path, errno);
}

// ---- reading ------------------------------------------------------------------------------------------

bool file_exists(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0) return true;
  if (errno == ENOENT || errno == ENOTDIR) return false;
  throw io_error("look up", path, errno);
}

bool remove_file(const std::string& path) {
  if (::unlink(path.c_str()) == 0) return true;
  if (errno != ENOENT) throw io_error("remove", path, errno);
  return false;
}

std::uint64_t file_size(const std::string& path) {
  const struct stat status = stat_of(path);
  if (!S_ISREG(status.st_mode))
    throw InputError("{}: a regular file is expected, found {}", path, kind_of_file(status.st_mode));
  return static_cast<std::uint64_t>(status.st_size);
}

std::string read_standard_input(std::uint64_t limit) {
  std::string text;
  for (;;) {
    constexpr std::size_t step = std::size_t{1} << 16;
    const std::size_t before = text.size();
    text.resize(before + step);
    const ssize_t count = retry([&] { return ::read(STDIN_FILENO, text.data() + before, step); });
    if (count < 0) throw io_error("read", "standard input", errno);
    text.resize(before + static_cast<std::size_t>(count));
    if (count == 0) return text;
    if (text.size() > limit) throw InputError("standard input: more than {} bytes", limit);
  }
}

std::string read_file(const std::string& path, std::uint64_t limit) {
  const FileDescriptor file = FileDescriptor::open_regular(path);
  const std::uint64_t size = file.size();
  if (size > limit) throw InputError("{}: the file has {} bytes; at most {} are expected", path, size, limit);
  std::string text(size, '\0');
  const std::size_t count = file.read_at(0, std::as_writable_bytes(std::span(text.data(), text.size())));
  if (count != size)
    throw InputError("{}: {} bytes were expected, but the file ended after {}", path, size, count);
  return text;
}

}  // namespace mezzo
