#!/bin/sh
# The smallest example builds and runs against the installed headers and library alone, by pkg-config.
set -eu
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
DESTDIR=$root/installed meson install -C "$2" --no-rebuild --quiet
PKG_CONFIG_PATH=$(dirname "$(find "$root/installed" -name flotilla.pc)")
PKG_CONFIG_SYSROOT_DIR=$root/installed
export PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR
{ echo '#include <flotilla/standard.hpp>' && cat "$1/examples/one_member.cpp"; } >"$root/one_member.cpp"
# Only our own paths move with the sysroot; the system's libraries stay where they are.
flags=$(pkg-config --cflags --libs flotilla | sed "s|$root/installed/usr/lib|/usr/lib|g; s|$root/installed/usr/include|/usr/include|g")
# shellcheck disable=SC2086  # flags are words
c++ -std=c++20 -O0 "$root/one_member.cpp" -o "$root/one_member" $flags
"$root/one_member" "$root/data" | grep -q '^alice 7500$'
