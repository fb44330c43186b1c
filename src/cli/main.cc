// The one executable. Compiled for any x86-64, so that a processor too old for the rest gets a sentence and
// no trap.
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>

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

// ---- before the constructors of the libraries, sanitizers' included: nothing but system calls is safe there
#define MEZZO_BEFORE_LIBRARIES __attribute__((no_sanitize("address", "undefined")))

MEZZO_BEFORE_LIBRARIES rlim_t limit_of(int resource) {
  rlimit value{};
  return syscall(SYS_prlimit64, 0, resource, nullptr, &value) == 0 ? value.rlim_cur : RLIM_INFINITY;
}

MEZZO_BEFORE_LIBRARIES bool begins_with(const char* text, const char* start) {
  for (; *start != '\0'; ++text, ++start) {
    if (*text != *start) return false;
  }
  return true;
}

/// OpenBLAS starts a thread for every processor as it is loaded. Each takes address space, or tries to for
/// ever where ulimit -v or -d does not leave that, and where the system gives no thread (ulimit -u) it raises
/// SIGINT. Mezzo multiplies on threads of its own: under such a limit it starts again without OpenBLAS's.
MEZZO_BEFORE_LIBRARIES void leave_blas_threads(int, char** argv, char** environment) {
  constexpr rlim_t few_threads = 4096;
  if (limit_of(RLIMIT_AS) == RLIM_INFINITY && limit_of(RLIMIT_DATA) == RLIM_INFINITY &&
      limit_of(RLIMIT_NPROC) >= few_threads)
    return;
  std::size_t count = 0;
  for (; environment[count] != nullptr; ++count) {
    if (begins_with(environment[count], "OPENBLAS_NUM_THREADS=")) return;
  }
  static char setting[] = "OPENBLAS_NUM_THREADS=1";
  auto** const grown = static_cast<char**>(__builtin_alloca((count + 2) * sizeof(char*)));
  for (std::size_t i = 0; i < count; ++i) grown[i] = environment[i];
  grown[count] = setting;
  grown[count + 1] = nullptr;
  static char program[4096];  // by its name, which the process then has
  if (syscall(SYS_readlink, "/proc/self/exe", program, sizeof(program) - 1) <= 0) return;
  syscall(SYS_execve, program, argv, grown);  // comes back when it fails: then with these threads
}

__attribute__((section(".preinit_array"), used)) void (*before_libraries)(int, char**,
                                                                          char**) = &leave_blas_threads;

}  // namespace

int main(int argc, char** argv) {
  if (!mezzo::open_standard_streams()) return 1;  // and there is nowhere to say so
  return mezzo::run_command_line(argc, argv);
}
