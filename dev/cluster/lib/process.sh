# Processes that outlive this script.
#
# Each has a file STATE/processes/PART with its pid and when it started, so
# that a pid that was given to someone else since is never taken for ours. The
# process writes the file itself and then becomes the program: whenever the
# script is killed, what runs has been recorded.

# start PART [NODE_NUMBER] -- COMMAND...: in the background, inside a node if
# one is given, with its output in STATE/logs/PART.log.
start() {
  local part=$1 enter=() cgroups=""
  { printf 'start' && printf ' %q' "$@"; } >"$STATE/processes/$part.command"
  shift
  if [[ $1 != -- ]]; then
    cgroups=$(cgroup_folders "$PREFIX-$1/system")
    mapfile -t enter < <(enter_node "$1" "$part")
    shift
  fi
  shift
  rm -f "$STATE/processes/$part"
  # shellcheck disable=SC2016 # expanded by the process itself
  RECORD=$STATE/processes/$part CGROUPS=$cgroups LOCK=$LOCK setsid bash -c '
    set -e
    for folder in $CGROUPS; do echo $$ >"$folder/cgroup.procs"; done
    '"$(declare -f started)"'
    echo "$$ $(started $$)" >"$RECORD"
    exec {LOCK}>&-
    unset RECORD CGROUPS LOCK
    exec "$@"
  ' start ${enter[@]+"${enter[@]}"} "$@" </dev/null >>"$STATE/logs/$part.log" 2>&1 &
  disown
  wait_until 5 "$part" test -s "$STATE/processes/$part"
}

# started PID: the boot and the clock tick at which a process started, which
# no other process that is ever given this pid shares.
started() {
  local stat
  { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
  # shellcheck disable=SC2086 # one argument a field
  set -- ${stat##*) }          # the fields after the name, which is in brackets
  [[ $1 != [ZX] ]] || return 1 # dead, only not yet reaped
  echo "${20} $(</proc/sys/kernel/random/boot_id)"
}

# pid_of PART: its pid, if it runs.
pid_of() {
  local pid since
  read -r pid since 2>/dev/null <"$STATE/processes/$1" || return 1
  [[ $pid && $(started "$pid") == "$since" ]] || return 1
  echo "$pid"
}

# parts: the names of all that was started, oldest first.
parts() {
  local file
  # shellcheck disable=SC2045 # all the names are ours
  for file in $(ls -tr "$STATE/processes" 2>/dev/null); do
    [[ $file != *.command ]] || echo "${file%.command}"
  done
}

# dead_parts: those of them that do not run.
dead_parts() {
  local part
  for part in $(parts); do pid_of "$part" >/dev/null || echo "$part"; done
}

# stop_part PART, start_part PART: for tests of what happens without one.
stop_part() {
  local pid
  [[ -e $STATE/processes/${1:-none}.command ]] || die "no part '${1:-}'; there are: $(parts | tr '\n' ' ')"
  pid=$(pid_of "$1") || return 0
  kill -KILL "$pid"
  wait_until 10 "the end of $1" part_ended "$1"
}
start_part() {
  [[ -e $STATE/processes/${1:-none}.command ]] || die "no part '${1:-}'; there are: $(parts | tr '\n' ' ')"
  # shellcheck source=/dev/null
  pid_of "$1" >/dev/null || . "$STATE/processes/$1.command"
}

# kill_parts: ends whatever was started and still runs, at once: nothing that
# it could still write is kept.
kill_parts() {
  local part pid
  for part in $(parts); do
    if pid=$(pid_of "$part"); then kill -KILL "$pid" 2>/dev/null || true; fi
  done
  for part in $(parts); do wait_until 10 "the end of $part" part_ended "$part"; done
}
part_ended() { ! pid_of "$1"; }
