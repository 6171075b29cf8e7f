#!/usr/bin/env bash
# Brings up the cluster, puts the image on it and installs both charts.
# SLUICE_IMAGE names an image that the cluster can pull instead (needed with SLUICE_CLUSTER=existing).
set -euo pipefail
cd "$(dirname "$0")/.."
cluster=(dev/cluster/cluster)
namespace=${SLUICE_NAMESPACE:-sluice-system}
"${cluster[@]}" up
if [[ ${SLUICE_IMAGE:-} ]]; then
  image=$SLUICE_IMAGE
else
  echo "building the image" >&2
  image=$(dev/image.sh)
  "${cluster[@]}" load-image "${CARGO_TARGET_DIR:-target}/image/sluice.tar" >/dev/null
fi
"${cluster[@]}" kubectl get namespace "$namespace" >/dev/null 2>&1 || "${cluster[@]}" kubectl create namespace "$namespace"
"${cluster[@]}" kubectl label --overwrite namespace "$namespace" pod-security.kubernetes.io/enforce=restricted >/dev/null
"${cluster[@]}" helm upgrade --install sluice-crds charts/sluice-crds --namespace "$namespace" >/dev/null
"${cluster[@]}" helm upgrade --install sluice charts/sluice-operator --namespace "$namespace" \
  --set "image.repository=${image%:*}" --set-string "image.tag=${image##*:}" --wait --timeout 2m >/dev/null
echo "the operator $image runs in the namespace $namespace" >&2
