#!/usr/bin/env bash
# Everything that can be said of the tree without running it. Ends with the first thing that is wrong.
set -euo pipefail
cd "$(dirname "$0")/.."
cluster=dev/cluster/cluster
tools=${SLUICE_CACHE:-$HOME/.cache/sluice}/tools
deny_version=0.20.2

step() { printf '== %s\n' "$*"; }

step formatting
cargo fmt --all --check
step clippy
cargo clippy --quiet --locked --workspace --all-targets -- -D warnings
# They take in the source by themselves, so they may lack what that came to need.
step "fuzz targets"
cargo fmt --manifest-path fuzz/Cargo.toml --check
RUSTFLAGS="--cfg fuzzing" CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/fuzz \
  cargo clippy --quiet --locked --manifest-path fuzz/Cargo.toml --lib --bins -- -D warnings
step documentation
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --locked --no-deps --document-private-items
step "dependencies: licences, sources, duplicates"
if ! "$tools/bin/cargo-deny" --version 2>/dev/null | grep -q "$deny_version"; then
  cargo install --quiet --locked --root "$tools" --version "$deny_version" cargo-deny
fi
# Advisories need a database from the network; the rest is checked against what is locked.
"$tools/bin/cargo-deny" check bans licenses sources
if cargo tree --locked --invert aws-lc-rs >/dev/null 2>&1; then
  echo "lint: aws-lc-rs came in beside ring; rustls panics when both are there" >&2
  exit 1
fi
step "generated files"
dev/generate.sh --check
step charts
# Helm of the development cluster, which need not run.
helm=$("$cluster" build | tail -n 1)/helm
for chart in charts/*/; do
  "$helm" lint --strict "$chart" >/dev/null
  "$helm" template test "$chart" >/dev/null
done
echo "lint: all is well"
