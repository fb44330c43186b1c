#include "mezzo/io/record_file.h"

#include <fcntl.h>
#include <immintrin.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/core/process.h"

namespace mezzo {
namespace {

static_assert(std::endian::native == std::endian::little, "the file's integers are copied as they are");

constexpr std::string_view magic = "MEZZOTRJ";
constexpr std::size_t header_prefix_bytes = magic.size() + 4 + 4;  // magic, version, length
constexpr std::size_t frame_bytes = 4 + 4;                         // a record's length and crc
constexpr std::size_t window_bytes = 1u << 20;
// Looking for good records behind a bad one costs a checksum an offset; a tail that would cost more than this
// many bytes of them is called torn without a further look.
constexpr std::uint64_t search_budget_bytes = 1ull << 30;

std::uint32_t load_u32(std::span<const std::byte> bytes) {
  std::uint32_t value = 0;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

void store_u32(std::span<std::byte> target, std::uint32_t value) {
  std::memcpy(target.data(), &value, sizeof value);
}

std::uint32_t record_crc(std::uint32_t header_crc, std::uint64_t offset,
                         std::span<const std::byte> length_and_payload) {
  const std::uint32_t place = crc32c(std::as_bytes(std::span(&offset, 1)), header_crc);
  return crc32c(length_and_payload, place);
}

struct Header {
  std::vector<std::byte> payload;
  std::uint32_t crc = 0;
  std::uint64_t bytes = 0;  ///< of the whole header in the file
};

Header read_header(const FileDescriptor& file, std::uint64_t size) {
  const std::string& path = file.path();
  std::array<std::byte, header_prefix_bytes> prefix{};
  if (file.read_at(0, prefix) < prefix.size())
    throw DamagedHeader("{}: the file ends after {} bytes, inside its header", path, size);
  if (std::memcmp(prefix.data(), magic.data(), magic.size()) != 0)
    throw DamagedHeader("{}: not a record file: it does not begin with {}", path, magic);
  const std::uint32_t version = load_u32(std::span(prefix).subspan(magic.size(), 4));
  const std::uint32_t length = load_u32(std::span(prefix).subspan(magic.size() + 4, 4));
  if (length > max_record_bytes)
    throw DamagedHeader("{}: the header claims {} bytes; at most {} are expected", path, length,
                        max_record_bytes);
  Header header{.payload = {}, .bytes = header_prefix_bytes + std::uint64_t{length} + 4};
  if (header.bytes > size)
    throw DamagedHeader("{}: the file ends after {} bytes, inside its header of {}", path, size,
                        header.bytes);
  header.payload.resize(length + 4);
  if (file.read_at(header_prefix_bytes, header.payload) < header.payload.size())
    throw DamagedHeader("{}: the file became shorter while it was read", path);
  header.crc = load_u32(std::span(header.payload).subspan(length, 4));
  header.payload.resize(length);
  const std::uint32_t found = crc32c(header.payload, crc32c(prefix));
  // A flipped bit can claim another version too: only a good checksum says that it is one.
  if (version != record_file_version) {
    const std::string what = fmt::format("{}: the format's version is {}; this program reads version {}",
                                         path, version, record_file_version);
    if (found == header.crc) throw InputError("{}", what);
    throw DamagedHeader("{}", what);
  }
  if (found != header.crc)
    throw DamagedHeader("{}: the header is damaged: its checksum is {:08x}, expected {:08x}", path, found,
                        header.crc);
  return header;
}

}  // namespace

std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t crc) {
  std::uint64_t state = ~crc;
  const std::byte* at = bytes.data();
  std::size_t left = bytes.size();
  for (; left >= 8; left -= 8, at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, at, sizeof word);
    state = _mm_crc32_u64(state, word);
  }
  auto state32 = static_cast<std::uint32_t>(state);
  for (; left > 0; --left, ++at) state32 = _mm_crc32_u8(state32, std::to_integer<unsigned char>(*at));
  return ~state32;
}

// ---- RecordReader -------------------------------------------------------------------------------------

RecordReader::RecordReader(const std::string& path) : file_(FileDescriptor::open_regular(path)) {
  size_ = file_.size();
  Header header = read_header(file_, size_);
  header_ = std::move(header.payload);
  header_crc_ = header.crc;
  position_ = header.bytes;
}

std::span<const std::byte> RecordReader::bytes_at(std::uint64_t offset, std::size_t count) {
  if (offset < window_offset_ || offset + count > window_offset_ + window_.size()) {
    const std::uint64_t left = offset < size_ ? size_ - offset : 0;
    window_.resize(static_cast<std::size_t>(std::min<std::uint64_t>(std::max(count, window_bytes), left)));
    window_.resize(file_.read_at(offset, window_));
    window_offset_ = offset;
  }
  const auto view = std::span<const std::byte>(window_).subspan(offset - window_offset_);
  return view.first(std::min(count, view.size()));
}

std::optional<std::span<const std::byte>> RecordReader::record_at(std::uint64_t offset) {
  const auto prefix = bytes_at(offset, 4);
  if (prefix.size() < 4) return std::nullopt;
  const std::uint32_t length = load_u32(prefix);
  if (length > max_record_bytes || offset + frame_bytes + length > size_) return std::nullopt;
  const auto frame = bytes_at(offset, frame_bytes + length);
  if (frame.size() < frame_bytes + length) return std::nullopt;  // the file became shorter
  const auto covered = frame.first(4 + length);
  if (record_crc(header_crc_, offset, covered) != load_u32(frame.subspan(4 + length))) return std::nullopt;
  return covered.subspan(4);
}

std::optional<std::span<const std::byte>> RecordReader::next() {
  if (end_) return std::nullopt;
  const auto payload = record_at(position_);
  if (!payload) {
    find_end();
    return std::nullopt;
  }
  last_frame_bytes_ = frame_bytes + payload->size();
  position_ += last_frame_bytes_;
  ++records_;
  return payload;
}

/// The offset of a good record behind the damaged one at position_, or 0.
std::uint64_t RecordReader::find_good_record() {
  // Records are mostly of one size: this finds the next one at once, however large they are.
  if (last_frame_bytes_ > 0) {
    for (std::uint64_t offset = position_ + last_frame_bytes_; offset + frame_bytes <= size_;
         offset += last_frame_bytes_) {
      if (record_at(offset)) return offset;
    }
  }
  std::uint64_t budget = search_budget_bytes;
  for (std::uint64_t offset = position_ + 1; offset + frame_bytes <= size_; ++offset) {
    const auto prefix = bytes_at(offset, 4);
    if (prefix.size() < 4) break;
    const std::uint32_t length = load_u32(prefix);
    if (length > max_record_bytes || offset + frame_bytes + length > size_) continue;
    if (length > budget) break;
    budget -= length;
    if (record_at(offset)) return offset;
  }
  return 0;
}

void RecordReader::find_end() {
  RecordEnd end{
      .records = records_, .valid_bytes = position_, .discarded_bytes = size_ - position_, .reason = {}};
  if (end.discarded_bytes > 0) {
    end.kind = RecordEnd::Kind::torn;
    good_offset_ = find_good_record();
    if (good_offset_ == 0) {
      end.reason = fmt::format("{}: record {} at offset {} is incomplete: {} bytes do not count",
                               file_.path(), records_, position_, end.discarded_bytes);
    } else {
      end.kind = RecordEnd::Kind::corrupt;
      end.reason = fmt::format(
          "{}: record {} at offset {} is damaged although good records follow it (at offset {}): {} bytes do "
          "not count",
          file_.path(), records_, position_, good_offset_, end.discarded_bytes);
    }
  }
  end_ = std::move(end);
}

const RecordEnd& RecordReader::end() const {
  if (!end_) throw Error("{}: the end is known only when all records have been read", file_.path());
  return *end_;
}

bool RecordReader::skip_damage() {
  if (!end_ || end_->kind != RecordEnd::Kind::corrupt) return false;
  position_ = good_offset_;
  good_offset_ = 0;
  end_.reset();
  return true;
}

// ---- RecordWriter -------------------------------------------------------------------------------------

RecordWriter RecordWriter::create(const std::string& path, std::span<const std::byte> header) {
  if (file_exists(path)) throw IoError("{}: cannot create: the file exists", path);
  if (header.size() > max_record_bytes)
    throw IoError("{}: a header of {} bytes; at most {} are possible", path, header.size(), max_record_bytes);
  std::vector<std::byte> bytes(header_prefix_bytes + header.size() + 4);
  const std::span<std::byte> all(bytes);
  std::ranges::copy(bytes_of(magic), bytes.begin());
  store_u32(all.subspan(magic.size(), 4), record_file_version);
  store_u32(all.subspan(magic.size() + 4, 4), static_cast<std::uint32_t>(header.size()));
  std::ranges::copy(header, bytes.begin() + header_prefix_bytes);
  store_u32(all.last(4), crc32c(all.first(bytes.size() - 4)));
  write_file_atomically(path, bytes);
  return RecordWriter(path, bytes.size());
}

RecordWriter::RecordWriter(const std::string& path, std::uint64_t valid_bytes)
    : file_(FileDescriptor::open(path, O_RDWR)), bytes_(valid_bytes) {
  const std::uint64_t size = file_size(path);
  const Header header = read_header(file_, size);
  header_crc_ = header.crc;
  if (valid_bytes < header.bytes || valid_bytes > size)
    throw IoError("{}: cannot append at offset {}: the header ends at {} and the file at {}", path,
                  valid_bytes, header.bytes, size);
  if (valid_bytes < size) {
    file_.truncate(valid_bytes);
    file_.sync();
  }
  if (::lseek(file_.get(), static_cast<off_t>(valid_bytes), SEEK_SET) < 0)
    throw io_error("seek", path, errno);
}

void RecordWriter::append(std::span<const std::byte> payload) {
  if (failed_) throw IoError("{}: cannot append after an earlier write failed", path());
  if (payload.size() > max_record_bytes)
    throw IoError("{}: a record of {} bytes; at most {} are possible", path(), payload.size(),
                  max_record_bytes);
  frame_.resize(frame_bytes + payload.size());
  const std::span<std::byte> frame(frame_);
  store_u32(frame.first(4), static_cast<std::uint32_t>(payload.size()));
  std::ranges::copy(payload, frame_.begin() + 4);
  store_u32(frame.last(4), record_crc(header_crc_, bytes_, frame.first(4 + payload.size())));
  failed_ = true;  // until it is done: half a record may stand in the file, and no other must follow it
  file_.write_all(frame_);
  failed_ = false;
  bytes_ += frame_.size();
}

void RecordWriter::sync() {
  if (failed_) throw IoError("{}: cannot sync after an earlier write failed", path());
  failed_ = true;
  file_.sync_data();
  failed_ = false;
}

// ---- AsyncRecordWriter --------------------------------------------------------------------------------

AsyncRecordWriter::AsyncRecordWriter(RecordWriter writer, std::uint64_t sync_every, std::size_t queue_records)
    : sync_every_(std::max<std::uint64_t>(sync_every, 1)),
      queue_records_(std::max<std::size_t>(queue_records, 1)),
      writer_(std::move(writer)),
      thread_(start_thread("writing the trajectory", [this] { work(); })) {}

AsyncRecordWriter::~AsyncRecordWriter() { stop(); }

void AsyncRecordWriter::rethrow() const {
  if (error_) std::rethrow_exception(error_);
}

void AsyncRecordWriter::append(std::span<const std::byte> payload) {
  std::unique_lock lock(mutex_);
  from_thread_.wait(lock, [&] { return error_ || stopping_ || queue_.size() < queue_records_; });
  rethrow();
  if (stopping_) throw IoError("the record writer was closed already");
  queue_.emplace_back(payload.begin(), payload.end());
  ++appended_;
  to_thread_.notify_one();
}

std::uint64_t AsyncRecordWriter::appended() const {
  const std::lock_guard lock(mutex_);
  return appended_;
}

std::uint64_t AsyncRecordWriter::committed() const {
  const std::lock_guard lock(mutex_);
  rethrow();
  return committed_;
}

void AsyncRecordWriter::flush() {
  std::unique_lock lock(mutex_);
  flush_to_ = appended_;
  to_thread_.notify_one();
  from_thread_.wait(lock, [&] { return error_ || committed_ >= flush_to_; });
  rethrow();
}

void AsyncRecordWriter::close() {
  stop();
  const std::lock_guard lock(mutex_);
  rethrow();
}

void AsyncRecordWriter::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    flush_to_ = appended_;
    to_thread_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

void AsyncRecordWriter::work() {
  std::vector<std::vector<std::byte>> batch;
  std::uint64_t written = 0;
  std::uint64_t synced = 0;
  try {
    for (;;) {
      bool sync = false;
      {
        std::unique_lock lock(mutex_);
        to_thread_.wait(lock, [&] { return !queue_.empty() || synced < flush_to_ || stopping_; });
        if (queue_.empty() && synced == written && stopping_) return;
        batch.clear();
        batch.swap(queue_);
        written += batch.size();
        sync = written - synced >= sync_every_ || synced < flush_to_ || stopping_;
        from_thread_.notify_one();
      }
      for (const auto& payload : batch) writer_.append(payload);
      if (!sync) continue;
      writer_.sync();
      synced = written;
      const std::lock_guard lock(mutex_);
      committed_ = synced;
      from_thread_.notify_one();
    }
  } catch (...) {
    const std::lock_guard lock(mutex_);
    error_ = std::current_exception();
    from_thread_.notify_one();
  }
}

}  // namespace mezzo
