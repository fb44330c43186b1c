#pragma once
// A way of its own for the words of a sum, between devices. It moves words and nothing else: who is missing
// is found out by the exchange, which polls it and gives it up.
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "mezzo/comm/patience.h"

namespace mezzo {

class Exchange;

/// One sum at a time; all calls from one thread.
class Transport {
 public:
  Transport() = default;
  virtual ~Transport() = default;
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  virtual std::string library() const = 0;  ///< with its version

  /// Begins a sum of `words`, which are copied. Does not wait.
  virtual void begin(std::span<const std::uint64_t> words) = 0;
  /// Whether the sum is done, then in `words`. Does not wait. Throws CommError when the library says that
  /// something failed.
  virtual bool done(std::span<std::uint64_t> words) = 0;
  /// Gives up the sum and all later ones; whoever was in it is free to go.
  virtual void abort() noexcept = 0;
};

/// NCCL between the devices of all ranks, one a rank: an all-reduce of words on `stream`, the calling
/// thread's current device's cudaStream_t. `most_words`: of a sum. All ranks call it together; the
/// communicator itself comes up within the first sum. CommError when this build has no NCCL or NCCL fails;
/// throws RankLost when ranks were given up.
std::unique_ptr<Transport> make_nccl_transport(Exchange& exchange, void* stream, std::size_t most_words,
                                               Patience patience);
/// Whether this build has NCCL.
bool has_nccl();

}  // namespace mezzo
