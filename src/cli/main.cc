// The one executable. Compiled for any x86-64, so that a processor too old for the rest gets a sentence and
// no trap.
#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

namespace mezzo {
bool open_standard_streams();  // core/standard_streams.h
int run_command_line(int argc, char** argv);
}  // namespace mezzo

namespace {

// Runs before the static initialisers of the other files, which may use the instructions checked for.
__attribute__((constructor(101))) void check_processor() {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return;
  constexpr char message[] =
      "mezzo: error: this processor lacks AVX2 or FMA; Mezzo needs x86-64-v3 (2013 or later)\n";
  if (write(STDERR_FILENO, message, sizeof(message) - 1) < 0) _exit(2);
  _exit(1);
}

/// OpenBLAS starts a thread for every processor as it is loaded. Each takes 128 MiB of address space, or
/// tries to for ever where ulimit -v or -d does not leave that. Mezzo multiplies on threads of its own: under
/// such a limit it starts again without them.
void leave_blas_threads(char** argv) {
  const auto is_limited = [](int resource) {
    rlimit limit{};
    return getrlimit(resource, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
  };
  constexpr const char* variable = "OPENBLAS_NUM_THREADS";
  if (std::getenv(variable) != nullptr || !(is_limited(RLIMIT_AS) || is_limited(RLIMIT_DATA))) return;
  std::string program(4096, '\0');
  const ssize_t length = readlink("/proc/self/exe", program.data(), program.size() - 1);
  if (length <= 0 || setenv(variable, "1", 1) != 0) return;
  program.resize(static_cast<std::size_t>(length));
  execv(program.c_str(), argv);  // comes back when it fails: then with these threads
}

}  // namespace

int main(int argc, char** argv) {
  if (!mezzo::open_standard_streams()) return 1;  // and there is nowhere to say so
  leave_blas_threads(argv);
  return mezzo::run_command_line(argc, argv);
}
