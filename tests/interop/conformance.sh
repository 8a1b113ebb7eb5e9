#!/usr/bin/env bash
# Runs the official conformance suite for 2025-11-25 against a server.
#
# usage: conformance.sh URL
#
# One `ok` or `not ok` line per scenario. All 30 scored scenarios have to pass, and the three that the suite runs without scoring.
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
url="${1:?usage: conformance.sh URL}"
package="$("$here/install.sh" --print-cache)/conformance/node_modules/@modelcontextprotocol/conformance"
[ -f "$package/dist/index.js" ] || { echo "the conformance suite is not installed (run tests/interop/install.sh)" >&2; exit 2; }

results="$(mktemp -d)"
trap 'rm -rf "$results"' EXIT

# The suite's own exit code is about the scored scenarios only; what counts is what it wrote.
timeout 300 node --import "$here/fs_glob.mjs" "$package/dist/index.js" server \
  --url "$url" --requirements 2025-11-25 --output-dir "$results/out" >"$results/log" 2>&1 || true
if ! node "$here/conformance_check.mjs" "$package/requirements/2025-11-25.yaml" "$results/out"; then
  [ -d "$results/out" ] || tail -n 20 "$results/log" >&2
  exit 1
fi
