#!/usr/bin/env bash
# Includes point downward only, and third-party headers stay where they belong.
#
#   lib, examples -> include/flotilla <- src/node -> src/{raft, log, state, net} -> src/base
#
# Prints each line that breaks a rule and fails. `layers.sh --self-test` plants one breach of each rule and sees it found.
set -u
root=${1:-.}

# Which folders of ours each folder may include, besides its own.
allowed() {
  case $1 in
    include/flotilla) echo 'flotilla' ;;
    lib | examples) echo 'flotilla' ;;
    src/base) echo 'flotilla base' ;;
    src/raft) echo 'flotilla base raft' ;;
    src/log | src/state | src/net) echo "flotilla base raft ${1#src/}" ;;
    src/node) echo 'flotilla base raft log state net node' ;;
    src/cli) echo 'flotilla base raft log state node cli' ;;
  esac
}

# Third-party and system headers that only the named places may include (a path prefix each). The benchmark's clients of
# others are others' clients.
declare -A home=(
  ['lmdb\.h']='src/state/ examples/bench/lmdb_worker.cpp'
  ['boost/(asio|beast)']='src/net/asio.hpp include/flotilla/asio.hpp examples/bench/redis_worker.cpp'
  ['boost/']='src/ include/flotilla/asio.hpp examples/bench/redis_worker.cpp'
  ['msgpack']='include/flotilla/typed.hpp'
  ['fmt/']='src/ examples/ lib/'
  ['xxh']='src/'
)
# What the pure core must not know: threads, clocks, chance, files, streams.
impure='thread|mutex|shared_mutex|condition_variable|future|atomic|random|chrono|ctime|fstream|iostream|filesystem|unistd\.h|sys/[a-z]+\.h|fcntl\.h|time\.h|pthread\.h'

breaches=0
breach() {
  echo "$1"
  breaches=$((breaches + 1))
}

check() {
  local folder files file line number text target
  for folder in include/flotilla lib examples src/base src/raft src/log src/state src/net src/node src/cli; do
    [ -d "$root/$folder" ] || continue
    local may
    may=" $(allowed $folder) "
    while IFS=: read -r file number text; do
      file=${file#"$root"/}
      [[ $text =~ [\"\<]([^\"\>]+)[\"\>] ]] || continue
      target=${BASH_REMATCH[1]}
      case $text in
        *'"'*)
          case $target in
            */*)
              local first=${target%%/*}
              if [ -d "$root/src/$first" ] || [ "$first" = flotilla ]; then
                [[ $may == *" $first "* ]] || breach "$file:$number: $folder must not include $target"
              elif [[ $folder != examples && $folder != lib ]]; then
                breach "$file:$number: $target is neither a layer's nor the public header"
              fi
              ;;
            *) [[ $folder = examples || $folder = lib ]] || breach "$file:$number: name the folder: $target" ;;
          esac
          ;;
        *)
          if [ $folder = src/raft ] && [[ $target =~ ^($impure)$ ]]; then
            breach "$file:$number: the core is pure; it must not include <$target>"
          fi
          [ -d "$root/src/${target%%/*}" ] && [[ $target == */* ]] &&
            breach "$file:$number: write \"$target\", with quotes"
          ;;
      esac
      local pattern place at_home
      for pattern in "${!home[@]}"; do
        [[ $target =~ ^$pattern ]] || continue
        at_home=no
        for place in ${home[$pattern]}; do [[ $file == "$place"* ]] && at_home=yes; done
        [ $at_home = yes ] || breach "$file:$number: <$target> belongs to ${home[$pattern]} only"
      done
    done < <(grep -rnE --include='*.hpp' --include='*.cpp' '^[[:space:]]*#[[:space:]]*include' "$root/$folder")
  done
}

self_test() {
  # Global: the trap outlives this function.
  scratch=$(mktemp -d) || exit 1
  trap 'rm -rf "$scratch"' EXIT
  mkdir -p "$scratch"/{include/flotilla,lib,src/{base,raft,log,state,net,node}}
  local -a planted=(
    'src/base/a.hpp|#include "raft/core.hpp"'
    'src/raft/a.cpp|#include "log/log.hpp"'
    'src/raft/b.cpp|#include <thread>'
    'src/log/a.hpp|#include "state/store.hpp"'
    'src/net/a.cpp|#include <lmdb.h>'
    'src/net/b.cpp|#include <boost/asio.hpp>'
    'src/state/a.cpp|#include "node/node.hpp"'
    'src/node/a.cpp|#include "a.hpp"'
    'include/flotilla/a.hpp|#include "base/bytes.hpp"'
    'include/flotilla/b.hpp|#include <fmt/format.h>'
    'lib/a.cpp|#include "state/store.hpp"'
  )
  local one missed=0
  for one in "${planted[@]}"; do
    echo "${one#*|}" >"$scratch/${one%%|*}"
    root=$scratch breaches=0
    check >/dev/null
    [ $breaches -ge 1 ] || { echo "not found: $one"; missed=$((missed + 1)); }
    rm "$scratch/${one%%|*}"
  done
  echo '#include "raft/entry.hpp"' >"$scratch/src/log/good.hpp"
  breaches=0
  check
  [ $breaches -eq 0 ] && [ $missed -eq 0 ]
}

if [ "$root" = --self-test ]; then
  self_test && echo "each of the rules finds its breach"
  exit
fi
check
[ $breaches -eq 0 ] && echo "includes point downward" || { echo "$breaches breaches of the layering (see HOUSE: includes)"; exit 1; }
