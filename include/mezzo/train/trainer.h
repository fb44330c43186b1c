#pragma once
#include "mezzo/comm/exchange.h"
#include "mezzo/core/config.h"
#include "mezzo/core/log.h"
#include "mezzo/core/stop_signal.h"
#include "mezzo/train/train_options.h"

namespace mezzo {

enum class TrainResult { finished, already_finished, stopped };

/// Runs `config` on all ranks of `exchange`, from its start or from where its folder says that it stopped,
/// and leaves the run's folder as docs/file-formats.md says. Returns the same on every rank. Errors that all
/// ranks share are JobFailed.
TrainResult train(const Config& config, const TrainOptions& options, Exchange& exchange,
                  const StopSignal& stop, Logger& log);

}  // namespace mezzo
