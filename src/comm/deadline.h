#pragma once
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "mezzo/comm/patience.h"

namespace mezzo {

/// Calls `late`, which is to end the process, in a thread of its own unless it is destroyed within `limit`:
/// for library calls that wait for other ranks and cannot be given up.
class Deadline {
 public:
  Deadline(Seconds limit, std::function<void()> late)
      : thread_([this, limit, late = std::move(late)](const std::stop_token& stop) {
          std::unique_lock lock(mutex_);
          if (!waiting_.wait_for(lock, stop, limit, [&] { return stop.stop_requested(); })) late();
        }) {}

 private:
  std::mutex mutex_;
  std::condition_variable_any waiting_;
  std::jthread thread_;
};

}  // namespace mezzo
