// main() of tests that run on several ranks: every rank runs all cases in the same order; rank 0 tells of
// progress, the others of failures alone. The job's status is non-zero when a case fails on any rank.
#include "mpi_main.h"

#include <gtest/gtest.h>

#include "mezzo/comm/together.h"

namespace {
mezzo::Exchange* current = nullptr;
}

mezzo::Exchange& mezzo::test::exchange() { return *current; }

int main(int argc, char** argv) {
  std::unique_ptr<mezzo::Exchange> exchange;
  try {
    exchange = mezzo::make_exchange(argc, argv, mezzo::Seconds(120));
    current = exchange.get();
    if (exchange->rank() != 0) testing::GTEST_FLAG(brief) = true;
    testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
  } catch (const std::exception& error) {
    return mezzo::report_failure(exchange.get(), error);
  }
}
