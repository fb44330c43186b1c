#include "mpi_mail.h"

#include <limits>

namespace mezzo {
namespace {

bool done(MPI_Request& request) {
  int flag = 0;
  check_mpi(MPI_Test(&request, &flag, MPI_STATUS_IGNORE), "MPI_Test");
  return flag != 0;
}

}  // namespace

void Mail::send(int peer, Tag tag, Words words) {
  if (words.size() > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    throw CommError("an exchange of {} words is too long for MPI", words.size());
  }
  // Into the list first: were it to throw later, MPI would be left with a buffer that is gone.
  Pending& pending = outgoing_.emplace_back(Pending{{peer, tag, std::move(words)}});
  check_mpi(MPI_Isend(pending.message.words.data(), static_cast<int>(pending.message.words.size()),
                      MPI_UINT64_T, peer, static_cast<int>(tag), comm_, &pending.request),
            "MPI_Isend");
}

void Mail::settle() {
  std::erase_if(outgoing_, [](Pending& pending) { return done(pending.request); });
}

bool Mail::sending(int peer, Tag tag) {
  settle();
  for (const Pending& pending : outgoing_) {
    if (pending.message.peer == peer && pending.message.tag == tag) return true;
  }
  return false;
}

bool Mail::sent() {
  settle();
  return outgoing_.empty();
}

std::optional<Message> Mail::receive() {
  settle();
  int found = 0;
  MPI_Message handle = MPI_MESSAGE_NULL;
  MPI_Status status;
  check_mpi(MPI_Improbe(MPI_ANY_SOURCE, MPI_ANY_TAG, comm_, &found, &handle, &status), "MPI_Improbe");
  if (found != 0) {
    int count = 0;
    check_mpi(MPI_Get_count(&status, MPI_UINT64_T, &count), "MPI_Get_count");
    Pending& pending = incoming_.emplace_back(Pending{
        {status.MPI_SOURCE, static_cast<Tag>(status.MPI_TAG), Words(static_cast<std::size_t>(count))}});
    check_mpi(MPI_Imrecv(pending.message.words.data(), count, MPI_UINT64_T, &handle, &pending.request),
              "MPI_Imrecv");
  }
  for (auto pending = incoming_.begin(); pending != incoming_.end(); ++pending) {
    if (!done(pending->request)) continue;
    std::optional<Message> complete(std::move(pending->message));
    incoming_.erase(pending);
    return complete;
  }
  return std::nullopt;
}

}  // namespace mezzo
