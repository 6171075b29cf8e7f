# A node: a network namespace and a mount namespace, in which containerd, the
# kubelet, kube-proxy and CoreDNS run. Its mounts are seen by nobody
# else and end with its last process, so none can be left behind.

# enter_node N PART: the words that put a command into a node, one a line. The
# first part makes the mount namespace and holds it; the others enter it.
enter_node() {
  printf '%s\n' nsenter "--net=/run/netns/$PREFIX-$1"
  if [[ $2 == "node-$1" ]]; then
    # What is mounted on the machine later is seen in the node as well.
    printf '%s\n' unshare --mount --propagation slave --
  else
    printf '%s\n' "--mount=/proc/$(pid_of "node-$1")/ns/mnt" "--wd=$STATE" --
  fi
}

# start_holder N: private copies of the few folders whose places cannot be
# configured, then a process that only waits.
start_holder() {
  local node=$STATE/node-$1
  mkdir -p "$node"/{log,cni-cache,kubelet,pods-logs,containerd} "$STATE/volumes/node-$1"
  if [[ ! -d /var/lib/cni ]]; then
    mkdir -p /var/lib/cni
    setting made_cni_folder yes
  fi
  printf 'search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver %s\noptions ndots:5\n' \
    "$DNS_ADDRESS" >"$STATE/resolv.conf"
  # shellcheck disable=SC2016 # expanded in the node
  start "node-$1" "$1" -- bash -c '
    set -e
    mount --make-rshared /
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir -p /run/lock /run/containerd
    mount --bind "$1/log" /var/log
    mount --bind "$1/cni-cache" /var/lib/cni
    touch "$1/prepared"
    exec "$2"
  ' holder "$node" "$BIN/pause"
  wait_until 5 "node-$1" test -e "$node/prepared"
}

start_containerd() {
  local node=$STATE/node-$1
  mkdir -p "$node/cni"
  cat >"$node/cni/10-sluice.conflist" <<-END
	{"cniVersion": "1.0.0", "name": "sluice", "plugins": [
	  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipMasq": false,
	   "ipam": {"type": "host-local", "dataDir": "$node/addresses",
	            "ranges": [[{"subnet": "10.244.$1.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
	  {"type": "portmap", "capabilities": {"portMappings": true}}
	]}
	END
  cat >"$node/containerd.toml" <<-END
	version = 3
	root = "$node/containerd"
	state = "/run/containerd"
	oom_score = 0
	imports = []
	disabled_plugins = [
	  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
	  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.erofs",
	  "io.containerd.snapshotter.v1.blockfile", "io.containerd.differ.v1.erofs", "io.containerd.nri.v1.nri",
	]
	[grpc]
	  address = "$node/containerd.sock"
	[ttrpc]
	  address = "$node/containerd.ttrpc.sock"
	[plugins."io.containerd.internal.v1.opt"]
	  path = "$node/opt"
	[plugins."io.containerd.cri.v1.images"]
	  snapshotter = "overlayfs"
	  [plugins."io.containerd.cri.v1.images".pinned_images]
	    sandbox = "$PAUSE_IMAGE"
	[plugins."io.containerd.cri.v1.runtime"]
	  restrict_oom_score_adj = true
	  disable_apparmor = true
	  enable_unprivileged_ports = true
	  enable_unprivileged_icmp = true
	  [plugins."io.containerd.cri.v1.runtime".cni]
	    bin_dirs = ["/usr/lib/cni"]
	    conf_dir = "$node/cni"
	  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
	    runtime_type = "io.containerd.runc.v2"
	    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
	      SystemdCgroup = false
	END
  # It looks for its shim in PATH.
  start "containerd-$1" "$1" -- env PATH="$BIN:$PATH" "$BIN/containerd" --config "$node/containerd.toml"
}

ctr() {
  local node=$1
  shift
  "$BIN/ctr" --address "$STATE/node-$node/containerd.sock" --namespace k8s.io "$@"
}

load_pause_image() {
  wait_until 20 "containerd of node-$1" ctr "$1" version
  ctr "$1" images import "$PAUSE_ARCHIVE" >>"$STATE/logs/load-image-$1.log" 2>&1 ||
    die "node-$1: $(<"$STATE/logs/load-image-$1.log")"
}

start_kubelet() {
  local node=$STATE/node-$1 address
  address=$(node_address "$1")
  certificate "kubelet-$1" "/O=system:nodes/CN=system:node:node-$1" ca "DNS:node-$1,IP:$address"
  kubeconfig_for "kubelet-$1" "$(server)" "$node/kubelet.kubeconfig"
  : >"$node/resolv.conf" # names outside the cluster are not resolved
  cat >"$node/kubelet.yaml" <<-END
	apiVersion: kubelet.config.k8s.io/v1beta1
	kind: KubeletConfiguration
	containerRuntimeEndpoint: unix://$node/containerd.sock
	authentication:
	  anonymous: {enabled: false}
	  webhook: {enabled: true}
	  x509: {clientCAFile: $STATE/pki/ca.crt}
	authorization: {mode: Webhook}
	tlsCertFile: $STATE/pki/kubelet-$1.crt
	tlsPrivateKeyFile: $STATE/pki/kubelet-$1.key
	cgroupDriver: cgroupfs
	cgroupRoot: /$PREFIX-$1
	failSwapOn: false
	failCgroupV1: false
	featureGates: {KubeletInUserNamespace: true}
	clusterDNS: [$DNS_ADDRESS]
	clusterDomain: cluster.local
	resolvConf: $node/resolv.conf
	podLogsDir: $node/pods-logs
	volumePluginDir: $node/plugins
	maxPods: 110
	nodeStatusUpdateFrequency: 4s
	serializeImagePulls: false
	makeIPTablesUtilChains: false
	imageGCHighThresholdPercent: 100
	imageGCLowThresholdPercent: 99
	evictionHard: {memory.available: 50Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%}
	readOnlyPort: 0
	enableDebuggingHandlers: true
	END
  start "kubelet-$1" "$1" -- "$BIN/kubelet" --config="$node/kubelet.yaml" \
    --kubeconfig="$node/kubelet.kubeconfig" --root-dir="$node/kubelet" --cert-dir="$node/kubelet/pki" \
    --hostname-override="node-$1" --node-ip="$address" \
    --node-labels="topology.kubernetes.io/region=sluice,topology.kubernetes.io/zone=zone-$1"
}

start_proxy() {
  cat >"$STATE/node-$1/proxy.yaml" <<-END
	apiVersion: kubeproxy.config.k8s.io/v1alpha1
	kind: KubeProxyConfiguration
	mode: nftables
	clientConnection: {kubeconfig: $KUBECONFIG_FILE}
	hostnameOverride: node-$1
	clusterCIDR: $POD_CIDR
	conntrack: {maxPerCore: 0, min: 0}
	END
  start "kube-proxy-$1" "$1" -- "$BIN/kube-proxy" --config="$STATE/node-$1/proxy.yaml"
}

# nodes_ready COUNT: all of them Ready, and free of the taints of a new node.
nodes_ready() {
  local nodes
  nodes=$(api /api/v1/nodes | tr -d ' \n')
  [[ $nodes != *'"taints"'* ]] && (($(grep -o '"type":"Ready","status":"True"' <<<"$nodes" | wc -l) == $1))
}
