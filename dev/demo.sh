#!/usr/bin/env bash
# Brokers on a real Kubernetes, traffic flowing, a scale-up and a scale-down; ends with a table and
# target/demo/summary.json. May be run again. `make down` takes everything away.
set -euo pipefail
cd "$(dirname "$0")/.."
dev/install.sh
image=${SLUICE_IMAGE:-$(cat "${CARGO_TARGET_DIR:-target}/image/name")}
eval "$(dev/cluster/cluster env)"
demo=$(dev/static.sh --example demo)
SLUICE_IMAGE=$image "$demo" "$@"
