#!/usr/bin/env bash
# Drives a server with the official clients, the cutting proxy, a page in a browser and the conformance suite.
#
# usage: run.sh [SERVER_BINARY]     starts `SERVER_BINARY serve --listen 127.0.0.1:PORT`, stops it afterwards
#        run.sh --url URL           drives a server that is running already
#
# Without a binary: target/release/ringmain, else target/debug/ringmain. The last line is the count of all steps.
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../.." && pwd)"
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1

url=""
binary=""
case "${1:-}" in
  --url) url="${2:?--url needs a URL}" ;;
  -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
  "")
    target="${CARGO_TARGET_DIR:-$root/target}"
    for candidate in "$target/release/ringmain" "$target/debug/ringmain"; do
      if [ -x "$candidate" ]; then binary="$candidate"; break; fi
    done
    [ -n "$binary" ] || { echo "no server: build one (cargo build --release) or name a binary" >&2; exit 2; }
    ;;
  *) binary="$1" ;;
esac

"$here/install.sh"
cache="$("$here/install.sh" --print-cache)"

work="$(mktemp -d)"
server=""
clean_up() {
  if [ -n "$server" ]; then
    kill "$server" 2>/dev/null || true
    # The server gets ten seconds to drain, then it is stopped for good.
    timeout 10 tail --pid="$server" -f /dev/null || kill -9 "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
  fi
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

if [ -n "$binary" ]; then
  port="$(node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close(); })')"
  "$binary" serve --listen "127.0.0.1:$port" >"$work/server.log" 2>&1 &
  server=$!
  url="http://127.0.0.1:$port/mcp"
fi

if ! node "$here/answers.mjs" "$url" ${server:+"$server"}; then
  [ -z "$server" ] || tail -n 20 "$work/server.log" >&2
  exit 1
fi

passed=0
failed=0

# Runs one script with a deadline and adds up its `ok` and `not ok` lines. A script that fails without saying which step counts once.
run() {
  local name="$1" seconds="$2"
  shift 2
  echo "== $name"
  local status=0 ok not_ok
  timeout --kill-after=5 "$seconds" "$@" </dev/null >"$work/out" 2>"$work/err" || status=$?
  cat "$work/out"
  ok="$(grep -c '^ok ' "$work/out" || true)"
  not_ok="$(grep -c '^not ok ' "$work/out" || true)"
  if { [ "$status" != 0 ] || [ "$ok" = 0 ]; } && [ "$not_ok" = 0 ]; then
    echo "not ok $name: exit status $status after $ok steps"
    not_ok=1
  fi
  if [ "$not_ok" != 0 ]; then tail -n 20 "$work/err" >&2; fi
  passed=$((passed + ok))
  failed=$((failed + not_ok))
}

run "TypeScript sdk 1.32" 150 node "$here/ts_sdk1.mjs" "$url"
run "TypeScript client 2.4" 150 node "$here/ts_client2.mjs" "$url"
run "Python mcp 1.30" 150 "$cache/py1/venv/bin/python" "$here/py_mcp.py" "$url"
run "Python mcp 2.3" 150 "$cache/py2/venv/bin/python" "$here/py_mcp.py" "$url"
run "cuts, no SDK" 150 node "$here/cut_raw.mjs" "$url"
run "cuts, TypeScript sdk 1.32" 240 node "$here/cut_sdk1.mjs" "$url"
run "cuts, TypeScript client 2.4" 240 node "$here/cut_client2.mjs" "$url"
run "cuts, Python mcp 1.30" 250 "$cache/py1/venv/bin/python" "$here/cut_py.py" "$url"
run "cuts, Python mcp 2.3" 250 "$cache/py2/venv/bin/python" "$here/cut_py.py" "$url"
run "two clients on one session" 120 node "$here/two_clients.mjs" "$url"
run "the walk-through of the README" 90 "$here/readme.sh" "$url"
if [ -z "$binary" ]; then
  echo "-- the page in a browser is left out: it starts a server of its own, and needs a binary"
elif ! "$here/browser.sh" --print >/dev/null; then
  echo "-- the page in a browser is left out: there is no Chromium (apt-get install chromium, or set RINGMAIN_CHROMIUM)"
else
  run "a page in a browser" 160 "$here/browser.sh" "$binary"
fi
if [ -n "$binary" ]; then
  # These start servers of their own, to end them.
  run "refusals of large bodies" 420 node "$here/refused.mjs" "$binary" "$cache/py1/venv/bin/python"
  run "drain, TypeScript sdk 1.32" 120 node "$here/drain_sdk1.mjs" "$binary"
  run "drain, TypeScript client 2.4" 120 node "$here/drain_client2.mjs" "$binary"
  run "drain, Python mcp 1.30" 120 "$cache/py1/venv/bin/python" "$here/drain_py.py" "$binary"
  run "drain, Python mcp 2.3" 120 "$cache/py2/venv/bin/python" "$here/drain_py.py" "$binary"
fi
if [ -z "$binary" ]; then
  echo "-- proxies are left out: they start a server of their own, and need a binary"
elif ! proxies="$("$here/proxies.sh" --print)"; then
  echo "-- proxies are left out: neither nginx nor haproxy is there (apt-get install nginx-light haproxy)"
else
  # shellcheck disable=SC2086 # a list of words
  run "proxies: $proxies" 300 "$here/proxies.sh" "$binary" $proxies
fi
run "conformance 2025-11-25" 320 "$here/conformance.sh" "$url"

if [ -n "$server" ]; then
  if kill -0 "$server" 2>/dev/null; then
    passed=$((passed + 1))
    echo "ok the server is still there"
  else
    failed=$((failed + 1))
    echo "not ok the server is still there: it ended by itself"
    tail -n 20 "$work/server.log" >&2
  fi
fi

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
