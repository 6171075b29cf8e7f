# What every other file uses: messages, names, places.

STARTED=${EPOCHREALTIME/,/.}

say() { printf '%s\n' "$*" >&2; }
die() {
  say "cluster: $*"
  exit 1
}

# step TEXT: a line with the seconds since the command began.
step() { printf '%6.1f s  %s\n' "$(elapsed)" "$*" >&2; }
elapsed() { awk "BEGIN { print ${EPOCHREALTIME/,/.} - $STARTED }"; }

# wait_until SECONDS WHAT COMMAND...: repeats the command until it succeeds.
wait_until() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || die "$what: not in time; see the logs in $STATE/logs"
    sleep 0.05
  done
}

# set_places NAME: where this cluster keeps what it has.
set_places() {
  NAME=$1
  [[ $NAME =~ ^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$ ]] ||
    die "a cluster's name is 1 to 20 of a-z, 0-9 and '-', not '$NAME'"
  PREFIX=sluice-$NAME # of network namespaces and cgroups
  local folder=/var/lib/sluice-dev
  ((EUID == 0)) || folder=${XDG_STATE_HOME:-$HOME/.local/state}/sluice-dev
  STATE=$folder/$NAME
  if [[ ${SLUICE_CLUSTER_STATE:-} ]]; then
    STATE=${SLUICE_CLUSTER_STATE%/}
    PREFIX+=-$(sha256sum <<<"$STATE" | cut -c1-6)
  fi
  [[ $STATE == /*/* ]] || die "SLUICE_CLUSTER_STATE must be an absolute path, not '$STATE'"
  ((${#STATE} <= 70)) || die "the path of the state is too long for the sockets in it: $STATE"
  KUBECONFIG_FILE=$STATE/kubeconfig
}

# lock: one command changes a cluster at a time; the others wait. The lock
# goes with the process, so one that was killed leaves none behind.
lock() {
  mkdir -p "$(dirname "$STATE")"
  while :; do
    exec {LOCK}>"$STATE.lock"
    flock "$LOCK"
    # `down` removes the file, so it may not be the one we waited for.
    [[ $STATE.lock -ef /proc/self/fd/$LOCK ]] && return
    exec {LOCK}>&-
  done
}

# setting KEY [VALUE]: what `up` was asked for, kept in the state.
setting() {
  if (($# == 2)); then
    echo "$2" >"$STATE/settings/$1"
  else
    cat "$STATE/settings/$1" 2>/dev/null || true
  fi
}

need_root() { ((EUID == 0)) || die "this needs root (namespaces, mounts, cgroups)"; }

# node_number NODE: 2 for "node-2" or "2", if the cluster has it.
node_number() {
  local number=${1#node-} nodes
  nodes=$(setting nodes)
  { [[ $number =~ ^[1-9]$ ]] && ((number <= ${nodes:-0})); } ||
    die "no node '$1': the cluster '$NAME' has ${nodes:-0}"
  echo "$number"
}
