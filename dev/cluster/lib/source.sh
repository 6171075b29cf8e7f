# Where the cluster comes from: SLUICE_CLUSTER says, or else what is there.
#
# existing  whatever KUBECONFIG points at; nothing is started or ended
# kind      kind, with a Docker engine that answers
# built     from the Go module registry, on this machine

set_source() {
  SOURCE=${SLUICE_CLUSTER:-}
  if [[ ! $SOURCE ]]; then
    SOURCE=built
    # One that was built here stays in use when kind is installed later.
    if [[ ! -d $STATE/processes ]] && command -v kind >/dev/null && docker info >/dev/null 2>&1; then
      SOURCE=kind
    fi
  fi
  # `--api-only` is always built here, whatever the nodes come from.
  [[ $(setting kind) != API* ]] || SOURCE=built
  case $SOURCE in
    existing | kind | built) ;;
    *) die "SLUICE_CLUSTER is 'existing', 'kind' or 'built', not '$SOURCE'" ;;
  esac
}

existing_up() {
  set_tools
  kubectl get --raw /readyz >/dev/null || die "SLUICE_CLUSTER=existing, but no cluster answers by KUBECONFIG=${KUBECONFIG:-}"
  say "using the existing cluster: $(kubectl config current-context)"
}

# kind_up NODES
kind_up() {
  local nodes=${1:-1} n
  command -v kind >/dev/null || die "SLUICE_CLUSTER=kind, but there is no program kind"
  docker info >/dev/null 2>&1 || die "SLUICE_CLUSTER=kind, but no Docker engine answers"
  mkdir -p "$STATE"
  if ! kind get clusters 2>/dev/null | grep -qxF "$PREFIX"; then
    {
      printf 'kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes:\n'
      for ((n = 1; n <= nodes; n++)); do
        if ((n == 1)); then echo "- role: control-plane"; else echo "- role: worker"; fi
        printf '  labels: {topology.kubernetes.io/zone: zone-%d}\n' "$n"
      done
    } >"$STATE/kind.yaml"
    kind create cluster --name "$PREFIX" --config "$STATE/kind.yaml" --kubeconfig "$KUBECONFIG_FILE" --wait 120s
  fi
  kind export kubeconfig --name "$PREFIX" --kubeconfig "$KUBECONFIG_FILE"
}

kind_down() {
  kind delete cluster --name "$PREFIX" --kubeconfig "$KUBECONFIG_FILE"
  rm -rf "$STATE"
}
