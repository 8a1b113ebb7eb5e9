#!/usr/bin/env bash
# Opens a page in headless Chromium that uses a server of its own on another origin (browser.mjs).
#
# usage: browser.sh SERVER_BINARY
#        browser.sh --print          says which browser it would take; fails without one
#
# Takes ${RINGMAIN_CHROMIUM}, else chromium, chromium-browser or google-chrome from the path.
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"

browser() {
  local name
  for name in "${RINGMAIN_CHROMIUM:-}" chromium chromium-browser google-chrome; do
    if [ -n "$name" ] && command -v "$name"; then return; fi
  done
  return 1
}

if [ "${1:-}" = "--print" ]; then
  browser
  exit
fi
found="$(browser)" || { echo "no Chromium: apt-get install chromium, or set RINGMAIN_CHROMIUM" >&2; exit 2; }
exec node "$here/browser.mjs" "${1:?usage: browser.sh SERVER_BINARY}" "$found"
