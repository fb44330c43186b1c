#pragma once
// Append-only files of checksummed records: what a trajectory is on disk. This layer knows bytes; what the
// header and a record mean is said above (zo). docs/file-formats.md describes the layout for other readers:
//
//   header   magic "MEZZOTRJ", u32 version, u32 header bytes, the header (opaque), u32 crc
//   record   u32 payload bytes, the payload (opaque), u32 crc                               ... until the
//   file ends
//
// All integers are little-endian; crc is CRC-32C. A record's crc also covers the header's crc and the
// record's offset in the file, so that a record of another run, or one in another place, does not pass.
//
// A crash leaves at worst a torn last record. Reading never changes a file: it ends at the last good record
// and says what it left (RecordEnd); RecordWriter cuts the file there before it appends.
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "mezzo/core/error.h"
#include "mezzo/io/files.h"

namespace mezzo {

/// CRC-32C (Castagnoli; RFC 3720, appendix B.4). `crc` continues an earlier result: crc32c(b, crc32c(a)) =
/// crc32c(ab).
std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t crc = 0);

inline constexpr std::uint32_t record_file_version = 1;
/// Longer headers and records are refused by writers and count as corrupt in a file.
inline constexpr std::uint32_t max_record_bytes = 1u << 26;

/// The header's bytes are not those that were written. (A good header of another version is an InputError.)
class DamagedHeader : public InputError {
 public:
  using InputError::InputError;
};

/// Where reading a record file ended, and why.
struct RecordEnd {
  enum class Kind {
    clean,    ///< at the end of the file
    torn,     ///< the bytes from valid_bytes on hold no whole record: a write that a crash cut off
    corrupt,  ///< a damaged record with good ones behind it: not a crash's doing; those are lost with it
  };
  Kind kind = Kind::clean;
  std::uint64_t records = 0;          ///< good records before the end
  std::uint64_t valid_bytes = 0;      ///< header and good records: cut here to append
  std::uint64_t discarded_bytes = 0;  ///< what a cut removes
  std::string reason;                 ///< a sentence with file, offset and numbers; empty when clean
};

/// Reads a record file from its start. The file may grow meanwhile: what was there at the opening is read.
class RecordReader {
 public:
  /// Throws DamagedHeader, or InputError when a good header is of another version.
  explicit RecordReader(const std::string& path);

  std::span<const std::byte> header() const { return header_; }
  /// The next record's payload, valid until the next call; nothing at the end (see end()).
  std::optional<std::span<const std::byte>> next();
  /// How reading ended; to be asked once next() returned nothing.
  const RecordEnd& end() const;
  /// Goes on at the first good record behind a damaged one; false where reading did not end at such a one.
  bool skip_damage();
  /// The file's length up to and including the last record that next() returned: cut here to keep just those.
  std::uint64_t position() const { return position_; }

 private:
  /// The file's bytes [offset, offset + count), from a window that is read ahead; fewer where the file ends.
  std::span<const std::byte> bytes_at(std::uint64_t offset, std::size_t count);
  /// The payload of the whole and undamaged record at `offset`, if there is one.
  std::optional<std::span<const std::byte>> record_at(std::uint64_t offset);
  std::uint64_t find_good_record();
  void find_end();

  FileDescriptor file_;
  std::uint64_t size_ = 0;
  std::uint32_t header_crc_ = 0;
  std::vector<std::byte> header_;
  std::uint64_t position_ = 0;
  std::uint64_t records_ = 0;
  std::optional<RecordEnd> end_;
  std::uint64_t last_frame_bytes_ = 0;  ///< of the record before; 0: there was none
  std::uint64_t good_offset_ = 0;       ///< of the first good record behind a damaged one; 0: there is none
  std::vector<std::byte> window_;
  std::uint64_t window_offset_ = 0;
};

/// Appends records. A write or sync that fails makes the writer refuse all further work: what reached the
/// disk is then unknown (after a failed fsync the kernel forgets the dirty pages), and reading decides it.
class RecordWriter {
 public:
  /// Makes a new file: complete with its header and durable, or not there. An existing file is an IoError.
  static RecordWriter create(const std::string& path, std::span<const std::byte> header);
  /// Opens a file to append behind its first `valid_bytes` (RecordEnd::valid_bytes or
  /// RecordReader::position()); what lies behind them is cut off, durably.
  RecordWriter(const std::string& path, std::uint64_t valid_bytes);

  void append(std::span<const std::byte> payload);  ///< one write(2): survives a kill, not yet a power cut
  void sync();                                      ///< everything appended is on disk when it returns
  std::uint64_t bytes() const { return bytes_; }    ///< the file's length
  const std::string& path() const { return file_.path(); }

 private:
  FileDescriptor file_;
  std::uint32_t header_crc_ = 0;
  std::uint64_t bytes_ = 0;
  bool failed_ = false;
  std::vector<std::byte> frame_;
};

/// A RecordWriter behind a thread: append() returns at once unless the queue is full. The thread writes what
/// has queued up and syncs once for all of it (group commit) whenever `sync_every` records have been written
/// since the last sync. An error in the thread is rethrown by the next call, and by each one after it. Calls
/// come from one thread.
class AsyncRecordWriter {
 public:
  /// `queue_records`: at most this many records wait in memory.
  explicit AsyncRecordWriter(RecordWriter writer, std::uint64_t sync_every = 1,
                             std::size_t queue_records = 1024);
  AsyncRecordWriter(const AsyncRecordWriter&) = delete;
  AsyncRecordWriter& operator=(const AsyncRecordWriter&) = delete;
  /// Writes and syncs what is queued, but cannot report an error: call close() to know.
  ~AsyncRecordWriter();

  void append(std::span<const std::byte> payload);
  std::uint64_t appended() const;   ///< records given to append()
  std::uint64_t committed() const;  ///< the first of them that are on disk
  void flush();                     ///< waits until committed() == appended()
  void close();                     ///< flush, and the thread ends; append() is an error afterwards

 private:
  void work();
  void stop();
  void rethrow() const;  ///< under the lock

  const std::uint64_t sync_every_;
  const std::size_t queue_records_;
  mutable std::mutex mutex_;
  std::condition_variable to_thread_;    ///< records, a flush or the stop
  std::condition_variable from_thread_;  ///< room in the queue, progress or an error
  std::vector<std::vector<std::byte>> queue_;
  std::uint64_t appended_ = 0;
  std::uint64_t committed_ = 0;
  std::uint64_t flush_to_ = 0;  ///< sync no later than when this many are written
  bool stopping_ = false;
  std::exception_ptr error_;
  RecordWriter writer_;  ///< the thread's own while it runs
  std::jthread thread_;  ///< last: starts when everything else is there
};

}  // namespace mezzo
