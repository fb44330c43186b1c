#pragma once
// Looking up and copying rows.
#include <cstdint>

#include "kernels/rows.h"

namespace mezzo::reference {

/// h[t] = table[tokens[t]] + positions_table[positions[t] + position_offset]; the second term is left out
/// where positions_table has no data. t < rows, each row `cols` wide.
void embed(Rows<const float> table, const std::int32_t* tokens, Rows<const float> positions_table,
           const std::int32_t* positions, std::int64_t position_offset, std::int64_t rows, std::int64_t cols,
           Rows<float> h);

/// out[i] = x[index[i]], i < rows.
void gather(Rows<const float> x, const std::int32_t* index, std::int64_t rows, std::int64_t cols,
            Rows<float> out);

}  // namespace mezzo::reference
