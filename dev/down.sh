#!/usr/bin/env bash
# Takes away what `make demo` made: the whole cluster where it is ours, else only what was installed on it.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ ${SLUICE_CLUSTER:-} == existing ]]; then
  kubectl delete namespace sluice-demo --ignore-not-found
  helm uninstall sluice --namespace "${SLUICE_NAMESPACE:-sluice-system}" --ignore-not-found
  kubectl delete crd messagebrokers.sluice.dev messagetopics.sluice.dev --ignore-not-found
  kubectl delete namespace "${SLUICE_NAMESPACE:-sluice-system}" --ignore-not-found
else
  dev/cluster/cluster down
fi
