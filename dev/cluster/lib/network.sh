# The network: a namespace for each node, joined by a bridge in a namespace of
# its own, and one link from there to this machine.
#
#     this machine          PREFIX-net              PREFIX-1, -2, -3
#     10.240.K.1 ── uplink ─ br0 ─ u1, u2, u3 ───── eth0 10.240.K.11, .12, .13
#                                                   cni0 10.244.N.1, pods behind it
#
# There is no default route in it: nothing of a cluster reaches, or is reached
# from, anything but this machine.

SERVICE_CIDR=10.96.0.0/16
POD_CIDR=10.244.0.0/16
DNS_ADDRESS=10.96.0.10

# node_address N, host_address, host_link: K is the cluster's own number.
node_address() { echo "10.240.$(setting subnet).1$1"; }
host_address() { echo "10.240.$(setting subnet).1"; }
host_link() { echo "sluice$(setting subnet)"; }

# make_host_link: with the first subnet that no address of this machine is in.
make_host_link() {
  local k addresses
  addresses=$(ip -4 -o addr show)
  for k in {0..250}; do
    [[ $addresses != *" 10.240.$k."* ]] || continue
    # Fails if another cluster has just taken it.
    ip link add "sluice$k" type veth peer name uplink netns "$PREFIX-net" 2>/dev/null || continue
    setting subnet "$k"
    ip addr add "$(host_address)/24" dev "$(host_link)"
    ip link set "$(host_link)" up
    return
  done
  die "no subnet of 10.240.0.0/16 is free"
}

# make_network NODES
make_network() {
  local nodes=$1 n m node net=$PREFIX-net
  ip netns add "$net"
  make_host_link
  ip -n "$net" -batch - <<-END
	link add br0 type bridge
	link set lo up
	link set br0 up
	link set uplink master br0 up
	END
  for ((n = 1; n <= nodes; n++)); do
    node=$PREFIX-$n
    ip netns add "$node"
    ip -n "$net" link add "u$n" type veth peer name eth0 netns "$node"
    ip -n "$net" link set "u$n" master br0 up
    {
      echo "link set lo up"
      echo "addr add $(node_address "$n")/24 dev eth0"
      echo "link set eth0 up"
      # Services have addresses, but kube-proxy rewrites them only once a
      # route has been found.
      echo "route add $SERVICE_CIDR dev eth0 src $(node_address "$n")"
      for ((m = 1; m <= nodes; m++)); do
        ((m == n)) || echo "route add 10.244.$m.0/24 via $(node_address "$m")"
      done
    } | ip -n "$node" -batch -
    nsenter --net="/run/netns/$node" sysctl -qw net.ipv4.ip_forward=1 \
      net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
    # Without it, answers between two pods of one node go around kube-proxy.
    nsenter --net="/run/netns/$node" sysctl -qw net.bridge.bridge-nf-call-iptables=1 ||
      say "warning: no br_netfilter: a pod may not reach a Service that is served on its own node"
  done
}

# namespaces: those of this cluster that exist, also of one that died.
namespaces() {
  local name
  for name in "$PREFIX"-{net,1,2,3,4,5,6,7,8,9}; do
    [[ ! -e /run/netns/$name ]] || echo "$name"
  done
}

# remove_network: also ends what still runs in it, such as a shell of `run`.
remove_network() {
  local name pids try
  for name in $(namespaces); do
    for try in {1..100}; do
      pids=$(ip netns pids "$name" 2>/dev/null | grep -vxF "$(own_pids)" || true)
      [[ $pids ]] || break
      # shellcheck disable=SC2086 # one argument a pid
      kill -KILL $pids 2>/dev/null || true
      sleep 0.02
    done
    ((try < 100)) || die "processes in $name do not end: $pids"
  done
  ip -n "$PREFIX-net" link del uplink 2>/dev/null || true # and with it, our end
  for name in $(namespaces); do
    ip netns del "$name" 2>/dev/null || rm -f "/run/netns/$name"
  done
}

# own_pids: this process and its parents, should `down` be run inside `run`.
own_pids() {
  local pid=$$
  while ((pid > 1)); do
    echo "$pid"
    pid=$(awk '$1 == "PPid:" { print $2 }' "/proc/$pid/status")
  done
}

# partition_node N, heal_node N: cut and restore the link of a node.
partition_node() { ip -n "$PREFIX-net" link set "u$1" down; }
heal_node() { ip -n "$PREFIX-net" link set "u$1" up; }
is_partitioned() { ! ip -n "$PREFIX-net" -o link show "u$1" | grep -q '[<,]UP[,>]'; }
