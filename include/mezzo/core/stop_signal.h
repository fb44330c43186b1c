#pragma once
// The request to end after the running step.

namespace mezzo {

/// While it lives, SIGTERM, SIGINT, SIGUSR1 and SIGHUP only take note; a second SIGINT has its default
/// action, for a user who cannot wait, and a SIGHUP that was ignored before (nohup) stays so. The previous
/// handlers come back with its end. Signals belong to the process: at most one StopSignal lives at a time,
/// another throws Error.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  bool requested() const { return number() != 0; }
  int number() const;  ///< the first signal that came, 0 = none
};

}  // namespace mezzo
