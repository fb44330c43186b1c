#include "kernels/reference/rows.h"

namespace mezzo::reference {

void embed(Rows<const float> table, const std::int32_t* tokens, Rows<const float> positions_table,
           const std::int32_t* positions, std::int64_t position_offset, std::int64_t rows, std::int64_t cols,
           Rows<float> h) {
  for (std::int64_t t = 0; t < rows; ++t) {
    for (std::int64_t j = 0; j < cols; ++j) {
      float value = table.row(tokens[t])[j];
      if (positions_table) value += positions_table.row(positions[t] + position_offset)[j];
      h.row(t)[j] = value;
    }
  }
}

void gather(Rows<const float> x, const std::int32_t* index, std::int64_t rows, std::int64_t cols,
            Rows<float> out) {
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < cols; ++j) out.row(i)[j] = x.row(index[i])[j];
  }
}

}  // namespace mezzo::reference
