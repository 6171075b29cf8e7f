#!/usr/bin/env bash
# Builds a static executable, as the image has it: static.sh --bin NAME | --example NAME. Prints its path. One set of
# flags for all, so that what one of them compiled serves the others.
set -euo pipefail
cd "$(dirname "$0")/.."
(($# == 2)) || { echo "usage: static.sh --bin NAME | --example NAME" >&2 && exit 2; }
triple=$(rustc -vV | sed -n 's/^host: //p')
case $triple in
  *-linux-*) ;;
  *) echo "static: built on Linux only, not on $triple" >&2 && exit 1 ;;
esac
# With --target the flag is not used for procedural macros, which cannot be static.
RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release --target "$triple" "$@" >&2
out=${CARGO_TARGET_DIR:-target}/$triple/release
[[ $1 == --bin ]] || out=$out/examples
echo "$out/$2"
