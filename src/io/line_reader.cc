#include "mezzo/io/line_reader.h"

#include <span>

#include "mezzo/core/error.h"

namespace mezzo {
namespace {

constexpr std::size_t block_bytes = std::size_t{1} << 20;

}  // namespace

LineReader::LineReader(const std::string& path)
    : file_(FileDescriptor::open_regular(path)), block_(block_bytes) {}

bool LineReader::next(std::string& line) {
  line.clear();
  is_whole_ = false;
  while (!is_whole_) {
    if (rest_.empty()) {
      const std::size_t count = file_.read_at(offset_, std::as_writable_bytes(std::span(block_)));
      if (count == 0) break;
      offset_ += count;
      rest_ = {block_.data(), count};
    }
    const std::size_t end = rest_.find('\n');
    is_whole_ = end != rest_.npos;
    line += rest_.substr(0, end);
    rest_.remove_prefix(is_whole_ ? end + 1 : rest_.size());
    if (line.size() > limit)
      throw InputError("{}:{}: the line has more than {} bytes", file_.path(), number_ + 1, limit);
  }
  if (!is_whole_ && line.empty()) return false;
  ++number_;
  return true;
}

}  // namespace mezzo
