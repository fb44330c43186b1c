#include "mezzo/io/line_reader.h"

#include <span>
#include <utility>

#include "mezzo/core/error.h"

namespace mezzo {
namespace {

constexpr std::size_t block_bytes = std::size_t{1} << 20;

}  // namespace

LineReader::LineReader(std::unique_ptr<ByteSource> source)
    : source_(std::move(source)), block_(block_bytes) {}

LineReader::LineReader(const std::string& path) : LineReader(open_source(path)) {}

bool LineReader::next(std::string& line) {
  line.clear();
  is_whole_ = false;
  while (!is_whole_) {
    if (rest_.empty()) {
      const std::size_t count = source_->read(std::as_writable_bytes(std::span(block_)));
      if (count == 0) break;
      rest_ = {block_.data(), count};
    }
    const std::size_t end = rest_.find('\n');
    is_whole_ = end != rest_.npos;
    line += rest_.substr(0, end);
    rest_.remove_prefix(is_whole_ ? end + 1 : rest_.size());
    if (line.size() > limit)
      throw InputError("{}:{}: the line has more than {} bytes", source_->path(), number_ + 1, limit);
  }
  if (!is_whole_ && line.empty()) return false;
  ++number_;
  return true;
}

}  // namespace mezzo
