#pragma once
// Runs the mezzo executable as a user does, alone or under mpirun, and keeps what it printed.
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "scratch.h"

namespace mezzo::test {

inline void write_file(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

struct Outcome {
  int status = -1;  ///< exit status, or -signal
  std::string out;
  std::string err;
  double seconds = 0.0;

  /// Lines of standard error that begin with "mezzo: error: ".
  std::vector<std::string> errors() const {
    std::vector<std::string> lines;
    std::size_t begin = 0;
    while ((begin = err.find("mezzo: error: ", begin)) != std::string::npos) {
      const std::size_t end = err.find('\n', begin);
      lines.push_back(err.substr(begin, end - begin));
      begin = end;
    }
    return lines;
  }
};

struct Launch {
  int ranks = 1;                 ///< 1: without mpirun
  std::string environment = {};  ///< "NAME=value ..."
  double kill_after = 0.0;       ///< seconds until SIGKILL to the whole job; 0: never
  int signal = SIGKILL;
  std::string program = MEZZO_PROGRAM;  ///< of every rank
  std::string kill_once = {};           ///< a file that must hold something before the signal is sent
};

/// Whether this build can run several ranks.
inline bool has_mpirun() { return std::string(MEZZO_MPIRUN) != ""; }

inline Outcome run(const ScratchFolder& scratch, const std::string& arguments, const Launch& launch = {}) {
  static int count = 0;
  const std::string base = scratch / fmt::format("call-{}", count++);
  // MPI's leaks (tests/CMakeLists.txt) are those of several ranks.
  std::string command = launch.ranks > 1 ? "" : "ASAN_OPTIONS=detect_leaks=1 ";
  command += launch.program;
  if (launch.ranks > 1) command = fmt::format("{} -np {} {}", MEZZO_MPIRUN, launch.ranks, command);
  command = fmt::format("cd {} && exec env {} {} {} >{}.out 2>{}.err </dev/null", MEZZO_SOURCE_DIR,
                        launch.environment, command, arguments, base, base);
  const auto start = std::chrono::steady_clock::now();
  const pid_t child = fork();
  if (child == 0) {
    setpgid(0, 0);  // mpirun and its ranks: one group to kill
    execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    _exit(127);
  }
  if (launch.kill_after > 0) {
    std::error_code none;
    for (int tries = 0; !launch.kill_once.empty() && tries < 3000; ++tries) {
      if (std::filesystem::file_size(launch.kill_once, none) > 0 && !none) break;
      usleep(20'000);
    }
    usleep(static_cast<useconds_t>(launch.kill_after * 1e6));
    if (launch.signal == SIGKILL) {
      // Open MPI gives each rank a process group of its own: name them by the folder that they write to.
      kill(-child, SIGKILL);
      const std::string sweep = fmt::format("pkill -KILL -f 'mezzo train.*{}'", scratch.path());
      if (std::system(sweep.c_str()) < 0) _exit(126);
    } else {
      kill(-child, launch.signal);
    }
  }
  int status = 0;
  waitpid(child, &status, 0);
  Outcome outcome;
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  outcome.out = read_all(base + ".out");
  outcome.err = read_all(base + ".err");
  return outcome;
}

inline nlohmann::json info(const ScratchFolder& scratch, const std::string& path) {
  const Outcome outcome = run(scratch, "info " + path + " --json");
  if (outcome.status != 0) throw std::runtime_error(outcome.err);
  return nlohmann::json::parse(outcome.out);
}

inline std::string hash_of(const ScratchFolder& scratch, const std::string& path) {
  return info(scratch, path).at("trainables_sha256").get<std::string>();
}

}  // namespace mezzo::test
