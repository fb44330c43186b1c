#pragma once
// SHA-256 (FIPS 180-4), by OpenSSL.
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

struct evp_md_ctx_st;  // OpenSSL's EVP_MD_CTX

namespace mezzo {

using Sha256Digest = std::array<std::byte, 32>;

/// One hash in the making: update() any number of times, then finish() or hex() once. Throws Error when
/// OpenSSL fails.
class Sha256 {
 public:
  Sha256();
  void update(std::span<const std::byte> bytes);
  Sha256Digest finish();
  std::string hex();  ///< finish() as 64 lower-case hexadecimal digits

 private:
  struct Free {
    void operator()(evp_md_ctx_st* context) const;
  };
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

std::string to_hex(std::span<const std::byte> bytes);  ///< lower case, two digits a byte

std::string sha256_of(std::span<const std::byte> bytes);  ///< in hexadecimal
std::string sha256_of_file(const std::string& path);      ///< as sha256sum prints it

inline constexpr std::uint64_t hash_chunk_bytes = std::uint64_t{64} << 20;

/// One hash over the contents of many files, in the order given, computed by `threads` threads. Names do not
/// enter. It is the SHA-256 of, file after file: the file's size (8 bytes, little-endian), then the SHA-256
/// (32 bytes) of each of its chunks of hash_chunk_bytes, the last of which may be shorter. Memory: 1 MiB a
/// thread.
std::string hash_files(std::span<const std::string> paths, int threads);

}  // namespace mezzo
