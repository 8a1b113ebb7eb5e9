#!/bin/sh
# Begins a session and prints its ID. usage: perf/wrk/session.sh [URL]
set -eu
url=${1:-http://127.0.0.1:8080/mcp}
post() {
  curl -s "$url" -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' "$@"
}
session=$(post -D - -o /dev/null -d '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{
  "protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"wrk","version":"1"}}}' |
  tr -d '\r' | sed -n 's/^mcp-session-id: //p')
post -o /dev/null -H "Mcp-Session-Id: $session" -d '{"jsonrpc":"2.0","method":"notifications/initialized"}'
echo "$session"
