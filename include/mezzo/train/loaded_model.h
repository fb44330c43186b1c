#pragma once
#include <utility>

#include "mezzo/backend/backend.h"
#include "mezzo/model/decoder.h"
#include "mezzo/train/probe_runner.h"
#include "mezzo/train/replay.h"
#include "mezzo/zo/parameter_space.h"

namespace mezzo {

/// A model on a backend: what is trained of it, its decoder, and what runs their forwards. The weights come
/// by decoder.load() or decoder.randomize(). Not movable: the decoder refers to the trainables.
class LoadedModel {
 public:
  /// The base model alone.
  LoadedModel(Backend& on, const Description& description)
      : backend(on), decoder(on, description, {}), runner(on, decoder) {}
  /// `trained`: the trainables of `space`, and the state of an optimizer where steps are to be taken.
  LoadedModel(Backend& on, const Description& description, const ParameterSpace& space, TrainedState trained)
      : backend(on),
        state(std::move(trained)),
        decoder(on, description, space.perturbations(description, state.trainables)),
        runner(on, decoder) {}
  LoadedModel(const LoadedModel&) = delete;
  LoadedModel& operator=(const LoadedModel&) = delete;

  Backend& backend;
  TrainedState state;
  Decoder decoder;
  ProbeRunner runner;
};

}  // namespace mezzo
