#!/usr/bin/env bash
# Installs what is missing, then builds and runs all tests twice: of a release build as it is shipped, and of one without
# CUDA under the address and undefined-behaviour sanitizers. Tests that need a GPU say that they were skipped where there is
# none.
set -euo pipefail
cd "$(dirname "$0")/.."

launch/install-packages.sh
jobs=$(nproc)
for preset in ci asan-ubsan; do
  cmake --preset "$preset"
  cmake --build --preset "$preset" --parallel "$jobs"
  ctest --preset "$preset" --parallel "$jobs"
done
