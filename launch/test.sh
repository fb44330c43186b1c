#!/usr/bin/env bash
# Installs what is missing, builds, and runs all tests of a release build as it is shipped. With --sanitizers also a build
# without CUDA under the address and undefined-behaviour sanitizers. Tests that need a GPU say that they were skipped where
# there is none.
set -euo pipefail
cd "$(dirname "$0")/.."

presets=(ci)
if [ "${1:-}" = --sanitizers ]; then presets+=(asan-ubsan); fi

launch/install-packages.sh
jobs=$(nproc)
for preset in "${presets[@]}"; do
  cmake --preset "$preset"
  cmake --build --preset "$preset" --parallel "$jobs"
  ctest --preset "$preset" --parallel "$jobs"
done
