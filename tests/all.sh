#!/usr/bin/env bash
# Passes every test of ringmain, in their short forms.
#
# usage: tests/all.sh [STEP ...]     without a step: all of them, in this order
#
#   style        format, clippy and rustdoc, warnings denied
#   rust         unit, property, socket and documentation tests; each feature alone; the core without a network
#   loom         the models of the lock-free rooms
#   sanitizers   address sanitizer on the core and the server, thread sanitizer on the rooms without locks (needs nightly; says
#                so and goes on where there is none)
#   fuzz         each fuzz target for 20 seconds, or RINGMAIN_FUZZ_SECONDS (needs nightly and a C++ compiler, likewise)
#   interop      official clients, cuts, drain, a page in a browser, and the conformance suite against the release binary
#
# It needs: Rust 1.88 or later with rustfmt and clippy, a C and a C++ compiler, Node.js 20 or later with npm, Python 3.10 or
# later with venv, and 6 GB of disk. It installs, into ~/.cache/ringmain and nowhere else: the official TypeScript clients and the
# conformance suite from npm, the official Python clients from PyPI, in pinned versions (tests/interop/install.sh).
# As root on a Debian-like machine without Node.js, Python or Chromium it installs those by apt-get first. Elsewhere the
# page in a browser is left out if there is no Chromium, and it is said so.
set -euo pipefail
cd "$(dirname "$0")/.."
# Nothing here is compiled twice with a change between: what the compiler would keep for that is disk and time for nothing.
export CARGO_INCREMENTAL="${CARGO_INCREMENTAL:-0}"

steps=("$@")
[ $# -gt 0 ] || steps=(style rust loom sanitizers fuzz interop)
began=$SECONDS

say() { printf '\n=== %s (%ss)\n' "$*" $((SECONDS - began)); }

style() {
  cargo fmt --all --check
  cargo fmt --manifest-path fuzz/Cargo.toml --check
  cargo clippy --workspace --all-targets -- -D warnings
  cargo clippy --no-default-features -- -D warnings
  RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
}

rust() {
  cargo test --workspace --exclude loom-tests
  # Once more with the streams inside hyper, as they are over HTTP/2 and on systems without the writer.
  # The same packages as above: with others, cargo would unite their features differently and compile everything again.
  RINGMAIN_TEST_INSIDE_HYPER=1 cargo test --workspace --exclude loom-tests --test '*'
  cargo test --no-default-features --lib --quiet
  for feature in server tls tokens auth rmcp everything; do
    cargo check --no-default-features --features "$feature" --quiet
  done
  # The direction of the house, by its dependencies: the core knows no network, no runtime, no store.
  if cargo tree --no-default-features --edges normal --prefix none | grep -E '^(hyper|tokio|redis)'; then
    echo "the core depends on an edge crate" >&2
    return 1
  fi
}

loom() {
  # An own target folder: the flag changes every crate.
  RUSTFLAGS="--cfg ringmain_loom --cfg crossbeam_loom" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom" \
    cargo test --release -p loom-tests
}

sanitizers() {
  if ! rustc +nightly --version 2>/dev/null; then
    echo "no nightly toolchain: the sanitizers are left out (rustup toolchain install nightly)"
    return
  fi
  host=$(rustc +nightly -vV | sed -n 's/^host: //p')
  # Those that hold the socket code to its edges; RINGMAIN_SANITIZE_ALL=1 adds the rest.
  local tests=(bad_input connections listening resuming)
  [ -z "${RINGMAIN_SANITIZE_ALL:-}" ] || tests+=(browsers drain publishing sending sessions)
  RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/address" \
    cargo +nightly test --no-default-features --features server --lib "${tests[@]/#/--test=}" --target "$host" --quiet
  # Threads: the rooms without locks. What the standard library was compiled to hides its locks and fences from this
  # sanitizer, so that whatever is behind a mutex is reported; what of it concerns these rooms is named in a file.
  RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/thread" \
    TSAN_OPTIONS="suppressions=$PWD/tests/thread_sanitizer.txt print_suppressions=0" \
    cargo +nightly test --no-default-features --features server --lib --target "$host" --quiet -- ring:: wake:: sse:: stream::
}

fuzz() {
  if ! rustc +nightly --version 2>/dev/null; then
    echo "no nightly toolchain: the fuzz targets are left out (rustup toolchain install nightly)"
    return
  fi
  fuzz/run.sh
}

interop() {
  cargo build --release
  tests/interop/run.sh
}

for step in "${steps[@]}"; do
  case $step in
    style | rust | loom | sanitizers | fuzz | interop) ;;
    *) sed -n '2,19s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
  say "$step"
  "$step"
done
say "all passed: ${steps[*]}"
