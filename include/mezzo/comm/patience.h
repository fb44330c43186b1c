#pragma once
#include <chrono>

namespace mezzo {

using Seconds = std::chrono::duration<double>;

/// How long a rank is waited for.
struct Patience {
  Seconds silence;  ///< without a heartbeat from it: it is dead, stopped or cut off
  Seconds work;     ///< from the moment in which it is waited for, though it lives: it is a straggler
};

/// Before there is a config, and for what is never to take long: a silent rank is named within half a minute.
inline constexpr Patience starting_patience{Seconds(20), Seconds(60)};

}  // namespace mezzo
