#include "mpi_messenger.h"

#include <sched.h>

#include <algorithm>

namespace mezzo {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

// Heartbeats within a silence: some may be late.
constexpr int kHeartbeats = 10;
constexpr Seconds kShortest = 20ms;
constexpr Seconds kLongest = 1s;

}  // namespace

void Pause::operator()() {
  const auto waited = Clock::now() - begin_;
  if (waited < 20us) return;
  if (waited < 500us) {
    sched_yield();
  } else {
    std::this_thread::sleep_for(std::min<Clock::duration>(waited / 50, 1ms));
  }
}

Messenger::Messenger(MPI_Comm comm, int rank, int size, std::function<Doing()> doing)
    : rank_(rank),
      size_(size),
      doing_(std::move(doing)),
      mail_(comm),
      detector_(size, Clock::now()),
      interval_(kLongest),
      thread_([this](const std::stop_token& stop) { beat(stop); }) {}

void Messenger::beat(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    try {
      pump();
      const Doing doing = doing_();
      const Words heartbeat{arrived_, static_cast<std::uint64_t>(doing.phase), doing.step};
      const int last = rank_ == 0 ? size_ - 1 : 0;
      for (int peer = rank_ == 0 ? 1 : 0; peer <= last; ++peer) {
        // One that takes nothing any more is not sent more and more.
        if (!mail_.sending(peer, Tag::heartbeat)) mail_.send(peer, Tag::heartbeat, heartbeat);
      }
    } catch (const std::exception&) {
      failure_ = std::current_exception();
      return;
    }
    const Seconds interval = interval_;
    wake_.wait_for(lock, stop, interval, [&] { return interval_ < interval; });
  }
}

void Messenger::stop() {
  thread_.request_stop();
  if (thread_.joinable()) thread_.join();
}

void Messenger::begin_sum(std::uint64_t sequence, Seconds silence) {
  const std::lock_guard lock(mutex_);
  arrived_ = sequence;
  interval_ = std::clamp(silence / kHeartbeats, kShortest, kLongest);
  wake_.notify_all();
}

void Messenger::send(int peer, Tag tag, Words words) {
  const std::lock_guard lock(mutex_);
  mail_.send(peer, tag, std::move(words));
}

std::optional<Message> Messenger::next(std::optional<Tag> but) {
  const std::lock_guard lock(mutex_);
  if (failure_) std::rethrow_exception(failure_);
  const auto find = [&] {
    return std::ranges::find_if(inbox_, [&](const Message& message) { return message.tag != but; });
  };
  auto found = find();
  if (found == inbox_.end()) {
    pump();
    found = find();
  }
  if (found == inbox_.end()) return std::nullopt;
  std::optional<Message> message(std::move(*found));
  inbox_.erase(found);
  return message;
}

void Messenger::pump() {
  const auto now = Clock::now();
  const bool slept = now - pumped_ > 3 * kLongest;  // nobody can be blamed for what this process did not hear
  pumped_ = now;
  while (std::optional<Message> message = mail_.receive()) {
    if (message->tag == Tag::heartbeat) {
      detector_.heard(message->peer,
                      {message->words[0], static_cast<Phase>(message->words[1]), message->words[2]}, now);
    } else {
      detector_.heard(message->peer, now);
      reported_ = reported_ || message->tag == Tag::reported;
      inbox_.push_back(std::move(*message));
    }
  }
  if (slept) detector_.awoke(now);
}

void Messenger::flush(Time deadline) {
  Pause pause;
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      if (mail_.sent()) return;
    }
    if (Clock::now() >= deadline) return;
    pause();
  }
}

bool Messenger::reported() {
  const std::lock_guard lock(mutex_);
  return reported_;
}

Seconds Messenger::interval() {
  const std::lock_guard lock(mutex_);
  return interval_;
}

}  // namespace mezzo
