// Words between GPUs: pinned host memory -> device -> ncclAllReduce (uint64, sum) -> pinned host memory, all
// enqueued on the stream that computes. The communicator does not block: what takes time is polled, so that
// the exchange can give up on it (NCCL user guide, "Fault tolerance").
#include <cuda_runtime.h>
#include <nccl.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <thread>

#include "mezzo/comm/together.h"

namespace mezzo {
namespace {

constexpr Seconds kFinish{20};

void check(cudaError_t status, const char* call) {
  if (status != cudaSuccess) throw CommError("{} failed: {}", call, cudaGetErrorString(status));
}

void check(ncclResult_t status, const char* call) {
  if (status == ncclSuccess || status == ncclInProgress) return;
  throw CommError("{} failed: {} ({})", call, ncclGetErrorString(status), ncclGetLastError(nullptr));
}

class NcclTransport final : public Transport {
 public:
  NcclTransport(const ncclUniqueId& id, int rank, int size, cudaStream_t stream, std::size_t most_words)
      : stream_(stream), capacity_(most_words) {
    try {
      const std::size_t bytes = std::max<std::size_t>(1, most_words) * sizeof(std::uint64_t);
      check(cudaMallocHost(reinterpret_cast<void**>(&host_), bytes), "cudaMallocHost");
      check(cudaMalloc(reinterpret_cast<void**>(&device_), bytes), "cudaMalloc");
      check(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming), "cudaEventCreateWithFlags");
      ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
      config.blocking = 0;
      check(ncclCommInitRankConfig(&comm_, size, id, rank, &config), "ncclCommInitRankConfig");
    } catch (...) {
      release();
      throw;
    }
  }

  ~NcclTransport() override { release(); }

  std::string library() const override {
    int version = 0;  // 2.28.9 is 22809
    if (ncclGetVersion(&version) != ncclSuccess) return "NCCL";
    return fmt::format("NCCL {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
  }

  void begin(std::span<const std::uint64_t> words) override {
    if (comm_ == nullptr) throw CommError("NCCL: the communicator was given up");
    if (words.size() > capacity_) {
      throw CommError("NCCL: found {} words to sum, expected at most {}", words.size(), capacity_);
    }
    count_ = words.size();
    std::copy(words.begin(), words.end(), host_);
    stage_ = Stage::starting;
  }

  bool done(std::span<std::uint64_t> words) override {
    // Each stage is passed through at once where NCCL is not busy with it.
    if (stage_ == Stage::starting) {  // the communicator comes up with the first sum
      if (busy()) return false;
      check(cudaMemcpyAsync(device_, host_, bytes(), cudaMemcpyHostToDevice, stream_), "cudaMemcpyAsync");
      check(ncclAllReduce(device_, device_, count_, ncclUint64, ncclSum, comm_, stream_), "ncclAllReduce");
      stage_ = Stage::enqueuing;
    }
    if (stage_ == Stage::enqueuing) {
      if (busy()) return false;
      check(cudaMemcpyAsync(host_, device_, bytes(), cudaMemcpyDeviceToHost, stream_), "cudaMemcpyAsync");
      check(cudaEventRecord(done_, stream_), "cudaEventRecord");
      stage_ = Stage::running;
    }
    const cudaError_t status = cudaEventQuery(done_);
    if (status == cudaErrorNotReady) {
      busy();  // throws when NCCL has failed in the background
      return false;
    }
    check(status, "cudaEventQuery");
    std::copy_n(host_, count_, words.begin());
    return true;
  }

  void abort() noexcept override {
    if (comm_ != nullptr) ncclCommAbort(comm_);  // nothing is left to be done about a failure
    comm_ = nullptr;
  }

 private:
  enum class Stage { starting, enqueuing, running };

  std::size_t bytes() const { return count_ * sizeof(std::uint64_t); }

  /// Whether NCCL is still at what it was last asked for.
  bool busy() {
    ncclResult_t state = ncclSuccess;
    check(ncclCommGetAsyncError(comm_, &state), "ncclCommGetAsyncError");
    check(state, "NCCL");
    return state == ncclInProgress;
  }

  /// In the good case the ranks leave together; an error on this rank must not wait for that.
  void release() noexcept {
    if (comm_ != nullptr && std::uncaught_exceptions() == 0) finish();
    abort();
    // What a failed release leaves goes with the process.
    if (done_ != nullptr) cudaEventDestroy(done_);
    cudaFree(device_);
    cudaFreeHost(host_);
  }

  void finish() noexcept {
    ncclResult_t state = ncclCommFinalize(comm_);
    const auto give_up = std::chrono::steady_clock::now() + kFinish;
    while (state == ncclInProgress && std::chrono::steady_clock::now() < give_up) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      if (const ncclResult_t asked = ncclCommGetAsyncError(comm_, &state); asked != ncclSuccess)
        state = asked;
    }
    if (state == ncclSuccess && ncclCommDestroy(comm_) == ncclSuccess) comm_ = nullptr;
  }

  cudaStream_t stream_;  // the backend's
  std::size_t capacity_;
  std::size_t count_ = 0;
  std::uint64_t* host_ = nullptr;    ///< [capacity], pinned
  std::uint64_t* device_ = nullptr;  ///< [capacity]
  cudaEvent_t done_ = nullptr;
  ncclComm_t comm_ = nullptr;
  Stage stage_ = Stage::starting;
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
