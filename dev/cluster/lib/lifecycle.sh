# up, down and status of the cluster that is built here.

# up NODES API_ONLY CONTROLLERS: NODES may be empty, for "as it is, else 1".
up() {
  local nodes=$1 api_only=$2 controllers=$3 wanted
  wanted=$(kind_of_cluster "${nodes:-1}" "$api_only" "$controllers")
  lock
  if is_whole; then
    if [[ $(setting kind) == "$wanted" ]] || { [[ ! $nodes$api_only && $(setting nodes) ]]; }; then
      say "the cluster '$NAME' already runs: $(setting kind)"
      heal_all
      build_programs
      [[ $(setting programs) == "$BIN" ]] || say "of other versions than are wanted now: cluster down, and up, for those"
      return
    fi
    die "the cluster '$NAME' already runs, but as: $(setting kind)
to have instead: $wanted
first end it: cluster down --name $NAME    (what is in it is lost)
or leave it and make another beside it: --name OTHER"
  fi
  [[ ! $api_only ]] && need_root
  if [[ -d $STATE || ($EUID == 0 && $(namespaces)) ]]; then
    say "cleaning up after a cluster '$NAME' that did not end well:" \
      "$(dead_parts | tr '\n' ' ')"
    remove_cluster
  fi
  install_packages "${API_PROGRAMS[@]}"
  [[ $api_only ]] || install_packages "${NODE_PROGRAMS[@]}"
  build_programs
  STARTED=${EPOCHREALTIME/,/.} # the time to build and install is not the start's
  mkdir -p "$STATE"/{settings,processes,logs}
  setting kind "$wanted"
  setting programs "$BIN"
  if [[ $api_only ]]; then
    up_api "$controllers"
  else
    up_nodes "${nodes:-1}"
  fi
  setting whole yes
  step "ready: export KUBECONFIG=$KUBECONFIG_FILE"
}

# heal_all: a test that was cut short may have left a node cut off.
heal_all() {
  local n nodes
  nodes=$(setting nodes)
  for ((n = 1; n <= ${nodes:-0}; n++)); do
    ! is_partitioned "$n" || heal "$n"
  done
}

kind_of_cluster() {
  if [[ ! $2 ]]; then
    echo "$1 node(s)"
  else
    echo "API server only${3:+, with controllers}"
  fi
}

up_api() {
  local etcd_port peer_port port
  make_pki
  read -r etcd_port peer_port port <<<"$(free_ports 3)"
  kubeconfig_for admin "https://127.0.0.1:$port" "$KUBECONFIG_FILE"
  start_etcd "$etcd_port" "$peer_port"
  start_apiserver "$etcd_port" 127.0.0.1 "$port"
  wait_until 60 "the API server" api_ready
  step "API server on 127.0.0.1:$port"
  if [[ $1 ]]; then
    start_controllers 0
    wait_until 30 "the controllers" default_account
    step "controllers"
  fi
}

up_nodes() {
  local nodes=$1 n
  setting nodes "$nodes"
  load_modules
  make_network "$nodes"
  for ((n = 1; n <= nodes; n++)); do make_cgroup "$PREFIX-$n/system"; done
  step "network of $nodes node(s)"
  for ((n = 1; n <= nodes; n++)); do start_holder "$n"; done
  make_pki "$(node_address 1)"
  kubeconfig_for admin "https://$(node_address 1):6443" "$KUBECONFIG_FILE"
  start_etcd 2379 2380 1
  start_apiserver 2379 "$(node_address 1)" 6443 1
  for ((n = 1; n <= nodes; n++)); do start_containerd "$n"; done
  for ((n = 1; n <= nodes; n++)); do load_pause_image "$n"; done
  step "containerd"
  wait_until 60 "the API server" api_ready
  step "API server at $(server)"
  for ((n = 1; n <= nodes; n++)); do start_kubelet "$n"; done
  start_controllers 10257 1
  start_scheduler
  for ((n = 1; n <= nodes; n++)); do
    start_proxy "$n"
    start_dns "$n"
  done
  start_provisioner
  make_storage_class
  make_dns_service "$nodes"
  for ((n = 1; n <= nodes; n++)); do wait_until 30 "DNS of node-$n" dns_ready "$n"; done
  step "DNS"
  wait_until 60 "the nodes" nodes_ready "$nodes"
  step "nodes are Ready"
  wait_until 30 "the controllers" default_account
}

load_modules() {
  local module
  for module in overlay br_netfilter nf_tables nft_chain_nat nft_masq; do
    modprobe -q "$module" 2>/dev/null || true # or built into the kernel
  done
}

# is_whole: it was started to the end, all its parts run, and it answers.
is_whole() { [[ -e $STATE/settings/whole && ! $(dead_parts) ]] && api_ready >/dev/null 2>&1; }

down() {
  if [[ ! -e $STATE && ! -e $STATE.lock ]] && { ((EUID)) || [[ ! $(namespaces) ]]; }; then
    say "there is no cluster '$NAME'"
    return
  fi
  lock
  remove_cluster
  rm -f "$STATE.lock"
  rmdir "$(dirname "$STATE")" 2>/dev/null || true
  step "the cluster '$NAME' is gone"
}

# remove_cluster: works on whatever a cluster has left, in any condition.
remove_cluster() {
  local n mount
  kill_parts
  if ((EUID == 0)); then
    for n in {1..9}; do remove_cgroup "$PREFIX-$n"; done
    remove_network
    # Only what someone else mounted here: ours were never seen outside.
    for mount in $(awk -v state="$STATE/" 'index($2, state) == 1 { print $2 }' /proc/mounts | sort -r); do
      umount "$mount" || umount --lazy "$mount"
    done
    [[ ! $(setting made_cni_folder) ]] || rmdir /var/lib/cni 2>/dev/null || true
  fi
  rm -rf --one-file-system "$STATE"
}

# status: what runs; fails unless all of it does.
status() {
  local part pid n nodes
  if [[ ! -d $STATE ]]; then
    say "there is no cluster '$NAME'; make it with: cluster up"
    return 1
  fi
  echo "cluster     $NAME: $(setting kind)"
  echo "state       $STATE"
  echo "kubeconfig  $KUBECONFIG_FILE"
  printf '\n%-26s %8s %10s\n' PART PID MEMORY
  for part in $(parts); do
    if pid=$(pid_of "$part"); then
      printf '%-26s %8d %7d MB\n' "$part" "$pid" "$(awk '$1 == "VmRSS:" { print int($2 / 1024) }' "/proc/$pid/status")"
    else
      printf '%-26s %8s\n' "$part" "ENDED"
    fi
  done
  nodes=$(setting nodes)
  for ((n = 1; n <= ${nodes:-0}; n++)); do
    ! is_partitioned "$n" || printf '\nnode-%d is partitioned; to undo: cluster heal node-%d\n' "$n" "$n"
  done
  is_whole || {
    say "not whole: cluster up makes it anew"
    return 1
  }
}
