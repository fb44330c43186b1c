// Words between GPUs: pinned host memory -> device -> ncclAllReduce (uint64, sum) -> pinned host memory, all
// enqueued on the stream that computes. The communicator comes up in a thread of its own, so that the
// exchange can give up on it. It is a blocking one: NCCL's own way of not blocking starts a thread for every
// call, which costs a sum 100 us. See docs/decisions/exchange-star.md.
#include <cuda_runtime.h>
#include <nccl.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

#include "mezzo/comm/together.h"

namespace mezzo {
namespace {

void check(cudaError_t status, const char* call) {
  if (status != cudaSuccess) throw CommError("{} failed: {}", call, cudaGetErrorString(status));
}

void check(ncclResult_t status, const char* call) {
  if (status != ncclSuccess) {
    throw CommError("{} failed: {} ({})", call, ncclGetErrorString(status), ncclGetLastError(nullptr));
  }
}

/// What the thread that brings the communicator up leaves behind; it may outlive the transport.
struct Connection {
  ncclComm_t comm = nullptr;
  std::string failure;
  std::atomic<bool> done = false;  // the others are not touched before
};

class NcclTransport final : public Transport {
 public:
  NcclTransport(const ncclUniqueId& id, int rank, int size, cudaStream_t stream, std::size_t most_words)
      : stream_(stream), capacity_(std::max<std::size_t>(1, most_words)) {
    int device = 0;
    check(cudaGetDevice(&device), "cudaGetDevice");
    const std::size_t bytes = capacity_ * sizeof(std::uint64_t);
    check(cudaMallocHost(reinterpret_cast<void**>(&host_), bytes), "cudaMallocHost");
    check(cudaMalloc(reinterpret_cast<void**>(&device_), bytes), "cudaMalloc");
    check(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    std::thread([connection = connection_, id, rank, size, device, words = device_, stream] {
      try {
        check(cudaSetDevice(device), "cudaSetDevice");
        check(ncclCommInitRank(&connection->comm, size, id, rank), "ncclCommInitRank");
        // The first collective makes the connections, and waits for the others in that.
        check(ncclAllReduce(words, words, 1, ncclUint64, ncclSum, connection->comm, stream), "ncclAllReduce");
      } catch (const std::exception& error) {
        connection->failure = error.what();
      }
      connection->done = true;
    }).detach();
  }

  ~NcclTransport() override {
    // What a thread still works with, and what a failed release leaves, goes with the process.
    if (!connection_->done) return;
    abort();
    cudaEventDestroy(done_);
    cudaFree(device_);
    cudaFreeHost(host_);
  }

  std::string library() const override {
    int version = 0;  // 2.28.9 is 22809
    check(ncclGetVersion(&version), "ncclGetVersion");
    return fmt::format("NCCL {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
  }

  void begin(std::span<const std::uint64_t> words) override {
    if (aborted_) throw CommError("NCCL: the communicator was given up");
    if (words.size() > capacity_) {
      throw CommError("NCCL: found {} words to sum, expected at most {}", words.size(), capacity_);
    }
    count_ = words.size();
    std::copy(words.begin(), words.end(), host_);
    enqueued_ = false;
  }

  bool done(std::span<std::uint64_t> words) override {
    if (!connection_->done) return false;
    if (!connection_->failure.empty()) throw CommError("{}", connection_->failure);
    if (!enqueued_) {
      const std::size_t bytes = count_ * sizeof(std::uint64_t);
      check(cudaMemcpyAsync(device_, host_, bytes, cudaMemcpyHostToDevice, stream_), "cudaMemcpyAsync");
      check(ncclAllReduce(device_, device_, count_, ncclUint64, ncclSum, connection_->comm, stream_),
            "ncclAllReduce");
      check(cudaMemcpyAsync(host_, device_, bytes, cudaMemcpyDeviceToHost, stream_), "cudaMemcpyAsync");
      check(cudaEventRecord(done_, stream_), "cudaEventRecord");
      enqueued_ = true;
    }
    const cudaError_t status = cudaEventQuery(done_);
    if (status == cudaErrorNotReady) {
      ncclResult_t state = ncclSuccess;
      check(ncclCommGetAsyncError(connection_->comm, &state), "ncclCommGetAsyncError");
      check(state, "NCCL");
      return false;
    }
    check(status, "cudaEventQuery");
    std::copy_n(host_, count_, words.begin());
    return true;
  }

  /// Waits for nobody, as ncclCommDestroy may. All ranks are behind their last sum where nothing failed.
  void abort() noexcept override {
    if (!aborted_ && connection_->done && connection_->comm != nullptr) ncclCommAbort(connection_->comm);
    aborted_ = true;
  }

 private:
  cudaStream_t stream_;  // the backend's
  std::size_t capacity_;
  std::size_t count_ = 0;
  std::uint64_t* host_ = nullptr;    ///< [capacity], pinned
  std::uint64_t* device_ = nullptr;  ///< [capacity]
  cudaEvent_t done_ = nullptr;
  std::shared_ptr<Connection> connection_ = std::make_shared<Connection>();
  bool enqueued_ = false;
  bool aborted_ = false;
};

}  // namespace

std::unique_ptr<Transport> make_nccl_transport(Exchange& exchange, void* stream, std::size_t most_words,
                                               Patience patience) {
  ncclUniqueId id{};
  if (exchange.rank() == 0) check(ncclGetUniqueId(&id), "ncclGetUniqueId");
  static_assert(sizeof(id) % sizeof(std::uint64_t) == 0);
  std::vector<std::uint64_t> words(sizeof(id) / sizeof(std::uint64_t), 0);
  std::memcpy(words.data(), &id, sizeof(id));  // zeros but on rank 0
  require_complete(exchange, exchange.sum(words, patience));
  std::memcpy(&id, words.data(), sizeof(id));
  return std::make_unique<NcclTransport>(id, exchange.rank(), exchange.size(),
                                         static_cast<cudaStream_t>(stream), most_words);
}

bool has_nccl() { return true; }

}  // namespace mezzo
