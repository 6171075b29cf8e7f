#!/usr/bin/env bash
# Builds what is compared and runs the measurements: bench.sh [--quick] [OPTIONS of `sluice-benches run`].
# With QUICK=1: about five minutes. Results in target/bench; the full run also writes docs/benchmarks.md, for which
# parts that are not measured now are taken from their last full run: `bench.sh --only PART,...` renews some.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${SLUICE_CACHE:-${HOME:-/var/cache}/.cache/sluice}/bench
target=${CARGO_TARGET_DIR:-target}
nats_server=2.15.2
nats_cli=0.5.1

say() { printf 'bench: %s\n' "$*" >&2; }

# What Debian has, where it is missing.
need() {
  local command=$1 package=$2
  command -v "$command" >/dev/null && return
  ((EUID == 0)) || { say "needs $command: install $package"; exit 1; }
  say "installing $package"
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$package" >&2
}

# tool NAME VERSION MODULE: a Go program of a pinned version, built once.
tool() {
  local name=$1 version=$2 module=$3 folder=$cache/$1-$2
  [[ -x $folder/$name ]] && return
  say "building $name $version"
  GOBIN=$folder GOFLAGS=-mod=mod go install "$module@v$version" >&2
}

need javac openjdk-17-jdk-headless
need mvn maven
need valgrind valgrind
command -v go >/dev/null || { say "needs Go 1.26"; exit 1; }
mkdir -p "$cache"
tool nats-server "$nats_server" github.com/nats-io/nats-server/v2
tool nats "$nats_cli" github.com/nats-io/natscli/nats
# Copied only once they are all there.
kafka=$cache/kafka-$(sha256sum benches/peers/kafka/pom.xml | cut -c1-12)
if [[ ! -d $kafka ]]; then
  say "fetching Kafka"
  rm -rf "$kafka.part"
  mvn -q -B -f benches/peers/kafka/pom.xml org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$kafka.part" >&2
  mv "$kafka.part" "$kafka"
fi
kafka_load=$cache/kafka-load-$(sha256sum benches/peers/kafka/Load.java | cut -c1-12)
if [[ ! -f $kafka_load/Load.class ]]; then
  javac -d "$kafka_load" -cp "$kafka/*" benches/peers/kafka/Load.java >&2
fi
say "building the programs"
(cd benches/peers/grpc-go && go build -o "$cache/grpc-go" .) >&2
# The test that cuts streams starts the executable that is built with it.
cuts=$(cargo build --locked --release -p sluice -p sluice-benches --bin sluice --bin sluice-benches --test broker_cuts \
  --message-format json-render-diagnostics |
  sed -n 's/.*"name":"broker_cuts".*"executable":"\([^"]*\)".*/\1/p')

quick=()
report=(--report docs/benchmarks.md)
command="make bench"
if [[ -n ${QUICK:-} ]]; then
  quick=(--quick)
  report=()
  command="make bench QUICK=1"
fi
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
# An error says what it is about; a backtrace says no more.
export RUST_BACKTRACE=0
# It ends what it started also when it is interrupted.
exec "$target/release/sluice-benches" run "${quick[@]}" "${report[@]}" --command "$command" \
  --sluice "$target/release/sluice" --cuts "$cuts" --out "$target/bench" \
  --grpc-go "$cache/grpc-go" --nats-server "$cache/nats-server-$nats_server/nats-server" \
  --nats "$cache/nats-$nats_cli/nats" --kafka "$kafka" --kafka-load "$kafka_load" "$@"
