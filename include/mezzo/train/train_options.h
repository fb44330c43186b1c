#pragma once

namespace mezzo {

/// What is asked of a training run besides its config.
struct TrainOptions {
  bool overwrite = false;    ///< a run in the folder may be replaced
  bool show_config = false;  ///< the whole resolved config at the start, not its difference from the defaults
};

}  // namespace mezzo
