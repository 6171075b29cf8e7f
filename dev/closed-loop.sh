#!/usr/bin/env bash
# Loads and faults on a cluster of its own, each beside what `sluice simulate` says: closed-loop.sh [SCENARIO...].
# Writes docs/closed-loop.md. All scenarios take about 40 minutes, `step` about 4. Needs root; takes the cluster down again.
# SLUICE_IMAGE_TAR and SLUICE_IMAGE name an image that is built already.
set -euo pipefail
cd "$(dirname "$0")/.."
name=sluice-loop
cluster=(dev/cluster/cluster)
finish() { "${cluster[@]}" down --name "$name" >/dev/null; }
trap finish EXIT
trap 'exit 130' INT TERM
"${cluster[@]}" up --nodes 1 --name "$name"
image=${SLUICE_IMAGE:-$(dev/image.sh)}
"${cluster[@]}" load-image --name "$name" "${SLUICE_IMAGE_TAR:-${CARGO_TARGET_DIR:-target}/image/sluice.tar}" >/dev/null
eval "$("${cluster[@]}" env --name "$name")"
namespace=sluice-system
kubectl create namespace "$namespace" >/dev/null
helm upgrade --install sluice-crds charts/sluice-crds --namespace "$namespace" >/dev/null
helm upgrade --install sluice charts/sluice-operator --namespace "$namespace" \
  --set "image.repository=${image%:*}" --set-string "image.tag=${image##*:}" --wait --timeout 2m >/dev/null
SLUICE_IMAGE=$image cargo run --quiet --locked --example closed_loop -- "$@"
