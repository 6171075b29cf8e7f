#!/usr/bin/env bash
# Runs fuzz targets, all of fuzz/fuzz_targets unless some are named, each for FUZZ_SECONDS (600): fuzz.sh [TARGET...].
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${FUZZ_SECONDS:-600}
host=$(rustc -vV | sed -n 's/^host: //p')
out=$PWD/target/fuzz

targets=("$@")
((${#targets[@]})) || mapfile -t targets < <(basename -s .rs fuzz/fuzz_targets/*.rs)

coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
coverage+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
coverage+=" -Cllvm-args=-sanitizer-coverage-trace-compares"
# With --target, build scripts are built without these flags.
RUSTFLAGS="--cfg fuzzing $coverage" CARGO_TARGET_DIR=$out \
  nice -n 19 cargo build --quiet --locked --release --target "$host" --manifest-path fuzz/Cargo.toml "${targets[@]/#/--bin=}"

for target in "${targets[@]}"; do
  printf '== %s, %s seconds\n' "$target" "$seconds"
  mkdir -p "$out/corpus/$target"
  (cd "$out" && nice -n 19 "$host/release/$target" "corpus/$target" "$OLDPWD/fuzz/seeds/$target" \
    -max_total_time="$seconds" -max_len=1024 -print_final_stats=1)
done
