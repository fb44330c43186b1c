#include "mezzo/io/mapped_file.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <functional>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/io/files.h"

namespace mezzo {

MappedFile::MappedFile(std::string path) : path_(std::move(path)) {
  const FileDescriptor file = FileDescriptor::open_regular(path_);
  const auto size = static_cast<std::size_t>(file.size());
  if (size == 0) return;  // mmap knows no empty mapping
  void* const data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (data == MAP_FAILED) throw io_error("map", path_, errno);
  bytes_ = {static_cast<const std::byte*>(data), size};
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

bool MappedFile::contains(std::span<const std::byte> part) const {
  const std::less_equal<const std::byte*> at_most;  // a total order over pointers, unlike <=
  return at_most(bytes_.data(), part.data()) &&
         at_most(part.data() + part.size(), bytes_.data() + bytes_.size());
}

void MappedFile::prefetch(std::span<const std::byte> part) const {
  advise(part, MADV_WILLNEED, "read ahead");
}

void MappedFile::release(std::span<const std::byte> part) const {
  advise(part, MADV_DONTNEED, "release pages");
}

void MappedFile::advise(std::span<const std::byte> part, int advice, const char* operation) const {
  if (part.empty()) return;
  if (!contains(part)) throw Error("{}: cannot {}: the bytes do not belong to this file", path_, operation);
  // Whole pages: those at both ends may be shared with a neighbour, which a read-only mapping does not
  // notice.
  static const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<std::uintptr_t>(part.data());
  const std::uintptr_t first = begin / page * page;
  if (::madvise(reinterpret_cast<void*>(first), begin + part.size() - first, advice) != 0 && errno != EAGAIN)
    throw io_error(operation, path_, errno);
}

}  // namespace mezzo
