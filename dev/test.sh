#!/usr/bin/env bash
# Runs the tests: test.sh [pure] [http2] [api] [node] [cluster]. Starts what they need, and ends it, also when they fail.
#
# pure  needs only Rust: the crate's own tests, and brokers and clients in one process
# http2  h2spec against a broker; needs Go
# api   a real API server (etcd and kube-apiserver on the loopback)
# node  real nodes: kubelet, containerd, scheduler, volumes; needs root
# cluster  the cluster that the others run on: starting, faults, and that nothing of it is left behind; needs root
set -euo pipefail
cd "$(dirname "$0")/.."
cluster=dev/cluster/cluster
target=${CARGO_TARGET_DIR:-target}
# Names of our own, so that a cluster of the demo goes on beside the tests.
api=sluice-test-api
node=sluice-test
started=()
finish() {
  local name
  for name in "${started[@]}"; do
    "$cluster" down --name "$name" >/dev/null 2>&1 || echo "test: could not end the cluster $name" >&2
  done
}
trap finish EXIT
trap 'exit 130' INT TERM

for kind in "$@"; do
  case $kind in
    pure)
      echo "== pure"
      cargo test --locked --lib --bins --test api_schema --test api_generated --test 'broker_*' --test 'client_*'
      cargo test --locked --package sluice-benches
      ;;
    http2)
      echo "== against h2spec"
      command -v go >/dev/null || { echo "test: h2spec is built with Go 1.26, which is not here" >&2 && exit 1; }
      h2spec=$(realpath -m "$target")/h2spec
      go build -C dev/h2spec -o "$h2spec" github.com/summerwind/h2spec/cmd/h2spec
      SLUICE_H2SPEC=$h2spec cargo test --locked --test http2_conformance
      ;;
    api)
      echo "== against a real API server"
      started+=("$api")
      "$cluster" down --name "$api" >/dev/null 2>&1 || true
      "$cluster" up --api-only --controllers --name "$api"
      # The tools of the cluster (kubectl, helm) are used by the tests as well.
      (
        eval "$("$cluster" env --name "$api")"
        SLUICE_TEST_KUBECONFIG=$KUBECONFIG cargo test --locked --test api_bounds --test api_charts --test api_rules \
          --test api_server --test api_status --test 'operator_*'
      )
      "$cluster" down --name "$api"
      ;;
    node)
      echo "== on real nodes"
      if ((EUID != 0)); then
        echo "test: the tests on nodes need root (namespaces, mounts, cgroups): run them as root, or only make test-pure test-api" >&2
        exit 1
      fi
      started+=("$node")
      "$cluster" down --name "$node" >/dev/null 2>&1 || true
      "$cluster" up --nodes 3 --name "$node"
      # After `up`, which installs what builds images.
      image=$(dev/image.sh)
      "$cluster" load-image --name "$node" "$target/image/sluice.tar" >/dev/null
      export SLUICE_TEST_CLUSTER=$node SLUICE_TEST_IMAGE=$image
      cargo test --locked --test node -- --skip alone:: --test-threads=4
      cargo test --locked --test node alone:: -- --test-threads=1
      "$cluster" down --name "$node"
      ;;
    cluster)
      echo "== the development cluster itself"
      dev/cluster/test.sh
      ;;
    *) echo "test: no kind of test '$kind': pure, http2, api, node or cluster" >&2 && exit 2 ;;
  esac
done
