#pragma once
// Every update rule, with a start that pulls and without, and constants that round.
#include <vector>

#include "mezzo/core/update.h"

namespace mezzo::test {

inline std::vector<UpdateFactors> all_update_rules(float learning_rate, float weight_decay) {
  std::vector<UpdateFactors> all;
  for (const UpdateRule rule :
       {UpdateRule::sgd, UpdateRule::momentum, UpdateRule::nesterov, UpdateRule::sign, UpdateRule::adam}) {
    for (const bool anchored : {false, true}) {
      UpdateFactors f = sgd_factors(learning_rate, weight_decay);
      f.rule = rule;
      f.anchored = anchored;
      f.anchor = 7e-4f;  // counts only where anchored
      f.momentum = 0.9f;
      f.gain = 0.1f;
      f.second_momentum = 0.99f;
      f.second_gain = 0.01f;
      f.root_factor = 3.3f;
      f.epsilon = 1e-8f;
      all.push_back(f);
      f.scalar_second = true;
      if (rule == UpdateRule::adam) all.push_back(f);
    }
  }
  return all;
}

}  // namespace mezzo::test
