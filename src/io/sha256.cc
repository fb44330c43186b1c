#include "mezzo/io/sha256.h"

#include <openssl/err.h>
#include <openssl/evp.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "mezzo/core/error.h"
#include "mezzo/core/process.h"
#include "mezzo/io/files.h"

namespace mezzo {
namespace {

constexpr std::size_t buffer_bytes = std::size_t{1} << 20;

Error openssl_error(const char* call) {
  char reason[256];
  ERR_error_string_n(ERR_get_error(), reason, sizeof reason);
  return Error("SHA-256 failed in {}: {}", call, reason);
}

/// Feeds the bytes [offset, offset + size) of a file.
void update_from_file(Sha256& hash, const FileDescriptor& file, std::uint64_t offset, std::uint64_t size,
                      std::span<std::byte> buffer) {
  for (std::uint64_t done = 0; done < size;) {
    const auto wanted = buffer.first(std::min<std::uint64_t>(buffer.size(), size - done));
    if (file.read_at(offset + done, wanted) != wanted.size())
      throw IoError("{}: the file became shorter while it was read", file.path());
    hash.update(wanted);
    done += wanted.size();
  }
}

struct Chunk {
  const FileDescriptor* file;
  std::uint64_t offset;
  std::uint64_t size;
  Sha256Digest digest{};
};

}  // namespace

void Sha256::Free::operator()(evp_md_ctx_st* context) const { EVP_MD_CTX_free(context); }

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  if (!context_) throw openssl_error("EVP_MD_CTX_new");
  if (EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1) throw openssl_error("EVP_DigestInit_ex");
}

void Sha256::update(std::span<const std::byte> bytes) {
  if (EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) != 1)
    throw openssl_error("EVP_DigestUpdate");
}

Sha256Digest Sha256::finish() {
  Sha256Digest digest;
  if (EVP_DigestFinal_ex(context_.get(), reinterpret_cast<unsigned char*>(digest.data()), nullptr) != 1)
    throw openssl_error("EVP_DigestFinal_ex");
  return digest;
}

std::string Sha256::hex() { return to_hex(finish()); }

std::string to_hex(std::span<const std::byte> bytes) {
  std::string text;
  text.reserve(2 * bytes.size());
  for (const std::byte byte : bytes)
    fmt::format_to(std::back_inserter(text), "{:02x}", std::to_integer<int>(byte));
  return text;
}

std::string sha256_of(std::span<const std::byte> bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.hex();
}

std::string sha256_of_file(const std::string& path) {
  const FileDescriptor file = FileDescriptor::open_regular(path);
  const std::uint64_t size = file.size();
  std::vector<std::byte> buffer(buffer_bytes);
  Sha256 hash;
  update_from_file(hash, file, 0, size, buffer);
  return hash.hex();
}

std::string hash_files(std::span<const std::string> paths, int threads) {
  std::vector<std::uint64_t> sizes;
  std::vector<FileDescriptor> files;
  for (const std::string& path : paths) {
    files.push_back(FileDescriptor::open_regular(path));
    sizes.push_back(files.back().size());
  }
  std::vector<Chunk> chunks;
  for (std::size_t i = 0; i < files.size(); ++i)
    for (std::uint64_t offset = 0; offset < sizes[i]; offset += hash_chunk_bytes)
      chunks.push_back({&files[i], offset, std::min(hash_chunk_bytes, sizes[i] - offset)});

  std::atomic<std::size_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto work = [&] {
    try {
      std::vector<std::byte> buffer(buffer_bytes);
      for (std::size_t i = next++; i < chunks.size(); i = next++) {
        Sha256 hash;
        update_from_file(hash, *chunks[i].file, chunks[i].offset, chunks[i].size, buffer);
        chunks[i].digest = hash.finish();
      }
    } catch (...) {  // carried over to the calling thread
      const std::lock_guard lock(failure_mutex);
      failure = std::current_exception();
      next = chunks.size();
    }
  };
  {
    const auto count = std::clamp<std::size_t>(static_cast<std::size_t>(std::max(threads, 1)), 1,
                                               std::max<std::size_t>(chunks.size(), 1));
    std::vector<std::jthread> helpers;
    for (std::size_t i = 1; i < count; ++i) helpers.push_back(start_thread("hashing files", work));
    work();
  }
  if (failure) std::rethrow_exception(failure);

  Sha256 total;
  for (std::size_t i = 0, chunk = 0; i < files.size(); ++i) {
    std::array<std::byte, 8> size;
    for (std::size_t byte = 0; byte < size.size(); ++byte)
      size[byte] = static_cast<std::byte>(sizes[i] >> (8 * byte));
    total.update(size);
    for (; chunk < chunks.size() && chunks[chunk].file == &files[i]; ++chunk)
      total.update(chunks[chunk].digest);
  }
  return total.hex();
}

}  // namespace mezzo
