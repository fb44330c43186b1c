#pragma once
// A program that runs beside this process, with pipes to its standard streams.
#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "mezzo/io/files.h"

namespace mezzo {

/// What to start.
struct ChildCommand {
  std::vector<std::string> arguments;  ///< the program and its arguments; without a slash it is looked for
  std::string search_path = {};        ///< here, as PATH says it
  std::vector<std::string> environment = {};  ///< NAME=VALUE: all that it sees
  std::string working_directory = {};         ///< "": this process's
};

/// A running program. It is the leader of a process group of its own, has the default actions for all
/// signals, and no descriptors of this process but its three pipes. It is killed when this object goes, and
/// by the system when the thread that made it ends, however that comes about.
class ChildProcess {
 public:
  /// Error naming the program where the system cannot start it.
  explicit ChildProcess(const ChildCommand& command);
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;
  /// Kills its whole process group and waits for it, though not for a process that even a kill does not end.
  ~ChildProcess();

  // Ends of its pipes, non-blocking and not inherited by further programs.
  const FileDescriptor& input() const { return input_; }  ///< to write to
  const FileDescriptor& output() const { return output_; }
  const FileDescriptor& error_output() const { return error_output_; }

  /// Ends its input, and sends TERM to its process group.
  void ask_to_end();
  /// How it ended, such as "exited with code 1"; none while it runs. Does not wait.
  std::optional<std::string> ending() const;

 private:
  pid_t pid_ = -1;
  FileDescriptor input_, output_, error_output_;
};

}  // namespace mezzo
