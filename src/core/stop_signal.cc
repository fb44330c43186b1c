#include "mezzo/core/stop_signal.h"

#include <signal.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "mezzo/core/error.h"

namespace mezzo {
namespace {

constexpr std::array<int, 4> kSignals{SIGTERM, SIGINT, SIGUSR1, SIGHUP};

// A handler can reach nothing but statics.
std::atomic<bool> alive{false};
std::atomic<int> first{0};
std::atomic<bool> interrupted{false};
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);
std::array<struct sigaction, kSignals.size()> previous;

extern "C" void take_note(int number) {
  const int saved_errno = errno;
  int none = 0;
  first.compare_exchange_strong(none, number);
  if (number == SIGINT && interrupted.exchange(true)) {
    struct sigaction standard {};
    standard.sa_handler = SIG_DFL;
    sigaction(SIGINT, &standard, nullptr);
    raise(SIGINT);  // blocked here, delivered on return
  }
  errno = saved_errno;
}

}  // namespace

StopSignal::StopSignal() {
  if (alive.exchange(true)) throw Error("two StopSignals live at a time");
  first = 0;
  interrupted = false;
  struct sigaction action {};
  action.sa_handler = take_note;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    if (sigaction(kSignals[i], &action, &previous[i]) == 0) {
      // nohup has a process outlive its terminal.
      if (kSignals[i] == SIGHUP && previous[i].sa_handler == SIG_IGN)
        sigaction(SIGHUP, &previous[i], nullptr);
      continue;
    }
    const int error_number = errno;
    while (i-- > 0) sigaction(kSignals[i], &previous[i], nullptr);
    alive = false;
    throw Error("cannot handle signals: {}", std::strerror(error_number));
  }
}

StopSignal::~StopSignal() {
  for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &previous[i], nullptr);
  alive = false;
}

int StopSignal::number() const { return first; }

}  // namespace mezzo
