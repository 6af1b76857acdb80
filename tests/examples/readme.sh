#!/bin/sh
# The first fenced C++ block of README.md is examples/one_member.cpp, letter by letter, and that has under 50 lines.
set -eu
cd "$1"
block=$(mktemp)
trap 'rm -f "$block"' EXIT
awk '/^```cpp$/ && !seen {seen = inside = 1; next} /^```$/ {inside = 0} inside' README.md >"$block"
diff -u examples/one_member.cpp "$block"
lines=$(wc -l <examples/one_member.cpp)
[ "$lines" -lt 50 ] || { echo "examples/one_member.cpp has $lines lines"; exit 1; }
