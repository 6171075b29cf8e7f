# The control plane: etcd, the API server, the controllers, the scheduler.
#
# It runs on node 1 of a cluster; with --api-only, on this machine's loopback.

ISSUER=https://kubernetes.default.svc.cluster.local

# start_etcd PORT PEER_PORT [NODE]
start_etcd() {
  start etcd ${3:+"$3"} -- "$BIN/etcd" --name=default --data-dir="$STATE/etcd" --log-level=warn \
    --listen-client-urls="http://127.0.0.1:$1" --advertise-client-urls="http://127.0.0.1:$1" \
    --listen-peer-urls="http://127.0.0.1:$2" --initial-advertise-peer-urls="http://127.0.0.1:$2" \
    --initial-cluster="default=http://127.0.0.1:$2" --unsafe-no-fsync
}

# start_apiserver ETCD_PORT ADDRESS PORT [NODE]: ADDRESS is what it listens on
# and says of itself.
start_apiserver() {
  local pki=$STATE/pki flags=()
  if [[ ${4:-} ]]; then
    flags=(--bind-address=0.0.0.0)
  else
    # No Endpoints of a loopback address can be made for the Service
    # `kubernetes`, and there is no pod to use it.
    flags=(--bind-address="$2" --endpoint-reconciler-type=none)
  fi
  start kube-apiserver ${4:+"$4"} -- "$BIN/kube-apiserver" \
    --etcd-servers="http://127.0.0.1:$1" --advertise-address="$2" --secure-port="$3" "${flags[@]}" \
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
    --client-ca-file="$pki/ca.crt" \
    --requestheader-client-ca-file="$pki/front-ca.crt" --requestheader-allowed-names=front-proxy-client \
    --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
    --requestheader-extra-headers-prefix=X-Remote-Extra- \
    --proxy-client-cert-file="$pki/front-client.crt" --proxy-client-key-file="$pki/front-client.key" \
    --service-account-issuer="$ISSUER" --service-account-key-file="$pki/accounts.key" \
    --service-account-signing-key-file="$pki/accounts.key" \
    --service-cluster-ip-range="$SERVICE_CIDR" \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
    --kubelet-certificate-authority="$pki/ca.crt" \
    --kubelet-client-certificate="$pki/admin.crt" --kubelet-client-key="$pki/admin.key" \
    --kubelet-preferred-address-types=InternalIP --allow-privileged=true --profiling=false
}

# start_controllers PORT [NODE]: PORT 0 for none.
start_controllers() {
  start kube-controller-manager ${2:+"$2"} -- "$BIN/kube-controller-manager" \
    --kubeconfig="$KUBECONFIG_FILE" --authentication-kubeconfig="$KUBECONFIG_FILE" \
    --authorization-kubeconfig="$KUBECONFIG_FILE" --secure-port="$1" --bind-address=127.0.0.1 \
    --leader-elect=false --cluster-cidr="$POD_CIDR" --service-cluster-ip-range="$SERVICE_CIDR" \
    --allocate-node-cidrs=false --root-ca-file="$STATE/pki/ca.crt" \
    --service-account-private-key-file="$STATE/pki/accounts.key" \
    --cluster-signing-cert-file="$STATE/pki/ca.crt" --cluster-signing-key-file="$STATE/pki/ca.key" \
    --requestheader-client-ca-file="$STATE/pki/front-ca.crt" \
    --node-monitor-grace-period=16s --profiling=false
}

start_scheduler() {
  start kube-scheduler 1 -- "$BIN/kube-scheduler" \
    --kubeconfig="$KUBECONFIG_FILE" --authentication-kubeconfig="$KUBECONFIG_FILE" \
    --authorization-kubeconfig="$KUBECONFIG_FILE" --bind-address=127.0.0.1 --leader-elect=false
}

start_provisioner() {
  start provisioner 1 -- "$BIN/provisioner" --kubeconfig="$KUBECONFIG_FILE" --directory="$STATE/volumes"
}

# server: the address of the API server, as the kubeconfig has it.
server() { awk '$1 == "server:" { print $2 }' "$KUBECONFIG_FILE"; }

# api PATH [CURL_OPTIONS...]: a request as the administrator; much faster than
# starting kubectl.
api() {
  local path=$1
  shift
  curl -sSf --max-time 5 --noproxy '*' --cacert "$STATE/pki/ca.crt" \
    --cert "$STATE/pki/admin.crt" --key "$STATE/pki/admin.key" "$@" "$(server)$path"
}
api_ready() { api /readyz && api /api/v1/namespaces/default; }

# default_account: pods cannot be made before there is one.
default_account() { api /api/v1/namespaces/default/serviceaccounts/default; }

# create PATH: makes the object that comes as YAML.
create() { api "$1" -o /dev/null -H 'Content-Type: application/yaml' --data-binary @-; }

make_storage_class() {
  create /apis/storage.k8s.io/v1/storageclasses <<-END
	apiVersion: storage.k8s.io/v1
	kind: StorageClass
	metadata:
	  name: local
	  annotations: {storageclass.kubernetes.io/is-default-class: "true"}
	provisioner: sluice.dev/local
	volumeBindingMode: WaitForFirstConsumer
	allowVolumeExpansion: true
	reclaimPolicy: Delete
	END
}

# free_ports COUNT: ports of the loopback on which nobody listens. They are
# below those that the kernel gives to connections.
free_ports() {
  local used port found=" "
  used=$(awk '$4 == "0A" { print substr($2, index($2, ":") + 1) }' /proc/net/tcp /proc/net/tcp6 2>/dev/null)
  while (($(wc -w <<<"$found") < $1)); do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    [[ $used == *"$(printf '%04X' "$port")"* || $found == *" $port "* ]] || found+="$port "
  done
  echo "$found"
}
