# Cgroups: each node has one of its own, PREFIX-N, in every hierarchy, with
# `system` for its parts and `kubepods` (the kubelet's) for its pods. Two
# kubelets on one root would take each other's pods for orphans. And all that
# a node ever started is found in it, whatever became of its parents.

# cgroup_roots: where the hierarchies are mounted; one on cgroup v2.
cgroup_roots() { awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/mounts; }

# cgroup_folders PATH: the folder of a cgroup in each hierarchy that has it.
cgroup_folders() {
  local root
  for root in $(cgroup_roots); do
    [[ ! -d $root/$1 ]] || echo "$root/$1"
  done
}

# make_cgroup PATH: with all its parents, in every hierarchy.
make_cgroup() {
  local root folder part
  for root in $(cgroup_roots); do
    folder=$root
    for part in ${1//\// }; do
      share_controllers "$folder"
      mkdir -p "$folder/$part"
      if [[ -e $folder/cpuset.cpus && ! -s $folder/cgroup.controllers ]]; then
        # v1: no process may enter a cpuset that has no processors or memory.
        cat "$folder/cpuset.cpus" >"$folder/$part/cpuset.cpus"
        cat "$folder/cpuset.mems" >"$folder/$part/cpuset.mems"
      fi
      folder+=/$part
    done
  done
}

# share_controllers FOLDER: v2 gives a cgroup's children only the controllers
# that it says.
share_controllers() {
  local controller
  [[ -e $1/cgroup.controllers ]] || return 0
  for controller in $(<"$1/cgroup.controllers"); do
    echo "+$controller" >"$1/cgroup.subtree_control" 2>/dev/null || true
  done
}

cgroup_pids() {
  local folders
  folders=$(cgroup_folders "$1")
  # shellcheck disable=SC2086 # one argument a folder
  [[ ! $folders ]] || find $folders -name cgroup.procs -exec cat {} + 2>/dev/null | sort -un
}

# remove_cgroup PATH: kills what is in it, and removes it and all below it.
remove_cgroup() {
  local try pids folders
  for try in {1..200}; do
    pids=$(cgroup_pids "$1")
    [[ $pids ]] || break
    # shellcheck disable=SC2086 # one argument a pid
    kill -KILL $pids 2>/dev/null || true
    sleep 0.02
  done
  for try in {1..100}; do
    folders=$(cgroup_folders "$1")
    [[ $folders ]] || return 0
    # shellcheck disable=SC2086 # one argument a folder
    find $folders -depth -type d -exec rmdir {} \; 2>/dev/null || true
    sleep 0.02
  done
  die "cannot remove the cgroup $1 ($try tries)"
}
