// For builds without Arrow.
#include <nlohmann/json.hpp>

#include "mezzo/core/error.h"
#include "mezzo/io/parquet_file.h"

namespace mezzo {

void read_parquet(const std::string& path, const std::function<void(const nlohmann::json& row)>&) {
  throw InputError(
      "{}: this is a Parquet file, and this build of Mezzo is without Arrow (docs/data.md); make JSON lines "
      "of it: python3 -c 'import pandas, sys; pandas.read_parquet(sys.argv[1]).to_json(sys.argv[2], "
      "orient=\"records\", lines=True)' {} data.jsonl",
      path, path);
}

}  // namespace mezzo
