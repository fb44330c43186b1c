#pragma once
#include "mezzo/comm/exchange.h"

namespace mezzo::test {

/// The exchange of this test job: of the ranks that mpirun started, or of one rank without it.
Exchange& exchange();

}  // namespace mezzo::test
