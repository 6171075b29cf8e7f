# The programs of the cluster: built from the Go module registry, and cached.
#
# Each program has a folder of its own in the cache, named by what went into
# it, so an old checkout and a new one share a cache without harm. It is made
# beside its place and then renamed, so a build that was cut short leaves
# nothing that looks finished.

KUBERNETES_VERSION=v1.36.3
CONTAINERD_VERSION=v2.4.2
COREDNS_VERSION=v1.14.7
HELM_VERSION=v3.22.0
GRPCURL_VERSION=v1.9.4

# The cache, and the folder of links to every program that a cluster uses.
cache_dir() { echo "${SLUICE_CACHE:-${HOME:-/var/cache}/.cache/sluice}/cluster"; }

# hash_of FILE...: the first 12 digits of a hash of what the files hold, and
# of the compiler.
hash_of() { { go version; cat "$@"; } | sha256sum | cut -c1-12; }

# go_ ARGUMENTS...: the Go command with settings that do not depend on the
# machine: no C compiler, no version control, static programs.
go_() { CGO_ENABLED=0 GOFLAGS='-buildvcs=false' nice go "$@"; }

# cached NAME COMMAND...: the folder $(cache_dir)/NAME, made by COMMAND OUT if
# it is not there. Prints nothing but the time it took.
cached() {
  local name=$1 dir started=$SECONDS
  dir=$(cache_dir)/$1
  shift
  [[ ! -d $dir ]] || return 0
  say "building ${name%-*} (once; kept in $dir)"
  rm -rf "$dir.part"
  mkdir -p "$dir.part"
  "$@" "$dir.part"
  mv "$dir.part" "$dir"
  say "built ${name%-*} in $((SECONDS - started)) s"
}

build_kubernetes() {
  local minor=${KUBERNETES_VERSION#v1.} package flags='-s -w'
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$KUBERNETES_VERSION"
    flags+=" -X $package.gitMajor=1 -X $package.gitMinor=${minor%.*}"
  done
  (cd "$HERE/kubernetes" && go_ build -ldflags "$flags" -o "$1/kubernetes" .)
  local component
  for component in etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
    ln -s kubernetes "$1/$component"
  done
}

build_provisioner() { (cd "$HERE/provisioner" && go_ build -ldflags '-s -w' -o "$1/provisioner" .); }

# go_install PACKAGE@VERSION... OUT
go_install() {
  local out=${*: -1}
  GOBIN=$out go_ install -ldflags '-s -w' "${@:1:$#-1}"
}

# The image of the container that holds a pod's namespaces open.
build_pause() {
  cc -Os -static -o "$1/pause" "$HERE/pause/pause.c"
  strip "$1/pause"
  oci_archive "$1/pause.tar" "$PAUSE_IMAGE" "$1/pause"
}

# build_programs builds what is missing and sets BIN, a folder with all the
# programs. Only one build runs at a time; a second waits for the first.
build_programs() {
  local cache
  command -v go >/dev/null || die "this needs Go, 1.26 or newer"
  cache=$(cache_dir)
  mkdir -p "$cache"
  local kubernetes provisioner pause names
  kubernetes=kubernetes-$(hash_of "$HERE"/kubernetes/{go.mod,go.sum,main.go})
  provisioner=provisioner-$(hash_of "$HERE"/provisioner/{go.mod,go.sum,main.go})
  pause=pause-$(hash_of "$HERE"/pause/pause.c "$HERE"/lib/image.sh)
  names=("$kubernetes" "$provisioner" "$pause" "containerd-$CONTAINERD_VERSION"
    "coredns-$COREDNS_VERSION" "helm-$HELM_VERSION" "grpcurl-$GRPCURL_VERSION")
  PAUSE_ARCHIVE=$cache/$pause/pause.tar
  BIN=$cache/bin-$(printf '%s\n' "${names[@]}" | sha256sum | cut -c1-12)
  [[ ! -d $BIN ]] || return 0

  install_packages "${BUILD_PROGRAMS[@]}"
  local build_lock
  exec {build_lock}>"$cache/lock"
  flock "$build_lock"
  cached "containerd-$CONTAINERD_VERSION" go_install \
    "github.com/containerd/containerd/v2/cmd/"{containerd,containerd-shim-runc-v2,ctr}"@$CONTAINERD_VERSION"
  cached "$kubernetes" build_kubernetes
  cached "coredns-$COREDNS_VERSION" go_install "github.com/coredns/coredns@$COREDNS_VERSION"
  cached "$provisioner" build_provisioner
  cached "$pause" build_pause
  cached "helm-$HELM_VERSION" go_install "helm.sh/helm/v3/cmd/helm@$HELM_VERSION"
  cached "grpcurl-$GRPCURL_VERSION" go_install "github.com/fullstorydev/grpcurl/cmd/grpcurl@$GRPCURL_VERSION"

  rm -rf "$BIN.part"
  mkdir "$BIN.part"
  local name program
  for name in "${names[@]}"; do
    for program in "$cache/$name"/*; do
      [[ ! -x $program ]] || ln -s "$program" "$BIN.part/"
    done
  done
  mv "$BIN.part" "$BIN"
  exec {build_lock}>&-
}
