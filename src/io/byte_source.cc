#include "mezzo/io/byte_source.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <limits>
#include <string_view>
#include <vector>

#include "mezzo/core/error.h"
#include "mezzo/io/files.h"

namespace mezzo {
namespace {

constexpr std::size_t block_bytes = std::size_t{1} << 18;
constexpr std::string_view gzip_magic = "\x1f\x8b";
constexpr std::string_view zstd_magic = "\x28\xb5\x2f\xfd";

class FileSource : public ByteSource {
 public:
  explicit FileSource(const std::string& path) : file_(FileDescriptor::open_regular(path)) {}

  std::size_t read(std::span<std::byte> target) override {
    const std::size_t count = file_.read_at(offset_, target);
    offset_ += count;
    return count;
  }
  const std::string& path() const override { return file_.path(); }

 private:
  FileDescriptor file_;
  std::uint64_t offset_ = 0;
};

/// Compressed bytes, a block at a time.
class Blocks {
 public:
  explicit Blocks(std::unique_ptr<ByteSource> source) : source_(std::move(source)), block_(block_bytes) {}

  const std::string& path() const { return source_->path(); }
  /// What is left of the block; of the next one when nothing is. Empty at the end of the file.
  std::span<std::byte> rest() {
    if (begin_ == end_) {
      begin_ = 0;
      end_ = source_->read(block_);
    }
    return std::span(block_).subspan(begin_, end_ - begin_);
  }
  void take(std::size_t count) { begin_ += count; }

 private:
  std::unique_ptr<ByteSource> source_;
  std::vector<std::byte> block_;
  std::size_t begin_ = 0, end_ = 0;
};

[[noreturn]] void fail_torn(const std::string& path, const char* format) {
  throw InputError("{}: the {} data end too early: the file is torn or not yet whole", path, format);
}

class GzipSource : public ByteSource {
 public:
  explicit GzipSource(std::unique_ptr<ByteSource> source) : input_(std::move(source)) {
    constexpr int gzip_only = 16;  // added to the window's bits
    if (inflateInit2(&stream_, MAX_WBITS + gzip_only) != Z_OK) throw Error("zlib cannot be set up");
  }
  GzipSource(const GzipSource&) = delete;
  GzipSource& operator=(const GzipSource&) = delete;
  ~GzipSource() override { inflateEnd(&stream_); }

  std::size_t read(std::span<std::byte> target) override {
    std::size_t filled = 0;
    while (filled < target.size()) {
      const std::span<std::byte> rest = input_.rest();
      if (!in_member_) {
        if (rest.empty()) break;
        inflateReset(&stream_);
        in_member_ = true;
      }
      const std::size_t room =
          std::min<std::size_t>(target.size() - filled, std::numeric_limits<uInt>::max());
      stream_.next_in = reinterpret_cast<Bytef*>(rest.data());
      stream_.avail_in = static_cast<uInt>(rest.size());
      stream_.next_out = reinterpret_cast<Bytef*>(target.data() + filled);
      stream_.avail_out = static_cast<uInt>(room);
      const int result = inflate(&stream_, Z_NO_FLUSH);
      input_.take(rest.size() - stream_.avail_in);
      filled += room - stream_.avail_out;
      if (result == Z_STREAM_END) {
        in_member_ = false;
      } else if (result == Z_BUF_ERROR) {  // nothing to read, nor anything that zlib held back
        fail_torn(path(), "gzip");
      } else if (result != Z_OK) {
        throw InputError("{}: the gzip data are damaged: {}", path(),
                         stream_.msg == nullptr ? "unknown error" : stream_.msg);
      }
    }
    return filled;
  }
  const std::string& path() const override { return input_.path(); }

 private:
  Blocks input_;
  z_stream stream_{};
  bool in_member_ = false;
};

class ZstdSource : public ByteSource {
 public:
  explicit ZstdSource(std::unique_ptr<ByteSource> source)
      : input_(std::move(source)), stream_(ZSTD_createDStream(), &ZSTD_freeDStream) {
    if (stream_ == nullptr) throw Error("zstd cannot be set up");
  }

  std::size_t read(std::span<std::byte> target) override {
    ZSTD_outBuffer out{target.data(), target.size(), 0};
    while (out.pos < out.size) {
      const std::span<std::byte> rest = input_.rest();
      const std::size_t before = out.pos;
      ZSTD_inBuffer in{rest.data(), rest.size(), 0};
      // At the end of the file too: the library may hold back decoded bytes.
      const std::size_t result = ZSTD_decompressStream(stream_.get(), &out, &in);
      if (ZSTD_isError(result))
        throw InputError("{}: the zstd data are damaged: {}", path(), ZSTD_getErrorName(result));
      if (!rest.empty()) {
        in_frame_ = result != 0;
      } else if (out.pos == before) {
        if (in_frame_) fail_torn(path(), "zstd");
        break;
      }
      input_.take(in.pos);
    }
    return out.pos;
  }
  const std::string& path() const override { return input_.path(); }

 private:
  Blocks input_;
  std::unique_ptr<ZSTD_DStream, decltype(&ZSTD_freeDStream)> stream_;
  bool in_frame_ = false;
};

}  // namespace

std::unique_ptr<ByteSource> open_source(const std::string& path) {
  return std::make_unique<FileSource>(path);
}

std::unique_ptr<ByteSource> open_decompressed(const std::string& path) {
  const std::string magic = read_head(*open_source(path), zstd_magic.size());
  if (magic.starts_with(gzip_magic)) return std::make_unique<GzipSource>(open_source(path));
  if (magic.starts_with(zstd_magic)) return std::make_unique<ZstdSource>(open_source(path));
  return open_source(path);
}

std::string read_head(ByteSource& source, std::size_t count) {
  std::string head(count, '\0');
  head.resize(source.read(std::as_writable_bytes(std::span(head))));
  return head;
}

std::string read_rest(ByteSource& source, std::size_t limit) {
  std::string text;
  while (true) {
    const std::string block = read_head(source, block_bytes);
    text += block;
    if (text.size() > limit) throw InputError("{}: has more than {} bytes", source.path(), limit);
    if (block.size() < block_bytes) return text;
  }
}

}  // namespace mezzo
