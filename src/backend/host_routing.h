#pragma once
// What the reference and cpu backends share of mixtures: the places of rows, and checks.
#include <cstdint>
#include <span>

#include "mezzo/backend/backend.h"

namespace mezzo {

/// Turns the experts of rows into their places: `routing.places` of probe p holds the experts of each row and
/// is written over, `rows` and `begins` are filled.
void place_rows(const Routing& routing, std::int64_t p);

// ---- checks: DeviceError
void check_route(const View& logits, const Routing& routing);
void check_dispatch(const ProbeTable& table, const Routing& routing, const View& x, const View& out);
void check_expert_product(const ProbeTable& table, std::span<const Product* const> experts,
                          const Routing& routing, const View& x, const View& y);
void check_combine(const ProbeTable& table, const Routing& routing, const View& x, const View& out);

}  // namespace mezzo
