#pragma once
// A child process that works until it is killed, at a moment nobody chose: what crash tests are made of.
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <new>
#include <stdexcept>
#include <thread>

namespace mezzo::test {

/// A counter that a parent and its children share.
class SharedCounter {
 public:
  SharedCounter() {
    void* page = ::mmap(nullptr, sizeof(Counter), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) throw std::runtime_error("cannot share memory");
    counter_ = new (page) Counter(0);
  }
  SharedCounter(const SharedCounter&) = delete;
  SharedCounter& operator=(const SharedCounter&) = delete;
  ~SharedCounter() { ::munmap(counter_, sizeof(Counter)); }
  void set(std::uint64_t value) { counter_->store(value); }
  std::uint64_t get() const { return counter_->load(); }

 private:
  using Counter = std::atomic<std::uint64_t>;
  static_assert(Counter::is_always_lock_free);
  Counter* counter_;
};

/// Runs `work` in a child and kills it with SIGKILL `delay` after it has begun. True when the kill ended it,
/// or `work` returned before; false when it threw (its message is on standard error).
template <typename Work>
bool run_and_kill(std::chrono::microseconds delay, Work&& work) {
  SharedCounter begun;
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("cannot fork");
  if (child == 0) {
    begun.set(1);
    try {
      work();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "the child failed: %s\n", error.what());
      ::_exit(1);
    }
    ::_exit(0);
  }
  while (begun.get() == 0) std::this_thread::yield();
  std::this_thread::sleep_for(delay);
  ::kill(child, SIGKILL);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0;
}

}  // namespace mezzo::test
