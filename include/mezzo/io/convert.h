#pragma once
// Element types of files to and from fp32. Bytes are little-endian and need no alignment: a file's tensors
// may start anywhere.
#include <cstddef>
#include <span>

#include "mezzo/core/types.h"

namespace mezzo {

bool is_float(DType dtype);  ///< f32, f16, bf16, f64

/// Converts out.size() elements of a float type at `source`. f32, f16 and bf16 are exact; f64 is rounded to
/// nearest even, beyond fp32's range to infinity. NaN stays NaN. Throws Error for a type that is_float()
/// denies.
void to_float(DType dtype, const std::byte* source, std::span<float> out);

/// Converts to a float type, values.size() elements at `out`, rounding to nearest even. Throws as to_float().
void from_float(std::span<const float> values, DType dtype, std::byte* out);

/// The same from doubles, each rounded once to `dtype`: not to fp32 on the way.
void from_double(std::span<const double> values, DType dtype, std::byte* out);

}  // namespace mezzo
