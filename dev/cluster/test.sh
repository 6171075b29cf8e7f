#!/usr/bin/env bash
# The self-test of the development cluster, on clusters of its own beside any
# that runs. About two and a half minutes once all is built. Needs root.
set -uo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export SLUICE_CLUSTER=built
unset SLUICE_CLUSTER_STATE KUBECONFIG
NAME=self-test
API_NAME=self-test-api
STATE=/var/lib/sluice-dev/$NAME
WORK=$(mktemp -d)
PASSED=0
FAILED=0

cluster() { "$HERE/cluster" "$1" --name "$NAME" "${@:2}"; }
kubectl() { cluster kubectl "$@"; }

# check WHAT COMMAND...: one assertion. What the command said is shown only if
# it fails.
check() {
  local what=$1
  shift
  if "$@" >"$WORK/output" 2>&1; then
    PASSED=$((PASSED + 1))
    printf 'ok    %s\n' "$what"
  else
    FAILED=$((FAILED + 1))
    printf 'FAIL  %s\n' "$what"
    tail -n 15 "$WORK/output" | sed 's/^/      /'
  fi
}
not() { ! "$@"; }

# says TEXT COMMAND...: the command succeeds and says that, among other things.
says() {
  local text=$1 output
  shift
  output=$("$@" 2>&1) || { echo "$output" && return 1; }
  echo "$output"
  grep -qF -- "$text" <<<"$output"
}

# within SECONDS COMMAND...: succeeds at last.
within() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.5
  done
}

# clock, took: print what a thing took; nothing depends on it.
clock() { CLOCK=${EPOCHREALTIME/,/.}; }
took() { awk "BEGIN { printf \"      in %.1f s\\n\", ${EPOCHREALTIME/,/.} - $CLOCK }"; }

finish() {
  cluster down >/dev/null 2>&1
  "$HERE/cluster" down --name "$API_NAME" >/dev/null 2>&1
  rm -rf "$WORK"
}
trap finish EXIT
trap 'exit 130' INT TERM

# nothing_left: no process, mount, namespace, cgroup, link or file of ours.
nothing_left() {
  local process left=0
  for process in /proc/[0-9]*; do
    if tr '\0' ' ' 2>/dev/null <"$process/cmdline" | grep -q "/${NAME}[/ ]" && [[ ${process#/proc/} != "$$" ]]; then
      echo "process: $(tr '\0' ' ' <"$process/cmdline")" && left=1
    fi
    # In any mount namespace.
    if grep -q " $STATE/" "$process/mounts" 2>/dev/null; then echo "mount of $process" && left=1; fi
  done
  if ip netns list | grep -E "^sluice-$NAME-(net|[1-9])( |$)"; then left=1; fi
  if find /sys/fs/cgroup -maxdepth 2 -name "sluice-$NAME-[1-9]" | grep .; then left=1; fi
  if ls -d "$STATE" "$STATE.lock" 2>/dev/null; then left=1; fi
  if [[ $LINKS != "$(host_links)" ]]; then host_links && left=1; fi
  return "$left"
}
host_links() { ip -o link show | grep -oE ' sluice[0-9]+' | sort; }

# --- one node ---------------------------------------------------------------

cluster down 2>/dev/null
"$HERE/cluster" down --name "$API_NAME" 2>/dev/null
LINKS=$(host_links)
cluster build >/dev/null || exit 1

# shellcheck source=lib/image.sh
. "$HERE/lib/image.sh"
CGO_ENABLED=0 go build -o "$WORK/probe" "$HERE/testing/probe.go" || exit 1
oci_archive "$WORK/probe.tar" localhost/sluice/probe:test "$WORK/probe"

clock
check "up with one node" cluster up
took
check "status: all parts run" cluster status
check "up again is quick and changes nothing" says "already runs" timeout 2 "$HERE/cluster" up --name "$NAME"
check "up with other nodes says what to do" not cluster up --nodes 2
check "the node has a zone" says zone-1 kubectl get nodes --label-columns topology.kubernetes.io/zone
check "there is a default StorageClass" says "local (default)" kubectl get storageclass
check "load-image" cluster load-image "$WORK/probe.tar"

# web KIND EXTRA: three replicas, or one a node, of a server behind a Service.
web() {
  cat <<-END
	apiVersion: v1
	kind: Service
	metadata: {name: web}
	spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
	---
	apiVersion: apps/v1
	kind: $1
	metadata: {name: web}
	spec:
	  selector: {matchLabels: {app: web}}
	  template:
	    metadata: {labels: {app: web}}
	    spec:
	      terminationGracePeriodSeconds: 0
	      automountServiceAccountToken: false
	      securityContext:
	        {runAsUser: 65532, runAsNonRoot: true, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
	      containers:
	      - name: web
	        image: localhost/sluice/probe:test
	        args: [serve, ":8080"]
	        readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}
	        securityContext:
	          {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
	END
  cat
}
stateful_web() {
  web StatefulSet <<-END
	        volumeMounts: [{name: data, mountPath: /data}]
	  replicas: 3
	  serviceName: web
	  podManagementPolicy: Parallel
	  volumeClaimTemplates:
	  - metadata: {name: data}
	    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Mi}}}
	END
}
check "Pod Security: namespace set to restricted" \
  kubectl label namespace default pod-security.kubernetes.io/enforce=restricted
check "Pod Security: a plain pod is refused" not kubectl run plain --image=localhost/sluice/probe:test
check "a StatefulSet with volumes is made" kubectl apply -f - < <(stateful_web)
clock
check "its three pods are Ready" kubectl rollout status statefulset/web --timeout=60s
took
check "logs" says "serving on" kubectl logs web-0
check "exec" says web-1 kubectl exec web-1 -- /probe get http://localhost:8080/
check "a volume can be written by a user without privileges" kubectl exec web-0 -- /probe write /data/file
check "and is on the node" test -e "$STATE"/volumes/node-1/*/file
check "Service by name, from a pod" says web- kubectl exec web-0 -- /probe get http://web/
check "pod by name, from a pod" says web-2 kubectl exec web-0 -- /probe get http://web-2.web.default:8080/
all_answer() { # a Service leads to each of its pods, also to the one that asks
  local i
  for ((i = 0; i < 30; i++)); do kubectl exec web-0 -- /probe get http://web.default.svc.cluster.local/; done |
    sort -u >"$WORK/names"
  cat "$WORK/names"
  (($(wc -l <"$WORK/names") == 3))
}
check "the Service leads to every pod" all_answer
check "run: Service by name" says web- cluster run -- curl -sS --noproxy '*' http://web.default/
check "run: the tools" cluster run -- sh -c 'kubectl version && helm list && grpcurl --version && ctr images list -q'
check "run: the exit code is the command's" says 7 bash -c "'$HERE/cluster' run --name $NAME -- sh -c 'exit 7'; echo \$?"
check "env" bash -c "eval \"\$('$HERE/cluster' env --name $NAME)\" && kubectl get nodes && helm list"
check "helm" cluster helm list

check "Pod Security: namespace set free" kubectl label namespace default pod-security.kubernetes.io/enforce-
check "a pod that burns, with a limit of 200m" kubectl run burn --image=localhost/sluice/probe:test --restart=Never \
  --overrides='{"spec":{"containers":[{"name":"burn","image":"localhost/sluice/probe:test","args":["burn","4"],"resources":{"limits":{"cpu":"200m","memory":"64Mi"}}}]}}'
check "it ends" kubectl wait pod/burn --for=jsonpath='{.status.phase}'=Succeeded --timeout=30s
burned() {
  local millicores
  millicores=$(kubectl logs burn | awk '$1 == "millicores" { print $2 }')
  echo "millicores: $millicores"
  ((millicores >= 100 && millicores <= 220))
}
check "it had 200m of a processor, not more" burned
printf '      %s\n' "$(kubectl logs burn)"

check "namespaces can be deleted" eval 'kubectl create namespace gone && kubectl delete namespace gone --timeout=30s'
check "deleting the claims deletes the volumes" \
  eval 'kubectl delete statefulset/web --timeout=30s --cascade=foreground && kubectl delete pvc --all --timeout=30s'
no_volumes() { [[ ! $(ls "$STATE/volumes/node-1") ]]; }
check "their folders are gone" within 20 no_volumes

# --- parts that end -----------------------------------------------------------

check "stop and start of a part" \
  eval 'cluster stop kube-apiserver && ! cluster status && cluster start kube-apiserver'
check "it serves again" within 20 kubectl get nodes

kill_part() { kill -KILL "$(cut -d' ' -f1 "$STATE/processes/$1")"; }
check "kill -9 of containerd and kubelet" eval 'kill_part containerd-1 && kill_part kubelet-1'
check "status tells" not cluster status
check "up cleans and starts" cluster up
check "and it works" kubectl get serviceaccount default

kill_all() {
  local part
  for part in "$STATE"/processes/*.command; do kill_part "$(basename "$part" .command)"; done
}
check "kill -9 of everything" kill_all
check "up cleans and starts" cluster up
cluster down >/dev/null 2>&1
for moment in 0.2 0.8 1.5 2 3 4; do
  { timeout --signal=KILL "$moment" "$HERE/cluster" up --name "$NAME" >/dev/null; } 2>/dev/null
done
check "up after six that were killed half-way" cluster up
check "and it works" kubectl get serviceaccount default
rm "$STATE/settings/whole"
{ timeout --signal=KILL 1 "$HERE/cluster" up --name "$NAME" >/dev/null; } 2>/dev/null
check "down of one that was started half" cluster down
check "down leaves nothing" nothing_left
check "down of nothing is fine" cluster down

# --- three nodes --------------------------------------------------------------

clock
check "up with three nodes" cluster up --nodes 3
took
check "load-image" cluster load-image "$WORK/probe.tar"
check "a pod on every node" kubectl apply -f - < <(web DaemonSet </dev/null)
check "they are Ready" kubectl rollout status daemonset/web --timeout=60s
pod_of() { kubectl get pods --field-selector "spec.nodeName=node-$1" -o "jsonpath={.items[0].$2}"; }
across() {
  local from to
  for from in 1 2 3; do
    for to in 1 2 3; do
      kubectl exec "$(pod_of "$from" metadata.name)" -- /probe get "http://$(pod_of "$to" status.podIP):8080/" || return 1
    done
    kubectl exec "$(pod_of "$from" metadata.name)" -- /probe get http://web.default/ || return 1
  done
}
check "pods reach each other and the Service across nodes" across
check "run on another node: Service by name" says web- cluster run --node node-2 -- curl -sS --noproxy '*' http://web.default/
kubectl delete daemonset/web --timeout=30s >/dev/null
check "a StatefulSet over the nodes is made" kubectl apply -f - < <(stateful_web)
check "its pods are Ready" kubectl rollout status statefulset/web --timeout=60s

node_is() { [[ $(kubectl get node node-3 -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}') == "$1" ]]; }
address=$(kubectl get node node-3 -o 'jsonpath={.status.addresses[0].address}')
reach() { cluster run -- curl -sk --noproxy '*' --max-time 2 "https://$address:10250/"; }
check "a node can be reached" reach
clock
check "partition" cluster partition node-3
check "the node is NotReady" within 60 node_is Unknown
took
check "it cannot be reached" not reach
clock
check "heal" cluster heal node-3
check "the node is Ready" within 60 node_is True
took
check "down" cluster down
check "down leaves nothing" nothing_left

# --- API server only -----------------------------------------------------------

api() { "$HERE/cluster" "$1" --name "$API_NAME" "${@:2}"; }
clock
check "up --api-only" api up --api-only
took
check "it serves" api kubectl create configmap one
check "up again" says "already runs" api up --api-only
check "with controllers is another" not api up --api-only --controllers
check "down" api down
check "up --api-only --controllers" api up --api-only --controllers
check "namespaces can be deleted" eval 'api kubectl create namespace gone && api kubectl delete namespace gone --timeout=30s'
check "down" api down

printf '\n%d passed, %d failed\n' "$PASSED" "$FAILED"
((FAILED == 0))
