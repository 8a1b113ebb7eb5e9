#!/usr/bin/env bash
# Installs the pinned clients, the conformance suite and the spell checker into a cache outside the source tree.
#
# usage: install.sh [PART ...]     without a part: all of them
#
# The cache is ${RINGMAIN_CACHE}, else ${XDG_CACHE_HOME}/ringmain, else ~/.cache/ringmain. Each part has its own folder and a
# stamp that holds its pin; a part whose stamp matches is left alone. With --print-cache the script only says where the cache is.
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
NODE_NEEDED=20
PYTHON_NEEDED=10 # minor version of Python 3

# Folder, kind and pin of each part. The two TypeScript clients live apart, as their dependencies may differ.
PARTS=(
  "ts1 npm @modelcontextprotocol/sdk@1.32.2"
  "ts2 npm @modelcontextprotocol/client@2.4.0"
  "conformance npm @modelcontextprotocol/conformance@0.2.0-alpha.12"
  "py1 pip mcp==1.30.0"
  "py2 pip mcp==2.3.0"
  "typos pip typos==1.52.0"
)

cache="${RINGMAIN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ringmain}/interop"
if [ "${1:-}" = "--print-cache" ]; then
  echo "$cache"
  exit 0
fi

say() { echo "install: $*" >&2; }
stop() { say "$*"; exit 1; }

node_major() { node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0; }
python_minor() { python3 -c 'import sys; print(sys.version_info[1] if sys.version_info[0] == 3 else 0)' 2>/dev/null || echo 0; }
can_make_venv() { python3 -c 'import venv, ensurepip' >/dev/null 2>&1; }

missing_packages() {
  command -v node >/dev/null || echo nodejs
  command -v npm >/dev/null || echo npm
  if ! command -v python3 >/dev/null || ! can_make_venv; then echo python3-venv; fi
}

need_tools() {
  local missing
  missing="$(missing_packages | xargs)"
  if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      say "installing with apt-get: $missing"
      export DEBIAN_FRONTEND=noninteractive
      apt-get update -qq >&2
      # shellcheck disable=SC2086 # a list of words
      apt-get install -y -qq --no-install-recommends $missing ca-certificates >&2
    else
      stop "missing: $missing (needed: node >= $NODE_NEEDED with npm, python >= 3.$PYTHON_NEEDED with venv); install them and run this again"
    fi
  fi
  [ "$(node_major)" -ge "$NODE_NEEDED" ] \
    || stop "node $(node --version 2>/dev/null || echo '(none)') is too old: node >= $NODE_NEEDED is needed (Debian 12 has 18 and Debian 13 has 20; take a newer release of node)"
  [ "$(python_minor)" -ge "$PYTHON_NEEDED" ] \
    || stop "$(python3 --version 2>/dev/null || echo 'no python3') is too old: python >= 3.$PYTHON_NEEDED is needed"
  can_make_venv || stop "python3 has no venv module: install python3-venv"
}

install_part() {
  local name="$1" kind="$2" pin="$3"
  local folder="$cache/$name" stamp
  stamp="$kind $pin node$(node_major) py3.$(python_minor)"
  if [ "$(cat "$folder/stamp" 2>/dev/null || true)" = "$stamp" ]; then return; fi
  say "installing $pin ($kind) into $folder"
  rm -rf "$folder"
  mkdir -p "$folder"
  case "$kind" in
    npm)
      echo '{"private": true, "type": "module"}' >"$folder/package.json"
      # No install scripts: none of the pinned packages needs one.
      (cd "$folder" && npm install --no-audit --no-fund --no-save --ignore-scripts --no-package-lock --loglevel=error "$pin") >&2
      ;;
    pip)
      python3 -m venv "$folder/venv"
      "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$pin" >&2
      ;;
  esac
  echo "$stamp" >"$folder/stamp"
}

# The browser is for one step alone, which is left out without it.
need_browser() {
  if "$here/browser.sh" --print >/dev/null; then return; fi
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing with apt-get: chromium"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >&2 \
      || say "chromium cannot be installed: the page in a browser will be left out"
  else
    say "no chromium: the page in a browser will be left out (apt-get install chromium, or set RINGMAIN_CHROMIUM)"
  fi
}

need_tools
[ $# -gt 0 ] || need_browser
for part in "${PARTS[@]}"; do
  read -r name kind pin <<<"$part"
  if [ $# = 0 ] || [[ " $* " == *" $name "* ]]; then install_part "$name" "$kind" "$pin"; fi
done
say "ready in $cache"
