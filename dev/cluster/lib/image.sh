# Images without a registry: an OCI archive is a tar file of a few JSON files.

PAUSE_IMAGE=localhost/sluice/pause:1

# oci_archive OUT NAME PROGRAM: an image that has nothing but one static
# program at its root, and runs it.
oci_archive() {
  local out=$1 name=$2 program=$3 work
  work=$(mktemp -d)
  mkdir -p "$work/blobs/sha256" "$work/root"
  install -m 0755 "$program" "$work/root/"
  tar -C "$work/root" --owner=0 --group=0 --mtime=@0 -cf "$work/layer" "$(basename "$program")"
  local layer config manifest arch
  arch=$(uname -m)
  case $arch in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; esac
  layer=$(descriptor "$work" application/vnd.oci.image.layer.v1.tar "$work/layer")
  local diff=${layer#*digest\":\"}
  printf '{"architecture":"%s","os":"linux","config":{"Entrypoint":["/%s"]},"rootfs":{"type":"layers","diff_ids":["%s"]}}' \
    "$arch" "$(basename "$program")" "${diff%%\"*}" >"$work/config"
  config=$(descriptor "$work" application/vnd.oci.image.config.v1+json "$work/config")
  printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s]}' \
    "$config" "$layer" >"$work/manifest"
  manifest=$(descriptor "$work" application/vnd.oci.image.manifest.v1+json "$work/manifest")
  printf '{"schemaVersion":2,"manifests":[%s,"annotations":{"io.containerd.image.name":"%s","org.opencontainers.image.ref.name":"%s"}}]}' \
    "${manifest%\}}" "$name" "${name##*:}" >"$work/index.json"
  echo '{"imageLayoutVersion":"1.0.0"}' >"$work/oci-layout"
  tar -C "$work" -cf "$out" oci-layout index.json blobs
  rm -rf "$work"
}

# descriptor FOLDER TYPE FILE: stores the file by its hash and describes it.
descriptor() {
  local hash
  hash=$(sha256sum "$3" | cut -d' ' -f1)
  cp "$3" "$1/blobs/sha256/$hash"
  printf '{"mediaType":"%s","digest":"sha256:%s","size":%d}' "$2" "$hash" "$(stat -c %s "$3")"
}
