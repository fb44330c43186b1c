// The one executable. Compiled for any x86-64, so that a processor too old for the rest gets a sentence and
// no trap.
#include <unistd.h>

namespace mezzo {
int run_command_line(int argc, char** argv);
}

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

}  // namespace

int main(int argc, char** argv) { return mezzo::run_command_line(argc, argv); }
