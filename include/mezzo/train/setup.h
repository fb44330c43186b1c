#pragma once
// From a config to all that its run works with, the run's folder included.
#include <memory>
#include <optional>

#include "mezzo/comm/exchange.h"
#include "mezzo/core/config.h"
#include "mezzo/core/log.h"
#include "mezzo/io/files.h"
#include "mezzo/train/evaluator.h"
#include "mezzo/train/inputs.h"
#include "mezzo/train/loaded_model.h"
#include "mezzo/train/planner.h"
#include "mezzo/train/replay.h"
#include "mezzo/train/start.h"
#include "mezzo/train/step.h"
#include "mezzo/train/train_options.h"

namespace mezzo {

/// A rank's part of a run. All but `placement`, `lock` and `plan` are the same on every rank.
struct RunSetup {
  RunFolder folder;
  std::optional<FolderLock> lock;  ///< rank 0's, as long as this lives
  Placement placement;
  std::unique_ptr<Inputs> inputs;
  RunHeader header;
  RunStart start;

  std::unique_ptr<Backend> backend;

  // Empty where start.finished:
  std::unique_ptr<LoadedModel> model;    ///< with the trainables of start.step
  std::unique_ptr<Evaluator> evaluator;  ///< with data.validation only
  GroupPlan plan;                        ///< of a step's forwards
  std::unique_ptr<Step> step;            ///< connected
};

/// Opens and checks what `config` names, looks at the folder, loads the model and plans its forwards, on all
/// ranks together. Errors that all ranks share are JobFailed.
RunSetup run_setup(const Config& config, const TrainOptions& options, Exchange& exchange, Logger& log);
/// The same for steps that leave nothing behind: at the run's initial trainables, and no folder is touched.
RunSetup trial_setup(const Config& config, Exchange& exchange, Logger& log);

}  // namespace mezzo
