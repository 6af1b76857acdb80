#!/bin/sh
# The smallest example keeps its data from one run to the next, and a transfer that fails changes nothing.
set -eu
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
expect() {
  got=$("$1" "$directory/data")
  [ "$got" = "$2" ] || { printf 'expected:\n%s\ngot:\n%s\n' "$2" "$got"; exit 1; }
}
expect "$1" "alice has 7500
alice 7500
bob 12500"
expect "$1" "alice has 5000
alice 5000
bob 15000"
expect "$1" "alice has 2500
alice 2500
bob 17500"
expect "$1" "alice has 0
alice 0
bob 20000"
expect "$1" "alice has not enough
alice 0
bob 20000"
