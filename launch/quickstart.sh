#!/usr/bin/env bash
# From a bare clone to a fine-tuned adapter: installs what is missing, builds, and trains the embedded small model on
# the embedded examples. Further arguments go to `mezzo train`, e.g. train.seed=2 train.output_dir=runs/second.
set -euo pipefail
cd "$(dirname "$0")/.."

launch/install-packages.sh
cmake --preset release
cmake --build --preset release --target mezzo

mezzo=build/release/src/cli/mezzo
"$mezzo" train configs/quickstart.yaml "$@"
echo "adapter: runs/quickstart/adapter (unless train.output_dir says otherwise); try:"
echo "  $mezzo eval configs/quickstart.yaml --adapter runs/quickstart/adapter"
