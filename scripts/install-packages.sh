#!/bin/sh
# Installs the Debian packages that building and testing need, where they are missing, and says which. With `--print`, only
# prints the line that would. Quick when everything is there.
set -eu

build="gcc make libc6-dev libuv1-dev node-llhttp libcjson-dev libpcre2-dev libutf8proc-dev libxxhash-dev libinih-dev libsodium-dev"
tests="g++ libcmocka-dev python3 python3-venv curl"

missing=""
for package in $build $tests; do
    state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

line="apt-get install -y --no-install-recommends$missing"
if [ "${1:-}" = --print ]; then
    echo "$line"
    exit 0
fi
if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root="sudo"
else
    echo "These Debian packages are missing. As root, run:"
    echo "    $line"
    exit 1
fi
echo "Installing what is missing from Debian:$missing"
$as_root apt-get update -qq || echo "(the package lists could not be refreshed; trying with those that are here)"
# shellcheck disable=SC2086  # a list of words
DEBIAN_FRONTEND=noninteractive $as_root $line </dev/null >/dev/null
