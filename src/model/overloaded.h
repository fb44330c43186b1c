#pragma once

namespace mezzo {

/// A visitor of a variant, made of one function for each alternative.
template <typename... F>
struct Overloaded : F... {
  using F::operator()...;
};

}  // namespace mezzo
