#!/usr/bin/env bash
# Writes what is generated from the code: the definitions in crds/ and charts/sluice-crds, the chart's README.
# With --check: says what differs, and fails if anything does.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ ${1:-} == --check ]]; then
  copy=$(mktemp -d)
  trap 'rm -rf "$copy"' EXIT
  cp -r charts crds "$copy"
  dev/generate.sh
  if ! diff -ru "$copy/crds" crds || ! diff -ru "$copy/charts" charts; then
    rm -rf crds charts
    cp -r "$copy/crds" "$copy/charts" .
    echo "generate: these differ from the code; write them with make generate" >&2
    exit 1
  fi
  exit
fi
cargo run --quiet --locked -- crd --write .
charts/readme.py
