#pragma once
// Messages of 64-bit words between ranks over MPI's point-to-point calls, none of which waits.
#include <cstdint>
#include <optional>
#include <vector>

#include "mpi_job.h"

namespace mezzo {

using Words = std::vector<std::uint64_t>;

/// Messages to rank 0: `words` is {sequence, words...}, `failure` {exit code, bytes, text...}. Messages from
/// rank 0: `answer` {sequence, number of absences, absences..., words...}, `taken` {}: rank 0 prints the
/// receiver's failure. Between rank 0 and the others: `heartbeat` {sums come to, phase, step}. From anyone to
/// all: `reported` {}: the sender has printed the job's message.
enum class Tag : int { words = 1, failure, heartbeat, answer, taken, reported };

struct Message {
  int peer = 0;
  Tag tag = Tag::words;
  Words words;
};

/// Calls must not overlap, but may come from different threads.
class Mail {
 public:
  /// `comm` stays the caller's, whose ranks bring no messages of another kind.
  explicit Mail(MPI_Comm comm) : comm_(comm) {}
  Mail(const Mail&) = delete;
  Mail& operator=(const Mail&) = delete;

  void send(int peer, Tag tag, Words words);
  /// Whether MPI still holds a message of this kind to `peer`.
  bool sending(int peer, Tag tag);
  /// Whether MPI has taken all that was sent.
  bool sent();
  /// A message that is here in full, if there is one.
  std::optional<Message> receive();

 private:
  struct Pending {
    Message message;
    MPI_Request request = MPI_REQUEST_NULL;
  };
  void settle();

  MPI_Comm comm_;
  std::vector<Pending> outgoing_;  // buffers must live until MPI is done with them
  std::vector<Pending> incoming_;
};

}  // namespace mezzo
