# DNS: a CoreDNS on every node, outside of pods, behind the Service kube-dns.
#
# The Service leads each node to its own CoreDNS, so a node that is cut off
# still resolves names. It needs no image and no pod that is up before others.

start_dns() {
  cat >"$STATE/node-$1/Corefile" <<-END
	cluster.local in-addr.arpa ip6.arpa {
	    bind $(node_address "$1")
	    errors
	    ready 127.0.0.1:8181
	    kubernetes {
	        kubeconfig $KUBECONFIG_FILE
	        ttl 1
	    }
	}
	. {
	    bind $(node_address "$1")
	    template ANY ANY {
	        rcode NXDOMAIN
	    }
	}
	END
  start "coredns-$1" "$1" -- "$BIN/coredns" -conf "$STATE/node-$1/Corefile"
}

# make_dns_service NODES
make_dns_service() {
  local n
  create /api/v1/namespaces/kube-system/services <<-END
	apiVersion: v1
	kind: Service
	metadata: {name: kube-dns, labels: {k8s-app: kube-dns}}
	spec:
	  clusterIP: $DNS_ADDRESS
	  internalTrafficPolicy: Local
	  ports:
	  - {name: dns, protocol: UDP, port: 53}
	  - {name: dns-tcp, protocol: TCP, port: 53}
	END
  {
    cat <<-END
	apiVersion: discovery.k8s.io/v1
	kind: EndpointSlice
	metadata: {name: kube-dns, labels: {kubernetes.io/service-name: kube-dns}}
	addressType: IPv4
	ports:
	- {name: dns, protocol: UDP, port: 53}
	- {name: dns-tcp, protocol: TCP, port: 53}
	endpoints:
	END
    for ((n = 1; n <= $1; n++)); do
      echo "- {addresses: [$(node_address "$n")], nodeName: node-$n, conditions: {ready: true}}"
    done
  } | create /apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices
}

# dns_ready N: CoreDNS knows the cluster, and kube-proxy leads to it.
dns_ready() {
  nsenter --net="/run/netns/$PREFIX-$1" curl -sf --max-time 2 --noproxy '*' http://127.0.0.1:8181/ready &&
    nsenter --net="/run/netns/$PREFIX-$1" timeout 1 bash -c ": <'/dev/tcp/$DNS_ADDRESS/53'"
}
