#pragma once
// The lines of tests/data/noise.txt (tests/goldens/make_noise_goldens.py): a kind, then hexadecimal numbers.
#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace mezzo {

inline std::vector<std::vector<std::uint64_t>> noise_golden(const std::string& kind) {
  std::ifstream file(MEZZO_TEST_DATA "/noise.txt");
  std::vector<std::vector<std::uint64_t>> cases;
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string name;
    fields >> name >> std::hex;
    if (name != kind) continue;
    cases.emplace_back();
    for (std::uint64_t value; fields >> value;) cases.back().push_back(value);
  }
  EXPECT_FALSE(cases.empty()) << "no '" << kind << "' in " MEZZO_TEST_DATA "/noise.txt";
  return cases;
}

}  // namespace mezzo
