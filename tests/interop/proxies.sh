#!/usr/bin/env bash
# Puts proxies in front of a server, as docs/operations.md configures them: clients are cut at random and resume.
#
# usage: proxies.sh BINARY [PROXY…]     nginx and haproxy, or those that are named
#        proxies.sh --print             prints those of nginx and haproxy that are there; installs them first if it may
#
# Others: caddy, apache2, lighttpd, varnishd. As root missing ones are installed from Debian; else they are left out.
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
export PATH="$PATH:/usr/sbin"

package() {
  case "$1" in
    nginx) echo nginx-light ;;
    varnishd) echo varnish ;;
    haproxy | caddy | apache2 | lighttpd) echo "$1" ;;
    *) echo "no such proxy: $1" >&2; exit 2 ;;
  esac
}

binary="${1:?usage: proxies.sh BINARY [PROXY…]}"
shift
wanted=("$@")
[ "$#" != 0 ] || wanted=(nginx haproxy)

missing=""
for name in "${wanted[@]}"; do
  needed="$(package "$name")"
  command -v "$name" >/dev/null || missing="$missing $needed"
done
if [ -n "$missing" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing with apt-get:$missing" >&2
  # shellcheck disable=SC2086
  { apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } >&2 || true
fi

there=()
for name in "${wanted[@]}"; do
  if command -v "$name" >/dev/null; then
    there+=("$name")
  else
    echo "-- $name is left out: it is not installed (apt-get install $(package "$name"))" >&2
  fi
done
if [ "$binary" = --print ]; then
  [ "${#there[@]}" != 0 ] && echo "${there[@]}"
  exit
fi
[ "${#there[@]}" != 0 ] || exit 2
exec node "$here/proxies.mjs" "$binary" "${there[@]}"
