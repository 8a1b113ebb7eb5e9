#!/usr/bin/env bash
# Pastes the walk-through of the README into a shell and looks at what comes out.
#
# usage: readme.sh URL
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
url="${1:?usage: readme.sh URL}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# The shell blocks of that section, against this server.
awk '/^## /{inside = /walk-through/} inside && /^```sh/{block = 1; next} /^```/{block = 0} inside && block' \
  "$here/../../README.md" | sed "s|http://127.0.0.1:8080/mcp|$url|; s|/tmp/cut.txt|$work/cut.txt|" >"$work/paste.sh"
# The cut makes curl leave with 28; a pasted command goes on after that, and so does this.
timeout 60 bash "$work/paste.sh" >"$work/out" || true

failed=0
expect() {
  if [ "$2" = "$3" ]; then echo "ok $1"; else echo "not ok $1: $2 instead of $3"; failed=1; fi
}
expect "the tool answers" "$(grep -c 'This is a simple text response' "$work/out")" 1
cut_off="$(grep -c '"message":"step' "$work/cut.txt" || true)"
if [ "$cut_off" -ge 1 ] && [ "$cut_off" -lt 10 ]; then echo "ok the call is cut in the middle"; else
  echo "not ok the call is cut in the middle: after $cut_off steps"; failed=1; fi
expect "each step comes once" "$(grep -o '"message":"step [0-9]*"' "$work/out" | sort | uniq | wc -l) of $(grep -c '"message":"step' "$work/out")" "10 of 10"
expect "the result comes once" "$(grep -c '"text":"done 10"' "$work/out")" 1
exit "$failed"
