#pragma once
// A weight matrix in a backend's memory: what its elements are, where it lives, and what room its rows have.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "mezzo/core/types.h"

namespace mezzo {

/// What a weight's codes are. An element of the quantised types (fp8, int8, int4) is code * scale. No backend
/// serves these yet: the first that does says here how it packs its codes.
enum class WeightType : std::uint8_t { f32, bf16, fp8, int8, int4 };
std::string_view name_of(WeightType type);  ///< "fp32", "bf16", "fp8", "int8", "int4"

/// Where a weight lives. host_ring: in host memory, from where it comes to the device a layer at a time.
enum class Residence : std::uint8_t { device, host_ring };
std::string_view name_of(Residence residence);  ///< "the device", "a host ring"

/// W [out, in]. A view: the model owns the storage.
struct Weight {
  WeightType type = WeightType::f32;
  Residence residence = Residence::device;
  View codes = {};               ///< [out, in]; dtype is the type's own for f32 and bf16
  View scales = {};              ///< [out, groups of a row] fp32; empty for f32 and bf16
  std::int64_t stored_rows = 0;  ///< of the codes' storage, which may have more than out(); 0: out()
  /// Elements behind `in` of a row that a backend may write tails' columns to. Products whose tails have no
  /// room here add them in scratch.
  std::int64_t tail_columns = 0;

  std::int64_t out() const { return codes.rows; }
  std::int64_t in() const { return codes.cols; }
  /// Of the codes' storage.
  std::size_t bytes() const;
};

}  // namespace mezzo
