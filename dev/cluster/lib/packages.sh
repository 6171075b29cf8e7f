# Debian packages: installed if a program that is needed is missing.

# The program that tells, and the package that has it.
NODE_PROGRAMS=(
  runc:runc nft:nftables ip:iproute2 /usr/lib/cni/bridge:containernetworking-plugins
  nsenter:util-linux mount:mount sysctl:procps buildah:buildah
)
API_PROGRAMS=(openssl:openssl curl:curl flock:util-linux setsid:util-linux awk:mawk)
BUILD_PROGRAMS=(cc:gcc /usr/include/stdlib.h:libc6-dev strip:binutils tar:tar)

# install_packages PROGRAM:PACKAGE...
install_packages() {
  local pair missing=()
  for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null || [[ -e ${pair%%:*} ]] || missing+=("${pair#*:}")
  done
  ((${#missing[@]})) || return 0
  { command -v apt-get >/dev/null && ((EUID == 0)); } || die "please install: ${missing[*]}"
  say "installing ${missing[*]}"
  local log
  log=$(mktemp)
  if ! {
    apt-get update &&
      DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
  } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    die "could not install ${missing[*]}"
  fi
  rm -f "$log"
}
