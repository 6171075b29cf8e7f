# Working with a cluster: its tools, commands inside it, images.

# set_tools: PATH and KUBECONFIG for a cluster, wherever it comes from.
set_tools() {
  # A machine with a cluster of its own likely has its tools as well.
  if [[ $SOURCE == built ]] || ! have kubectl helm grpcurl; then
    build_programs
    export PATH=$BIN:$PATH
  fi
  case $SOURCE in
    built)
      [[ -e $KUBECONFIG_FILE ]] || die "there is no cluster '$NAME'; make it with: cluster up"
      export KUBECONFIG=$KUBECONFIG_FILE
      ;;
    kind) export KUBECONFIG=$KUBECONFIG_FILE ;;
  esac
}
have() {
  local program
  for program in "$@"; do command -v "$program" >/dev/null || return 1; done
}

# run_in NODE COMMAND...: in the network of a node, with the names of Services
# resolved as in a pod of the namespace `default`.
run_in() {
  local node=$1
  shift
  (($#)) || die "run what? cluster run [--node NODE] -- COMMAND..."
  set_tools
  if [[ $SOURCE != built || ! $(setting nodes) ]]; then
    [[ ! $node ]] || die "--node: only a cluster built here has nodes to enter"
    exec "$@"
  fi
  need_root
  node=$(node_number "${node:-1}")
  export CONTAINERD_ADDRESS=$STATE/node-$node/containerd.sock CONTAINERD_NAMESPACE=k8s.io
  # shellcheck disable=SC2016 # expanded inside
  exec nsenter --net="/run/netns/$PREFIX-$node" unshare --mount --propagation slave -- \
    bash -c 'mount --bind "$0" /etc/resolv.conf && exec "$@"' "$STATE/resolv.conf" "$@"
}

# load_image ARCHIVE: into every node.
load_image() {
  [[ -r ${1:-} ]] || die "load-image wants an OCI archive, a file; '${1:-}' is none"
  case $SOURCE in
    existing)
      die "this cluster has a container registry of its own: push the image there, and set SLUICE_IMAGE to its name"
      ;;
    kind)
      set_tools
      kind load image-archive "$1" --name "$PREFIX"
      return
      ;;
  esac
  local n pid pids=() archive
  build_programs
  archive=$(realpath "$1")
  [[ $(setting nodes) ]] || die "the cluster '$NAME' has no nodes to load an image into"
  for ((n = 1; n <= $(setting nodes); n++)); do
    ctr "$n" images import "$archive" >"$STATE/logs/load-image-$n.log" 2>&1 &
    pids+=($!)
  done
  n=0
  for pid in "${pids[@]}"; do
    n=$((n + 1))
    wait "$pid" || die "node-$n: $(<"$STATE/logs/load-image-$n.log")"
  done
  grep -E '\bsaved\b' "$STATE/logs/load-image-1.log" >&2 || true
}

partition() {
  need_root
  local n
  n=$(node_number "$1")
  partition_node "$n"
  say "node-$n is cut off: NotReady in about 24 s; to undo: cluster heal node-$n"
}

heal() {
  need_root
  local n
  n=$(node_number "$1")
  heal_node "$n"
  say "node-$n is linked again: Ready in about 8 s"
}

# print_env: for `eval "$(cluster env)"`.
print_env() {
  set_tools
  [[ ! ${KUBECONFIG:-} ]] || printf 'export KUBECONFIG=%q\n' "$KUBECONFIG"
  [[ ! ${BIN:-} ]] || printf 'export PATH=%q:"$PATH"\n' "$BIN"
}
