#!/usr/bin/env bash
# Each header compiles alone, with the flags of the build.
set -euo pipefail
source "$(dirname "$0")/sources.sh"
libraries='libevent_core libevent_extra hiredis libxxhash yaml-0.1 libssl jansson cmocka'
# shellcheck disable=SC2046,SC2086 # flags are words
set -- $(pkg-config --cflags $libraries)
export flags="-std=gnu11 -D_GNU_SOURCE -DSIDRAIL_VERSION=\"0\" -I. -Wall -Wextra -Wshadow -Wstrict-prototypes -Werror -fsyntax-only $*"
# one is given to sh as $1: sh -c SCRIPT sh HEADER
# shellcheck disable=SC2016
ours shared proxy broker tests -- '*.h' | xargs -P 2 -n 1 sh -c '
    printf "#include \"%s\"\n" "$1" | cc $flags -x c - || { echo "$1 does not compile alone"; exit 1; }
    grep -q "^#pragma once" "$1" || { echo "$1: no #pragma once"; exit 1; }' sh
