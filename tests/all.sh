#!/usr/bin/env bash
# Passes every test of ringmain, in their short forms.
#
# usage: tests/all.sh [STEP ...]     without a step: all of them, in this order
#
#   style        format, clippy and rustdoc, warnings denied; the public API is the one in docs/public-api.txt
#   packages     spelling, by typos; licences, sources and duplicates of dependencies, by cargo-deny, and every set of features, by
#                cargo-hack, where these two are installed (cargo install cargo-deny cargo-hack --locked)
#   rust         unit, property, socket and documentation tests; each feature alone; the core without a network
#   loom         the models of the lock-free modules
#   sanitizers   address sanitizer on the core, on what safe code can do to it (tests/misuse.rs) and on the server; thread
#                sanitizer on the modules without locks (needs nightly; says so and goes on where there is none)
#   alerts       the rules of docs/alerts.yml, by promtool (Debian package prometheus; left out where there is none)
#   fuzz         each fuzz target for 20 seconds, or RINGMAIN_FUZZ_SECONDS (needs nightly and a C++ compiler, likewise)
#   interop      official clients, cuts, drain, a page in a browser, and the conformance suite against the release binary
#
# It needs: Rust 1.88 or later with rustfmt and clippy, a C and a C++ compiler, Node.js 20 or later with npm, Python 3.10 or
# later with venv, and 6 GB of disk. It installs, into ~/.cache/ringmain and nowhere else: the official TypeScript clients and the
# conformance suite from npm, the official Python clients from PyPI, in pinned versions (tests/interop/install.sh).
# As root on a Debian-like machine without Node.js, Python, Chromium or promtool it installs those by apt-get first. Elsewhere the
# page in a browser is left out if there is no Chromium, and it is said so.
set -euo pipefail
cd "$(dirname "$0")/.."
# Nothing here is compiled twice with a change between: what the compiler would keep for that is disk and time for nothing.
export CARGO_INCREMENTAL="${CARGO_INCREMENTAL:-0}"

steps=("$@")
[ $# -gt 0 ] || steps=(style packages rust alerts loom sanitizers fuzz interop)
began=$SECONDS

say() { printf '\n=== %s (%ss)\n' "$*" $((SECONDS - began)); }

style() {
  cargo fmt --all --check
  cargo fmt --manifest-path fuzz/Cargo.toml --check
  cargo clippy --locked --workspace --all-targets -- -D warnings
  cargo clippy --locked -p ringmain --no-default-features -- -D warnings
  RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet
  tests/public_api.py
}

packages() {
  tests/interop/install.sh typos
  "$(tests/interop/install.sh --print-cache)/typos/venv/bin/typos"
  if cargo deny --version 2>/dev/null; then
    cargo deny --all-features check bans licenses sources
  else
    echo "no cargo-deny: licences and duplicates are left out"
  fi
  if cargo hack --version 2>/dev/null; then
    cargo hack check --locked -p ringmain --feature-powerset --exclude-features default --quiet
  else
    echo "no cargo-hack: sets of features are left out"
  fi
}

# Fails if the library, built with these flags, depends on a crate whose name begins with one of these.
depends_on_none() {
  local names="$1" tree
  shift
  tree=$(cargo tree --locked -p ringmain "$@" --edges normal --prefix none)
  if grep -E "^($names)" <<<"$tree"; then
    echo "ringmain${*:+ $*} depends on a crate that it must not need" >&2
    return 1
  fi
}

rust() {
  cargo test --locked --workspace --exclude loom-tests
  # Once more with the streams inside hyper, as they are over HTTP/2 and on systems without the writer.
  # The same packages as above: with others, cargo would unite their features differently and compile everything again.
  RINGMAIN_TEST_INSIDE_HYPER=1 cargo test --locked --workspace --exclude loom-tests --test '*'
  cargo test --locked -p ringmain --no-default-features --lib --quiet
  for feature in server tls tokens auth rmcp everything; do
    cargo check --locked -p ringmain --no-default-features --features "$feature" --quiet
  done
  # The direction of the layers, by their dependencies. The core knows no network, no runtime and no store; the library knows
  # no command line, configuration file, log writer or allocator.
  depends_on_none 'hyper|tokio|redis' --no-default-features
  depends_on_none 'bytesize|clap|humantime|libmimalloc|mimalloc|strsim|toml|tracing-subscriber'
}

alerts() {
  if ! command -v promtool >/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      (apt-get update && apt-get install -y --no-install-recommends prometheus) >/dev/null 2>&1 || true
    fi
  fi
  if ! command -v promtool >/dev/null; then
    echo "no promtool: the alerts are left out (apt-get install prometheus)"
    return
  fi
  promtool check rules docs/alerts.yml
  promtool test rules tests/alerts_test.yml
}

loom() {
  # An own target folder: the flag changes every crate.
  RUSTFLAGS="--cfg ringmain_loom --cfg crossbeam_loom" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom" \
    cargo test --locked --release -p loom-tests
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
    cargo +nightly test --locked -p ringmain --no-default-features --features server --lib "${tests[@]/#/--test=}" --target "$host" --quiet
  # Every public type of the core, misused. It forgets values and panics in drops on purpose, which leaks.
  ASAN_OPTIONS=detect_leaks=0 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/address" \
    cargo +nightly test --locked -p ringmain --no-default-features --features server --test=misuse --target "$host" --quiet
  # Threads: the modules without locks. What the standard library was compiled to hides its locks and fences from this
  # sanitizer, so that whatever is behind a mutex is reported; what of it concerns these modules is named in a file.
  # Nor can it see the lock under which a panic's backtrace is printed.
  RUST_BACKTRACE=0 RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/thread" \
    TSAN_OPTIONS="suppressions=$PWD/tests/thread_sanitizer.txt print_suppressions=0" \
    cargo +nightly test --locked -p ringmain --no-default-features --features server --lib --target "$host" --quiet -- ring:: wake:: sse:: stream::
}

fuzz() {
  if ! rustc +nightly --version 2>/dev/null; then
    echo "no nightly toolchain: the fuzz targets are left out (rustup toolchain install nightly)"
    return
  fi
  fuzz/run.sh
}

interop() {
  cargo build --locked --release
  tests/interop/run.sh
}

for step in "${steps[@]}"; do
  case $step in
    style | packages | rust | alerts | loom | sanitizers | fuzz | interop) ;;
    *) sed -n '2,22s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
  say "$step"
  "$step"
done
say "all passed: ${steps[*]}"
