#pragma once
// Files that survive a crash: checked descriptors, whole-file reads with a limit, atomic replacement, folder
// locks.
//
// Atomic replacement follows one order everywhere: write a temporary file in the target's own folder, fsync
// it, rename it over the target, fsync the folder. A crash at any point leaves the old file or the new one,
// and at most a temporary that remove_temporary_files() knows by its name. All functions throw IoError (the
// operation, the path, errno's text) when the system refuses.
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mezzo {

/// Owns a file descriptor and remembers its path for messages.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  FileDescriptor(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  /// open(2) with O_CLOEXEC added; throws IoError with `operation` ("open", "create") in its message.
  static FileDescriptor open(const std::string& path, int flags, const char* operation = "open",
                             mode_t mode = 0666);
  /// A regular file, for reading; InputError for anything else under that name (a folder, a FIFO, a device),
  /// which could be endless or never answer.
  static FileDescriptor open_regular(const std::string& path);
  FileDescriptor(FileDescriptor&& other) noexcept;
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  ~FileDescriptor();

  int get() const { return fd_; }
  const std::string& path() const { return path_; }
  explicit operator bool() const { return fd_ >= 0; }

  std::uint64_t size() const;                  ///< bytes
  void write_all(std::span<const std::byte>);  ///< at the descriptor's position; short writes are continued
  /// Reads from `offset` until `target` is full or the file ends; returns the bytes read.
  std::size_t read_at(std::uint64_t offset, std::span<std::byte> target) const;
  void truncate(std::uint64_t bytes);
  void sync();       ///< fsync: data and metadata
  void sync_data();  ///< fdatasync: data, and the size
  void close();      ///< close with its error checked; the destructor closes too, but cannot report

 private:
  int fd_ = -1;
  std::string path_;
};

/// A file that appears under `path` complete, or not at all. Write, then commit(); without commit() the
/// destructor removes what was written. One writer a path and process: the temporary is called .NAME.tmp-PID.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  void commit();

  const std::string& path() const { return path_; }
  const std::string& temporary_path() const { return temporary_path_; }

 private:
  std::string path_;
  std::string temporary_path_;
  FileDescriptor file_;
};

void write_file_atomically(const std::string& path, std::span<const std::byte> bytes);
void write_file_atomically(const std::string& path, std::string_view text);

/// Where an atomic writer of `path` puts its bytes before the rename: the same folder, .NAME.tmp-PID.
std::string temporary_path_for(const std::string& path);
/// rename(2), then fsync of the target's folder. `from` must be on disk already.
void rename_durably(const std::string& from, const std::string& to);
/// Removes the temporaries that killed writers left in a folder (not below it); returns how many. Call it
/// under the folder's lock: a living writer's temporary looks the same.
std::size_t remove_temporary_files(const std::string& directory);

/// Names of what is in a folder, sorted; none of a missing one.
std::vector<std::string> list_folder(const std::string& directory);

/// N where `name` is `prefix`, N as std::to_string writes it, and `suffix`.
std::optional<std::uint64_t> number_in_name(std::string_view name, std::string_view prefix,
                                            std::string_view suffix);

/// The exclusive lock of a folder: flock on its file `.lock`, which stays there, unlocked, when the owner
/// ends, however it ends. Throws IoError that names the folder and the holder when somebody else has it, and
/// InputError for a `.lock` that holds somebody else's contents. Does not wait.
class FolderLock {
 public:
  explicit FolderLock(const std::string& directory);

 private:
  FileDescriptor file_;
};

/// The folder that holds `path` ("." for a bare name).
std::string parent_directory(const std::string& path);
/// fsync of a folder: makes creations, renames and removals in it durable.
void sync_directory(const std::string& path);
/// mkdir -p, with every new entry made durable. A no-op on a folder that exists.
void create_directories(const std::string& path);

bool file_exists(const std::string& path);  ///< anything of that name; throws when the system cannot tell
bool remove_file(const std::string& path);  ///< whether there was one; durable with sync_directory()
std::uint64_t file_size(const std::string& path);  ///< bytes of a regular file
/// What comes on standard input up to its end. More than `limit` bytes are an InputError.
std::string read_standard_input(std::uint64_t limit);
/// The whole of a regular file. More than `limit` bytes, or no regular file, is an InputError.
std::string read_file(const std::string& path, std::uint64_t limit);

/// The bytes of a text, for interfaces that take bytes.
inline std::span<const std::byte> bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

}  // namespace mezzo
