#include "mezzo/io/child_process.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <string_view>
#include <thread>
#include <utility>

#include "mezzo/core/error.h"
#include "mezzo/io/json_file.h"

namespace mezzo {

namespace {

struct Pipe {
  FileDescriptor read, write;
};

Pipe make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw io_error("make", "a pipe", errno);
  return {{ends[0], "a pipe"}, {ends[1], "a pipe"}};
}

void set_non_blocking(const FileDescriptor& file) {
  const int flags = ::fcntl(file.get(), F_GETFL);
  if (flags < 0 || ::fcntl(file.get(), F_SETFL, flags | O_NONBLOCK) != 0)
    throw io_error("set the mode of", file.path(), errno);
}

/// The file that a name stands for. Searched before the fork: what runs behind it may not allocate.
std::string file_of(const std::string& name, std::string_view search_path) {
  if (name.find('/') != name.npos) return name;
  while (!search_path.empty()) {
    const std::string_view folder = search_path.substr(0, search_path.find(':'));
    search_path.remove_prefix(std::min(folder.size() + 1, search_path.size()));
    std::string file = fmt::format("{}/{}", folder.empty() ? "." : folder, name);
    struct stat status {};
    if (::stat(file.c_str(), &status) == 0 && S_ISREG(status.st_mode) && ::access(file.c_str(), X_OK) == 0)
      return file;
  }
  throw Error("cannot start {}: no folder of PATH has such a program", quote(name));
}

std::vector<char*> pointers_to(const std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (const std::string& text : texts) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

/// All that the child needs, made before it is there.
struct Start {
  const char* file;
  char* const* arguments;
  char* const* environment;
  const char* working_directory;  ///< nullptr: stays
  int input, output, error_output;
  pid_t parent;
  volatile int error = 0;  ///< written by the child, whose memory is this process's
};

/// Descriptors of libraries may lack the flag: one that is inherited keeps a file's lock beyond this process.
void close_the_rest_on_exec() {
  if (::close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) == 0) return;
  const long limit = std::min(::sysconf(_SC_OPEN_MAX), 65536L);
  for (int file = 3; file < limit; ++file) ::fcntl(file, F_SETFD, FD_CLOEXEC);
}

/// Between vfork and exec: nothing but system calls. Memory is the parent's, signals and descriptors are not.
[[noreturn]] void become(Start& start) {
  const auto fail = [&] {
    start.error = errno;
    ::_exit(127);
  };
  // Of the thread that started it. It may have ended before this call.
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) fail();
  if (::getppid() != start.parent) ::_exit(127);
  if (::setpgid(0, 0) != 0) fail();
  // What is ignored stays so over an exec, and this process ignores SIGPIPE.
  struct sigaction standard {};
  standard.sa_handler = SIG_DFL;
  for (int number = 1; number < NSIG; ++number) ::sigaction(number, &standard, nullptr);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  if (start.working_directory != nullptr && ::chdir(start.working_directory) != 0) fail();
  if (::dup2(start.input, STDIN_FILENO) < 0 || ::dup2(start.output, STDOUT_FILENO) < 0 ||
      ::dup2(start.error_output, STDERR_FILENO) < 0) {
    fail();
  }
  close_the_rest_on_exec();
  ::execve(start.file, start.arguments, start.environment);
  fail();
  ::_exit(127);
}

/// vfork and not fork: the page tables of a process that maps a whole model take long to copy, and handlers
/// of libraries that run at a fork (MPI's) are not for a child that only calls exec.
pid_t fork_and_become(Start& start) {
  const pid_t pid = ::vfork();
  if (pid == 0) become(start);
  return pid;
}

}  // namespace

ChildProcess::ChildProcess(const ChildCommand& command) {
  const std::string file = file_of(command.arguments.at(0), command.search_path);
  const std::vector<char*> arguments = pointers_to(command.arguments);
  const std::vector<char*> environment = pointers_to(command.environment);
  Pipe in = make_pipe();
  Pipe out = make_pipe();
  Pipe err = make_pipe();
  for (const FileDescriptor* own : {&in.write, &out.read, &err.read}) set_non_blocking(*own);
  Start start{
      .file = file.c_str(),
      .arguments = arguments.data(),
      .environment = environment.data(),
      .working_directory = command.working_directory.empty() ? nullptr : command.working_directory.c_str(),
      .input = in.read.get(),
      .output = out.write.get(),
      .error_output = err.write.get(),
      .parent = ::getpid()};
  // A handler that ran in the child would run in this process's memory.
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  pid_ = fork_and_become(start);
  const int error = pid_ < 0 ? errno : start.error;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error != 0) {
    if (pid_ > 0) ::waitpid(pid_, nullptr, 0);
    throw Error("cannot start {}: {}", quote(command.arguments[0]), std::strerror(error));
  }
  input_ = std::move(in.write);
  output_ = std::move(out.read);
  error_output_ = std::move(err.read);
}

ChildProcess::~ChildProcess() {
  using namespace std::chrono_literals;
  // Not reaped before, so that no other group can have this number.
  ::kill(-pid_, SIGKILL);
  for (const auto start = std::chrono::steady_clock::now(); ::waitpid(pid_, nullptr, WNOHANG) == 0;) {
    if (std::chrono::steady_clock::now() - start > 5s) return;  // it hangs in the system
    std::this_thread::sleep_for(1ms);
  }
}

void ChildProcess::ask_to_end() {
  input_ = {};
  ::kill(-pid_, SIGTERM);
}

std::optional<std::string> ChildProcess::ending() const {
  siginfo_t info{};
  // WNOWAIT: the destructor reaps it.
  if (::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) != 0)
    return "ended";  // somebody else has reaped it
  if (info.si_pid == 0) return std::nullopt;
  if (info.si_code == CLD_EXITED) return fmt::format("exited with code {}", info.si_status);
  const char* name = ::sigdescr_np(info.si_status);
  return fmt::format("was killed by signal {} ({})", info.si_status, name == nullptr ? "unknown" : name);
}

}  // namespace mezzo
