#!/usr/bin/env bash
# Builds the static executable and the image: target/image/sluice.tar (an OCI archive), its name in target/image/name.
# The name carries the executable's hash, so that another build is another image. Prints the name.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${CARGO_TARGET_DIR:-target}/image
executable=$(dev/static.sh --bin sluice)
mkdir -p "$out/context"
cp "$executable" "$out/context/sluice"
name=localhost/sluice:$(sha256sum "$out/context/sluice" | cut -c1-12)
if [[ -e $out/sluice.tar && $(cat "$out/name" 2>/dev/null) == "$name" ]]; then
  echo "$name"
  exit
fi
for builder in buildah podman docker; do
  command -v "$builder" >/dev/null && break
done
case $builder in
  buildah)
    # vfs and chroot work without a daemon, user namespaces or an overlay.
    storage=$(mktemp -d)
    trap 'rm -rf "$storage"' EXIT
    options=(--storage-driver vfs --root "$storage/root" --runroot "$storage/run")
    buildah "${options[@]}" bud --isolation chroot --quiet --tag "$name" -f Containerfile "$out/context" >/dev/null
    rm -f "$out/sluice.tar"
    buildah "${options[@]}" push --quiet "$name" "oci-archive:$out/sluice.tar:$name" >/dev/null
    ;;
  *)
    command -v "$builder" >/dev/null || { echo "image: needs buildah, podman or docker" >&2 && exit 1; }
    "$builder" build --quiet --tag "$name" -f Containerfile "$out/context" >/dev/null
    "$builder" save --output "$out/sluice.tar" "$name" >/dev/null
    ;;
esac
echo "$name" >"$out/name"
echo "$name"
