#pragma once
#include <cstdint>

#include "kernels/rows.h"

namespace mezzo::reference {

/// logits = W x + bias of one row: W [vocab, in], `bias` [vocab] may be null; logits [vocab].
void head_logits(const float* x, std::int64_t in, Rows<const float> weight, std::int64_t vocab,
                 const float* bias, double* logits);

/// log sum_v exp(logits[v]).
double log_sum_exp(const double* logits, std::int64_t vocab);

}  // namespace mezzo::reference
