#!/usr/bin/env bash
# Builds the fuzz targets and runs each for a while.
#
# usage: fuzz/run.sh [TARGET ...]     without a target: all of them
#
# RINGMAIN_FUZZ_SECONDS: how long each runs; default 20. It begins with the inputs in fuzz/seeds and those found before,
# in target/fuzz/corpus. An input that fails is kept in target/fuzz/failures, and its path is printed:
# target/fuzz/HOST/release/TARGET PATH runs it again.
#
# Needs a nightly toolchain and a C++ compiler. The flags are those of cargo-fuzz, which works here too.
set -euo pipefail
cd "$(dirname "$0")"

target_dir="${CARGO_TARGET_DIR:-$PWD/../target}/fuzz"
host=$(rustc +nightly -vV | sed -n 's/^host: //p')
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-pc-table"
flags="$flags -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-trace-compares"
flags="$flags --cfg fuzzing -Zsanitizer=address -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1"
RUSTFLAGS="$flags" CARGO_TARGET_DIR="$target_dir" cargo +nightly build --locked --release --quiet --target "$host"

targets=("$@")
[ $# -gt 0 ] || targets=($(cd targets && ls *.rs | sed 's/\.rs$//'))
mkdir -p "$target_dir/failures"
for target in "${targets[@]}"; do
  mkdir -p "$target_dir/corpus/$target"
  log="$target_dir/$target.log"
  if ! "$target_dir/$host/release/$target" -max_total_time="${RINGMAIN_FUZZ_SECONDS:-20}" -max_len=4096 -timeout=20 \
    -rss_limit_mb=4096 -print_final_stats=1 -artifact_prefix="$target_dir/failures/$target-" \
    "$target_dir/corpus/$target" "seeds/$target" >"$log" 2>&1; then
    grep -a -A 2 -e 'panicked at' -e 'ERROR: ' "$log" | head -n 20 >&2 || true
    tail -n 12 "$log" >&2
    echo "not ok fuzz $target" >&2
    exit 1
  fi
  echo "ok fuzz $target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") runs," \
    "$(grep -o 'cov: [0-9]*' "$log" | tail -n 1 | cut -d' ' -f2) edges, $(ls "$target_dir/corpus/$target" | wc -l) inputs found"
done
